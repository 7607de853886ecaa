/* SPDX-License-Identifier: Apache-2.0 */
/* Choosing a token by its scores, and the random numbers for it. docs/GENERATION.md defines both to the bit. */
#ifndef GRU_SAMPLING_H
#define GRU_SAMPLING_H

#include <stddef.h>
#include <stdint.h>

/* Draws number i, i + 1, ... of a seed: what NumPy's Philox(key=seed) gives. Four come out of one block. */
typedef struct gru_random {
    uint64_t seed, next;
    uint64_t block[4]; /* that of the draw before `next`, unless next is a multiple of 4 or `fresh` */
    int fresh;         /* nothing has been drawn */
} gru_random;

static inline gru_random gru_random_from(uint64_t seed, uint64_t next) {
    return (gru_random){.seed = seed, .next = next, .fresh = 1};
}

uint64_t gru_random_draw(gru_random *random);

/* Scratch memory for n scores. */
typedef struct gru_scratch {
    uint64_t *weights; /* [n] */
    uint32_t *keys;    /* [n] */
    uint32_t *among;   /* [n] */
} gru_scratch;

/* Both return -1 if there is nothing to choose from: a NaN, +infinity, no score above -infinity; if they are
 * probabilities a negative one, none above 0. */

/* The token of the largest score, the smallest such token. */
int32_t gru_largest_score(const float *scores, size_t n, int are_probabilities);

/* The token that a random number leads to. temperature > 0; top_k from 1 to n; top_p above 0, at most 1. */
int32_t gru_draw_token(const float *scores, size_t n, int are_probabilities, double temperature, size_t top_k,
                       double top_p, uint64_t random, gru_scratch scratch);

#endif
