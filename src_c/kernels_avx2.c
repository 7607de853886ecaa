/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels for AVX2 and FMA. */
#include "kernels.h"

#ifdef GRU_BUILD_X86
#include "cpu.h"
#include "target_avx2.h"
#include "vec_avx2.h"

#define KERNELS avx2
#define USABLE gru_cpu_has_avx2
#include "tiles_small.h"
#include "kernels_template.h"
#include "target_end.h"
#endif
