/* SPDX-License-Identifier: Apache-2.0 */
/* A block: some streams over some steps, and where the rows of each value stand in it. Included by nodes_template.h, for
 * any number of rows or, with ONE_ROW, for a single one, with which everything about the shape of a block is a constant.
 * Everything is static.
 *
 * A *row* is one value of one stream at one step. The streams of a block stand in the order of their lengths, longest
 * first, so those still active at a step are a prefix of them, and rows are packed: row first_row(t) + i is stream i at
 * the block's step t, for i < active(t). */
#include "kernels.h"
#include "schedule.h"
#include "state.h"
#include "team.h"

#include <string.h>

/* Groups smaller than this compute W·x of several steps at once; larger ones have enough rows per step. */
enum { HOIST_BELOW_STREAMS = 16 };

static inline size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

static inline unsigned char *aligned(void *workspace) {
    return (unsigned char *)workspace + (64 - (uintptr_t)workspace % 64) % 64;
}

/* ------------------------------------------------------------------------------------------------ a block */

#if !ONE_ROW
/* The block on one time axis. (If there are several, it is the whole sequences.) */
typedef struct shape {
    size_t n_steps;
    size_t *n_active;  /* [n_steps] streams still active */
    size_t *first_row; /* [n_steps + 1] */
} shape;
#endif

typedef struct block {
    const gru_model *model;
    const gru_kernels *kernels;
    const gru_run_args *args;
    const gru_schedule *l;
    unsigned char *floats; /* the part of the workspace for the group's values */
    unsigned char *rows;   /* and the one for this member's pointers to them */
    int prepared;          /* every stream's state holds the recurrent sums of the block's first step */
#if !ONE_ROW
    gru_team *team; /* that shares this group; NULL: it is one thread's */
    size_t member, n_members;
    const uint32_t *order; /* the group's streams: their numbers in the call */
    size_t n_streams;      /* of the group */
    size_t output_steps;   /* of a stream, in the caller's output */
    size_t first_step;     /* of the block, in the sequence */
    shape *shapes;         /* for each time axis */
#endif
} block;

#define FLOATS(b, name) ((float *)(void *)((b)->floats + (b)->l->name))
#define ROWS(b, type, name) ((type *)(void *)((b)->rows + (b)->l->name))

/* ---- its shape */

#if ONE_ROW
#define SHAPE(one, many) ((void)b, one)
#else
#define SHAPE(one, many) (many)
#endif

static inline size_t streams(const block *b) { return SHAPE(1u, b->n_streams); }
static inline size_t first_step(const block *b) { return SHAPE(0u, b->first_step); }
static inline size_t member(const block *b) { return SHAPE(0u, b->member); }
static inline size_t members(const block *b) { return SHAPE(1u, b->n_members); }
static inline size_t block_rows(const block *b) { return SHAPE(1u, b->l->block_rows); }
static inline size_t group_streams(const block *b) { return SHAPE(1u, b->l->group_streams); }

/* Of the values of node n, in this block: steps, streams still active at step t, rows before that step. */
static inline size_t steps(const block *b, const gru_node *n) {
    return SHAPE(1 + 0 * n->axis, b->shapes[n->axis].n_steps);
}
static inline size_t active(const block *b, const gru_node *n, size_t t) {
    return SHAPE(1 + 0 * (t + n->axis), b->shapes[n->axis].n_active[t]);
}
static inline size_t first_row(const block *b, const gru_node *n, size_t t) {
    return SHAPE(t + 0 * n->axis, b->shapes[n->axis].first_row[t]);
}

/* Number in the call and state of stream i. */
static inline size_t stream(const block *b, size_t i) { return SHAPE(i, b->order[i]); }
static inline float *state_of(const block *b, size_t i) { return b->args->states[stream(b, i)]; }

/* Steps of stream i on a time axis. */
#if !ONE_ROW
static inline size_t axis_length(const block *b, size_t axis, size_t i) {
    const size_t length = b->args->lengths ? b->args->lengths[b->order[i]] : b->args->n_steps;
    return axis ? gru_axis_steps(&b->model->axes[axis], length) : length;
}
#endif
static inline size_t length_of(const block *b, const gru_node *n, size_t i) {
    return SHAPE(1 + 0 * (i + n->axis), axis_length(b, n->axis, i));
}

/* Position of (stream i, the block's step t) among [B][T] inputs, and among the outputs. */
static inline size_t position(const block *b, size_t i, size_t t) {
    return SHAPE(0 * (i + t), b->order[i] * b->args->n_steps + b->first_step + t);
}
static inline size_t output_position(const block *b, size_t i, size_t t) {
    return SHAPE(0 * (i + t), b->order[i] * b->output_steps + b->first_step + t);
}

/* Whether stream i starts anew at step t. */
static inline int is_reset(const block *b, size_t i, size_t t) {
    return SHAPE(0 * (int)(i + t), b->args->reset && b->args->reset[position(b, i, t)]);
}

/* Waits for the other members of the team. */
static inline void meet(const block *b) { SHAPE((void)0, gru_team_barrier(b->team)); }

/* This member's share of the panels of a product. */
static inline size_t first_panel(const block *b, const gru_matrix *m) { return m->panels * member(b) / members(b); }
static inline size_t end_panel(const block *b, const gru_matrix *m) { return m->panels * (member(b) + 1) / members(b); }

/* ------------------------------------------------------------------------------------------------ rows */

static float *row_at(const block *b, const gru_node *n, size_t i, size_t t);
static float *sequence_row_at(const block *b, const gru_node *n, size_t i);

/* What the state of node n is at the start of a sequence. */
static const float *initial_row(const block *b, const gru_node *n, size_t i) {
    return n->h0_node ? sequence_row_at(b, n->h0_node, i) : n->h0;
}

/* What stream i keeps of `source` from the step before t, or starts with: the state of node n. */
static float *row_before(const block *b, const gru_node *n, const gru_node *source, size_t i, size_t t) {
    if (is_reset(b, i, t)) {
        return (float *)(uintptr_t)initial_row(b, n, i);
    }
    return t == 0 ? state_of(b, i) + n->h_offset : row_at(b, source, i, t - 1);
}

/* The row of a value per step. Inputs and initial values are not written to; the casts spare a second function. */
static float *row_at(const block *b, const gru_node *n, size_t i, size_t t) {
    switch (n->place) {
    case GRU_PLACE_INPUT: return (float *)(uintptr_t)(b->args->vectors + position(b, i, t) * n->stride + n->column);
    case GRU_PLACE_BEFORE: return row_before(b, n, n->source, i, t);
    case GRU_PLACE_PART: return row_at(b, n->source, i, t) + n->column;
    case GRU_PLACE_OUTPUT: return b->args->outputs + output_position(b, i, t) * n->stride + n->column;
#if !ONE_ROW /* a network with it cannot be stepped */
    case GRU_PLACE_SUBSAMPLE: return row_at(b, n->source, i, n->first + t * n->every);
#endif
    case GRU_PLACE_REPEAT: return sequence_row_at(b, n->source, i);
    default: break;
    }
    return FLOATS(b, values) + n->offset * block_rows(b) + (first_row(b, n, t) + i) * n->stride + n->column;
}

static float *sequence_row_at(const block *b, const gru_node *n, size_t i) {
    if (n->place == GRU_PLACE_PART) {
        return sequence_row_at(b, n->source, i) + n->column;
    }
    if (n->place == GRU_PLACE_OUTPUT) {
        return b->args->outputs + stream(b, i) * n->stride + n->column;
    }
    if (n->place == GRU_PLACE_HELD) {
        return state_of(b, i) + n->offset + n->column;
    }
    return FLOATS(b, sequence_values) + n->offset * group_streams(b) + i * n->stride + n->column;
}

static float *any_row_at(const block *b, const gru_node *n, size_t i, size_t t) {
    return n->per_sequence ? sequence_row_at(b, n, i) : row_at(b, n, i, t);
}

static size_t token_at(const block *b, const gru_node *n, size_t i, size_t t) {
    return (size_t)b->args->tokens[position(b, i, t) * n->stride + n->column];
}

/* Pointers to all rows of a value at the block's steps [t0, t1), or to all its rows per sequence. Returns how many. */
static size_t rows_of(const block *b, const gru_node *n, size_t t0, size_t t1, float **rows) {
    size_t count = 0;
    if (n->per_sequence) {
        for (size_t i = 0; i < streams(b); i++) {
            rows[count++] = sequence_row_at(b, n, i);
        }
        return count;
    }
    for (size_t t = t0; t < t1; t++) {
        for (size_t i = 0; i < active(b, n, t); i++) {
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
    if (n->begun && n->sums_input) {
        rows_of(b, &b->model->nodes[n->inputs[0]], t0, t1, (float **)(uintptr_t)start);
    } else if (n->begun) {
        const gru_node *token = &b->model->nodes[n->inputs[0]];
        count = 0;
        for (size_t t = t0; t < t1; t++) {
            for (size_t i = 0; i < active(b, n, t); i++) {
                start[count++] = n->start + token_at(b, token, i, t) * n->start_stride;
            }
        }
    } else {
        for (size_t r = 0; r < count; r++) {
            start[r] = n->start;
        }
    }
    return (gru_product){.matrix = &n->w, .cols = n->w.cols, .start = start, .x = (const float *const *)x};
}

static const gru_products *products_of(const gru_kernels *k, const gru_product *p) {
    return k->products[p->matrix->dtype];
}

/* Rounds the vectors of a product with int8 weights, into `memory`. */
static void quantise(const gru_kernels *k, gru_product *p, size_t n_rows, unsigned char *memory) {
    if (p->cols && p->matrix->dtype == GRU_INT8) {
        const size_t nbytes = gru_quantised_nbytes(p->cols);
        for (size_t r = 0; r < n_rows; r++) {
            k->vectors->quantise(p->x[r], p->cols, (gru_quantised *)(void *)(memory + r * nbytes));
        }
        p->quantised = memory;
    }
}

/* The product without its first `n` rows. */
static gru_product skip_rows(gru_product p, size_t n) {
    p.start += n;
    p.x += n;
    if (p.quantised) {
        p.quantised += n * gru_quantised_nbytes(p.cols);
    }
    return p;
}
