/* SPDX-License-Identifier: Apache-2.0 */
typedef int not_empty_elsewhere;
#if defined(__x86_64__)
#include "target_avx2.h"
#include "vec_avx2.h"
#define ISA vec_isa_avx2
#define ISA_USABLE (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
#include "vec_isa_template.h"
#include "target_end.h"
#endif
