/* SPDX-License-Identifier: Apache-2.0 */
/* How a call is cut up, and where its scratch memory lies. */
#include "schedule.h"
#include "model.h"

enum {
    BLOCK_ROWS = 64,    /* rows of a block: enough to use each weight many times from the near cache */
    WHOLE_ROWS = 32768, /* and of one whose blocks must be whole sequences, */
    WHOLE_STREAMS = 8,  /* unless that would be fewer streams than this */

    /* Weights of a step, in bytes, from which on threads share the panels of a single group: some 5 µs of reading,
     * against two or three barriers. */
    SHARE_FROM_NBYTES = 512 * 1024
};

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

/* Sizes stop here instead of overflowing: nobody has a workspace that large, so that such a call is refused. */
#define TOO_LARGE (SIZE_MAX / 4)

static size_t times(size_t a, size_t b) { return b && a > TOO_LARGE / b ? TOO_LARGE : a * b; }

static size_t plus(size_t a, size_t b) { return a > TOO_LARGE - b ? TOO_LARGE : a + b; }

/* Room for n items of `width` times `item_nbytes`, behind what has been taken before. */
static size_t take(size_t *next, size_t n, size_t width, size_t item_nbytes) {
    const size_t at = *next;
    *next = plus(at, smaller(gru_round_up(times(times(n, width), item_nbytes), 64), TOO_LARGE));
    return at;
}

gru_schedule gru_make_schedule(const gru_model *m, size_t n_streams, size_t n_steps, size_t threads) {
    gru_schedule l;
    size_t share = (n_streams + threads - 1) / threads;
    size_t most = BLOCK_ROWS, most_steps = n_steps;
    for (size_t i = 1; i < m->n_axes; i++) {
        const size_t n = gru_axis_steps(&m->axes[i], n_steps);
        most_steps = n > most_steps ? n : most_steps;
    }
    if (m->whole_sequences) {
        most = WHOLE_ROWS / most_steps;
        most = most < WHOLE_STREAMS ? WHOLE_STREAMS : most > BLOCK_ROWS ? BLOCK_ROWS : most;
    }
    l.group_streams = smaller(share, most);
    l.block_steps = m->whole_sequences ? n_steps : smaller(n_steps, BLOCK_ROWS / l.group_streams);
    l.most_steps = m->whole_sequences ? most_steps : l.block_steps;
    l.block_rows = times(l.group_streams, l.most_steps);
    l.chunk_rows = smaller(l.block_rows, BLOCK_ROWS / l.group_streams * l.group_streams);
    l.n_groups = (n_streams + l.group_streams - 1) / l.group_streams;
    l.share_panels = threads > 1 && l.n_groups == 1 && m->products_nbytes >= SHARE_FROM_NBYTES;
    l.n_threads = l.share_panels ? threads : smaller(threads, l.n_groups);

    size_t next = 0;
    l.order = take(&next, n_streams, 1, sizeof(uint32_t));
    l.counts = take(&next, n_steps + 2, 1, sizeof(uint32_t));
    l.shared_nbytes = next;
    next = 0;
    l.values = take(&next, l.block_rows, m->step_values_width, sizeof(float));
    l.sequence_values = take(&next, l.group_streams, m->sequence_values_width, sizeof(float));
    l.sums_x = take(&next, l.chunk_rows, m->sums_x_width, sizeof(float));
    l.sums_h = take(&next, l.group_streams, m->sums_h_width, sizeof(float));
    l.z = take(&next, l.group_streams, m->hidden_width, sizeof(float));
    l.rh = take(&next, l.group_streams, m->hidden_width, sizeof(float));
    const size_t n_weights = l.most_steps > m->most_stored_rows ? l.most_steps : m->most_stored_rows;
    l.weights = take(&next, m->attends ? n_weights : 0, 1, sizeof(float));
    l.quantised_x = take(&next, l.chunk_rows, m->quantised_w_nbytes, 1);
    l.quantised_h = take(&next, l.group_streams, m->quantised_u_nbytes, 1);
    l.x = take(&next, l.chunk_rows, 1, sizeof(float *));
    l.start = take(&next, l.chunk_rows, 1, sizeof(float *));
    l.hoisted = take(&next, l.chunk_rows, 1, sizeof(float *));
    l.out = take(&next, l.chunk_rows, 1, sizeof(float *));
    l.h = take(&next, l.group_streams, 1, sizeof(float *));
    l.h_start = take(&next, l.group_streams, 1, sizeof(float *));
    l.sh = take(&next, l.group_streams, 1, sizeof(float *));
    l.z_rows = take(&next, l.group_streams, 1, sizeof(float *));
    l.rh_rows = take(&next, l.group_streams, 1, sizeof(float *));
    l.shapes = take(&next, m->n_axes, 3, sizeof(size_t)); /* of block.h */
    l.n_active = take(&next, l.most_steps + 1, m->n_axes, sizeof(size_t));
    l.first_row = take(&next, l.most_steps + 1, m->n_axes, sizeof(size_t));
    l.thread_nbytes = next;
    l.needed_nbytes = plus(plus(l.shared_nbytes, times(l.n_threads, l.thread_nbytes)), GRU_WORKSPACE_SLACK);
    return l;
}

size_t gru_run_workspace_nbytes(const gru_model *model, size_t n_streams, size_t n_steps, int n_threads) {
    if (!n_streams || !n_steps) {
        return GRU_WORKSPACE_SLACK;
    }
    const size_t threads = n_threads > 1 ? (size_t)n_threads : 1;
    const gru_schedule l = gru_make_schedule(model, n_streams, n_steps, threads);
    return plus(plus(l.shared_nbytes, times(threads, l.thread_nbytes)), GRU_WORKSPACE_SLACK);
}

size_t gru_step_workspace_nbytes(const gru_model *model) { return gru_run_workspace_nbytes(model, 1, 1, 1); }
