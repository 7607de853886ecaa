/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels for plain C: correctly rounded fmaf from the C library, for machines without fused multiply-add. */
#include "kernels.h"

#include "cpu.h"
#include "vec_generic.h"

#if defined(__clang__) /* the templates ask for loops to be unrolled that nothing is inlined into here */
#pragma clang diagnostic ignored "-Wpass-failed"
#endif
#define KERNELS generic
#define USABLE gru_cpu_has_generic
/* Nothing here is fast; the tiles are as small as can be. */
#define GRU_ROWS 1
#define GRU_TILES(T, BODY)                                                                                             \
    switch (rows_left) {                                                                                               \
    default: break;                                                                                                    \
    }
#define DENSE_ROWS 1
#define DENSE_TILES(T, BODY)                                                                                           \
    switch (rows_left) {                                                                                               \
    default: break;                                                                                                    \
    }
#include "kernels_template.h"
