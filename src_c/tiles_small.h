/* SPDX-License-Identifier: Apache-2.0 */
/* The shapes of tiles for AVX2 and NEON: with 16 registers of which two are a vec, or 32 of which four are, up to 6 chains. */
#define GRU_ROWS 2
#define GRU_TILES(T, BODY)                                                                                             \
    switch (rows_left) {                                                                                               \
    case 1: T(1, 2, BODY); break;                                                                                      \
    default: break;                                                                                                    \
    }
#define DENSE_ROWS 4
#define DENSE_TILES(T, BODY)                                                                                           \
    switch (rows_left) {                                                                                               \
    case 1: T(1, 1, BODY); break;                                                                                      \
    case 2: T(2, 2, BODY); break;                                                                                      \
    case 3: T(3, 1, BODY); break;                                                                                      \
    default: break;                                                                                                    \
    }
