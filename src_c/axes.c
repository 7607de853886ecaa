/* SPDX-License-Identifier: Apache-2.0 */
/* Reading a .gru file: how many steps the value of a node has. */
#include "reader.h"

static gru_result take_subsample(reader *in, uint32_t node, gru_node *n, const unsigned char *r) {
    n->first = parameter(r, 0);
    n->every = parameter(r, 1);
    n->dropped = parameter(r, 2);
    n->source = &in->model->nodes[n->inputs[0]];
    if (n->first > MAX_SPAN || !n->every || n->every > MAX_SPAN || n->dropped > MAX_SPAN) {
        return bad(in, "node %u: every %zu steps from %zu on, %zu dropped: expected 1 to %u, and 0 to %u", node,
                   n->every, n->first, n->dropped, MAX_SPAN, MAX_SPAN);
    }
    return GRU_OK;
}

/* The number of an axis, which is a new one if it is not known yet. */
static gru_result take_axis(reader *in, uint32_t node, const gru_axis *axis, size_t *number) {
    gru_model *m = in->model;
    for (size_t i = 0; i < m->n_axes; i++) {
        const gru_axis *known = &m->axes[i];
        if (known->lost == axis->lost && known->stride == axis->stride && known->fixed == axis->fixed) {
            *number = i;
            return GRU_OK;
        }
    }
    if (axis->lost > MAX_LOST || axis->stride > MAX_LOST || m->n_axes == GRU_MAX_AXES) {
        return bad(in, "node %u: a time axis that lacks %zu steps and has every %zu of the others, after %zu axes",
                   node, axis->lost, axis->stride, m->n_axes);
    }
    m->axes[m->n_axes] = *axis;
    *number = m->n_axes++;
    return GRU_OK;
}

/* The axis of a node's steps, from those of its inputs. */
gru_result gru_read_axis(reader *in, uint32_t node, gru_node *n, const unsigned char *r) {
    const gru_node *nodes = in->model->nodes;
    const gru_node *of = n->n_inputs ? &nodes[n->inputs[n->op == GRU_OP_REPEAT && n->n_inputs > 1]] : NULL;
    n->axis = of && !n->per_sequence ? of->axis : 0;
    if (n->op == GRU_OP_REPEAT) {
        const uint32_t steps = parameter(r, 0);
        n->source = &nodes[n->inputs[0]];
        if ((steps == 0) != (n->n_inputs == 2) || steps > MAX_SPAN) {
            return bad(in, "node %u: %u steps of %zu inputs", node, steps, n->n_inputs);
        }
        return steps ? take_axis(in, node, &(gru_axis){.fixed = steps, .stride = 1}, &n->axis) : GRU_OK;
    }
    if (n->op == GRU_OP_SUBSAMPLE) {
        TRY(take_subsample(in, node, n, r));
        const gru_axis here = {.lost = n->first + n->dropped, .stride = n->every};
        gru_axis axis = in->model->axes[n->axis];
        if (axis.fixed) {
            axis.fixed = gru_axis_steps(&here, axis.fixed);
            if (!axis.fixed) {
                return bad(in, "node %u: no step is left of %zu", node, in->model->axes[n->axis].fixed);
            }
        } else { /* neither is above 2^28 here, and size_t may have 32 bits */
            const uint64_t lost = axis.lost + (uint64_t)axis.stride * here.lost;
            const uint64_t stride = (uint64_t)axis.stride * here.stride;
            axis.lost = lost > MAX_LOST ? MAX_LOST + 1 : (size_t)lost;
            axis.stride = stride > MAX_LOST ? MAX_LOST + 1 : (size_t)stride;
        }
        return take_axis(in, node, &axis, &n->axis);
    }
    if (n->op == GRU_OP_ATTENTION && n->stored_rows) {
        return GRU_OK;
    }
    const size_t apart = n->op == GRU_OP_ATTENTION && !parameter(r, 2);
    for (size_t i = 0; i < n->n_inputs; i++) {
        const gru_node *a = &nodes[n->inputs[i]], *with = &nodes[n->inputs[i < apart ? i : apart]];
        if (a->axis != with->axis) {
            return bad(in, "node %u: inputs with different numbers of steps", node);
        }
    }
    return GRU_OK;
}
