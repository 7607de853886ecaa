/* SPDX-License-Identifier: Apache-2.0 */
/* One step of one stream, the half of the next one that needs no input, and what a context is kept as. */
#define ONE_ROW 1
#include "nodes_template.h"

/* The single row of a state: the workspace is laid out for a step of one stream. */
static block one_row(const gru_model *model, const gru_kernels *kernels, const gru_run_args *args, void *workspace) {
    unsigned char *memory = aligned(workspace) + model->step_schedule.shared_nbytes;
    return (block){
        .model = model, .kernels = kernels, .args = args, .l = &model->step_schedule, .floats = memory, .rows = memory};
}

gru_result gru_step(const gru_model *model, float *state, const float *vector, const int32_t *token, float *output,
                    void *workspace) {
    const gru_kernels *kernels = gru_kernels_used();
    if (!model || !state || !kernels) {
        return GRU_ERROR_ARGUMENT;
    }
    if (!model->info.causal) {
        return GRU_ERROR_NOT_CAUSAL;
    }
    if (!output || !workspace || !gru_inputs_given(model, vector, token)) {
        return GRU_ERROR_ARGUMENT;
    }
    if (token && !gru_tokens_exist(model, token)) {
        return GRU_ERROR_TOKEN;
    }
    if (model->info.context_width && !gru_state_has_context(state)) {
        return GRU_ERROR_CONTEXT;
    }
    float *const states[1] = {state};
    const gru_run_args args = {.vectors = vector, .tokens = token, .states = states, .outputs = output};
    block b = one_row(model, kernels, &args, workspace);
    b.prepared = gru_state_is_prepared(state);
    run_steps(&b);
    gru_state_set_flags(state, 0);
    if (model->info.per_sequence) {
        run_sequences(&b);
    }
    return GRU_OK;
}

gru_result gru_prepare(const gru_model *model, float *state, void *workspace) {
    const gru_kernels *kernels = gru_kernels_used();
    if (!model || !state || !workspace || !kernels) {
        return GRU_ERROR_ARGUMENT;
    }
    if (!model->info.causal) {
        return GRU_ERROR_NOT_CAUSAL;
    }
    if (model->info.context_width && !gru_state_has_context(state)) {
        return GRU_ERROR_CONTEXT;
    }
    for (size_t i = 0; i < model->info.n_nodes; i++) {
        const gru_node *n = &model->nodes[i];
        if (n->op == GRU_OP_GRU) {
            const float *h = state + n->h_offset, *start = n->b_h;
            float *out = state + n->prepared_offset;
            gru_product product = {.matrix = &n->u, .cols = n->u.cols, .start = &start, .x = &h};
            quantise(kernels, &product, 1, aligned(workspace));
            products_of(kernels, &product)->sums(&product, 1, &out, 0, n->u.panels);
        }
    }
    gru_state_set_flags(state, gru_state_flags(state) | GRU_STATE_PREPARED);
    return GRU_OK;
}

gru_result gru_set_context(const gru_model *model, float *state, const float *context, void *workspace) {
    const gru_kernels *kernels = gru_kernels_used();
    if (!model || !state || !context || !workspace || !kernels || !model->info.context_width) {
        return GRU_ERROR_ARGUMENT;
    }
    float *kept = state + model->context_offset;
    const size_t nbytes = model->info.context_width * sizeof(float);
    if (gru_state_has_context(state) && memcmp(kept, context, nbytes) == 0) {
        return GRU_OK;
    }
    memcpy(kept, context, nbytes);
    float *const states[1] = {state};
    const gru_run_args args = {.states = states};
    const block b = one_row(model, kernels, &args, workspace);
    for (size_t i = 0; i < model->info.n_nodes; i++) {
        if (model->nodes[i].held) {
            run_node(&b, &model->nodes[i], 0, 1);
        }
    }
    gru_state_set_has_context(state, 1);
    gru_state_begin(model, state);
    return GRU_OK;
}
