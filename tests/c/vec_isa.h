/* SPDX-License-Identifier: Apache-2.0 */
/* What test_activations.c sees of one instruction set: plain functions over arrays. One struct per vec_isa_*.c. */
#ifndef VEC_ISA_H
#define VEC_ISA_H

#include <stddef.h>
#include <stdint.h>

/* Beside enum gru_activation: the two functions that softmax uses. */
enum { FUNCTION_EXP = 1000, FUNCTION_LOG = 1001 };

enum vec_op {
    OP_SET1,
    OP_ZERO,
    OP_LOAD,
    OP_ADD,
    OP_SUB,
    OP_MUL,
    OP_DIV,
    OP_SQRT,
    OP_FMA,
    OP_FNMA,
    OP_MIN,
    OP_MAX,
    OP_ABS,
    OP_NEG,
    OP_NEG_ABS,
    OP_COPYSIGN,
    OP_LT,
    OP_LE,
    OP_GT,
    OP_GE,
    OP_EQ,
    OP_ISNAN,
    OP_AND,
    OP_OR,
    OP_ANY,
    OP_SELECT_NEG,
    OP_SCALE2,
    OP_SUM16,
    OP_MAX16,
    OP_INT_ADD,
    OP_INT_SUB,
    OP_INT_AND,
    OP_INT_OR,
    OP_INT_XOR,
    OP_INT_SHL,
    OP_INT_SRA,
    OP_INT_SRL,
    OP_INT_TO_FLOAT,
    OP_COUNT
};

struct vec_isa {
    const char *name;
    int (*usable)(void); /* does this CPU have it */
    /* y = function(x); n a multiple of 16 */
    void (*apply)(int function, float alpha, float beta, const float *x, float *y, size_t n);
    /* One primitive on 16 lanes. Comparisons give 1 and 0; reductions fill all lanes; integers travel as float bits. */
    void (*op)(enum vec_op op, const float *a, const float *b, const float *c, float *y);
    /* v_store_n(y, v_load_n(x, n), n), and the 16 lanes that v_load_n gave */
    void (*copy_n)(const float *x, float *y, int n, float *lanes);
    /* The same function again and again: independent vectors (throughput), or each the input of the next (latency). */
    float (*time_throughput)(int function, const float *x, size_t n, int rounds);
    float (*time_latency)(int function, float x, int rounds);
};

/* test_primitives.c: prints what is wrong, returns how many were. */
int test_primitives(const struct vec_isa *isa);

extern const struct vec_isa vec_isa_generic, vec_isa_avx2, vec_isa_avx512, vec_isa_neon;

#endif
