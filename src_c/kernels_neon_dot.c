/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels for AArch64 with the instructions for dot products of int8 (Armv8.4, optional before). The rest is NEON. */
#include "kernels.h"

#ifdef GRU_BUILD_NEON_DOT
#include <arm_neon.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("dotprod"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("arch=armv8.2-a+dotprod")
#endif
#define V_DOT
#include "cpu.h"
#include "vec_neon.h"

#include "tiles_small.h"
#include "kernels_products.h"

PRODUCTS(int8, GRU_INT8, gru_int8_neon_dot);

const gru_kernels gru_kernels_neon_dot = {
    .name = V_NAME,
    .usable = gru_cpu_has_neon_dot,
    .products = {&gru_float32_neon, &gru_bfloat16_neon, &gru_float16_neon, &gru_int8_neon_dot},
    .vectors = &gru_vectors_neon,
};
#include "target_end.h"
#endif
