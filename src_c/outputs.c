/* SPDX-License-Identifier: Apache-2.0 */
/* Reading a .gru file, third part: what nodes are together, loops; and outputs. */
#include "reader.h"

/* Whether an operation can stand in a loop, which goes step by step. */
static int may_loop(const gru_node *n, const gru_node *nodes) {
    return !n->per_sequence && !n->reverse && !n->ahead && n->op != GRU_OP_SUBSAMPLE && n->op != GRU_OP_REPEAT &&
           (n->op != GRU_OP_ATTENTION || gru_attends_to_held(n, nodes));
}

/* The sources of states; and loops, from a STATE to its source, those that overlap made one. */
gru_result gru_read_loops(reader *in) {
    gru_node *nodes = in->model->nodes;
    for (uint32_t i = 0; i < in->n_nodes; i++) {
        if (nodes[i].op != GRU_OP_STATE) {
            continue;
        }
        uint32_t end = i + 1;
        for (uint32_t j = i; j < end; j++) {
            const gru_node *n = &nodes[j], *source = n->source;
            if (!may_loop(n, nodes)) {
                return bad(in, "node %u: operation %d cannot stand in a loop, here from node %u on", j, n->op, i);
            }
            if (n->op != GRU_OP_STATE) {
                continue;
            }
            if (source->op <= GRU_OP_TOKENS || source->op == GRU_OP_STATE || source->op == GRU_OP_SLICE ||
                source->width != n->width || source->axis != n->axis) {
                return bad(in, "node %u: its source, node %u, has operation %d and width %zu; it cannot be its state",
                           j, (unsigned)(source - nodes), source->op, source->width);
            }
            if ((uint32_t)(source - nodes) + 1 > end) {
                end = (uint32_t)(source - nodes) + 1;
            }
        }
        nodes[i].loop_end = end;
        i = end - 1;
    }
    return GRU_OK;
}

gru_result gru_read_outputs(reader *in) {
    gru_model *model = in->model;
    uint64_t next = 0;
    for (uint32_t i = 0; i < in->n_outputs; i++) {
        const unsigned char *r = record(in, OUTPUTS, i, OUTPUT_NBYTES);
        gru_output *o = &model->outputs[i];
        uint32_t name = u32_at(r + 4);
        o->node = u32_at(r);
        if (o->node >= in->n_nodes || model->nodes[o->node].op == GRU_OP_TOKENS ||
            gru_sums_of(&model->nodes[o->node])) {
            return bad(in, "output %u is node %u, which is not a vector of this network", i, o->node);
        }
        const gru_node *n = &model->nodes[o->node];
        if (!is_name(in, name) || !*string_at(in, name)) {
            return bad(in, "output %u has no name", i);
        }
        o->name = string_at(in, name);
        o->first = u32_at(r + 8);
        o->width = u32_at(r + 12);
        if (o->first != next || o->width != n->width) {
            return bad(in, "output %u: floats %zu and %zu more, expected %llu and %zu", i, o->first, o->width,
                       (unsigned long long)next, n->width);
        }
        next += o->width;
        if (next > MAX_WIDTH) {
            return bad(in, "the outputs are wider than %u floats", MAX_WIDTH);
        }
        if (n->per_sequence != model->nodes[model->outputs[0].node].per_sequence) {
            return bad(in, "output %u is %s, the first one is not", i, n->per_sequence ? "per sequence" : "per step");
        }
        if (n->axis != model->nodes[model->outputs[0].node].axis) {
            return bad(in, "output %u has another number of steps than the first one", i);
        }
        for (uint32_t j = 0; j < i; j++) {
            if (strcmp(model->outputs[j].name, o->name) == 0) {
                return bad(in, "outputs %u and %u have the same name", j, i);
            }
        }
    }
    return GRU_OK;
}
