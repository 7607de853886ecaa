/* SPDX-License-Identifier: Apache-2.0 */
typedef int not_empty_elsewhere;
#if defined(__aarch64__)
#include "vec_neon.h"
#define ISA vec_isa_neon
#define ISA_USABLE 1
#include "vec_isa_template.h"
#endif
