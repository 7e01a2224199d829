// Sixteen lanes as arrays, for any machine: the slow reference that the other headers are held equal to.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "half.h"

#define UNROLL

namespace {

struct F { float v[16]; };
struct I { int32_t v[16]; };
struct B { uint8_t v[64]; };

constexpr int kRows = 4;
constexpr int kWide = 1;
constexpr int kBias8 = 128;

#define EACH for (int i = 0; i < 16; i++)

inline F set1(float x) { F r; EACH r.v[i] = x; return r; }
inline F zero() { return set1(0.0f); }
inline F load(const float* p) { F r; std::memcpy(r.v, p, sizeof r.v); return r; }
inline void store(float* p, F x) { std::memcpy(p, x.v, sizeof x.v); }
inline F add(F x, F y) { EACH x.v[i] += y.v[i]; return x; }
inline F sub(F x, F y) { EACH x.v[i] -= y.v[i]; return x; }
inline F mul(F x, F y) { EACH x.v[i] *= y.v[i]; return x; }
inline F div(F x, F y) { EACH x.v[i] /= y.v[i]; return x; }
// Rounded twice where the others round once: a fused one in software would be a hundred times slower.
inline F fma(F x, F y, F z) { EACH z.v[i] += x.v[i] * y.v[i]; return z; }
inline F max(F x, F y) { EACH x.v[i] = x.v[i] > y.v[i] ? x.v[i] : y.v[i]; return x; }
inline F min(F x, F y) { EACH x.v[i] = x.v[i] < y.v[i] ? x.v[i] : y.v[i]; return x; }
inline F abs(F x) { EACH x.v[i] = std::fabs(x.v[i]); return x; }
inline float sum(F x) { float s = 0; EACH s += x.v[i]; return s; }
inline float largest(F x) { float m = x.v[0]; EACH m = x.v[i] > m ? x.v[i] : m; return m; }
inline F from_half(const uint16_t* p) { F r; EACH r.v[i] = portable_half_to_float(p[i]); return r; }

inline I set1(int32_t x) { I r; EACH r.v[i] = x; return r; }
inline F to_float(I x) { F r; EACH r.v[i] = static_cast<float>(x.v[i]); return r; }
// What no integer is near to becomes the smallest one, as the machine's own instruction has it.
inline I round(F x) {
    I r;
    EACH r.v[i] = std::fabs(x.v[i]) < 2e9f ? static_cast<int32_t>(std::nearbyintf(x.v[i])) : INT32_MIN;
    return r;
}
inline I add(I x, I y) { EACH x.v[i] += y.v[i]; return x; }
inline int32_t sum(I x) { int32_t s = 0; EACH s += x.v[i]; return s; }
inline void store_bytes(int8_t* p, I x) { EACH p[i] = static_cast<int8_t>(x.v[i]); }
inline F exponent(I n) { F r; EACH r.v[i] = bits_to_float(static_cast<uint32_t>(n.v[i] + 127) << 23); return r; }

inline B load_bytes(const uint8_t* p) { B r; std::memcpy(r.v, p, sizeof r.v); return r; }
inline B low_half(B x) { for (uint8_t& b : x.v) b &= 15; return x; }
inline B high_half(B x) { for (uint8_t& b : x.v) b >>= 4; return x; }
inline I dot8(I acc, B weights, int32_t four) {
    int8_t a[4];
    std::memcpy(a, &four, 4);
    EACH for (int j = 0; j < 4; j++) acc.v[i] += weights.v[4 * i + j] * a[j];
    return acc;
}
inline I dot4(I acc, B weights, int32_t four) { return dot8(acc, weights, four); }

struct Pairs { uint16_t v[32]; };
inline Pairs load_pairs(const uint16_t* p) { Pairs r; std::memcpy(r.v, p, sizeof r.v); return r; }
inline F first(const Pairs& x) { F r; EACH r.v[i] = bf16_to_float(x.v[2 * i]); return r; }
inline F second(const Pairs& x) { F r; EACH r.v[i] = bf16_to_float(x.v[2 * i + 1]); return r; }
inline void prefetch(uintptr_t) {}

inline uint16_t to_half(float x) { return portable_float_to_half(x); }
inline float half_to_float(uint16_t x) { return portable_half_to_float(x); }

#undef EACH

}  // namespace
