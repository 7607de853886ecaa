/* SPDX-License-Identifier: Apache-2.0 */
/* Reading a .gru file: every number in it is checked before it is used (docs/FORMAT.md is the law). What passes here
 * can be run without any further check: every tensor lies inside the file with the size its node needs, every input is
 * an earlier node. */
#include "model.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEADER_NBYTES 512u
#define END_NBYTES 64u
#define TENSOR_NBYTES 64u
#define NODE_NBYTES 128u
#define OUTPUT_NBYTES 16u
#define NONE 0xFFFFFFFFu
#define MAX_WIDTH (1u << 24)
#define MAX_DIMENSION (1u << 28)

enum section { TENSORS, NODES, EDGES, OUTPUTS, STRINGS, PAYLOAD, METADATA, GOLDEN, N_SECTIONS };
static const char *const section_names[N_SECTIONS] = {"TENSORS", "NODES",   "EDGES",    "OUTPUTS",
                                                      "STRINGS", "PAYLOAD", "METADATA", "GOLDEN"};

typedef struct reader {
    const unsigned char *bytes;
    uint64_t nbytes;
    uint32_t n_nodes, n_tensors, n_edges, n_outputs;
    struct { uint64_t offset, nbytes; } section[N_SECTIONS];
    gru_model *model;
    char *message;
} reader;

static uint32_t u32_at(const unsigned char *p) {
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static uint64_t u64_at(const unsigned char *p) {
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static float f32_at(const unsigned char *p) {
    float v;
    memcpy(&v, p, sizeof v);
    return v;
}

static int all_zero(const unsigned char *p, uint64_t n) {
    while (n && *p == 0) {
        p++;
        n--;
    }
    return n == 0;
}

#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
static gru_result bad(reader *in, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(in->message, GRU_MESSAGE_NBYTES, format, arguments);
    va_end(arguments);
    return GRU_ERROR_FORMAT;
}

#define TRY(call)                                                                                                      \
    do {                                                                                                               \
        gru_result result_ = (call);                                                                                   \
        if (result_ != GRU_OK) {                                                                                       \
            return result_;                                                                                            \
        }                                                                                                              \
    } while (0)

/* ------------------------------------------------------------------------------------------------ header, sections */

static gru_result read_header(reader *in) {
    static const unsigned char magic[8] = {0x89, 'G', 'R', 'U', 0x0D, 0x0A, 0x1A, 0x0A};
    const unsigned char *h = in->bytes;
    if (in->nbytes < 8 || memcmp(h, magic, 8) != 0) {
        return bad(in, "not a .gru file: it does not begin with the magic bytes 89 47 52 55 0d 0a 1a 0a");
    }
    if (in->nbytes < HEADER_NBYTES + END_NBYTES) {
        return bad(in, "the file has %llu bytes; a .gru file has at least %u: it is cut off",
                   (unsigned long long)in->nbytes, HEADER_NBYTES + END_NBYTES);
    }
    if (u32_at(h + 8) != 0x01020304u) {
        return bad(in, "the byte-order mark is 0x%08x, expected 0x01020304", u32_at(h + 8));
    }
    if (u32_at(h + 12) != 1) {
        bad(in, "the file has format version %u; this build reads version 1", u32_at(h + 12));
        return GRU_ERROR_UNSUPPORTED;
    }
    uint32_t stored = u32_at(h + 508), computed = gru_crc32(h, 508);
    if (stored != computed) {
        return bad(in, "the header is damaged: its checksum is 0x%08x, its bytes give 0x%08x", stored, computed);
    }
    if (u64_at(h + 16) != in->nbytes) {
        return bad(in, "the header says %llu bytes, the file has %llu", (unsigned long long)u64_at(h + 16),
                   (unsigned long long)in->nbytes);
    }
    const struct {
        const char *what;
        uint32_t least, most, *value;
    } counts[4] = {{"nodes", 1, 65536, &in->n_nodes},
                   {"tensors", 0, 262144, &in->n_tensors},
                   {"edges", 0, 1048576, &in->n_edges},
                   {"outputs", 1, 4096, &in->n_outputs}};
    for (unsigned i = 0; i < 4; i++) {
        *counts[i].value = u32_at(h + 24 + 4 * i);
        if (*counts[i].value < counts[i].least || *counts[i].value > counts[i].most) {
            return bad(in, "the header says %u %s, expected %u to %u", *counts[i].value, counts[i].what,
                       counts[i].least, counts[i].most);
        }
    }
    if (u32_at(h + 40) > 4096) {
        return bad(in, "the header says %u golden cases, expected at most 4096", u32_at(h + 40));
    }
    if (!all_zero(h + 44, 4) || !all_zero(h + 80, 48) || !all_zero(h + 384, 124)) {
        return bad(in, "a reserved byte of the header is not zero");
    }
    return GRU_OK;
}

/* Whether bytes are UTF-8 (RFC 3629): no overlong forms, no surrogates, nothing above U+10FFFF. */
static int is_utf8(const unsigned char *s, uint64_t n) {
    uint64_t i = 0;
    while (i < n) {
        const unsigned char lead = s[i++];
        if (lead < 0x80) {
            continue;
        }
        const unsigned more = lead >= 0xF0 ? 3 : lead >= 0xE0 ? 2 : 1;
        if (lead < 0xC2 || lead > 0xF4 || more > n - i) {
            return 0;
        }
        const unsigned char least = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
        const unsigned char most = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
        if (s[i] < least || s[i] > most) {
            return 0;
        }
        for (unsigned j = 1; j < more; j++) {
            if ((s[i + j] & 0xC0) != 0x80) {
                return 0;
            }
        }
        i += more;
    }
    return 1;
}

static gru_result read_sections(reader *in, int verify) {
    uint64_t end = HEADER_NBYTES;
    for (unsigned i = 0; i < N_SECTIONS; i++) {
        const unsigned char *entry = in->bytes + 128 + 32 * i;
        uint64_t offset = u64_at(entry + 8), nbytes = u64_at(entry + 16);
        if (u32_at(entry) != i + 1 || u64_at(entry + 24) != 0) {
            return bad(in, "entry %u of the section table has kind %u, expected %u (%s)", i, u32_at(entry), i + 1,
                       section_names[i]);
        }
        if (offset != end || nbytes % 64 != 0 || nbytes > in->nbytes - END_NBYTES - end) {
            return bad(
                in, "section %s: offset %llu, size %llu; expected offset %llu and a multiple of 64 within the file",
                section_names[i], (unsigned long long)offset, (unsigned long long)nbytes, (unsigned long long)end);
        }
        in->section[i].offset = offset;
        in->section[i].nbytes = nbytes;
        end = offset + nbytes;
    }
    if (end != in->nbytes - END_NBYTES) {
        return bad(in, "the sections end at %llu, expected %llu", (unsigned long long)end,
                   (unsigned long long)(in->nbytes - END_NBYTES));
    }
    const unsigned char *mark = in->bytes + end;
    if (memcmp(mark, "GRU_END\n", 8) != 0 || u64_at(mark + 8) != in->nbytes || !all_zero(mark + 16, END_NBYTES - 16)) {
        return bad(in, "the end mark at offset %llu is missing or damaged", (unsigned long long)end);
    }
    for (unsigned i = 0; i < N_SECTIONS; i++) {
        if (i >= PAYLOAD && !verify) {
            continue;
        }
        uint32_t stored = u32_at(in->bytes + 128 + 32 * i + 4);
        uint32_t computed = gru_crc32(in->bytes + in->section[i].offset, (size_t)in->section[i].nbytes);
        if (stored != computed) {
            return bad(in, "section %s is damaged: its checksum is 0x%08x, its bytes give 0x%08x", section_names[i],
                       stored, computed);
        }
    }
    const uint64_t content[4] = {(uint64_t)in->n_tensors * TENSOR_NBYTES, (uint64_t)in->n_nodes * NODE_NBYTES,
                                 (uint64_t)in->n_edges * 4, (uint64_t)in->n_outputs * OUTPUT_NBYTES};
    for (unsigned i = 0; i < 4; i++) {
        if (in->section[i].nbytes != gru_round_up(content[i], 64)) {
            return bad(in, "section %s has %llu bytes, expected %llu", section_names[i],
                       (unsigned long long)in->section[i].nbytes, (unsigned long long)gru_round_up(content[i], 64));
        }
        if (!all_zero(in->bytes + in->section[i].offset + content[i], in->section[i].nbytes - content[i])) {
            return bad(in, "section %s: a byte of its padding is not zero", section_names[i]);
        }
    }
    uint64_t strings = in->section[STRINGS].nbytes;
    const unsigned char *s = in->bytes + in->section[STRINGS].offset;
    if (strings == 0 || s[0] != 0 || s[strings - 1] != 0) {
        return bad(in, "section STRINGS does not begin and end with a zero byte");
    }
    if (!is_utf8(s, strings)) {
        return bad(in, "section STRINGS is not UTF-8");
    }
    return GRU_OK;
}

static const unsigned char *record(const reader *in, enum section section, uint32_t i, uint32_t nbytes) {
    return in->bytes + in->section[section].offset + (uint64_t)i * nbytes;
}

/* Whether a name may begin there: not behind the section, not within a character. */
static int is_name(const reader *in, uint32_t offset) {
    return offset < in->section[STRINGS].nbytes && (in->bytes[in->section[STRINGS].offset + offset] & 0xC0) != 0x80;
}

static const char *string_at(const reader *in, uint32_t offset) {
    return (const char *)in->bytes + in->section[STRINGS].offset + offset;
}

/* ------------------------------------------------------------------------------------------------ tensors */

/* Bytes of a tensor, as its layout implies; 0 if that cannot be. The largest product is 2^28 * 2^28 * 4 * 64 > 2^63,
 * hence the division. */
static uint64_t tensor_nbytes(uint32_t layout, uint64_t rows, uint64_t cols, uint64_t gates) {
    uint64_t a, b;
    switch (layout) {
    case GRU_LAYOUT_PLAIN: a = rows, b = cols * 4; break;
    case GRU_LAYOUT_PANELS: a = (rows + 15) / 16, b = cols * gates * 64; break;
    default: a = rows, b = (cols + 15) / 16 * gates * 64; break;
    }
    return a > (UINT64_C(1) << 62) / b ? 0 : a * b;
}

static gru_result check_tensors(reader *in) {
    uint64_t next = in->section[PAYLOAD].offset;
    const uint64_t end = next + in->section[PAYLOAD].nbytes;
    for (uint32_t i = 0; i < in->n_tensors; i++) {
        const unsigned char *t = record(in, TENSORS, i, TENSOR_NBYTES);
        uint32_t layout = u32_at(t), dtype = u32_at(t + 4), rows = u32_at(t + 8), cols = u32_at(t + 12),
                 gates = u32_at(t + 16);
        uint64_t offset = u64_at(t + 24), nbytes = u64_at(t + 32);
        if (layout > GRU_LAYOUT_SUMS || !rows || !cols || rows > MAX_DIMENSION || cols > MAX_DIMENSION || !gates ||
            gates > 4 || (layout == GRU_LAYOUT_PLAIN && gates != 1) || !is_name(in, u32_at(t + 20)) ||
            !all_zero(t + 40, 24)) {
            return bad(in, "tensor %u: layout %u, %u rows, %u columns, %u gates: not a tensor of this format", i,
                       layout, rows, cols, gates);
        }
        if (dtype != GRU_FLOAT32) {
            bad(in, "tensor %u has dtype %u; this build reads 0 (float32)", i, dtype);
            return GRU_ERROR_UNSUPPORTED;
        }
        uint64_t expected = tensor_nbytes(layout, rows, cols, gates);
        if (!expected || nbytes != expected) {
            return bad(in, "tensor %u has %llu bytes; its shape needs %llu", i, (unsigned long long)nbytes,
                       (unsigned long long)expected);
        }
        if (offset != next || nbytes > end - next) {
            return bad(in, "tensor %u: offset %llu, size %llu; expected offset %llu and an end of at most %llu", i,
                       (unsigned long long)offset, (unsigned long long)nbytes, (unsigned long long)next,
                       (unsigned long long)end);
        }
        next = gru_round_up(offset + nbytes, 64);
    }
    if (next != end) {
        return bad(in, "the tensors end at %llu, section PAYLOAD at %llu", (unsigned long long)next,
                   (unsigned long long)end);
    }
    return GRU_OK;
}

/* The tensor in a slot of a node, which must have just this shape; NULL (and GRU_OK) if the slot is empty and that is
 * allowed. */
static gru_result take_tensor(reader *in, uint32_t node, unsigned slot, const char *what, enum gru_layout layout,
                              size_t rows, size_t cols, size_t gates, const float **data) {
    uint32_t id = u32_at(record(in, NODES, node, NODE_NBYTES) + 64 + 4 * slot);
    *data = NULL;
    if (id == NONE) {
        return bad(in, "node %u: tensor slot %u (%s) is empty", node, slot, what);
    }
    if (id >= in->n_tensors) {
        return bad(in, "node %u: tensor slot %u (%s) names tensor %u of %u", node, slot, what, id, in->n_tensors);
    }
    const unsigned char *t = record(in, TENSORS, id, TENSOR_NBYTES);
    if (u32_at(t) != (uint32_t)layout || u32_at(t + 8) != rows || u32_at(t + 12) != cols || u32_at(t + 16) != gates) {
        return bad(
            in,
            "node %u: %s (tensor %u) has layout %u, %u rows, %u columns, %u gates; expected layout %d, %zu, %zu, %zu",
            node, what, id, u32_at(t), u32_at(t + 8), u32_at(t + 12), u32_at(t + 16), (int)layout, rows, cols, gates);
    }
    *data = (const float *)(const void *)(in->bytes + u64_at(t + 24));
    return GRU_OK;
}

static gru_result take_matrix(reader *in, uint32_t node, unsigned slot, const char *what, size_t rows, size_t cols,
                              size_t gates, gru_matrix *m) {
    *m = (gru_matrix){.rows = rows, .cols = cols, .gates = gates, .panels = (rows + 15) / 16};
    return cols ? take_tensor(in, node, slot, what, GRU_LAYOUT_PANELS, rows, cols, gates, &m->data) : GRU_OK;
}

/* ------------------------------------------------------------------------------------------------ nodes */

/* Bit 0: alpha is used, bit 1: beta. */
static unsigned parameters_used(int code) {
    switch (code) {
    case GRU_ACT_AFFINE:
    case GRU_ACT_SCALED_TANH:
    case GRU_ACT_HARD_SIGMOID: return 3;
    case GRU_ACT_LEAKY_RELU:
    case GRU_ACT_THRESHOLDED_RELU:
    case GRU_ACT_ELU: return 1;
    default: return 0;
    }
}

static gru_result take_activation(reader *in, uint32_t node, const unsigned char *field, int may_be_softmax,
                                  gru_act *act) {
    act->code = (int)u32_at(field);
    act->alpha = f32_at(field + 4);
    act->beta = f32_at(field + 8);
    const int elementwise = act->code >= GRU_ACT_LINEAR && act->code <= GRU_ACT_SILU;
    const int softmax = act->code == GRU_ACT_SOFTMAX || act->code == GRU_ACT_LOG_SOFTMAX;
    const unsigned used = parameters_used(act->code);
    if (!(elementwise || (softmax && may_be_softmax)) || !isfinite(act->alpha) || !isfinite(act->beta) ||
        (!(used & 1) && u32_at(field + 4)) || (!(used & 2) && u32_at(field + 8))) {
        return bad(in, "node %u: activation %u with parameters %g, %g does not exist here", node, (unsigned)act->code,
                   (double)act->alpha, (double)act->beta);
    }
    return GRU_OK;
}

/* The starts of sums: a bias row, or a table with a row per token. Sets w as well. */
static gru_result take_input_half(reader *in, uint32_t node, gru_node *n, size_t gates) {
    const gru_node *nodes = in->model->nodes;
    if (n->n_inputs < 1 || n->n_inputs > 2) {
        return bad(in, "node %u has %zu inputs, expected 1 or 2", node, n->n_inputs);
    }
    n->token_input = nodes[n->inputs[0]].op == GRU_OP_TOKENS;
    n->vector_input = n->n_inputs == 2 ? 1 : n->token_input ? -1 : 0;
    if (n->n_inputs == 2 && (!n->token_input || gates != 3)) {
        return bad(in, "node %u has two inputs; only a GRU of three gates may, and the first is the token", node);
    }
    size_t cols = n->vector_input < 0 ? 0 : nodes[n->inputs[n->vector_input]].width;
    TRY(take_matrix(in, node, 0, "W", n->width, cols, gates, &n->w));
    if (n->token_input) {
        TRY(take_tensor(in, node, 2, "table", GRU_LAYOUT_SUMS, nodes[n->inputs[0]].width, n->width, gates, &n->start));
        n->start_stride = gru_sums_width(&n->w);
    } else {
        TRY(take_tensor(in, node, 1, "bias", GRU_LAYOUT_SUMS, 1, n->width, gates, &n->start));
    }
    return GRU_OK;
}

static gru_result take_gru(reader *in, uint32_t node, gru_node *n, const unsigned char *r) {
    TRY(take_activation(in, node, r + 24, 0, &n->act));
    TRY(take_activation(in, node, r + 36, 0, &n->gate_act));
    n->clip = f32_at(r + 48);
    n->reset = (int)u32_at(r + 52);
    n->reverse = u32_at(r + 56) == GRU_REVERSE;
    if (!isfinite(n->clip) || n->clip < 0 || u32_at(r + 52) > GRU_RESET_NONE || u32_at(r + 56) > GRU_REVERSE) {
        return bad(in, "node %u: clip %g, reset mode %u, direction %u: not a GRU of this format", node, (double)n->clip,
                   u32_at(r + 52), u32_at(r + 56));
    }
    const size_t gates = n->reset == GRU_RESET_NONE ? 2 : 3;
    const size_t recurrent_gates = n->reset == GRU_RESET_BEFORE ? 2 : gates;
    const size_t width = n->width;
    TRY(take_input_half(in, node, n, gates));
    TRY(take_matrix(in, node, 3, "U", width, width, recurrent_gates, &n->u));
    TRY(take_tensor(in, node, 4, "b_h", GRU_LAYOUT_SUMS, 1, width, recurrent_gates, &n->b_h));
    if (n->reset == GRU_RESET_BEFORE) {
        TRY(take_matrix(in, node, 5, "U_n", width, width, 1, &n->u_n));
        TRY(take_tensor(in, node, 6, "b_hn", GRU_LAYOUT_SUMS, 1, width, 1, &n->b_hn));
    }
    TRY(take_tensor(in, node, 7, "h0", GRU_LAYOUT_PLAIN, 1, width, 1, &n->h0));
    n->fused = n->reset == GRU_RESET_AFTER && n->act.code == GRU_ACT_TANH && n->gate_act.code == GRU_ACT_SIGMOID &&
               !(n->clip > 0);
    return GRU_OK;
}

/* Tensor slots that an operation may fill, as a bit mask. */
static unsigned allowed_slots(const gru_node *n) {
    const unsigned start = n->token_input ? 1u << 2 : 1u << 1, matrix = n->vector_input >= 0 ? 1u : 0;
    switch (n->op) {
    case GRU_OP_EMBEDDING: return 1u;
    case GRU_OP_AFFINE: return 3u;
    case GRU_OP_DENSE: return start | matrix;
    case GRU_OP_GRU: return start | matrix | (n->reset == GRU_RESET_BEFORE ? 0xF8u : 0x98u);
    default: return 0;
    }
}

/* Fields that the operation does not use must be zero, so that a later version can give them a meaning. */
static gru_result check_unused(reader *in, uint32_t node, const gru_node *n, const unsigned char *r) {
    const int has_act = n->op == GRU_OP_DENSE || n->op == GRU_OP_GRU || n->op == GRU_OP_ACTIVATION;
    int ok = u32_at(r + 16) == 0 && all_zero(r + 60, 4) && all_zero(r + 96, 32) && (has_act || all_zero(r + 24, 12)) &&
             (n->op == GRU_OP_GRU || all_zero(r + 36, 24)) && is_name(in, u32_at(r + 20));
    for (unsigned slot = 0; slot < 8; slot++) {
        ok = ok && ((allowed_slots(n) >> slot & 1) || u32_at(r + 64 + 4 * slot) == NONE);
    }
    return ok ? GRU_OK : bad(in, "node %u: a field that operation %d does not use is not empty", node, n->op);
}

/* Number and kinds of inputs: vectors, all per step or all per sequence. */
static gru_result check_inputs(reader *in, uint32_t node, gru_node *n) {
    const gru_node *nodes = in->model->nodes;
    static const struct {
        uint32_t least, most;
    } arity[] = {[GRU_OP_EMBEDDING] = {1, 1}, [GRU_OP_DENSE] = {1, 2},      [GRU_OP_GRU] = {1, 2},
                 [GRU_OP_CONCAT] = {2, 1024}, [GRU_OP_ADD] = {2, 2},        [GRU_OP_MULTIPLY] = {2, 2},
                 [GRU_OP_AFFINE] = {1, 1},    [GRU_OP_ACTIVATION] = {1, 1}, [GRU_OP_LAST] = {1, 1},
                 [GRU_OP_FIRST] = {1, 1},     [GRU_OP_TOKENS] = {0, 0}};
    if (n->n_inputs < arity[n->op].least || n->n_inputs > arity[n->op].most) {
        return bad(in, "node %u: operation %d has %zu inputs, expected %u to %u", node, n->op, n->n_inputs,
                   arity[n->op].least, arity[n->op].most);
    }
    int n_per_sequence = 0;
    for (size_t i = 0; i < n->n_inputs; i++) {
        const gru_node *a = &nodes[n->inputs[i]];
        const int token = a->op == GRU_OP_TOKENS;
        const int token_wanted = n->op == GRU_OP_EMBEDDING;
        const int token_allowed = token_wanted || ((n->op == GRU_OP_DENSE || n->op == GRU_OP_GRU) && i == 0);
        if ((token && !token_allowed) || (!token && token_wanted)) {
            return bad(in, "node %u: input %zu is %s", node, i,
                       token ? "the token, expected a vector" : "a vector, expected the token");
        }
        n_per_sequence += a->per_sequence;
    }
    const int step_only =
        n->op == GRU_OP_EMBEDDING || n->op == GRU_OP_GRU || n->op == GRU_OP_LAST || n->op == GRU_OP_FIRST;
    if (n_per_sequence && (step_only || (size_t)n_per_sequence != n->n_inputs)) {
        return bad(
            in, "node %u reads a value per sequence together with one per step, or where only one per step can be read",
            node);
    }
    n->per_sequence = n_per_sequence > 0 || n->op == GRU_OP_LAST || n->op == GRU_OP_FIRST;
    return GRU_OK;
}

static gru_result check_widths(reader *in, uint32_t node, const gru_node *n) {
    const gru_node *nodes = in->model->nodes;
    uint64_t expected = n->width;
    switch (n->op) {
    case GRU_OP_CONCAT:
        expected = 0;
        for (size_t i = 0; i < n->n_inputs; i++) {
            expected += nodes[n->inputs[i]].width;
        }
        break;
    case GRU_OP_ADD:
    case GRU_OP_MULTIPLY:
        if (nodes[n->inputs[0]].width != nodes[n->inputs[1]].width) {
            return bad(in, "node %u: inputs of widths %zu and %zu, expected the same", node, nodes[n->inputs[0]].width,
                       nodes[n->inputs[1]].width);
        }
        expected = nodes[n->inputs[0]].width;
        break;
    case GRU_OP_AFFINE:
    case GRU_OP_ACTIVATION:
    case GRU_OP_LAST:
    case GRU_OP_FIRST: expected = nodes[n->inputs[0]].width; break;
    default: break;
    }
    return n->width == expected
               ? GRU_OK
               : bad(in, "node %u has width %zu, its inputs imply %llu", node, n->width, (unsigned long long)expected);
}

static gru_result take_node(reader *in, uint32_t node, uint32_t *next_edge) {
    gru_node *n = &in->model->nodes[node];
    const unsigned char *r = record(in, NODES, node, NODE_NBYTES);
    uint32_t op = u32_at(r), width = u32_at(r + 4), first = u32_at(r + 8), count = u32_at(r + 12);
    if (op < GRU_OP_INPUT || op > GRU_OP_FIRST || (node == 0) != (op <= GRU_OP_TOKENS)) {
        return bad(in, "node %u has operation %u, expected %s", node, op,
                   node ? "3 to 12" : "1 or 2: the network's input");
    }
    if (!width || width > (op == GRU_OP_TOKENS ? MAX_DIMENSION : MAX_WIDTH)) {
        return bad(in, "node %u has width %u, expected 1 to %u", node, width,
                   op == GRU_OP_TOKENS ? MAX_DIMENSION : MAX_WIDTH);
    }
    if (first != *next_edge || count > in->n_edges - first) {
        return bad(in, "node %u: edges %u and %u more, expected them from %u on, up to %u", node, first, count,
                   *next_edge, in->n_edges);
    }
    *next_edge = first + count;
    n->op = (int)op;
    n->width = width;
    n->n_inputs = count;
    n->inputs = (const uint32_t *)(const void *)record(in, EDGES, first, 4);
    n->vector_input = -1;
    for (uint32_t i = 0; i < count; i++) {
        if (n->inputs[i] >= node) {
            return bad(in, "node %u: input %u is node %u, expected an earlier one", node, i, n->inputs[i]);
        }
    }
    if (op == GRU_OP_INPUT || op == GRU_OP_TOKENS) {
        if (count) {
            return bad(in, "node %u: the network's input has inputs itself", node);
        }
        return check_unused(in, node, n, r);
    }
    TRY(check_inputs(in, node, n));
    TRY(check_widths(in, node, n));
    switch (op) {
    case GRU_OP_EMBEDDING:
        TRY(take_tensor(in, node, 0, "embedding", GRU_LAYOUT_PLAIN, in->model->nodes[n->inputs[0]].width, width, 1,
                        &n->rows));
        break;
    case GRU_OP_DENSE:
        TRY(take_activation(in, node, r + 24, 1, &n->act));
        TRY(take_input_half(in, node, n, 1));
        break;
    case GRU_OP_GRU: TRY(take_gru(in, node, n, r)); break;
    case GRU_OP_AFFINE:
        TRY(take_tensor(in, node, 0, "scale", GRU_LAYOUT_PLAIN, 1, width, 1, &n->scale));
        TRY(take_tensor(in, node, 1, "shift", GRU_LAYOUT_PLAIN, 1, width, 1, &n->shift));
        break;
    case GRU_OP_ACTIVATION: TRY(take_activation(in, node, r + 24, 1, &n->act)); break;
    default: break;
    }
    return check_unused(in, node, n, r);
}

static gru_result take_outputs(reader *in) {
    gru_model *model = in->model;
    uint64_t next = 0;
    for (uint32_t i = 0; i < in->n_outputs; i++) {
        const unsigned char *r = record(in, OUTPUTS, i, OUTPUT_NBYTES);
        gru_output *o = &model->outputs[i];
        uint32_t name = u32_at(r + 4);
        o->node = u32_at(r);
        if (o->node >= in->n_nodes || model->nodes[o->node].op == GRU_OP_TOKENS) {
            return bad(in, "output %u is node %u, which is not a vector of this network", i, o->node);
        }
        const gru_node *n = &model->nodes[o->node];
        if (!is_name(in, name) || !*string_at(in, name)) {
            return bad(in, "output %u has no name", i);
        }
        o->name = string_at(in, name);
        o->first = u32_at(r + 8);
        o->width = u32_at(r + 12);
        if (o->first != next || o->width != n->width) {
            return bad(in, "output %u: floats %zu and %zu more, expected %llu and %zu", i, o->first, o->width,
                       (unsigned long long)next, n->width);
        }
        next += o->width;
        if (next > MAX_WIDTH) {
            return bad(in, "the outputs are wider than %u floats", MAX_WIDTH);
        }
        if (n->per_sequence != model->nodes[model->outputs[0].node].per_sequence) {
            return bad(in, "output %u is %s, the first one is not", i, n->per_sequence ? "per sequence" : "per step");
        }
        for (uint32_t j = 0; j < i; j++) {
            if (strcmp(model->outputs[j].name, o->name) == 0) {
                return bad(in, "outputs %u and %u have the same name", j, i);
            }
        }
    }
    return GRU_OK;
}

gru_result gru_model_parse(gru_model *model, const unsigned char *bytes, size_t nbytes, int verify, char *message) {
    reader in = {.bytes = bytes, .nbytes = nbytes, .model = model, .message = message};
    TRY(read_header(&in));
    TRY(read_sections(&in, verify));
    TRY(check_tensors(&in));
    model->nodes = calloc(in.n_nodes, sizeof *model->nodes);
    model->outputs = calloc(in.n_outputs, sizeof *model->outputs);
    if (!model->nodes || !model->outputs) {
        snprintf(message, GRU_MESSAGE_NBYTES, "out of memory");
        return GRU_ERROR_MEMORY;
    }
    uint32_t next_edge = 0;
    for (uint32_t i = 0; i < in.n_nodes; i++) {
        TRY(take_node(&in, i, &next_edge));
    }
    if (next_edge != in.n_edges) {
        return bad(&in, "the nodes have %u edges, section EDGES has %u", next_edge, in.n_edges);
    }
    TRY(take_outputs(&in));
    model->bytes = bytes;
    model->info.n_nodes = in.n_nodes;
    model->info.n_outputs = in.n_outputs;
    model->info.file_nbytes = nbytes;
    memcpy(model->info.digest, bytes + 48, 32);
    return GRU_OK;
}
