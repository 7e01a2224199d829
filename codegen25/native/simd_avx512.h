// Sixteen lanes on AVX-512 with VNNI.
#pragma once

#include <immintrin.h>

#include <cstdint>

// Small loops over registers, which must have no index left.
#define UNROLL _Pragma("GCC unroll 16")

namespace {

using F = __m512;
using I = __m512i;
using B = __m512i;

constexpr int kRows = 8;       // rows of activations that share a pass over a tile
constexpr int kWide = 2;       // tiles side by side when there are at least kRows rows
constexpr int kBias8 = 128;    // what `dot8` takes weights to be shifted by

inline F zero() { return _mm512_setzero_ps(); }
inline F set1(float x) { return _mm512_set1_ps(x); }
inline F load(const float* p) { return _mm512_loadu_ps(p); }
inline void store(float* p, F x) { _mm512_storeu_ps(p, x); }
inline F add(F a, F b) { return _mm512_add_ps(a, b); }
inline F sub(F a, F b) { return _mm512_sub_ps(a, b); }
inline F mul(F a, F b) { return _mm512_mul_ps(a, b); }
inline F div(F a, F b) { return _mm512_div_ps(a, b); }
inline F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
inline F max(F a, F b) { return _mm512_max_ps(a, b); }
inline F min(F a, F b) { return _mm512_min_ps(a, b); }
inline F abs(F a) { return _mm512_abs_ps(a); }
inline float sum(F a) { return _mm512_reduce_add_ps(a); }
inline float largest(F a) { return _mm512_reduce_max_ps(a); }
inline F from_half(const uint16_t* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}

inline I set1(int32_t x) { return _mm512_set1_epi32(x); }
inline F to_float(I x) { return _mm512_cvtepi32_ps(x); }
inline I round(F x) { return _mm512_cvtps_epi32(x); }
inline I add(I a, I b) { return _mm512_add_epi32(a, b); }
inline int32_t sum(I a) { return _mm512_reduce_add_epi32(a); }
inline void store_bytes(int8_t* p, I x) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(x));
}
inline F exponent(I n) {  // 2^n for -127 < n < 128
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(n, _mm512_set1_epi32(127)), 23));
}

inline B load_bytes(const uint8_t* p) { return _mm512_loadu_si512(p); }
inline B low_half(B x) { return _mm512_and_si512(x, _mm512_set1_epi8(15)); }
inline B high_half(B x) { return _mm512_and_si512(_mm512_srli_epi16(x, 4), _mm512_set1_epi8(15)); }
// Four products of a lane's unsigned bytes with the same four signed activations, added up.
inline I dot8(I acc, B weights, int32_t four) { return _mm512_dpbusd_epi32(acc, weights, _mm512_set1_epi32(four)); }
inline I dot4(I acc, B weights, int32_t four) { return _mm512_dpbusd_epi32(acc, weights, _mm512_set1_epi32(four)); }

using Pairs = __m512i;
inline Pairs load_pairs(const uint16_t* p) { return _mm512_loadu_si512(p); }
inline F first(Pairs x) { return _mm512_castsi512_ps(_mm512_slli_epi32(x, 16)); }
inline F second(Pairs x) {
    return _mm512_castsi512_ps(_mm512_and_si512(x, _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
}
// Of an address that may lie behind the end of everything.
inline void prefetch(uintptr_t address) { _mm_prefetch(reinterpret_cast<const char*>(address), _MM_HINT_T0); }

inline uint16_t to_half(float x) { return static_cast<uint16_t>(_cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT)); }
inline float half_to_float(uint16_t x) { return _cvtsh_ss(x); }

}  // namespace
