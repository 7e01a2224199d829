// A quantized matrix in the kernel's order, made from rows as files hold them.
#pragma once

#include <cstdint>

#include "kernels.h"
#include "memory.h"
#include "pool.h"

namespace codegen25 {

enum class Floats { f32, f16, bf16 };

class Matrix {
public:
    // Rows of `docs/formats.md`: integers [rows, columns] (8 bits) or [rows, columns / 2] (4 bits), and fp16 scales
    // [rows, columns / group]; group is 32 or 64 and divides columns (the matrix may have larger ones). Throws std::invalid_argument for scales that are
    // not finite.
    static Matrix packed(const uint8_t* integers, const uint8_t* scales, int rows, int columns, int bits, int group);

    // Rounded to nearest; `data` holds [rows, columns] numbers of a type. Throws std::invalid_argument for numbers that
    // are not finite, or too large for a scale.
    static Matrix quantized(const uint8_t* data, Floats type, int rows, int columns, int bits, Pool& pool,
                            const Kernels& kernels);

    int rows() const { return rows_; }
    int columns() const { return columns_; }
    int bits() const { return weights_.bits; }
    int group() const { return kGroup / weights_.sub; }
    size_t nbytes() const { return weights_.tiles * (weights_.tile_bytes() + weights_.tile_scales() * 2); }
    const Weights& weights() const { return weights_; }

    // Row n as floats [columns].
    void row(int n, float* out) const;

    // Row n as files hold it (`packed`), where the columns are whole groups.
    void stored(int n, uint8_t* integers, uint16_t* scales) const;

private:
    Matrix(int rows, int columns, int bits, int group);
    // One row's integers (rows of packed bytes) and scales into its tile.
    void put(int n, const uint8_t* integers, const uint8_t* scales);

    int rows_, columns_;
    Weights weights_;
    Arena::Piece bytes_, scales_;
};

}  // namespace codegen25
