/* SPDX-License-Identifier: Apache-2.0 */
/* Opening and closing models; what a caller can ask of one; state blocks. */
#if !defined(_WIN32)
#define _POSIX_C_SOURCE 200809L
#endif
#include "model.h"
#include "kernels.h"
#include "state.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if !defined(_WIN32)
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

#ifndef GRU_ENGINE_VERSION
#define GRU_ENGINE_VERSION "0.1.0"
#endif

const char *gru_version(void) { return GRU_ENGINE_VERSION; }

const char *gru_result_string(gru_result result) {
    switch (result) {
    case GRU_OK: return "no error";
    case GRU_ERROR_ARGUMENT: return "an argument is not valid";
    case GRU_ERROR_MEMORY: return "out of memory";
    case GRU_ERROR_IO: return "the file cannot be read";
    case GRU_ERROR_FORMAT: return "not a valid .gru file";
    case GRU_ERROR_UNSUPPORTED: return "this build or machine cannot run the file";
    case GRU_ERROR_TOKEN: return "a token is outside the vocabulary";
    case GRU_ERROR_NOT_CAUSAL: return "the network needs later steps and can only be run over whole sequences";
    case GRU_ERROR_LENGTH: return "a length is not possible";
    case GRU_ERROR_SCORES: return "an output holds no scores among which a token can be chosen";
    case GRU_ERROR_CONTEXT: return "the network has contexts, and none has been set";
    }
    return "unknown result";
}

/* ------------------------------------------------------------------------------------------------ opening */

#if defined(_WIN32)

static gru_result read_file(const char *path, int copy, gru_model *model, const unsigned char **bytes, size_t *nbytes) {
    (void)copy;
    FILE *file = fopen(path, "rb");
    if (!file) {
        return GRU_ERROR_IO;
    }
    gru_result result = GRU_ERROR_IO;
    if (_fseeki64(file, 0, SEEK_END) == 0) {
        long long size = _ftelli64(file);
        model->owned = size > 0 ? malloc((size_t)size + 64) : NULL;
        if (size > 0 && !model->owned) {
            result = GRU_ERROR_MEMORY;
        } else if (size >= 0) {
            unsigned char *start = (unsigned char *)gru_round_up((size_t)model->owned, 64);
            rewind(file);
            *nbytes = (size_t)size;
            *bytes = start;
            result = fread(start, 1, (size_t)size, file) == (size_t)size ? GRU_OK : GRU_ERROR_IO;
        }
    }
    fclose(file);
    return result;
}

static void unmap(gru_model *model) { (void)model; }

#else

static gru_result read_all(int fd, unsigned char *to, size_t nbytes) {
    while (nbytes) {
        ssize_t n = read(fd, to, nbytes);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return GRU_ERROR_IO;
        }
        to += n;
        nbytes -= (size_t)n;
    }
    return GRU_OK;
}

static gru_result read_file(const char *path, int copy, gru_model *model, const unsigned char **bytes, size_t *nbytes) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return GRU_ERROR_IO;
    }
    gru_result result = GRU_ERROR_IO;
    struct stat st;
    if (fstat(fd, &st) == 0) {
        if (!S_ISREG(st.st_mode)) {
            errno = S_ISDIR(st.st_mode) ? EISDIR : EINVAL;
        } else if (st.st_size == 0) {
            *nbytes = 0;
            *bytes = (const unsigned char *)"";
            result = GRU_OK;
        } else if (copy) {
            *nbytes = (size_t)st.st_size;
            if (posix_memalign(&model->owned, 64, *nbytes) != 0) {
                model->owned = NULL;
                result = GRU_ERROR_MEMORY;
            } else {
                *bytes = model->owned;
                result = read_all(fd, model->owned, *nbytes);
            }
        } else {
            *nbytes = (size_t)st.st_size;
            void *map = mmap(NULL, *nbytes, PROT_READ, MAP_SHARED, fd, 0);
            if (map != MAP_FAILED) {
                model->mapped = map;
                *bytes = map;
                result = GRU_OK;
            }
        }
    }
    int error = errno;
    close(fd);
    errno = error;
    return result;
}

static void unmap(gru_model *model) {
    if (model->mapped) {
        munmap(model->mapped, model->info.file_nbytes);
    }
}

#endif

/* Reads the options by their own size, so that a caller compiled with fewer fields works. */
static gru_open_options options_of(const gru_open_options *given) {
    gru_open_options options = {0};
    if (given) {
        size_t known = given->struct_nbytes < sizeof options ? given->struct_nbytes : sizeof options;
        memcpy(&options, given, known);
    }
    return options;
}

static gru_result fail(gru_model *model, gru_result result) {
    gru_close(model);
    return result;
}

static gru_result parse(gru_model *model, const unsigned char *bytes, size_t nbytes, int verify, char *message,
                        gru_model **out) {
    const uint16_t one = 1;
    model->info.file_nbytes = nbytes;
    if (*(const unsigned char *)&one != 1) {
        snprintf(message, GRU_MESSAGE_NBYTES, "a .gru file is little-endian, this machine is not");
        return fail(model, GRU_ERROR_UNSUPPORTED);
    }
    if (!gru_kernels_used()) {
        snprintf(
            message, GRU_MESSAGE_NBYTES,
            "the environment variable GRU_ENGINE_ISA is '%.100s', which names no kernels that this machine can run",
            getenv("GRU_ENGINE_ISA"));
        return fail(model, GRU_ERROR_ARGUMENT);
    }
    gru_result result = gru_model_parse(model, bytes, nbytes, verify, message);
    if (result != GRU_OK) {
        return fail(model, result);
    }
    gru_model_plan(model, model->info.n_outputs);
    *out = model;
    return GRU_OK;
}

gru_result gru_open(const char *path, const gru_open_options *given, gru_model **out, char *message) {
    char unwanted[GRU_MESSAGE_NBYTES];
    message = message ? message : unwanted;
    *message = 0;
    if (!out) {
        return GRU_ERROR_ARGUMENT;
    }
    *out = NULL;
    if (!path) {
        snprintf(message, GRU_MESSAGE_NBYTES, "path is NULL");
        return GRU_ERROR_ARGUMENT;
    }
    const gru_open_options options = options_of(given);
    gru_model *model = calloc(1, sizeof *model);
    const unsigned char *bytes = NULL;
    size_t nbytes = 0;
    gru_result result = model ? read_file(path, options.copy, model, &bytes, &nbytes) : GRU_ERROR_MEMORY;
    if (result != GRU_OK) {
        int error = errno;
        snprintf(message, GRU_MESSAGE_NBYTES, "%s", result == GRU_ERROR_IO ? strerror(error) : "out of memory");
        gru_close(model);
        errno = error;
        return result;
    }
    return parse(model, bytes, nbytes, !options.skip_verify, message, out);
}

gru_result gru_open_memory(const void *data, size_t nbytes, const gru_open_options *given, gru_model **out,
                           char *message) {
    char unwanted[GRU_MESSAGE_NBYTES];
    message = message ? message : unwanted;
    *message = 0;
    if (!out) {
        return GRU_ERROR_ARGUMENT;
    }
    *out = NULL;
    const gru_open_options options = options_of(given);
    if (!data || (!options.copy && (uintptr_t)data % 64 != 0)) {
        snprintf(message, GRU_MESSAGE_NBYTES, data ? "data is not aligned to 64 bytes" : "data is NULL");
        return GRU_ERROR_ARGUMENT;
    }
    gru_model *model = calloc(1, sizeof *model);
    const unsigned char *bytes = data;
    if (model && options.copy) {
        model->owned = malloc(nbytes + 64);
        if (model->owned) {
            unsigned char *aligned = (unsigned char *)model->owned + (64 - (uintptr_t)model->owned % 64);
            memcpy(aligned, data, nbytes);
            bytes = aligned;
        }
    }
    if (!model || (options.copy && !model->owned)) {
        snprintf(message, GRU_MESSAGE_NBYTES, "out of memory");
        gru_close(model);
        return GRU_ERROR_MEMORY;
    }
    return parse(model, bytes, nbytes, !options.skip_verify, message, out);
}

void gru_close(gru_model *model) {
    if (model) {
        unmap(model);
        free(model->owned);
        free(model->nodes);
        free(model->outputs);
        free(model);
    }
}

void gru_get_info(const gru_model *model, gru_info *info) { *info = model->info; }

gru_result gru_get_input(const gru_model *model, size_t i, const char **name, size_t *first, size_t *width,
                         size_t *vocabulary) {
    if (i >= model->info.n_inputs) {
        return GRU_ERROR_ARGUMENT;
    }
    const gru_node *n = &model->nodes[i];
    *name = n->name;
    *first = n->column;
    *width = n->op == GRU_OP_TOKENS ? 1 : n->width;
    *vocabulary = n->op == GRU_OP_TOKENS ? n->width : 0;
    return GRU_OK;
}

gru_result gru_get_context(const gru_model *model, size_t i, const char **name, size_t *first, size_t *width) {
    if (i >= model->info.n_contexts) {
        return GRU_ERROR_ARGUMENT;
    }
    const gru_node *n = &model->nodes[model->info.n_inputs + i];
    *name = n->name;
    *first = n->column;
    *width = n->width;
    return GRU_OK;
}

size_t gru_output_steps(const gru_model *model, size_t n_steps) {
    return model->info.per_sequence ? 1 : gru_axis_steps(&model->axes[model->output_axis], n_steps);
}

gru_result gru_get_output(const gru_model *model, size_t i, const char **name, size_t *first, size_t *width) {
    if (i >= model->info.n_outputs) {
        return GRU_ERROR_ARGUMENT;
    }
    *name = model->outputs[i].name;
    *first = model->outputs[i].first;
    *width = model->outputs[i].width;
    return GRU_OK;
}

void gru_get_file(const gru_model *model, const void **bytes, size_t *nbytes) {
    *bytes = model->bytes;
    *nbytes = model->info.file_nbytes;
}

/* ------------------------------------------------------------------------------------------------ states */

/* Copies what a node keeps out of a state block, oldest step first, or into it. */
static void copy_kept(const gru_node *n, float *kept, float *values, int out) {
    size_t first = 0; /* floats that stand behind the others in the ring */
    if (n->op == GRU_OP_WINDOW) {
        const size_t width = n->state_width / n->history;
        if (!out) {
            gru_ring_set_oldest(kept, 0);
        }
        first = gru_ring_oldest(kept) * width;
        kept += GRU_STATE_HEADER_FLOATS;
    }
    const size_t rest = n->state_width - first;
    if (out) {
        memcpy(values, kept + first, rest * sizeof(float));
        memcpy(values + rest, kept, first * sizeof(float));
    } else {
        memcpy(kept, values, rest * sizeof(float));
    }
}

void gru_state_init(const gru_model *model, float *state) {
    gru_state_set_flags(state, GRU_STATE_AT_START);
    gru_state_set_has_context(state, 0);
    for (size_t i = 0; i < model->info.n_nodes; i++) {
        const gru_node *n = &model->nodes[i];
        if (n->h0_node) {
            memset(state + n->h_offset, 0, n->state_width * sizeof(float));
        } else if (n->h0) {
            memcpy(state + n->h_offset, n->h0, n->state_width * sizeof(float));
        } else if (n->state_width) {
            memset(state + n->h_offset, 0, (GRU_STATE_HEADER_FLOATS + n->state_width) * sizeof(float));
        }
    }
}

void gru_state_get(const gru_model *model, const float *state, float *values) {
    for (size_t i = 0; i < model->info.n_nodes; i++) {
        const gru_node *n = &model->nodes[i];
        if (n->state_width) {
            copy_kept(n, (float *)(uintptr_t)(state + n->h_offset), values, 1);
            values += n->state_width;
        }
    }
}

void gru_state_set(const gru_model *model, float *state, const float *values) {
    gru_state_set_flags(state, 0);
    gru_state_set_has_context(state, 0);
    for (size_t i = 0; i < model->info.n_nodes; i++) {
        const gru_node *n = &model->nodes[i];
        if (n->state_width) {
            copy_kept(n, state + n->h_offset, (float *)(uintptr_t)values, 0);
            values += n->state_width;
        }
    }
}

gru_result gru_state_context(const gru_model *model, const float *state, float *context) {
    if (model->info.context_width && !gru_state_has_context(state)) {
        return GRU_ERROR_CONTEXT;
    }
    memcpy(context, state + model->context_offset, model->info.context_width * sizeof(float));
    return GRU_OK;
}

gru_result gru_copy_context(const gru_model *model, const float *from, float *to) {
    if (!model->info.context_width) {
        return GRU_OK;
    }
    if (!gru_state_has_context(from)) {
        return GRU_ERROR_CONTEXT;
    }
    memmove(to + model->context_offset, from + model->context_offset, model->held_values_width * sizeof(float));
    gru_state_set_has_context(to, 1);
    gru_state_begin(model, to);
    return GRU_OK;
}

void gru_state_begin(const gru_model *model, float *state) {
    if (!(gru_state_flags(state) & GRU_STATE_AT_START)) {
        return;
    }
    for (size_t i = 0; i < model->info.n_nodes; i++) {
        const gru_node *n = &model->nodes[i];
        if (n->h0_node) {
            memcpy(state + n->h_offset, gru_held_row(n->h0_node, state), n->width * sizeof(float));
            gru_state_set_flags(state, GRU_STATE_AT_START); /* what was prepared is not valid any more */
        }
    }
}
