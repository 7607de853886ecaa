/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels for AVX2 and FMA. */
#include "kernels.h"

#ifdef GRU_BUILD_X86
#include "cpu.h"
#include "target_avx2.h"
#include "vec_avx2.h"

#define KERNELS avx2
#define USABLE gru_cpu_has_avx2
/* 16 registers, two of them a vec: up to 6 chains. */
#define GRU_ROWS 2
#define GRU_TILES(T, BODY)                                                                                             \
    switch (rows_left) {                                                                                               \
    case 1: T(1, 2, BODY); break;                                                                                      \
    default: break;                                                                                                    \
    }
#define DENSE_ROWS 4
#define DENSE_TILES(T, BODY)                                                                                           \
    switch (rows_left) {                                                                                               \
    case 1: T(1, 1, BODY); break;                                                                                      \
    case 2: T(2, 2, BODY); break;                                                                                      \
    case 3: T(3, 1, BODY); break;                                                                                      \
    default: break;                                                                                                    \
    }
#include "kernels_template.h"
#include "target_end.h"
#endif
