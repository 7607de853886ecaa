/* SPDX-License-Identifier: Apache-2.0 */
/* The shapes of tiles for AVX-512. */
/* 32 registers: up to 24 chains. */
#define GRU_ROWS 8
#define GRU_TILES(T, BODY)                                                                                             \
    switch (rows_left) {                                                                                               \
    case 1: T(1, 4, BODY); break;                                                                                      \
    case 2: T(2, 4, BODY); break;                                                                                      \
    case 3: T(3, 2, BODY); break;                                                                                      \
    case 4: T(4, 2, BODY); break;                                                                                      \
    case 5: T(5, 1, BODY); break;                                                                                      \
    case 6: T(6, 1, BODY); break;                                                                                      \
    case 7: T(7, 1, BODY); break;                                                                                      \
    default: break;                                                                                                    \
    }
#define DENSE_ROWS 8
#define DENSE_TILES(T, BODY)                                                                                           \
    switch (rows_left) {                                                                                               \
    case 1: T(1, 2, BODY); break;                                                                                      \
    case 2: T(2, 4, BODY); break;                                                                                      \
    case 3: T(3, 4, BODY); break;                                                                                      \
    case 4: T(4, 4, BODY); break;                                                                                      \
    case 5: T(5, 2, BODY); break;                                                                                      \
    case 6: T(6, 2, BODY); break;                                                                                      \
    case 7: T(7, 2, BODY); break;                                                                                      \
    default: break;                                                                                                    \
    }
