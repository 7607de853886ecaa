/* SPDX-License-Identifier: Apache-2.0 */
#include "vec_generic.h"
#define ISA vec_isa_generic
#define ISA_USABLE 1
#include "vec_isa_template.h"
