/* SPDX-License-Identifier: Apache-2.0 */
/* Running the program of a model. There is one way through it, for a step, a batch and a sequence alike:
 *
 *   streams are sorted by length, longest first, and cut into groups; a group belongs to one thread;
 *   a group goes through time in blocks of a few steps (all steps, if the network is not causal);
 *   a block goes through the nodes in order, each working on all rows of the block.
 *
 * One step of one stream is a group of one, a block of one step, one row; step.c does it without the cutting.
 *
 * With several threads, each takes whole groups. If there is only one group and its products are large, all members of
 * the team go through the same nodes together instead: each computes its share of the panels, the same ones at every
 * step, so that its share of the weights stays in its own cache; what is not a product is done by member 0; and they
 * meet at a barrier wherever one needs what another has written. */
#define ONE_ROW 0
#include "nodes_template.h"

#include <stdatomic.h>

/* ------------------------------------------------------------------------------------------------ a group */

static void pad_outputs(const block *b) {
    const size_t width = b->model->info.output_width, n_steps = b->output_steps;
    for (size_t i = 0; i < b->n_streams; i++) {
        const size_t length = axis_length(b, b->model->output_axis, i);
        float *rows = b->args->outputs + b->order[i] * n_steps * width;
        for (size_t t = length; t < n_steps; t++) {
            if (b->args->carry_padding && length) {
                memcpy(rows + t * width, rows + (length - 1) * width, width * sizeof(float));
            } else {
                memset(rows + t * width, 0, width * sizeof(float));
            }
        }
    }
}

static int all_prepared(const block *b) {
    int prepared = !b->args->reset;
    for (size_t i = 0; prepared && i < b->n_streams; i++) {
        prepared = gru_state_is_prepared(b->args->states[b->order[i]]);
    }
    return prepared;
}

/* The steps from the block's first one on that some stream has, `most` of them at most, on one time axis. */
static void lay_out(const block *b, shape *s, size_t axis, size_t most) {
    size_t row = 0, active = b->n_streams;
    for (s->n_steps = 0; s->n_steps < most; s->n_steps++) {
        while (active && axis_length(b, axis, active - 1) <= b->first_step + s->n_steps) {
            active--;
        }
        if (!active) {
            break;
        }
        s->n_active[s->n_steps] = active;
        s->first_row[s->n_steps] = row;
        row += active;
    }
    s->first_row[s->n_steps] = row;
}

static void run_group(block *b) {
    const gru_model *m = b->model;
    b->shapes = ROWS(b, shape, shapes);
    for (size_t axis = 0; axis < m->n_axes; axis++) {
        const size_t at = axis * (b->l->most_steps + 1);
        b->shapes[axis].n_active = ROWS(b, size_t, n_active) + at;
        b->shapes[axis].first_row = ROWS(b, size_t, first_row) + at;
    }
    b->output_steps = gru_output_steps(m, b->args->n_steps);
    b->prepared = all_prepared(b);
    for (b->first_step = 0; b->first_step < b->args->n_steps; b->first_step += b->shapes[0].n_steps) {
        lay_out(b, &b->shapes[0], 0, smaller(b->l->block_steps, b->args->n_steps - b->first_step));
        for (size_t axis = 1; axis < m->n_axes; axis++) {
            lay_out(b, &b->shapes[axis], axis, b->l->most_steps);
        }
        if (!b->shapes[0].n_steps) {
            break;
        }
        run_steps(b);
        b->prepared = 0;
    }
    for (size_t i = b->member; i < b->n_streams; i += b->n_members) {
        if (axis_length(b, 0, i)) {
            gru_state_set_flags(b->args->states[b->order[i]], 0);
        }
    }
    if (m->info.per_sequence) {
        run_sequences(b);
    } else if (b->args->lengths && b->member == 0) {
        pad_outputs(b);
    }
}

/* ------------------------------------------------------------------------------------------------ calls */

/* Streams by length, longest first, equals in their order. */
static void sort_by_length(const gru_run_args *args, uint32_t *counts, uint32_t *order) {
    if (!args->lengths) {
        for (size_t i = 0; i < args->n_streams; i++) {
            order[i] = (uint32_t)i;
        }
        return;
    }
    memset(counts, 0, (args->n_steps + 2) * sizeof *counts);
    for (size_t i = 0; i < args->n_streams; i++) {
        counts[args->n_steps - args->lengths[i] + 1]++;
    }
    for (size_t t = 0; t <= args->n_steps; t++) {
        counts[t + 1] += counts[t];
    }
    for (size_t i = 0; i < args->n_streams; i++) {
        order[counts[args->n_steps - args->lengths[i]]++] = (uint32_t)i;
    }
}

static gru_result check_tokens(const gru_model *m, const gru_run_args *args) {
    for (size_t i = 0; i < args->n_streams; i++) {
        const size_t length = args->lengths ? args->lengths[i] : args->n_steps;
        for (size_t t = 0; t < length; t++) {
            if (!gru_tokens_exist(m, args->tokens + (i * args->n_steps + t) * m->info.n_tokens)) {
                return GRU_ERROR_TOKEN;
            }
        }
    }
    return GRU_OK;
}

static gru_result check_args(const gru_model *m, const gru_run_args *args) {
    if (!args->states || !args->outputs || args->n_streams > UINT32_MAX || args->n_steps > UINT32_MAX - 2 ||
        !gru_inputs_given(m, args->vectors, args->tokens)) {
        return GRU_ERROR_ARGUMENT;
    }
    for (size_t i = 0; i < args->n_streams; i++) {
        if (!args->states[i]) {
            return GRU_ERROR_ARGUMENT;
        }
        if (m->info.context_width && !gru_state_has_context(args->states[i])) {
            return GRU_ERROR_CONTEXT;
        }
    }
    for (size_t i = 0; args->lengths && i < args->n_streams; i++) {
        if (args->lengths[i] > args->n_steps || args->lengths[i] < m->info.least_steps) {
            return GRU_ERROR_LENGTH;
        }
    }
    if (args->n_steps < m->info.least_steps) {
        return GRU_ERROR_LENGTH;
    }
    if (args->reset && m->n_axes > 1) {
        return GRU_ERROR_ARGUMENT;
    }
    return args->tokens ? check_tokens(m, args) : GRU_OK;
}

typedef struct call {
    const gru_model *model;
    const gru_kernels *kernels;
    const gru_run_args *args;
    const gru_schedule *l;
    unsigned char *memory; /* of all threads */
    const uint32_t *order;
    atomic_size_t next_group;
} call;

/* What each member of a team does; without one, what the caller does. */
static void run_groups(void *context, size_t member) {
    call *c = context;
    const gru_schedule *l = c->l;
    unsigned char *own = c->memory + member * l->thread_nbytes;
    block b = {
        .model = c->model, .kernels = c->kernels, .args = c->args, .l = l, .floats = own, .rows = own, .n_members = 1};
    if (l->share_panels) {
        b.floats = c->memory;
        b.team = c->args->team;
        b.member = member;
        b.n_members = l->n_threads;
        b.order = c->order;
        b.n_streams = c->args->n_streams;
        run_group(&b);
        return;
    }
    while (member < l->n_threads) {
        const size_t first = atomic_fetch_add_explicit(&c->next_group, 1, memory_order_relaxed) * l->group_streams;
        if (first >= c->args->n_streams) {
            break;
        }
        b.order = c->order + first;
        b.n_streams = smaller(l->group_streams, c->args->n_streams - first);
        run_group(&b);
    }
}

gru_result gru_run(const gru_model *model, const gru_run_args *args, void *workspace, size_t workspace_nbytes) {
    if (!model || !args || args->struct_nbytes != sizeof *args || !workspace) {
        return GRU_ERROR_ARGUMENT;
    }
    if (!args->n_streams) {
        return GRU_OK;
    }
    if (!args->n_steps) {
        return model->info.least_steps ? GRU_ERROR_LENGTH : GRU_OK;
    }
    const gru_result result = check_args(model, args);
    const gru_kernels *kernels = gru_kernels_used();
    if (result != GRU_OK || !kernels) {
        return result != GRU_OK ? result : GRU_ERROR_ARGUMENT;
    }
    const size_t n_threads = gru_team_ready(args->team);
    gru_schedule computed;
    const gru_schedule *l = &model->step_schedule;
    if (args->n_streams > 1 || args->n_steps > 1 || args->team) {
        computed = gru_make_schedule(model, args->n_streams, args->n_steps, n_threads);
        l = &computed;
    }
    if (workspace_nbytes < l->needed_nbytes) {
        return GRU_ERROR_ARGUMENT;
    }
    unsigned char *memory = aligned(workspace);
    uint32_t *order = (uint32_t *)(void *)(memory + l->order);
    sort_by_length(args, (uint32_t *)(void *)(memory + l->counts), order);
    memory += l->shared_nbytes;
    call c = {.model = model, .kernels = kernels, .args = args, .l = l, .memory = memory, .order = order};
    gru_team_run(l->n_threads > 1 ? args->team : NULL, run_groups, &c);
    return GRU_OK;
}
