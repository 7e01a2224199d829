// What an instruction set must provide: a table of functions, chosen once at run time.
//
// All floats are fp32. A "tile" is 16 outputs of a matrix, a "group" 64 neighbouring inputs; both are padded with zeros.
// Every number of a result is computed by the same operations in the same order whatever the other rows of a call are,
// so a token's logits do not depend on what it was batched with.
#pragma once

#include <cstddef>
#include <cstdint>

namespace codegen25 {

constexpr int kLanes = 16;         // outputs of a tile, tokens of a page
constexpr int kGroup = 64;         // inputs that share one scale of the activations
constexpr int kChunk = 256;        // tokens over which one partial softmax is taken
constexpr int kQueries = 8;        // query vectors that share a pass over the keys

// Weights in the kernel's order. Tile t holds, for its inputs from first to last, 64-byte vectors: 16 outputs of four
// bytes each. At 8 bits the bytes are four neighbouring weights plus 128; at 4 bits the low halves are four neighbours
// and the high halves those `group / 2` further on, plus 8. Scales are fp16, 16 of them for every tile and group.
struct Weights {
    const uint8_t* bytes = nullptr;
    const uint16_t* scales = nullptr;
    int tiles = 0;
    int groups = 0;  // of 64 inputs
    int bits = 8;
    int sub = 1;     // scales per 64 inputs: 1 or 2

    size_t tile_bytes() const { return static_cast<size_t>(groups) * kGroup * kLanes * bits / 8; }
    size_t tile_scales() const { return static_cast<size_t>(groups) * sub * kLanes; }
};

// Rows of activations, rounded to 8 bits with a scale for every 64 (symmetric: the largest is 127).
struct Activations {
    int8_t* values = nullptr;   // [rows, 64 · groups]
    float* scales = nullptr;    // [rows, groups]
    // [rows, groups, kStarts]: what sums of products begin with, to take away by how much weights are shifted. For
    // weights of 4 bits, of the first 32 values, the other 32 and all 64; then the same for weights of 8 bits.
    int32_t* starts = nullptr;
    int groups = 0;

    static constexpr int kStarts = 6;
};

// One head's keys and values of 16 tokens, in bf16. Keys: [depth / 2][16 tokens][2]; values: [8 token pairs][depth][2].
// Neighbours stand in pairs because a 32-bit lane then holds two bf16 numbers that a shift and a mask turn into fp32.
struct Block {
    const uint16_t* keys = nullptr;
    const uint16_t* values = nullptr;
};

// Softmax-weighted values over some tokens, not yet divided by the sum: enough to be merged with other tokens'.
struct Partial {
    float* out;     // [depth]
    float* max;
    float* sum;
};

struct Kernels {
    const char* name;
    // out[row · stride + 16 · tile …] for tiles [first, last): written, or added to what is there.
    void (*multiply)(const Weights&, const Activations&, int rows, int first, int last, float* out, size_t stride,
                     bool add);
    // silu(gate) · up for the tiles of two matrices of one shape.
    void (*gated)(const Weights& gate, const Weights& up, const Activations&, int rows, int first, int last,
                  float* out, size_t stride);
    // x, as many as there are activations in a row, to row `row` of them.
    void (*quantize)(const float* x, const Activations&, int row);
    // x / rms(x) · weight (Zhang and Sennrich, 2019); both followed by zeros up to a whole tile.
    void (*rms_norm)(const float* x, const float* weight, int n, float eps, float* out);
    // Attention of `count` ≤ kQueries queries, [count, depth] already scaled, to the tokens of one chunk; query i sees
    // the first `visible[i]` > 0 of them. Blocks are those of the chunk, 16 tokens each.
    void (*attend)(const float* queries, int count, int depth, const Block* blocks, const int* visible,
                   const Partial* results);
    // acc := acc and next together.
    void (*merge)(const Partial& acc, const Partial& next, int depth);
    // Round rows of floats to integers and fp16 scales, as `quantize.py` does without calibration.
    void (*round8)(const float* x, int group, int8_t* integers, uint16_t* scale);
    void (*round4)(const float* x, int group, int8_t* integers, uint16_t* scale);
};

// Null where the machine (or the build) has not got it.
const Kernels* avx512_kernels();
const Kernels* avx2_kernels();
const Kernels* portable_kernels();

}  // namespace codegen25
