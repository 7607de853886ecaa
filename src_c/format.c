/* SPDX-License-Identifier: Apache-2.0 */
/* Reading a .gru file: every number in it is checked before it is used (docs/FORMAT.md is the law). Here the container:
 * header, sections, tensors. What passes here and in program.c can be run without any further check: every tensor lies
 * inside the file with the size its node needs, every input is an earlier node. */
#include "reader.h"

#include <stdarg.h>
#include <stdio.h>

static const char *const section_names[N_SECTIONS] = {"TENSORS", "NODES",   "EDGES",    "OUTPUTS",
                                                      "STRINGS", "PAYLOAD", "METADATA", "GOLDEN"};

gru_result gru_bad(reader *in, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(in->message, GRU_MESSAGE_NBYTES, format, arguments);
    va_end(arguments);
    return GRU_ERROR_FORMAT;
}

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

/* ------------------------------------------------------------------------------------------------ tensors */

/* Bytes of a tensor, as its layout implies; 0 if that cannot be. The largest product is 2^28 * 2^28 * 4 * 64 > 2^63,
 * hence the division. */
static uint64_t tensor_nbytes(uint32_t layout, uint32_t dtype, uint64_t rows, uint64_t cols, uint64_t gates) {
    uint64_t a, b;
    switch (layout) {
    case GRU_LAYOUT_PLAIN: a = rows, b = cols * 4; break;
    case GRU_LAYOUT_PANELS: a = (rows + 15) / 16, b = panel_nbytes(dtype, cols, gates); break;
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
        if (dtype >= GRU_DTYPES) {
            bad(in, "tensor %u has dtype %u; this build reads 0 to %d", i, dtype, GRU_DTYPES - 1);
            return GRU_ERROR_UNSUPPORTED;
        }
        if (dtype != GRU_FLOAT32 && layout != GRU_LAYOUT_PANELS) {
            return bad(in, "tensor %u has dtype %u; with layout %u it must be 0 (float32)", i, dtype, layout);
        }
        if (dtype == GRU_INT8 && cols > MAX_INT8_COLS) {
            return bad(in, "tensor %u has %u columns; an int8 matrix has at most %u", i, cols, MAX_INT8_COLS);
        }
        uint64_t expected = tensor_nbytes(layout, dtype, rows, cols, gates);
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

gru_result gru_model_parse(gru_model *model, const unsigned char *bytes, size_t nbytes, int verify, char *message) {
    reader in = {.bytes = bytes, .nbytes = nbytes, .model = model, .message = message};
    TRY(read_header(&in));
    TRY(read_sections(&in, verify));
    TRY(check_tensors(&in));
    TRY(gru_read_program(&in));
    model->bytes = bytes;
    model->info.n_nodes = in.n_nodes;
    model->info.n_outputs = in.n_outputs;
    model->info.file_nbytes = nbytes;
    memcpy(model->info.digest, bytes + 48, 32);
    return GRU_OK;
}
