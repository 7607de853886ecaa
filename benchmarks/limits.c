/* SPDX-License-Identifier: Apache-2.0
 *
 * What one core of this machine can do at most: bytes loaded per second from buffers of several sizes, and operations per second.
 * Compiled and run by the benchmark; prints JSON.
 *
 * The time is CPU time of this thread, which does not count while another process has the core, and of many repetitions the
 * shortest counts. Buffers lie in huge pages where the system gives them. Each instruction set is switched on per function, so
 * that one set of compiler flags (-O3) serves all; of the ones that the machine can run the fastest is reported. Accumulators
 * are enough to hide the latency of any known core and few enough to stay in registers.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

typedef void (*load_function)(const char *p, size_t nbytes, size_t repetitions);
typedef void (*compute_function)(size_t repetitions);

/* ------------------------------------------------------------------------------------------------ x86 */

#if defined(__x86_64__)

#define LOADS(name, isa, type, load, or)                                                                               \
    __attribute__((target(isa))) static void name(const char *p, size_t nbytes, size_t repetitions) {                  \
        const type *v = (const type *)p;                                                                               \
        size_t n = nbytes / sizeof(type);                                                                              \
        type a0 = load(v), a1 = a0, a2 = a0, a3 = a0, a4 = a0, a5 = a0, a6 = a0, a7 = a0;                              \
        for (; repetitions; repetitions--) {                                                                           \
            for (size_t i = 0; i < n; i += 16) { /* n is a multiple of 16 */                                           \
                a0 = or(a0, load(v + i)), a1 = or(a1, load(v + i + 1));                                                \
                a2 = or(a2, load(v + i + 2)), a3 = or(a3, load(v + i + 3));                                            \
                a4 = or(a4, load(v + i + 4)), a5 = or(a5, load(v + i + 5));                                            \
                a6 = or(a6, load(v + i + 6)), a7 = or(a7, load(v + i + 7));                                            \
                a0 = or(a0, load(v + i + 8)), a1 = or(a1, load(v + i + 9));                                            \
                a2 = or(a2, load(v + i + 10)), a3 = or(a3, load(v + i + 11));                                          \
                a4 = or(a4, load(v + i + 12)), a5 = or(a5, load(v + i + 13));                                          \
                a6 = or(a6, load(v + i + 14)), a7 = or(a7, load(v + i + 15));                                          \
            }                                                                                                          \
            __asm__ volatile(""                                                                                        \
                             : "+v"(a0), "+v"(a1), "+v"(a2), "+v"(a3), "+v"(a4), "+v"(a5), "+v"(a6),                   \
                               "+v"(a7)::"memory");                                                                    \
        }                                                                                                              \
    }
LOADS(load_512, "avx512f", __m512i, _mm512_load_si512, _mm512_or_si512)
LOADS(load_256, "avx2", __m256i, _mm256_load_si256, _mm256_or_si256)
LOADS(load_128, "sse2", __m128i, _mm_load_si128, _mm_or_si128)

/* Twelve independent accumulators, four operations each per repetition; the asm keeps them apart and in registers. */
#define COMPUTE(name, isa, type, zero, step)                                                                           \
    __attribute__((target(isa))) static void name(size_t repetitions) {                                                \
        type a0 = zero, a1 = zero, a2 = zero, a3 = zero, a4 = zero, a5 = zero, a6 = zero, a7 = zero, a8 = zero,        \
             a9 = zero;                                                                                                \
        type a10 = zero, a11 = zero;                                                                                   \
        type x = zero, y = zero;                                                                                       \
        __asm__ volatile("" : "+v"(x), "+v"(y));                                                                       \
        for (; repetitions; repetitions--)                                                                             \
            for (int i = 0; i < 4; i++) {                                                                              \
                a0 = step(a0, x, y), a1 = step(a1, x, y), a2 = step(a2, x, y), a3 = step(a3, x, y);                    \
                a4 = step(a4, x, y), a5 = step(a5, x, y), a6 = step(a6, x, y), a7 = step(a7, x, y);                    \
                a8 = step(a8, x, y), a9 = step(a9, x, y), a10 = step(a10, x, y), a11 = step(a11, x, y);                \
                __asm__ volatile("" : "+v"(a0), "+v"(a1), "+v"(a2), "+v"(a3), "+v"(a4), "+v"(a5));                     \
                __asm__ volatile("" : "+v"(a6), "+v"(a7), "+v"(a8), "+v"(a9), "+v"(a10), "+v"(a11));                   \
            }                                                                                                          \
    }
#define FMA_512(a, x, y) _mm512_fmadd_ps(x, y, a)
#define FMA_256(a, x, y) _mm256_fmadd_ps(x, y, a)
#define MULTIPLY_ADD_128(a, x, y) _mm_add_ps(a, _mm_mul_ps(x, y))
#define BF16_512(a, x, y) _mm512_dpbf16_ps(a, (__m512bh)(x), (__m512bh)(y))
COMPUTE(fma_512, "avx512f", __m512, _mm512_setzero_ps(), FMA_512)
COMPUTE(fma_256, "avx2,fma", __m256, _mm256_setzero_ps(), FMA_256)
COMPUTE(fma_128, "sse2", __m128, _mm_setzero_ps(), MULTIPLY_ADD_128)
COMPUTE(int8_512, "avx512f,avx512vnni", __m512i, _mm512_setzero_si512(), _mm512_dpbusd_epi32)
COMPUTE(int8_256, "avx512vl,avx512vnni", __m256i, _mm256_setzero_si256(), _mm256_dpbusd_epi32)
COMPUTE(bf16_512, "avx512f,avx512bf16", __m512, _mm512_setzero_ps(), BF16_512)

static int has(const char *isa) {
    __builtin_cpu_init();
    if (!strcmp(isa, "avx512")) return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl");
    if (!strcmp(isa, "avx2")) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (!strcmp(isa, "vnni")) return has("avx512") && __builtin_cpu_supports("avx512vnni");
    if (!strcmp(isa, "bf16")) return has("avx512") && __builtin_cpu_supports("avx512bf16");
    return 1;
}

#define N_LANES(bits) ((double)(bits) / 32)
static const struct {
    const char *isa;
    int bits;
    load_function run;
} loads[] = {{"avx512", 512, load_512}, {"avx2", 256, load_256}, {"sse2", 128, load_128}};
/* operations: per lane of an instruction, a multiplication and an addition being two */
static const struct {
    const char *what, *isa;
    int bits;
    double operations;
    compute_function run;
} computes[] = {{"float32", "avx512", 512, 2, fma_512}, {"float32", "avx2", 256, 2, fma_256},
                {"float32", "sse2", 128, 2, fma_128},   {"int8", "vnni", 512, 8, int8_512},
                {"int8", "vnni", 256, 8, int8_256},     {"bfloat16", "bf16", 512, 4, bf16_512}};

/* ------------------------------------------------------------------------------------------------ ARM */

#elif defined(__aarch64__)

static void load_128(const char *p, size_t nbytes, size_t repetitions) {
    uint32x4_t a[8];
    for (int j = 0; j < 8; j++) a[j] = vdupq_n_u32(0);
    for (; repetitions; repetitions--) {
        for (size_t i = 0; i < nbytes; i += 256)
#pragma GCC unroll 16
            for (int j = 0; j < 16; j++) a[j % 8] = vorrq_u32(a[j % 8], vld1q_u32((const uint32_t *)(p + i) + 4 * j));
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++) __asm__ volatile("" : "+w"(a[j])::"memory");
    }
}

static void fma_128(size_t repetitions) {
    float32x4_t a[16], x = vdupq_n_f32(0), y = x;
    for (int j = 0; j < 16; j++) a[j] = x;
    __asm__ volatile("" : "+w"(x), "+w"(y));
    for (; repetitions; repetitions--)
#pragma GCC unroll 48
        for (int j = 0; j < 48; j++) {
            a[j % 16] = vfmaq_f32(a[j % 16], x, y);
            __asm__ volatile("" : "+w"(a[j % 16]));
        }
}

static int has(const char *isa) { return isa != NULL; }
#define N_LANES(bits) ((double)(bits) / 32)
static const struct {
    const char *isa;
    int bits;
    load_function run;
} loads[] = {{"neon", 128, load_128}};
static const struct {
    const char *what, *isa;
    int bits;
    double operations;
    compute_function run;
} computes[] = {{"float32", "neon", 128, 2, fma_128}};

#else
#error "limits.c knows x86-64 and AArch64"
#endif

/* ------------------------------------------------------------------------------------------------ measuring */

#define N(array) (sizeof(array) / sizeof((array)[0]))
#define BLOCK_SECONDS 400e-6 /* shortest time that is measured in one piece */

static double budget = 0.05; /* seconds per figure */

static double seconds_per_pass(load_function run, const char *p, size_t nbytes) {
    size_t repetitions = 1 + (size_t)(BLOCK_SECONDS * 300e9 / (double)nbytes);
    double best = 1e9, end = now() + budget;
    run(p, nbytes, 1);
    for (int i = 0; i < 3 || now() < end; i++) {
        double t = now();
        run(p, nbytes, repetitions);
        t = (now() - t) / (double)repetitions;
        best = t < best ? t : best;
    }
    return best;
}

static double seconds_per_instruction(compute_function run) {
    size_t repetitions = 40000;
    double best = 1e9, end = now() + budget;
    run(repetitions);
    for (int i = 0; i < 3 || now() < end; i++) {
        double t = now();
        run(repetitions);
        t = (now() - t) / (48.0 * (double)repetitions);
        best = t < best ? t : best;
    }
    return best;
}

/* A chain of additions of one cycle each. */
static double gigahertz(void) {
    double best = 1e9;
    for (int i = 0; i < 40; i++) {
        uint64_t a = 0;
        double t = now();
        for (int j = 0; j < 100000; j++)
#if defined(__x86_64__)
            __asm__ volatile("add %0, %0\n\tadd %0, %0\n\tadd %0, %0\n\tadd %0, %0\n\tadd %0, %0\n\tadd %0, %0\n\tadd "
                             "%0, %0\n\tadd %0, %0\n\t"
                             "add %0, %0\n\tadd %0, %0"
                             : "+r"(a));
#else
            __asm__ volatile("add %0, %0, %0\n\tadd %0, %0, %0\n\tadd %0, %0, %0\n\tadd %0, %0, %0\n\tadd %0, %0, "
                             "%0\n\tadd %0, %0, %0\n\t"
                             "add %0, %0, %0\n\tadd %0, %0, %0\n\tadd %0, %0, %0\n\tadd %0, %0, %0"
                             : "+r"(a));
#endif
        t = (now() - t) / 1e6;
        best = t < best ? t : best;
    }
    return 1e-9 / best;
}

int main(int argc, char **argv) {
    static const size_t kib[] = {16,   24,   32,   48,   64,   96,   128,  192,   256,   384,   512,   640,   768,
                                 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288, 16384, 24576, 32768, 49152, 65536};
    size_t nbytes = (size_t)64 << 20, huge = (size_t)2 << 20;
    if (argc > 1) budget = atof(argv[1]);
    char *buffer = aligned_alloc(huge, nbytes);
    if (!buffer) return 1;
#ifdef MADV_HUGEPAGE
    madvise(buffer, nbytes, MADV_HUGEPAGE);
#endif
    memset(buffer, 1, nbytes);

    printf("{\"gigahertz\": %.3f, \"load\": [", gigahertz());
    for (size_t i = 0; i < N(kib); i++) {
        double best = 0;
        int bits = 0;
        for (size_t k = 0; k < N(loads); k++) {
            if (!has(loads[k].isa)) continue;
            double rate = 1e-9 * 1024 * (double)kib[i] / seconds_per_pass(loads[k].run, buffer, 1024 * kib[i]);
            if (rate > best) best = rate, bits = loads[k].bits;
        }
        printf("%s{\"bytes\": %zu, \"gigabytes_per_second\": %.2f, \"bits\": %d}", i ? ", " : "", 1024 * kib[i], best,
               bits);
    }
    printf("], \"compute\": {");
    const char *separator = "", *what[] = {"float32", "int8", "bfloat16"};
    for (size_t i = 0; i < N(what); i++) {
        double best = 0;
        int bits = 0;
        for (size_t k = 0; k < N(computes); k++) {
            if (strcmp(computes[k].what, what[i]) || !has(computes[k].isa)) continue;
            double rate =
                1e-9 * computes[k].operations * N_LANES(computes[k].bits) / seconds_per_instruction(computes[k].run);
            if (rate > best) best = rate, bits = computes[k].bits;
        }
        if (bits) {
            printf("%s\"%s\": {\"gigaoperations_per_second\": %.2f, \"bits\": %d}", separator, what[i], best, bits);
            separator = ", ";
        }
    }
    printf("}}\n");
    free(buffer);
    return 0;
}
