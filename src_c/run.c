/* SPDX-License-Identifier: Apache-2.0 */
/* Running the program of a model. There is one way through it, for a step, a batch and a sequence alike:
 *
 *   streams are sorted by length, longest first, and cut into groups; a group belongs to one thread;
 *   a group goes through time in blocks of a few steps (all steps, if the network is not causal);
 *   a block goes through the nodes in order, each working on all rows of the block.
 *
 * A *row* is one value of one stream at one step. Because the longest streams come first, those still active at a step
 * are a prefix of the group, and rows are packed: row first_row[t] + i is stream i at the block's step t, for i <
 * n_active[t]. One step of one stream is a group of one, a block of one step, one row.
 *
 * With several threads, each takes whole groups. If there is only one group and its products are large, all members of
 * the team go through the same nodes together instead: each computes its share of the panels, the same ones at every
 * step, so that its share of the weights stays in its own cache; what is not a product is done by member 0; and they
 * meet at a barrier wherever one needs what another has written. */
#include "kernels.h"
#include "schedule.h"
#include "state.h"
#include "team.h"

#include <stdatomic.h>
#include <string.h>

/* Groups smaller than this compute W·x of several steps at once; larger ones have enough rows per step. */
enum { HOIST_BELOW_STREAMS = 16 };

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

static unsigned char *aligned(void *workspace) {
    return (unsigned char *)workspace + (64 - (uintptr_t)workspace % 64) % 64;
}

/* ------------------------------------------------------------------------------------------------ a block */

typedef struct block {
    const gru_model *model;
    const gru_kernels *kernels;
    const gru_run_args *args;
    const gru_schedule *l;
    unsigned char *floats; /* the part of the workspace for the group's values */
    unsigned char *rows;   /* and the one for this member's pointers to them */
    gru_team *team;        /* that shares this group; NULL: it is one thread's */
    size_t member, n_members;
    const uint32_t *order; /* the group's streams: their numbers in the call */
    size_t n_streams;      /* of the group */
    size_t first_step;     /* of the block, in the sequence */
    size_t n_steps;
    const size_t *n_active;  /* [n_steps] streams still active */
    const size_t *first_row; /* [n_steps + 1] */
    int prepared;            /* every stream's state holds the recurrent sums of the block's first step */
} block;

#define FLOATS(b, name) ((float *)(void *)((b)->floats + (b)->l->name))
#define ROWS(b, type, name) ((type *)(void *)((b)->rows + (b)->l->name))

/* This member's share of the panels of a product. */
static size_t first_panel(const block *b, const gru_matrix *m) { return m->panels * b->member / b->n_members; }

static size_t end_panel(const block *b, const gru_matrix *m) { return m->panels * (b->member + 1) / b->n_members; }

static size_t length_of(const block *b, size_t i) {
    return b->args->lengths ? b->args->lengths[b->order[i]] : b->args->n_steps;
}

/* Position of (stream i, the block's step t) among [B][T]. */
static size_t position(const block *b, size_t i, size_t t) {
    return b->order[i] * b->args->n_steps + b->first_step + t;
}

/* The row of a value per step. Inputs are not written to; the cast spares a second function. */
static float *row_at(const block *b, const gru_node *n, size_t i, size_t t) {
    switch (n->place) {
    case GRU_PLACE_INPUT: return (float *)(uintptr_t)(b->args->vectors + position(b, i, t) * n->stride);
    case GRU_PLACE_OUTPUT: return b->args->outputs + position(b, i, t) * n->stride + n->column;
    default: break;
    }
    return FLOATS(b, values) + n->offset * b->l->block_rows + (b->first_row[t] + i) * n->stride + n->column;
}

static float *sequence_row_at(const block *b, const gru_node *n, size_t i) {
    if (n->place == GRU_PLACE_OUTPUT) {
        return b->args->outputs + b->order[i] * n->stride + n->column;
    }
    return FLOATS(b, sequence_values) + n->offset * b->l->group_streams + i * n->stride + n->column;
}

static float *any_row_at(const block *b, const gru_node *n, size_t i, size_t t) {
    return n->per_sequence ? sequence_row_at(b, n, i) : row_at(b, n, i, t);
}

/* Pointers to all rows of a value at the block's steps [t0, t1), or to all its rows per sequence. Returns how many. */
static size_t rows_of(const block *b, const gru_node *n, size_t t0, size_t t1, float **rows) {
    size_t count = 0;
    if (n->per_sequence) {
        for (size_t i = 0; i < b->n_streams; i++) {
            rows[count++] = sequence_row_at(b, n, i);
        }
        return count;
    }
    for (size_t t = t0; t < t1; t++) {
        for (size_t i = 0; i < b->n_active[t]; i++) {
            rows[count++] = row_at(b, n, i, t);
        }
    }
    return count;
}

/* The product of a node with its input at steps [t0, t1): which sums it starts from, which vectors it reads. */
static gru_product input_product(const block *b, const gru_node *n, size_t t0, size_t t1) {
    float **x = ROWS(b, float *, x);
    const float **start = ROWS(b, const float *, start);
    size_t count = 0;
    if (n->vector_input >= 0) {
        count = rows_of(b, &b->model->nodes[n->inputs[n->vector_input]], t0, t1, x);
    }
    if (n->token_input) {
        count = 0;
        for (size_t t = t0; t < t1; t++) {
            for (size_t i = 0; i < b->n_active[t]; i++) {
                start[count++] = n->start + (size_t)b->args->tokens[position(b, i, t)] * n->start_stride;
            }
        }
    } else {
        for (size_t r = 0; r < count; r++) {
            start[r] = n->start;
        }
    }
    return (gru_product){.matrix = &n->w, .cols = n->w.cols, .start = start, .x = (const float *const *)x};
}

/* ------------------------------------------------------------------------------------------------ nodes */

/* Steps of a chunk: as many as a product is made for at once. */
static size_t chunk_steps(const block *b) { return b->l->chunk_rows / b->l->group_streams; }

static void run_dense(const block *b, const gru_node *n) {
    float **out = ROWS(b, float *, out);
    const int whole = n->act.code >= GRU_ACT_SOFTMAX; /* of the whole vector, not elementwise */
    const gru_act linear = {GRU_ACT_LINEAR, 0, 0};
    const size_t n_steps = n->per_sequence ? 1 : b->n_steps;
    for (size_t t0 = 0; t0 < n_steps; t0 += chunk_steps(b)) {
        const size_t t1 = smaller(t0 + chunk_steps(b), n_steps);
        const size_t n_rows = rows_of(b, n, t0, t1, out);
        const gru_product product = input_product(b, n, t0, t1);
        b->kernels->dense(&product, whole ? linear : n->act, n_rows, out, first_panel(b, &n->w), end_panel(b, &n->w));
        if (whole) {
            gru_team_barrier(b->team);
            for (size_t r = b->member; r < n_rows; r += b->n_members) {
                b->kernels->activation(n->act, out[r], out[r], n->width);
            }
        }
    }
}

/* The hidden state that stream i has before step t. */
static const float *hidden_before(const block *b, const gru_node *n, size_t i, size_t t) {
    const float *initial = b->args->states[b->order[i]] + n->h_offset;
    if (n->reverse) {
        const size_t next = b->first_step + t + 1;
        if (next == length_of(b, i)) {
            return initial;
        }
        return b->args->reset && b->args->reset[position(b, i, t + 1)] ? n->h0 : row_at(b, n, i, t + 1);
    }
    if (b->args->reset && b->args->reset[position(b, i, t)]) {
        return n->h0;
    }
    return t == 0 ? initial : row_at(b, n, i, t - 1);
}

/* One step t of all active streams, from the sums of the input half that `mx` describes. */
static void gru_step_rows(const block *b, const gru_node *n, size_t t, const gru_product *mx) {
    const gru_kernels *k = b->kernels;
    const size_t n_rows = b->n_active[t], p0 = first_panel(b, &n->u), p1 = end_panel(b, &n->u);
    const float **h = ROWS(b, const float *, h), **h_start = ROWS(b, const float *, h_start);
    float **out = ROWS(b, float *, out), **sh = ROWS(b, float *, sh);
    const int prepared = b->prepared && t == 0 && !n->reverse;
    rows_of(b, n, t, t + 1, out);
    for (size_t i = 0; i < n_rows; i++) {
        h[i] = hidden_before(b, n, i, t);
        h_start[i] = prepared ? b->args->states[b->order[i]] + n->prepared_offset : n->b_h;
    }
    const gru_product mh = {.matrix = &n->u, .cols = prepared ? 0 : n->u.cols, .start = h_start, .x = h};
    if (n->fused) {
        k->gru_fused(mx, &mh, n_rows, h, out, p0, p1);
        return;
    }
    for (size_t i = 0; i < n_rows; i++) {
        sh[i] = FLOATS(b, sums_h) + i * b->model->sums_h_width;
    }
    k->sums(&mh, n_rows, sh, p0, p1);
    if (n->reset != GRU_RESET_BEFORE) {
        k->gru_cell(n, n_rows, mx->start, (const float *const *)sh, h, out, p0, p1);
        return;
    }
    float **z = ROWS(b, float *, z_rows), **rh = ROWS(b, float *, rh_rows);
    for (size_t i = 0; i < n_rows; i++) {
        z[i] = FLOATS(b, z) + i * b->model->hidden_width;
        rh[i] = FLOATS(b, rh) + i * b->model->hidden_width;
    }
    k->gru_before_gates(n, n_rows, mx->start, (const float *const *)sh, h, z, rh, p0, p1);
    gru_team_barrier(b->team); /* the next product needs all of r*h */
    for (size_t i = 0; i < n_rows; i++) {
        h_start[i] = n->b_hn;
    }
    const gru_product mn = {.matrix = &n->u_n, .cols = n->u_n.cols, .start = h_start, .x = (const float *const *)rh};
    k->sums(&mn, n_rows, sh, p0, p1);
    k->gru_before_blend(n, n_rows, mx->start, (const float *const *)sh, (const float *const *)z, h, out, p0, p1);
}

/* Steps [t0, t1), a chunk. A kernel that fuses the products reads the inputs itself if there is nothing to be won by
 * doing several steps at once; all others get finished sums. */
static void gru_steps(const block *b, const gru_node *n, size_t t0, size_t t1) {
    gru_product mx = input_product(b, n, t0, t1);
    if (!n->fused || (mx.cols && t1 - t0 > 1 && b->n_streams < HOIST_BELOW_STREAMS)) {
        float **hoisted = ROWS(b, float *, hoisted);
        const size_t n_rows = b->first_row[t1] - b->first_row[t0];
        for (size_t r = 0; r < n_rows; r++) {
            hoisted[r] = FLOATS(b, sums_x) + r * b->model->sums_x_width;
        }
        b->kernels->sums(&mx, n_rows, hoisted, first_panel(b, &n->w), end_panel(b, &n->w));
        mx.cols = 0;
        mx.start = (const float *const *)hoisted;
    }
    for (size_t s = t0; s < t1; s++) {
        const size_t t = n->reverse ? t1 - 1 - (s - t0) : s;
        const size_t skip = b->first_row[t] - b->first_row[t0];
        const gru_product at = {.matrix = mx.matrix, .cols = mx.cols, .start = mx.start + skip, .x = mx.x + skip};
        gru_step_rows(b, n, t, &at);
        gru_team_barrier(b->team); /* the next step needs all of h' */
    }
}

static void run_gru(const block *b, const gru_node *n) {
    for (size_t done = 0; done < b->n_steps; done += chunk_steps(b)) {
        const size_t steps = smaller(chunk_steps(b), b->n_steps - done);
        const size_t t0 = n->reverse ? b->n_steps - done - steps : done;
        gru_steps(b, n, t0, t0 + steps);
    }
    for (size_t i = b->member; i < b->n_active[0]; i += b->n_members) {
        size_t last = 0;
        if (!n->reverse) {
            last = smaller(length_of(b, i), b->first_step + b->n_steps) - b->first_step - 1;
        }
        memcpy(b->args->states[b->order[i]] + n->h_offset, row_at(b, n, i, last), n->width * sizeof(float));
    }
}

/* Copies a value per step into one per sequence, for the streams whose last (or first) step is in this block. */
static void run_last(const block *b, const gru_node *n) {
    const gru_node *a = &b->model->nodes[n->inputs[0]];
    for (size_t i = 0; i < b->n_active[0]; i++) {
        const size_t step = n->op == GRU_OP_FIRST ? 0 : length_of(b, i) - 1;
        if (step >= b->first_step && step < b->first_step + b->n_steps) {
            memcpy(sequence_row_at(b, n, i), row_at(b, a, i, step - b->first_step), n->width * sizeof(float));
        }
    }
}

/* Operations that go row by row. */
static void run_row(const block *b, const gru_node *n, float *const *in, float *out) {
    const gru_kernels *k = b->kernels;
    switch (n->op) {
    case GRU_OP_ADD: k->add(in[0], in[1], out, n->width); break;
    case GRU_OP_MULTIPLY: k->multiply(in[0], in[1], out, n->width); break;
    case GRU_OP_AFFINE: k->affine(in[0], n->scale, n->shift, out, n->width); break;
    default: k->activation(n->act, in[0], out, n->width); break;
    }
}

static void run_rows(const block *b, const gru_node *n) {
    const gru_node *nodes = b->model->nodes;
    const size_t n_steps = n->per_sequence ? 1 : b->n_steps;
    for (size_t t = 0; t < n_steps; t++) {
        const size_t n_rows = n->per_sequence ? b->n_streams : b->n_active[t];
        for (size_t i = 0; i < n_rows; i++) {
            float *in[2] = {NULL, NULL};
            for (size_t j = 0; j < n->n_inputs; j++) {
                const gru_node *a = &nodes[n->inputs[j]];
                in[j] = any_row_at(b, a, i, t);
            }
            run_row(b, n, in, any_row_at(b, n, i, t));
        }
    }
}

/* Copies rows of `a` to where rows of `n` stand, from float `column` of it on. */
static void copy_rows(const block *b, const gru_node *a, const gru_node *n, size_t column) {
    const size_t n_steps = n->per_sequence ? 1 : b->n_steps;
    for (size_t t = 0; t < n_steps; t++) {
        const size_t n_rows = n->per_sequence ? b->n_streams : b->n_active[t];
        for (size_t i = 0; i < n_rows; i++) {
            memcpy(any_row_at(b, n, i, t) + column, any_row_at(b, a, i, t), a->width * sizeof(float));
        }
    }
}

/* Parts that were not written into the concatenation at once: the network's input, what is part of another one too. */
static void run_concat(const block *b, const gru_node *n) {
    size_t column = 0;
    for (size_t j = 0; j < n->n_inputs; j++) {
        const gru_node *a = &b->model->nodes[n->inputs[j]];
        const int in_place = a->place == n->place && a->offset == n->offset && a->column == n->column + column &&
                             a->stride == n->stride && a->place != GRU_PLACE_INPUT;
        if (!in_place) {
            copy_rows(b, a, n, column);
        }
        column += a->width;
    }
}

static void run_embedding(const block *b, const gru_node *n) {
    for (size_t t = 0; t < b->n_steps; t++) {
        for (size_t i = 0; i < b->n_active[t]; i++) {
            const size_t token = (size_t)b->args->tokens[position(b, i, t)];
            memcpy(row_at(b, n, i, t), n->rows + token * n->width, n->width * sizeof(float));
        }
    }
}

static void run_node(const block *b, const gru_node *n) {
    if (n->op == GRU_OP_DENSE) {
        run_dense(b, n);
        return;
    }
    if (n->op == GRU_OP_GRU) {
        run_gru(b, n);
        return;
    }
    if (b->member != 0) {
        return;
    }
    switch (n->op) {
    case GRU_OP_INPUT:
    case GRU_OP_TOKENS: break;
    case GRU_OP_EMBEDDING: run_embedding(b, n); break;
    case GRU_OP_CONCAT: run_concat(b, n); break;
    case GRU_OP_LAST:
    case GRU_OP_FIRST: run_last(b, n); break;
    default: run_rows(b, n); break;
    }
}

/* All nodes with rows per step, or all with rows per sequence; then outputs that are not written where they are
 * computed. */
static void run_nodes(const block *b, int per_sequence) {
    const gru_model *m = b->model;
    for (size_t i = 0; i < m->info.n_nodes; i++) {
        const gru_node *n = &m->nodes[i];
        const int now = n->per_sequence && n->op != GRU_OP_LAST && n->op != GRU_OP_FIRST;
        if (now == per_sequence) {
            run_node(b, n);
            gru_team_barrier(b->team);
        }
    }
    for (size_t i = 0; i < m->info.n_outputs; i++) {
        const gru_output *o = &m->outputs[i];
        if (o->copied && m->info.per_sequence == per_sequence && b->member == 0) {
            const gru_node to = {.place = GRU_PLACE_OUTPUT,
                                 .stride = m->info.output_width,
                                 .column = o->first,
                                 .per_sequence = per_sequence};
            copy_rows(b, &m->nodes[o->node], &to, 0);
        }
    }
}

/* ------------------------------------------------------------------------------------------------ a group */

static void pad_outputs(const block *b) {
    const size_t width = b->model->info.output_width, n_steps = b->args->n_steps;
    for (size_t i = 0; i < b->n_streams; i++) {
        const size_t length = length_of(b, i);
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

static void run_group(block *b) {
    size_t *n_active = ROWS(b, size_t, n_active), *first_row = ROWS(b, size_t, first_row);
    size_t active = b->n_streams;
    b->n_active = n_active;
    b->first_row = first_row;
    b->prepared = all_prepared(b);
    for (b->first_step = 0; b->first_step < b->args->n_steps; b->first_step += b->n_steps) {
        size_t row = 0;
        for (b->n_steps = 0; b->n_steps < smaller(b->l->block_steps, b->args->n_steps - b->first_step); b->n_steps++) {
            while (active && length_of(b, active - 1) <= b->first_step + b->n_steps) {
                active--;
            }
            if (!active) {
                break;
            }
            n_active[b->n_steps] = active;
            first_row[b->n_steps] = row;
            row += active;
        }
        if (!b->n_steps) {
            break;
        }
        first_row[b->n_steps] = row;
        run_nodes(b, 0);
        b->prepared = 0;
    }
    for (size_t i = b->member; i < b->n_streams; i += b->n_members) {
        if (length_of(b, i)) {
            gru_state_set_prepared(b->args->states[b->order[i]], 0);
        }
    }
    if (b->model->info.per_sequence) {
        run_nodes(b, 1);
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
            const int32_t token = args->tokens[i * args->n_steps + t];
            if (token < 0 || (size_t)token >= m->info.vocabulary) {
                return GRU_ERROR_TOKEN;
            }
        }
    }
    return GRU_OK;
}

static gru_result check_args(const gru_model *m, const gru_run_args *args) {
    if (!args->states || !args->outputs || args->n_streams > UINT32_MAX || args->n_steps > UINT32_MAX - 2 ||
        (m->info.vocabulary ? !args->tokens || args->vectors : !args->vectors || args->tokens)) {
        return GRU_ERROR_ARGUMENT;
    }
    for (size_t i = 0; i < args->n_streams; i++) {
        if (!args->states[i]) {
            return GRU_ERROR_ARGUMENT;
        }
    }
    for (size_t i = 0; args->lengths && i < args->n_streams; i++) {
        if (args->lengths[i] > args->n_steps || (m->info.per_sequence && !args->lengths[i])) {
            return GRU_ERROR_LENGTH;
        }
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
        return model->info.per_sequence ? GRU_ERROR_LENGTH : GRU_OK;
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

gru_result gru_step(const gru_model *model, float *state, const float *vector, const int32_t *token, float *output,
                    void *workspace) {
    if (!model || !state) {
        return GRU_ERROR_ARGUMENT;
    }
    if (!model->info.causal) {
        return GRU_ERROR_NOT_CAUSAL;
    }
    float *const states[1] = {state};
    const gru_run_args args = {.struct_nbytes = sizeof args,
                               .n_streams = 1,
                               .n_steps = 1,
                               .vectors = vector,
                               .tokens = token,
                               .states = states,
                               .outputs = output};
    return gru_run(model, &args, workspace, SIZE_MAX);
}

gru_result gru_prepare(const gru_model *model, float *state, void *workspace) {
    const gru_kernels *kernels = gru_kernels_used();
    (void)workspace;
    if (!model || !state || !kernels) {
        return GRU_ERROR_ARGUMENT;
    }
    if (!model->info.causal) {
        return GRU_ERROR_NOT_CAUSAL;
    }
    for (size_t i = 0; i < model->info.n_nodes; i++) {
        const gru_node *n = &model->nodes[i];
        if (n->op == GRU_OP_GRU) {
            const float *h = state + n->h_offset, *start = n->b_h;
            float *out = state + n->prepared_offset;
            const gru_product product = {.matrix = &n->u, .cols = n->u.cols, .start = &start, .x = &h};
            kernels->sums(&product, 1, &out, 0, n->u.panels);
        }
    }
    gru_state_set_prepared(state, 1);
    return GRU_OK;
}
