/* SPDX-License-Identifier: Apache-2.0 */
/* Template of the vec_isa_*.c files: they include a vec_*.h, define ISA (the name of their struct) and ISA_USABLE (an
 * expression: does this CPU have the instructions), then include this. */
#include "activations.h"
#include "vec_isa.h"

V_INLINE vec function_value(int function, float alpha, float beta, vec x) {
    if (function == FUNCTION_EXP) return v_exp(x);
    if (function == FUNCTION_LOG) return v_log(x);
    return activate(function, alpha, beta, x);
}

static int usable(void) { return ISA_USABLE; }

static void apply(int function, float alpha, float beta, const float *x, float *y, size_t n) {
    for (size_t i = 0; i < n; i += 16) v_store(y + i, function_value(function, alpha, beta, v_load(x + i)));
}

static void copy_n(const float *x, float *y, int n, float *lanes) {
    vec v = v_load_n(x, n);
    v_store(lanes, v);
    v_store_n(y, v, n);
}

static void op(enum vec_op code, const float *pa, const float *pb, const float *pc, float *py) {
    vec a = v_load(pa), b = v_load(pb), c = v_load(pc), y = v_zero(), one = v_set1(1.0f), none = v_zero();
    veci ia = v_bits(a), ib = v_bits(b);
    switch (code) {
    case OP_SET1: y = v_set1(pa[3]); break;
    case OP_ZERO: y = v_zero(); break;
    case OP_LOAD: y = a; break;
    case OP_ADD: y = v_add(a, b); break;
    case OP_SUB: y = v_sub(a, b); break;
    case OP_MUL: y = v_mul(a, b); break;
    case OP_DIV: y = v_div(a, b); break;
    case OP_SQRT: y = v_sqrt(a); break;
    case OP_FMA: y = v_fma(a, b, c); break;
    case OP_FNMA: y = v_fnma(a, b, c); break;
    case OP_MIN: y = v_min(a, b); break;
    case OP_MAX: y = v_max(a, b); break;
    case OP_ABS: y = v_abs(a); break;
    case OP_NEG: y = v_neg(a); break;
    case OP_NEG_ABS: y = v_neg_abs(a); break;
    case OP_COPYSIGN: y = v_copysign(a, b); break;
    case OP_LT: y = v_select(v_lt(a, b), one, none); break;
    case OP_LE: y = v_select(v_le(a, b), one, none); break;
    case OP_GT: y = v_select(v_gt(a, b), one, none); break;
    case OP_GE: y = v_select(v_ge(a, b), one, none); break;
    case OP_EQ: y = v_select(v_eq(a, b), one, none); break;
    case OP_ISNAN: y = v_select(v_isnan(a), one, none); break;
    case OP_AND: y = v_select(vm_and(v_lt(a, b), v_lt(b, c)), one, none); break;
    case OP_OR: y = v_select(vm_or(v_lt(a, b), v_lt(b, c)), one, none); break;
    case OP_ANY: y = v_set1(vm_any(v_lt(a, b)) ? 1.0f : 0.0f); break;
    case OP_SELECT_NEG: y = v_select_neg(a, b, c); break;
    case OP_SCALE2: y = v_scale2(a, ib); break;
    case OP_SUM16: y = v_set1(v_sum16(a)); break;
    case OP_MAX16: y = v_set1(v_max16(a)); break;
    case OP_INT_ADD: y = v_from_bits(vi_add(ia, ib)); break;
    case OP_INT_SUB: y = v_from_bits(vi_sub(ia, ib)); break;
    case OP_INT_AND: y = v_from_bits(vi_and(ia, ib)); break;
    case OP_INT_OR: y = v_from_bits(vi_or(ia, ib)); break;
    case OP_INT_XOR: y = v_from_bits(vi_xor(ia, ib)); break;
    case OP_INT_SHL: y = v_from_bits(vi_shl(ia, 23)); break;
    case OP_INT_SRA: y = v_from_bits(vi_sra(ia, 23)); break;
    case OP_INT_SRL: y = v_from_bits(vi_srl(ia, 23)); break;
    case OP_INT_TO_FLOAT: y = vi_to_float(ia); break;
    case OP_COUNT: break;
    }
    v_store(py, y);
}

/* One loop per function, the function inside it being a constant. */
#define EACH_TIMED_FUNCTION(X)                                                                                         \
    X(GRU_ACT_LINEAR)                                                                                                  \
    X(GRU_ACT_SIGMOID)                                                                                                 \
    X(GRU_ACT_TANH)                                                                                                    \
    X(GRU_ACT_RELU)                                                                                                    \
    X(GRU_ACT_HARD_SIGMOID)                                                                                            \
    X(GRU_ACT_ELU)                                                                                                     \
    X(GRU_ACT_SOFTSIGN)                                                                                                \
    X(GRU_ACT_SOFTPLUS) X(GRU_ACT_SILU) X(GRU_ACT_GELU) X(GRU_ACT_GELU_TANH) X(FUNCTION_EXP) X(FUNCTION_LOG)

#define THROUGHPUT(code)                                                                                               \
    case code:                                                                                                         \
        for (int t = 0; t < rounds; t++) {                                                                             \
            for (size_t i = 0; i < n; i += 16) {                                                                       \
                sum = v_add(sum, function_value(code, 0.25f, 0.5f, v_load(x + i)));                                    \
            }                                                                                                          \
        }                                                                                                              \
        break;

static float time_throughput(int function, const float *x, size_t n, int rounds) {
    vec sum = v_zero();
    switch (function) { EACH_TIMED_FUNCTION(THROUGHPUT) }
    return v_sum16(sum);
}

#define LATENCY(code)                                                                                                  \
    case code:                                                                                                         \
        for (int t = 0; t < rounds; t++) y = v_add(x, function_value(code, 0.25f, 0.5f, y));                           \
        break;

static float time_latency(int function, float start, int rounds) {
    vec x = v_set1(start), y = x;
    switch (function) { EACH_TIMED_FUNCTION(LATENCY) }
    return v_sum16(y);
}

const struct vec_isa ISA = {V_NAME, usable, apply, op, copy_n, time_throughput, time_latency};
