/* SPDX-License-Identifier: Apache-2.0 */
/* Last include of a file that began with target_avx2.h or target_avx512.h. */
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
