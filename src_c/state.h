/* SPDX-License-Identifier: Apache-2.0 */
/* The header of a state block: whether its prepared sums are valid. */
#ifndef GRU_STATE_H
#define GRU_STATE_H

#include <stdint.h>
#include <string.h>

static inline int gru_state_is_prepared(const float *state) {
    uint32_t flag;
    memcpy(&flag, state, sizeof flag);
    return flag == 1;
}

static inline void gru_state_set_prepared(float *state, uint32_t flag) { memcpy(state, &flag, sizeof flag); }

#endif
