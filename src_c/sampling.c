/* SPDX-License-Identifier: Apache-2.0 */
/* Choosing a token by its scores. docs/GENERATION.md defines every operation.
 *
 * Scores become weights that are integers, with float64 sums, products and one division alone: no fused multiply-add, no
 * function of the C library, so that any machine, and NumPy, has the same ones. From there on everything is exact, and
 * no order of summation has to be fixed. The loops are written so that compilers vectorise them, and compiled once more
 * for AVX2, which has no fused multiply-add itself. */
#include "sampling.h"

#include "gru_engine.h"

#include <math.h>
#include <string.h>

#if defined(__GNUC__)
#define INLINE static inline __attribute__((always_inline))
#else
#define INLINE static inline
#endif

/* ------------------------------------------------------------------------------------------------ random numbers */

static uint64_t high_product(uint64_t a, uint64_t b, uint64_t *low) {
#ifdef __SIZEOF_INT128__
    __extension__ const unsigned __int128 product = (unsigned __int128)a * b;
    *low = (uint64_t)product;
    return (uint64_t)(product >> 64);
#else
    const uint64_t half = 0xffffffffu, a0 = a & half, a1 = a >> 32, b0 = b & half, b1 = b >> 32;
    const uint64_t middle = a1 * b0 + (a0 * b0 >> 32), other = a0 * b1 + (middle & half);
    *low = a * b;
    return a1 * b1 + (middle >> 32) + (other >> 32);
#endif
}

/* Philox4x64 with 10 rounds: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3" (2011). */
static void philox(uint64_t counter, uint64_t key, uint64_t out[4]) {
    uint64_t c0 = counter, c1 = 0, c2 = 0, c3 = 0, k0 = key, k1 = 0;
    for (int round = 0; round < 10; round++) {
        uint64_t low0, low1;
        const uint64_t high0 = high_product(0xD2E7470EE14C6C93u, c0, &low0);
        const uint64_t high1 = high_product(0xCA5A826395121157u, c2, &low1);
        c0 = high1 ^ c1 ^ k0;
        c1 = low1;
        c2 = high0 ^ c3 ^ k1;
        c3 = low0;
        k0 += 0x9E3779B97F4A7C15u; /* the golden ratio */
        k1 += 0xBB67AE8584CAA73Bu; /* sqrt(3) - 1 */
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

uint64_t gru_random_draw(gru_random *random) {
    const uint64_t i = random->next++;
    if (random->fresh || i % 4 == 0) {
        philox(i / 4 + 1, random->seed, random->block); /* from 1, as NumPy counts */
        random->fresh = 0;
    }
    return random->block[i % 4];
}

/* ------------------------------------------------------------------------------------------------ scores */

enum { LANES = 16 }; /* values that a loop works on at once */

/* The largest score; NaN if there is nothing to choose from. */
INLINE float largest(const float *scores, size_t n, int are_probabilities) {
    const float least = are_probabilities ? 0.0f : -INFINITY;
    int bad = 0;
    for (size_t i = 0; i < n; i++) {
        bad |= !(scores[i] >= least) | !(scores[i] < INFINITY);
    }
    float most[LANES];
    for (size_t j = 0; j < LANES; j++) {
        most[j] = least;
    }
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (size_t j = 0; j < LANES; j++) {
            most[j] = scores[i + j] > most[j] ? scores[i + j] : most[j];
        }
    }
    for (; i < n; i++) {
        most[0] = scores[i] > most[0] ? scores[i] : most[0];
    }
    for (size_t j = 1; j < LANES; j++) {
        most[0] = most[j] > most[0] ? most[j] : most[0];
    }
    return bad || most[0] == least ? NAN : most[0];
}

int32_t gru_largest_score(const float *scores, size_t n, int are_probabilities) {
    const float most = largest(scores, n, are_probabilities);
    for (size_t i = 0; i < n; i++) {
        if (scores[i] == most) {
            return (int32_t)i;
        }
    }
    return -1;
}

/* ------------------------------------------------------------------------------------------------ weights */

#define LN_2 0x1.62e42fefa39efp-1
#define ROUND 0x1.8p52 /* adding it rounds to an integer, which then stands in the low bits */
#define LEAST (-40.0)  /* exponents below this round to the weight 0 */

INLINE uint64_t bits_of(double x) {
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

INLINE double from_bits(uint64_t bits) {
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* log(p) of p > 0. p = 2^e f with f from sqrt(1/2) to sqrt(2), log f = 2 atanh((f - 1) / (f + 1)). */
INLINE double log_of(double p) {
    const uint64_t above = bits_of(p) - 0x3fe6a09e667f3bcdu; /* sqrt(1/2) */
    /* e, between -149 and 1, as a float64 without a conversion of 64 bits, which not every machine can vectorise */
    const double e = from_bits((above >> 52 ^ 0x800u) + bits_of(0x1p52)) - (0x1p52 + 0x800);
    const double f = from_bits((above & 0xfffffffffffffu) + 0x3fe6a09e667f3bcdu);
    const double s = (f - 1.0) / (f + 1.0), u = s * s;
    double sum = 1.0 / 13;
    sum = sum * u + 1.0 / 11;
    sum = sum * u + 1.0 / 9;
    sum = sum * u + 1.0 / 7;
    sum = sum * u + 1.0 / 5;
    sum = sum * u + 1.0 / 3;
    sum = sum * u + 1.0;
    return e * LN_2 + (s + s) * sum;
}

/* The integer nearest to 2^35 exp(x), of x from LEAST to 0. */
INLINE uint64_t weight_of(double x) {
    const double rounded = x * (1.0 / LN_2) + ROUND, k = rounded - ROUND, r = x - k * LN_2;
    double p = 1.0 / 3628800;
    p = p * r + 1.0 / 362880;
    p = p * r + 1.0 / 40320;
    p = p * r + 1.0 / 5040;
    p = p * r + 1.0 / 720;
    p = p * r + 1.0 / 120;
    p = p * r + 1.0 / 24;
    p = p * r + 1.0 / 6;
    p = p * r + 0.5;
    p = p * r + 1.0;
    p = p * r + 1.0;
    const double power = from_bits((bits_of(rounded) << 52) + ((uint64_t)(1023 + 35) << 52)); /* 2^(k + 35) */
    return bits_of(p * power + 0x1p52) - bits_of(0x1p52);
}

/* weights[i] of exp((score - most) / temperature), score being the logarithm of a probability. In several loops, through
 * `weights` as memory, because compilers do not vectorise one that decides and goes on computing. */
INLINE void weigh(const float *scores, size_t n, float most, int are_probabilities, double temperature,
                  uint64_t *weights) {
    double inverse = 1.0 / temperature;
    inverse = inverse < 0x1p1000 ? inverse : 0x1p1000;
    const double top = are_probabilities ? log_of(most) : most;
    if (are_probabilities) {
        for (size_t i = 0; i < n; i++) {
            weights[i] = bits_of(log_of(scores[i]));
        }
        for (size_t i = 0; i < n; i++) {
            weights[i] = bits_of(scores[i] > 0 ? from_bits(weights[i]) : -INFINITY);
        }
    } else {
        for (size_t i = 0; i < n; i++) {
            weights[i] = bits_of((double)scores[i]);
        }
    }
    for (size_t i = 0; i < n; i++) {
        const double x = (from_bits(weights[i]) - top) * inverse;
        weights[i] = bits_of(x > LEAST ? x : LEAST);
    }
    for (size_t i = 0; i < n; i++) {
        weights[i] = weight_of(from_bits(weights[i]));
    }
}

INLINE uint64_t sum_of(const uint64_t *weights, size_t n) {
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += weights[i];
    }
    return sum;
}

/* ------------------------------------------------------------------------------------------------ top_k, top_p */

/* Unsigned integers in the order of the scores; -0 is 0. */
INLINE void order_keys(const float *scores, size_t n, uint32_t *keys) {
    for (size_t i = 0; i < n; i++) {
        const float a = scores[i] + 0.0f;
        uint32_t bits;
        memcpy(&bits, &a, sizeof bits);
        keys[i] = bits ^ ((uint32_t)((int32_t)bits >> 31) | 0x80000000u);
    }
}

/* Of the tokens in falling order of their scores, the smaller token first among equals, keeps the shortest beginning
 * whose weights (or, with `by_number`, whose number) come to at least `needed`; the others get the weight 0.
 *
 * Found by the digits of the keys, from the highest one on, so that the time does not depend on the scores' order. */
INLINE void keep_top(size_t n, int by_number, uint64_t needed, gru_scratch s) {
    uint32_t prefix = 0;
    size_t n_among = n;
    for (int shift = 24; shift >= 0; shift -= 8) {
        uint64_t sums[256] = {0};
        const int all = shift == 24;
        for (size_t j = 0; j < n_among; j++) {
            const size_t i = all ? j : s.among[j];
            sums[s.keys[i] >> shift & 255] += by_number ? 1 : s.weights[i];
        }
        uint32_t digit = 255;
        while (sums[digit] < needed) {
            needed -= sums[digit--];
        }
        prefix |= digit << shift;
        size_t next = 0;
        for (size_t j = 0; j < n_among; j++) {
            const uint32_t i = all ? (uint32_t)j : s.among[j];
            s.among[next] = i;
            next += (s.keys[i] >> shift & 255) == digit;
        }
        n_among = next;
        if (n_among == 1) { /* most often after two digits */
            prefix = s.keys[s.among[0]];
            break;
        }
    }
    for (size_t i = 0; i < n; i++) {
        s.weights[i] = s.keys[i] < prefix ? 0 : s.weights[i];
    }
    for (size_t j = 0; j < n_among; j++) { /* those equal to the last one kept, in the order of the tokens */
        uint64_t *weight = s.weights + s.among[j];
        const uint64_t counts = by_number ? 1 : *weight;
        *weight = needed ? *weight : 0;
        needed -= counts < needed ? counts : needed;
    }
}

INLINE int32_t draw_token(const float *scores, size_t n, int are_probabilities, double temperature, size_t top_k,
                          double top_p, uint64_t random, gru_scratch scratch) {
    const float most = largest(scores, n, are_probabilities);
    if (isnan(most)) {
        return -1;
    }
    weigh(scores, n, most, are_probabilities, temperature, scratch.weights);
    if (top_k < n || top_p < 1) {
        order_keys(scores, n, scratch.keys);
    }
    if (top_k < n) {
        keep_top(n, 1, top_k, scratch);
    }
    uint64_t total = sum_of(scratch.weights, n);
    if (top_p < 1) {
        const double wanted = (double)total * top_p;
        uint64_t needed = (uint64_t)wanted;
        needed += (double)needed < wanted;
        keep_top(n, 0, needed < total ? needed : total, scratch);
        total = sum_of(scratch.weights, n);
    }
    uint64_t low, rest = high_product(random, total, &low); /* below total */
    size_t i = 0;
    for (uint64_t sum; i + LANES <= n && rest >= (sum = sum_of(scratch.weights + i, LANES)); i += LANES) {
        rest -= sum;
    }
    while (rest >= scratch.weights[i]) {
        rest -= scratch.weights[i++];
    }
    return (int32_t)i;
}

#if defined(__x86_64__) && defined(__GNUC__)
__attribute__((target("avx2"))) static int32_t draw_avx2(const float *scores, size_t n, int are_probabilities,
                                                         double temperature, size_t top_k, double top_p,
                                                         uint64_t random, gru_scratch scratch) {
    return draw_token(scores, n, are_probabilities, temperature, top_k, top_p, random, scratch);
}
#endif

int32_t gru_draw_token(const float *scores, size_t n, int are_probabilities, double temperature, size_t top_k,
                       double top_p, uint64_t random, gru_scratch scratch) {
#if defined(__x86_64__) && defined(__GNUC__)
    const char *isa = gru_isa_used();
    if (isa && strncmp(isa, "avx", 3) == 0) {
        return draw_avx2(scores, n, are_probabilities, temperature, top_k, top_p, random, scratch);
    }
#endif
    return draw_token(scores, n, are_probabilities, temperature, top_k, top_p, random, scratch);
}
