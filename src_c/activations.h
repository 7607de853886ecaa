/* SPDX-License-Identifier: Apache-2.0 */
/* The activation functions over the vector primitives: included after a vec_*.h, everything static inline.
 *
 * The order of the operations below is part of the specification (docs/NUMERICS.md): every one is correctly rounded or
 * exact on every instruction set, so the results have the same bits everywhere. NaN in gives NaN out (payload
 * unspecified). The constants come from tools/fit_activations.py; the name after "fit:" is its argument. */
#ifndef GRU_ACTIVATIONS_H
#define GRU_ACTIVATIONS_H

#include "opcodes.h"

/* ---- the exponential ----
 *
 * exp(x) = 2^n exp(r) with n = round(x / ln 2) and r = x - n ln 2, so |r| <= ln 2 / 2 (and a rounding error). */

#define ACT_MAGIC 0x1.8p23f /* adding it rounds to an integer, which then stands in the low bits */

typedef struct {
    vec r;  /* x - n * (ln 2, the high 20 bits): exact */
    vec k;  /* n */
    veci n; /* n in the low bits; what stands above them is shifted out in act_power */
} act_reduced;

V_INLINE act_reduced act_reduce(vec x) {
    vec t = v_fma(x, v_set1(0x1.715476p+0f), v_set1(ACT_MAGIC)); /* 1 / ln 2 */
    vec k = v_sub(t, v_set1(ACT_MAGIC));
    return (act_reduced){v_fnma(k, v_set1(0x1.62e43p-1f), x), k, v_bits(t)};
}

/* r with the rest of ln 2 taken into account. */
V_INLINE vec act_fine_r(act_reduced a) { return v_fnma(a.k, v_set1(-0x1.05c61p-29f), a.r); }

/* 2^(n + shift), if that is a normal float. */
V_INLINE vec act_power(veci n, int shift) {
    return v_from_bits(vi_add(vi_shl(n, 23), vi_set1((127 + shift) * 0x800000)));
}

/* exp(r) - 1 for |r| <= ln 2 / 2; it keeps its relative accuracy near 0. fit: expm1 */
V_INLINE vec act_expm1_near_0(vec r) {
    vec u = v_mul(r, r);
    vec c23 = v_fma(v_set1(0x1.5554aap-3f), r, v_set1(0x1.fffffep-2f));
    vec c45 = v_fma(v_set1(0x1.122c38p-7f), r, v_set1(0x1.55579ap-5f));
    vec c456 = v_fma(v_set1(0x1.6ac05p-10f), u, c45);
    return v_fma(v_fma(c456, u, c23), u, r);
}

/* exp(x) over the whole range, subnormal results included. The limits of x are where the result is certainly 0 and
 * infinity. */
V_INLINE vec v_exp(vec x) {
    act_reduced a = act_reduce(v_min(v_set1(90.0f), v_max(v_set1(-110.0f), x)));
    vec p = v_add(act_expm1_near_0(act_fine_r(a)), v_set1(1.0f));
    return v_scale2(p, vi_sub(a.n, vi_set1(0x4b400000))); /* less the bits of ACT_MAGIC */
}

/* 2^64 exp(-|x|): a normal float for all x whose exp(-|x|) is not 0. Divided by something near 2^64 it is rounded into
 * the subnormals once, by that division. */
V_INLINE vec act_exp_scaled(vec x) {
    act_reduced a = act_reduce(v_max(v_set1(-110.0f), v_neg_abs(x)));
    vec f = act_power(a.n, 64);
    return v_fma(act_expm1_near_0(act_fine_r(a)), f, f);
}

/* Natural logarithm: -inf for 0, NaN for less. fit: log */
V_INLINE vec v_log(vec x) {
    vecm tiny = v_lt(x, v_set1(0x1p-126f));
    vec y = v_select(tiny, v_mul(x, v_set1(0x1p23f)), x);
    /* y = 2^e * (1 + g) with 1 + g from sqrt(1/2) to sqrt(2). */
    veci above = vi_sub(v_bits(y), vi_set1(0x3f3504f3));
    vec e = vi_to_float(vi_sra(above, 23));
    vec g = v_sub(v_from_bits(vi_add(vi_and(above, vi_set1(0x7fffff)), vi_set1(0x3f3504f3))), v_set1(1.0f));
    e = v_sub(e, v_select(tiny, v_set1(23.0f), v_zero()));
    vec u = v_mul(g, g);
    vec c01 = v_fma(v_set1(-0x1.000228p-2f), g, v_set1(0x1.555554p-2f));
    vec c23 = v_fma(v_set1(-0x1.547234p-3f), g, v_set1(0x1.99a034p-3f));
    vec c45 = v_fma(v_set1(-0x1.0d81fp-3f), g, v_set1(0x1.22d684p-3f));
    vec c67 = v_fma(v_set1(-0x1.38fb8cp-4f), g, v_set1(0x1.05712ep-3f));
    vec q = v_fma(v_fma(v_fma(c67, u, c45), u, c23), u, c01);
    vec tail = v_fma(v_mul(g, u), q, v_mul(u, v_set1(-0.5f))); /* log(1 + g) - g */
    tail = v_fma(e, v_set1(-0x1.05c61p-29f), tail);            /* ln 2, low part */
    vec result = v_fma(e, v_set1(0x1.62e43p-1f), v_add(tail, g));
    result = v_select(v_eq(x, v_set1(INFINITY)), x, result);
    result = v_select(v_eq(x, v_zero()), v_set1(-INFINITY), result);
    result = v_select(v_lt(x, v_zero()), v_set1(NAN), result);
    return v_select(v_isnan(x), x, result);
}

/* ---- the activations ---- */

/* With e = exp(-|x|): 1 / (1 + e), and e / (1 + e) for x < 0, so that the left tail keeps its relative accuracy.
 *
 * e = up / down with exp(r) = (2 + h) / (2 - h), h = 2 tanh(r / 2) = r + r^3 C(r^2): being odd, h needs few terms, and
 * the division is there anyway. Both are scaled by 2^65, as in act_exp_scaled. The rest of ln 2 enters the first r
 * only, which is enough and keeps it off the longest chain of operations. fit: tanh */
V_INLINE vec act_sigmoid(vec x) {
    act_reduced a = act_reduce(v_max(v_set1(-110.0f), v_neg_abs(x)));
    vec u = v_mul(a.r, a.r);
    vec c = v_fma(v_set1(0x1.0c7fa2p-7f), u, v_set1(-0x1.554feap-4f));
    vec h = v_fma(v_mul(a.r, u), c, act_fine_r(a));
    vec f = act_power(a.n, 64);
    vec up = v_fma(h, f, v_add(f, f)), down = v_fnma(h, v_set1(0x1p64f), v_set1(0x1p65f));
    return v_div(v_select_neg(x, up, down), v_add(down, up));
}

/* tanh(-|x|) = (T + h) / (1 + T h) with -|x| = n ln 2 / 2 + z, h = tanh(z), T = tanh(n ln 2 / 2) = (f - 1) / (f + 1)
 * and f = 2^n. For n = 0 it is h, so it is accurate near 0, and x itself for small x. The numerator is never larger
 * than the denominator, whatever the rounding, so neither is |tanh| ever above 1. The low part of ln 2 is too small to
 * matter. h comes with two or three terms more than z: the third is for act_scaled_tanh, which rounds twice more.
 * fit: tanh */
V_INLINE vec act_tanh_terms(vec x, int terms) {
    vec a = v_max(v_set1(-10.0f), v_neg_abs(x));
    vec t = v_fma(a, v_set1(0x1.715476p+1f), v_set1(ACT_MAGIC));
    vec z = v_fnma(v_sub(t, v_set1(ACT_MAGIC)), v_set1(0x1.62e43p-2f), a), u = v_mul(z, z), c;
    if (terms == 2) {
        c = v_fma(v_set1(0x1.0c7fa2p-3f), u, v_set1(-0x1.554feap-2f));
    } else {
        c = v_fma(v_set1(-0x1.afd7fap-5f), u, v_set1(0x1.110594p-3f));
        c = v_fma(c, u, v_set1(-0x1.55554ep-2f));
    }
    vec h = v_fma(v_mul(z, u), c, z);
    vec f = act_power(v_bits(t), 0), below = v_sub(f, v_set1(1.0f)), above = v_add(f, v_set1(1.0f));
    return v_copysign(v_div(v_fma(h, above, below), v_fma(h, below, above)), x);
}

V_INLINE vec act_tanh(vec x) { return act_tanh_terms(x, 2); }

V_INLINE vec act_relu(vec x) { return v_max(v_zero(), x); }

V_INLINE vec act_affine(float alpha, float beta, vec x) { return v_fma(v_set1(alpha), x, v_set1(beta)); }

V_INLINE vec act_leaky_relu(float alpha, vec x) { return v_select(v_ge(x, v_zero()), x, v_mul(v_set1(alpha), x)); }

V_INLINE vec act_thresholded_relu(float alpha, vec x) {
    return v_select(v_le(x, v_set1(alpha)), v_zero(), x); /* this way round NaN passes */
}

V_INLINE vec act_scaled_tanh(float alpha, float beta, vec x) {
    return v_mul(v_set1(alpha), act_tanh_terms(v_mul(v_set1(beta), x), 3));
}

V_INLINE vec act_hard_sigmoid(float alpha, float beta, vec x) {
    return v_max(v_zero(), v_min(v_set1(1.0f), v_fma(v_set1(alpha), x, v_set1(beta))));
}

/* For x < 0, alpha * (2^n (exp(r) - 1) + (2^n - 1)): accurate near 0, where n = 0. For large n, where the rest of ln 2
 * would count, exp(x) is small beside 1. */
V_INLINE vec act_elu(float alpha, vec x) {
    act_reduced a = act_reduce(v_max(v_set1(-40.0f), v_min(v_zero(), x)));
    vec f = act_power(a.n, 0);
    vec left = v_fma(f, act_expm1_near_0(a.r), v_sub(f, v_set1(1.0f)));
    return v_select(v_ge(x, v_zero()), x, v_mul(v_set1(alpha), left));
}

/* x / (1 + |x|), the largest arguments limited so that infinity gives 1. */
V_INLINE vec act_softsign(vec x) {
    vec a = v_max(v_set1(-0x1p126f), v_min(v_set1(0x1p126f), x));
    return v_div(a, v_add(v_set1(1.0f), v_abs(a)));
}

/* max(x, 0) + log(1 + e) with e = exp(-|x|). log(1 + e) = 2 atanh(s / 2) = s + s^3 P(s^2) with s = e / (1 + e / 2).
 * fit: softplus */
V_INLINE vec act_softplus(vec x) {
    vec e = act_exp_scaled(x);
    vec s = v_div(e, v_fma(e, v_set1(0.5f), v_set1(0x1p64f))), u = v_mul(s, s);
    vec c01 = v_fma(v_set1(0x1.99d1ccp-7f), u, v_set1(0x1.555502p-4f));
    vec c23 = v_fma(v_set1(0x1.1eca18p-11f), u, v_set1(0x1.1ec04p-9f));
    vec p = v_fma(c23, v_mul(u, u), c01);
    return v_add(v_max(v_zero(), x), v_fma(v_mul(u, s), p, s));
}

/* x * sigmoid(x). To the left the factor x comes before the division, which rounds into the subnormals; to the right
 * after it, where nothing can overflow. */
V_INLINE vec act_silu(vec x) {
    vec e = act_exp_scaled(x), one = v_set1(0x1p64f);
    vec left = v_mul(e, v_max(v_set1(-110.0f), x));
    vec q = v_div(v_select_neg(x, left, one), v_add(one, e));
    return v_select_neg(x, q, v_mul(q, x));
}

/* Between alpha and beta; NaN stays. */
V_INLINE vec act_clip(float alpha, float beta, vec x) { return v_max(v_set1(alpha), v_min(v_set1(beta), x)); }

/* A positive function that is linear to the right: g of the minGRU. */
V_INLINE vec act_positive(vec x) { return v_select(v_ge(x, v_zero()), v_add(x, v_set1(0.5f)), act_sigmoid(x)); }

/* 2^64 exp(high - less) is f + q f: high from -120 to 0, and a part of it that is small beside 1. */
typedef struct { vec f, q; } act_factors;

V_INLINE act_factors act_exp_in_parts(vec high, vec less) {
    act_reduced a = act_reduce(high);
    vec r = v_sub(a.r, v_fma(a.k, v_set1(-0x1.05c61p-29f), less));
    return (act_factors){act_power(a.n, 64), act_expm1_near_0(r)};
}

/* x Phi(x) = max(x, 0) - p(|x|) with p(a) = a Phi(-a), which is at most 0.17 and for small a half of a: to the right no
 * digits are lost, to the left there is p alone. The zero of the left tail is -0.
 *
 * Phi(-a) = exp(-a^2 / 2) N(a) / (c a N(a) + P(a)), with positive coefficients. The denominator is computed as
 * 3.5 + a (c N + (P - 3.5) / a): for large a the rounding errors of N are in both parts of the fraction and cancel, for
 * small a only those of the last additions count; to 1.75 and 3.5, because rounding errors are relatively smallest just
 * below a power of two. a^2 / 2 is taken in two parts, because the exponential makes an absolute error of its
 * argument a relative one. The factor a comes in before the exponential is rounded, and the division, which rounds into
 * the subnormals, last. fit: gelu */
V_INLINE vec act_gelu(vec x) {
    vec a = v_min(v_set1(14.5f), v_abs(x)), half = v_mul(a, v_set1(-0.5f)), square = v_mul(half, a);
    act_factors e = act_exp_in_parts(square, v_fnma(half, a, square));
    vec n = v_fma(v_set1(0x1.d44aa8p-7f), a, v_set1(0x1.21d6cep-3f));
    n = v_fma(n, a, v_set1(0x1.475fdcp-1f));
    n = v_fma(n, a, v_set1(0x1.881a94p+0f));
    n = v_fma(n, a, v_set1(1.75f));
    vec p = v_fma(v_set1(0x1.c2641p+48f), a, v_set1(0x1.21478p+59f)); /* scaled by 2^64, as the exponential is */
    p = v_fma(p, a, v_set1(0x1.729208p+62f));
    p = v_fma(p, a, v_set1(0x1.7827fap+64f));
    vec down = v_fma(v_fma(v_set1(0x1.40d83cp+65f), n, p), a, v_set1(0x1.cp65f));
    vec fa = v_mul(e.f, a);
    return v_sub(v_max(v_set1(-0.0f), x), v_div(v_mul(v_fma(e.q, fa, fa), n), down));
}

/* x sigmoid(v) = max(x, 0) - p(|x|) likewise, with p(a) = a e / (1 + e), e = exp(-v) and v = a (c + d a^2), taken in two
 * parts as a^2 is. c and d are the sums of two floats each; the first one of c has so few bits that adding it to w, which
 * is larger, is exact. fit: gelu */
V_INLINE vec act_gelu_tanh(vec x) {
    const vec c = v_set1(0x1.98846p+0f), d = v_set1(0x1.2444f2p-4f);
    vec a = v_min(v_set1(11.0f), v_abs(x)), u = v_mul(a, a);
    vec w = v_fnma(u, d, v_neg(c));
    vec rest = v_fnma(v_fnma(a, a, u), d, v_fma(u, v_set1(0x1.49b16ap-29f), v_set1(-0x1.985794p-21f)));
    rest = v_add(rest, v_fma(u, d, v_add(w, c))); /* v = -a (w - rest) */
    vec high = v_mul(a, w);
    act_factors e = act_exp_in_parts(high, v_fma(a, rest, v_fnma(a, w, high)));
    vec fa = v_mul(e.f, a), one = v_set1(0x1p64f);
    return v_sub(v_max(v_set1(-0.0f), x), v_div(v_fma(e.q, fa, fa), v_add(one, v_fma(e.q, e.f, e.f))));
}

/* The activation of a .gru node on 16 values; softmax and log-softmax, which see the whole vector, are elsewhere. */
V_INLINE vec activate(int code, float alpha, float beta, vec x) {
    switch (code) {
    case GRU_ACT_SIGMOID: return act_sigmoid(x);
    case GRU_ACT_TANH: return act_tanh(x);
    case GRU_ACT_RELU: return act_relu(x);
    case GRU_ACT_AFFINE: return act_affine(alpha, beta, x);
    case GRU_ACT_LEAKY_RELU: return act_leaky_relu(alpha, x);
    case GRU_ACT_THRESHOLDED_RELU: return act_thresholded_relu(alpha, x);
    case GRU_ACT_SCALED_TANH: return act_scaled_tanh(alpha, beta, x);
    case GRU_ACT_HARD_SIGMOID: return act_hard_sigmoid(alpha, beta, x);
    case GRU_ACT_ELU: return act_elu(alpha, x);
    case GRU_ACT_SOFTSIGN: return act_softsign(x);
    case GRU_ACT_SOFTPLUS: return act_softplus(x);
    case GRU_ACT_SILU: return act_silu(x);
    case GRU_ACT_CLIP: return act_clip(alpha, beta, x);
    case GRU_ACT_EXP: return v_exp(x);
    case GRU_ACT_POSITIVE: return act_positive(x);
    case GRU_ACT_GELU: return act_gelu(x);
    case GRU_ACT_GELU_TANH: return act_gelu_tanh(x);
    default: return x;
    }
}

#endif
