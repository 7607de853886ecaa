/* SPDX-License-Identifier: Apache-2.0 */
/* What stands in the headers within a state block: whether its prepared sums are valid, whether it has a context, where a
 * history begins. */
#ifndef GRU_STATE_H
#define GRU_STATE_H

#include <stdint.h>
#include <string.h>

enum {
    GRU_STATE_PREPARED = 1, /* the prepared sums are valid */
    GRU_STATE_AT_START = 2  /* the hidden states are the initial ones */
};

static inline uint32_t gru_state_flags(const float *state) {
    uint32_t flags;
    memcpy(&flags, state, sizeof flags);
    return flags;
}

static inline void gru_state_set_flags(float *state, uint32_t flags) { memcpy(state, &flags, sizeof flags); }

static inline int gru_state_is_prepared(const float *state) { return gru_state_flags(state) & GRU_STATE_PREPARED; }

static inline int gru_state_has_context(const float *state) {
    uint32_t flag;
    memcpy(&flag, state + 1, sizeof flag);
    return flag == 1;
}

static inline void gru_state_set_has_context(float *state, uint32_t flag) { memcpy(state + 1, &flag, sizeof flag); }

/* The place of the oldest step in the history of a WINDOW. */
static inline size_t gru_ring_oldest(const float *ring) {
    uint32_t at;
    memcpy(&at, ring, sizeof at);
    return at;
}

static inline void gru_ring_set_oldest(float *ring, size_t at) {
    const uint32_t value = (uint32_t)at;
    memcpy(ring, &value, sizeof value);
}

#endif
