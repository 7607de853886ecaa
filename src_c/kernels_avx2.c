/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels for AVX2 and FMA. */
#include "kernels.h"

#ifdef GRU_BUILD_X86
#include "cpu.h"
#include "target_avx2.h"
#include "vec_avx2.h"

#define KERNELS gru_kernels_avx2
#define USABLE gru_cpu_has_avx2
#define GRU_PANELS 2
#define GRU_ROWS 2
#define DENSE_PANELS 1
#define DENSE_ROWS 4
#include "kernels_template.h"
#include "target_end.h"
#endif
