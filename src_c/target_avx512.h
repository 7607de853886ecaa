/* SPDX-License-Identifier: Apache-2.0 */
/* First include of an AVX-512 file, target_end.h being its last: what stands between them is compiled for AVX-512 (F,
 * BW, DQ, VL; with V_VNNI also VNNI) and FMA without any flag on the command line. The system headers come before the switch, so that nothing
 * of theirs is compiled for the instruction set; a file must not include others in between. */
#if !defined(__x86_64__)
#error "an AVX-512 file in a build for another architecture"
#endif

#include <immintrin.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__clang__) && defined(V_VNNI)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma"))),             \
                             apply_to = function)
#elif defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,fma")
#ifdef V_VNNI
#pragma GCC target("avx512vnni")
#endif
#endif
