// The kernels, written once on the sixteen lanes of a `simd_….h` that is included before.
//
// Everything is in an unnamed namespace and nothing of the standard library is instantiated: a function that the linker
// may share between files must not be one that was compiled for a newer machine.
#pragma once

#include "kernels.h"

namespace {

using codegen25::Activations;
using codegen25::Block;
using codegen25::kChunk;
using codegen25::kGroup;
using codegen25::kLanes;
using codegen25::kQueries;
using codegen25::Partial;
using codegen25::Weights;

inline int32_t four_bytes(const int8_t* p) {
    int32_t x;
    __builtin_memcpy(&x, p, 4);
    return x;
}

// ------------------------------------------------------------------------------------------------------------- matrices

// Bytes that are asked of memory ahead of their use: some tiles, more than one of a small model is long.
constexpr uintptr_t kAhead = 16384;

struct Tile {
    const uint8_t* bytes;
    const uint16_t* scales;
};

inline Tile tile_of(const Weights& w, int t) {
    return {w.bytes + t * w.tile_bytes(), w.scales + t * w.tile_scales()};
}

// Rows [row, row + M) times NT tiles.
template <int BITS, int SUB, int M, int NT>
inline __attribute__((always_inline)) void dot_block(const Tile (&tiles)[NT], const Activations& x, int row,
                                                     F (&out)[M][NT]) {
    constexpr int kInputs = kGroup / SUB, kVectors = kInputs * kLanes * BITS / 8 / 64;
    constexpr int kStart = (BITS == 8 ? 3 : 0) + (SUB == 1 ? 2 : 0);
    const size_t width = static_cast<size_t>(x.groups) * kGroup;
    const int8_t* a = x.values + row * width;
    UNROLL for (int m = 0; m < M; m++) UNROLL for (int t = 0; t < NT; t++) out[m][t] = zero();
    for (int g = 0; g < x.groups; g++) {
        UNROLL for (int s = 0; s < SUB; s++) {
            const size_t at = static_cast<size_t>(g) * SUB + s;
            I c[M][NT];
            UNROLL for (int m = 0; m < M; m++) {
                const size_t group = static_cast<size_t>(row + m) * x.groups + g;
                const I start = set1(x.starts[group * Activations::kStarts + kStart + s]);
                UNROLL for (int t = 0; t < NT; t++) c[m][t] = start;
            }
            const int8_t* from = a + g * kGroup + s * kInputs;
            UNROLL for (int v = 0; v < kVectors; v++) {
                B low[NT], high[NT];
                UNROLL for (int t = 0; t < NT; t++) {
                    const uint8_t* p = tiles[t].bytes + (at * kVectors + v) * 64;
                    const B w = load_bytes(p);
                    prefetch(reinterpret_cast<uintptr_t>(p) + kAhead);
                    low[t] = BITS == 8 ? w : low_half(w);
                    if (BITS == 4) high[t] = high_half(w);
                }
                UNROLL for (int m = 0; m < M; m++) {
                    const int32_t near = four_bytes(from + m * width + 4 * v);
                    UNROLL for (int t = 0; t < NT; t++)
                        c[m][t] = BITS == 8 ? dot8(c[m][t], low[t], near) : dot4(c[m][t], low[t], near);
                }
                if (BITS == 4) UNROLL for (int m = 0; m < M; m++) {
                    const int32_t far = four_bytes(from + m * width + 4 * v + kInputs / 2);
                    UNROLL for (int t = 0; t < NT; t++) c[m][t] = dot4(c[m][t], high[t], far);
                }
            }
            F scale[NT];
            UNROLL for (int t = 0; t < NT; t++) {
                const uint16_t* p = tiles[t].scales + at * kLanes;
                scale[t] = from_half(p);
                prefetch(reinterpret_cast<uintptr_t>(p) + kAhead / kVectors / 2);
            }
            UNROLL for (int m = 0; m < M; m++) {
                const F factor = set1(x.scales[static_cast<size_t>(row + m) * x.groups + g]);
                UNROLL for (int t = 0; t < NT; t++)
                    out[m][t] = fma(to_float(c[m][t]), mul(scale[t], factor), out[m][t]);
            }
        }
    }
}

// What becomes of M rows of NT tiles, the first of them tile `t`.
struct Store {
    float* out;
    size_t stride;
    bool added;

    template <int M, int NT>
    void operator()(const F (&x)[M][NT], int row, int t) const {
        for (int m = 0; m < M; m++)
            for (int n = 0; n < NT; n++) {
                float* p = out + (row + m) * stride + static_cast<size_t>(t + n) * kLanes;
                store(p, added ? add(load(p), x[m][n]) : x[m][n]);
            }
    }
};

template <int BITS, int SUB, int M, int NT, class Sink>
__attribute__((noinline)) void run_block(const Weights& w, const Activations& x, int row, int t, const Sink& sink) {
    Tile tiles[NT];
    for (int n = 0; n < NT; n++) tiles[n] = tile_of(w, t + n);
    F out[M][NT];
    dot_block<BITS, SUB, M, NT>(tiles, x, row, out);
    sink(out, row, t);
}

// The last rows, fewer than kRows.
template <int BITS, int SUB, int NT, class Sink>
void run_rest(const Weights& w, const Activations& x, int row, int rows, int t, const Sink& sink) {
    switch (rows - row) {
        case 1: return run_block<BITS, SUB, 1, NT>(w, x, row, t, sink);
        case 2: return run_block<BITS, SUB, 2, NT>(w, x, row, t, sink);
        case 3: return run_block<BITS, SUB, 3, NT>(w, x, row, t, sink);
        default: break;
    }
    if constexpr (kRows > 4) switch (rows - row) {
        case 4: return run_block<BITS, SUB, 4, NT>(w, x, row, t, sink);
        case 5: return run_block<BITS, SUB, 5, NT>(w, x, row, t, sink);
        case 6: return run_block<BITS, SUB, 6, NT>(w, x, row, t, sink);
        case 7: return run_block<BITS, SUB, 7, NT>(w, x, row, t, sink);
        default: break;
    }
}

template <int BITS, int SUB, int NT, class Sink>
void run_tiles(const Weights& w, const Activations& x, int rows, int t, const Sink& sink) {
    int row = 0;
    for (; row + kRows <= rows; row += kRows) run_block<BITS, SUB, kRows, NT>(w, x, row, t, sink);
    run_rest<BITS, SUB, NT>(w, x, row, rows, t, sink);
}

template <int BITS, int SUB, class Sink>
void run_matrix(const Weights& w, const Activations& x, int rows, int first, int last, const Sink& sink) {
    int t = first;
    for (; t + kWide <= last; t += kWide) run_tiles<BITS, SUB, kWide>(w, x, rows, t, sink);
    if constexpr (kWide > 1)
        for (; t < last; t++) run_tiles<BITS, SUB, 1>(w, x, rows, t, sink);
}

template <class Sink>
void run(const Weights& w, const Activations& x, int rows, int first, int last, const Sink& sink) {
    if (w.bits == 8 && w.sub == 1) return run_matrix<8, 1>(w, x, rows, first, last, sink);
    if (w.bits == 8) return run_matrix<8, 2>(w, x, rows, first, last, sink);
    if (w.sub == 1) return run_matrix<4, 1>(w, x, rows, first, last, sink);
    run_matrix<4, 2>(w, x, rows, first, last, sink);
}

void multiply(const Weights& w, const Activations& x, int rows, int first, int last, float* out, size_t stride,
              bool added) {
    run(w, x, rows, first, last, Store{out, stride, added});
}

// --------------------------------------------------------------------------------------------------- between matrices

// e^x by 2^n · e^r with |r| ≤ ln(2) / 2 and a polynomial for e^r (Cephes, Moshier); 1e-7 relative.
inline F exp(F x) {
    x = min(max(x, set1(-87.0f)), set1(88.0f));
    const I n = round(mul(x, set1(1.44269504f)));
    const F whole = to_float(n);
    const F r = fma(whole, set1(2.12194440e-4f), fma(whole, set1(-0.693359375f), x));
    F p = set1(1.9875691500e-4f);
    p = fma(p, r, set1(1.3981999507e-3f));
    p = fma(p, r, set1(8.3334519073e-3f));
    p = fma(p, r, set1(4.1665795894e-2f));
    p = fma(p, r, set1(1.6666665459e-1f));
    p = fma(p, r, set1(5.0000001201e-1f));
    return mul(fma(mul(r, r), p, add(r, set1(1.0f))), exponent(n));
}

inline float exp(float x) {
    float lanes[kLanes];
    store(lanes, exp(set1(x)));
    return lanes[0];
}

// silu(what is there) · x
struct Gate {
    float* out;
    size_t stride;

    template <int M, int NT>
    void operator()(const F (&x)[M][NT], int row, int t) const {
        const F one = set1(1.0f);
        for (int m = 0; m < M; m++)
            for (int n = 0; n < NT; n++) {
                float* p = out + (row + m) * stride + static_cast<size_t>(t + n) * kLanes;
                const F g = load(p);
                store(p, mul(div(g, add(one, exp(sub(zero(), g)))), x[m][n]));
            }
    }
};

void gated(const Weights& gate, const Weights& up, const Activations& x, int rows, int first, int last, float* out,
           size_t stride) {
    for (int t = first; t < last; t += kWide) {
        const int end = t + kWide < last ? t + kWide : last;
        run(gate, x, rows, t, end, Store{out, stride, false});
        run(up, x, rows, t, end, Gate{out, stride});
    }
}

void quantize(const float* x, const Activations& to, int row) {
    int8_t* values = to.values + static_cast<size_t>(row) * to.groups * kGroup;
    float* scales = to.scales + static_cast<size_t>(row) * to.groups;
    int32_t* starts = to.starts + static_cast<size_t>(row) * to.groups * Activations::kStarts;
    constexpr int kBiases[] = {8, kBias8};
    for (int g = 0; g < to.groups; g++, x += kGroup, values += kGroup) {
        F v[4], top = zero();
        UNROLL for (int i = 0; i < 4; i++) {
            v[i] = load(x + i * kLanes);
            top = max(top, abs(v[i]));
        }
        const float most = largest(top), inverse = most > 0 ? 127.0f / most : 0.0f;
        scales[g] = most / 127.0f;
        I r[4];
        UNROLL for (int i = 0; i < 4; i++) {
            r[i] = round(mul(v[i], set1(inverse)));
            store_bytes(values + i * kLanes, r[i]);
        }
        const int32_t one = sum(add(r[0], r[1])), other = sum(add(r[2], r[3]));
        for (const int bias : kBiases) {
            *starts++ = -bias * one;
            *starts++ = -bias * other;
            *starts++ = -bias * (one + other);
        }
    }
}

void rms_norm(const float* x, const float* weight, int n, float eps, float* out) {
    F squares = zero();
    for (int i = 0; i < n; i += kLanes) squares = fma(load(x + i), load(x + i), squares);
    const F factor = set1(1.0f / __builtin_sqrtf(sum(squares) / static_cast<float>(n) + eps));
    for (int i = 0; i < n; i += kLanes) store(out + i, mul(mul(load(x + i), factor), load(weight + i)));
}

// ------------------------------------------------------------------------------------------------------------ attention

template <int Q>
inline void scores_of(const float* queries, int depth, const Block* blocks, int count, float (*scores)[kChunk]) {
    for (int b = 0; b < count; b++) {
        F even[Q], odd[Q];
        UNROLL for (int q = 0; q < Q; q++) even[q] = odd[q] = zero();
        const uint16_t* keys = blocks[b].keys;
        for (int d = 0; d < depth; d += 2) {
            const Pairs k = load_pairs(keys + d * kLanes);
            const F k0 = first(k), k1 = second(k);
            UNROLL for (int q = 0; q < Q; q++) {
                even[q] = fma(set1(queries[q * depth + d]), k0, even[q]);
                odd[q] = fma(set1(queries[q * depth + d + 1]), k1, odd[q]);
            }
        }
        UNROLL for (int q = 0; q < Q; q++) store(scores[q] + b * kLanes, add(even[q], odd[q]));
    }
}

// Scores of one query become weights; those of tokens that it does not see become 0.
inline void softmax(float* scores, int visible, int padded, const Partial& result) {
    for (int i = visible; i < padded; i++) scores[i] = -__builtin_inff();
    F top = set1(-__builtin_inff());
    for (int i = 0; i < padded; i += kLanes) top = max(top, load(scores + i));
    *result.max = largest(top);
    for (int i = 0; i < padded; i += kLanes) store(scores + i, exp(sub(load(scores + i), set1(*result.max))));
    for (int i = visible; i < padded; i++) scores[i] = 0.0f;
    F total = zero();
    for (int i = 0; i < padded; i += kLanes) total = add(total, load(scores + i));
    *result.sum = sum(total);
}

// Dimensions [d, d + 16 ND) of the weighted values.
template <int Q, int ND>
inline void values_of(const float (*weights)[kChunk], int depth, int d, const Block* blocks, int count,
                      const Partial* results) {
    F even[Q][ND], odd[Q][ND];
    UNROLL for (int q = 0; q < Q; q++) UNROLL for (int n = 0; n < ND; n++) even[q][n] = odd[q][n] = zero();
    for (int b = 0; b < count; b++) {
        const uint16_t* values = blocks[b].values + 2 * d;
        for (int token = 0; token < kLanes; token += 2, values += 2 * depth) {
            const int at = b * kLanes + token;
            UNROLL for (int n = 0; n < ND; n++) {
                const Pairs v = load_pairs(values + n * 2 * kLanes);
                const F v0 = first(v), v1 = second(v);
                UNROLL for (int q = 0; q < Q; q++) {
                    even[q][n] = fma(set1(weights[q][at]), v0, even[q][n]);
                    odd[q][n] = fma(set1(weights[q][at + 1]), v1, odd[q][n]);
                }
            }
        }
    }
    UNROLL for (int q = 0; q < Q; q++)
        UNROLL for (int n = 0; n < ND; n++) store(results[q].out + d + n * kLanes, add(even[q][n], odd[q][n]));
}

template <int Q>
void attend_some(const float* queries, int depth, const Block* blocks, const int* visible, const Partial* results) {
    alignas(64) float scores[Q][kChunk];
    int most = 0;
    for (int q = 0; q < Q; q++) most = visible[q] > most ? visible[q] : most;
    const int count = (most + kLanes - 1) / kLanes;
    scores_of<Q>(queries, depth, blocks, count, scores);
    for (int q = 0; q < Q; q++) softmax(scores[q], visible[q], count * kLanes, results[q]);
    constexpr int ND = Q <= 3 ? 4 : 1;
    int d = 0;
    if constexpr (ND > 1)
        for (; d + ND * kLanes <= depth; d += ND * kLanes)
            values_of<Q, ND>(scores, depth, d, blocks, count, results);
    for (; d < depth; d += kLanes) values_of<Q, 1>(scores, depth, d, blocks, count, results);
}

void attend(const float* queries, int count, int depth, const Block* blocks, const int* visible,
            const Partial* results) {
    switch (count) {
        case 1: return attend_some<1>(queries, depth, blocks, visible, results);
        case 2: return attend_some<2>(queries, depth, blocks, visible, results);
        case 3: return attend_some<3>(queries, depth, blocks, visible, results);
        case 4: return attend_some<4>(queries, depth, blocks, visible, results);
        case 5: return attend_some<5>(queries, depth, blocks, visible, results);
        case 6: return attend_some<6>(queries, depth, blocks, visible, results);
        case 7: return attend_some<7>(queries, depth, blocks, visible, results);
        default: return attend_some<kQueries>(queries, depth, blocks, visible, results);
    }
}

void merge(const Partial& acc, const Partial& next, int depth) {
    const float top = *acc.max > *next.max ? *acc.max : *next.max;
    const float ours = exp(*acc.max - top), theirs = exp(*next.max - top);
    *acc.sum = *acc.sum * ours + *next.sum * theirs;
    *acc.max = top;
    for (int d = 0; d < depth; d += kLanes)
        store(acc.out + d, fma(load(next.out + d), set1(theirs), mul(load(acc.out + d), set1(ours))));
}

// ------------------------------------------------------------------------------------------------------------- rounding

inline F whole(F x, float low, float high) { return to_float(round(min(max(x, set1(low)), set1(high)))); }

inline float group_largest(const float* x, int group) {
    float most = 0;
    for (int i = 0; i < group; i++)
        if (__builtin_fabsf(x[i]) > __builtin_fabsf(most)) most = x[i];
    return most;
}

inline void group_round(const float* x, int group, float scale, float low, float high, int8_t* integers) {
    for (int i = 0; i < group; i += kLanes) {
        const F v = scale == 0 ? zero() : div(load(x + i), set1(scale));
        store_bytes(integers + i, round(whole(v, low, high)));
    }
}

void round8(const float* x, int group, int8_t* integers, uint16_t* scale) {
    *scale = to_half(__builtin_fabsf(group_largest(x, group)) / 127.0f);
    group_round(x, group, half_to_float(*scale), -127.0f, 127.0f, integers);
}

// The candidates of `fit_scales` in quantize.py: the largest weight meets either end of the levels, and may lie beyond.
void round4(const float* x, int group, int8_t* integers, uint16_t* scale) {
    const float largest_weight = group_largest(x, group);
    float best = __builtin_inff();
    *scale = 0x7c00;  // infinite: stays where no scale will do
    for (int end = -8; end <= 7; end += 15)
        for (int step = 0; step < 8; step++) {
            const float stretch = 0.78f + 0.04f * static_cast<float>(step);
            const float base = largest_weight / static_cast<float>(end) * stretch;
            F energy = zero(), product = zero(), loss = zero();
            for (int i = 0; i < group; i += kLanes) {
                const F v = load(x + i), q = base == 0 ? zero() : whole(div(v, set1(base)), -8.0f, 7.0f);
                energy = fma(q, q, energy);
                product = fma(v, q, product);
            }
            const float squares = sum(energy);
            const uint16_t candidate = to_half(sum(product) / (squares > 1e-30f ? squares : 1e-30f));
            const float level = half_to_float(candidate);
            for (int i = 0; i < group; i += kLanes) {
                const F v = load(x + i), q = level == 0 ? zero() : whole(div(v, set1(level)), -8.0f, 7.0f);
                const F lost = sub(v, mul(q, set1(level)));
                loss = fma(lost, lost, loss);
            }
            if (const float total = sum(loss); total < best) {
                best = total;
                *scale = candidate;
            }
        }
    group_round(x, group, half_to_float(*scale), -8.0f, 7.0f, integers);
}

constexpr codegen25::Kernels table(const char* name) {
    return {name, multiply, gated, quantize, rms_norm, attend, merge, round8, round4};
}

}  // namespace
