/* SPDX-License-Identifier: Apache-2.0 */
/* Products of matrices and vectors, once, over the vector primitives of one instruction set and for every type of
 * weights. Included by kernels_NAME.c after vec_NAME.h; everything is static.
 *
 * The including file defines
 *   GRU_TILES     the shapes of tiles for matrices of two or three gates: GRU_TILES(TILES, BODY) is a switch over
 *                 `rows_left` with a case TILES(rows, panels, BODY) for each number of rows
 *   GRU_ROWS      the most rows of such a tile
 *   DENSE_TILES, DENSE_ROWS   likewise for matrices of one gate
 * and makes the tables that it wants with PRODUCTS.
 *
 * A *tile* is a few rows times a few panels: enough independent chains of fused multiply-adds to hide their latency,
 * few enough to stay in registers. Whatever the tile, each output is computed by the chain that docs/NUMERICS.md
 * prescribes. In what is V_INLINE, the type, rows, panels and gates are constants. */
#include "activations.h"
#include "kernels.h"

#include <string.h>

#define MAX_TILE 32 /* vectors that a tile keeps: rows * panels * gates */
#define MAX_ROWS 8

/* A tile: these rows of the call, these panels of the matrix. */
typedef struct tile {
    size_t panel, row;
    int panels, rows;
} tile;

V_INLINE const unsigned char *panel_data(const gru_matrix *m, size_t panel) {
    return m->data + panel * m->panel_nbytes;
}

/* ------------------------------------------------------------------------------------------------ sums of floats */

/* The weights of column k for 16 outputs; odd is k % 2 as a constant. */
V_INLINE vec weights_at(enum gru_dtype type, const unsigned char *panel, int gates, int gate, size_t k, int odd) {
    const size_t line = (type == GRU_FLOAT32 ? k : k / 2) * (size_t)gates + (size_t)gate;
    const unsigned char *p = panel + line * 64;
    switch (type) {
    case GRU_BFLOAT16: return v_load_bfloat16(p, odd);
    case GRU_FLOAT16: return v_load_float16(p + 32 * odd);
    default: return v_load((const float *)(const void *)p);
    }
}

/* acc[row][panel][gate] goes on with column k. What is fewer, broadcasts or weights, is kept in registers; the other
 * is read where it is used. */
V_INLINE void add_column(vec *acc, enum gru_dtype type, const gru_matrix *m, int gates, tile t, const float *const *x,
                         size_t k, int odd) {
    const unsigned char *w = panel_data(m, t.panel);
    const int n = t.panels * gates;
    vec broadcast[MAX_ROWS], weights[MAX_TILE];
    if (t.rows <= n) {
#pragma GCC unroll 8
        for (int r = 0; r < t.rows; r++) {
            broadcast[r] = v_set1(x[r][k]);
        }
#pragma GCC unroll 32
        for (int i = 0; i < n; i++) {
            weights[0] = weights_at(type, w + (size_t)(i / gates) * m->panel_nbytes, gates, i % gates, k, odd);
#pragma GCC unroll 8
            for (int r = 0; r < t.rows; r++) {
                acc[r * n + i] = v_fma(weights[0], broadcast[r], acc[r * n + i]);
            }
        }
    } else {
#pragma GCC unroll 32
        for (int i = 0; i < n; i++) {
            weights[i] = weights_at(type, w + (size_t)(i / gates) * m->panel_nbytes, gates, i % gates, k, odd);
        }
#pragma GCC unroll 8
        for (int r = 0; r < t.rows; r++) {
            broadcast[0] = v_set1(x[r][k]);
#pragma GCC unroll 32
            for (int i = 0; i < n; i++) {
                acc[r * n + i] = v_fma(weights[i], broadcast[0], acc[r * n + i]);
            }
        }
    }
}

/* Chains per output, by the number of gates: part of the specification. */
V_INLINE int chains_of(int gates) { return gates == 1 ? 4 : gates == 2 ? 2 : 1; }

/* All chains of a tile, from its starting sums on. One row runs the chains side by side, to hide latency; several rows
 * run them one after the other, which needs fewer registers and has enough chains by its rows. */
V_INLINE void float_sums(vec *sum, enum gru_dtype type, const gru_product *m, int gates, tile t) {
    const float *x[MAX_ROWS];
    const int n = t.rows * t.panels * gates, chains = chains_of(gates);
    const size_t cols = m->cols;
    vec chain[4][MAX_TILE];
#pragma GCC unroll 8
    for (int r = 0; r < t.rows; r++) {
        x[r] = m->x[t.row + (size_t)r];
    }
#pragma GCC unroll 4
    for (int c = 0; c < chains; c++) {
#pragma GCC unroll 32
        for (int i = 0; i < n; i++) {
            chain[c][i] = c == 0 ? sum[i] : v_zero();
        }
    }
    if (t.rows == 1 || chains == 1) {
        const int unrolled = type == GRU_FLOAT32 || chains > 1 ? chains : 2; /* two columns of 16 bits share a line */
        size_t k = 0;
        for (; k + (size_t)unrolled <= cols; k += (size_t)unrolled) {
#pragma GCC unroll 4
            for (int j = 0; j < unrolled; j++) {
                add_column(chain[j % chains], type, m->matrix, gates, t, x, k + (size_t)j, j % 2);
            }
        }
#pragma GCC unroll 4
        for (int j = 0; j < unrolled - 1; j++) {
            if (k + (size_t)j < cols) {
                add_column(chain[j % chains], type, m->matrix, gates, t, x, k + (size_t)j, j % 2);
            }
        }
    } else {
#pragma GCC unroll 4
        for (int c = 0; c < chains; c++) {
            for (size_t k = (size_t)c; k < cols; k += (size_t)chains) {
                add_column(chain[c], type, m->matrix, gates, t, x, k, c % 2);
            }
        }
    }
#pragma GCC unroll 32
    for (int i = 0; i < n; i++) {
        sum[i] = chains == 4   ? v_add(v_add(chain[0][i], chain[1][i]), v_add(chain[2][i], chain[3][i]))
                 : chains == 2 ? v_add(chain[0][i], chain[1][i])
                               : chain[0][i];
    }
}

/* ------------------------------------------------------------------------------------------------ sums of integers */

/* acc[row][panel][gate] goes on with columns 4 * quad to 4 * quad + 3. */
V_INLINE void add_quad(veci *acc, const gru_matrix *m, int gates, tile t, const gru_quantised *const *x, size_t quad) {
    const unsigned char *w = panel_data(m, t.panel) + (quad + 1) * (size_t)gates * 64; /* behind the scales */
    const int n = t.panels * gates;
    vecb broadcast[MAX_ROWS], weights[MAX_TILE];
    if (t.rows <= n) {
#pragma GCC unroll 8
        for (int r = 0; r < t.rows; r++) {
            broadcast[r] = vb_set4(x[r]->q + 4 * quad);
        }
#pragma GCC unroll 32
        for (int i = 0; i < n; i++) {
            weights[0] = vb_load(w + (size_t)(i / gates) * m->panel_nbytes + i % gates * 64);
#pragma GCC unroll 8
            for (int r = 0; r < t.rows; r++) {
                acc[r * n + i] = vb_dot(acc[r * n + i], weights[0], broadcast[r]);
            }
        }
    } else {
#pragma GCC unroll 32
        for (int i = 0; i < n; i++) {
            weights[i] = vb_load(w + (size_t)(i / gates) * m->panel_nbytes + i % gates * 64);
        }
#pragma GCC unroll 8
        for (int r = 0; r < t.rows; r++) {
            broadcast[0] = vb_set4(x[r]->q + 4 * quad);
#pragma GCC unroll 32
            for (int i = 0; i < n; i++) {
                acc[r * n + i] = vb_dot(acc[r * n + i], weights[i], broadcast[0]);
            }
        }
    }
}

/* Exact sums in int32, then two roundings to float32. Their order is free, so a tile with few sums has two of each. */
V_INLINE void int8_sums(vec *sum, const gru_product *m, int gates, tile t) {
    const gru_quantised *x[MAX_ROWS];
    const int n = t.rows * t.panels * gates, twice = n <= 4;
    const size_t quads = (m->cols + 3) / 4, stride = gru_quantised_nbytes(m->cols);
    veci acc[2][MAX_TILE];
#pragma GCC unroll 8
    for (int r = 0; r < t.rows; r++) {
        x[r] = (const gru_quantised *)(const void *)(m->quantised + (t.row + (size_t)r) * stride);
        const veci start = vi_set1(VB_DOT_START((int32_t)x[r]->total));
#pragma GCC unroll 32
        for (int i = 0; i < t.panels * gates; i++) {
            acc[0][r * t.panels * gates + i] = start;
            acc[1][r * t.panels * gates + i] = vi_set1(0);
        }
    }
    size_t quad = 0;
    if (twice) {
        for (; quad + 2 <= quads; quad += 2) {
            add_quad(acc[0], m->matrix, gates, t, x, quad);
            add_quad(acc[1], m->matrix, gates, t, x, quad + 1);
        }
    }
    for (; quad < quads; quad++) {
        add_quad(acc[0], m->matrix, gates, t, x, quad);
    }
#pragma GCC unroll 8
    for (int r = 0; r < t.rows; r++) {
        const vec step = v_set1(x[r]->step);
#pragma GCC unroll 32
        for (int i = 0; i < t.panels * gates; i++) {
            const int at = r * t.panels * gates + i;
            const unsigned char *scales = panel_data(m->matrix, t.panel + (size_t)(i / gates)) + i % gates * 64;
            const vec scale = v_mul(v_load((const float *)(const void *)scales), step);
            const veci total = twice ? vi_add(acc[0][at], acc[1][at]) : acc[0][at];
            sum[at] = v_fma(vi_to_float(total), scale, sum[at]);
        }
    }
}

V_INLINE void tile_sums(vec *sum, enum gru_dtype type, const gru_product *m, int gates, tile t) {
#pragma GCC unroll 8
    for (int r = 0; r < t.rows; r++) {
        const float *start = m->start[t.row + (size_t)r] + t.panel * (size_t)gates * GRU_LANES;
#pragma GCC unroll 32
        for (int i = 0; i < t.panels * gates; i++) {
            sum[r * t.panels * gates + i] = v_load(start + (size_t)i * GRU_LANES);
        }
    }
    if (m->cols == 0) { /* finished sums, the additions of empty chains included */
        return;
    }
    if (type == GRU_INT8) {
        int8_sums(sum, m, gates, t);
    } else {
        float_sums(sum, type, m, gates, t);
    }
}

/* ------------------------------------------------------------------------------------------------ tiles */

/* BODY(tile) with constants in it for rows [row, row + R) and all panels [p0, p1), P at a time. */
#define TILES(R, P, BODY)                                                                                              \
    do {                                                                                                               \
        size_t panel = p0;                                                                                             \
        for (; panel + (P) <= p1; panel += (P)) {                                                                      \
            BODY(((tile){panel, row, P, R}));                                                                          \
        }                                                                                                              \
        for (; (P) > 2 && panel + 2 <= p1; panel += 2) {                                                               \
            BODY(((tile){panel, row, 2, R}));                                                                          \
        }                                                                                                              \
        for (; panel < p1; panel++) {                                                                                  \
            BODY(((tile){panel, row, 1, R}));                                                                          \
        }                                                                                                              \
    } while (0)

/* All rows [0, n): as many full tiles as there are, panel by panel, so that the weights of a panel come from the far
 * cache once for all rows; then what is left. */
#define FOR_TILES(ROWS, TILES_LEFT, BODY)                                                                              \
    do {                                                                                                               \
        const size_t full = n / (ROWS) * (ROWS), rows_left = n - full;                                                 \
        size_t row = full;                                                                                             \
        TILES_LEFT(TILES, BODY);                                                                                       \
        for (size_t panel = p0; full && panel < p1; panel++) {                                                         \
            for (row = 0; row < full; row += (ROWS)) {                                                                 \
                BODY(((tile){panel, row, 1, ROWS}));                                                                   \
            }                                                                                                          \
        }                                                                                                              \
    } while (0)

/* Lanes of the panel that exist. */
V_INLINE int lanes_of(size_t rows, size_t panel) {
    size_t left = rows - panel * GRU_LANES;
    return left < GRU_LANES ? (int)left : GRU_LANES;
}

V_INLINE vec load_lanes(const float *p, int lanes) { return lanes == GRU_LANES ? v_load(p) : v_load_n(p, lanes); }

V_INLINE void store_lanes(float *p, vec a, int lanes) {
    if (lanes == GRU_LANES) {
        v_store(p, a);
    } else {
        v_store_n(p, a, lanes);
    }
}

/* ------------------------------------------------------------------------------------------------ kernels */

V_INLINE void sums_tile(enum gru_dtype type, const gru_product *m, int gates, float *const *out, tile t) {
    vec sum[MAX_TILE];
    const int n = t.panels * gates;
    tile_sums(sum, type, m, gates, t);
    for (int r = 0; r < t.rows; r++) {
        for (int i = 0; i < n; i++) {
            v_store(out[t.row + (size_t)r] + (t.panel * (size_t)gates + (size_t)i) * GRU_LANES, sum[r * n + i]);
        }
    }
}

V_INLINE void sums_of(enum gru_dtype type, const gru_product *m, size_t n, float *const *out, size_t p0, size_t p1) {
#define SUMS_1(T) sums_tile(type, m, 1, out, T)
#define SUMS_2(T) sums_tile(type, m, 2, out, T)
#define SUMS_3(T) sums_tile(type, m, 3, out, T)
    switch (m->matrix->gates) {
    case 1: FOR_TILES(DENSE_ROWS, DENSE_TILES, SUMS_1); break;
    case 2: FOR_TILES(GRU_ROWS, GRU_TILES, SUMS_2); break;
    default: FOR_TILES(GRU_ROWS, GRU_TILES, SUMS_3); break;
    }
}

V_INLINE void dense_tile(enum gru_dtype type, const gru_product *m, gru_act act, float *const *out, tile t) {
    vec sum[MAX_TILE];
    tile_sums(sum, type, m, 1, t);
    for (int r = 0; r < t.rows; r++) {
        for (int p = 0; p < t.panels; p++) {
            size_t at = (t.panel + (size_t)p) * GRU_LANES;
            vec y = activate(act.code, act.alpha, act.beta, sum[r * t.panels + p]);
            store_lanes(out[t.row + (size_t)r] + at, y, lanes_of(m->matrix->rows, t.panel + (size_t)p));
        }
    }
}

V_INLINE void dense_of(enum gru_dtype type, const gru_product *m, gru_act act, size_t n, float *const *out, size_t p0,
                       size_t p1) {
#define DENSE(T) dense_tile(type, m, act, out, T)
    FOR_TILES(DENSE_ROWS, DENSE_TILES, DENSE);
}

V_INLINE vec blend(vec z, vec h, vec n) { return v_fma(z, v_sub(h, n), n); }

V_INLINE void fused_tile(enum gru_dtype type, const gru_product *mx, const gru_product *mh, const float *const *h,
                         float *const *out, tile t) {
    vec sx[MAX_TILE], sh[MAX_TILE];
    tile_sums(sx, type, mx, 3, t);
    tile_sums(sh, type, mh, 3, t);
    vec reset[MAX_TILE], keep[MAX_TILE];
    for (int i = 0; i < t.rows * t.panels; i++) { /* all gates first: none waits for another */
        reset[i] = act_sigmoid(v_add(sx[3 * i], sh[3 * i]));
        keep[i] = act_sigmoid(v_add(sx[3 * i + 1], sh[3 * i + 1]));
    }
    for (int i = 0; i < t.rows * t.panels; i++) {
        const size_t r = t.row + (size_t)(i / t.panels), p = t.panel + (size_t)(i % t.panels);
        const int lanes = lanes_of(mh->matrix->rows, p);
        vec candidate = act_tanh(v_fma(reset[i], sh[3 * i + 2], sx[3 * i + 2]));
        vec old = load_lanes(h[r] + p * GRU_LANES, lanes);
        store_lanes(out[r] + p * GRU_LANES, blend(keep[i], old, candidate), lanes);
    }
}

V_INLINE void fused_of(enum gru_dtype type, const gru_product *mx, const gru_product *mh, size_t n,
                       const float *const *h, float *const *out, size_t p0, size_t p1) {
#define FUSED(T) fused_tile(type, mx, mh, h, out, T)
    FOR_TILES(GRU_ROWS, GRU_TILES, FUSED);
}

/* TABLE for weights of a type. */
#define PRODUCTS(NAME, TYPE, TABLE)                                                                                    \
    static void sums_##NAME(const gru_product *m, size_t n, float *const *out, size_t p0, size_t p1) {                 \
        sums_of(TYPE, m, n, out, p0, p1);                                                                              \
    }                                                                                                                  \
    static void dense_##NAME(const gru_product *m, gru_act act, size_t n, float *const *out, size_t p0, size_t p1) {   \
        dense_of(TYPE, m, act, n, out, p0, p1);                                                                        \
    }                                                                                                                  \
    static void fused_##NAME(const gru_product *mx, const gru_product *mh, size_t n, const float *const *h,            \
                             float *const *out, size_t p0, size_t p1) {                                                \
        fused_of(TYPE, mx, mh, n, h, out, p0, p1);                                                                     \
    }                                                                                                                  \
    const gru_products TABLE = {sums_##NAME, dense_##NAME, fused_##NAME}
