/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels for AVX-512 with VNNI, which has an instruction for products with int8 weights. The rest is AVX-512. */
#include "kernels.h"

#ifdef GRU_BUILD_X86
#define V_VNNI
#include "cpu.h"
#include "target_avx512.h"
#include "vec_avx512.h"

#include "tiles_avx512.h"
#include "kernels_products.h"

PRODUCTS(int8, GRU_INT8, gru_int8_avx512_vnni);

const gru_kernels gru_kernels_avx512_vnni = {
    .name = V_NAME,
    .usable = gru_cpu_has_avx512_vnni,
    .products = {&gru_float32_avx512, &gru_bfloat16_avx512, &gru_float16_avx512, &gru_int8_avx512_vnni},
    .vectors = &gru_vectors_avx512,
};
#include "target_end.h"
#endif
