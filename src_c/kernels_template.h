/* SPDX-License-Identifier: Apache-2.0 */
/* All kernels over the vector primitives of one instruction set, and their tables: the products with every type of
 * weights, and, once and here, what works on vectors and finished sums. Included by kernels_NAME.c after vec_NAME.h;
 * everything is static but the tables.
 *
 * The including file defines what kernels_products.h wants, and
 *   KERNELS       what the names of the tables end in
 *   USABLE        the function that says whether the machine can run them */
#include "kernels_products.h"

#define NAMED__(table, isa) table##isa
#define NAMED_(table, isa) NAMED__(table, isa)
#define NAMED(table) NAMED_(table, KERNELS)

PRODUCTS(float32, GRU_FLOAT32, NAMED(gru_float32_));
PRODUCTS(bfloat16, GRU_BFLOAT16, NAMED(gru_bfloat16_));
PRODUCTS(float16, GRU_FLOAT16, NAMED(gru_float16_));
PRODUCTS(int8, GRU_INT8, NAMED(gru_int8_));

/* ------------------------------------------------------------------------------------------------ GRU */

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

static void add(const float *a, const float *b, int broadcast, float *out, size_t width) {
    const vec all = v_set1(*b);
    FOR_VECTORS(v_add(AT(a), broadcast ? all : AT(b)));
}

static void multiply(const float *a, const float *b, int broadcast, float *out, size_t width) {
    const vec all = v_set1(*b);
    FOR_VECTORS(v_mul(AT(a), broadcast ? all : AT(b)));
}

/* The larger one, b if they are equal; a NaN stays. */
V_INLINE vec larger(vec a, vec b) { return v_select(v_isnan(a), a, v_max(a, b)); }

static void maximum(const float *a, const float *b, int broadcast, float *out, size_t width) {
    const vec all = v_set1(*b);
    FOR_VECTORS(larger(AT(a), broadcast ? all : AT(b)));
}

static void blend_vectors(const float *z, const float *a, const float *b, float *out, size_t width) {
    FOR_VECTORS(blend(AT(z), AT(a), AT(b)));
}

static void divide(float *out, float by, size_t width) { FOR_VECTORS(v_div(AT(out), v_set1(by))); }

static void accumulate(float w, const float *a, float *out, size_t width) {
    FOR_VECTORS(v_fma(v_set1(w), AT(a), AT(out)));
}

static void affine(const float *a, const float *scale, const float *shift, float *out, size_t width) {
    FOR_VECTORS(v_fma(AT(a), AT(scale), AT(shift)));
}

/* One scale for the vector, its largest magnitude to 127 (docs/NUMERICS.md). */
static void quantise(const float *x, size_t width, gru_quantised *out) {
    vec most = v_set1(0x1p-100f), total = v_zero();
    for (size_t i = 0; i < width; i += GRU_LANES) {
        const vec a = v_abs(load_lanes(x + i, lanes_of(width, i / GRU_LANES)));
        most = larger(most, a);
    }
    const float m = v_max16(most);
    if (!(m < __builtin_inff())) { /* or what no number comes out of would become one */
        *out = (gru_quantised){.step = __builtin_nanf("")};
        memset(out->q, 0, gru_quantised_nbytes(width) - sizeof *out);
        return;
    }
    const vec inverse = v_set1(127 / m), magic = v_set1(ACT_MAGIC);
    for (size_t i = 0; i < width; i += GRU_LANES) {
        const vec t = v_fma(load_lanes(x + i, lanes_of(width, i / GRU_LANES)), inverse, magic);
        total = v_add(total, v_sub(t, magic));
        v_store_low_bytes(out->q + i, v_bits(t));
    }
    out->step = m / 127;
    out->total = v_sum16(total);
}

/* Sum of a vector, 16 interleaved partial sums, then v_sum16's tree; or of the squares of its distances from `mean`. */
static float total_of(const float *a, size_t width) {
    vec total = v_zero();
    for (size_t i = 0; i < width; i += GRU_LANES) {
        total = v_add(total, load_lanes(a + i, lanes_of(width, i / GRU_LANES)));
    }
    return v_sum16(total);
}

static float squares_of(const float *a, float mean, size_t width) {
    vec total = v_zero();
    for (size_t i = 0; i < width; i += GRU_LANES) {
        const int lanes = lanes_of(width, i / GRU_LANES);
        vec d = v_sub(AT(a), v_set1(mean));
        if (lanes < GRU_LANES) { /* lanes that do not exist count as zero */
            float tail[GRU_LANES] = {0};
            v_store_n(tail, d, lanes);
            d = v_load(tail);
        }
        total = v_fma(d, d, total);
    }
    return v_sum16(total);
}

static void norm(const gru_node *node, const float *a, float *out) {
    const size_t width = node->width / node->parts;
    const float *scale = node->scale, *shift = node->shift;
    for (size_t part = 0; part < node->parts; part++) {
        const float mean = node->rms ? 0 : total_of(a, width) / (float)width;
        const vec m = v_set1(mean), variance = v_set1(squares_of(a, mean, width) / (float)width + node->epsilon);
        const vec s = v_div(v_set1(1.0f), v_sqrt(variance));
        FOR_VECTORS(v_fma(v_mul(v_sub(AT(a), m), s), AT(scale), AT(shift)));
        a += width;
        out += width;
        scale += width;
        shift += width;
    }
}

static float score(const float *query, const float *key, const float *v, float factor, size_t width) {
    vec total = v_zero();
    for (size_t i = 0; i < width; i += GRU_LANES) {
        const int lanes = lanes_of(width, i / GRU_LANES);
        total = v ? v_fma(AT(v), act_tanh(v_add(AT(query), AT(key))), total) : v_fma(AT(query), AT(key), total);
    }
    return v ? v_sum16(total) : factor * v_sum16(total);
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
        most = larger(most, x);
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

const gru_vectors NAMED(gru_vectors_) = {
    .gru_cell = gru_cell,
    .gru_before_gates = gru_before_gates,
    .gru_before_blend = gru_before_blend,
    .quantise = quantise,
    .activation = activation,
    .add = add,
    .multiply = multiply,
    .maximum = maximum,
    .affine = affine,
    .blend = blend_vectors,
    .norm = norm,
    .score = score,
    .divide = divide,
    .accumulate = accumulate,
};

const gru_kernels NAMED(gru_kernels_) = {
    .name = V_NAME,
    .usable = USABLE,
    .products = {&NAMED(gru_float32_), &NAMED(gru_bfloat16_), &NAMED(gru_float16_), &NAMED(gru_int8_)},
    .vectors = &NAMED(gru_vectors_),
};
