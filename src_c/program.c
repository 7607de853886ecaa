/* SPDX-License-Identifier: Apache-2.0 */
/* Reading a .gru file, second part: nodes. Every input is an earlier node, but for the source of a STATE;
 * every tensor has just the shape that its node needs. */
#include "reader.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* ------------------------------------------------------------------------------------------------ their tensors */

/* The tensor in a slot of a node, which must have just this shape; NULL (and GRU_OK) if the slot is empty and that is
 * allowed. */
static gru_result take_tensor(reader *in, uint32_t node, unsigned slot, const char *what, enum gru_layout layout,
                              size_t rows, size_t cols, size_t gates, const unsigned char **tensor) {
    uint32_t id = u32_at(record(in, NODES, node, NODE_NBYTES) + 64 + 4 * slot);
    *tensor = NULL;
    if (id == NONE) {
        return bad(in, "node %u: tensor slot %u (%s) is empty", node, slot, what);
    }
    if (id >= in->n_tensors) {
        return bad(in, "node %u: tensor slot %u (%s) names tensor %u of %u", node, slot, what, id, in->n_tensors);
    }
    const unsigned char *t = record(in, TENSORS, id, TENSOR_NBYTES);
    if (u32_at(t) != (uint32_t)layout || u32_at(t + 8) != rows || u32_at(t + 12) != cols || u32_at(t + 16) != gates) {
        return bad(
            in,
            "node %u: %s (tensor %u) has layout %u, %u rows, %u columns, %u gates; expected layout %d, %zu, %zu, %zu",
            node, what, id, u32_at(t), u32_at(t + 8), u32_at(t + 12), u32_at(t + 16), (int)layout, rows, cols, gates);
    }
    *tensor = t;
    return GRU_OK;
}

/* Likewise, of layout PLAIN or SUMS. */
static gru_result take_floats(reader *in, uint32_t node, unsigned slot, const char *what, enum gru_layout layout,
                              size_t rows, size_t cols, size_t gates, const float **data) {
    const unsigned char *tensor;
    const gru_result result = take_tensor(in, node, slot, what, layout, rows, cols, gates, &tensor);
    *data = tensor ? (const float *)(const void *)(in->bytes + u64_at(tensor + 24)) : NULL;
    return result;
}

static gru_result take_matrix(reader *in, uint32_t node, unsigned slot, const char *what, size_t rows, size_t cols,
                              size_t gates, gru_matrix *m) {
    const unsigned char *tensor = NULL;
    *m = (gru_matrix){.rows = rows, .cols = cols, .gates = gates, .panels = (rows + 15) / 16};
    if (cols && take_tensor(in, node, slot, what, GRU_LAYOUT_PANELS, rows, cols, gates, &tensor) != GRU_OK) {
        return GRU_ERROR_FORMAT;
    }
    if (tensor) {
        m->dtype = (enum gru_dtype)u32_at(tensor + 4);
        m->data = in->bytes + u64_at(tensor + 24);
        m->panel_nbytes = (size_t)panel_nbytes(m->dtype, cols, gates);
    }
    return GRU_OK;
}

/* ------------------------------------------------------------------------------------------------ nodes */

/* Bit 0: alpha is used, bit 1: beta. */
static unsigned parameters_used(int code) {
    switch (code) {
    case GRU_ACT_AFFINE:
    case GRU_ACT_SCALED_TANH:
    case GRU_ACT_HARD_SIGMOID:
    case GRU_ACT_CLIP: return 3;
    case GRU_ACT_LEAKY_RELU:
    case GRU_ACT_THRESHOLDED_RELU:
    case GRU_ACT_ELU: return 1;
    default: return 0;
    }
}

static gru_result take_activation(reader *in, uint32_t node, const unsigned char *field, int may_be_softmax,
                                  gru_act *act) {
    act->code = (int)u32_at(field);
    act->alpha = f32_at(field + 4);
    act->beta = f32_at(field + 8);
    const int elementwise = act->code >= GRU_ACT_LINEAR && act->code <= GRU_ACT_GELU_TANH;
    const int softmax = act->code == GRU_ACT_SOFTMAX || act->code == GRU_ACT_LOG_SOFTMAX;
    const unsigned used = parameters_used(act->code);
    if (!(elementwise || (softmax && may_be_softmax)) || !isfinite(act->alpha) || !isfinite(act->beta) ||
        (!(used & 1) && u32_at(field + 4)) || (!(used & 2) && u32_at(field + 8)) ||
        (act->code == GRU_ACT_CLIP && act->alpha > act->beta)) {
        return bad(in, "node %u: activation %u with parameters %g, %g does not exist here", node, (unsigned)act->code,
                   (double)act->alpha, (double)act->beta);
    }
    return GRU_OK;
}

/* The starts of sums: a bias row, a table with a row per token, or the value of SUMS. Sets w as well. */
static gru_result take_input_half(reader *in, uint32_t node, gru_node *n, size_t gates) {
    const gru_node *nodes = in->model->nodes;
    if (n->n_inputs < 1 || n->n_inputs > 2) {
        return bad(in, "node %u has %zu inputs, expected 1 or 2", node, n->n_inputs);
    }
    const gru_node *sums = gru_sums_of(&nodes[n->inputs[0]]);
    n->token_input = nodes[n->inputs[0]].op == GRU_OP_TOKENS;
    n->sums_input = sums != NULL;
    n->begun = n->token_input || n->sums_input;
    n->vector_input = n->n_inputs == 2 ? 1 : n->begun ? -1 : 0;
    if (n->n_inputs == 2 && (!n->begun || gates != 3)) {
        return bad(in, "node %u has two inputs; only a GRU of three gates may, and the first is the token or SUMS",
                   node);
    }
    size_t cols = n->vector_input < 0 ? 0 : nodes[n->inputs[n->vector_input]].width;
    TRY(take_matrix(in, node, 0, "W", n->width, cols, gates, &n->w));
    if (sums) {
        if (sums->w.gates != gates || sums->w.rows != n->width) {
            return bad(in, "node %u: SUMS of %zu gates of %zu, expected %zu of %zu", node, sums->w.gates, sums->w.rows,
                       gates, n->width);
        }
    } else if (n->token_input) {
        TRY(take_floats(in, node, 2, "table", GRU_LAYOUT_SUMS, nodes[n->inputs[0]].width, n->width, gates, &n->start));
        n->start_stride = gru_sums_width(&n->w);
    } else {
        TRY(take_floats(in, node, 1, "bias", GRU_LAYOUT_SUMS, 1, n->width, gates, &n->start));
    }
    return GRU_OK;
}

static gru_result take_gru(reader *in, uint32_t node, gru_node *n, const unsigned char *r) {
    TRY(take_activation(in, node, r + 24, 0, &n->act));
    TRY(take_activation(in, node, r + 36, 0, &n->gate_act));
    n->clip = f32_at(r + 48);
    n->reset = (int)u32_at(r + 52);
    n->reverse = u32_at(r + 56) == GRU_REVERSE;
    if (!isfinite(n->clip) || n->clip < 0 || u32_at(r + 52) > GRU_RESET_NONE || u32_at(r + 56) > GRU_REVERSE) {
        return bad(in, "node %u: clip %g, reset mode %u, direction %u: not a GRU of this format", node, (double)n->clip,
                   u32_at(r + 52), u32_at(r + 56));
    }
    const size_t gates = n->reset == GRU_RESET_NONE ? 2 : 3;
    const size_t recurrent_gates = n->reset == GRU_RESET_BEFORE ? 2 : gates;
    const size_t width = n->width;
    TRY(take_input_half(in, node, n, gates));
    TRY(take_matrix(in, node, 3, "U", width, width, recurrent_gates, &n->u));
    TRY(take_floats(in, node, 4, "b_h", GRU_LAYOUT_SUMS, 1, width, recurrent_gates, &n->b_h));
    if (n->reset == GRU_RESET_BEFORE) {
        TRY(take_matrix(in, node, 5, "U_n", width, width, 1, &n->u_n));
        TRY(take_floats(in, node, 6, "b_hn", GRU_LAYOUT_SUMS, 1, width, 1, &n->b_hn));
    }
    if (!n->h0_node) {
        TRY(take_floats(in, node, 7, "h0", GRU_LAYOUT_PLAIN, 1, width, 1, &n->h0));
    }
    n->state_width = width;
    n->fused = n->reset == GRU_RESET_AFTER && n->act.code == GRU_ACT_TANH && n->gate_act.code == GRU_ACT_SIGMOID &&
               !(n->clip > 0) && (!n->w.data || n->w.dtype == n->u.dtype);
    return GRU_OK;
}

static gru_result take_sums(reader *in, uint32_t node, gru_node *n, const unsigned char *r) {
    const uint64_t rows = parameter(r, 0), gates = parameter(r, 1), panels = (rows + GRU_LANES - 1) / GRU_LANES;
    if (!rows || !gates || gates > 4 || panels * gates * GRU_LANES != n->width) {
        return bad(in, "node %u: %u gates of %u outputs in the width %zu: not the sums of a matrix", node,
                   parameter(r, 1), parameter(r, 0), n->width);
    }
    n->vector_input = 0;
    TRY(take_matrix(in, node, 0, "W", (size_t)rows, in->model->nodes[n->inputs[0]].width, (size_t)gates, &n->w));
    return take_floats(in, node, 1, "bias", GRU_LAYOUT_SUMS, 1, (size_t)rows, (size_t)gates, &n->start);
}

static gru_result take_window(reader *in, uint32_t node, gru_node *n, const unsigned char *r) {
    const uint32_t taps = parameter(r, 0), dilation = parameter(r, 1), ahead = parameter(r, 2);
    const uint64_t span = taps && dilation ? (uint64_t)(taps - 1) * dilation : 0;
    if (!taps || !dilation || span > MAX_SPAN || ahead > span) {
        return bad(in, "node %u: %u taps, dilation %u, %u ahead: not a window of this format", node, taps, dilation,
                   ahead);
    }
    n->taps = taps;
    n->dilation = dilation;
    n->ahead = ahead;
    n->history = (size_t)span - ahead;
    n->state_width = n->history * in->model->nodes[n->inputs[0]].width;
    return GRU_OK;
}

static gru_result take_norm(reader *in, uint32_t node, gru_node *n, const unsigned char *r) {
    n->epsilon = f32_at(r + 28);
    n->rms = parameter(r, 0) == 1;
    n->parts = parameter(r, 1);
    if (!isfinite(n->epsilon) || n->epsilon < 0 || parameter(r, 0) > 1 || !n->parts || n->width % n->parts) {
        return bad(in, "node %u: epsilon %g, kind %u, %u parts of %zu: not a normalisation of this format", node,
                   (double)n->epsilon, parameter(r, 0), parameter(r, 1), n->width);
    }
    TRY(take_floats(in, node, 0, "scale", GRU_LAYOUT_PLAIN, 1, n->width, 1, &n->scale));
    return take_floats(in, node, 1, "shift", GRU_LAYOUT_PLAIN, 1, n->width, 1, &n->shift);
}

static gru_result take_slice(reader *in, uint32_t node, gru_node *n, const unsigned char *r) {
    const gru_node *a = &in->model->nodes[n->inputs[0]];
    const size_t first = parameter(r, 0);
    if (first > a->width || n->width > a->width - first) {
        return bad(in, "node %u: columns %zu to %zu of %zu", node, first, first + n->width, a->width);
    }
    n->source = a->op == GRU_OP_SLICE ? a->source : a;
    n->column = first + (a->op == GRU_OP_SLICE ? a->column : 0);
    return GRU_OK;
}

static gru_result take_attention(reader *in, uint32_t node, gru_node *n, const unsigned char *r) {
    const gru_node *nodes = in->model->nodes;
    const size_t key_width = nodes[n->inputs[0]].width;
    const uint32_t additive = parameter(r, 0), heads = parameter(r, 1), looks_back = parameter(r, 2);
    n->factor = f32_at(r + 28);
    n->parts = heads;
    n->looks_back = looks_back == 1;
    if (additive > 1 || looks_back > 1 || (looks_back && n->stored_rows) || !isfinite(n->factor) ||
        (additive && !(n->factor == 1)) || !heads || n->width % heads || key_width % heads) {
        return bad(in,
                   "node %u: kind %u, %u heads of widths %zu and %zu, %u, factor %g: not an attention of this format",
                   node, additive, heads, key_width, n->width, looks_back, (double)n->factor);
    }
    return additive ? take_floats(in, node, 0, "v", GRU_LAYOUT_PLAIN, 1, key_width, 1, &n->scale) : GRU_OK;
}

/* The source of a STATE is a later node, which is checked when that has been read. */
static gru_result take_state(reader *in, uint32_t node, gru_node *n, const unsigned char *r) {
    const uint32_t source = parameter(r, 0);
    if (source <= node || source >= in->n_nodes) {
        return bad(in, "node %u: its source is node %u, expected a later one of %u", node, source, in->n_nodes);
    }
    n->source = &in->model->nodes[source];
    n->state_width = n->width;
    return n->h0_node ? GRU_OK : take_floats(in, node, 0, "initial value", GRU_LAYOUT_PLAIN, 1, n->width, 1, &n->h0);
}

/* Inputs stand side by side in the vector, or in the array of tokens, of a step; contexts, behind them, in a vector of
 * their own. */
static gru_result take_network_input(reader *in, uint32_t node, gru_node *n, const unsigned char *r) {
    gru_info *info = &in->model->info;
    const int context = n->op == GRU_OP_INPUT && parameter(r, 1) == 1;
    size_t *next = context ? &info->context_width : n->op == GRU_OP_INPUT ? &info->input_width : &info->n_tokens;
    if (n->n_inputs || parameter(r, 0) != *next || (!context && parameter(r, 1))) {
        return bad(in, "node %u: an input of the network with %zu inputs at %u, expected none at %zu", node,
                   n->n_inputs, parameter(r, 0), *next);
    }
    if (context ? !info->n_inputs : info->n_contexts) {
        return bad(in, "node %u: contexts come behind the inputs of the steps, of which there is one at least", node);
    }
    n->held = n->per_sequence = context;
    n->column = *next;
    *next += n->op == GRU_OP_INPUT ? n->width : 1;
    if (info->input_width > MAX_WIDTH || info->context_width > MAX_WIDTH) {
        return bad(in, "the inputs are wider than %u floats", MAX_WIDTH);
    }
    if (n->op == GRU_OP_TOKENS && !info->vocabulary) {
        info->vocabulary = n->width;
    }
    *(context ? &info->n_contexts : &info->n_inputs) += 1;
    if (node >= MAX_INPUTS) {
        return bad(in, "there are more than %u inputs", MAX_INPUTS);
    }
    for (uint32_t i = 0; i < node; i++) { /* several can be told apart */
        const gru_node *other = &in->model->nodes[i];
        const int alike = strcmp(other->name, n->name) == 0;
        if (alike ? *n->name || other->held == context : other->held == context && (!*other->name || !*n->name)) {
            return bad(in, "inputs %u and %u do not have a name each", i, node);
        }
    }
    return GRU_OK;
}

/* Tensor slots that an operation may fill, as a bit mask. */
static unsigned allowed_slots(const gru_node *n) {
    const unsigned start = n->sums_input ? 0 : n->token_input ? 1u << 2 : 1u << 1;
    const unsigned matrix = n->vector_input >= 0 ? 1u : 0;
    switch (n->op) {
    case GRU_OP_EMBEDDING: return 1u;
    case GRU_OP_STATE: return n->h0_node ? 0 : 1u;
    case GRU_OP_ATTENTION: return n->scale ? 1u : 0;
    case GRU_OP_AFFINE:
    case GRU_OP_SUMS:
    case GRU_OP_NORM: return 3u;
    case GRU_OP_DENSE: return start | matrix;
    case GRU_OP_GRU: return start | matrix | (n->reset == GRU_RESET_BEFORE ? 0x78u : 0x18u) | (n->h0_node ? 0 : 0x80u);
    default: return 0;
    }
}

/* How many parameters an operation has. */
static unsigned n_parameters(int op) {
    switch (op) {
    case GRU_OP_TOKENS:
    case GRU_OP_GRU:
    case GRU_OP_REPEAT:
    case GRU_OP_SLICE: return 1;
    case GRU_OP_STATE:
    case GRU_OP_INPUT:
    case GRU_OP_SUMS:
    case GRU_OP_NORM: return 2;
    case GRU_OP_SUBSAMPLE:
    case GRU_OP_WINDOW: return 3;
    case GRU_OP_ATTENTION: return 4;
    default: return 0;
    }
}

/* Fields that the operation does not use must be zero, so that a later version can give them a meaning. */
static gru_result check_unused(reader *in, uint32_t node, const gru_node *n, const unsigned char *r) {
    const int has_act = n->op == GRU_OP_DENSE || n->op == GRU_OP_GRU || n->op == GRU_OP_ACTIVATION;
    const unsigned parameters = n_parameters(n->op);
    int ok = u32_at(r + 16) == 0 && all_zero(r + 60, 4) && all_zero(r + 96 + 4 * parameters, 32 - 4 * parameters) &&
             (has_act || (all_zero(r + 24, 4) && all_zero(r + 32, 4))) &&
             (has_act || n->op == GRU_OP_NORM || n->op == GRU_OP_ATTENTION || all_zero(r + 28, 4)) &&
             (n->op == GRU_OP_GRU || all_zero(r + 36, 24));
    for (unsigned slot = 0; slot < 8; slot++) {
        ok = ok && ((allowed_slots(n) >> slot & 1) || u32_at(r + 64 + 4 * slot) == NONE);
    }
    return ok ? GRU_OK : bad(in, "node %u: a field that operation %d does not use is not empty", node, n->op);
}

/* Number and kinds of inputs: vectors, all per step or all per sequence. */
static gru_result check_inputs(reader *in, uint32_t node, gru_node *n) {
    const gru_node *nodes = in->model->nodes;
    static const struct {
        uint32_t least, most;
    } arity[] = {[GRU_OP_EMBEDDING] = {1, 1}, [GRU_OP_DENSE] = {1, 2},      [GRU_OP_GRU] = {1, 2},
                 [GRU_OP_CONCAT] = {2, 1024}, [GRU_OP_ADD] = {2, 2},        [GRU_OP_MULTIPLY] = {2, 2},
                 [GRU_OP_AFFINE] = {1, 1},    [GRU_OP_ACTIVATION] = {1, 1}, [GRU_OP_LAST] = {1, 1},
                 [GRU_OP_FIRST] = {1, 1},     [GRU_OP_STATE] = {0, 1},      [GRU_OP_BLEND] = {3, 3},
                 [GRU_OP_SLICE] = {1, 1},     [GRU_OP_WINDOW] = {1, 1},     [GRU_OP_NORM] = {1, 1},
                 [GRU_OP_MEAN] = {1, 1},      [GRU_OP_MAX] = {1, 1},        [GRU_OP_ATTEND] = {2, 2},
                 [GRU_OP_SUBSAMPLE] = {1, 1}, [GRU_OP_REPEAT] = {1, 2},     [GRU_OP_ATTENTION] = {3, 4},
                 [GRU_OP_MAXIMUM] = {2, 2},   [GRU_OP_SUMS] = {1, 1}};
    if (n->n_inputs < arity[n->op].least || n->n_inputs > arity[n->op].most) {
        return bad(in, "node %u: operation %d has %zu inputs, expected %u to %u", node, n->op, n->n_inputs,
                   arity[n->op].least, arity[n->op].most);
    }
    int n_per_sequence = 0, n_held = 0;
    for (size_t i = 0; i < n->n_inputs; i++) {
        const gru_node *a = &nodes[n->inputs[i]];
        const int token = a->op == GRU_OP_TOKENS;
        const int token_wanted = n->op == GRU_OP_EMBEDDING;
        const int token_allowed = token_wanted || ((n->op == GRU_OP_DENSE || n->op == GRU_OP_GRU) && i == 0) ||
                                  (n->op == GRU_OP_REPEAT && i == 1);
        if ((token && !token_allowed) || (!token && token_wanted)) {
            return bad(in, "node %u: input %zu is %s", node, i,
                       token ? "the token, expected a vector" : "a vector, expected the token");
        }
        if (gru_sums_of(a) && n->op != GRU_OP_REPEAT && (n->op != GRU_OP_GRU || i > 0)) {
            return bad(in, "node %u: input %zu is SUMS, with which only a GRU can begin", node, i);
        }
        n_per_sequence += a->per_sequence;
        n_held += a->held;
    }
    if (n->op == GRU_OP_REPEAT) {
        return nodes[n->inputs[0]].per_sequence && n_per_sequence == 1
                   ? GRU_OK
                   : bad(in, "node %u repeats what is not one value per sequence", node);
    }
    if (n->op == GRU_OP_ATTENTION && n->stored_rows) {
        return (size_t)n_per_sequence == n->n_inputs - 1 && !nodes[n->inputs[0]].per_sequence
                   ? GRU_OK
                   : bad(in, "node %u: the query is one value per step, what is stored one per sequence", node);
    }
    const int step_only = n->op == GRU_OP_EMBEDDING || n->op == GRU_OP_GRU || n->op == GRU_OP_WINDOW ||
                          n->op == GRU_OP_SUBSAMPLE || n->op == GRU_OP_STATE || n->op == GRU_OP_ATTENTION ||
                          gru_op_ends_sequence(n->op);
    if (n_per_sequence && (step_only || (size_t)n_per_sequence != n->n_inputs)) {
        return bad(
            in, "node %u reads a value per sequence together with one per step, or where only one per step can be read",
            node);
    }
    if (n->op == GRU_OP_SUMS && !n_per_sequence) {
        return bad(in, "node %u reads a value per step, expected one per sequence", node);
    }
    n->per_sequence = n_per_sequence > 0 || gru_op_ends_sequence(n->op);
    n->held = n->per_sequence && n->n_inputs && (size_t)n_held == n->n_inputs;
    return GRU_OK;
}

static gru_result check_widths(reader *in, uint32_t node, const gru_node *n) {
    const gru_node *nodes = in->model->nodes;
    uint64_t expected = n->width;
    switch (n->op) {
    case GRU_OP_CONCAT:
        expected = 0;
        for (size_t i = 0; i < n->n_inputs; i++) {
            expected += nodes[n->inputs[i]].width;
        }
        break;
    case GRU_OP_ADD:
    case GRU_OP_MULTIPLY:
    case GRU_OP_MAXIMUM:
    case GRU_OP_BLEND:
        for (size_t i = 1; i < n->n_inputs; i++) {
            const size_t a = nodes[n->inputs[0]].width, b = nodes[n->inputs[i]].width;
            if (a != b && (b != 1 || n->op == GRU_OP_BLEND)) {
                return bad(in, "node %u: inputs of widths %zu and %zu, expected the same", node, a, b);
            }
        }
        expected = nodes[n->inputs[0]].width;
        break;
    case GRU_OP_ATTEND:
        expected = nodes[n->inputs[1]].width;
        if (expected % nodes[n->inputs[0]].width) {
            return bad(in, "node %u: scores of width %zu for values of width %zu, expected a divisor", node,
                       nodes[n->inputs[0]].width, nodes[n->inputs[1]].width);
        }
        break;
    case GRU_OP_ATTENTION:
        expected = (uint64_t)n->width * (n->stored_rows ? n->stored_rows : 1);
        if ((uint64_t)nodes[n->inputs[0]].width * (n->stored_rows ? n->stored_rows : 1) != nodes[n->inputs[1]].width ||
            expected != nodes[n->inputs[2]].width ||
            (n->n_inputs == 4 && (!n->stored_rows || nodes[n->inputs[3]].width != 1))) {
            return bad(in, "node %u: a query of width %zu for keys of width %zu, values of width %zu in %zu rows", node,
                       nodes[n->inputs[0]].width, nodes[n->inputs[1]].width, nodes[n->inputs[2]].width, n->stored_rows);
        }
        return GRU_OK;
    case GRU_OP_WINDOW: expected = (uint64_t)n->taps * nodes[n->inputs[0]].width; break;
    case GRU_OP_AFFINE:
    case GRU_OP_ACTIVATION:
    case GRU_OP_LAST:
    case GRU_OP_FIRST:
    case GRU_OP_NORM:
    case GRU_OP_MEAN:
    case GRU_OP_SUBSAMPLE:
    case GRU_OP_REPEAT:
    case GRU_OP_MAX: expected = nodes[n->inputs[0]].width; break;
    default: break;
    }
    return n->width == expected
               ? GRU_OK
               : bad(in, "node %u has width %zu, its inputs imply %llu", node, n->width, (unsigned long long)expected);
}

/* What the state of a GRU or a STATE is at first, if it is not an array: the last of the inputs, which is none then. */
static gru_result take_start(reader *in, uint32_t node, gru_node *n, const unsigned char *r) {
    const int has_start = n->op == GRU_OP_GRU || n->op == GRU_OP_STATE;
    const uint32_t given = has_start ? parameter(r, n->op == GRU_OP_STATE) : 0;
    if (!given) {
        return GRU_OK;
    }
    if (given > 1 || !n->n_inputs) {
        return bad(in, "node %u: a start of kind %u among %zu inputs", node, given, n->n_inputs);
    }
    n->n_inputs--;
    n->h0_node = &in->model->nodes[n->inputs[n->n_inputs]];
    if (!n->h0_node->held || gru_sums_of(n->h0_node) || n->h0_node->width != n->width) {
        return bad(in, "node %u starts from what is no value of contexts alone, of its width %zu", node, n->width);
    }
    return GRU_OK;
}

static gru_result take_node(reader *in, uint32_t node, uint32_t *next_edge) {
    gru_node *n = &in->model->nodes[node];
    const unsigned char *r = record(in, NODES, node, NODE_NBYTES);
    uint32_t op = u32_at(r), width = u32_at(r + 4), first = u32_at(r + 8), count = u32_at(r + 12);
    const gru_info *info = &in->model->info;
    const int may_be_input = node == info->n_inputs + info->n_contexts; /* behind none that is not */
    if (op < GRU_OP_INPUT || op >= GRU_OPS || (op <= GRU_OP_TOKENS ? !may_be_input : node == 0)) {
        return bad(in, "node %u has operation %u, expected %d to %d", node, op, may_be_input ? 1 : 3,
                   node ? GRU_OPS - 1 : 2);
    }
    if (!width || width > (op == GRU_OP_TOKENS ? MAX_DIMENSION : MAX_WIDTH)) {
        return bad(in, "node %u has width %u, expected 1 to %u", node, width,
                   op == GRU_OP_TOKENS ? MAX_DIMENSION : MAX_WIDTH);
    }
    if (first != *next_edge || count > in->n_edges - first) {
        return bad(in, "node %u: edges %u and %u more, expected them from %u on, up to %u", node, first, count,
                   *next_edge, in->n_edges);
    }
    *next_edge = first + count;
    if (!is_name(in, u32_at(r + 20))) {
        return bad(in, "node %u: its name is not a string of this file", node);
    }
    n->op = (int)op;
    n->name = string_at(in, u32_at(r + 20));
    n->width = width;
    n->n_inputs = count;
    n->inputs = (const uint32_t *)(const void *)record(in, EDGES, first, 4);
    n->vector_input = -1;
    for (uint32_t i = 0; i < count; i++) {
        if (n->inputs[i] >= node) {
            return bad(in, "node %u: input %u is node %u, expected an earlier one", node, i, n->inputs[i]);
        }
    }
    if (op == GRU_OP_INPUT || op == GRU_OP_TOKENS) {
        TRY(take_network_input(in, node, n, r));
        return check_unused(in, node, n, r);
    }
    n->stored_rows = op == GRU_OP_ATTENTION ? parameter(r, 3) : 0;
    TRY(take_start(in, node, n, r));
    TRY(check_inputs(in, node, n));
    TRY(gru_read_axis(in, node, n, r));
    if (op == GRU_OP_WINDOW) {
        TRY(take_window(in, node, n, r));
    }
    TRY(check_widths(in, node, n));
    switch (op) {
    case GRU_OP_EMBEDDING:
        TRY(take_floats(in, node, 0, "embedding", GRU_LAYOUT_PLAIN, in->model->nodes[n->inputs[0]].width, width, 1,
                        &n->rows));
        break;
    case GRU_OP_DENSE:
        TRY(take_activation(in, node, r + 24, 1, &n->act));
        TRY(take_input_half(in, node, n, 1));
        break;
    case GRU_OP_GRU: TRY(take_gru(in, node, n, r)); break;
    case GRU_OP_AFFINE:
        TRY(take_floats(in, node, 0, "scale", GRU_LAYOUT_PLAIN, 1, width, 1, &n->scale));
        TRY(take_floats(in, node, 1, "shift", GRU_LAYOUT_PLAIN, 1, width, 1, &n->shift));
        break;
    case GRU_OP_ACTIVATION: TRY(take_activation(in, node, r + 24, 1, &n->act)); break;
    case GRU_OP_STATE: TRY(take_state(in, node, n, r)); break;
    case GRU_OP_SLICE: TRY(take_slice(in, node, n, r)); break;
    case GRU_OP_SUMS: TRY(take_sums(in, node, n, r)); break;
    case GRU_OP_NORM: TRY(take_norm(in, node, n, r)); break;
    case GRU_OP_ATTENTION: TRY(take_attention(in, node, n, r)); break;
    default: break;
    }
    return check_unused(in, node, n, r);
}

gru_result gru_read_program(reader *in) {
    gru_model *model = in->model;
    model->nodes = calloc(in->n_nodes, sizeof *model->nodes);
    model->outputs = calloc(in->n_outputs, sizeof *model->outputs);
    if (!model->nodes || !model->outputs) {
        snprintf(in->message, GRU_MESSAGE_NBYTES, "out of memory");
        return GRU_ERROR_MEMORY;
    }
    model->axes[0].stride = 1; /* that of the inputs */
    model->n_axes = 1;
    uint32_t next_edge = 0;
    for (uint32_t i = 0; i < in->n_nodes; i++) {
        TRY(take_node(in, i, &next_edge));
    }
    if (next_edge != in->n_edges) {
        return bad(in, "the nodes have %u edges, section EDGES has %u", next_edge, in->n_edges);
    }
    TRY(gru_read_loops(in));
    return gru_read_outputs(in);
}
