/* SPDX-License-Identifier: Apache-2.0 */
/* Writes small .gru files into memory, after docs/FORMAT.md and nothing else, for tests that need one of every size.
 *
 * Each kind is a network in which one operation of the given width writes the whole output vector. */
#ifndef GRU_FILE_H
#define GRU_FILE_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum made_kind {
    MADE_GRU,        /* INPUT -> GRU */
    MADE_TABLE,      /* TOKENS -> GRU with a table */
    MADE_CONTINUED,  /* TOKENS, EMBEDDING -> GRU with a table and a matrix */
    MADE_REVERSE,    /* INPUT -> GRU, reverse */
    MADE_DENSE,      /* INPUT -> DENSE, tanh */
    MADE_SOFTMAX,    /* INPUT -> DENSE, softmax */
    MADE_EMBEDDING,  /* TOKENS -> EMBEDDING */
    MADE_AFFINE,     /* INPUT -> AFFINE -> ADD with the input -> MULTIPLY with it */
    MADE_ACTIVATION, /* INPUT -> ACTIVATION, log-softmax */
    MADE_CONCAT,     /* INPUT, GRU -> CONCAT of both and both again */
    MADE_LAST,       /* INPUT -> GRU -> LAST */
    MADE_CONTEXT,    /* INPUT, a context -> SUMS -> REPEAT; REPEAT, INPUT -> GRU */
    MADE_KINDS
};

enum { MADE_FILE_NBYTES = 1 << 22, MADE_WIDTH_MOST = 300, MADE_OUTPUT_MOST = 4 * MADE_WIDTH_MOST };

typedef struct made {
    unsigned char *bytes; /* all zeros at first */
    size_t most, payload; /* where the next tensor goes, counted in PAYLOAD */
    uint32_t n_nodes, n_tensors, n_edges;
    unsigned char nodes[8][128], tensors[16][64], edges[64];
    float *floats; /* PAYLOAD in the making */
    uint64_t random;
} made;

static inline void made_u32(unsigned char *at, uint32_t value) {
    memcpy(at, &value, 4); /* these tests run on little-endian machines */
}

static inline void made_u64(unsigned char *at, uint64_t value) { memcpy(at, &value, 8); }

static inline uint32_t made_crc32(const unsigned char *p, size_t n) {
    static uint32_t table[256];
    for (uint32_t i = 0; i < 256 && !table[255]; i++) {
        table[i] = i;
        for (int bit = 0; bit < 8; bit++) table[i] = table[i] >> 1 ^ (table[i] & 1 ? 0xedb88320u : 0);
    }
    uint32_t crc = 0xffffffffu;
    for (size_t i = 0; i < n; i++) crc = crc >> 8 ^ table[(crc ^ p[i]) & 255];
    return crc ^ 0xffffffffu;
}

/* A tensor of random floats from -0.5 to 0.5 where outputs exist. Layouts: 0 PLAIN, 1 PANELS, 2 SUMS. */
static inline uint32_t made_tensor(made *m, uint32_t layout, uint32_t rows, uint32_t cols, uint32_t gates) {
    const size_t panels = ((layout == 1 ? rows : cols) + 15u) / 16u, outputs = layout == 1 ? rows : cols;
    const size_t n = layout == 0 ? (size_t)rows * cols : (layout == 1 ? cols : rows) * panels * gates * 16;
    float *to = m->floats + m->payload / 4;
    for (size_t i = 0; i < n; i++) {
        /* PANELS [panel][k][gate][lane], SUMS [row][panel][gate][lane] */
        const size_t panel = layout == 1 ? i / 16 / gates / cols : i / 16 / gates % panels;
        m->random = m->random * 6364136223846793005u + 1442695040888963407u;
        to[i] = layout == 0 || panel * 16 + i % 16 < outputs ? (float)(int32_t)(m->random >> 32) * 0x1p-32f : 0;
    }
    unsigned char *r = m->tensors[m->n_tensors];
    made_u32(r, layout);
    made_u32(r + 8, rows);
    made_u32(r + 12, cols);
    made_u32(r + 16, gates);
    made_u64(r + 24, m->payload);
    made_u64(r + 32, n * 4);
    m->payload += (n * 4 + 63) / 64 * 64;
    return m->n_tensors++;
}

static inline unsigned char *made_node(made *m, uint32_t operation, uint32_t width, uint32_t n_inputs,
                                       const uint32_t *inputs) {
    unsigned char *r = m->nodes[m->n_nodes++];
    made_u32(r, operation);
    made_u32(r + 4, width);
    made_u32(r + 8, m->n_edges);
    made_u32(r + 12, n_inputs);
    memset(r + 64, 0xff, 32);
    for (uint32_t i = 0; i < n_inputs; i++) made_u32(m->edges + 4 * m->n_edges++, inputs[i]);
    return r;
}

/* columns: floats of the vector input, or 0; vocabulary: tokens of the token input, or 0 */
static inline void made_gru(made *m, uint32_t width, uint32_t columns, uint32_t vocabulary, uint32_t n_inputs,
                            const uint32_t *inputs, uint32_t reset, uint32_t reverse) {
    const uint32_t gates = reset == 3 ? 2 : 3, recurrent = reset == 1 ? 2 : gates;
    unsigned char *r = made_node(m, 5, width, n_inputs, inputs);
    made_u32(r + 24, 2); /* tanh */
    made_u32(r + 36, 1); /* sigmoid */
    made_u32(r + 52, reset);
    made_u32(r + 56, reverse);
    if (columns) made_u32(r + 64, made_tensor(m, 1, width, columns, gates));
    if (vocabulary) {
        made_u32(r + 72, made_tensor(m, 2, vocabulary, width, gates));
    } else if (n_inputs == 1) { /* else the first one is SUMS */
        made_u32(r + 68, made_tensor(m, 2, 1, width, gates));
    }
    made_u32(r + 76, made_tensor(m, 1, width, width, recurrent));
    made_u32(r + 80, made_tensor(m, 2, 1, width, recurrent));
    if (reset == 1) {
        made_u32(r + 84, made_tensor(m, 1, width, width, 1));
        made_u32(r + 88, made_tensor(m, 2, 1, width, 1));
    }
    made_u32(r + 92, made_tensor(m, 0, 1, width, 1));
}

static inline void made_dense(made *m, uint32_t width, uint32_t columns, uint32_t input, uint32_t activation) {
    unsigned char *r = made_node(m, 4, width, 1, &input);
    made_u32(r + 24, activation);
    made_u32(r + 64, made_tensor(m, 1, width, columns, 1));
    made_u32(r + 68, made_tensor(m, 2, 1, width, 1));
}

/* Returns the number of the node that is the output. */
static inline uint32_t made_network(made *m, enum made_kind kind, uint32_t width, uint32_t reset) {
    static const uint32_t both[4] = {0, 1, 1, 0}, input = 0, value = 1;
    const uint32_t columns =
        kind == MADE_GRU || kind == MADE_DENSE || kind == MADE_SOFTMAX ? (width * 7) % 70 + 1 : width;
    const int tokens = kind == MADE_TABLE || kind == MADE_CONTINUED || kind == MADE_EMBEDDING;
    const uint32_t vocabulary = 3;
    made_node(m, tokens ? 2 : 1, tokens ? vocabulary : columns, 0, NULL);
    switch (kind) {
    case MADE_GRU: made_gru(m, width, columns, 0, 1, &input, reset, 0); break;
    case MADE_REVERSE: made_gru(m, width, columns, 0, 1, &input, 0, 1); break;
    case MADE_TABLE: made_gru(m, width, 0, vocabulary, 1, &input, 0, 0); break;
    case MADE_CONTINUED:
    case MADE_EMBEDDING:
        made_u32(made_node(m, 3, width, 1, &input) + 64, made_tensor(m, 0, vocabulary, width, 1));
        if (kind == MADE_CONTINUED) made_gru(m, width, width, vocabulary, 2, both, 0, 0);
        break;
    case MADE_DENSE: made_dense(m, width, columns, 0, 2); break;
    case MADE_SOFTMAX: made_dense(m, width, columns, 0, 64); break;
    case MADE_AFFINE: {
        unsigned char *r = made_node(m, 9, width, 1, &input);
        made_u32(r + 64, made_tensor(m, 0, 1, width, 1));
        made_u32(r + 68, made_tensor(m, 0, 1, width, 1));
        const uint32_t sum[2] = {2, 0};
        made_node(m, 7, width, 2, both);
        made_node(m, 8, width, 2, sum);
        break;
    }
    case MADE_CONTEXT: {
        static const uint32_t context = 1, sums[2] = {2, 0}, begun[2] = {3, 0};
        const uint32_t panels = (width + 15) / 16;
        made_u32(made_node(m, 1, width, 0, NULL) + 100, 1);
        unsigned char *r = made_node(m, 25, panels * 48, 1, &context);
        made_u32(r + 64, made_tensor(m, 1, width, width, 3));
        made_u32(r + 68, made_tensor(m, 2, 1, width, 3));
        made_u32(r + 96, width);
        made_u32(r + 100, 3);
        made_node(m, 23, panels * 48, 2, sums);
        made_gru(m, width, columns, 0, 2, begun, 0, 0);
        break;
    }
    case MADE_ACTIVATION: made_u32(made_node(m, 10, width, 1, &input) + 24, 65); break;
    case MADE_CONCAT:
        made_gru(m, width, width, 0, 1, &input, 0, 0);
        made_node(m, 6, 4 * width, 4, both);
        break;
    default:
        made_gru(m, width, width, 0, 1, &input, 0, 0);
        made_node(m, 11, width, 1, &value);
        break;
    }
    return m->n_nodes - 1;
}

/* The file's size; it exits if there is no room. */
static inline size_t make_file(unsigned char *bytes, size_t most, enum made_kind kind, uint32_t width, uint32_t reset) {
    static float payload[MADE_FILE_NBYTES / 4];
    static size_t used;
    memset(payload, 0, used);
    made m = {.bytes = bytes, .most = most, .floats = payload, .random = width * 64u + (uint32_t)kind};
    const uint32_t out = made_network(&m, kind, width, reset);
    used = m.payload;
    unsigned char output[64] = {0}, strings[64] = {0};
    made_u32(output, out);
    made_u32(output + 4, 1);
    memcpy(output + 12, m.nodes[out] + 4, 4);
    strings[1] = 'y';
    const struct {
        const void *content;
        size_t nbytes;
    } sections[8] = {{m.tensors, m.n_tensors * 64},
                     {m.nodes, m.n_nodes * 128},
                     {m.edges, m.n_edges * 4},
                     {output, 16},
                     {strings, 3},
                     {payload, m.payload},
                     {"", 0},
                     {"", 0}};
    size_t end = 512;
    for (int i = 0; i < 8; i++) end += (sections[i].nbytes + 63) / 64 * 64;
    if (end + 64 > most) {
        fprintf(stderr, "no room for kind %d, width %u\n", (int)kind, width);
        exit(2);
    }
    memset(bytes, 0, end + 64);
    memcpy(bytes, "\x89GRU\r\n\x1a\n", 8);
    made_u32(bytes + 8, 0x01020304);
    made_u32(bytes + 12, 1);
    made_u64(bytes + 16, end + 64);
    made_u32(bytes + 24, m.n_nodes);
    made_u32(bytes + 28, m.n_tensors);
    made_u32(bytes + 32, m.n_edges);
    made_u32(bytes + 36, 1);
    size_t at = 512;
    for (uint32_t i = 0; i < 8; i++) {
        const size_t size = (sections[i].nbytes + 63) / 64 * 64;
        memcpy(bytes + at, sections[i].content, sections[i].nbytes);
        if (i == 5) { /* the tensors' places in the file */
            for (uint32_t t = 0; t < m.n_tensors; t++) {
                uint64_t offset;
                memcpy(&offset, m.tensors[t] + 24, 8);
                made_u64(bytes + 512 + 64 * t + 24, offset + at);
            }
        }
        made_u32(bytes + 128 + 32 * i, i + 1);
        made_u64(bytes + 128 + 32 * i + 8, at);
        made_u64(bytes + 128 + 32 * i + 16, size);
        at += size;
    }
    for (uint32_t i = 0; i < 8; i++) {
        uint64_t offset, size;
        memcpy(&offset, bytes + 128 + 32 * i + 8, 8);
        memcpy(&size, bytes + 128 + 32 * i + 16, 8);
        made_u32(bytes + 128 + 32 * i + 4, made_crc32(bytes + offset, size));
    }
    made_u32(bytes + 508, made_crc32(bytes, 508));
    memcpy(bytes + end, "GRU_END\n", 8);
    made_u64(bytes + end + 8, end + 64);
    return end + 64;
}

#endif
