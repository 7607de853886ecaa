/* SPDX-License-Identifier: Apache-2.0 */
typedef int not_empty_elsewhere;
#if defined(__x86_64__)
#include "target_avx512.h"
#include "vec_avx512.h"
#define ISA vec_isa_avx512
#define ISA_USABLE                                                                                                     \
    (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&  \
     __builtin_cpu_supports("avx512vl"))
#include "vec_isa_template.h"
#include "target_end.h"
#endif
