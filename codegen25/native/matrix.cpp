#include "matrix.h"

#include <atomic>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "half.h"

namespace codegen25 {

Matrix::Matrix(int rows, int columns, int bits, int group) : rows_(rows), columns_(columns) {
    weights_.bits = bits;
    weights_.sub = kGroup / group;
    weights_.tiles = (rows + kLanes - 1) / kLanes;
    weights_.groups = (columns + kGroup - 1) / kGroup;
    static Arena arena;
    bytes_ = arena.take(weights_.tiles * weights_.tile_bytes());
    scales_ = arena.take(weights_.tiles * weights_.tile_scales() * sizeof(uint16_t));
    weights_.bytes = bytes_.get();
    weights_.scales = reinterpret_cast<const uint16_t*>(scales_.get());
}

void Matrix::put(int n, const uint8_t* integers, const uint8_t* scales) {
    const int lane = n % kLanes, group = kGroup / weights_.sub;
    uint8_t* tile = bytes_.get() + n / kLanes * weights_.tile_bytes() + 4 * lane;
    const int words = columns_ * weights_.bits / 32;
    const uint32_t flip = weights_.bits == 8 ? 0x80808080u : 0;  // signed to shifted; 4 bits are shifted in the file
    for (int i = 0; i < words; i++) {
        uint32_t word;
        std::memcpy(&word, integers + 4 * i, 4);
        word ^= flip;
        std::memcpy(tile + static_cast<size_t>(i) * 4 * kLanes, &word, 4);
    }
    uint16_t* to = reinterpret_cast<uint16_t*>(scales_.get()) + n / kLanes * weights_.tile_scales() + lane;
    for (int g = 0; g < columns_ / group; g++) {
        uint16_t scale;
        std::memcpy(&scale, scales + 2 * g, 2);
        if ((scale & 0x7c00u) == 0x7c00u) throw std::invalid_argument("a scale is not finite");
        to[g * kLanes] = scale;
    }
}

namespace {

// Whether every two scales that follow each other are one.
bool in_pairs(const uint8_t* scales, size_t count) {
    for (size_t i = 0; i + 1 < count; i += 2)
        if (std::memcmp(scales + 2 * i, scales + 2 * i + 2, 2) != 0) return false;
    return true;
}

}  // namespace

Matrix Matrix::packed(const uint8_t* integers, const uint8_t* scales, int rows, int columns, int bits, int group) {
    const size_t row_bytes = static_cast<size_t>(columns) * bits / 8, row_scales = columns / group;
    // What was in groups of 64 before it went through a format of 32 is so again: fewer bytes and sums.
    const bool paired = bits == 8 && group == 32 && columns % 64 == 0 && in_pairs(scales, rows * row_scales);
    Matrix matrix(rows, columns, bits, paired ? 64 : group);
    std::vector<uint8_t> halved(row_scales);
    for (int n = 0; n < rows; n++) {
        const uint8_t* row = scales + n * row_scales * 2;
        if (paired) {
            for (size_t i = 0; i < row_scales / 2; i++) std::memcpy(&halved[2 * i], row + 4 * i, 2);
            row = halved.data();
        }
        matrix.put(n, integers + n * row_bytes, row);
    }
    return matrix;
}

namespace {

void widen(const uint8_t* data, Floats type, int n, float* out) {
    if (type == Floats::f32) {
        std::memcpy(out, data, n * sizeof(float));
        return;
    }
    for (int i = 0; i < n; i++) {
        uint16_t half;
        std::memcpy(&half, data + 2 * i, 2);
        out[i] = type == Floats::bf16 ? bf16_to_float(half) : portable_half_to_float(half);
    }
}

bool all_finite(const float* x, int n) {
    uint32_t bad = 0;
    for (int i = 0; i < n; i++) bad |= (float_to_bits(x[i]) & 0x7f800000u) == 0x7f800000u;
    return !bad;
}

// Integers of one group of `group` as the file's order has them.
void pack_group(const int8_t* integers, int group, int bits, uint8_t* out) {
    if (bits == 8) {
        std::memcpy(out, integers, group);
        return;
    }
    for (int j = 0; j < group / 2; j++)
        out[j] = static_cast<uint8_t>((integers[j] + 8) | (integers[j + group / 2] + 8) << 4);
}

}  // namespace

Matrix Matrix::quantized(const uint8_t* data, Floats type, int rows, int columns, int bits, Pool& pool,
                         const Kernels& kernels) {
    const int group = bits == 8 ? 64 : 32, groups = (columns + group - 1) / group, padded = groups * group;
    Matrix matrix(rows, columns, bits, group);
    matrix.columns_ = padded;  // while rows are put in: they come with their padding
    const size_t row_bytes = static_cast<size_t>(columns) * (type == Floats::f32 ? 4 : 2);
    std::atomic<bool> finite = true, fits = true;
    pool.run(matrix.weights_.tiles, [&](int tile) {
        std::vector<float> x(padded);
        std::vector<int8_t> integers(group);
        std::vector<uint8_t> packed(static_cast<size_t>(padded) * bits / 8);
        std::vector<uint16_t> scales(groups);
        for (int n = tile * kLanes; n < rows && n < (tile + 1) * kLanes; n++) {
            widen(data + n * row_bytes, type, columns, x.data());
            if (!all_finite(x.data(), columns)) {
                finite = false;
                return;
            }
            for (int g = 0; g < groups; g++) {
                (bits == 8 ? kernels.round8 : kernels.round4)(&x[g * group], group, integers.data(), &scales[g]);
                if ((scales[g] & 0x7c00u) == 0x7c00u) {
                    fits = false;
                    return;
                }
                pack_group(integers.data(), group, bits, &packed[static_cast<size_t>(g) * group * bits / 8]);
            }
            matrix.put(n, packed.data(), reinterpret_cast<const uint8_t*>(scales.data()));
        }
    });
    if (!finite) throw std::invalid_argument("holds NaN or infinity");
    if (!fits) throw std::invalid_argument("holds numbers too large for fp16 scales");
    matrix.columns_ = columns;
    return matrix;
}

void Matrix::stored(int n, uint8_t* integers, uint16_t* scales) const {
    const uint8_t* tile = weights_.bytes + n / kLanes * weights_.tile_bytes() + 4 * (n % kLanes);
    const uint16_t* from = weights_.scales + n / kLanes * weights_.tile_scales() + n % kLanes;
    const int words = columns_ * weights_.bits / 32;
    const uint32_t flip = weights_.bits == 8 ? 0x80808080u : 0;
    for (int i = 0; i < words; i++) {
        uint32_t word;
        std::memcpy(&word, tile + static_cast<size_t>(i) * 4 * kLanes, 4);
        word ^= flip;
        std::memcpy(integers + 4 * static_cast<size_t>(i), &word, 4);
    }
    for (int g = 0; g < columns_ / group(); g++) scales[g] = from[static_cast<size_t>(g) * kLanes];
}

void Matrix::row(int n, float* out) const {
    const int lane = n % kLanes, group = kGroup / weights_.sub;
    const uint8_t* tile = weights_.bytes + n / kLanes * weights_.tile_bytes() + 4 * lane;
    const uint16_t* scales = weights_.scales + n / kLanes * weights_.tile_scales() + lane;
    for (int k = 0; k < columns_; k++) {
        const int g = k / group, in = k % group;
        const float scale = portable_half_to_float(scales[static_cast<size_t>(g) * kLanes]);
        const int half = group / 2;
        const size_t byte = weights_.bits == 8 ? k : static_cast<size_t>(g) * half + in % half;
        const int stored = tile[byte / 4 * 4 * kLanes + byte % 4];
        const int integer = weights_.bits == 8 ? stored - 128 : (in < half ? stored & 15 : stored >> 4) - 8;
        out[k] = static_cast<float>(integer) * scale;
    }
}

}  // namespace codegen25
