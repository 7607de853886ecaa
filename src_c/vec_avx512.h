/* SPDX-License-Identifier: Apache-2.0 */
/* The vector primitives in AVX-512: one register of 16 lanes. vec_generic.h says what each one means.
 * Include target_avx512.h before. */
#ifndef GRU_VEC_H
#define GRU_VEC_H

#if defined(__FAST_MATH__)
#error "do not compile with -ffast-math: the order and the rounding of every operation are part of the specification"
#endif

#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef V_VNNI
#define V_NAME "avx512_vnni"
#else
#define V_NAME "avx512"
#endif
#define V_LANES 16
#define V_INLINE static inline __attribute__((always_inline))

typedef __m512 vec;
typedef __m512i veci;
typedef __mmask16 vecm;
typedef __m512i vecb;

/* ---- making, loading, storing ---- */

V_INLINE vec v_set1(float a) { return _mm512_set1_ps(a); }
V_INLINE vec v_zero(void) { return _mm512_setzero_ps(); }
V_INLINE vec v_load(const float *p) { return _mm512_loadu_ps(p); }
V_INLINE void v_store(float *p, vec a) { _mm512_storeu_ps(p, a); }

V_INLINE vec v_load_n(const float *p, int n) { return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1u), p); }

V_INLINE void v_store_n(float *p, vec a, int n) { _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1u), a); }

/* ---- arithmetic ---- */

V_INLINE vec v_add(vec a, vec b) { return _mm512_add_ps(a, b); }
V_INLINE vec v_sub(vec a, vec b) { return _mm512_sub_ps(a, b); }
V_INLINE vec v_mul(vec a, vec b) { return _mm512_mul_ps(a, b); }
V_INLINE vec v_div(vec a, vec b) { return _mm512_div_ps(a, b); }
V_INLINE vec v_sqrt(vec a) { return _mm512_sqrt_ps(a); }
V_INLINE vec v_fma(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }
V_INLINE vec v_fnma(vec a, vec b, vec c) { return _mm512_fnmadd_ps(a, b, c); }
V_INLINE vec v_min(vec a, vec b) { return _mm512_min_ps(a, b); }
V_INLINE vec v_max(vec a, vec b) { return _mm512_max_ps(a, b); }

/* ---- bits ---- */

V_INLINE veci v_bits(vec a) { return _mm512_castps_si512(a); }
V_INLINE vec v_from_bits(veci a) { return _mm512_castsi512_ps(a); }
V_INLINE veci vi_set1(int32_t a) { return _mm512_set1_epi32(a); }
V_INLINE veci vi_load(const int32_t *p) { return _mm512_loadu_si512((const void *)p); }
V_INLINE void vi_store(int32_t *p, veci a) { _mm512_storeu_si512((void *)p, a); }
V_INLINE veci vi_add(veci a, veci b) { return _mm512_add_epi32(a, b); }
V_INLINE veci vi_sub(veci a, veci b) { return _mm512_sub_epi32(a, b); }
V_INLINE veci vi_and(veci a, veci b) { return _mm512_and_si512(a, b); }
V_INLINE veci vi_or(veci a, veci b) { return _mm512_or_si512(a, b); }
V_INLINE veci vi_xor(veci a, veci b) { return _mm512_xor_si512(a, b); }
/* Macros, because without optimisation gcc takes only literal shift counts. */
#define vi_shl(a, n) _mm512_slli_epi32((a), (n))
#define vi_sra(a, n) _mm512_srai_epi32((a), (n))
#define vi_srl(a, n) _mm512_srli_epi32((a), (n))
V_INLINE vec vi_to_float(veci a) { return _mm512_cvtepi32_ps(a); }

V_INLINE vec v_abs(vec a) { return _mm512_and_ps(a, v_from_bits(vi_set1(INT32_MAX))); }
V_INLINE vec v_neg(vec a) { return _mm512_xor_ps(a, v_from_bits(vi_set1(INT32_MIN))); }
V_INLINE vec v_neg_abs(vec a) { return _mm512_or_ps(a, v_from_bits(vi_set1(INT32_MIN))); }
V_INLINE vec v_copysign(vec a, vec s) {
    return v_from_bits(_mm512_ternarylogic_epi32(vi_set1(INT32_MAX), v_bits(a), v_bits(s), 0xca));
}

/* ---- comparing, choosing ---- */

V_INLINE vecm v_lt(vec a, vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
V_INLINE vecm v_le(vec a, vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_LE_OQ); }
V_INLINE vecm v_gt(vec a, vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
V_INLINE vecm v_ge(vec a, vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ); }
V_INLINE vecm v_eq(vec a, vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
V_INLINE vecm v_isnan(vec a) { return _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q); }
V_INLINE vecm vm_and(vecm a, vecm b) { return (vecm)(a & b); }
V_INLINE vecm vm_or(vecm a, vecm b) { return (vecm)(a | b); }
V_INLINE int vm_any(vecm m) { return m != 0; }
V_INLINE vec v_select(vecm m, vec a, vec b) { return _mm512_mask_blend_ps(m, b, a); }
V_INLINE vec v_select_neg(vec s, vec a, vec b) { return _mm512_mask_blend_ps(_mm512_movepi32_mask(v_bits(s)), b, a); }

/* ---- narrow types ---- */

V_INLINE vec v_load_bfloat16(const unsigned char *p, int odd) {
    veci pairs = _mm512_loadu_si512((const void *)p);
    return v_from_bits(odd ? vi_and(pairs, vi_set1(-0x10000)) : vi_shl(pairs, 16));
}
V_INLINE vec v_load_float16(const unsigned char *p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i_u *)(const void *)p));
}
V_INLINE void v_store_low_bytes(int8_t *p, veci a) {
    _mm_storeu_si128((__m128i_u *)(void *)p, _mm512_cvtepi32_epi8(a));
}
V_INLINE vecb vb_load(const unsigned char *p) { return _mm512_loadu_si512((const void *)p); }
V_INLINE vecb vb_set4(const int8_t *p) {
    int32_t four;
    memcpy(&four, p, sizeof four);
    return vi_set1(four);
}
#ifdef V_VNNI
/* The first factor is unsigned: w + 128, which adds 128 times the sum of x; that is where the chain starts. Assembly,
 * because gcc 12 copies the sum of the intrinsic from register to register and to memory. */
V_INLINE veci vb_dot(veci acc, vecb w, vecb x) {
    const vecb unsigned_w = _mm512_xor_si512(w, _mm512_set1_epi8(-128));
    __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(unsigned_w), "v"(x));
    return acc;
}
#define VB_DOT_START(total) (-128 * (total))
#else
/* The first factor is unsigned: |w|, with its sign given to x. Two products fit 16 bits: 2 * 128 * 127 < 2^15. */
V_INLINE veci vb_dot(veci acc, vecb w, vecb x) {
    vecb signed_x = _mm512_mask_sub_epi8(x, _mm512_movepi8_mask(w), _mm512_setzero_si512(), x);
    __m512i two = _mm512_maddubs_epi16(_mm512_abs_epi8(w), signed_x);
    return vi_add(acc, _mm512_madd_epi16(two, _mm512_set1_epi16(1)));
}
#define VB_DOT_START(total) ((void)(total), 0)
#endif

/* ---- compound ---- */

V_INLINE vec v_scale2(vec p, veci n) { return _mm512_scalef_ps(p, _mm512_cvtepi32_ps(n)); }

V_INLINE float v_sum16(vec a) {
    __m256 s8 = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
    __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
    return _mm_cvtss_f32(_mm_add_ss(s2, _mm_shuffle_ps(s2, s2, 1)));
}

V_INLINE float v_max16(vec a) {
    __m256 m8 = _mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 m4 = _mm_max_ps(_mm256_castps256_ps128(m8), _mm256_extractf128_ps(m8, 1));
    __m128 m2 = _mm_max_ps(m4, _mm_movehl_ps(m4, m4));
    float m = _mm_cvtss_f32(_mm_max_ss(m2, _mm_shuffle_ps(m2, m2, 1)));
    return vm_any(v_isnan(a)) ? __builtin_nanf("") : m;
}

#endif
