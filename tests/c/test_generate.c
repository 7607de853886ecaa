/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of gru_generate (src_c/gru_engine.h). What it chooses is tested against NumPy by tests/test_generation.py; here:
 *
 *   1. the same tokens and states on every instruction set, with a team, in parts, and by hand with gru_step;
 *   2. it allocates nothing, needs no more workspace than it says, makes no system call;
 *   3. refusals, after which the state is as before;
 *   4. one choice, to the last bit of the probabilities.
 *
 * Prints a line per test; the exit code is 1 if anything is wrong. */
#define _GNU_SOURCE
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "sampling.h"

#if defined(__linux__)
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#endif

enum {
    VOCABULARY = 3,
    TOKENS = 100
}; /* of the files that gru_file.h makes; VOCABULARY is the width of the outputs too */
static const enum made_kind kinds[] = {MADE_TABLE, MADE_CONTINUED, MADE_EMBEDDING};
enum { N_KINDS = sizeof kinds / sizeof kinds[0] };

typedef struct setup {
    gru_model *model;
    gru_info info;
    float *state, *before;
    void *workspace;
    size_t nbytes;
    int32_t prompt[40], tokens[TOKENS];
    gru_generate_args args;
    size_t n;
} setup;

/* The workspace has exactly the bytes asked for, at an odd place, so that a sanitizer finds a step too far. */
static int set_up(setup *s, enum made_kind kind, int n_threads) {
    static unsigned char file[MADE_FILE_NBYTES];
    size_t nbytes;
    memset(s, 0, sizeof *s);
    s->model = made_model(kind, VOCABULARY, 0, file, &nbytes);
    if (!s->model) return 0;
    gru_get_info(s->model, &s->info);
    s->state = malloc(s->info.state_nbytes);
    s->before = malloc(s->info.state_nbytes);
    s->nbytes = gru_generate_workspace_nbytes(s->model, n_threads);
    s->workspace = malloc(s->nbytes + 8);
    if (!s->state || !s->before || !s->workspace) exit(2);
    gru_state_init(s->model, s->state);
    for (size_t i = 0; i < 40; i++) s->prompt[i] = (int32_t)(i % VOCABULARY);
    s->args = (gru_generate_args){.struct_nbytes = sizeof(gru_generate_args),
                                  .first = s->prompt,
                                  .n_first = 40,
                                  .tokens = s->tokens,
                                  .n_tokens = TOKENS,
                                  .scores = GRU_SCORES_LOGITS,
                                  .temperature = 1,
                                  .top_k = 2,
                                  .top_p = 0.9,
                                  .seed = 12345};
    return 1;
}

static void tear_down(setup *s) {
    gru_close(s->model);
    free(s->state);
    free(s->before);
    free(s->workspace);
}

static gru_result call(setup *s) {
    return gru_generate(s->model, s->state, &s->args, &s->n, (char *)s->workspace + 8, s->nbytes);
}

static int same_states(const setup *a, const setup *b) {
    float x[VOCABULARY + 1] = {0}, y[VOCABULARY + 1] = {0};
    gru_state_get(a->model, a->state, x);
    gru_state_get(b->model, b->state, y);
    return same_bits(x, y, a->info.state_width);
}

/* ---- 1. the same everywhere */

static void everywhere(void) {
    for (size_t k = 0; k < N_KINDS; k++) {
        setup s, t;
        if (!set_up(&s, kinds[k], 1)) continue;
        CHECK(call(&s) == GRU_OK && s.n == TOKENS, "%zu tokens", s.n);
        for (size_t i = 0; gru_isa_built(i); i++) {
            if (gru_isa_set(gru_isa_built(i)) != GRU_OK || !set_up(&t, kinds[k], 1)) continue;
            CHECK(call(&t) == GRU_OK && memcmp(t.tokens, s.tokens, sizeof s.tokens) == 0, "%s", gru_isa_built(i));
            CHECK(same_states(&t, &s), "state, %s", gru_isa_built(i));
            tear_down(&t);
        }
        gru_isa_set(NULL);

        gru_team *team = NULL;
        if (gru_has_threads() && gru_team_create(2, &team) == GRU_OK && set_up(&t, kinds[k], 2)) {
            t.args.team = team;
            CHECK(call(&t) == GRU_OK && memcmp(t.tokens, s.tokens, sizeof s.tokens) == 0, "with a team");
            tear_down(&t);
        }
        gru_team_free(team);

        if (set_up(&t, kinds[k], 1)) { /* in parts of 0, 1, 2, ... tokens, and the state by hand */
            size_t done = 0;
            for (size_t part = 0; done < TOKENS; part++) {
                t.args.n_tokens = part < TOKENS - done ? part : TOKENS - done;
                t.args.tokens = t.tokens + done;
                CHECK(call(&t) == GRU_OK && t.n == t.args.n_tokens, "part %zu", part);
                done += t.n;
                t.args.offset += t.n;
                t.args.first = done ? t.tokens + done - 1 : s.prompt + 39;
                t.args.n_first = 1;
            }
            CHECK(memcmp(t.tokens, s.tokens, sizeof s.tokens) == 0, "kind %zu in parts", k);
            float outputs[VOCABULARY];
            gru_state_init(t.model, t.state);
            for (size_t i = 0; i < 40 + TOKENS - 1; i++) {
                gru_step(t.model, t.state, NULL, i < 40 ? s.prompt + i : s.tokens + i - 40, outputs,
                         (char *)t.workspace + 8);
            }
            CHECK(same_states(&t, &s), "kind %zu by hand", k);
            tear_down(&t);
        }
        tear_down(&s);
    }
}

static void stops(void) {
    setup s;
    if (!set_up(&s, MADE_TABLE, 1)) return;
    call(&s);
    const int32_t last = s.tokens[TOKENS - 1], stop[2] = {last, last};
    size_t end = 0;
    while (s.tokens[end] != last) end++;
    int32_t whole[TOKENS];
    memcpy(whole, s.tokens, sizeof whole);
    gru_state_init(s.model, s.state);
    s.args.stop = stop;
    s.args.n_stop = 2;
    CHECK(call(&s) == GRU_OK && s.n == end + 1, "%zu tokens, expected %zu", s.n, end + 1);
    CHECK(memcmp(s.tokens, whole, s.n * sizeof *whole) == 0, "other tokens");
    tear_down(&s);
}

/* ---- 2. nothing from the system */

static void no_allocations(void) {
    for (size_t k = 0; k < N_KINDS; k++) {
        setup s;
        if (!set_up(&s, kinds[k], 1)) continue;
        const size_t before = n_allocations;
        const gru_result result = call(&s);
        CHECK(n_allocations == before && result == GRU_OK, "%zu calls of the allocator", n_allocations - before);
        tear_down(&s);
    }
}

static void no_system_calls(void) {
#if defined(__linux__)
    setup s;
    if (!set_up(&s, MADE_TABLE, 1)) return;
    fflush(stdout);
    const pid_t child = fork();
    if (child == 0) {
        if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT)) syscall(SYS_exit, 77);
        syscall(SYS_exit, call(&s) != GRU_OK);
    }
    int status = 0;
    waitpid(child, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
        printf("note: system calls cannot be forbidden here\n");
    } else {
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child ended with %d", status);
    }
    tear_down(&s);
#endif
}

/* ---- 3. refusals */

static void refuse(setup *s, gru_result wanted, const char *what) {
    memcpy(s->before, s->state, s->info.state_nbytes);
    const gru_result result = call(s);
    CHECK(result == wanted, "%s: %d, expected %d", what, (int)result, (int)wanted);
    CHECK(memcmp(s->before, s->state, s->info.state_nbytes) == 0, "%s: the state has changed", what);
}

static void refusals(void) {
    setup s;
    if (!set_up(&s, MADE_TABLE, 1)) return;
    const gru_generate_args good = s.args;
    const int32_t bad = VOCABULARY, negative = -1;
#define REFUSE(result, CHANGE)                                                                                         \
    do {                                                                                                               \
        s.args = good;                                                                                                 \
        CHANGE;                                                                                                        \
        refuse(&s, result, #CHANGE);                                                                                   \
    } while (0)
    REFUSE(GRU_ERROR_ARGUMENT, s.args.struct_nbytes -= 8);
    REFUSE(GRU_ERROR_ARGUMENT, s.args.first = NULL);
    REFUSE(GRU_ERROR_ARGUMENT, s.args.n_first = 0);
    REFUSE(GRU_ERROR_ARGUMENT, s.args.tokens = NULL);
    REFUSE(GRU_ERROR_ARGUMENT, s.args.output = 1);
    REFUSE(GRU_ERROR_ARGUMENT, s.args.scores = GRU_SCORES_UNKNOWN); /* a GRU's output: it does not say what it holds */
    REFUSE(GRU_ERROR_ARGUMENT, s.args.scores = (gru_scores)4);
    REFUSE(GRU_ERROR_ARGUMENT, s.args.temperature = -1);
    REFUSE(GRU_ERROR_ARGUMENT, s.args.temperature = NAN);
    REFUSE(GRU_ERROR_ARGUMENT, s.args.temperature = INFINITY);
    REFUSE(GRU_ERROR_ARGUMENT, s.args.top_p = 1.5);
    REFUSE(GRU_ERROR_ARGUMENT, s.args.top_p = NAN);
    REFUSE(GRU_ERROR_ARGUMENT, s.args.n_stop = 1);
    REFUSE(GRU_ERROR_TOKEN, s.args.first = &bad; s.args.n_first = 1);
    REFUSE(GRU_ERROR_TOKEN, s.args.first = &negative; s.args.n_first = 1);
    REFUSE(GRU_ERROR_TOKEN, s.args.stop = &bad; s.args.n_stop = 1);
    REFUSE(GRU_ERROR_SCORES, s.args.scores = GRU_SCORES_PROBABILITIES); /* they are negative sooner or later */
    s.args = good;
    s.nbytes--;
    refuse(&s, GRU_ERROR_ARGUMENT, "workspace");
    s.nbytes++;
    char *const w = (char *)s.workspace + 8;
    size_t n = 7;
    CHECK(gru_generate(NULL, s.state, &good, &n, w, s.nbytes) == GRU_ERROR_ARGUMENT && n == 0, "model");
    CHECK(gru_generate(s.model, NULL, &good, &n, w, s.nbytes) == GRU_ERROR_ARGUMENT, "state");
    CHECK(gru_generate(s.model, s.state, NULL, &n, w, s.nbytes) == GRU_ERROR_ARGUMENT, "args");
    CHECK(gru_generate(s.model, s.state, &good, NULL, w, s.nbytes) == GRU_ERROR_ARGUMENT, "n_generated");
    CHECK(gru_generate(s.model, s.state, &good, &n, NULL, s.nbytes) == GRU_ERROR_ARGUMENT, "workspace");
    CHECK(gru_get_scores(s.model, 0) == GRU_SCORES_UNKNOWN && gru_get_scores(s.model, 1) == GRU_SCORES_UNKNOWN, "GRU");
    tear_down(&s);

    if (set_up(&s, MADE_DENSE, 1)) { /* reads vectors */
        refuse(&s, GRU_ERROR_ARGUMENT, "a model of vectors");
        tear_down(&s);
    }
    if (set_up(&s, MADE_REVERSE, 1)) {
        refuse(&s, GRU_ERROR_NOT_CAUSAL, "a reverse layer");
        tear_down(&s);
    }
    if (set_up(&s, MADE_SOFTMAX, 1)) {
        CHECK(gru_get_scores(s.model, 0) == GRU_SCORES_PROBABILITIES, "softmax");
        tear_down(&s);
    }
    if (set_up(&s, MADE_ACTIVATION, 1)) {
        CHECK(gru_get_scores(s.model, 0) == GRU_SCORES_LOG_PROBABILITIES, "log-softmax");
        tear_down(&s);
    }
}

/* ---- 4. one choice */

typedef struct choice {
    size_t n;
    int are_probabilities;
    double temperature;
    size_t top_k;
    double top_p;
    float scores[19];
    size_t n_edges;
    struct {
        int32_t token;
        uint64_t random; /* the smallest random number that leads to the token */
    } edges[19];
} choice;

/* Computed with the NumPy code of docs/GENERATION.md, section 5: the weights w, and ceil((w_0 + ... + w_(i-1)) * 2^64 / W)
 * of every token i that can come. */
static const choice choices[] = {
    {6,
     0,
     0x1.0000000000000p+0,
     0,
     0x1.0000000000000p+0,
     {0x1.000000p-1f, -0x1.400000p+0f, 0x1.800000p+1f, 0x1.7ffffep+1f, -0x1.180000p+4f, 0x1.99999ap-4f},
     6,
     {{0, 0x0u},
      {1, 0x9c481eee15770cbu},
      {2, 0xb7707d5fc5df34au},
      {3, 0x827572e119cbff25u},
      {4, 0xf973dc103d8dde8bu},
      {5, 0xf973dc12bd255de7u}}},
    {6,
     0,
     0x1.7ae147ae147aep-2,
     0,
     0x1.0000000000000p+0,
     {0x1.000000p-1f, -0x1.400000p+0f, 0x1.800000p+1f, 0x1.7ffffep+1f, -0x1.180000p+4f, 0x1.99999ap-4f},
     5,
     {{0, 0x0u}, {1, 0x2614452e86dabcu}, {2, 0x266a561adb81a2u}, {3, 0x800cc26c3e8ded63u}, {5, 0xfff3151ba79e4ac9u}}},
    {6,
     0,
     0x1.a000000000000p+2,
     4,
     0x1.0000000000000p+0,
     {0x1.000000p-1f, -0x1.400000p+0f, 0x1.800000p+1f, 0x1.7ffffep+1f, -0x1.180000p+4f, 0x1.99999ap-4f},
     4,
     {{0, 0x0u}, {2, 0x3479df031268c525u}, {3, 0x8190e38283948f19u}, {5, 0xcea7e7d2871714a4u}}},
    {6,
     0,
     0x1.8000000000000p+0,
     0,
     0x1.3333333333333p-1,
     {0x1.000000p-1f, -0x1.400000p+0f, 0x1.800000p+1f, 0x1.7ffffep+1f, -0x1.180000p+4f, 0x1.99999ap-4f},
     2,
     {{2, 0x0u}, {3, 0x800000aaa800e388u}}},
    {6,
     0,
     0x1.8000000000000p+0,
     5,
     0x1.f0a3d70a3d70ap-1,
     {0x1.000000p-1f, -0x1.400000p+0f, 0x1.800000p+1f, 0x1.7ffffep+1f, -0x1.180000p+4f, 0x1.99999ap-4f},
     4,
     {{0, 0x0u}, {2, 0x14b8736a53c1cb87u}, {3, 0x826cd023785f619eu}, {5, 0xf0212bb815ed3885u}}},
    {6,
     1,
     0x1.0000000000000p+0,
     0,
     0x1.0000000000000p+0,
     {0x1.99999ap-4f, 0x1.000000p-2f, 0x0.0p+0f, 0x1.000000p-1f, 0x1.ad7f2ap-24f, 0x1.16c200p-133f},
     4,
     {{0, 0x0u}, {1, 0x1e1e1de9509c50f9u}, {3, 0x6969689dc7506e4au}, {4, 0xfffffe06b4b8a8ecu}}},
    {6,
     1,
     0x1.4000000000000p+1,
     0,
     0x1.0000000000000p+0,
     {0x1.99999ap-4f, 0x1.000000p-2f, 0x0.0p+0f, 0x1.000000p-1f, 0x1.ad7f2ap-24f, 0x1.16c200p-133f},
     4,
     {{0, 0x0u}, {1, 0x3ad8965bdac031e7u}, {3, 0x8fbe44150b11264bu}, {4, 0xffc406dc39ab33dfu}}},
    {6,
     1,
     0x1.999999999999ap-1,
     3,
     0x1.999999999999ap-1,
     {0x1.99999ap-4f, 0x1.000000p-2f, 0x0.0p+0f, 0x1.000000p-1f, 0x1.ad7f2ap-24f, 0x1.16c200p-133f},
     2,
     {{1, 0x0u}, {3, 0x4bc6733c7d089ea1u}}},
    {4,
     0,
     0x1.0000000000000p+0,
     3,
     0x1.0000000000000p+0,
     {-0x0.0p+0f, 0x0.0p+0f, -0x0.0p+0f, 0x0.0p+0f},
     3,
     {{0, 0x0u}, {1, 0x5555555555555556u}, {2, 0xaaaaaaaaaaaaaaabu}}},
    {8,
     0,
     0x1.0000000000000p+0,
     0,
     0x1.0000000000000p+0,
     {0x0.0p+0f, -0x1.800000p+4f, -0x1.8e6666p+4f, -0x1.8f3334p+4f, -0x1.900000p+4f, -0x1.380000p+5f, -0x1.480000p+5f,
      -INFINITY},
     4,
     {{0, 0x0u}, {1, 0xffffffffa0000001u}, {2, 0xffffffffc0000001u}, {3, 0xffffffffe0000001u}}},
    {4,
     0,
     0x1.e42d130773b76p+1023,
     0,
     0x1.0000000000000p+0,
     {0x0.0p+0f, -0x1.c363ccp+127f, -INFINITY, 0x1.c363ccp+127f},
     3,
     {{0, 0x0u}, {1, 0x5555555555555556u}, {3, 0xaaaaaaaaaaaaaaabu}}},
    {19,
     0,
     0x1.199999999999ap+0,
     0,
     0x1.0000000000000p+0,
     {0x0.0p+0f, -0x1.63d70ap+0f, -0x1.147ae2p+1f, -0x1.1eb852p+2f, -0x1.8b851ep+2f, 0x1.3d70a4p+0f, -0x1.63d70ap+0f,
      -0x1.b33334p+1f, -0x1.328f5cp+2f, -0x1.63d70ap+2f, 0x1.3d70a4p-1f, -0x1.147ae2p+0f, -0x1.147ae2p+1f,
      -0x1.328f5cp+2f, -0x1.b33334p+2f, 0x1.3d70a4p-2f, -0x1.d70a3ep-2f, -0x1.63d70ap+1f, -0x1.1eb852p+2f},
     19,
     {{0, 0x0u},
      {1, 0x1bb030a30de524e3u},
      {2, 0x23837c5507641f58u},
      {3, 0x27664af37a02873au},
      {4, 0x27df02c85175edc3u},
      {5, 0x27f8bff1231f0c94u},
      {6, 0x7d7396e5df36b946u},
      {7, 0x8546e297d8b5b3bau},
      {8, 0x86891e57c109b615u},
      {9, 0x86e430878a275dcau},
      {10, 0x87116a031b04f339u},
      {11, 0xb7b7b8373c985e76u},
      {12, 0xc21729d3f6e78383u},
      {13, 0xc5f9f8726985eb66u},
      {14, 0xc6550aa232a3931bu},
      {15, 0xc663b0c21d15bb86u},
      {16, 0xeb175a7d41e21559u},
      {17, 0xfd511a026c0db552u},
      {18, 0xff87482b288c9978u}}},
    {19,
     0,
     0x1.199999999999ap+0,
     9,
     0x1.a8f5c28f5c28fp-1,
     {0x0.0p+0f, -0x1.63d70ap+0f, -0x1.147ae2p+1f, -0x1.1eb852p+2f, -0x1.8b851ep+2f, 0x1.3d70a4p+0f, -0x1.63d70ap+0f,
      -0x1.b33334p+1f, -0x1.328f5cp+2f, -0x1.63d70ap+2f, 0x1.3d70a4p-1f, -0x1.147ae2p+0f, -0x1.147ae2p+1f,
      -0x1.328f5cp+2f, -0x1.b33334p+2f, 0x1.3d70a4p-2f, -0x1.d70a3ep-2f, -0x1.63d70ap+1f, -0x1.1eb852p+2f},
     5,
     {{0, 0x0u},
      {5, 0x20b3f037a67748f4u},
      {10, 0x85a9ff9c46d430d0u},
      {15, 0xbf1fea0c2cb1e155u},
      {16, 0xea793bee24470dd5u}}},
    {19,
     1,
     0x1.0000000000000p+0,
     0,
     0x1.0000000000000p+0,
     {0x1.450efep-12f, 0x1.007dd4p-5f, 0x1.fd2c7cp-4f, 0x1.1e0370p-2f, 0x1.3e132cp-3f, 0x1.7e32a0p-4f, 0x1.7e32a0p-4f,
      0x1.3e132cp-3f, 0x1.1e0370p-2f, 0x1.fd2c7cp-4f, 0x1.007dd4p-5f, 0x1.450efep-12f, 0x1.007dd4p-5f, 0x1.fd2c7cp-4f,
      0x1.1e0370p-2f, 0x1.3e132cp-3f, 0x1.7e32a0p-4f, 0x1.7e32a0p-4f, 0x1.3e132cp-3f},
     19,
     {{0, 0x0u},
      {1, 0x8d56299126c60u},
      {2, 0x38505471f55520au},
      {3, 0x115b44b83e155e4du},
      {4, 0x3072489de106036eu},
      {5, 0x41bbe297d53386a0u},
      {6, 0x4c1ec7801e861bf4u},
      {7, 0x5681ac6867d8b147u},
      {8, 0x67cb46625c063479u},
      {9, 0x86e24a47fef6d99bu},
      {10, 0x94b889b91db6e5ddu},
      {11, 0x9834b99da3f9cb88u},
      {12, 0x983d8f003d0c37e7u},
      {13, 0x9bb9bee4c34f1d91u},
      {14, 0xa98ffe55e20f29d4u},
      {15, 0xc8a7023b84ffcef5u},
      {16, 0xd9f09c35792d5227u},
      {17, 0xe453811dc27fe77bu},
      {18, 0xeeb666060bd27cceu}}},
    {19,
     1,
     0x1.e666666666666p+0,
     7,
     0x1.0000000000000p-1,
     {0x1.450efep-12f, 0x1.007dd4p-5f, 0x1.fd2c7cp-4f, 0x1.1e0370p-2f, 0x1.3e132cp-3f, 0x1.7e32a0p-4f, 0x1.7e32a0p-4f,
      0x1.3e132cp-3f, 0x1.1e0370p-2f, 0x1.fd2c7cp-4f, 0x1.007dd4p-5f, 0x1.450efep-12f, 0x1.007dd4p-5f, 0x1.fd2c7cp-4f,
      0x1.1e0370p-2f, 0x1.3e132cp-3f, 0x1.7e32a0p-4f, 0x1.7e32a0p-4f, 0x1.3e132cp-3f},
     3,
     {{3, 0x0u}, {8, 0x5555555555555556u}, {14, 0xaaaaaaaaaaaaaaabu}}},
    {4,
     0,
     0x1.0000000000000p+0,
     0,
     0x1.0000000000000p-1,
     {0x1.000000p+1f, 0x1.000000p+1f, 0x1.000000p+1f, 0x1.000000p+1f},
     2,
     {{0, 0x0u}, {1, 0x8000000000000000u}}},
    {4,
     0,
     0x1.0000000000000p+0,
     0,
     0x1.0000000000001p-1,
     {0x1.000000p+1f, 0x1.000000p+1f, 0x1.000000p+1f, 0x1.000000p+1f},
     3,
     {{0, 0x0u}, {1, 0x5555555555555556u}, {2, 0xaaaaaaaaaaaaaaabu}}},
    {2, 0, 0x0.0000000000001p-1022, 0, 0x1.0000000000000p+0, {0x1.000000p+0f, 0x0.0p+0f}, 1, {{0, 0x0u}}},
    {6,
     1,
     0x1.7e43c8800759cp+996,
     0,
     0x1.0000000000000p+0,
     {0x1.99999ap-4f, 0x1.000000p-2f, 0x0.0p+0f, 0x1.000000p-1f, 0x1.ad7f2ap-24f, 0x1.16c200p-133f},
     5,
     {{0, 0x0u},
      {1, 0x3333333333333334u},
      {3, 0x6666666666666667u},
      {4, 0x999999999999999au},
      {5, 0xcccccccccccccccdu}}},
    {19,
     0,
     0x1.0000000000000p+0,
     0,
     0x1.0000000000000p+0,
     {-0x0.0p+0f, -0x1.072b02p-2f, -0x1.072b02p-1f, -0x1.8ac084p-1f, -0x1.072b02p+0f, -0x1.48f5c2p+0f, -0x1.8ac084p+0f,
      -0x1.cc8b44p+0f, -0x1.072b02p+1f, -0x1.281062p+1f, -0x1.48f5c2p+1f, -0x1.69db22p+1f, -0x1.8ac084p+1f,
      -0x1.aba5e4p+1f, -0x1.cc8b44p+1f, -0x1.ed70a4p+1f, -0x1.072b02p+2f, -0x1.179db2p+2f, -0x1.281062p+2f},
     19,
     {{0, 0x0u},
      {1, 0x3a75e5757e3ecc05u},
      {2, 0x67ac0b7a9f3cba94u},
      {3, 0x8aa31f97ca03d814u},
      {4, 0xa5ad9a549d35d65bu},
      {5, 0xba973a8427c9f818u},
      {6, 0xcac38d7bc3d2399cu},
      {7, 0xd7458c24882e1bacu},
      {8, 0xe0f1de5491c9f574u},
      {9, 0xe86cf9fd38919720u},
      {10, 0xee360f6c9a30f5e1u},
      {11, 0xf2af7bbdd25a8efdu},
      {12, 0xf62551355b6779f4u},
      {13, 0xf8d264901d449b4eu},
      {14, 0xfae435629c555a31u},
      {15, 0xfc7df3807f35dbc8u},
      {16, 0xfdbad547b2e24cc1u},
      {17, 0xfeafe6495ebe845au},
      {18, 0xff6d6d18452aaa60u}}},
    {19,
     1,
     0x1.0000000000000p+0,
     0,
     0x1.0000000000000p+0,
     {0x1.000000p+0f, 0x1.81504cp-1f, 0x1.21f94ep-1f, 0x1.b472e0p-2f, 0x1.4874d4p-2f, 0x1.ee5eb8p-3f, 0x1.740bc0p-3f,
      0x1.17fd2ep-3f, 0x1.a56b94p-4f, 0x1.3d257cp-4f, 0x1.dd58d8p-5f, 0x1.673c2ap-5f, 0x1.0e5914p-5f, 0x1.96e8c2p-6f,
      0x1.3239d6p-6f, 0x1.cce906p-7f, 0x1.5add82p-7f, 0x1.0509f6p-7f, 0x1.88e5dap-8f},
     19,
     {{0, 0x0u},
      {1, 0x3fa158b30534c3adu},
      {2, 0x6f84268d71c253d4u},
      {3, 0x938db4c7b5c5ea3bu},
      {4, 0xaeac8aed9a529f0eu},
      {5, 0xc3157bca65a22cc9u},
      {6, 0xd271984ee55339a0u},
      {7, 0xde00c460640c3ed0u},
      {8, 0xe6b3bd123c3d58fbu},
      {9, 0xed3fae53b8580018u},
      {10, 0xf22cf01352bc8cf0u},
      {11, 0xf5e21dceb4452e28u},
      {12, 0xf8ac6f8bd6bbaad5u},
      {13, 0xfac60208c0c0ee66u},
      {14, 0xfc5a90fd3307c6a7u},
      {15, 0xfd8b05edc178b22bu},
      {16, 0xfe70259b33d96fa8u},
      {17, 0xff1c93dc2ac6af18u},
      {18, 0xff9e57ceaa225b1au}}},
};

static void edges_with(const char *isa) {
    for (size_t k = 0; k < sizeof choices / sizeof choices[0]; k++) {
        const choice *c = &choices[k];
        uint64_t weights[19];
        uint32_t keys[19], among[19];
        const gru_scratch scratch = {weights, keys, among};
        const size_t top_k = c->top_k ? c->top_k : c->n;
        for (size_t i = 0; i < c->n_edges; i++) {
            const uint64_t last = i + 1 < c->n_edges ? c->edges[i + 1].random - 1 : UINT64_MAX;
            const uint64_t both[2] = {c->edges[i].random, last};
            for (int j = 0; j < 2; j++) {
                const int32_t token = gru_draw_token(c->scores, c->n, c->are_probabilities, c->temperature, top_k,
                                                     c->top_p, both[j], scratch);
                CHECK(token == c->edges[i].token, "%s, case %zu, random number %llx: token %d, expected %d", isa, k,
                      (unsigned long long)both[j], (int)token, (int)c->edges[i].token);
            }
        }
    }
}

static void edges(void) {
    for (size_t i = 0; gru_isa_built(i); i++) {
        if (gru_isa_set(gru_isa_built(i)) == GRU_OK) edges_with(gru_isa_built(i));
    }
    gru_isa_set(NULL);
}

/* NumPy's np.random.Philox(key=0).random_raw(8). */
static void random_numbers(void) {
    static const uint64_t known[8] = {0x2f4ba6408e4d89bu,  0x3dd62b0b9ca8c5b2u, 0x1c8667a55d902e79u,
                                      0x907d7a052fd5b4dcu, 0x809bf322883987c3u, 0x471128b9e807f7ddu,
                                      0xf250ba0dbec065b7u, 0xfc6ed66767a457bcu};
    gru_random all = gru_random_from(0, 0);
    for (uint64_t i = 0; i < 8; i++) {
        gru_random one = gru_random_from(0, i);
        const uint64_t a = gru_random_draw(&all), b = gru_random_draw(&one);
        CHECK(a == known[i] && b == known[i], "draw %d: %llx, %llx", (int)i, (unsigned long long)a,
              (unsigned long long)b);
    }
}

int main(void) {
    static const test tests[] = {
        {"everywhere", everywhere, 1},           {"stops", stops, 0},       {"no allocations", no_allocations, 0},
        {"no system calls", no_system_calls, 0}, {"refusals", refusals, 0}, {"edges", edges, 0},
        {"random numbers", random_numbers, 0}};
    return run_tests(tests, sizeof tests / sizeof tests[0]);
}
