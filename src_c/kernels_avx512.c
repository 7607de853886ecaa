/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels for AVX-512 (F, BW, DQ, VL). */
#include "kernels.h"

#ifdef GRU_BUILD_X86
#include "cpu.h"
#include "target_avx512.h"
#include "vec_avx512.h"

#define KERNELS gru_kernels_avx512
#define USABLE gru_cpu_has_avx512
/* 32 registers: up to 24 chains. */
#define GRU_ROWS 8
#define GRU_TILES(T, BODY)                                                                                             \
    switch (rows_left) {                                                                                               \
    case 1: T(1, 4, BODY); break;                                                                                      \
    case 2: T(2, 4, BODY); break;                                                                                      \
    case 3: T(3, 2, BODY); break;                                                                                      \
    case 4: T(4, 2, BODY); break;                                                                                      \
    case 5: T(5, 1, BODY); break;                                                                                      \
    case 6: T(6, 1, BODY); break;                                                                                      \
    case 7: T(7, 1, BODY); break;                                                                                      \
    default: break;                                                                                                    \
    }
#define DENSE_ROWS 8
#define DENSE_TILES(T, BODY)                                                                                           \
    switch (rows_left) {                                                                                               \
    case 1: T(1, 2, BODY); break;                                                                                      \
    case 2: T(2, 4, BODY); break;                                                                                      \
    case 3: T(3, 4, BODY); break;                                                                                      \
    case 4: T(4, 4, BODY); break;                                                                                      \
    case 5: T(5, 2, BODY); break;                                                                                      \
    case 6: T(6, 2, BODY); break;                                                                                      \
    case 7: T(7, 2, BODY); break;                                                                                      \
    default: break;                                                                                                    \
    }
#include "kernels_template.h"
#include "target_end.h"
#endif
