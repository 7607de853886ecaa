/* SPDX-License-Identifier: Apache-2.0 */
/* How a call is cut up into groups of streams and blocks of steps (run.c explains the words), and where its scratch
 * memory lies. */
#ifndef GRU_SCHEDULE_H
#define GRU_SCHEDULE_H

#include "gru_engine.h"

typedef struct gru_schedule {
    size_t group_streams, block_steps, block_rows, chunk_rows;
    size_t most_steps; /* of a block, on any time axis */
    size_t n_groups, n_threads;
    int share_panels; /* the threads go through one group together */
    /* Places in the workspace, in bytes: */
    size_t order, counts;                                  /* shared by the threads; the rest is each thread's own: */
    size_t values, sequence_values, sums_x, sums_h, z, rh; /* arrays of floats, */
    size_t weights;                                        /* one float per step, */
    size_t quantised_x, quantised_h;                       /* quantised vectors, */
    size_t x, start, hoisted, h, h_start, sh, out, z_rows, rh_rows; /* of pointers to rows, */
    size_t shapes, n_active, first_row;                             /* of sizes per step, for each time axis */
    size_t shared_nbytes, thread_nbytes, needed_nbytes;
} gru_schedule;

enum { GRU_WORKSPACE_SLACK = 64 }; /* to align what the caller gave */

/* For n_streams > 0 and n_steps > 0. */
gru_schedule gru_make_schedule(const gru_model *model, size_t n_streams, size_t n_steps, size_t n_threads);

#endif
