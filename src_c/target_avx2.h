/* SPDX-License-Identifier: Apache-2.0 */
/* First include of an AVX2 file, target_end.h being its last: what stands between them is compiled for AVX2, FMA
 * and F16C without any flag on the command line. The system headers come before the switch, so that nothing of theirs is
 * compiled for the instruction set; a file must not include others in between. */
#if !defined(__x86_64__)
#error "an AVX2 file in a build for another architecture"
#endif

#include <immintrin.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif
