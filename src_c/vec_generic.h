/* SPDX-License-Identifier: Apache-2.0 */
/* The vector primitives in plain C, and what each of them means on every instruction set.
 *
 * vec_generic.h, vec_avx2.h, vec_avx512.h and vec_neon.h define the same names; an instruction-set file includes one of
 * them, then the templates over it. A vec is always 16 float32 lanes (one panel), a veci 16 int32 lanes, a vecm 16
 * yes/no lanes. The same calls give the same bits everywhere (the sign and payload of a NaN excepted), if the floating-
 * point mode is the usual one: rounding to nearest even, subnormals kept.
 *
 *   v_set1 v_zero v_load v_store    pointers need the alignment of a float only
 *   v_load_n(p, n) v_store_n(p, a, n)   the first n lanes, 1 <= n <= 16: missing lanes read as +0, memory beyond is
 *                                   not touched
 *   v_add v_sub v_mul v_div v_sqrt  IEEE 754, correctly rounded
 *   v_fma(a, b, c) a * b + c        one rounding
 *   v_fnma(a, b, c) c - a * b       one rounding
 *   v_min(a, b)   a < b ? a : b     so b if they are equal (+0, -0) or if one is NaN: v_min(limit, x) keeps NaN
 *   v_max(a, b)   a > b ? a : b     likewise
 *   v_abs v_neg v_neg_abs v_copysign(a, s)   act on the sign bit alone: |a|, -a, -|a|, |a| with the sign of s
 *   v_lt v_le v_gt v_ge v_eq v_isnan -> vecm   no if one is NaN (v_isnan: yes);  vm_and vm_or;  vm_any -> int
 *   v_select(m, a, b)               a where m says yes, else b
 *   v_select_neg(s, a, b)           a where the sign bit of s is 1, else b
 *   v_bits v_from_bits              reinterpret, no conversion
 *   vi_set1 vi_load vi_store vi_add vi_sub vi_and vi_or vi_xor   wrap around
 *   vi_shl vi_sra vi_srl (a, n)     n a constant from 1 to 31; sra copies the sign, srl brings in 0
 *   vi_to_float(a)                  conversion, rounded to nearest even
 *   v_scale2(p, n)                  p * 2^n with one rounding, for -252 <= n <= 252 and 2^-25 <= |p| <= 2^25, or p = 0,
 *                                   infinity, NaN
 *   v_load_bfloat16(p, odd)         widens 16 of the 32 bfloat16 at p: the even or the odd ones; odd a constant
 *   v_load_float16(p)               widens 16 binary16
 *   v_store_low_bytes(p, a)         the low byte of each lane of a veci
 *   vb_load(p)                      a vecb: 64 int8, four for each lane
 *   vb_set4(p)                      the same 4 int8 for each lane, none of them -128
 *   vb_dot(acc, w, x)               acc + the four products of each lane of two vecb; x from vb_set4. Wraps around. The
 *   VB_DOT_START(total)             chain of vb_dot starts at this int, total being the sum of all that vb_set4 takes
 *   v_sum16(a)                      fixed tree: lanes i and i+8, then i and i+4, i and i+2, i and i+1
 *   v_max16(a)                      largest lane; NaN if any lane is NaN; of +0 and -0 either */
#ifndef GRU_VEC_H
#define GRU_VEC_H

#if defined(__FAST_MATH__)
#error "do not compile with -ffast-math: the order and the rounding of every operation are part of the specification"
#endif

#include <math.h>
#include <stdint.h>
#include <string.h>

#define V_NAME "generic"
#define V_LANES 16
/* Left to the compiler: forced inlining of these loops makes it slow and its code large, and nothing here is fast
 * anyway. */
#define V_INLINE static inline

typedef struct { float f[16]; } vec;
typedef struct { int32_t i[16]; } veci;
typedef struct { int32_t m[16]; } vecm; /* -1 or 0 */
typedef struct { int8_t b[64]; } vecb;

/* A result lane by lane; the expression sees the lane number k. */
#define V_EACH_(type, member, expression)                                                                              \
    do {                                                                                                               \
        type y_;                                                                                                       \
        for (int k = 0; k < 16; k++) y_.member[k] = (expression);                                                      \
        return y_;                                                                                                     \
    } while (0)

/* ---- making, loading, storing ---- */

V_INLINE vec v_set1(float a) { V_EACH_(vec, f, a); }
V_INLINE vec v_zero(void) { V_EACH_(vec, f, 0.0f); }
V_INLINE vec v_load(const float *p) { V_EACH_(vec, f, p[k]); }
V_INLINE void v_store(float *p, vec a) {
    for (int k = 0; k < 16; k++) p[k] = a.f[k];
}
V_INLINE vec v_load_n(const float *p, int n) { V_EACH_(vec, f, k < n ? p[k] : 0.0f); }
V_INLINE void v_store_n(float *p, vec a, int n) {
    for (int k = 0; k < n; k++) p[k] = a.f[k];
}

/* ---- arithmetic ---- */

V_INLINE vec v_add(vec a, vec b) { V_EACH_(vec, f, a.f[k] + b.f[k]); }
V_INLINE vec v_sub(vec a, vec b) { V_EACH_(vec, f, a.f[k] - b.f[k]); }
V_INLINE vec v_mul(vec a, vec b) { V_EACH_(vec, f, a.f[k] * b.f[k]); }
V_INLINE vec v_div(vec a, vec b) { V_EACH_(vec, f, a.f[k] / b.f[k]); }
V_INLINE vec v_sqrt(vec a) { V_EACH_(vec, f, sqrtf(a.f[k])); }
V_INLINE vec v_fma(vec a, vec b, vec c) { V_EACH_(vec, f, fmaf(a.f[k], b.f[k], c.f[k])); }
V_INLINE vec v_fnma(vec a, vec b, vec c) { V_EACH_(vec, f, fmaf(-a.f[k], b.f[k], c.f[k])); }
V_INLINE vec v_min(vec a, vec b) { V_EACH_(vec, f, a.f[k] < b.f[k] ? a.f[k] : b.f[k]); }
V_INLINE vec v_max(vec a, vec b) { V_EACH_(vec, f, a.f[k] > b.f[k] ? a.f[k] : b.f[k]); }

/* ---- bits ---- */

/* Lane by lane: with one memcpy of the whole array gcc 12 for AArch64 reads stale lanes at -O3. */
V_INLINE int32_t v_int_of_(float a) {
    int32_t i;
    memcpy(&i, &a, sizeof i);
    return i;
}
V_INLINE float v_float_of_(int32_t i) {
    float a;
    memcpy(&a, &i, sizeof a);
    return a;
}
V_INLINE veci v_bits(vec a) { V_EACH_(veci, i, v_int_of_(a.f[k])); }
V_INLINE vec v_from_bits(veci a) { V_EACH_(vec, f, v_float_of_(a.i[k])); }
V_INLINE veci vi_set1(int32_t a) { V_EACH_(veci, i, a); }
V_INLINE veci vi_load(const int32_t *p) { V_EACH_(veci, i, p[k]); }
V_INLINE void vi_store(int32_t *p, veci a) {
    for (int k = 0; k < 16; k++) p[k] = a.i[k];
}
/* Unsigned, because signed overflow is undefined in C. */
V_INLINE veci vi_add(veci a, veci b) { V_EACH_(veci, i, (int32_t)((uint32_t)a.i[k] + (uint32_t)b.i[k])); }
V_INLINE veci vi_sub(veci a, veci b) { V_EACH_(veci, i, (int32_t)((uint32_t)a.i[k] - (uint32_t)b.i[k])); }
V_INLINE veci vi_and(veci a, veci b) { V_EACH_(veci, i, a.i[k] & b.i[k]); }
V_INLINE veci vi_or(veci a, veci b) { V_EACH_(veci, i, a.i[k] | b.i[k]); }
V_INLINE veci vi_xor(veci a, veci b) { V_EACH_(veci, i, a.i[k] ^ b.i[k]); }
V_INLINE veci vi_shl(veci a, int n) { V_EACH_(veci, i, (int32_t)((uint32_t)a.i[k] << n)); }
V_INLINE veci vi_sra(veci a, int n) { V_EACH_(veci, i, a.i[k] >> n); }
V_INLINE veci vi_srl(veci a, int n) { V_EACH_(veci, i, (int32_t)((uint32_t)a.i[k] >> n)); }
V_INLINE vec vi_to_float(veci a) { V_EACH_(vec, f, (float)a.i[k]); }

V_INLINE vec v_abs(vec a) { return v_from_bits(vi_and(v_bits(a), vi_set1(INT32_MAX))); }
V_INLINE vec v_neg(vec a) { return v_from_bits(vi_xor(v_bits(a), vi_set1(INT32_MIN))); }
V_INLINE vec v_neg_abs(vec a) { return v_from_bits(vi_or(v_bits(a), vi_set1(INT32_MIN))); }
V_INLINE vec v_copysign(vec a, vec s) {
    return v_from_bits(vi_or(vi_and(v_bits(a), vi_set1(INT32_MAX)), vi_and(v_bits(s), vi_set1(INT32_MIN))));
}

/* ---- comparing, choosing ---- */

V_INLINE vecm v_lt(vec a, vec b) { V_EACH_(vecm, m, -(a.f[k] < b.f[k])); }
V_INLINE vecm v_le(vec a, vec b) { V_EACH_(vecm, m, -(a.f[k] <= b.f[k])); }
V_INLINE vecm v_gt(vec a, vec b) { V_EACH_(vecm, m, -(a.f[k] > b.f[k])); }
V_INLINE vecm v_ge(vec a, vec b) { V_EACH_(vecm, m, -(a.f[k] >= b.f[k])); }
V_INLINE vecm v_eq(vec a, vec b) { V_EACH_(vecm, m, -(a.f[k] == b.f[k])); }
V_INLINE vecm v_isnan(vec a) { V_EACH_(vecm, m, -(a.f[k] != a.f[k])); }
V_INLINE vecm vm_and(vecm a, vecm b) { V_EACH_(vecm, m, a.m[k] & b.m[k]); }
V_INLINE vecm vm_or(vecm a, vecm b) { V_EACH_(vecm, m, a.m[k] | b.m[k]); }
V_INLINE int vm_any(vecm m) {
    int32_t any = 0;
    for (int k = 0; k < 16; k++) any |= m.m[k];
    return any != 0;
}
V_INLINE vec v_select(vecm m, vec a, vec b) { V_EACH_(vec, f, m.m[k] ? a.f[k] : b.f[k]); }
V_INLINE vec v_select_neg(vec s, vec a, vec b) { V_EACH_(vec, f, v_int_of_(s.f[k]) < 0 ? a.f[k] : b.f[k]); }

/* ---- narrow types ---- */

V_INLINE vec v_load_bfloat16(const unsigned char *p, int odd) {
    V_EACH_(vec, f,
            v_float_of_((int32_t)((uint32_t)p[4 * k + 2 * odd] << 16 | (uint32_t)p[4 * k + 2 * odd + 1] << 24)));
}
/* A normal number or zero: exponent and fraction move, the bias changes by a product. Infinity and NaN get the largest
 * exponent; a subnormal number is an integer times 2^-24. */
V_INLINE float v_widen_float16_(const unsigned char *p) {
    const uint32_t h = (uint32_t)p[0] | (uint32_t)p[1] << 8, magnitude = h & 0x7fff;
    const float a = magnitude >= 0x7c00 ? v_float_of_((int32_t)(0x7f800000u | (magnitude & 0x3ff) << 13))
                    : magnitude < 0x400 ? (float)magnitude * 0x1p-24f
                                        : v_float_of_((int32_t)((magnitude << 13) + (112u << 23)));
    return h & 0x8000 ? -a : a;
}
V_INLINE vec v_load_float16(const unsigned char *p) { V_EACH_(vec, f, v_widen_float16_(p + 2 * k)); }
V_INLINE void v_store_low_bytes(int8_t *p, veci a) {
    for (int k = 0; k < 16; k++) p[k] = (int8_t)((a.i[k] & 255) - (a.i[k] & 128) * 2);
}
V_INLINE vecb vb_load(const unsigned char *p) {
    vecb a;
    memcpy(a.b, p, sizeof a.b);
    return a;
}
V_INLINE vecb vb_set4(const int8_t *p) {
    vecb a;
    for (int k = 0; k < 64; k++) a.b[k] = p[k % 4];
    return a;
}
V_INLINE veci vb_dot(veci acc, vecb w, vecb x) {
    for (int k = 0; k < 64; k++) {
        acc.i[k / 4] = (int32_t)((uint32_t)acc.i[k / 4] + (uint32_t)(w.b[k] * x.b[k]));
    }
    return acc;
}
#define VB_DOT_START(total) ((void)(total), 0)

/* ---- compound ---- */

/* Half of the exponent first: that product is exact, the second one rounds. */
V_INLINE vec v_scale2(vec p, veci n) {
    veci half = vi_sra(n, 1), rest = vi_sub(n, half), bias = vi_set1(127);
    vec first = v_mul(p, v_from_bits(vi_shl(vi_add(half, bias), 23)));
    return v_mul(first, v_from_bits(vi_shl(vi_add(rest, bias), 23)));
}

V_INLINE float v_sum16(vec a) {
    for (int half = 8; half > 0; half /= 2) {
        for (int k = 0; k < half; k++) a.f[k] += a.f[k + half];
    }
    return a.f[0];
}

V_INLINE float v_max16(vec a) {
    float m = a.f[0];
    for (int k = 1; k < 16; k++) m = a.f[k] > m ? a.f[k] : m;
    return vm_any(v_isnan(a)) ? __builtin_nanf("") : m;
}

#endif
