/* SPDX-License-Identifier: Apache-2.0 */
/* Every vector primitive of an instruction set against scalar C; part of test_activations.c. */
#define _DEFAULT_SOURCE
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vec_isa.h"

static int32_t int_of(float x) {
    int32_t i;
    memcpy(&i, &x, 4);
    return i;
}
static float float_of(int32_t i) {
    float x;
    memcpy(&x, &i, 4);
    return x;
}
static int same(float a, float b) { return (isnan(a) && isnan(b)) || int_of(a) == int_of(b); }

static uint64_t random_state = 1;
static uint32_t random_u32(void) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 32);
}

/* Floats that meet: specials, equal ones, any bits, and moderate sizes. */
static float random_float(void) {
    static const float specials[] = {
        0.0f,       -0.0f,     1.0f,       -1.0f,           INFINITY,         -INFINITY,        NAN,  0x1p-126f,
        -0x1p-126f, 0x1p-149f, -0x1p-149f, 0x1.fffffep127f, -0x1.fffffep127f, 0x1.fffffcp-127f, 0.5f, 3.0f,
    };
    uint32_t u = random_u32();
    if (u % 4 == 0) return specials[u / 4 % 16];
    if (u % 4 == 1) return float_of((int32_t)random_u32());
    return ((float)(int32_t)random_u32()) * 0x1p-28f;
}

/* In volatile variables, so that the compiler cannot do otherwise than what is written. */
static float scalar(enum vec_op op, const float *va, const float *vb, const float *vc, int k) {
    volatile float a = va[k], b = vb[k], c = vc[k], y;
    uint32_t ia = (uint32_t)int_of(a), ib = (uint32_t)int_of(b);
    switch (op) {
    case OP_SET1: return va[3];
    case OP_ZERO: return 0.0f;
    case OP_LOAD: return a;
    case OP_ADD: y = a + b; return y;
    case OP_SUB: y = a - b; return y;
    case OP_MUL: y = a * b; return y;
    case OP_DIV: y = a / b; return y;
    case OP_SQRT: y = sqrtf(a); return y;
    case OP_FMA: y = fmaf(a, b, c); return y;
    case OP_FNMA: y = fmaf(-a, b, c); return y;
    case OP_MIN: return a < b ? a : b;
    case OP_MAX: return a > b ? a : b;
    case OP_ABS: return float_of((int32_t)(ia & 0x7fffffffu));
    case OP_NEG: return float_of((int32_t)(ia ^ 0x80000000u));
    case OP_NEG_ABS: return float_of((int32_t)(ia | 0x80000000u));
    case OP_COPYSIGN: return float_of((int32_t)((ia & 0x7fffffffu) | (ib & 0x80000000u)));
    case OP_LT: return a < b;
    case OP_LE: return a <= b;
    case OP_GT: return a > b;
    case OP_GE: return a >= b;
    case OP_EQ: return a == b;
    case OP_ISNAN: return a != a;
    case OP_AND: return a < b && b < c;
    case OP_OR: return a < b || b < c;
    case OP_ANY:
        for (int i = 0; i < 16; i++) {
            if (va[i] < vb[i]) return 1;
        }
        return 0;
    case OP_SELECT_NEG: return ia >> 31 ? b : c;
    case OP_SCALE2: return (float)ldexp(a, int_of(b));
    case OP_SUM16: {
        volatile float t[16];
        for (int i = 0; i < 16; i++) t[i] = va[i];
        for (int half = 8; half; half /= 2) {
            for (int i = 0; i < half; i++) t[i] = t[i] + t[i + half];
        }
        return t[0];
    }
    case OP_MAX16:
        y = -INFINITY;
        for (int i = 0; i < 16; i++) {
            if (isnan(va[i])) return NAN;
            if (va[i] > y) y = va[i];
        }
        return y;
    case OP_INT_ADD: return float_of((int32_t)(ia + ib));
    case OP_INT_SUB: return float_of((int32_t)(ia - ib));
    case OP_INT_AND: return float_of((int32_t)(ia & ib));
    case OP_INT_OR: return float_of((int32_t)(ia | ib));
    case OP_INT_XOR: return float_of((int32_t)(ia ^ ib));
    case OP_INT_SHL: return float_of((int32_t)(ia << 23));
    case OP_INT_SRA: return float_of((int32_t)(ia >> 23 | (ia >> 31 ? 0xfffffe00u : 0u)));
    case OP_INT_SRL: return float_of((int32_t)(ia >> 23));
    case OP_INT_TO_FLOAT: return (float)int_of(a);
    case OP_COUNT: break;
    }
    return NAN;
}

static int test_op(const struct vec_isa *isa, enum vec_op op) {
    float a[16], b[16], c[16], y[16];
    for (int round = 0; round < 20000; round++) {
        /* Few candidates in every second round, so that equal operands and masks of all kinds are met. */
        for (int k = 0; k < 16; k++) {
            a[k] = random_float();
            b[k] = round & 1 && k % 3 == 0 ? a[k] : random_float();
            c[k] = random_float();
            if (op == OP_ANY && k != round % 16) b[k] = a[k];
            if (op == OP_MAX16 && !(round & 1) && isnan(a[k])) a[k] = 7.0f;
            if (op == OP_SCALE2) {
                /* The promised domain. */
                if (round % 8) {
                    float fraction = (float)(random_u32() >> 9) * 0x1p-23f;
                    a[k] = ldexpf(1.0f + fraction, (int)(random_u32() % 50) - 25);
                } else {
                    a[k] = k & 1 ? 0.0f : k & 2 ? -INFINITY : NAN;
                }
                if (random_u32() & 1) a[k] = -a[k];
                b[k] = float_of((int)(random_u32() % 505) - 252);
            }
        }
        isa->op(op, a, b, c, y);
        for (int k = 0; k < 16; k++) {
            float want = scalar(op, a, b, c, k);
            /* Of zeros of both signs v_max16 may return either. */
            if (same(y[k], want) || (op == OP_MAX16 && y[k] == want)) continue;
            printf("FAIL %s op %d lane %d: a %a, b %a, c %a: %a, expected %a\n", isa->name, (int)op, k, (double)a[k],
                   (double)b[k], (double)c[k], (double)y[k], (double)want);
            return 1;
        }
    }
    return 0;
}

/* n floats that end, or begin, exactly where memory becomes inaccessible. */
static int test_partial(const struct vec_isa *isa) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    char *map = mmap(NULL, 6 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int failures = 0;
    if (map == MAP_FAILED) return printf("FAIL no memory\n"), 1;
    mprotect(map, page, PROT_NONE);
    mprotect(map + 2 * page, 2 * page, PROT_NONE);
    mprotect(map + 5 * page, page, PROT_NONE);
    for (int n = 1; n <= 16; n++) {
        for (int at_end = 0; at_end <= 1; at_end++) {
            size_t offset = at_end ? page - (size_t)n * 4 : 0;
            float *x = (float *)(void *)(map + page + offset), *y = (float *)(void *)(map + 4 * page + offset);
            float lanes[16];
            memset(map + 4 * page, 0x5a, page); /* canaries */
            for (int k = 0; k < n; k++) x[k] = (float)(k + 1);
            isa->copy_n(x, y, n, lanes);
            for (int k = 0; k < 16; k++) failures += !same(lanes[k], k < n ? (float)(k + 1) : 0.0f);
            for (int k = 0; k < n; k++) failures += !same(y[k], (float)(k + 1));
            for (size_t k = 0; k < page; k++) {
                int outside = k < offset || k >= offset + (size_t)n * 4;
                failures += outside && map[4 * page + k] != 0x5a;
            }
        }
    }
    munmap(map, 6 * page);
    if (failures) printf("FAIL %s v_load_n or v_store_n\n", isa->name);
    return failures;
}

int test_primitives(const struct vec_isa *isa) {
    int failures = test_partial(isa);
    for (int op = 0; op < OP_COUNT; op++) failures += test_op(isa, (enum vec_op)op);
    return failures;
}
