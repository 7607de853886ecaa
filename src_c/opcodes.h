/* SPDX-License-Identifier: Apache-2.0 */
/* The numbers that a .gru file uses for operations, activations, layouts and types. docs/FORMAT.md is their definition.
 * */
#ifndef GRU_OPCODES_H
#define GRU_OPCODES_H

enum gru_op {
    GRU_OP_INPUT = 1,
    GRU_OP_TOKENS = 2,
    GRU_OP_EMBEDDING = 3,
    GRU_OP_DENSE = 4,
    GRU_OP_GRU = 5,
    GRU_OP_CONCAT = 6,
    GRU_OP_ADD = 7,
    GRU_OP_MULTIPLY = 8,
    GRU_OP_AFFINE = 9,
    GRU_OP_ACTIVATION = 10,
    GRU_OP_LAST = 11,
    GRU_OP_FIRST = 12,
    GRU_OP_STATE = 13,
    GRU_OP_BLEND = 14,
    GRU_OP_SLICE = 15,
    GRU_OP_WINDOW = 16,
    GRU_OP_NORM = 17,
    GRU_OP_MEAN = 18,
    GRU_OP_MAX = 19,
    GRU_OP_ATTEND = 20,
    GRU_OP_MAXIMUM = 21,
    GRU_OP_SUBSAMPLE = 22,
    GRU_OP_REPEAT = 23,
    GRU_OP_ATTENTION = 24,
    GRU_OP_SUMS = 25,
    GRU_OPS = 26
};

enum gru_activation {
    GRU_ACT_LINEAR = 0,
    GRU_ACT_SIGMOID = 1,
    GRU_ACT_TANH = 2,
    GRU_ACT_RELU = 3,
    GRU_ACT_AFFINE = 4,
    GRU_ACT_LEAKY_RELU = 5,
    GRU_ACT_THRESHOLDED_RELU = 6,
    GRU_ACT_SCALED_TANH = 7,
    GRU_ACT_HARD_SIGMOID = 8,
    GRU_ACT_ELU = 9,
    GRU_ACT_SOFTSIGN = 10,
    GRU_ACT_SOFTPLUS = 11,
    GRU_ACT_SILU = 12,
    GRU_ACT_CLIP = 13,
    GRU_ACT_EXP = 14,
    GRU_ACT_POSITIVE = 15,
    GRU_ACT_GELU = 16,
    GRU_ACT_GELU_TANH = 17,
    GRU_ACT_SOFTMAX = 64,
    GRU_ACT_LOG_SOFTMAX = 65
};

enum gru_reset { GRU_RESET_AFTER = 0, GRU_RESET_BEFORE = 1, GRU_RESET_ALL = 2, GRU_RESET_NONE = 3 };

enum gru_direction { GRU_FORWARD = 0, GRU_REVERSE = 1 };

enum gru_layout { GRU_LAYOUT_PLAIN = 0, GRU_LAYOUT_PANELS = 1, GRU_LAYOUT_SUMS = 2 };

enum gru_dtype { GRU_FLOAT32 = 0, GRU_BFLOAT16 = 1, GRU_FLOAT16 = 2, GRU_INT8 = 3, GRU_DTYPES = 4 };

#endif
