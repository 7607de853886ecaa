/* SPDX-License-Identifier: Apache-2.0 */
/* What is decided when a model is opened: where each value stands, what a state consists of, how large a workspace is.
 * */
#include "model.h"

/* A value that is an output is written where the caller wants it; a value that is part of a concatenation is written
 * into it; any other has its own rows in the workspace. A concatenation comes after its parts, so going backwards
 * decides it first. */
static void place_values(gru_model *model) {
    gru_node *nodes = model->nodes;
    size_t *next_offset[3] = {&model->step_values_width, &model->sequence_values_width, &model->held_values_width};
    enum { UNDECIDED = -1 };
    for (size_t i = 0; i < model->info.n_nodes; i++) {
        nodes[i].place = (enum gru_place)UNDECIDED;
    }
    for (size_t i = 0; i < model->info.n_outputs; i++) {
        gru_output *o = &model->outputs[i];
        gru_node *n = &nodes[o->node];
        o->copied = !gru_op_has_rows(n->op) || n->held || (int)n->place != UNDECIDED;
        if (!o->copied) {
            n->place = GRU_PLACE_OUTPUT;
            n->column = o->first;
            n->stride = model->info.output_width;
        }
    }
    for (size_t i = model->info.n_nodes; i-- > 0;) {
        gru_node *n = &nodes[i];
        if (!gru_op_has_rows(n->op)) { /* it stands where something else is */
            n->place = n->op == GRU_OP_STATE       ? GRU_PLACE_BEFORE
                       : n->op == GRU_OP_SLICE     ? GRU_PLACE_PART
                       : n->op == GRU_OP_SUBSAMPLE ? GRU_PLACE_SUBSAMPLE
                       : n->op == GRU_OP_REPEAT    ? GRU_PLACE_REPEAT
                       : n->held                   ? GRU_PLACE_HELD
                                                   : GRU_PLACE_INPUT;
            n->stride = n->op == GRU_OP_TOKENS ? model->info.n_tokens : model->info.input_width;
            continue;
        }
        if ((int)n->place == UNDECIDED) {
            size_t *next = next_offset[n->held ? 2 : n->per_sequence];
            n->place = n->held ? GRU_PLACE_HELD : GRU_PLACE_WORKSPACE;
            n->stride = gru_round_up(n->width, GRU_LANES);
            n->offset = *next;
            *next += n->stride;
        }
        if (n->op == GRU_OP_CONCAT) {
            size_t column = n->column;
            for (size_t j = 0; j < n->n_inputs; j++) {
                gru_node *part = &nodes[n->inputs[j]];
                if ((int)part->place == UNDECIDED && gru_op_has_rows(part->op) && part->held == n->held) {
                    part->place = n->place;
                    part->column = column;
                    part->stride = n->stride;
                    part->offset = n->offset;
                }
                column += part->width;
            }
        }
    }
}

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

/* A state block: a header, what each node keeps, the prepared sums, the context vector and what is held, each beginning
 * at a multiple of 16 floats. */
static void lay_out_state(gru_model *model) {
    size_t next = GRU_STATE_HEADER_FLOATS;
    for (size_t i = 0; i < model->info.n_nodes; i++) {
        gru_node *n = &model->nodes[i];
        if (n->state_width) {
            n->h_offset = next;
            next += gru_round_up(n->state_width, GRU_LANES) + (n->op == GRU_OP_WINDOW ? GRU_STATE_HEADER_FLOATS : 0);
            model->info.state_width += n->state_width;
        }
    }
    /* Histories first: the input of a WINDOW may be a STATE, whose row at the first step stands where its new value goes. */
    const gru_node **last = &model->kept;
    for (int histories = 1; histories >= 0; histories--) {
        for (size_t i = 0; i < model->info.n_nodes; i++) {
            gru_node *n = &model->nodes[i];
            if (n->state_width && (n->op == GRU_OP_WINDOW) == histories) {
                *last = n;
                last = &n->next_kept;
            }
        }
    }
    for (size_t i = 0; i < model->info.n_nodes; i++) {
        gru_node *n = &model->nodes[i];
        if (n->op == GRU_OP_GRU && !n->reverse) {
            n->prepared_offset = next;
            next += gru_sums_width(&n->u);
        }
    }
    model->context_offset = next;
    for (size_t i = 0; i < model->info.n_nodes; i++) {
        model->nodes[i].offset += model->nodes[i].place == GRU_PLACE_HELD ? next : 0;
    }
    next += model->held_values_width;
    model->state_floats = next;
    model->info.state_nbytes = next * sizeof(float);
}

static size_t matrix_nbytes(const gru_matrix *m) { return m->panels * m->panel_nbytes; }

static size_t quantised_nbytes(const gru_matrix *m) {
    return m->data && m->dtype == GRU_INT8 ? gru_quantised_nbytes(m->cols) : 0;
}

void gru_model_plan(gru_model *model, size_t n_outputs) {
    gru_info *info = &model->info;
    info->output_width = model->outputs[n_outputs - 1].first + model->outputs[n_outputs - 1].width;
    info->per_sequence = model->nodes[model->outputs[0].node].per_sequence;
    info->other_steps = model->n_axes > 1;
    model->output_axis = model->nodes[model->outputs[0].node].axis;
    info->causal = 1;
    info->least_steps = info->per_sequence || model->axes[model->output_axis].fixed;
    model->held_values_width = gru_round_up(info->context_width, GRU_LANES);
    for (size_t i = 0; i < info->n_nodes; i++) {
        const gru_node *n = &model->nodes[i];
        const int repeats = n->op == GRU_OP_REPEAT && !n->source->held; /* what steps have to come first for */
        const int attends = n->op == GRU_OP_ATTENTION && !gru_attends_to_held(n, model->nodes);
        const int other_steps = n->op == GRU_OP_SUBSAMPLE || repeats || attends || n->axis;
        if (n->reverse || n->ahead || other_steps || (gru_op_ends_sequence(n->op) && n->op != GRU_OP_LAST)) {
            info->causal = 0;
        }
        model->in_order |= repeats || (attends && n->stored_rows);
        model->attends |= n->op == GRU_OP_ATTEND || n->op == GRU_OP_ATTENTION;
        model->most_stored_rows = larger(model->most_stored_rows, n->stored_rows);
        model->whole_sequences |= n->reverse || n->ahead || other_steps || n->op == GRU_OP_ATTEND;
        if (gru_op_ends_sequence(n->op) || (attends && !n->stored_rows)) { /* of no steps there is no value */
            const size_t keys = n->inputs[n->op == GRU_OP_ATTENTION];
            const gru_axis *axis = &model->axes[model->nodes[keys].axis];
            info->least_steps = larger(info->least_steps, axis->fixed ? 0 : axis->lost + 1);
        }
        model->products_nbytes += matrix_nbytes(&n->w) + matrix_nbytes(&n->u) + matrix_nbytes(&n->u_n);
        model->quantised_w_nbytes = larger(model->quantised_w_nbytes, quantised_nbytes(&n->w));
        model->quantised_u_nbytes = larger(model->quantised_u_nbytes, quantised_nbytes(&n->u));
        model->quantised_u_nbytes = larger(model->quantised_u_nbytes, quantised_nbytes(&n->u_n));
        if (n->op == GRU_OP_GRU) {
            model->sums_x_width = larger(model->sums_x_width, gru_sums_width(&n->w));
            model->sums_h_width = larger(model->sums_h_width, gru_sums_width(&n->u));
            model->hidden_width = larger(model->hidden_width, gru_round_up(n->width, GRU_LANES));
        }
    }
    place_values(model);
    lay_out_state(model);
    model->step_schedule = gru_make_schedule(model, 1, 1, 1);
}
