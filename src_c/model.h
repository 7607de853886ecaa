/* SPDX-License-Identifier: Apache-2.0 */
/* An opened model in memory: the records of its file, checked, with pointers instead of numbers and everything decided
 * that can be decided before the first step. format.c builds it, run.c reads it. */
#ifndef GRU_MODEL_H
#define GRU_MODEL_H

#include "gru_engine.h"
#include "schedule.h"
#include "opcodes.h"

#define GRU_LANES 16 /* outputs of a panel */

/* A weight matrix in panels: [panels][cols][gates][16] (docs/FORMAT.md). data == NULL: there is none, cols is 0. */
typedef struct gru_matrix {
    const float *data;
    size_t rows, cols, gates, panels;
} gru_matrix;

/* Floats of one row of finished or starting sums of a matrix: [panels][gates][16]. */
static inline size_t gru_sums_width(const gru_matrix *m) { return m->panels * m->gates * GRU_LANES; }

typedef struct gru_act {
    int code;
    float alpha, beta;
} gru_act;

/* Where the rows of a value stand. */
enum gru_place {
    GRU_PLACE_INPUT,    /* in the caller's input */
    GRU_PLACE_OUTPUT,   /* in the caller's output, from float `column` of each row on */
    GRU_PLACE_WORKSPACE /* in the workspace */
};

typedef struct gru_node {
    int op;
    size_t width;
    size_t n_inputs;
    const uint32_t *inputs; /* node numbers, in the file */
    gru_act act;            /* of a GRU: the candidate's */
    int per_sequence;       /* one row per sequence, not per step */

    /* Sums of DENSE and of a GRU's input half start at a row of `start`: at row 0, the bias, or, if token_input, at the
     * token's row. */
    gru_matrix w;
    const float *start;
    size_t start_stride;
    int token_input;  /* inputs[0] is the token */
    int vector_input; /* number of the input that the matrix reads; -1: none */

    /* GRU */
    gru_act gate_act;
    float clip; /* 0: none */
    int reset, reverse;
    int fused;    /* the mainstream cell: reset after, sigmoid, tanh, no clip */
    gru_matrix u; /* reset before: gates r, z */
    const float *b_h;
    gru_matrix u_n; /* reset before: the candidate's */
    const float *b_hn;
    const float *h0;
    size_t h_offset;        /* of the hidden state in a state block, in floats */
    size_t prepared_offset; /* of the prepared sums s_h */

    /* EMBEDDING */
    const float *rows;

    /* AFFINE */
    const float *scale, *shift;

    enum gru_place place;
    size_t column; /* of the value in its row */
    size_t stride; /* floats from row to row */
    size_t offset; /* PLACE_WORKSPACE: where the rows begin, in floats per row of the block */
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
    gru_output *outputs;

    /* Sizes that a workspace depends on, in floats. */
    size_t step_values_width;     /* all values with a row per step */
    size_t sequence_values_width; /* all values with a row per sequence */
    size_t sums_x_width;          /* the widest s_x */
    size_t sums_h_width;          /* the widest s_h, that of the reset-before candidate included */
    size_t hidden_width;          /* the widest hidden state, in whole panels */
    size_t state_floats;          /* of a state block */
    size_t products_nbytes;       /* of all matrices: what a step reads */

    gru_schedule step_schedule; /* of one step of one stream */

    const unsigned char *bytes; /* the file */
    void *mapped;               /* to be unmapped, or NULL */
    void *owned;                /* to be freed, or NULL */
};

/* A state block begins with a header of 16 floats' size, whose first word says whether the prepared sums are valid. */
#define GRU_STATE_HEADER_FLOATS 16

static inline size_t gru_round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

/* Builds nodes, outputs and sizes from checked bytes; message gets GRU_MESSAGE_NBYTES. In format.c. */
gru_result gru_model_parse(gru_model *model, const unsigned char *bytes, size_t nbytes, int verify, char *message);
/* Decides where values stand and how large things are. In plan.c. */
void gru_model_plan(gru_model *model, size_t n_outputs);

uint32_t gru_crc32(const unsigned char *bytes, size_t nbytes);

#endif
