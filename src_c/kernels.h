/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels that every instruction set provides. run.c calls nothing else that computes.
 *
 * A kernel works on `n` rows at once, one pointer per row, because rows stand wherever the caller's streams are. Rows
 * never influence each other's bits. Kernels over a matrix work on its panels [p0, p1), so that threads can share one
 * product. */
#ifndef GRU_KERNELS_H
#define GRU_KERNELS_H

#include "model.h"

/* A starting row of sums and the vector whose products are added to it, for each of n rows. */
typedef struct gru_product {
    const gru_matrix *matrix;
    size_t cols;                    /* matrix->cols, or 0: the sums are finished already and x is not read */
    const float *const *start;      /* [n] rows of sums */
    const float *const *x;          /* [n]; not read if the weights are int8, but */
    const unsigned char *quantised; /* n gru_quantised, each gru_quantised_nbytes(cols) behind the one before */
} gru_product;

/* Products with weights of one type. */
typedef struct gru_products {
    /* out[r] = sums, [panels][gates][16] */
    void (*sums)(const gru_product *m, size_t n, float *const *out, size_t p0, size_t p1);

    /* out[r][0 .. rows) = act(sums), one gate, elementwise act */
    void (*dense)(const gru_product *m, gru_act act, size_t n, float *const *out, size_t p0, size_t p1);

    /* One step of the mainstream cell (reset after, sigmoid, tanh): out[r] = h'. Both matrices have this type. */
    void (*gru_fused)(const gru_product *mx, const gru_product *mh, size_t n, const float *const *h, float *const *out,
                      size_t p0, size_t p1);
} gru_products;

/* What works on vectors and finished sums. */
typedef struct gru_vectors {
    /* The pointwise part of a step from finished sums, for reset after, all and none: out[r] = h'. */
    void (*gru_cell)(const gru_node *node, size_t n, const float *const *sx, const float *const *sh,
                     const float *const *h, float *const *out, size_t p0, size_t p1);

    /* Reset before: first z and r*h from the gates' sums, then h' from the candidate's recurrent sum. */
    void (*gru_before_gates)(const gru_node *node, size_t n, const float *const *sx, const float *const *sh,
                             const float *const *h, float *const *z, float *const *rh, size_t p0, size_t p1);
    void (*gru_before_blend)(const gru_node *node, size_t n, const float *const *sx, const float *const *sn,
                             const float *const *z, const float *const *h, float *const *out, size_t p0, size_t p1);

    /* x rounded to int8, gru_quantised_nbytes(width) bytes. */
    void (*quantise)(const float *x, size_t width, gru_quantised *out);

    /* Vectors of `width` floats. out may be an input. b may be one float for all, if `broadcast`. */
    void (*activation)(gru_act act, const float *a, float *out, size_t width);
    void (*add)(const float *a, const float *b, int broadcast, float *out, size_t width);
    void (*multiply)(const float *a, const float *b, int broadcast, float *out, size_t width);
    void (*maximum)(const float *a, const float *b, int broadcast, float *out, size_t width); /* NaN if one is NaN */
    void (*affine)(const float *a, const float *scale, const float *shift, float *out, size_t width);
    void (*blend)(const float *z, const float *a, const float *b, float *out, size_t width); /* z a + (1 - z) b */
    void (*norm)(const gru_node *node, const float *a, float *out);

    /* How well a key fits a query: factor times their dot product or, with v, the sum of v tanh(query + key). */
    float (*score)(const float *query, const float *key, const float *v, float factor, size_t width);

    /* Over the steps of a sequence. */
    void (*divide)(float *out, float by, size_t width);                    /* out /= by */
    void (*accumulate)(float w, const float *a, float *out, size_t width); /* out += w a */
} gru_vectors;

typedef struct gru_kernels {
    const char *name;
    int (*usable)(void);
    const gru_products *products[GRU_DTYPES];
    const gru_vectors *vectors;
} gru_kernels;

/* The tables of an instruction set; another that differs in a few kernels takes the rest from it. */
#define GRU_DECLARE_KERNELS(isa)                                                                                       \
    extern const gru_kernels gru_kernels_##isa;                                                                        \
    extern const gru_vectors gru_vectors_##isa;                                                                        \
    extern const gru_products gru_float32_##isa, gru_bfloat16_##isa, gru_float16_##isa, gru_int8_##isa
GRU_DECLARE_KERNELS(generic);
#if defined(__x86_64__) && defined(__GNUC__)
#define GRU_BUILD_X86 1
GRU_DECLARE_KERNELS(avx2);
GRU_DECLARE_KERNELS(avx512);
GRU_DECLARE_KERNELS(avx512_vnni);
#endif
#if defined(__aarch64__) && defined(__GNUC__)
#define GRU_BUILD_NEON 1
GRU_DECLARE_KERNELS(neon);
#if defined(__linux__)
#define GRU_BUILD_NEON_DOT 1 /* the kernel says whether the machine has it */
GRU_DECLARE_KERNELS(neon_dot);
#endif
#endif

/* The kernels in use; NULL if GRU_ENGINE_ISA names none that is usable. In dispatch.c. */
const gru_kernels *gru_kernels_used(void);

#endif
