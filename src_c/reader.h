/* SPDX-License-Identifier: Apache-2.0 */
/* What the two halves of the reader share: format.c, which checks the container and the tensors, and program.c, which
 * makes nodes of the records. */
#ifndef GRU_READER_H
#define GRU_READER_H

#include "model.h"

#include <string.h>

#define HEADER_NBYTES 512u
#define END_NBYTES 64u
#define TENSOR_NBYTES 64u
#define NODE_NBYTES 128u
#define OUTPUT_NBYTES 16u
#define NONE 0xFFFFFFFFu
#define MAX_WIDTH (1u << 24)
#define MAX_INPUTS 4096u
#define MAX_DIMENSION (1u << 28)
#define MAX_SPAN (1u << 20)      /* steps from the first to the last of a window */
#define MAX_LOST (1u << 28)      /* steps that an axis lacks, and between its steps */
#define MAX_INT8_COLS (1u << 17) /* so that sums of products of two int8 stay below 2^31 */

enum section { TENSORS, NODES, EDGES, OUTPUTS, STRINGS, PAYLOAD, METADATA, GOLDEN, N_SECTIONS };

typedef struct reader {
    const unsigned char *bytes;
    uint64_t nbytes;
    uint32_t n_nodes, n_tensors, n_edges, n_outputs;
    struct { uint64_t offset, nbytes; } section[N_SECTIONS];
    gru_model *model;
    char *message;
} reader;

static inline uint32_t u32_at(const unsigned char *p) {
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline uint64_t u64_at(const unsigned char *p) {
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline float f32_at(const unsigned char *p) {
    float v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline int all_zero(const unsigned char *p, uint64_t n) {
    while (n && *p == 0) {
        p++;
        n--;
    }
    return n == 0;
}

/* Writes the message; returns GRU_ERROR_FORMAT. */
#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
gru_result gru_bad(reader *in, const char *format, ...);
#define bad gru_bad

#define TRY(call)                                                                                                      \
    do {                                                                                                               \
        gru_result result_ = (call);                                                                                   \
        if (result_ != GRU_OK) {                                                                                       \
            return result_;                                                                                            \
        }                                                                                                              \
    } while (0)

static inline const unsigned char *record(const reader *in, enum section section, uint32_t i, uint32_t nbytes) {
    return in->bytes + in->section[section].offset + (uint64_t)i * nbytes;
}

/* Whether a name may begin there: not behind the section, not within a character. */
static inline int is_name(const reader *in, uint32_t offset) {
    return offset < in->section[STRINGS].nbytes && (in->bytes[in->section[STRINGS].offset + offset] & 0xC0) != 0x80;
}

static inline const char *string_at(const reader *in, uint32_t offset) {
    return (const char *)in->bytes + in->section[STRINGS].offset + offset;
}

/* Bytes of a panel of a matrix: a line of 64 bytes for each gate and one, two or four columns; the scales of int8. */
static inline uint64_t panel_nbytes(uint32_t dtype, uint64_t cols, uint64_t gates) {
    switch (dtype) {
    case GRU_FLOAT32: return cols * gates * 64;
    case GRU_INT8: return ((cols + 3) / 4 + 1) * gates * 64;
    default: return (cols + 1) / 2 * gates * 64;
    }
}

/* Builds the nodes and outputs of in->model. In program.c. */
gru_result gru_read_program(reader *in);
/* Their second half: loops and outputs, of nodes that have been read. In outputs.c. */
gru_result gru_read_loops(reader *in);
gru_result gru_read_outputs(reader *in);

/* Parameter i of a node's record. */
static inline uint32_t parameter(const unsigned char *r, unsigned i) { return u32_at(r + 96 + 4 * i); }

/* The time axis of a node from those of its inputs, all of which have the same, if they must. In axes.c. */
gru_result gru_read_axis(reader *in, uint32_t node, gru_node *n, const unsigned char *r);

#endif
