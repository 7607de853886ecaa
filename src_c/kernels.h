/* SPDX-License-Identifier: Apache-2.0 */
/* The table of kernels that every instruction set provides. run.c calls nothing else that computes.
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
    size_t cols;               /* matrix->cols, or 0: the sums are finished already and x is not read */
    const float *const *start; /* [n] rows of sums */
    const float *const *x;     /* [n] */
} gru_product;

typedef struct gru_kernels {
    const char *name;
    int (*usable)(void);

    /* out[r] = sums, [panels][gates][16] */
    void (*sums)(const gru_product *m, size_t n, float *const *out, size_t p0, size_t p1);

    /* out[r][0 .. rows) = act(sums), one gate, elementwise act */
    void (*dense)(const gru_product *m, gru_act act, size_t n, float *const *out, size_t p0, size_t p1);

    /* One step of the mainstream cell (reset after, sigmoid, tanh): out[r] = h'. */
    void (*gru_fused)(const gru_product *mx, const gru_product *mh, size_t n, const float *const *h, float *const *out,
                      size_t p0, size_t p1);

    /* The pointwise part of a step from finished sums, for reset after, all and none: out[r] = h'. */
    void (*gru_cell)(const gru_node *node, size_t n, const float *const *sx, const float *const *sh,
                     const float *const *h, float *const *out, size_t p0, size_t p1);

    /* Reset before: first z and r*h from the gates' sums, then h' from the candidate's recurrent sum. */
    void (*gru_before_gates)(const gru_node *node, size_t n, const float *const *sx, const float *const *sh,
                             const float *const *h, float *const *z, float *const *rh, size_t p0, size_t p1);
    void (*gru_before_blend)(const gru_node *node, size_t n, const float *const *sx, const float *const *sn,
                             const float *const *z, const float *const *h, float *const *out, size_t p0, size_t p1);

    /* Vectors of `width` floats. out may be the input. */
    void (*activation)(gru_act act, const float *a, float *out, size_t width);
    void (*add)(const float *a, const float *b, float *out, size_t width);
    void (*multiply)(const float *a, const float *b, float *out, size_t width);
    void (*affine)(const float *a, const float *scale, const float *shift, float *out, size_t width);
} gru_kernels;

extern const gru_kernels gru_kernels_generic;
#if defined(__x86_64__) && defined(__GNUC__)
#define GRU_BUILD_X86 1
extern const gru_kernels gru_kernels_avx2;
extern const gru_kernels gru_kernels_avx512;
#endif
#if defined(__aarch64__) && defined(__GNUC__)
#define GRU_BUILD_NEON 1
extern const gru_kernels gru_kernels_neon;
#endif

/* The kernels in use; NULL if GRU_ENGINE_ISA names none that is usable. In dispatch.c. */
const gru_kernels *gru_kernels_used(void);

#endif
