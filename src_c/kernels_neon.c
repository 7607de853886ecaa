/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels for AArch64 NEON. */
#include "kernels.h"

#ifdef GRU_BUILD_NEON
#include "cpu.h"
#include "vec_neon.h"

#define KERNELS gru_kernels_neon
#define USABLE gru_cpu_has_neon
#define GRU_PANELS 2
#define GRU_ROWS 4
#define DENSE_PANELS 1
#define DENSE_ROWS 8
#include "kernels_template.h"
#endif
