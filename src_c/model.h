/* SPDX-License-Identifier: Apache-2.0 */
/* An opened model in memory: the records of its file, checked, with pointers instead of numbers and everything decided
 * that can be decided before the first step. format.c builds it, run.c reads it. */
#ifndef GRU_MODEL_H
#define GRU_MODEL_H

#include "gru_engine.h"
#include "schedule.h"
#include "opcodes.h"

#define GRU_LANES 16     /* outputs of a panel */
#define GRU_MAX_AXES 256 /* docs/FORMAT.md */

/* A weight matrix in panels (docs/FORMAT.md). data == NULL: there is none, cols is 0. */
typedef struct gru_matrix {
    const unsigned char *data;
    size_t rows, cols, gates, panels;
    size_t panel_nbytes;
    enum gru_dtype dtype;
} gru_matrix;

/* Floats of one row of finished or starting sums of a matrix: [panels][gates][16]. */
static inline size_t gru_sums_width(const gru_matrix *m) { return m->panels * m->gates * GRU_LANES; }

/* A vector of float32 rounded to int8, for products with int8 weights: x[k] is about step * q[k]. q is followed by
 * zeros up to a multiple of 16. */
typedef struct gru_quantised {
    float step;  /* NaN if x has a NaN or an infinity; all of q is 0 then */
    float total; /* of q: an integer below 2^24 */
    int8_t q[];
} gru_quantised;

/* Bytes of a quantised vector of `cols`, in whole cache lines. */
static inline size_t gru_quantised_nbytes(size_t cols) {
    return (sizeof(gru_quantised) + (cols + 15) / 16 * 16 + 63) / 64 * 64;
}

typedef struct gru_act {
    int code;
    float alpha, beta;
} gru_act;

/* Where the rows of a value stand. */
enum gru_place {
    GRU_PLACE_INPUT,     /* in the caller's input */
    GRU_PLACE_OUTPUT,    /* in the caller's output, from float `column` of each row on */
    GRU_PLACE_WORKSPACE, /* in the workspace */
    GRU_PLACE_BEFORE,    /* STATE: where the row of `source` stands for the step before */
    GRU_PLACE_PART,      /* SLICE: where the row of `source` stands, from float `column` on */
    GRU_PLACE_SUBSAMPLE, /* where the row of `source` stands for another step */
    GRU_PLACE_REPEAT,    /* where the row of `source` per sequence stands */
    GRU_PLACE_HELD       /* in the state block, from float `offset + column` on: one row per sequence */
};

/* The network's input, states, slices and values with other steps stand where something else is. */
static inline int gru_op_has_rows(int op) {
    return op != GRU_OP_INPUT && op != GRU_OP_TOKENS && op != GRU_OP_STATE && op != GRU_OP_SLICE &&
           op != GRU_OP_SUBSAMPLE && op != GRU_OP_REPEAT;
}

/* Operations that make one value per sequence of one per step. */
static inline int gru_op_ends_sequence(int op) {
    return op == GRU_OP_LAST || op == GRU_OP_FIRST || op == GRU_OP_MEAN || op == GRU_OP_MAX || op == GRU_OP_ATTEND;
}

/* A time axis: of a sequence of T steps ceil((T - lost) / stride) or none, or always `fixed`, if that is not 0. */
typedef struct gru_axis { size_t lost, stride, fixed; } gru_axis;

static inline size_t gru_axis_steps(const gru_axis *axis, size_t n_steps) {
    if (axis->fixed) {
        return axis->fixed;
    }
    return n_steps > axis->lost ? (n_steps - axis->lost - 1) / axis->stride + 1 : 0;
}

typedef struct gru_node {
    int op;
    const char *name;
    size_t width;
    size_t axis; /* number of the axis of its steps; 0 is that of the inputs */
    size_t n_inputs;
    const uint32_t *inputs; /* node numbers, in the file */
    gru_act act;            /* of a GRU: the candidate's */
    int per_sequence;       /* one row per sequence, not per step */
    int held;               /* likewise, of contexts alone: computed when they are set */

    /* Sums of DENSE, SUMS and of a GRU's input half start at a row of `start`: at row 0, the bias, or, if token_input, at
     * the token's row; or, if sums_input, at the row of inputs[0]. */
    gru_matrix w;
    const float *start;
    size_t start_stride;
    int token_input;  /* inputs[0] is the token */
    int sums_input;   /* inputs[0] is SUMS, repeated */
    int begun;        /* one of the two */
    int vector_input; /* number of the input that the matrix reads; -1: none */

    /* GRU */
    gru_act gate_act;
    float clip; /* 0: none */
    int reset, reverse;
    int fused;    /* the mainstream cell: reset after, sigmoid, tanh, no clip; both matrices of one type */
    gru_matrix u; /* reset before: gates r, z */
    const float *b_h;
    gru_matrix u_n; /* reset before: the candidate's */
    const float *b_hn;
    size_t prepared_offset; /* of the prepared sums s_h in a state block, in floats */

    /* What the stream keeps from step to step: of a GRU and a STATE a value, of a WINDOW the last inputs. */
    size_t state_width;             /* in floats; 0: nothing */
    size_t h_offset;                /* in a state block, in floats */
    const float *h0;                /* the initial value; NULL: zeros, or */
    const struct gru_node *h0_node; /* the held value that is the initial one */
    const struct gru_node *next_kept;

    /* STATE, SLICE, SUBSAMPLE, REPEAT */
    const struct gru_node *source;
    size_t first, every, dropped; /* SUBSAMPLE, in steps of its source */
    uint32_t loop_end;            /* a loop begins here and goes on before this node; 0: none begins */

    /* WINDOW, in steps */
    size_t taps, dilation, ahead, history;

    /* EMBEDDING */
    const float *rows;

    /* AFFINE, NORM, ATTENTION */
    const float *scale, *shift; /* of additive scores: scale; of others it is NULL */
    float epsilon;
    float factor; /* of dot products */
    int rms;
    size_t parts;   /* ATTENTION: heads */
    int looks_back; /* ATTENTION: at keys up to the query's step only */
    size_t
        stored_rows; /* ATTENTION: of the keys and values, which are one value per sequence, one row behind the other; 0:
                         * they are per step */

    enum gru_place place;
    size_t column; /* of the value in its row */
    size_t stride; /* floats from row to row */
    size_t offset; /* PLACE_WORKSPACE: where the rows begin, in floats per row of the block */
                   /* PLACE_HELD: where the row is, in floats of a state block */
} gru_node;

typedef struct gru_output {
    uint32_t node;
    const char *name;
    size_t first, width;
    int copied; /* the node's rows stand elsewhere and are copied at the end */
} gru_output;

struct gru_model {
    gru_info info;
    gru_node *nodes;
    const gru_node *kept; /* the first of those that keep something */
    gru_output *outputs;

    /* Sizes that a workspace depends on, in floats. */
    size_t step_values_width;     /* all values with a row per step */
    size_t sequence_values_width; /* all values with a row per sequence */
    size_t held_values_width;     /* all values that are held, the context vector in front */
    size_t context_offset;        /* of the context vector in a state block, in floats */
    size_t sums_x_width;          /* the widest s_x */
    size_t sums_h_width;          /* the widest s_h, that of the reset-before candidate included */
    size_t hidden_width;          /* the widest hidden state, in whole panels */
    size_t state_floats;          /* of a state block */
    size_t quantised_w_nbytes;    /* in bytes: the longest vector that an int8 matrix of an input half or a dense */
    size_t quantised_u_nbytes;    /* layer, or a recurrent one, reads */
    size_t products_nbytes;       /* of all matrices: what a step reads */
    int whole_sequences;          /* a block must be a whole sequence */
    int attends;
    size_t most_stored_rows; /* of an ATTENTION */
    int in_order;            /* steps may need values per sequence: these are not left to the end */

    gru_axis axes[GRU_MAX_AXES];
    size_t n_axes, output_axis;

    gru_schedule step_schedule; /* of one step of one stream */

    const unsigned char *bytes; /* the file */
    void *mapped;               /* to be unmapped, or NULL */
    void *owned;                /* to be freed, or NULL */
};

/* A state block begins with a header of 16 floats' size, whose first word has flags (state.h), the second says whether there
 * is a context. So does the history of a WINDOW, a ring: its first word is the place of the oldest
 * step. */
#define GRU_STATE_HEADER_FLOATS 16

/* Whether vectors and tokens are there just where the model reads them. */
static inline int gru_inputs_given(const gru_model *m, const float *vectors, const int32_t *tokens) {
    return !vectors == !m->info.input_width && !tokens == !m->info.n_tokens;
}

/* Whether the tokens of one step are in their vocabularies. */
static inline int gru_tokens_exist(const gru_model *m, const int32_t *tokens) {
    for (size_t i = 0; i < m->info.n_inputs; i++) {
        const gru_node *n = &m->nodes[i];
        if (n->op == GRU_OP_TOKENS && (tokens[n->column] < 0 || (size_t)tokens[n->column] >= n->width)) {
            return 0;
        }
    }
    return 1;
}

/* The SUMS that a node is, or that it repeats; NULL if there are none. */
static inline const gru_node *gru_sums_of(const gru_node *n) {
    n = n->op == GRU_OP_REPEAT ? n->source : n;
    return n->op == GRU_OP_SUMS ? n : NULL;
}

/* The row of a held value in a state block. */
static inline float *gru_held_row(const gru_node *n, float *state) {
    size_t column = n->column;
    while (n->place == GRU_PLACE_PART) {
        n = n->source;
        column += n->column;
    }
    return state + n->offset + column;
}

/* Whether it is an ATTENTION to what is held, so that it can be stepped. */
static inline int gru_attends_to_held(const gru_node *n, const gru_node *nodes) {
    int held = n->op == GRU_OP_ATTENTION && n->stored_rows;
    for (size_t i = 1; held && i < n->n_inputs; i++) {
        held = nodes[n->inputs[i]].held;
    }
    return held;
}

/* Lets states start from what is held, now that there is a context. In model.c. */
void gru_state_begin(const gru_model *model, float *state);

static inline size_t gru_round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

/* Builds nodes, outputs and sizes from checked bytes; message gets GRU_MESSAGE_NBYTES. In format.c. */
gru_result gru_model_parse(gru_model *model, const unsigned char *bytes, size_t nbytes, int verify, char *message);
/* Decides where values stand and how large things are. In plan.c. */
void gru_model_plan(gru_model *model, size_t n_outputs);

uint32_t gru_crc32(const unsigned char *bytes, size_t nbytes);

#endif
