/* SPDX-License-Identifier: Apache-2.0 */
/* The vector primitives in AArch64 NEON: four registers of 4 lanes. vec_generic.h says what each one means. */
#ifndef GRU_VEC_H
#define GRU_VEC_H

#if !defined(__aarch64__)
#error "a NEON file in a build for another architecture"
#endif
#if defined(__FAST_MATH__)
#error "do not compile with -ffast-math: the order and the rounding of every operation are part of the specification"
#endif

#include <arm_neon.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef V_DOT
#define V_NAME "neon_dot"
#else
#define V_NAME "neon"
#endif
#define V_LANES 16
#define V_INLINE static inline __attribute__((always_inline))

/* q0 holds lanes 0 to 3, q3 lanes 12 to 15. Four members and not an array: gcc keeps them in registers more
 * reliably. */
typedef struct { float32x4_t q0, q1, q2, q3; } vec;
typedef struct { int32x4_t q0, q1, q2, q3; } veci;
typedef struct { uint32x4_t q0, q1, q2, q3; } vecm; /* all bits of a lane are 1 or 0 */
typedef struct { int8x16_t q0, q1, q2, q3; } vecb;

#define V_MAP1_(type, f, a) ((type){f((a).q0), f((a).q1), f((a).q2), f((a).q3)})
#define V_MAP2_(type, f, a, b) ((type){f((a).q0, (b).q0), f((a).q1, (b).q1), f((a).q2, (b).q2), f((a).q3, (b).q3)})
#define V_MAP3_(type, f, a, b, c)                                                                                      \
    ((type){f((a).q0, (b).q0, (c).q0), f((a).q1, (b).q1, (c).q1), f((a).q2, (b).q2, (c).q2), f((a).q3, (b).q3, (c).q3)})

/* ---- making, loading, storing ---- */

V_INLINE vec v_set1(float a) {
    float32x4_t x = vdupq_n_f32(a);
    return (vec){x, x, x, x};
}
V_INLINE vec v_zero(void) { return v_set1(0.0f); }
V_INLINE vec v_load(const float *p) {
    return (vec){vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)};
}
V_INLINE void v_store(float *p, vec a) {
    vst1q_f32(p, a.q0);
    vst1q_f32(p + 4, a.q1);
    vst1q_f32(p + 8, a.q2);
    vst1q_f32(p + 12, a.q3);
}
V_INLINE vec v_load_n(const float *p, int n) {
    float x[16] = {0};
    for (int k = 0; k < n; k++) x[k] = p[k];
    return v_load(x);
}
V_INLINE void v_store_n(float *p, vec a, int n) {
    float x[16];
    v_store(x, a);
    for (int k = 0; k < n; k++) p[k] = x[k];
}

/* ---- arithmetic ---- */

V_INLINE vec v_add(vec a, vec b) { return V_MAP2_(vec, vaddq_f32, a, b); }
V_INLINE vec v_sub(vec a, vec b) { return V_MAP2_(vec, vsubq_f32, a, b); }
V_INLINE vec v_mul(vec a, vec b) { return V_MAP2_(vec, vmulq_f32, a, b); }
V_INLINE vec v_div(vec a, vec b) { return V_MAP2_(vec, vdivq_f32, a, b); }
V_INLINE vec v_sqrt(vec a) { return V_MAP1_(vec, vsqrtq_f32, a); }
/* NEON names the addend first. */
V_INLINE vec v_fma(vec a, vec b, vec c) { return V_MAP3_(vec, vfmaq_f32, c, a, b); }
V_INLINE vec v_fnma(vec a, vec b, vec c) { return V_MAP3_(vec, vfmsq_f32, c, a, b); }
/* Not vminq and vmaxq, which treat NaN and signed zeros otherwise. */
V_INLINE vec v_min(vec a, vec b) {
    vecm m = V_MAP2_(vecm, vcltq_f32, a, b);
    return V_MAP3_(vec, vbslq_f32, m, a, b);
}
V_INLINE vec v_max(vec a, vec b) {
    vecm m = V_MAP2_(vecm, vcgtq_f32, a, b);
    return V_MAP3_(vec, vbslq_f32, m, a, b);
}

/* ---- bits ---- */

V_INLINE veci v_bits(vec a) { return V_MAP1_(veci, vreinterpretq_s32_f32, a); }
V_INLINE vec v_from_bits(veci a) { return V_MAP1_(vec, vreinterpretq_f32_s32, a); }
V_INLINE veci vi_set1(int32_t a) {
    int32x4_t x = vdupq_n_s32(a);
    return (veci){x, x, x, x};
}
V_INLINE veci vi_load(const int32_t *p) {
    return (veci){vld1q_s32(p), vld1q_s32(p + 4), vld1q_s32(p + 8), vld1q_s32(p + 12)};
}
V_INLINE void vi_store(int32_t *p, veci a) {
    vst1q_s32(p, a.q0);
    vst1q_s32(p + 4, a.q1);
    vst1q_s32(p + 8, a.q2);
    vst1q_s32(p + 12, a.q3);
}
V_INLINE veci vi_add(veci a, veci b) { return V_MAP2_(veci, vaddq_s32, a, b); }
V_INLINE veci vi_sub(veci a, veci b) { return V_MAP2_(veci, vsubq_s32, a, b); }
V_INLINE veci vi_and(veci a, veci b) { return V_MAP2_(veci, vandq_s32, a, b); }
V_INLINE veci vi_or(veci a, veci b) { return V_MAP2_(veci, vorrq_s32, a, b); }
V_INLINE veci vi_xor(veci a, veci b) { return V_MAP2_(veci, veorq_s32, a, b); }
/* Shifts by a register (negative: to the right); the immediate forms take literals only. */
V_INLINE veci vi_shl(veci a, int n) { return V_MAP2_(veci, vshlq_s32, a, vi_set1(n)); }
V_INLINE veci vi_sra(veci a, int n) { return V_MAP2_(veci, vshlq_s32, a, vi_set1(-n)); }
V_INLINE int32x4_t vi_srl_(int32x4_t a, int32x4_t n) {
    return vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(a), n));
}
V_INLINE veci vi_srl(veci a, int n) { return V_MAP2_(veci, vi_srl_, a, vi_set1(-n)); }
V_INLINE vec vi_to_float(veci a) { return V_MAP1_(vec, vcvtq_f32_s32, a); }

V_INLINE vec v_abs(vec a) { return V_MAP1_(vec, vabsq_f32, a); }
V_INLINE vec v_neg(vec a) { return V_MAP1_(vec, vnegq_f32, a); }
V_INLINE vec v_neg_abs(vec a) { return v_from_bits(vi_or(v_bits(a), vi_set1(INT32_MIN))); }
V_INLINE vec v_copysign(vec a, vec s) {
    uint32x4_t x = vdupq_n_u32(0x80000000u);
    vecm m = {x, x, x, x};
    return V_MAP3_(vec, vbslq_f32, m, s, a);
}

/* ---- comparing, choosing ---- */

V_INLINE vecm v_lt(vec a, vec b) { return V_MAP2_(vecm, vcltq_f32, a, b); }
V_INLINE vecm v_le(vec a, vec b) { return V_MAP2_(vecm, vcleq_f32, a, b); }
V_INLINE vecm v_gt(vec a, vec b) { return V_MAP2_(vecm, vcgtq_f32, a, b); }
V_INLINE vecm v_ge(vec a, vec b) { return V_MAP2_(vecm, vcgeq_f32, a, b); }
V_INLINE vecm v_eq(vec a, vec b) { return V_MAP2_(vecm, vceqq_f32, a, b); }
V_INLINE vecm v_isnan(vec a) {
    vecm number = v_eq(a, a);
    return V_MAP1_(vecm, vmvnq_u32, number);
}
V_INLINE vecm vm_and(vecm a, vecm b) { return V_MAP2_(vecm, vandq_u32, a, b); }
V_INLINE vecm vm_or(vecm a, vecm b) { return V_MAP2_(vecm, vorrq_u32, a, b); }
V_INLINE int vm_any(vecm m) { return vmaxvq_u32(vorrq_u32(vorrq_u32(m.q0, m.q1), vorrq_u32(m.q2, m.q3))) != 0; }
V_INLINE vec v_select(vecm m, vec a, vec b) { return V_MAP3_(vec, vbslq_f32, m, a, b); }
V_INLINE vec v_select_neg(vec s, vec a, vec b) {
    veci bits = v_bits(s);
    vecm m = V_MAP1_(vecm, vcltzq_s32, bits);
    return v_select(m, a, b);
}

/* ---- narrow types ---- */

V_INLINE vec v_load_bfloat16(const unsigned char *p, int odd) {
    veci pairs = vi_load((const int32_t *)(const void *)p);
    return v_from_bits(odd ? vi_and(pairs, vi_set1(-0x10000)) : vi_shl(pairs, 16));
}
V_INLINE float32x4_t v_widen_float16_(const unsigned char *p) { return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p))); }
V_INLINE vec v_load_float16(const unsigned char *p) {
    return (vec){v_widen_float16_(p), v_widen_float16_(p + 8), v_widen_float16_(p + 16), v_widen_float16_(p + 24)};
}
V_INLINE void v_store_low_bytes(int8_t *p, veci a) {
    int16x8_t low = vcombine_s16(vmovn_s32(a.q0), vmovn_s32(a.q1));
    int16x8_t high = vcombine_s16(vmovn_s32(a.q2), vmovn_s32(a.q3));
    vst1q_s8(p, vcombine_s8(vmovn_s16(low), vmovn_s16(high)));
}
V_INLINE vecb vb_load(const unsigned char *p) {
    const int8_t *b = (const int8_t *)p;
    return (vecb){vld1q_s8(b), vld1q_s8(b + 16), vld1q_s8(b + 32), vld1q_s8(b + 48)};
}
V_INLINE vecb vb_set4(const int8_t *p) {
    int32_t four;
    memcpy(&four, p, sizeof four);
    int8x16_t x = vreinterpretq_s8_s32(vdupq_n_s32(four));
    return (vecb){x, x, x, x};
}
#ifdef V_DOT
V_INLINE veci vb_dot(veci acc, vecb w, vecb x) { return V_MAP3_(veci, vdotq_s32, acc, w, x); }
#else
/* A product fits 16 bits: 128 * 127 < 2^15. */
V_INLINE int32x4_t vb_dot_(int32x4_t acc, int8x16_t w, int8x16_t x) {
    int16x8_t low = vmull_s8(vget_low_s8(w), vget_low_s8(x)), high = vmull_high_s8(w, x);
    return vaddq_s32(acc, vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high)));
}
V_INLINE veci vb_dot(veci acc, vecb w, vecb x) { return V_MAP3_(veci, vb_dot_, acc, w, x); }
#endif
#define VB_DOT_START(total) ((void)(total), 0)

/* ---- compound ---- */

V_INLINE vec v_scale2(vec p, veci n) {
    veci half = vi_sra(n, 1), rest = vi_sub(n, half), bias = vi_set1(127);
    vec first = v_mul(p, v_from_bits(vi_shl(vi_add(half, bias), 23)));
    return v_mul(first, v_from_bits(vi_shl(vi_add(rest, bias), 23)));
}

V_INLINE float v_sum16(vec a) {
    float32x4_t s4 = vaddq_f32(vaddq_f32(a.q0, a.q2), vaddq_f32(a.q1, a.q3));
    float32x2_t s2 = vadd_f32(vget_low_f32(s4), vget_high_f32(s4));
    return vget_lane_f32(s2, 0) + vget_lane_f32(s2, 1);
}

V_INLINE float v_max16(vec a) {
    /* vmaxq and vmaxvq return NaN if one operand is NaN: what is wanted here. */
    return vmaxvq_f32(vmaxq_f32(vmaxq_f32(a.q0, a.q1), vmaxq_f32(a.q2, a.q3)));
}

#endif
