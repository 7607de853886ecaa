/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels for AVX-512 (F, BW, DQ, VL). */
#include "kernels.h"

#ifdef GRU_BUILD_X86
#include "cpu.h"
#include "target_avx512.h"
#include "vec_avx512.h"

#define KERNELS avx512
#define USABLE gru_cpu_has_avx512
#include "tiles_avx512.h"
#include "kernels_template.h"
#include "target_end.h"
#endif
