/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of the C interface (src_c/gru_engine.h):
 *
 *   1. golden files: the bits of tests/data/golden_v1 on every instruction set, stepped and run;
 *   2. stepping allocates nothing, starts no thread, makes no system call, leaves the floating-point mode alone;
 *   3. refusals: NULL, workspaces that are too small, wrong tokens and lengths, missing files; nothing changes then.
 *
 *   ./test_step [folder of the golden files]
 *
 * Prints a line per test; the exit code is 1 if anything is wrong. */
#define _GNU_SOURCE
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

#if defined(__linux__)
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#endif

static unsigned mode_at_start; /* of floating-point arithmetic */
static const char *folder = "tests/data/golden_v1";

/* ---- the floating-point mode */

#if defined(__x86_64__)
#include <xmmintrin.h>
#define MODE_BITS 0xffc0u     /* all but the flags that arithmetic sets */
#define FLUSH_TO_ZERO 0x8040u /* and denormals are zero */
static unsigned fp_mode(void) { return _mm_getcsr() & MODE_BITS; }
static void set_fp_mode(unsigned mode) { _mm_setcsr(mode); }
#elif defined(__aarch64__)
#define FLUSH_TO_ZERO 0x1000000u
static unsigned fp_mode(void) {
    uint64_t mode;
    __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
    return (unsigned)mode;
}
static void set_fp_mode(unsigned mode) {
    uint64_t wide = mode;
    __asm__ volatile("msr fpcr, %0" : : "r"(wide));
}
#else
#define FLUSH_TO_ZERO 0u
static unsigned fp_mode(void) { return 0; }
static void set_fp_mode(unsigned mode) { (void)mode; }
#endif

/* ---- 1. golden files */

/* The data of a .npy file of float32 or int32; only the size counts, the header is skipped. */
static void *load_npy(const char *name, const char *part, size_t *n) {
    char path[1024];
    snprintf(path, sizeof path, "%s/%s.%s.npy", folder, name, part);
    FILE *file = fopen(path, "rb");
    unsigned char head[10];
    if (!file || fread(head, 1, 10, file) != 10 || fseek(file, 0, SEEK_END)) {
        printf("FAIL cannot read %s\n", path);
        exit(1);
    }
    const long start = 10 + head[8] + 256 * head[9], size = ftell(file) - start;
    *n = (size_t)size / 4;
    void *data = floats(*n);
    fseek(file, start, SEEK_SET);
    if (fread(data, 4, *n, file) != *n) exit(1);
    fclose(file);
    return data;
}

static void golden_file(const char *name) {
    char path[1024], why[GRU_MESSAGE_NBYTES];
    snprintf(path, sizeof path, "%s/%s.gru", folder, name);
    gru_model *model = NULL;
    const gru_result result = gru_open(path, NULL, &model, why);
    CHECK(result == GRU_OK, "%s: %s", path, why);
    if (!model) return;
    gru_info info;
    gru_get_info(model, &info);
    size_t n_x, n_y, n_state;
    void *x = load_npy(name, "x", &n_x); /* vectors, or the tokens if there are no vectors; of both, the tokens apart */
    size_t n_tokens = n_x;
    const int both = info.input_width && info.n_tokens;
    int32_t *tokens = both ? load_npy(name, "tokens", &n_tokens) : info.n_tokens ? x : NULL;
    const float *vectors = info.input_width ? x : NULL;
    float *y = load_npy(name, "y", &n_y), *after = load_npy(name, "state", &n_state);
    const size_t n_steps = n_x / (vectors ? info.input_width : info.n_tokens);
    CHECK(n_tokens == n_steps * (tokens ? info.n_tokens : n_x / n_steps), "%s: tokens", name);
    CHECK(n_state == info.state_width && n_y == info.output_width * gru_output_steps(model, n_steps), "%s: sizes",
          name);
    float *state = floats(info.state_nbytes / 4), *got = floats(n_y), *values = floats(n_state);
    for (size_t i = 0; gru_isa_built(i); i++) {
        const char *isa = gru_isa_built(i);
        if (gru_isa_set(isa) != GRU_OK) continue;
        gru_state_init(model, state);
        float *states[1] = {state};
        const gru_run_args args = {.struct_nbytes = sizeof args,
                                   .n_streams = 1,
                                   .n_steps = n_steps,
                                   .states = states,
                                   .outputs = got,
                                   .vectors = vectors,
                                   .tokens = tokens};
        const size_t nbytes = gru_run_workspace_nbytes(model, 1, n_steps, 1);
        void *workspace = malloc(nbytes);
        CHECK(gru_run(model, &args, workspace, nbytes) == GRU_OK, "%s on %s", name, isa);
        gru_state_get(model, state, values);
        CHECK(same_bits(got, y, n_y) && same_bits(values, after, n_state), "%s on %s: other bits", name, isa);
        free(workspace);
        if (!info.causal || info.per_sequence) continue;
        workspace = malloc(gru_step_workspace_nbytes(model));
        gru_state_init(model, state);
        for (size_t t = 0; t < n_steps; t++) {
            const float *vector = vectors ? vectors + t * info.input_width : NULL;
            const int32_t *token = tokens ? tokens + t * info.n_tokens : NULL;
            if (t % 3 == 1) CHECK(gru_prepare(model, state, workspace) == GRU_OK, "%s on %s", name, isa);
            CHECK(gru_step(model, state, vector, token, got, workspace) == GRU_OK, "%s on %s", name, isa);
            CHECK(same_bits(got, y + t * info.output_width, info.output_width), "%s on %s: other bits at step %zu",
                  name, isa, t);
        }
        free(workspace);
    }
    gru_isa_set(NULL);
    if (both) free(tokens);
    free(x), free(y), free(after), free(state), free(got), free(values);
    gru_close(model);
}

static void golden_files(void) {
    size_t n = 0;
    DIR *dir = opendir(folder);
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        char name[256];
        char *end = strcpy(name, entry->d_name);
        end = strrchr(name, '.');
        if (end && strcmp(end, ".gru") == 0) {
            *end = 0;
            golden_file(name);
            n++;
        }
    }
    if (dir) closedir(dir);
    CHECK(n >= 10, "%zu golden files in %s", n, folder);
}

/* ---- 2. no surprises in a step */

typedef struct setup { /* all that stepping a model needs, allocated before */
    gru_model *model;
    gru_info info;
    float *state, *x, *y;
    int32_t token;
    void *step_workspace, *run_workspace;
    size_t run_nbytes;
    gru_run_args run;
} setup;

enum { SETUP_STEPS = 70 };

static void set_up(setup *s, gru_model *model, float **states) {
    memset(s, 0, sizeof *s);
    s->model = model;
    gru_get_info(model, &s->info);
    s->state = states[0] = floats(s->info.state_nbytes / 4);
    s->x = floats(SETUP_STEPS * (s->info.input_width + 1));
    s->y = floats(SETUP_STEPS * s->info.output_width);
    fill(s->x, SETUP_STEPS * (s->info.input_width + 1));
    s->run_nbytes = gru_run_workspace_nbytes(model, 1, SETUP_STEPS, 1);
    s->step_workspace = malloc(gru_step_workspace_nbytes(model));
    s->run_workspace = malloc(s->run_nbytes);
    int32_t *tokens = (int32_t *)(void *)s->x;
    if (s->info.vocabulary) memset(tokens, 0, SETUP_STEPS * sizeof *tokens);
    s->run = (gru_run_args){.struct_nbytes = sizeof s->run,
                            .n_streams = 1,
                            .n_steps = SETUP_STEPS,
                            .states = states,
                            .outputs = s->y,
                            .vectors = s->info.vocabulary ? NULL : s->x,
                            .tokens = s->info.vocabulary ? tokens : NULL};
}

static void tear_down(setup *s) {
    free(s->state), free(s->x), free(s->y), free(s->step_workspace), free(s->run_workspace);
    gru_close(s->model);
}

/* Everything that a running stream does. Returns how many calls failed. */
static int use(const setup *s) {
    const float *vector = s->info.vocabulary ? NULL : s->x;
    const int32_t *token = s->info.vocabulary ? &s->token : NULL;
    int wrong = 0;
    gru_state_init(s->model, s->state);
    if (s->info.context_width) {
        wrong += gru_set_context(s->model, s->state, s->x, s->step_workspace) != GRU_OK;
        wrong += gru_copy_context(s->model, s->state, s->state) != GRU_OK;
    }
    for (int i = 0; i < 3 && s->info.causal; i++) {
        wrong += gru_step(s->model, s->state, vector, token, s->y, s->step_workspace) != GRU_OK;
        wrong += gru_prepare(s->model, s->state, s->step_workspace) != GRU_OK;
    }
    wrong += gru_run(s->model, &s->run, s->run_workspace, s->run_nbytes) != GRU_OK;
    gru_state_get(s->model, s->state, s->run_workspace);
    gru_state_set(s->model, s->state, s->run_workspace);
    return wrong;
}

static void no_surprises(void) {
    static unsigned char file[MADE_FILE_NBYTES];
    CHECK(fp_mode() == mode_at_start, "mode %x, before %x", fp_mode(), mode_at_start);
    const int counted = counts_allocations();
    for (unsigned kind = 0; kind < MADE_KINDS; kind++) {
        for (uint32_t reset = 0; reset < (kind == MADE_GRU ? 4u : 1u); reset++) {
            size_t nbytes;
            float *states[1];
            setup s;
            size_t before = n_allocations;
            gru_model *model = made_model((enum made_kind)kind, 33, reset, file, &nbytes);
            CHECK(!counted || n_allocations > before, "gru_open_memory allocates, so the counter works");
            if (!model) continue;
            set_up(&s, model, states);
            const size_t threads = n_threads_now();
            for (size_t i = 0; gru_isa_built(i); i++) {
                if (gru_isa_set(gru_isa_built(i)) != GRU_OK) continue;
                const unsigned mode = fp_mode();
                before = n_allocations;
                int wrong = use(&s);
                CHECK(n_allocations == before, "kind %u, reset %u, %s: %zu allocations", kind, reset, gru_isa_used(),
                      n_allocations - before);
                CHECK(fp_mode() == mode, "kind %u, reset %u, %s: mode %x, before %x", kind, reset, gru_isa_used(),
                      fp_mode(), mode);
                set_fp_mode(mode | FLUSH_TO_ZERO); /* what another library may have set is neither undone */
                const unsigned other = fp_mode();
                wrong += use(&s);
                CHECK(fp_mode() == other, "kind %u, reset %u, %s: mode %x, before %x", kind, reset, gru_isa_used(),
                      fp_mode(), other);
                set_fp_mode(mode);
                CHECK(!wrong, "kind %u, reset %u, %s: %d calls failed", kind, reset, gru_isa_used(), wrong);
            }
            CHECK(n_threads_now() == threads, "kind %u, reset %u: %zu threads, before %zu", kind, reset,
                  n_threads_now(), threads);
            gru_isa_set(NULL);
            tear_down(&s);
        }
    }
}

#if defined(__linux__)
/* A child that may do no system call but exit (seccomp's strict mode) uses a model. */
static void no_system_calls(void) {
    static unsigned char file[MADE_FILE_NBYTES];
    for (unsigned kind = 0; kind < MADE_KINDS; kind++) {
        size_t nbytes;
        float *states[1];
        setup s;
        gru_model *model = made_model((enum made_kind)kind, 33, kind % 4, file, &nbytes);
        if (!model) continue;
        set_up(&s, model, states);
        fflush(stdout);
        const pid_t child = fork();
        if (child == 0) {
            if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT)) syscall(SYS_exit, 77);
            syscall(SYS_exit, use(&s) ? 1 : 0);
        }
        int status = 0;
        waitpid(child, &status, 0);
        if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
            printf("note: system calls cannot be forbidden here\n");
            tear_down(&s);
            return;
        }
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "kind %u: the child ended with %s %d", kind,
              WIFSIGNALED(status) ? "signal (9: a system call)" : "status",
              WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
        tear_down(&s);
    }
}
#else
static void no_system_calls(void) {}
#endif

/* ---- 3. refusals */

static void opening(void) {
    static unsigned char file[MADE_FILE_NBYTES + 64];
    unsigned char *aligned = file + (64 - (uintptr_t)file % 64) % 64;
    const size_t nbytes = make_file(aligned, MADE_FILE_NBYTES, MADE_GRU, 3, 0);
    const size_t files = n_entries("/proc/self/fd");
    char why[GRU_MESSAGE_NBYTES];
    gru_model *model = (gru_model *)(void *)file;
    gru_close(NULL);
    CHECK(gru_open(NULL, NULL, &model, why) == GRU_ERROR_ARGUMENT && !model && *why, "path NULL");
    CHECK(gru_open("x", NULL, NULL, why) == GRU_ERROR_ARGUMENT, "model NULL");
    errno = 0;
    model = (gru_model *)(void *)file;
    CHECK(gru_open("/nowhere/at/all.gru", NULL, &model, why) == GRU_ERROR_IO && !model && *why && errno == ENOENT,
          "missing file: %s", why);
    CHECK(gru_open("/nowhere/at/all.gru", NULL, &model, NULL) == GRU_ERROR_IO, "no message wanted");
    CHECK(gru_open("/", NULL, &model, why) == GRU_ERROR_IO && errno == EISDIR && *why, "a directory: %s", why);
    CHECK(gru_open("/dev/null", NULL, &model, why) != GRU_OK && *why, "a device: %s", why);
    char path[] = "/tmp/gru_test_XXXXXX";
    const int fd = mkstemp(path);
    for (int copy = 0; copy < 2; copy++) {
        const gru_open_options options = {.struct_nbytes = sizeof options, .copy = copy};
        CHECK(gru_open(path, &options, &model, why) == GRU_ERROR_FORMAT && !model && *why, "an empty file: %s", why);
    }
    CHECK(write(fd, aligned, nbytes) == (ssize_t)nbytes, "write");
    for (int copy = 0; copy < 2; copy++) {
        const gru_open_options options = {.struct_nbytes = sizeof options, .copy = copy};
        CHECK(gru_open(path, &options, &model, why) == GRU_OK && !*why, "from a file: %s", why);
        const void *bytes = NULL;
        size_t n = 0;
        if (model) gru_get_file(model, &bytes, &n);
        CHECK(n == nbytes && memcmp(bytes, aligned, n) == 0, "gru_get_file");
        gru_close(model);
    }
    close(fd);
    unlink(path);
    CHECK(gru_open_memory(NULL, 100, NULL, &model, why) == GRU_ERROR_ARGUMENT && !model && *why, "data NULL");
    CHECK(gru_open_memory(aligned, nbytes, NULL, NULL, why) == GRU_ERROR_ARGUMENT, "model NULL");
    CHECK(gru_open_memory(aligned + 4, nbytes, NULL, &model, why) == GRU_ERROR_ARGUMENT && !model &&
              strstr(why, "aligned"),
          "not aligned");
    CHECK(gru_open_memory(aligned, 0, NULL, &model, why) == GRU_ERROR_FORMAT && *why, "no bytes");
    const gru_open_options older = {.struct_nbytes = sizeof(size_t)}; /* knows no field */
    CHECK(gru_open_memory(aligned, nbytes, &older, &model, why) == GRU_OK, "an older caller: %s", why);
    gru_close(model);
    for (size_t n = 0; n < nbytes; n++) {
        const gru_open_options unverified = {.struct_nbytes = sizeof unverified, .skip_verify = (int)(n % 2)};
        CHECK(gru_open_memory(aligned, n, &unverified, &model, why) != GRU_OK && !model && *why,
              "cut off after %zu bytes", n);
    }
    CHECK(n_entries("/proc/self/fd") == files, "%zu open files, before %zu", n_entries("/proc/self/fd"), files);
}

static void arguments(void) {
    static unsigned char file[MADE_FILE_NBYTES];
    size_t nbytes;
    float *states[1];
    setup s;
    gru_model *model = made_model(MADE_GRU, 9, 0, file, &nbytes);
    if (!model) return;
    set_up(&s, model, states);
    gru_state_init(model, s.state);
    memset(s.y, 0x55, SETUP_STEPS * s.info.output_width * 4);
    float *y = floats(SETUP_STEPS * s.info.output_width), *state = floats(s.info.state_nbytes / 4);
    memcpy(y, s.y, SETUP_STEPS * s.info.output_width * 4);
    memcpy(state, s.state, s.info.state_nbytes);
    const int32_t token = 0;
#define REFUSED(call, result)                                                                                          \
    do {                                                                                                               \
        CHECK((call) == (result), "%s", #call);                                                                        \
        CHECK(memcmp(y, s.y, SETUP_STEPS * s.info.output_width * 4) == 0 &&                                            \
                  memcmp(state, s.state, s.info.state_nbytes) == 0,                                                    \
              "%s changed something", #call);                                                                          \
    } while (0)
    void *w = s.step_workspace;
    REFUSED(gru_step(NULL, s.state, s.x, NULL, s.y, w), GRU_ERROR_ARGUMENT);
    REFUSED(gru_step(model, NULL, s.x, NULL, s.y, w), GRU_ERROR_ARGUMENT);
    REFUSED(gru_step(model, s.state, NULL, NULL, s.y, w), GRU_ERROR_ARGUMENT);
    REFUSED(gru_step(model, s.state, NULL, &token, s.y, w), GRU_ERROR_ARGUMENT);
    REFUSED(gru_step(model, s.state, s.x, &token, s.y, w), GRU_ERROR_ARGUMENT);
    REFUSED(gru_step(model, s.state, s.x, NULL, NULL, w), GRU_ERROR_ARGUMENT);
    REFUSED(gru_step(model, s.state, s.x, NULL, s.y, NULL), GRU_ERROR_ARGUMENT);
    REFUSED(gru_prepare(NULL, s.state, w), GRU_ERROR_ARGUMENT);
    REFUSED(gru_prepare(model, NULL, w), GRU_ERROR_ARGUMENT);
    const gru_run_args good = s.run;
#define RUN_REFUSED(field, value, result)                                                                              \
    do {                                                                                                               \
        gru_run_args args = good;                                                                                      \
        args.field = value;                                                                                            \
        REFUSED(gru_run(model, &args, s.run_workspace, s.run_nbytes), result);                                         \
    } while (0)
    const size_t too_long[1] = {SETUP_STEPS + 1};
    REFUSED(gru_run(NULL, &good, s.run_workspace, s.run_nbytes), GRU_ERROR_ARGUMENT);
    REFUSED(gru_run(model, NULL, s.run_workspace, s.run_nbytes), GRU_ERROR_ARGUMENT);
    REFUSED(gru_run(model, &good, NULL, s.run_nbytes), GRU_ERROR_ARGUMENT);
    REFUSED(gru_run(model, &good, s.run_workspace, 0), GRU_ERROR_ARGUMENT);
    REFUSED(gru_run(model, &good, s.run_workspace, s.run_nbytes - 1), GRU_ERROR_ARGUMENT);
    REFUSED(gru_run(model, &good, s.run_workspace, gru_step_workspace_nbytes(model)), GRU_ERROR_ARGUMENT);
    RUN_REFUSED(struct_nbytes, 0, GRU_ERROR_ARGUMENT);
    RUN_REFUSED(struct_nbytes, sizeof good + 8, GRU_ERROR_ARGUMENT);
    RUN_REFUSED(vectors, NULL, GRU_ERROR_ARGUMENT);
    RUN_REFUSED(tokens, &token, GRU_ERROR_ARGUMENT);
    RUN_REFUSED(states, NULL, GRU_ERROR_ARGUMENT);
    RUN_REFUSED(outputs, NULL, GRU_ERROR_ARGUMENT);
    RUN_REFUSED(lengths, too_long, GRU_ERROR_LENGTH);
    RUN_REFUSED(n_streams, SIZE_MAX, GRU_ERROR_ARGUMENT);
    RUN_REFUSED(n_steps, SIZE_MAX, GRU_ERROR_ARGUMENT);
    RUN_REFUSED(n_streams, 0, GRU_OK);
    RUN_REFUSED(n_steps, 0, GRU_OK);
    const char *name;
    size_t first, width;
    CHECK(gru_get_output(model, s.info.n_outputs, &name, &first, &width) == GRU_ERROR_ARGUMENT, "one output too many");
    CHECK(gru_get_output(model, 0, &name, &first, &width) == GRU_OK && *name && first == 0 && width > 0, "output 0");
    free(y), free(state);
    tear_down(&s);
}

/* A stream that is copied with memcpy, prepared or not, and then run with and without resets: always the same bits. */
static void preparing(void) {
    static unsigned char file[MADE_FILE_NBYTES];
    for (uint32_t reset = 0; reset < 4; reset++) {
        for (int begins = 0; begins < 8; begins++) {
            size_t nbytes;
            float *states[1];
            setup s;
            gru_model *model = made_model(MADE_GRU, 21, reset, file, &nbytes);
            if (!model) return;
            set_up(&s, model, states);
            const size_t n = SETUP_STEPS * s.info.output_width;
            float *state = floats(s.info.state_nbytes / 4), *y = floats(n);
            uint8_t mask[SETUP_STEPS] = {(uint8_t)(begins & 1), (uint8_t)(begins >> 1 & 1)};
            mask[SETUP_STEPS - 1] = (uint8_t)(begins >> 2);
            s.run.reset = begins ? mask : NULL;
            gru_state_init(model, s.state);
            CHECK(gru_step(model, s.state, s.x, NULL, s.y, s.step_workspace) == GRU_OK, "step");
            memcpy(state, s.state, s.info.state_nbytes);
            CHECK(gru_prepare(model, state, s.step_workspace) == GRU_OK, "prepare");
            CHECK(gru_run(model, &s.run, s.run_workspace, s.run_nbytes) == GRU_OK, "run");
            states[0] = state;
            s.run.outputs = y;
            CHECK(gru_run(model, &s.run, s.run_workspace, s.run_nbytes) == GRU_OK, "run");
            CHECK(same_bits(y, s.y, n), "reset %u, begins %d: prepared, it gives other bits", reset, begins);
            CHECK(gru_step(model, s.state, s.x, NULL, s.y, s.step_workspace) == GRU_OK, "step");
            CHECK(gru_step(model, state, s.x, NULL, y, s.step_workspace) == GRU_OK, "step");
            CHECK(same_bits(y, s.y, s.info.output_width), "reset %u, begins %d: other bits later", reset, begins);
            free(state), free(y);
            tear_down(&s);
        }
    }
}

static void tokens_and_lengths(void) {
    static unsigned char file[MADE_FILE_NBYTES];
    size_t nbytes;
    float *states[1];
    setup s;
    gru_model *model = made_model(MADE_TABLE, 5, 0, file, &nbytes);
    if (!model) return;
    set_up(&s, model, states);
    gru_state_init(model, s.state);
    float before[200], y[200] = {0};
    memcpy(before, s.state, s.info.state_nbytes);
    const int32_t wrong[] = {-1, (int32_t)s.info.vocabulary, INT32_MIN, INT32_MAX};
    for (size_t i = 0; i < 4; i++) {
        CHECK(gru_step(model, s.state, NULL, &wrong[i], y, s.step_workspace) == GRU_ERROR_TOKEN, "token %d", wrong[i]);
        int32_t tokens[SETUP_STEPS] = {0};
        tokens[SETUP_STEPS - 1] = wrong[i];
        s.run.tokens = tokens;
        CHECK(gru_run(model, &s.run, s.run_workspace, s.run_nbytes) == GRU_ERROR_TOKEN, "the last token %d", wrong[i]);
        CHECK(memcmp(before, s.state, s.info.state_nbytes) == 0 && y[0] == 0, "token %d changed something", wrong[i]);
        const size_t length[1] = {SETUP_STEPS - 1};
        gru_run_args padded = s.run;
        padded.lengths = length;
        CHECK(gru_run(model, &padded, s.run_workspace, s.run_nbytes) == GRU_OK, "token %d in the padding", wrong[i]);
        gru_state_init(model, s.state);
    }
    tear_down(&s);
    model = made_model(MADE_REVERSE, 5, 0, file, &nbytes);
    if (!model) return;
    set_up(&s, model, states);
    gru_state_init(model, s.state);
    CHECK(gru_step(model, s.state, s.x, NULL, s.y, s.step_workspace) == GRU_ERROR_NOT_CAUSAL, "a reverse layer");
    CHECK(gru_prepare(model, s.state, s.step_workspace) == GRU_ERROR_NOT_CAUSAL, "a reverse layer");
    tear_down(&s);
    model = made_model(MADE_LAST, 5, 0, file, &nbytes);
    if (!model) return;
    set_up(&s, model, states);
    gru_state_init(model, s.state);
    const size_t none[1] = {0};
    s.run.lengths = none;
    CHECK(gru_run(model, &s.run, s.run_workspace, s.run_nbytes) == GRU_ERROR_LENGTH, "the last of no steps");
    tear_down(&s);
}

/* What a context does to a stream, and what is said without one. */
static void contexts(void) {
    static unsigned char file[MADE_FILE_NBYTES];
    enum { WIDTH = 21 };
    size_t nbytes, first, width;
    float *states[1], y[WIDTH], other[WIDTH], given[WIDTH], again[WIDTH];
    const char *name;
    setup s;
    gru_model *model = made_model(MADE_CONTEXT, WIDTH, 0, file, &nbytes);
    if (!model) return;
    set_up(&s, model, states);
    float *fork = floats(s.info.state_nbytes / 4);
    void *workspace = s.step_workspace;
    fill(given, WIDTH);
    CHECK(s.info.context_width == WIDTH && s.info.n_contexts == 1 && s.info.n_inputs == 1 &&
              s.info.input_width == WIDTH && s.info.causal && !s.info.per_sequence,
          "gru_get_info");
    CHECK(gru_get_context(model, 0, &name, &first, &width) == GRU_OK && !*name && first == 0 && width == WIDTH, "part");
    CHECK(gru_get_context(model, 1, &name, &first, &width) == GRU_ERROR_ARGUMENT, "there is one part");

    gru_state_init(model, s.state);
    for (int i = 0; i < 2; i++) { /* without a context nothing happens, after gru_state_set neither */
        CHECK(gru_step(model, s.state, s.x, NULL, y, workspace) == GRU_ERROR_CONTEXT, "gru_step, %d", i);
        CHECK(gru_prepare(model, s.state, workspace) == GRU_ERROR_CONTEXT, "gru_prepare, %d", i);
        CHECK(gru_run(model, &s.run, s.run_workspace, s.run_nbytes) == GRU_ERROR_CONTEXT, "gru_run, %d", i);
        CHECK(gru_state_context(model, s.state, again) == GRU_ERROR_CONTEXT, "gru_state_context, %d", i);
        CHECK(gru_copy_context(model, s.state, fork) == GRU_ERROR_CONTEXT, "gru_copy_context, %d", i);
        gru_set_context(model, s.state, given, workspace);
        gru_state_get(model, s.state, y);
        gru_state_set(model, s.state, y);
    }
    CHECK(gru_set_context(NULL, s.state, given, workspace) == GRU_ERROR_ARGUMENT, "no model");
    CHECK(gru_set_context(model, NULL, given, workspace) == GRU_ERROR_ARGUMENT, "no state");
    CHECK(gru_set_context(model, s.state, NULL, workspace) == GRU_ERROR_ARGUMENT, "no context");
    CHECK(gru_set_context(model, s.state, given, NULL) == GRU_ERROR_ARGUMENT, "no workspace");

    CHECK(gru_set_context(model, s.state, given, workspace) == GRU_OK, "gru_set_context");
    CHECK(gru_state_context(model, s.state, again) == GRU_OK && same_bits(given, again, WIDTH), "what was given");
    memcpy(fork, s.state, s.info.state_nbytes);
    CHECK(gru_step(model, s.state, s.x, NULL, y, workspace) == GRU_OK, "gru_step");
    CHECK(gru_step(model, fork, s.x, NULL, other, workspace) == GRU_OK && same_bits(y, other, WIDTH), "a fork");
    gru_state_init(model, fork);
    CHECK(gru_copy_context(model, s.state, fork) == GRU_OK, "gru_copy_context");
    CHECK(gru_step(model, fork, s.x, NULL, other, workspace) == GRU_OK && same_bits(y, other, WIDTH), "a copy");

    /* The same context again is not computed again: what is kept, here spoilt, stays. Another one is. */
    float *last = fork + s.info.state_nbytes / 4 - 48; /* a panel of sums ends a block */
    const float kept = last[0];
    last[0] = 1e6f;
    CHECK(gru_set_context(model, fork, given, workspace) == GRU_OK && last[0] == 1e6f, "the same again");
    again[0] += 1;
    CHECK(gru_set_context(model, fork, again, workspace) == GRU_OK && last[0] != 1e6f, "another one");
    CHECK(gru_set_context(model, fork, given, workspace) == GRU_OK && same_bits(last, &kept, 1), "and back");
    free(fork);
    tear_down(&s);
    model = made_model(MADE_GRU, 3, 0, file, &nbytes);
    if (!model) return;
    set_up(&s, model, states);
    gru_state_init(model, s.state);
    CHECK(gru_set_context(model, s.state, given, s.step_workspace) == GRU_ERROR_ARGUMENT, "no contexts");
    CHECK(gru_copy_context(model, s.state, s.state) == GRU_OK, "nothing to copy");
    tear_down(&s);
}

static void instruction_sets(void) {
    const char *used = gru_isa_used();
    CHECK(used && gru_isa_usable(used) && gru_isa_usable("generic"), "%s", used);
    const char *const unknown[] = {"", "sse9", "GENERIC", "avx2 "};
    for (size_t i = 0; i < 4; i++) {
        CHECK(gru_isa_set(unknown[i]) == GRU_ERROR_ARGUMENT && !gru_isa_usable(unknown[i]), "'%s'", unknown[i]);
    }
    CHECK(!gru_isa_usable(NULL) && gru_isa_used() == used, "unchanged");
    CHECK(!gru_isa_built(100) && !gru_isa_built(SIZE_MAX), "the end of the list");
    for (int result = -1; result < 12; result++) CHECK(*gru_result_string((gru_result)result), "result %d", result);
    CHECK(strchr(gru_version(), '.'), "%s", gru_version());
}

int main(int argc, char **argv) {
    if (argc > 1) folder = argv[1];
    mode_at_start = fp_mode();
    static const test tests[] = {{"golden files", golden_files, 0},
                                 {"no surprises", no_surprises, 0},
                                 {"no system calls", no_system_calls, 0},
                                 {"opening", opening, 0},
                                 {"arguments", arguments, 0},
                                 {"preparing", preparing, 0},
                                 {"tokens and lengths", tokens_and_lengths, 0},
                                 {"contexts", contexts, 0},
                                 {"instruction sets", instruction_sets, 0}};
    return run_tests(tests, sizeof tests / sizeof tests[0]);
}
