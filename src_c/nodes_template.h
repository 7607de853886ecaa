/* SPDX-License-Identifier: Apache-2.0 */
/* Running the nodes of a program over the rows of a block (block.h), once: run.c includes this for any number of rows,
 * step.c for a single one, with which the loops vanish. Everything is static.
 *
 * The including file defines
 *   ONE_ROW       1 or 0 */
#include "block.h"

/* ------------------------------------------------------------------------------------------------ nodes */

/* Steps of a chunk: as many as a product is made for at once. */
static size_t chunk_steps(const block *b) { return ONE_ROW ? 1 : b->l->chunk_rows / group_streams(b); }

static void run_dense(const block *b, const gru_node *n, size_t t0, size_t t1) {
    float **out = ROWS(b, float *, out);
    const int whole = n->act.code >= GRU_ACT_SOFTMAX; /* of the whole vector, not elementwise */
    const gru_act linear = {GRU_ACT_LINEAR, 0, 0};
    for (size_t t = t0; t < t1; t += chunk_steps(b)) {
        const size_t end = smaller(t + chunk_steps(b), t1);
        const size_t n_rows = rows_of(b, n, t, end, out);
        gru_product product = input_product(b, n, t, end);
        quantise(b->kernels, &product, n_rows, ROWS(b, unsigned char, quantised_x));
        products_of(b->kernels, &product)
            ->dense(&product, whole ? linear : n->act, n_rows, out, first_panel(b, &n->w), end_panel(b, &n->w));
        if (whole) {
            meet(b);
            for (size_t r = member(b); r < n_rows; r += members(b)) {
                b->kernels->vectors->activation(n->act, out[r], out[r], n->width);
            }
        }
    }
}

static void run_sums(const block *b, const gru_node *n) {
    float **out = ROWS(b, float *, out);
    const size_t n_rows = rows_of(b, n, 0, 1, out);
    gru_product product = input_product(b, n, 0, 1);
    quantise(b->kernels, &product, n_rows, ROWS(b, unsigned char, quantised_x));
    products_of(b->kernels, &product)->sums(&product, n_rows, out, first_panel(b, &n->w), end_panel(b, &n->w));
}

/* The hidden state that stream i has before step t, a step later in time if the layer is reverse. */
static const float *hidden_before(const block *b, const gru_node *n, size_t i, size_t t) {
    if (!n->reverse) {
        return row_before(b, n, n, i, t);
    }
    if (first_step(b) + t + 1 == length_of(b, n, i)) {
        return state_of(b, i) + n->h_offset;
    }
    return is_reset(b, i, t + 1) ? initial_row(b, n, i) : row_at(b, n, i, t + 1);
}

/* One step t of all active streams, from the sums of the input half that `mx` describes. */
static void gru_step_rows(const block *b, const gru_node *n, size_t t, const gru_product *mx) {
    const gru_kernels *k = b->kernels;
    const size_t n_rows = active(b, n, t), p0 = first_panel(b, &n->u), p1 = end_panel(b, &n->u);
    const float **h = ROWS(b, const float *, h), **h_start = ROWS(b, const float *, h_start);
    float **out = ROWS(b, float *, out), **sh = ROWS(b, float *, sh);
    const int prepared = b->prepared && t == 0 && !n->reverse;
    rows_of(b, n, t, t + 1, out);
    for (size_t i = 0; i < n_rows; i++) {
        h[i] = hidden_before(b, n, i, t);
        h_start[i] = prepared ? state_of(b, i) + n->prepared_offset : n->b_h;
    }
    gru_product mh = {.matrix = &n->u, .cols = prepared ? 0 : n->u.cols, .start = h_start, .x = h};
    quantise(k, &mh, n_rows, ROWS(b, unsigned char, quantised_h));
    if (n->fused) {
        products_of(k, &mh)->gru_fused(mx, &mh, n_rows, h, out, p0, p1);
        return;
    }
    for (size_t i = 0; i < n_rows; i++) {
        sh[i] = FLOATS(b, sums_h) + i * b->model->sums_h_width;
    }
    products_of(k, &mh)->sums(&mh, n_rows, sh, p0, p1);
    if (n->reset != GRU_RESET_BEFORE) {
        k->vectors->gru_cell(n, n_rows, mx->start, (const float *const *)sh, h, out, p0, p1);
        return;
    }
    float **z = ROWS(b, float *, z_rows), **rh = ROWS(b, float *, rh_rows);
    for (size_t i = 0; i < n_rows; i++) {
        z[i] = FLOATS(b, z) + i * b->model->hidden_width;
        rh[i] = FLOATS(b, rh) + i * b->model->hidden_width;
    }
    k->vectors->gru_before_gates(n, n_rows, mx->start, (const float *const *)sh, h, z, rh, p0, p1);
    meet(b); /* the next product needs all of r*h */
    for (size_t i = 0; i < n_rows; i++) {
        h_start[i] = n->b_hn;
    }
    gru_product mn = {.matrix = &n->u_n, .cols = n->u_n.cols, .start = h_start, .x = (const float *const *)rh};
    quantise(k, &mn, n_rows, ROWS(b, unsigned char, quantised_h));
    products_of(k, &mn)->sums(&mn, n_rows, sh, p0, p1);
    k->vectors->gru_before_blend(n, n_rows, mx->start, (const float *const *)sh, (const float *const *)z, h, out, p0,
                                 p1);
}

/* Steps [t0, t1), a chunk. A kernel that fuses the products reads the inputs itself if there is nothing to be won by
 * doing several steps at once; all others get finished sums. */
static void gru_steps(const block *b, const gru_node *n, size_t t0, size_t t1) {
    gru_product mx = input_product(b, n, t0, t1);
    quantise(b->kernels, &mx, first_row(b, n, t1) - first_row(b, n, t0), ROWS(b, unsigned char, quantised_x));
    if (!n->fused || (mx.cols && t1 - t0 > 1 && streams(b) < HOIST_BELOW_STREAMS)) {
        float **hoisted = ROWS(b, float *, hoisted);
        const size_t n_rows = first_row(b, n, t1) - first_row(b, n, t0);
        for (size_t r = 0; r < n_rows; r++) {
            hoisted[r] = FLOATS(b, sums_x) + r * b->model->sums_x_width;
        }
        products_of(b->kernels, &mx)->sums(&mx, n_rows, hoisted, first_panel(b, &n->w), end_panel(b, &n->w));
        mx = (gru_product){.matrix = mx.matrix, .start = (const float *const *)hoisted, .x = mx.x};
    }
    for (size_t s = t0; s < t1; s++) {
        const size_t t = n->reverse ? t1 - 1 - (s - t0) : s;
        const gru_product at = skip_rows(mx, first_row(b, n, t) - first_row(b, n, t0));
        gru_step_rows(b, n, t, &at);
        meet(b); /* the next step needs all of h' */
    }
}

static void run_gru(const block *b, const gru_node *n, size_t t0, size_t t1) {
    for (size_t done = 0; done < t1 - t0; done += chunk_steps(b)) {
        const size_t chunk = smaller(chunk_steps(b), t1 - t0 - done);
        const size_t t = n->reverse ? t1 - done - chunk : t0 + done;
        gru_steps(b, n, t, t + chunk);
    }
}

/* Steps of stream i in this block, of the values of node n. */
static size_t steps_of(const block *b, const gru_node *n, size_t i) {
    return ONE_ROW ? 1 : smaller(length_of(b, n, i), first_step(b) + steps(b, n)) - first_step(b);
}

/* Whether stream i starts anew at one of the steps (first, last] of the block. */
static int is_reset_between(const block *b, size_t i, size_t first, size_t last) {
    int reset = 0;
    for (size_t t = first + 1; !ONE_ROW && b->args->reset && t <= last && !reset; t++) {
        reset = is_reset(b, i, t);
    }
    return reset;
}

/* ---- windows: the steps before the block stand in a ring in the state */

static float *ring_row(float *ring, size_t oldest, size_t i, size_t history, size_t width) {
    const size_t at = oldest + i;
    return ring + GRU_STATE_HEADER_FLOATS + (at < history ? at : at - history) * width;
}

/* The input of step t + behind - before, or NULL where there is none. */
static const float *window_row(const block *b, const gru_node *n, size_t i, size_t t, size_t before, size_t behind) {
    const gru_node *a = &b->model->nodes[n->inputs[0]];
    if (before <= t + behind) {
        const size_t s = t + behind - before;
        const int outside = first_step(b) + s >= length_of(b, n, i);
        return outside || is_reset_between(b, i, smaller(s, t), s < t ? t : s) ? NULL : row_at(b, a, i, s);
    }
    const size_t back = before - t - behind; /* steps before the block */
    float *ring = state_of(b, i) + n->h_offset;
    return is_reset(b, i, 0) || is_reset_between(b, i, 0, t)
               ? NULL
               : ring_row(ring, gru_ring_oldest(ring), n->history - back, n->history, a->width);
}

static void run_window(const block *b, const gru_node *n, size_t t0, size_t t1) {
    const size_t width = b->model->nodes[n->inputs[0]].width;
    for (size_t t = t0; t < t1; t++) {
        for (size_t i = 0; i < active(b, n, t); i++) {
            float *out = row_at(b, n, i, t);
            for (size_t tap = 0; tap < n->taps; tap++) {
                const float *in = window_row(b, n, i, t, (n->taps - 1 - tap) * n->dilation, n->ahead);
                if (in) {
                    memcpy(out + tap * width, in, width * sizeof(float));
                } else {
                    memset(out + tap * width, 0, width * sizeof(float));
                }
            }
        }
    }
}

/* The last steps of the block into the ring, the oldest of which they replace. */
static void keep_history(const block *b, const gru_node *n, size_t i) {
    const gru_node *a = &b->model->nodes[n->inputs[0]];
    float *ring = state_of(b, i) + n->h_offset;
    const size_t n_steps = steps_of(b, n, i), first = n_steps > n->history ? n_steps - n->history : 0;
    if (is_reset(b, i, 0) || is_reset_between(b, i, 0, n_steps - 1)) {
        memset(ring, 0, (GRU_STATE_HEADER_FLOATS + n->state_width) * sizeof(float));
    }
    for (size_t t = first; t < n_steps; t++) {
        const size_t oldest = gru_ring_oldest(ring);
        float *row = ring_row(ring, oldest, 0, n->history, a->width);
        if (is_reset_between(b, i, t, n_steps - 1)) {
            memset(row, 0, a->width * sizeof(float));
        } else {
            memcpy(row, row_at(b, a, i, t), a->width * sizeof(float));
        }
        gru_ring_set_oldest(ring, (oldest + 1) % n->history);
    }
}

/* What the streams keep of this block for the next one. */
static void keep_states(const block *b) {
    for (const gru_node *n = b->model->kept; n; n = n->next_kept) {
        const gru_node *source = n->op == GRU_OP_STATE ? n->source : n;
        for (size_t i = member(b); steps(b, n) && i < active(b, n, 0); i += members(b)) {
            if (n->op == GRU_OP_WINDOW) {
                keep_history(b, n, i);
            } else {
                const float *last = row_at(b, source, i, n->reverse ? 0 : steps_of(b, n, i) - 1);
                memcpy(state_of(b, i) + n->h_offset, last, n->width * sizeof(float));
            }
        }
    }
}

/* ---- one value per sequence */

/* Copies the value of the last (or first) step, for the streams for which it is in this block. */
static void run_last(const block *b, const gru_node *n) {
    const gru_node *a = &b->model->nodes[n->inputs[0]];
    for (size_t i = 0; i < active(b, a, 0); i++) {
        const size_t step = n->op == GRU_OP_FIRST ? 0 : length_of(b, a, i) - 1;
        if (step >= first_step(b) && step < first_step(b) + steps(b, a)) {
            memcpy(sequence_row_at(b, n, i), row_at(b, a, i, step - first_step(b)), n->width * sizeof(float));
        }
    }
}

/* The mean or the largest of the steps so far. */
static void run_pooling(const block *b, const gru_node *n) {
    const gru_vectors *k = b->kernels->vectors;
    const gru_node *a = &b->model->nodes[n->inputs[0]];
    for (size_t i = 0; i < active(b, a, 0); i++) {
        float *out = sequence_row_at(b, n, i);
        for (size_t t = 0; t < steps_of(b, a, i); t++) {
            const float *in = row_at(b, a, i, t);
            if (first_step(b) + t == 0) {
                memcpy(out, in, n->width * sizeof(float));
            } else if (n->op == GRU_OP_MAX) {
                k->maximum(out, in, 0, out, n->width);
            } else {
                k->add(out, in, 0, out, n->width);
            }
        }
        if (n->op == GRU_OP_MEAN && first_step(b) + steps_of(b, a, i) == length_of(b, a, i)) {
            k->divide(out, (float)length_of(b, a, i), n->width);
        }
    }
}

/* Sums of values weighted by the softmax of their scores; the block is the whole sequence. */
static void run_attend(const block *b, const gru_node *n) {
    const gru_vectors *k = b->kernels->vectors;
    const gru_node *scores = &b->model->nodes[n->inputs[0]], *values = &b->model->nodes[n->inputs[1]];
    const size_t width = n->width / scores->width;
    const gru_act softmax = {GRU_ACT_SOFTMAX, 0, 0};
    float *weights = FLOATS(b, weights);
    for (size_t i = 0; i < active(b, values, 0); i++) {
        float *out = sequence_row_at(b, n, i);
        memset(out, 0, n->width * sizeof(float));
        for (size_t s = 0; s < scores->width; s++) {
            for (size_t t = 0; t < steps_of(b, values, i); t++) {
                weights[t] = row_at(b, scores, i, t)[s];
            }
            k->activation(softmax, weights, weights, steps_of(b, values, i));
            for (size_t t = 0; t < steps_of(b, values, i); t++) {
                k->accumulate(weights[t], row_at(b, values, i, t) + s * width, out + s * width, width);
            }
        }
    }
}

/* Row s of the keys or values of an ATTENTION. */
static const float *attended_row(const block *b, const gru_node *n, const gru_node *a, size_t i, size_t s) {
    return n->stored_rows ? sequence_row_at(b, a, i) + s * (a->width / n->stored_rows) : row_at(b, a, i, s);
}

/* How many of them there are for step t: of those that are stored, as many as count, one at least. */
static size_t attended_rows(const block *b, const gru_node *n, size_t i, size_t t) {
    const gru_node *nodes = b->model->nodes;
    if (!n->stored_rows) {
        return n->looks_back ? t + 1 : steps_of(b, &nodes[n->inputs[1]], i);
    }
    const float most = (float)n->stored_rows,
                count = n->n_inputs < 4 ? most : *sequence_row_at(b, &nodes[n->inputs[3]], i);
    return count < most ? (count >= 1 ? (size_t)count : 1) : n->stored_rows;
}

/* Means of values with scores of their own for each step of the query, of the products of its parts with those of the keys. */
static void run_attention(const block *b, const gru_node *n, size_t t0, size_t t1) {
    const gru_vectors *k = b->kernels->vectors;
    const gru_node *nodes = b->model->nodes;
    const gru_node *query = &nodes[n->inputs[0]], *keys = &nodes[n->inputs[1]], *values = &nodes[n->inputs[2]];
    const size_t key_width = query->width / n->parts, width = n->width / n->parts;
    const gru_act softmax = {GRU_ACT_SOFTMAX, 0, 0};
    float *weights = FLOATS(b, weights);
    for (size_t t = t0; t < t1; t++) {
        for (size_t i = 0; i < active(b, n, t); i++) {
            const size_t n_rows = attended_rows(b, n, i, t);
            const float *q = row_at(b, query, i, t);
            float *out = row_at(b, n, i, t);
            memset(out, 0, n->width * sizeof(float));
            for (size_t head = 0; head < n->parts; head++) {
                const size_t first = head * key_width, column = head * width;
                const float *v = n->scale ? n->scale + first : NULL;
                for (size_t s = 0; s < n_rows; s++) {
                    const float *key = attended_row(b, n, keys, i, s) + first;
                    weights[s] = k->score(q + first, key, v, n->factor, key_width);
                }
                k->activation(softmax, weights, weights, n_rows);
                for (size_t s = 0; s < n_rows; s++) {
                    k->accumulate(weights[s], attended_row(b, n, values, i, s) + column, out + column, width);
                }
            }
        }
    }
}

/* ---- row by row */

static void run_row(const block *b, const gru_node *n, float *const *in, float *out) {
    const gru_node *nodes = b->model->nodes;
    const gru_vectors *k = b->kernels->vectors;
    switch (n->op) {
    case GRU_OP_ADD: k->add(in[0], in[1], nodes[n->inputs[1]].width < n->width, out, n->width); break;
    case GRU_OP_MULTIPLY: k->multiply(in[0], in[1], nodes[n->inputs[1]].width < n->width, out, n->width); break;
    case GRU_OP_MAXIMUM: k->maximum(in[0], in[1], nodes[n->inputs[1]].width < n->width, out, n->width); break;
    case GRU_OP_BLEND: k->blend(in[0], in[1], in[2], out, n->width); break;
    case GRU_OP_AFFINE: k->affine(in[0], n->scale, n->shift, out, n->width); break;
    case GRU_OP_NORM: k->norm(n, in[0], out); break;
    default: k->activation(n->act, in[0], out, n->width); break;
    }
}

static void run_rows(const block *b, const gru_node *n, size_t t0, size_t t1) {
    const gru_node *nodes = b->model->nodes;
    for (size_t t = t0; t < t1; t++) {
        const size_t n_rows = n->per_sequence ? streams(b) : active(b, n, t);
        for (size_t i = 0; i < n_rows; i++) {
            float *in[3] = {NULL, NULL, NULL};
            for (size_t j = 0; j < n->n_inputs; j++) {
                in[j] = any_row_at(b, &nodes[n->inputs[j]], i, t);
            }
            run_row(b, n, in, any_row_at(b, n, i, t));
        }
    }
}

/* Copies rows of `a` to where rows of `n` stand, from float `column` of it on. */
static void copy_rows(const block *b, const gru_node *a, const gru_node *n, size_t column, size_t t0, size_t t1) {
    for (size_t t = t0; t < t1; t++) {
        const size_t n_rows = n->per_sequence ? streams(b) : active(b, n, t);
        for (size_t i = 0; i < n_rows; i++) {
            memcpy(any_row_at(b, n, i, t) + column, any_row_at(b, a, i, t), a->width * sizeof(float));
        }
    }
}

/* Parts that were not written into the concatenation at once: the network's input, what is part of another one too. */
static void run_concat(const block *b, const gru_node *n, size_t t0, size_t t1) {
    size_t column = 0;
    for (size_t j = 0; j < n->n_inputs; j++) {
        const gru_node *a = &b->model->nodes[n->inputs[j]];
        const int in_place =
            a->place == n->place && a->offset == n->offset && a->column == n->column + column && a->stride == n->stride;
        if (!in_place) {
            copy_rows(b, a, n, column, t0, t1);
        }
        column += a->width;
    }
}

static void run_embedding(const block *b, const gru_node *n, size_t t0, size_t t1) {
    const gru_node *token = &b->model->nodes[n->inputs[0]];
    for (size_t t = t0; t < t1; t++) {
        for (size_t i = 0; i < active(b, n, t); i++) {
            memcpy(row_at(b, n, i, t), n->rows + token_at(b, token, i, t) * n->width, n->width * sizeof(float));
        }
    }
}

/* ---- the program */

/* A node at steps [t0, t1) of the block; per sequence: [0, 1). */
static void run_node(const block *b, const gru_node *n, size_t t0, size_t t1) {
    if (!gru_op_has_rows(n->op)) {
        return;
    }
    if (n->op == GRU_OP_DENSE) {
        run_dense(b, n, t0, t1);
    } else if (n->op == GRU_OP_GRU) {
        run_gru(b, n, t0, t1);
    } else if (n->op == GRU_OP_SUMS) {
        run_sums(b, n);
    } else if (member(b) == 0) {
        switch (n->op) {
        case GRU_OP_EMBEDDING: run_embedding(b, n, t0, t1); break;
        case GRU_OP_CONCAT: run_concat(b, n, t0, t1); break;
        case GRU_OP_WINDOW: run_window(b, n, t0, t1); break;
        case GRU_OP_LAST:
        case GRU_OP_FIRST: run_last(b, n); break;
        case GRU_OP_MEAN:
        case GRU_OP_MAX: run_pooling(b, n); break;
        case GRU_OP_ATTEND: run_attend(b, n); break;
        case GRU_OP_ATTENTION: run_attention(b, n, t0, t1); break;
        default: run_rows(b, n, t0, t1); break;
        }
    }
    meet(b);
}

/* Nodes [first, end) of a loop, step by step. Returns its end. */
static size_t run_loop(const block *b, size_t first) {
    const gru_node *nodes = b->model->nodes;
    const size_t end = nodes[first].loop_end;
    for (size_t t = 0; t < steps(b, &nodes[first]); t++) {
        for (size_t i = first; i < end; i++) {
            run_node(b, &nodes[i], t, t + 1);
        }
    }
    return end;
}

/* Outputs that are not written where they are computed. */
static void copy_outputs(const block *b) {
    const gru_model *m = b->model;
    for (size_t i = 0; i < m->info.n_outputs && member(b) == 0; i++) {
        const gru_output *o = &m->outputs[i];
        if (o->copied) {
            const gru_node to = {.place = GRU_PLACE_OUTPUT,
                                 .axis = m->output_axis,
                                 .stride = m->info.output_width,
                                 .column = o->first,
                                 .per_sequence = m->info.per_sequence};
            copy_rows(b, &m->nodes[o->node], &to, 0, 0, to.per_sequence ? 1 : steps(b, &to));
        }
    }
}

/* All nodes that work on the rows of a step, in a block. */
static void run_steps(const block *b) {
    const gru_node *nodes = b->model->nodes;
    for (size_t i = 0; i < b->model->info.n_nodes;) {
        if (nodes[i].loop_end) {
            i = run_loop(b, i);
            continue;
        }
        if (!nodes[i].per_sequence || gru_op_ends_sequence(nodes[i].op)) {
            run_node(b, &nodes[i], 0, steps(b, &nodes[i]));
        } else if (b->model->in_order && !nodes[i].held) {
            run_node(b, &nodes[i], 0, 1);
        }
        i++;
    }
    if (!b->model->info.per_sequence) {
        copy_outputs(b);
    }
    meet(b); /* an output may be the state before the block */
    keep_states(b);
    meet(b);
}

/* All nodes that work on a value per sequence, behind the last block, unless steps needed them. */
static void run_sequences(const block *b) {
    const gru_node *nodes = b->model->nodes;
    for (size_t i = 0; i < b->model->info.n_nodes; i++) {
        if (nodes[i].per_sequence && !nodes[i].held && !gru_op_ends_sequence(nodes[i].op) && !b->model->in_order) {
            run_node(b, &nodes[i], 0, 1);
        }
    }
    if (b->model->info.per_sequence) {
        copy_outputs(b);
    }
}
