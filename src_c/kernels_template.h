/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels, once, over the vector primitives of one instruction set. Included by kernels_NAME.c after vec_NAME.h;
 * everything is static but the table at the end.
 *
 * The including file defines
 *   KERNELS       the name of the table
 *   USABLE        the function that says whether the machine can run it
 *   GRU_TILES     the shapes of tiles for matrices of two or three gates: GRU_TILES(TILES, BODY) is a switch over
 *   `rows_left` with a case
 *                 TILES(rows, panels, BODY) for each number of rows
 *   GRU_ROWS      the most rows of such a tile
 *   DENSE_TILES, DENSE_ROWS   likewise for matrices of one gate
 *
 * A *tile* is a few rows times a few panels: enough independent chains of fused multiply-adds to hide their latency,
 * few enough to stay in registers. Whatever the tile, each output is computed by the chain that docs/NUMERICS.md
 * prescribes. */
#include "activations.h"
#include "kernels.h"

#define MAX_TILE 32 /* vectors that a tile keeps: rows * panels * gates */

/* ------------------------------------------------------------------------------------------------ sums */

/* acc[row][panel][gate] goes on with the columns first, first + stride, ... of `m`; rows, panels and gates are
 * constants when inlined. What is fewer, broadcasts or weights, is kept in registers; the other is read where it is
 * used. */
V_INLINE void accumulate(vec *acc, const gru_matrix *m, int gates, size_t panel, int panels, const float *const *x,
                         int rows, size_t first, size_t cols, size_t stride) {
    const size_t panel_floats = m->cols * (size_t)gates * GRU_LANES;
    const float *w = m->data + panel * panel_floats;
    for (size_t k = first; k < cols; k += stride) {
        const float *wk = w + k * (size_t)gates * GRU_LANES;
        vec broadcast[8], weights[MAX_TILE];
        if (rows <= panels * gates) {
#pragma GCC unroll 8
            for (int r = 0; r < rows; r++) {
                broadcast[r] = v_set1(x[r][k]);
            }
#pragma GCC unroll 32
            for (int i = 0; i < panels * gates; i++) {
                weights[0] = v_load(wk + (size_t)(i / gates) * panel_floats + i % gates * GRU_LANES);
#pragma GCC unroll 8
                for (int r = 0; r < rows; r++) {
                    acc[r * panels * gates + i] = v_fma(weights[0], broadcast[r], acc[r * panels * gates + i]);
                }
            }
        } else {
#pragma GCC unroll 32
            for (int i = 0; i < panels * gates; i++) {
                weights[i] = v_load(wk + (size_t)(i / gates) * panel_floats + i % gates * GRU_LANES);
            }
#pragma GCC unroll 8
            for (int r = 0; r < rows; r++) {
                broadcast[0] = v_set1(x[r][k]);
#pragma GCC unroll 32
                for (int i = 0; i < panels * gates; i++) {
                    acc[r * panels * gates + i] = v_fma(weights[i], broadcast[0], acc[r * panels * gates + i]);
                }
            }
        }
    }
}

/* Chains per output, by the number of gates: part of the specification. */
V_INLINE int chains_of(int gates) { return gates == 1 ? 4 : gates == 2 ? 2 : 1; }

/* All chains of a tile. One row runs the chains side by side, to hide latency; several rows run them one after the
 * other, which needs fewer registers and has enough chains by its rows. */
V_INLINE void tile_sums(vec *sum, const gru_product *m, int gates, size_t panel, int panels, size_t row, int rows) {
    const float *x[8];
    const int n = rows * panels * gates, chains = chains_of(gates);
    vec chain[4][MAX_TILE];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
        x[r] = m->cols ? m->x[row + (size_t)r] : NULL;
        const float *start = m->start[row + (size_t)r] + panel * (size_t)gates * GRU_LANES;
#pragma GCC unroll 32
        for (int i = 0; i < panels * gates; i++) {
            chain[0][r * panels * gates + i] = v_load(start + (size_t)i * GRU_LANES);
        }
    }
    if (m->cols == 0) { /* finished sums, the additions of empty chains included */
#pragma GCC unroll 32
        for (int i = 0; i < n; i++) {
            sum[i] = chain[0][i];
        }
        return;
    }
#pragma GCC unroll 4
    for (int c = 1; c < chains; c++) {
#pragma GCC unroll 32
        for (int i = 0; i < n; i++) {
            chain[c][i] = v_zero();
        }
    }
    if (rows == 1 && chains > 1) {
        size_t k = 0;
        for (; k + (size_t)chains <= m->cols; k += (size_t)chains) {
#pragma GCC unroll 4
            for (int c = 0; c < chains; c++) {
                accumulate(chain[c], m->matrix, gates, panel, panels, x, 1, k + (size_t)c, k + (size_t)c + 1, 1);
            }
        }
#pragma GCC unroll 4
        for (int c = 0; c < chains; c++) {
            if (k + (size_t)c < m->cols) {
                accumulate(chain[c], m->matrix, gates, panel, panels, x, 1, k + (size_t)c, k + (size_t)c + 1, 1);
            }
        }
    } else {
#pragma GCC unroll 4
        for (int c = 0; c < chains; c++) {
            accumulate(chain[c], m->matrix, gates, panel, panels, x, rows, (size_t)c, m->cols, (size_t)chains);
        }
    }
#pragma GCC unroll 32
    for (int i = 0; i < n; i++) {
        sum[i] = chains == 4   ? v_add(v_add(chain[0][i], chain[1][i]), v_add(chain[2][i], chain[3][i]))
                 : chains == 2 ? v_add(chain[0][i], chain[1][i])
                               : chain[0][i];
    }
}

/* BODY(rows, panels) with constants for rows [row, row + R) and all panels [p0, p1), P at a time. */
#define TILES(R, P, BODY)                                                                                              \
    do {                                                                                                               \
        size_t panel = p0;                                                                                             \
        for (; panel + (P) <= p1; panel += (P)) {                                                                      \
            BODY(R, P);                                                                                                \
        }                                                                                                              \
        for (; (P) > 2 && panel + 2 <= p1; panel += 2) {                                                               \
            BODY(R, 2);                                                                                                \
        }                                                                                                              \
        for (; panel < p1; panel++) {                                                                                  \
            BODY(R, 1);                                                                                                \
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
                BODY(ROWS, 1);                                                                                         \
            }                                                                                                          \
        }                                                                                                              \
    } while (0)

V_INLINE void sums_tile(const gru_product *m, int gates, float *const *out, size_t panel, int panels, size_t row,
                        int rows) {
    vec sum[MAX_TILE];
    tile_sums(sum, m, gates, panel, panels, row, rows);
    for (int r = 0; r < rows; r++) {
        for (int i = 0; i < panels * gates; i++) {
            v_store(out[row + (size_t)r] + (panel * (size_t)gates + (size_t)i) * GRU_LANES,
                    sum[r * panels * gates + i]);
        }
    }
}

static void sums(const gru_product *m, size_t n, float *const *out, size_t p0, size_t p1) {
#define SUMS_1(R, P) sums_tile(m, 1, out, panel, P, row, R)
#define SUMS_2(R, P) sums_tile(m, 2, out, panel, P, row, R)
#define SUMS_3(R, P) sums_tile(m, 3, out, panel, P, row, R)
    switch (m->matrix->gates) {
    case 1: FOR_TILES(DENSE_ROWS, DENSE_TILES, SUMS_1); break;
    case 2: FOR_TILES(GRU_ROWS, GRU_TILES, SUMS_2); break;
    default: FOR_TILES(GRU_ROWS, GRU_TILES, SUMS_3); break;
    }
}

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

V_INLINE void dense_tile(const gru_product *m, gru_act act, float *const *out, size_t panel, int panels, size_t row,
                         int rows) {
    vec sum[MAX_TILE];
    tile_sums(sum, m, 1, panel, panels, row, rows);
    for (int r = 0; r < rows; r++) {
        for (int p = 0; p < panels; p++) {
            size_t at = (panel + (size_t)p) * GRU_LANES;
            vec y = activate(act.code, act.alpha, act.beta, sum[r * panels + p]);
            store_lanes(out[row + (size_t)r] + at, y, lanes_of(m->matrix->rows, panel + (size_t)p));
        }
    }
}

static void dense(const gru_product *m, gru_act act, size_t n, float *const *out, size_t p0, size_t p1) {
#define DENSE(R, P) dense_tile(m, act, out, panel, P, row, R)
    FOR_TILES(DENSE_ROWS, DENSE_TILES, DENSE);
}

/* ------------------------------------------------------------------------------------------------ GRU */

V_INLINE vec blend(vec z, vec h, vec n) { return v_fma(z, v_sub(h, n), n); }

V_INLINE void fused_tile(const gru_product *mx, const gru_product *mh, const float *const *h, float *const *out,
                         size_t panel, int panels, size_t row, int rows) {
    vec sx[MAX_TILE], sh[MAX_TILE];
    tile_sums(sx, mx, 3, panel, panels, row, rows);
    tile_sums(sh, mh, 3, panel, panels, row, rows);
    for (int i = 0; i < rows * panels; i++) {
        const size_t r = row + (size_t)(i / panels), p = panel + (size_t)(i % panels);
        const int lanes = lanes_of(mh->matrix->rows, p);
        const vec *x3 = sx + 3 * i, *h3 = sh + 3 * i;
        vec reset = act_sigmoid(v_add(x3[0], h3[0]));
        vec keep = act_sigmoid(v_add(x3[1], h3[1]));
        vec candidate = act_tanh(v_fma(reset, h3[2], x3[2]));
        vec old = load_lanes(h[r] + p * GRU_LANES, lanes);
        store_lanes(out[r] + p * GRU_LANES, blend(keep, old, candidate), lanes);
    }
}

static void gru_fused(const gru_product *mx, const gru_product *mh, size_t n, const float *const *h, float *const *out,
                      size_t p0, size_t p1) {
#define FUSED(R, P) fused_tile(mx, mh, h, out, panel, P, row, R)
    FOR_TILES(GRU_ROWS, GRU_TILES, FUSED);
}

V_INLINE vec limited(float clip, vec a) { return clip > 0 ? v_min(v_set1(clip), v_max(v_set1(-clip), a)) : a; }

V_INLINE vec gate(const gru_node *node, vec a) {
    return activate(node->gate_act.code, node->gate_act.alpha, node->gate_act.beta, limited(node->clip, a));
}

V_INLINE vec candidate(const gru_node *node, vec a) {
    return activate(node->act.code, node->act.alpha, node->act.beta, limited(node->clip, a));
}

static void gru_cell(const gru_node *node, size_t n, const float *const *sx, const float *const *sh,
                     const float *const *h, float *const *out, size_t p0, size_t p1) {
    const size_t gates = node->u.gates;
    for (size_t r = 0; r < n; r++) {
        for (size_t p = p0; p < p1; p++) {
            const float *x = sx[r] + p * gates * GRU_LANES, *s = sh[r] + p * gates * GRU_LANES;
            const int lanes = lanes_of(node->width, p);
            const vec x0 = v_load(x), x1 = v_load(x + 16), s0 = v_load(s), s1 = v_load(s + 16);
            vec keep, cand;
            if (node->reset == GRU_RESET_NONE) {
                keep = gate(node, v_add(x0, s0));
                cand = v_add(x1, s1);
            } else {
                const vec x2 = v_load(x + 32), s2 = v_load(s + 32);
                vec reset = gate(node, v_add(x0, s0));
                keep = gate(node, v_add(x1, s1));
                cand = node->reset == GRU_RESET_AFTER ? v_fma(reset, s2, x2) : v_mul(reset, v_add(x2, s2));
            }
            vec old = load_lanes(h[r] + p * GRU_LANES, lanes);
            store_lanes(out[r] + p * GRU_LANES, blend(keep, old, candidate(node, cand)), lanes);
        }
    }
}

static void gru_before_gates(const gru_node *node, size_t n, const float *const *sx, const float *const *sh,
                             const float *const *h, float *const *z, float *const *rh, size_t p0, size_t p1) {
    for (size_t r = 0; r < n; r++) {
        for (size_t p = p0; p < p1; p++) {
            const float *x = sx[r] + p * 3 * GRU_LANES, *s = sh[r] + p * 2 * GRU_LANES;
            vec reset = gate(node, v_add(v_load(x), v_load(s)));
            vec keep = gate(node, v_add(v_load(x + 16), v_load(s + 16)));
            v_store(z[r] + p * GRU_LANES, keep);
            v_store(rh[r] + p * GRU_LANES, v_mul(reset, load_lanes(h[r] + p * GRU_LANES, lanes_of(node->width, p))));
        }
    }
}

static void gru_before_blend(const gru_node *node, size_t n, const float *const *sx, const float *const *sn,
                             const float *const *z, const float *const *h, float *const *out, size_t p0, size_t p1) {
    for (size_t r = 0; r < n; r++) {
        for (size_t p = p0; p < p1; p++) {
            const int lanes = lanes_of(node->width, p);
            vec cand = candidate(node, v_add(v_load(sx[r] + (p * 3 + 2) * GRU_LANES), v_load(sn[r] + p * GRU_LANES)));
            vec old = load_lanes(h[r] + p * GRU_LANES, lanes);
            store_lanes(out[r] + p * GRU_LANES, blend(v_load(z[r] + p * GRU_LANES), old, cand), lanes);
        }
    }
}

/* ------------------------------------------------------------------------------------------------ vectors */

#define FOR_VECTORS(EXPRESSION)                                                                                        \
    do {                                                                                                               \
        for (size_t i = 0; i < width; i += GRU_LANES) {                                                                \
            const int lanes = lanes_of(width, i / GRU_LANES);                                                          \
            store_lanes(out + i, EXPRESSION, lanes);                                                                   \
        }                                                                                                              \
    } while (0)
#define AT(a) load_lanes((a) + i, lanes)

static void add(const float *a, const float *b, float *out, size_t width) { FOR_VECTORS(v_add(AT(a), AT(b))); }

static void multiply(const float *a, const float *b, float *out, size_t width) { FOR_VECTORS(v_mul(AT(a), AT(b))); }

static void affine(const float *a, const float *scale, const float *shift, float *out, size_t width) {
    FOR_VECTORS(v_fma(AT(a), AT(scale), AT(shift)));
}

/* Largest of a vector, NaN if there is one. */
static float largest(const float *a, size_t width) {
    vec most = v_set1(-__builtin_inff());
    for (size_t i = 0; i < width; i += GRU_LANES) {
        vec x = load_lanes(a + i, lanes_of(width, i / GRU_LANES));
        if (width - i < GRU_LANES) { /* lanes that do not exist read as zero; let them repeat the first */
            float tail[GRU_LANES];
            v_store(tail, x);
            for (size_t j = width - i; j < GRU_LANES; j++) {
                tail[j] = tail[0];
            }
            x = v_load(tail);
        }
        most = v_select(v_isnan(most), most, v_max(most, x));
    }
    return v_max16(most);
}

/* out = exp(a - largest); returns the sum: 16 interleaved partial sums, then v_sum16's tree. */
static float exponentials(const float *a, float most, float *out, size_t width) {
    vec total = v_zero();
    for (size_t i = 0; i < width; i += GRU_LANES) {
        const int lanes = lanes_of(width, i / GRU_LANES);
        vec e = v_exp(v_sub(AT(a), v_set1(most)));
        if (out) {
            store_lanes(out + i, e, lanes);
        }
        if (lanes < GRU_LANES) { /* lanes that do not exist count as zero */
            float tail[GRU_LANES] = {0};
            v_store_n(tail, e, lanes);
            e = v_load(tail);
        }
        total = v_add(total, e);
    }
    return v_sum16(total);
}

static void softmax(const float *a, float *out, size_t width) {
    const vec total = v_set1(exponentials(a, largest(a, width), out, width));
    FOR_VECTORS(v_div(AT(out), total));
}

static void log_softmax(const float *a, float *out, size_t width) {
    const float most = largest(a, width);
    const vec m = v_set1(most), log_total = v_log(v_set1(exponentials(a, most, NULL, width)));
    FOR_VECTORS(v_sub(v_sub(AT(a), m), log_total));
}

static void activation(gru_act act, const float *a, float *out, size_t width) {
    switch (act.code) {
    case GRU_ACT_SOFTMAX: softmax(a, out, width); break;
    case GRU_ACT_LOG_SOFTMAX: log_softmax(a, out, width); break;
    default: FOR_VECTORS(activate(act.code, act.alpha, act.beta, AT(a))); break;
    }
}

const gru_kernels KERNELS = {
    .name = V_NAME,
    .usable = USABLE,
    .sums = sums,
    .dense = dense,
    .gru_fused = gru_fused,
    .gru_cell = gru_cell,
    .gru_before_gates = gru_before_gates,
    .gru_before_blend = gru_before_blend,
    .activation = activation,
    .add = add,
    .multiply = multiply,
    .affine = affine,
};
