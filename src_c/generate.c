/* SPDX-License-Identifier: Apache-2.0 */
/* Generating tokens: steps of one stream, each fed with a token chosen by the output of the one before. */
#include "model.h"
#include "sampling.h"
#include "state.h"
#include "team.h"

#include <math.h>
#include <string.h>

/* Steps of the prompt that are run at once: enough to read each weight once for many of them. */
enum { PROMPT_STEPS = 32 };

/* Where things lie in the workspace, in bytes. */
typedef struct layout {
    size_t state, outputs, weights, keys, among, run; /* run: for gru_run and gru_step, to the end */
    size_t needed_nbytes;
} layout;

/* Sizes that cannot be are too large for any workspace: such a call is refused. */
static size_t take(size_t *next, size_t n, size_t item_nbytes) {
    const size_t at = *next, most = SIZE_MAX / 4;
    const size_t nbytes = n > most / item_nbytes ? most : gru_round_up(n * item_nbytes, 64);
    *next = nbytes > most - at ? most : at + nbytes;
    return at;
}

static layout lay_out(const gru_model *model, int n_threads) {
    layout l;
    size_t next = 0;
    const size_t rows = model->info.per_sequence ? 1 : PROMPT_STEPS;
    l.state = take(&next, model->info.state_nbytes, 1);
    l.outputs = take(&next, model->info.output_width, rows * sizeof(float));
    l.weights = take(&next, model->info.vocabulary, sizeof(uint64_t));
    l.keys = take(&next, model->info.vocabulary, sizeof(uint32_t));
    l.among = take(&next, model->info.vocabulary, sizeof(uint32_t));
    l.run = take(&next, gru_run_workspace_nbytes(model, 1, PROMPT_STEPS, n_threads), 1); /* fewer steps need less */
    l.needed_nbytes = next + GRU_WORKSPACE_SLACK;
    return l;
}

size_t gru_generate_workspace_nbytes(const gru_model *model, int n_threads) {
    return lay_out(model, n_threads).needed_nbytes;
}

gru_scores gru_get_scores(const gru_model *model, size_t i) {
    if (i >= model->info.n_outputs) {
        return GRU_SCORES_UNKNOWN;
    }
    const gru_node *n = &model->nodes[model->outputs[i].node];
    if (n->op == GRU_OP_LAST) { /* of a network with one output per sequence */
        n = &model->nodes[n->inputs[0]];
    }
    if (n->op != GRU_OP_DENSE && n->op != GRU_OP_ACTIVATION) {
        return GRU_SCORES_UNKNOWN;
    }
    switch (n->act.code) {
    case GRU_ACT_SOFTMAX: return GRU_SCORES_PROBABILITIES;
    case GRU_ACT_LOG_SOFTMAX: return GRU_SCORES_LOG_PROBABILITIES;
    case GRU_ACT_LINEAR: return n->op == GRU_OP_DENSE ? GRU_SCORES_LOGITS : GRU_SCORES_UNKNOWN;
    default: return GRU_SCORES_UNKNOWN;
    }
}

/* One call of gru_generate. */
typedef struct call {
    const gru_model *model;
    const gru_generate_args *args;
    float *state, *outputs;
    const float *scores; /* those of the last step, in outputs */
    int are_probabilities;
    gru_scratch scratch;
    void *run;
    size_t run_nbytes;
} call;

static gru_result feed(call *c, const int32_t *tokens, size_t n_steps) {
    const gru_info *info = &c->model->info;
    gru_result result;
    if (n_steps == 1 && !c->args->team) {
        result = gru_step(c->model, c->state, NULL, tokens, c->outputs, c->run);
    } else {
        float *const states[1] = {c->state};
        const gru_run_args run = {.struct_nbytes = sizeof run,
                                  .n_streams = 1,
                                  .n_steps = n_steps,
                                  .tokens = tokens,
                                  .states = states,
                                  .outputs = c->outputs,
                                  .team = c->args->team};
        result = gru_run(c->model, &run, c->run, c->run_nbytes);
    }
    const size_t row = info->per_sequence ? 0 : n_steps - 1;
    c->scores = c->outputs + row * info->output_width + c->model->outputs[c->args->output].first;
    return result;
}

static int32_t choose(const call *c, gru_random *random) {
    const gru_generate_args *a = c->args;
    const size_t n = c->model->info.vocabulary;
    if (a->temperature == 0) {
        return gru_largest_score(c->scores, n, c->are_probabilities);
    }
    const size_t top_k = a->top_k && a->top_k < n ? a->top_k : n;
    return gru_draw_token(c->scores, n, c->are_probabilities, a->temperature, top_k, a->top_p > 0 ? a->top_p : 1,
                          gru_random_draw(random), c->scratch);
}

static int ends(const gru_generate_args *args, int32_t token) {
    int found = 0;
    for (size_t i = 0; i < args->n_stop; i++) {
        found |= args->stop[i] == token;
    }
    return found;
}

static gru_result generate(call *c, size_t *n_generated) {
    const gru_generate_args *a = c->args;
    size_t n_prompt = a->n_tokens ? a->n_first : a->n_first - 1;
    for (const int32_t *prompt = a->first; n_prompt;) {
        const size_t n = n_prompt < PROMPT_STEPS ? n_prompt : PROMPT_STEPS;
        const gru_result result = feed(c, prompt, n);
        if (result != GRU_OK) {
            return result;
        }
        prompt += n;
        n_prompt -= n;
    }
    gru_random random = gru_random_from(a->seed, a->offset);
    while (*n_generated < a->n_tokens) {
        const int32_t token = choose(c, &random);
        if (token < 0) {
            return GRU_ERROR_SCORES;
        }
        a->tokens[(*n_generated)++] = token;
        if (*n_generated == a->n_tokens || ends(a, token)) {
            break;
        }
        const gru_result result = feed(c, &token, 1);
        if (result != GRU_OK) {
            return result;
        }
    }
    return GRU_OK;
}

static gru_result check_tokens(const gru_model *model, const int32_t *tokens, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (tokens[i] < 0 || (size_t)tokens[i] >= model->info.vocabulary) {
            return GRU_ERROR_TOKEN;
        }
    }
    return GRU_OK;
}

static gru_result check_args(const gru_model *model, const gru_generate_args *a) {
    if (!model->info.causal) {
        return GRU_ERROR_NOT_CAUSAL;
    }
    if (model->info.n_tokens != 1 || model->info.input_width || !a->first || !a->n_first ||
        (a->n_tokens && !a->tokens) || (a->n_stop && !a->stop) || a->output >= model->info.n_outputs ||
        model->outputs[a->output].width != model->info.vocabulary || a->scores < GRU_SCORES_UNKNOWN ||
        a->scores > GRU_SCORES_PROBABILITIES || !(a->temperature >= 0) || !isfinite(a->temperature) ||
        !(a->top_p >= 0 && a->top_p <= 1) || (!a->scores && !gru_get_scores(model, a->output))) {
        return GRU_ERROR_ARGUMENT;
    }
    const gru_result result = check_tokens(model, a->first, a->n_first);
    return result != GRU_OK ? result : check_tokens(model, a->stop, a->n_stop);
}

gru_result gru_generate(const gru_model *model, float *state, const gru_generate_args *args, size_t *n_generated,
                        void *workspace, size_t workspace_nbytes) {
    if (!n_generated) {
        return GRU_ERROR_ARGUMENT;
    }
    *n_generated = 0;
    if (!model || !state || !args || args->struct_nbytes != sizeof *args || !workspace) {
        return GRU_ERROR_ARGUMENT;
    }
    const gru_result wrong = check_args(model, args);
    if (wrong != GRU_OK) {
        return wrong;
    }
    if (model->info.context_width && !gru_state_has_context(state)) {
        return GRU_ERROR_CONTEXT;
    }
    const layout l = lay_out(model, (int)gru_team_ready(args->team));
    if (workspace_nbytes < l.needed_nbytes) {
        return GRU_ERROR_ARGUMENT;
    }
    unsigned char *memory = workspace;
    memory += (64 - (uintptr_t)memory % 64) % 64;
    const gru_scores scores = args->scores ? args->scores : gru_get_scores(model, args->output);
    call c = {.model = model,
              .args = args,
              .state = state,
              .outputs = (float *)(void *)(memory + l.outputs),
              .are_probabilities = scores == GRU_SCORES_PROBABILITIES,
              .scratch = {.weights = (uint64_t *)(void *)(memory + l.weights),
                          .keys = (uint32_t *)(void *)(memory + l.keys),
                          .among = (uint32_t *)(void *)(memory + l.among)},
              .run = memory + l.run,
              .run_nbytes = l.needed_nbytes - GRU_WORKSPACE_SLACK - l.run};
    memcpy(memory + l.state, state, model->info.state_nbytes);
    const gru_result result = generate(&c, n_generated);
    if (result != GRU_OK) {
        memcpy(state, memory + l.state, model->info.state_nbytes);
    }
    return result;
}
