/* SPDX-License-Identifier: Apache-2.0 */
/* What the test programs share: CHECK, an allocator that counts, small helpers. Each program is one file that includes
 * this one. */
#ifndef CHECK_H
#define CHECK_H

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gru_engine.h"
#include "gru_file.h"

static int failures, told; /* told: in this test */

#define CHECK(condition, ...)                                                                                          \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            failures++;                                                                                                \
            if (told++ < 10) {                                                                                         \
                printf("FAIL %s:%d %s: ", __FILE__, __LINE__, #condition);                                             \
                printf(__VA_ARGS__);                                                                                   \
                printf("\n");                                                                                          \
            }                                                                                                          \
        }                                                                                                              \
    } while (0)

/* ---- an allocator that counts: glibc's under our names; under AddressSanitizer its hooks */

static volatile size_t n_allocations; /* calls, of free as well */
static volatile long n_blocks;        /* not yet freed, from the first count on */

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ASAN 1
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define ASAN 1
#endif

#if defined(ASAN)
int __sanitizer_install_malloc_and_free_hooks(void (*)(const volatile void *, size_t), void (*)(const volatile void *));
static inline void count_malloc(const volatile void *p, size_t n) {
    (void)p, (void)n;
    n_allocations++;
    n_blocks++;
}
static inline void count_free(const volatile void *p) {
    (void)p;
    n_allocations++;
    n_blocks -= p != NULL;
}
static inline int counts_allocations(void) {
    static int installed;
    if (!installed) installed = __sanitizer_install_malloc_and_free_hooks(count_malloc, count_free);
    return installed != 0;
}
#elif defined(__GLIBC__)
extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);
extern void __libc_free(void *);
void *malloc(size_t n) {
    n_allocations++;
    n_blocks++;
    return __libc_malloc(n);
}
void *calloc(size_t n, size_t size) {
    n_allocations++;
    n_blocks++;
    return __libc_calloc(n, size);
}
void *realloc(void *p, size_t n) {
    n_allocations++;
    n_blocks += !p;
    return __libc_realloc(p, n);
}
void *aligned_alloc(size_t alignment, size_t n) {
    n_allocations++;
    n_blocks++;
    return __libc_memalign(alignment, n);
}
int posix_memalign(void **p, size_t alignment, size_t n) {
    n_allocations++;
    n_blocks++;
    *p = __libc_memalign(alignment, n);
    return *p ? 0 : ENOMEM;
}
void free(void *p) {
    n_allocations++;
    n_blocks -= p != NULL;
    __libc_free(p);
}
static inline int counts_allocations(void) { return 1; }
#else
static inline int counts_allocations(void) { return 0; }
#endif

typedef struct test {
    const char *name;
    void (*run)(void);
    int has_threads; /* the C library keeps some of their memory */
} test;

/* Runs the tests, prints a line for each, returns the exit code. What a test allocates it must free. */
static inline int run_tests(const test *tests, size_t n) {
    static char buffer[4096]; /* or printf would allocate one */
    setvbuf(stdout, buffer, _IOLBF, sizeof buffer);
    if (!counts_allocations()) printf("note: allocations cannot be counted here\n");
    for (size_t i = 0; i < n; i++) {
        const int before = failures;
        const long blocks = n_blocks;
        told = 0;
        tests[i].run();
        CHECK(n_blocks == blocks || tests[i].has_threads, "%s: %ld blocks of memory are not freed", tests[i].name,
              n_blocks - blocks);
        printf("%s %s\n", failures == before ? "ok  " : "FAIL", tests[i].name);
        fflush(stdout);
    }
    return failures > 0;
}

/* ---- small helpers */

static inline float *floats(size_t n) {
    float *p = malloc(n * sizeof *p + 1);
    if (!p) exit(2);
    return p;
}

static uint64_t random_state = 1;
static inline float random_float(void) { /* from -1 to 1 */
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (float)(int32_t)(random_state >> 32) * 0x1p-31f;
}

static inline void fill(float *p, size_t n) {
    for (size_t i = 0; i < n; i++) p[i] = random_float();
}

static inline int same_bits(const float *a, const float *b, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (memcmp(a + i, b + i, sizeof *a) != 0 && !(isnan(a[i]) && isnan(b[i]))) return 0;
    }
    return 1;
}

static inline size_t n_entries(const char *path) {
    size_t n = 0;
    DIR *dir = opendir(path);
    while (dir && readdir(dir)) n++;
    if (dir) closedir(dir);
    return n;
}

static inline size_t n_threads_now(void) { return n_entries("/proc/self/task"); }

/* A model written by gru_file.h: kind of layer, width, reset mode. */
static inline gru_model *made_model(enum made_kind kind, uint32_t width, uint32_t reset, void *file, size_t *nbytes) {
    char why[GRU_MESSAGE_NBYTES] = "";
    gru_model *model = NULL;
    *nbytes = make_file(file, MADE_FILE_NBYTES, kind, width, reset);
    const gru_open_options options = {.struct_nbytes = sizeof options, .copy = 1};
    const gru_result result = gru_open_memory(file, *nbytes, &options, &model, why);
    CHECK(result == GRU_OK, "kind %d, width %u, reset %u: %s", (int)kind, width, reset, why);
    return model;
}

#endif
