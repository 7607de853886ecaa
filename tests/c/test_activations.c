/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of the vector primitives and the activation functions on every instruction set that this build and this CPU
 * have:
 *
 *   1. every primitive against scalar C, v_load_n and v_store_n beside unreadable pages (test_primitives.c);
 *   2. the error of the activations against float64, in units of the last place (ulp), over float32 inputs: all 2^32
 *      with --stride 1, else those whose bits are a multiple of the stride, and always the neighbours of every special
 *      point;
 *   3. the same bits from all instruction sets on the same inputs (plain C only where the stride is 64 or more: its
 *      fmaf is slow).
 *
 *   cc -O3 -std=c11 -ffp-contract=off -fopenmp -Isrc_c tests/c/test_activations.c tests/c/test_primitives.c \
 *      tests/c/vec_isa_*.c -lm -o test_activations
 *   ./test_activations [--stride N] [--only NAME] [--hash] [--time]
 *
 * --only leaves out all functions of 2 but those whose names begin so, and 1 and functions with parameters; --hash prints one hash of the result bits per function, to compare CPUs; --time prints nanoseconds per 16 values. The
 * exit code is 1 if anything is wrong. Without -fopenmp it works on one core. */
#define _POSIX_C_SOURCE 200809L
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "opcodes.h"
#include "vec_isa.h"

#define BLOCK 8192 /* inputs at a time */

static const char *only = "";         /* what the names of functions begin with */
static const struct vec_isa *isas[4]; /* those that can run here, fastest first */
static int isa_count, failures;

static void fail(const char *what, float x) {
#pragma omp critical(telling)
    if (failures++ < 20) printf("FAIL %s at %a\n", what, (double)x);
}

static uint32_t bits_of(float x) {
    uint32_t u;
    memcpy(&u, &x, 4);
    return u;
}

static float float_of(uint32_t u) {
    float x;
    memcpy(&x, &u, 4);
    return x;
}

/* ---- float64 references ---- */

static double ref_sigmoid(double x) {
    double e = exp(-fabs(x));
    return x < 0 ? e / (1 + e) : 1 / (1 + e);
}
static double ref_softplus(double x) { return fmax(x, 0) + log1p(exp(-fabs(x))); }
static double ref_silu(double x) { return x < -700 ? -0.0 : x * ref_sigmoid(x); }
/* With erfc the left tail keeps its relative accuracy. */
static double ref_gelu(double x) { return x < -40 ? -0.0 : x * erfc(-x * 0.70710678118654752440) / 2; }
static double ref_gelu_tanh(double x) {
    return x < -40 ? -0.0 : x * ref_sigmoid(1.59576912160573071176 * x * (1 + 0.044715 * x * x));
}
static double ref_elu(double x) { return x >= 0 ? x : expm1(x); }
static double ref_softsign(double x) { return isinf(x) ? copysign(1, x) : x / (1 + fabs(x)); }

static const struct function {
    const char *name;
    int code;
    double (*reference)(double);
    double bound; /* ulp */
    float lo, hi; /* the mathematical range */
} functions[] = {
    {"sigmoid", GRU_ACT_SIGMOID, ref_sigmoid, 2.6, 0, 1},
    {"tanh", GRU_ACT_TANH, tanh, 2.6, -1, 1},
    {"exp", FUNCTION_EXP, exp, 1.1, 0, INFINITY},
    {"log", FUNCTION_LOG, log, 0.95, -INFINITY, INFINITY},
    {"softplus", GRU_ACT_SOFTPLUS, ref_softplus, 2.9, 0, INFINITY},
    {"elu", GRU_ACT_ELU, ref_elu, 1.05, -1, INFINITY},
    {"silu", GRU_ACT_SILU, ref_silu, 3.5, -0.2784647f, INFINITY}, /* least: -0.27846454, and the error */
    {"softsign", GRU_ACT_SOFTSIGN, ref_softsign, 1.5, -1, 1},
    {"gelu", GRU_ACT_GELU, ref_gelu, 4.0, -0.1699713f, INFINITY},                /* least: -0.16997121 */
    {"gelu tanh", GRU_ACT_GELU_TANH, ref_gelu_tanh, 3.0, -0.1700408f, INFINITY}, /* least: -0.17004075 */
};
enum { FUNCTIONS = sizeof functions / sizeof functions[0] };

static int wanted(int f) { return strncmp(functions[f].name, only, strlen(only)) == 0; }

/* ---- checking one block of inputs ---- */

struct result {
    double error; /* largest, ulp */
    float x;      /* where */
    uint64_t hash;
};

/* Distance from the reference over the distance of neighbouring floats there; infinity counts as 2^128. */
static double ulp_error(float y, double ref) {
    double size = fmin(fabs(ref), 0x1.fffffffp127), ulp, got = isinf(y) ? copysign(0x1p128, y) : y;
    uint64_t u;
    memcpy(&u, &size, 8);
    u >>= 52;
    u = ((u < 1023 - 126 ? 1023 - 126 : u) - 23) << 52;
    memcpy(&ulp, &u, 8);
    if (fabs(ref) > 0x1p128) ref = copysign(0x1p128, ref);
    return fabs(got - ref) / ulp;
}

static void check(const struct function *f, const float *x, const float *y, size_t n, struct result *worst) {
    for (size_t i = 0; i < n; i++) {
        double ref = isnan(x[i]) ? NAN : f->reference(x[i]);
        if (isnan(ref) || isnan(y[i])) {
            if (!isnan(ref) || !isnan(y[i])) fail(f->name, x[i]);
            continue;
        }
        if (y[i] < f->lo || y[i] > f->hi) fail(f->name, x[i]);
        double error = ulp_error(y[i], ref);
        if (error > worst->error) {
            worst->error = error;
            worst->x = x[i];
        }
    }
}

/* Hashes of blocks are added up, since threads take the blocks in any order. */
static uint64_t hash(const float *y, size_t n) {
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++) h = (h ^ (isnan(y[i]) ? 0x7fc00000u : bits_of(y[i]))) * 0x100000001b3u;
    return h ^ h >> 29;
}

/* y = function(x) by the fastest instruction set; the others must agree. */
static void apply(int code, const char *name, float alpha, float beta, const float *x, float *y, size_t n,
                  int generic_too) {
    float other[BLOCK];
    isas[0]->apply(code, alpha, beta, x, y, n);
    for (int k = 1; k < isa_count; k++) {
        if (isas[k] == &vec_isa_generic && !generic_too) continue;
        isas[k]->apply(code, alpha, beta, x, other, n);
        for (size_t i = 0; i < n; i++) {
            if (bits_of(other[i]) == bits_of(y[i]) || (isnan(other[i]) && isnan(y[i]))) continue;
            printf("%s(%a; %a, %a): %s %a, %s %a\n", name, (double)x[i], (double)alpha, (double)beta, isas[0]->name,
                   (double)y[i], isas[k]->name, (double)other[i]);
            fail(name, x[i]);
            break;
        }
    }
}

/* ---- functions of x alone: every stride-th float, and the special points ---- */

static float *special;
static size_t special_count;

static void make_special_points(void) {
    static const float centres[] = {
        0,         0x1p-126f, 0x1p-60f, 0x1p-12f, 0.5f,  0x1.6a09e6p-1f, 1,        0x1.6a09e6p0f,
        2,         8,         9,        9.01f,    10,    16.6f,          17.3f,    40,
        87.3365f,  88.02969f, 10.5f,    11,       14.4f, 14.5f,          88.7228f, 90,
        103.2789f, 103.9721f, 104,      108.6f,   110,   0x1p126f,       INFINITY,
    };
    enum { CENTRES = sizeof centres / sizeof centres[0], REDUCTIONS = 84, AROUND = 256 };
    special = malloc((CENTRES + REDUCTIONS) * AROUND * 2 * sizeof(float));
    if (!special) exit(2);
    for (int i = 0; i < CENTRES + REDUCTIONS; i++) {
        /* Odd multiples of ln 2, where the range reduction of exp changes from one multiple to the next. */
        float centre = i < CENTRES ? centres[i] : (float)((2 * (i - CENTRES) + 1) * 0.69314718055994530942);
        for (int k = 0; k < AROUND; k++) {
            uint32_t u = bits_of(centre) + (uint32_t)k - AROUND / 2; /* below 0 it wraps around to NaN */
            special[special_count++] = float_of(u);
            special[special_count++] = float_of(u ^ 0x80000000u);
        }
    }
}

static void check_block(uint64_t block, uint64_t stride, struct result *total) {
    float x[BLOCK], y[BLOCK];
    int generic_too = stride >= 64;
    size_t n = 0;
    if (block * BLOCK < special_count) {
        for (size_t i = block * BLOCK; i < special_count && n < BLOCK; i++) x[n++] = special[i];
    } else {
        uint64_t first = block - (special_count + BLOCK - 1) / BLOCK;
        for (uint64_t u = first * BLOCK * stride; n < BLOCK && u < (uint64_t)1 << 32; u += stride) {
            x[n++] = float_of((uint32_t)u);
        }
    }
    while (n % 16) x[n++] = 1;
    for (int f = 0; f < FUNCTIONS; f++) {
        if (!wanted(f)) continue;
        struct result local = {0, 0, 0};
        apply(functions[f].code, functions[f].name, 1, 0, x, y, n, generic_too);
        check(&functions[f], x, y, n, &local);
        local.hash = hash(y, n);
#pragma omp critical(adding)
        {
            total[f].hash += local.hash;
            /* At a tie the least input, so that the output does not depend on the threads. */
            struct result *t = &total[f];
            if (local.error > t->error || (local.error == t->error && bits_of(local.x) < bits_of(t->x))) {
                t->error = local.error;
                t->x = local.x;
            }
        }
    }
}

static void check_functions(uint64_t stride, int print_hash) {
    struct result total[FUNCTIONS] = {{0, 0, 0}};
    uint64_t floats = (((uint64_t)1 << 32) + stride - 1) / stride;
    int64_t blocks = (int64_t)((special_count + BLOCK - 1) / BLOCK + (floats + BLOCK - 1) / BLOCK);
#pragma omp parallel for schedule(dynamic, 4)
    for (int64_t b = 0; b < blocks; b++) check_block((uint64_t)b, stride, total);
    printf("%-10s %8s %8s  worst input\n", "function", "max ulp", "bound");
    for (int f = 0; f < FUNCTIONS; f++) {
        if (!wanted(f)) continue;
        double x = total[f].x;
        if (!(total[f].error <= functions[f].bound)) fail(functions[f].name, total[f].x);
        printf("%-10s %8.4f %8.2f  %a (%.9g)\n", functions[f].name, total[f].error, functions[f].bound, x, x);
    }
    for (int f = 0; print_hash && f < FUNCTIONS; f++) {
        if (!wanted(f)) continue;
        printf("hash %-10s %016llx\n", functions[f].name, (unsigned long long)total[f].hash);
    }
}

/* ---- functions with parameters: random samples ---- */

static uint64_t random_state = 20240607;
static uint32_t random_u32(void) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 32);
}
/* Any sign, size between 2^-range and 2^range. */
static float random_float(int range) {
    uint32_t fraction = random_u32() >> 9, exponent = random_u32() % (2u * (unsigned)range);
    uint32_t negative = random_u32() >> 31;
    float size = ldexpf(1.0f + (float)fraction * 0x1p-23f, (int)exponent - range);
    return negative ? -size : size;
}

static double ref_parametric(int code, double alpha, double beta, double x) {
    switch (code) {
    case GRU_ACT_RELU: return x > 0 ? x : 0;
    case GRU_ACT_AFFINE: return alpha * x + beta; /* the product of two float32 is exact */
    case GRU_ACT_LEAKY_RELU: return x >= 0 ? x : alpha * x;
    case GRU_ACT_THRESHOLDED_RELU: return x > alpha ? x : 0;
    case GRU_ACT_SCALED_TANH: return alpha * tanh(beta * x);
    case GRU_ACT_HARD_SIGMOID: return fmax(0, fmin(1, alpha * x + beta));
    case GRU_ACT_ELU: return x >= 0 ? x : alpha * expm1(x);
    default: return x;
    }
}

static void check_parametric(int print_hash) {
    static const struct {
        const char *name;
        int code;
        double bound;
    } cases[] = {
        {"linear", GRU_ACT_LINEAR, 0},
        {"relu", GRU_ACT_RELU, 0},
        {"affine", GRU_ACT_AFFINE, 0.5001},
        {"leaky relu", GRU_ACT_LEAKY_RELU, 0.5001},
        {"threshold", GRU_ACT_THRESHOLDED_RELU, 0},
        {"scaled tanh", GRU_ACT_SCALED_TANH, 4},
        {"hard sigm.", GRU_ACT_HARD_SIGMOID, 0.5001},
        {"alpha elu", GRU_ACT_ELU, 2},
    };
    float x[1024], y[1024];
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        double worst = 0;
        uint64_t sum = 0;
        for (int round = 0; round < 400; round++) {
            float alpha = random_float(10);
            float beta = random_float(10);
            for (int i = 0; i < 1024; i++) x[i] = random_float(round & 1 ? 6 : 40);
            const float meet[] = {NAN, 0.0f, -0.0f, INFINITY, -INFINITY, 0x1p-149f, -0x1p-149f, alpha, -alpha};
            memcpy(x, meet, sizeof meet);
            apply(cases[c].code, cases[c].name, alpha, beta, x, y, 1024, 1);
            sum += hash(y, 1024);
            for (int i = 0; i < 1024; i++) {
                /* A subnormal beta * x has lost bits. */
                if (cases[c].code == GRU_ACT_SCALED_TANH && fabsf(x[i]) < 0x1p-100f) continue;
                double ref = isnan(x[i]) ? NAN : ref_parametric(cases[c].code, alpha, beta, x[i]);
                if (isnan(ref) != isnan(y[i])) fail(cases[c].name, x[i]);
                double error = isnan(ref) ? 0 : ulp_error(y[i], ref);
                if (error > cases[c].bound) fail(cases[c].name, x[i]);
                worst = fmax(worst, error);
            }
        }
        printf("%-11s %7.4f %8.2f\n", cases[c].name, worst, cases[c].bound);
        if (print_hash) printf("hash %-10s %016llx\n", cases[c].name, (unsigned long long)sum);
    }
}

/* ---- time ---- */

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void print_times(void) {
    static const struct {
        const char *name;
        int code;
    } timed[] = {
        {"(loop)", GRU_ACT_LINEAR},     {"sigmoid", GRU_ACT_SIGMOID},         {"tanh", GRU_ACT_TANH},
        {"relu", GRU_ACT_RELU},         {"hard sigm.", GRU_ACT_HARD_SIGMOID}, {"elu", GRU_ACT_ELU},
        {"softsign", GRU_ACT_SOFTSIGN}, {"softplus", GRU_ACT_SOFTPLUS},       {"silu", GRU_ACT_SILU},
        {"gelu", GRU_ACT_GELU},         {"gelu tanh", GRU_ACT_GELU_TANH},     {"exp", FUNCTION_EXP},
        {"log", FUNCTION_LOG},
    };
    float x[384];
    for (int i = 0; i < 384; i++) x[i] = (float)(i - 191) / 40.0f;
    for (int k = 0; k < isa_count; k++) {
        printf("%s: ns per 16 values, independent vectors / one after the other\n", isas[k]->name);
        for (size_t c = 0; c < sizeof timed / sizeof timed[0]; c++) {
            double best = 1e9, chain = 1e9;
            volatile float sink;
            int rounds = isas[k] == &vec_isa_generic ? 100 : 2000;
            for (int t = 0; t < 15; t++) {
                double start = seconds();
                sink = isas[k]->time_throughput(timed[c].code, x, 384, rounds);
                double middle = seconds();
                sink = isas[k]->time_latency(timed[c].code, 0.7f, 24 * rounds);
                best = fmin(best, (middle - start) / (24 * rounds));
                chain = fmin(chain, (seconds() - middle) / (24 * rounds));
            }
            (void)sink;
            printf("  %-10s %7.2f %7.2f\n", timed[c].name, best * 1e9, chain * 1e9);
        }
    }
}

int main(int argc, char **argv) {
    uint64_t stride = 1021;
    int print_hash = 0, time_only = 0;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--hash")) {
            print_hash = 1;
        } else if (!strcmp(argv[i], "--time")) {
            time_only = 1;
        } else if (!strcmp(argv[i], "--only") && i + 1 < argc) {
            only = argv[++i];
        } else if (!strcmp(argv[i], "--stride") && i + 1 < argc && atoll(argv[i + 1]) > 0) {
            stride = (uint64_t)atoll(argv[++i]);
        } else {
            fprintf(stderr, "usage: %s [--stride N] [--only NAME] [--hash] [--time]\n", argv[0]);
            return 2;
        }
    }
#if defined(__x86_64__)
    if (vec_isa_avx512.usable()) isas[isa_count++] = &vec_isa_avx512;
    if (vec_isa_avx2.usable()) isas[isa_count++] = &vec_isa_avx2;
#elif defined(__aarch64__)
    isas[isa_count++] = &vec_isa_neon;
#endif
    isas[isa_count++] = &vec_isa_generic;
    if (time_only) {
        print_times();
        return 0;
    }
    printf("instruction sets:");
    for (int k = 0; k < isa_count; k++) {
        printf(" %s", isas[k]->name);
        if (!*only) failures += test_primitives(isas[k]);
    }
    printf("\n");
    int chosen = 0;
    for (int f = 0; f < FUNCTIONS; f++) chosen += wanted(f);
    if (!chosen) {
        fprintf(stderr, "--only %s: there is no function whose name begins so\n", only);
        return 2;
    }
    make_special_points();
    check_functions(stride, print_hash);
    if (!*only) check_parametric(print_hash);
    free(special);
    if (failures) printf("%d failures\n", failures);
    else printf("ok\n");
    return failures != 0;
}
