/* SPDX-License-Identifier: Apache-2.0 */
/* Nothing beside what a caller gave is read or written: states, inputs, outputs, workspaces and files of all sizes from
 * 1 to 70 stand beside unreadable pages, at both ends. The memory is filled with NaN before, so that nothing is used
 * that was not written. The files are made in memory (gru_file.h). The exit code is 1 if anything is wrong. */
#define _GNU_SOURCE
#include <sys/mman.h>
#include <unistd.h>

#include "check.h"

/* ---- memory between unreadable pages */

typedef struct guarded {
    unsigned char *pages;
    size_t nbytes; /* of all pages */
    void *p;       /* what was asked for */
} guarded;

static guarded guarded_alloc(size_t nbytes, int at_end) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), inner = (nbytes + page - 1) / page * page;
    guarded g = {.nbytes = inner + 2 * page};
    g.pages = mmap(NULL, g.nbytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (g.pages == MAP_FAILED || mprotect(g.pages, page, PROT_NONE) ||
        mprotect(g.pages + page + inner, page, PROT_NONE)) {
        perror("mmap");
        exit(2);
    }
    memset(g.pages + page, 0xff, inner); /* NaN, wherever something is read that was not written */
    g.p = at_end ? g.pages + page + inner - nbytes : g.pages + page;
    return g;
}

static void guarded_free(guarded g) { munmap(g.pages, g.nbytes); }

enum { B = 5, T = 3 };

/* Runs B streams over T steps, and steps the first one, with everything at an edge of its pages. The results of a first, unguarded call are
 * what must come out again: `wanted` [B][T][O], filled if `fill_wanted`. */
static void run_guarded(const void *bytes, size_t nbytes, int at_end, gru_team *team, float *wanted, int fill_wanted,
                        const char *what) {
    const int n_threads = team ? 2 : 1;
    char why[GRU_MESSAGE_NBYTES];
    gru_model *model = NULL;
    const guarded file = guarded_alloc(nbytes, at_end);
    memcpy(file.p, bytes, nbytes);
    const gru_open_options options = {.struct_nbytes = sizeof options, .skip_verify = !fill_wanted}; /* in place */
    CHECK(gru_open_memory(file.p, nbytes, &options, &model, why) == GRU_OK, "%s: %s", what, why);
    if (!model) exit(1);
    gru_info info;
    gru_get_info(model, &info);
    const size_t width = info.vocabulary ? 1 : info.input_width, O = info.output_width;
    const size_t n_rows = info.per_sequence ? B : B * T,
                 workspace_nbytes = gru_run_workspace_nbytes(model, B, T, n_threads);
    const size_t lengths[B] = {3, 1, 2, 3, 2};
    const guarded x = guarded_alloc(B * T * width * 4, at_end), y = guarded_alloc(n_rows * O * 4, at_end);
    const guarded workspace = guarded_alloc(workspace_nbytes, at_end), begins = guarded_alloc(B * T, at_end);
    const guarded length = guarded_alloc(sizeof lengths, at_end), values = guarded_alloc(info.state_width * 4, at_end);
    const guarded context = guarded_alloc(info.context_width * 4, at_end),
                  context_workspace = guarded_alloc(gru_step_workspace_nbytes(model), at_end);
    const int has_context = info.context_width > 0;
    guarded state[B];
    float *states[B];
    random_state = 42;
    for (size_t i = 0; i < B * T; i++) {
        for (size_t k = 0; k < width; k++) {
            ((float *)x.p)[i * width + k] = random_float();
        }
        if (info.vocabulary) ((int32_t *)x.p)[i] = (int32_t)(info.vocabulary - 1 - i % info.vocabulary);
        ((uint8_t *)begins.p)[i] = i % 4 == 1;
    }
    memcpy(length.p, lengths, sizeof lengths);
    for (size_t k = 0; k < info.context_width; k++) ((float *)context.p)[k] = random_float();
    for (int i = 0; i < B; i++) {
        state[i] = guarded_alloc(info.state_nbytes, at_end);
        states[i] = state[i].p;
        gru_state_init(model, states[i]);
        gru_state_get(model, states[i], values.p);
        gru_state_set(model, states[i], values.p);
        if (has_context) {
            CHECK(gru_set_context(model, states[i], context.p, context_workspace.p) == GRU_OK, "%s", what);
        }
    }
    gru_run_args args = {.struct_nbytes = sizeof args,
                         .n_streams = B,
                         .n_steps = T,
                         .states = states,
                         .outputs = y.p,
                         .team = team,
                         .vectors = info.vocabulary ? NULL : x.p,
                         .tokens = info.vocabulary ? x.p : NULL,
                         .lengths = length.p,
                         .reset = begins.p,
                         .carry_padding = at_end};
    CHECK(gru_run(model, &args, workspace.p, workspace_nbytes) == GRU_OK, "%s", what);
    args.lengths = NULL;
    args.reset = NULL;
    for (int i = 0; i < B; i++) {
        gru_state_init(model, states[i]);
        if (has_context && i == 0) gru_set_context(model, states[0], context.p, context_workspace.p);
        CHECK(gru_copy_context(model, states[0], states[i]) == GRU_OK, "%s", what);
    }
    memset(workspace.p, 0xff, workspace_nbytes);
    CHECK(gru_run(model, &args, workspace.p, workspace_nbytes) == GRU_OK, "%s", what);
    if (fill_wanted) memcpy(wanted, y.p, n_rows * O * 4);
    CHECK(same_bits(y.p, wanted, n_rows * O), "%s: other bits", what);
    guarded_free(workspace);
    if (info.causal) {
        const guarded step_workspace = guarded_alloc(gru_step_workspace_nbytes(model), at_end),
                      out = guarded_alloc(O * 4, at_end);
        const guarded one = guarded_alloc(width * 4, at_end);
        gru_state_init(model, states[0]);
        if (has_context) gru_set_context(model, states[0], context.p, step_workspace.p);
        for (size_t t = 0; t < T; t++) {
            memcpy(one.p, (float *)x.p + t * width, width * 4);
            CHECK(gru_prepare(model, states[0], step_workspace.p) == GRU_OK, "%s", what);
            memset(step_workspace.p, 0xff, gru_step_workspace_nbytes(model));
            CHECK(gru_step(model, states[0], info.vocabulary ? NULL : one.p, info.vocabulary ? one.p : NULL, out.p,
                           step_workspace.p) == GRU_OK,
                  "%s", what);
            if (!info.per_sequence) CHECK(same_bits(out.p, wanted + t * O, O), "%s: step %zu has other bits", what, t);
        }
        guarded_free(step_workspace), guarded_free(out), guarded_free(one);
    }
    gru_close(model);
    for (int i = 0; i < B; i++) guarded_free(state[i]);
    guarded_free(file), guarded_free(x), guarded_free(y), guarded_free(begins), guarded_free(length),
        guarded_free(values), guarded_free(context), guarded_free(context_workspace);
}

static void guard_pages(void) {
    static unsigned char file[MADE_FILE_NBYTES];
    static float wanted[B * T * MADE_OUTPUT_MOST];
    gru_team *two = NULL;
    CHECK(gru_team_create(2, &two) == (gru_has_threads() ? GRU_OK : GRU_ERROR_UNSUPPORTED), "a team of two");
    for (uint32_t width = 1; width <= 70; width++) {
        for (unsigned kind = 0; kind < MADE_KINDS; kind++) {
            for (uint32_t reset = 0; reset < (kind == MADE_GRU ? 4u : 1u); reset++) {
                const size_t nbytes = make_file(file, sizeof file, (enum made_kind)kind, width, reset);
                int first = 1;
                for (size_t i = 0; gru_isa_built(i); i++) {
                    if (gru_isa_set(gru_isa_built(i)) != GRU_OK) continue;
                    for (int at_end = 0; at_end < 2; at_end++) {
                        char what[100];
                        gru_team *team = at_end && (width == 17 || width == 64) ? two : NULL;
                        snprintf(what, sizeof what, "kind %u, width %u, reset %u, %s, %s, %s", kind, width, reset,
                                 gru_isa_used(), at_end ? "at the end" : "at the start",
                                 team ? "two threads" : "one thread");
                        run_guarded(file, nbytes, at_end, team, wanted, first, what);
                        first = 0;
                    }
                }
            }
        }
    }
    gru_isa_set(NULL);
    gru_team_free(two);
}

int main(void) {
    static const test tests[] = {{"guard pages", guard_pages, 1}};
    return run_tests(tests, sizeof tests / sizeof tests[0]);
}
