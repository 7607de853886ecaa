/* SPDX-License-Identifier: Apache-2.0 */
/* Teams of threads give the bits of one thread, also in a forked child, also where no threads are to be had; they end
 * when they are freed. The exit code is 1 if anything is wrong. */
#define _GNU_SOURCE
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

enum {
    TEAM_STEPS = 5,
    TEAM_STREAMS = 3,
    TEAM_FLOATS = TEAM_STREAMS * (TEAM_STEPS * MADE_OUTPUT_MOST + MADE_WIDTH_MOST)
};

/* Outputs and states of all streams after a call with this team, step by step or as a sequence, into `to`. Returns how much that is. */
static size_t run_with_team(const gru_model *model, gru_team *team, int n_threads, int stepped, float *to) {
    gru_info info;
    gru_get_info(model, &info);
    const size_t n_streams = stepped ? 1 : TEAM_STREAMS, n_steps = stepped ? 1 : TEAM_STEPS,
                 rows = info.per_sequence ? 1 : n_steps;
    float *x = floats(TEAM_STREAMS * TEAM_STEPS * (info.input_width + 1)), *states[TEAM_STREAMS];
    random_state = 7;
    fill(x, TEAM_STREAMS * TEAM_STEPS * (info.input_width + 1));
    int32_t *tokens = (int32_t *)(void *)x;
    for (int32_t i = 0; info.vocabulary && i < TEAM_STREAMS * TEAM_STEPS; i++) tokens[i] = i % (int32_t)info.vocabulary;
    for (int i = 0; i < TEAM_STREAMS; i++) {
        states[i] = floats(info.state_nbytes / 4);
        gru_state_init(model, states[i]);
    }
    const size_t nbytes = gru_run_workspace_nbytes(model, n_streams, n_steps, n_threads);
    void *workspace = malloc(nbytes);
    for (int i = 0; i < TEAM_STREAMS && info.context_width; i++) {
        void *scratch = malloc(gru_step_workspace_nbytes(model));
        CHECK(gru_set_context(model, states[i], x + i, scratch) == GRU_OK, "gru_set_context");
        free(scratch);
    }
    memset(workspace, 0xff, nbytes);
    memset(to, 0xff, TEAM_FLOATS * sizeof *to);
    size_t done = 0;
    for (size_t t = 0; t < (stepped ? TEAM_STEPS : 1); t++) {
        const gru_run_args args = {.struct_nbytes = sizeof args,
                                   .n_streams = n_streams,
                                   .n_steps = n_steps,
                                   .states = states,
                                   .vectors = info.vocabulary ? NULL : x + t * info.input_width,
                                   .tokens = info.vocabulary ? tokens + t : NULL,
                                   .outputs = to + done,
                                   .team = team};
        const size_t before = n_allocations;
        const gru_result result = gru_run(model, &args, workspace, nbytes);
#if !defined(__SANITIZE_ADDRESS__) /* which allocates in threads that are just starting */
        CHECK(n_allocations == before, "gru_run with a team of %d: %zu allocations", n_threads, n_allocations - before);
#else
        (void)before;
#endif
        CHECK(result == GRU_OK, "gru_run with a team of %d: %s", n_threads, gru_result_string(result));
        done += n_streams * rows * info.output_width;
    }
    for (size_t i = 0; i < n_streams; i++, done += info.state_width) gru_state_get(model, states[i], to + done);
    for (int i = 0; i < TEAM_STREAMS; i++) free(states[i]);
    free(x), free(workspace);
    return done;
}

/* What `run_with_team` gives in a child process; 0 if it is the same as `wanted`. The child may have no threads of its own. */
static int child_differs(const gru_model *model, gru_team *team, int n_threads, int stepped, int threadless,
                         const float *wanted, float *got) {
    fflush(stdout);
    const pid_t child = fork();
    if (child == 0) {
        const struct rlimit one = {1, 1};
        alarm(60); /* ends the child, should it hang */
        if (threadless && (setrlimit(RLIMIT_NPROC, &one) || (geteuid() == 0 && setuid(65534)))) _exit(77);
        const size_t n = run_with_team(model, team, n_threads, stepped, got);
        _exit(!same_bits(got, wanted, n));
    }
    int status = 0;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void teams(void) {
    static unsigned char file[MADE_FILE_NBYTES];
    static float wanted[2][TEAM_FLOATS], got[TEAM_FLOATS];
    gru_team *team = (gru_team *)(void *)file;
    CHECK(gru_team_create(0, &team) == GRU_ERROR_ARGUMENT && gru_team_create(-1, &team) == GRU_ERROR_ARGUMENT &&
              gru_team_create(1025, &team) == GRU_ERROR_ARGUMENT && gru_team_create(2, NULL) == GRU_ERROR_ARGUMENT,
          "sizes");
    CHECK(gru_team_create(1, &team) == GRU_OK && !team, "a team of one");
    gru_team_free(NULL);
    if (!gru_has_threads()) return;
    const size_t threads = n_threads_now();
    for (unsigned kind = 0; kind < MADE_KINDS; kind++) {
        for (uint32_t reset = 0; reset < (kind == MADE_GRU ? 4u : 1u); reset++) {
            size_t nbytes;
            gru_model *model = made_model((enum made_kind)kind, MADE_WIDTH_MOST - 1, reset, file, &nbytes);
            if (!model) continue;
            gru_info info;
            gru_get_info(model, &info);
            for (int stepped = 0; stepped <= info.causal; stepped++)
                run_with_team(model, NULL, 1, stepped, wanted[stepped]);
            for (int n_threads = 2; n_threads < 33; n_threads = n_threads * 2 + 1) {
                CHECK(gru_team_create(n_threads, &team) == GRU_OK && team, "a team of %d", n_threads);
                for (int i = 0; i < 6 && team; i++) {
                    const int stepped = i % 2 && info.causal;
                    const size_t n = run_with_team(model, team, n_threads, stepped, got);
                    CHECK(same_bits(got, wanted[stepped], n), "kind %u, reset %u, %d threads, %s: other bits", kind,
                          reset, n_threads, stepped ? "stepped" : "run");
                }
                gru_team_free(team);
            }
            gru_close(model);
        }
    }
    for (int i = 0; i < 2000 && n_threads_now() != threads; i++) {
        usleep(1000); /* a thread that was joined is in /proc for a moment yet */
    }
    CHECK(n_threads_now() == threads, "%zu threads, before %zu", n_threads_now(), threads);
}

static void teams_after_a_fork(void) {
    static unsigned char file[MADE_FILE_NBYTES];
    static float wanted[TEAM_FLOATS], got[TEAM_FLOATS];
    gru_team *team = NULL;
    size_t nbytes;
    const char *emulator = getenv("EMULATOR"); /* as the Makefile has it; QEMU cannot fork a process with threads */
    if (!gru_has_threads() || (emulator && *emulator)) return;
    CHECK(gru_team_create(3, &team) == GRU_OK, "a team of three");
    for (uint32_t reset = 0; reset < 4; reset++) {
        gru_model *model = made_model(MADE_GRU, MADE_WIDTH_MOST, reset, file, &nbytes);
        for (int stepped = 0; model && stepped < 2; stepped++) {
            const size_t n = run_with_team(model, NULL, 1, stepped, wanted);
            run_with_team(model, team, 3, stepped, got);
            int status = child_differs(model, team, 3, stepped, 0, wanted, got);
            CHECK(status == 0, "reset %u, %s: the child ended with %d", reset, stepped ? "stepped" : "run", status);
            status = child_differs(model, team, 3, stepped, 1, wanted, got);
            if (status == 77) printf("note: threads cannot be forbidden here\n");
            CHECK(status == 0 || status == 77, "reset %u, %s: the child without threads ended with %d", reset,
                  stepped ? "stepped" : "run", status);
            run_with_team(model, team, 3, stepped, got);
            CHECK(same_bits(got, wanted, n), "reset %u: the parent afterwards", reset);
        }
        gru_close(model);
    }
    gru_team_free(team);
}

int main(void) {
    static const test tests[] = {{"teams", teams, 1}, {"teams after a fork", teams_after_a_fork, 1}};
    return run_tests(tests, sizeof tests / sizeof tests[0]);
}
