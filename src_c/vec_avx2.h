/* SPDX-License-Identifier: Apache-2.0 */
/* The vector primitives in AVX2 with FMA: two registers of 8 lanes. vec_generic.h says what each one means.
 * Include target_avx2.h before. */
#ifndef GRU_VEC_H
#define GRU_VEC_H

#if defined(__FAST_MATH__)
#error "do not compile with -ffast-math: the order and the rounding of every operation are part of the specification"
#endif

#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#define V_NAME "avx2"
#define V_LANES 16
#define V_INLINE static inline __attribute__((always_inline))

typedef struct { __m256 lo, hi; } vec; /* lanes 0 to 7, lanes 8 to 15 */
typedef struct { __m256i lo, hi; } veci;
typedef struct { __m256 lo, hi; } vecm; /* all bits of a lane are 1 or 0 */
typedef veci vecb;

/* ---- making, loading, storing ---- */

V_INLINE vec v_set1(float a) {
    __m256 x = _mm256_set1_ps(a);
    return (vec){x, x};
}
V_INLINE vec v_zero(void) { return (vec){_mm256_setzero_ps(), _mm256_setzero_ps()}; }
V_INLINE vec v_load(const float *p) { return (vec){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
V_INLINE void v_store(float *p, vec a) {
    _mm256_storeu_ps(p, a.lo);
    _mm256_storeu_ps(p + 8, a.hi);
}

/* The first n lanes, as masks for maskload and maskstore, which leave alone what is masked out. */
V_INLINE veci vi_first_(int n) {
    __m256i count = _mm256_set1_epi32(n);
    return (veci){_mm256_cmpgt_epi32(count, _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)),
                  _mm256_cmpgt_epi32(count, _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15))};
}

V_INLINE vec v_load_n(const float *p, int n) {
    veci m = vi_first_(n);
    return (vec){_mm256_maskload_ps(p, m.lo), _mm256_maskload_ps(p + 8, m.hi)};
}

V_INLINE void v_store_n(float *p, vec a, int n) {
    veci m = vi_first_(n);
    _mm256_maskstore_ps(p, m.lo, a.lo);
    _mm256_maskstore_ps(p + 8, m.hi, a.hi);
}

/* ---- arithmetic ---- */

V_INLINE vec v_add(vec a, vec b) { return (vec){_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
V_INLINE vec v_sub(vec a, vec b) { return (vec){_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)}; }
V_INLINE vec v_mul(vec a, vec b) { return (vec){_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
V_INLINE vec v_div(vec a, vec b) { return (vec){_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)}; }
V_INLINE vec v_sqrt(vec a) { return (vec){_mm256_sqrt_ps(a.lo), _mm256_sqrt_ps(a.hi)}; }
V_INLINE vec v_fma(vec a, vec b, vec c) {
    return (vec){_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
V_INLINE vec v_fnma(vec a, vec b, vec c) {
    return (vec){_mm256_fnmadd_ps(a.lo, b.lo, c.lo), _mm256_fnmadd_ps(a.hi, b.hi, c.hi)};
}
V_INLINE vec v_min(vec a, vec b) { return (vec){_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)}; }
V_INLINE vec v_max(vec a, vec b) { return (vec){_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }

/* ---- bits ---- */

V_INLINE veci v_bits(vec a) { return (veci){_mm256_castps_si256(a.lo), _mm256_castps_si256(a.hi)}; }
V_INLINE vec v_from_bits(veci a) { return (vec){_mm256_castsi256_ps(a.lo), _mm256_castsi256_ps(a.hi)}; }
V_INLINE veci vi_set1(int32_t a) {
    __m256i x = _mm256_set1_epi32(a);
    return (veci){x, x};
}
V_INLINE veci vi_load(const int32_t *p) {
    return (veci){_mm256_loadu_si256((const __m256i_u *)p), _mm256_loadu_si256((const __m256i_u *)(p + 8))};
}
V_INLINE void vi_store(int32_t *p, veci a) {
    _mm256_storeu_si256((__m256i_u *)p, a.lo);
    _mm256_storeu_si256((__m256i_u *)(p + 8), a.hi);
}
V_INLINE veci vi_add(veci a, veci b) { return (veci){_mm256_add_epi32(a.lo, b.lo), _mm256_add_epi32(a.hi, b.hi)}; }
V_INLINE veci vi_sub(veci a, veci b) { return (veci){_mm256_sub_epi32(a.lo, b.lo), _mm256_sub_epi32(a.hi, b.hi)}; }
V_INLINE veci vi_and(veci a, veci b) { return (veci){_mm256_and_si256(a.lo, b.lo), _mm256_and_si256(a.hi, b.hi)}; }
V_INLINE veci vi_or(veci a, veci b) { return (veci){_mm256_or_si256(a.lo, b.lo), _mm256_or_si256(a.hi, b.hi)}; }
V_INLINE veci vi_xor(veci a, veci b) { return (veci){_mm256_xor_si256(a.lo, b.lo), _mm256_xor_si256(a.hi, b.hi)}; }
V_INLINE veci vi_shl(veci a, int n) { return (veci){_mm256_slli_epi32(a.lo, n), _mm256_slli_epi32(a.hi, n)}; }
V_INLINE veci vi_sra(veci a, int n) { return (veci){_mm256_srai_epi32(a.lo, n), _mm256_srai_epi32(a.hi, n)}; }
V_INLINE veci vi_srl(veci a, int n) { return (veci){_mm256_srli_epi32(a.lo, n), _mm256_srli_epi32(a.hi, n)}; }
V_INLINE vec vi_to_float(veci a) { return (vec){_mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi)}; }

V_INLINE vec v_abs(vec a) { return v_from_bits(vi_and(v_bits(a), vi_set1(INT32_MAX))); }
V_INLINE vec v_neg(vec a) { return v_from_bits(vi_xor(v_bits(a), vi_set1(INT32_MIN))); }
V_INLINE vec v_neg_abs(vec a) { return v_from_bits(vi_or(v_bits(a), vi_set1(INT32_MIN))); }
V_INLINE vec v_copysign(vec a, vec s) {
    return v_from_bits(vi_or(vi_and(v_bits(a), vi_set1(INT32_MAX)), vi_and(v_bits(s), vi_set1(INT32_MIN))));
}

/* ---- comparing, choosing ---- */

#define V_COMPARE_(a, b, how) ((vecm){_mm256_cmp_ps((a).lo, (b).lo, how), _mm256_cmp_ps((a).hi, (b).hi, how)})
V_INLINE vecm v_lt(vec a, vec b) { return V_COMPARE_(a, b, _CMP_LT_OQ); }
V_INLINE vecm v_le(vec a, vec b) { return V_COMPARE_(a, b, _CMP_LE_OQ); }
V_INLINE vecm v_gt(vec a, vec b) { return V_COMPARE_(a, b, _CMP_GT_OQ); }
V_INLINE vecm v_ge(vec a, vec b) { return V_COMPARE_(a, b, _CMP_GE_OQ); }
V_INLINE vecm v_eq(vec a, vec b) { return V_COMPARE_(a, b, _CMP_EQ_OQ); }
V_INLINE vecm v_isnan(vec a) { return V_COMPARE_(a, a, _CMP_UNORD_Q); }
V_INLINE vecm vm_and(vecm a, vecm b) { return (vecm){_mm256_and_ps(a.lo, b.lo), _mm256_and_ps(a.hi, b.hi)}; }
V_INLINE vecm vm_or(vecm a, vecm b) { return (vecm){_mm256_or_ps(a.lo, b.lo), _mm256_or_ps(a.hi, b.hi)}; }
V_INLINE int vm_any(vecm m) { return _mm256_movemask_ps(_mm256_or_ps(m.lo, m.hi)) != 0; }
V_INLINE vec v_select(vecm m, vec a, vec b) {
    return (vec){_mm256_blendv_ps(b.lo, a.lo, m.lo), _mm256_blendv_ps(b.hi, a.hi, m.hi)};
}
V_INLINE vec v_select_neg(vec s, vec a, vec b) {
    return (vec){_mm256_blendv_ps(b.lo, a.lo, s.lo), _mm256_blendv_ps(b.hi, a.hi, s.hi)};
}

/* ---- narrow types ---- */

V_INLINE vec v_load_bfloat16(const unsigned char *p, int odd) {
    veci pairs = vi_load((const int32_t *)(const void *)p);
    return v_from_bits(odd ? vi_and(pairs, vi_set1(-0x10000)) : vi_shl(pairs, 16));
}
V_INLINE vec v_load_float16(const unsigned char *p) {
    const __m128i_u *halves = (const __m128i_u *)(const void *)p;
    return (vec){_mm256_cvtph_ps(_mm_loadu_si128(halves)), _mm256_cvtph_ps(_mm_loadu_si128(halves + 1))};
}
V_INLINE void v_store_low_bytes(int8_t *p, veci a) {
    int32_t i[16];
    vi_store(i, a);
    for (int k = 0; k < 16; k++) memcpy(p + k, i + k, 1);
}
V_INLINE vecb vb_load(const unsigned char *p) { return vi_load((const int32_t *)(const void *)p); }
V_INLINE vecb vb_set4(const int8_t *p) {
    int32_t four;
    memcpy(&four, p, sizeof four);
    return vi_set1(four);
}
/* The first factor is unsigned: |w|, with its sign given to x. Two products fit 16 bits: 2 * 128 * 127 < 2^15. */
V_INLINE __m256i vb_products_(__m256i w, __m256i x) {
    __m256i two = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
    return _mm256_madd_epi16(two, _mm256_set1_epi16(1));
}
V_INLINE veci vb_dot(veci acc, vecb w, vecb x) {
    return vi_add(acc, (veci){vb_products_(w.lo, x.lo), vb_products_(w.hi, x.hi)});
}
#define VB_DOT_START(total) ((void)(total), 0)

/* ---- compound ---- */

V_INLINE vec v_scale2(vec p, veci n) {
    veci half = vi_sra(n, 1), rest = vi_sub(n, half), bias = vi_set1(127);
    vec first = v_mul(p, v_from_bits(vi_shl(vi_add(half, bias), 23)));
    return v_mul(first, v_from_bits(vi_shl(vi_add(rest, bias), 23)));
}

V_INLINE float v_sum16(vec a) {
    __m256 s8 = _mm256_add_ps(a.lo, a.hi);
    __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
    __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
    return _mm_cvtss_f32(_mm_add_ss(s2, _mm_shuffle_ps(s2, s2, 1)));
}

V_INLINE float v_max16(vec a) {
    __m256 m8 = _mm256_max_ps(a.lo, a.hi);
    __m128 m4 = _mm_max_ps(_mm256_castps256_ps128(m8), _mm256_extractf128_ps(m8, 1));
    __m128 m2 = _mm_max_ps(m4, _mm_movehl_ps(m4, m4));
    float m = _mm_cvtss_f32(_mm_max_ss(m2, _mm_shuffle_ps(m2, m2, 1)));
    return vm_any(v_isnan(a)) ? __builtin_nanf("") : m;
}

#endif
