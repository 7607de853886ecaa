/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels for AArch64 NEON. */
#include "kernels.h"

#ifdef GRU_BUILD_NEON
#include "cpu.h"
#include "vec_neon.h"

#define KERNELS neon
#define USABLE gru_cpu_has_neon
#include "tiles_small.h"
#include "kernels_template.h"
#endif
