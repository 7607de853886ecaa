/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gru_engine: trained GRU networks stepped on a CPU. This header is the manual of the C library.
 *
 * A *model* is an opened .gru file: immutable, for any number of threads at once, shared between processes.
 * A *state* is the memory of one stream: a flat block that the caller owns, info.state_nbytes long.
 * A *workspace* is scratch memory that one call uses and nothing outlives; the caller owns it and may use one
 * workspace for any number of streams and models, one call at a time.
 *
 *     gru_model *model;
 *     char why[GRU_MESSAGE_NBYTES];
 *     if (gru_open("denoise.gru", NULL, &model, why) != GRU_OK) { ... why says what is wrong ... }
 *     gru_info info;
 *     gru_get_info(model, &info);
 *     float *state = malloc(info.state_nbytes);
 *     void *workspace = malloc(gru_step_workspace_nbytes(model));
 *     gru_state_init(model, state);
 *     while (next_frame(x)) {
 *         gru_step(model, state, x, NULL, y, workspace);
 *     }
 *     gru_close(model);
 *
 * Rules that hold for every function:
 *   - It never prints, exits, aborts or sets a signal handler, and it does not touch the floating-point mode.
 *   - Only gru_open, gru_open_memory and gru_team_create allocate; only a team has threads of its own. gru_step,
 *     gru_prepare and, without a team, gru_generate take no lock, make no system call and may be called in an audio callback.
 *   - Different states may be used by different threads at the same time; one state or one workspace may not.
 *   - Pointers need the alignment that malloc gives or, to floats, that of a float. 64 bytes are faster.
 *   - Outputs may not overlap inputs.
 *   - After a result other than GRU_OK no state and no output has changed.
 *   - Results are the same bits on every CPU, alone or in a batch, step by step or as a sequence (docs/NUMERICS.md).
 */
#ifndef GRU_ENGINE_H
#define GRU_ENGINE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define GRU_API __attribute__((visibility("default")))
#else
#define GRU_API
#endif

typedef struct gru_model gru_model;

typedef enum gru_result {
    GRU_OK = 0,
    GRU_ERROR_ARGUMENT = 1,    /* a NULL where none is allowed, an unknown name, a workspace that is too small */
    GRU_ERROR_MEMORY = 2,      /* malloc failed (gru_open, gru_open_memory) */
    GRU_ERROR_IO = 3,          /* the file cannot be opened, read or mapped; errno says why */
    GRU_ERROR_FORMAT = 4,      /* not a .gru file, or a damaged one */
    GRU_ERROR_UNSUPPORTED = 5, /* a .gru file of a later version, or one that needs what this build or machine lacks */
    GRU_ERROR_TOKEN = 6,       /* a token that is negative or not below the vocabulary size */
    GRU_ERROR_NOT_CAUSAL = 7,  /* a network that needs later steps cannot be stepped, only run over whole sequences */
    GRU_ERROR_LENGTH = 8,      /* a length above the number of steps, or below info.least_steps */
    GRU_ERROR_SCORES = 9,      /* scores among which no token can be chosen: gru_generate */
    GRU_ERROR_CONTEXT = 10     /* a stream of a network with contexts that none has been set for: gru_set_context */
} gru_result;

/* A constant English phrase for a result; never NULL. */
GRU_API const char *gru_result_string(gru_result result);

/* "0.1.0". */
GRU_API const char *gru_version(void);

/* ------------------------------------------------------------------------------------------------ models */

typedef struct gru_open_options {
    size_t struct_nbytes; /* sizeof(gru_open_options): tells which fields the caller knows */
    /* gru_open: 0 maps the file, read-only and shared; 1 reads it into private memory, so that the file may change or
     * go away. gru_open_memory: 0 uses the caller's bytes, which must stay as they are until gru_close and be aligned
     * to 64 bytes; 1 copies them. */
    int copy;
    /* 0 checks the checksum of every byte (about 1 GB/s). 1 leaves out the weights' checksum: what C reads stays inside
     * the file whatever it holds, but damaged weights go unnoticed. */
    int skip_verify;
} gru_open_options;

#define GRU_MESSAGE_NBYTES 256

/* Opens a .gru file. options may be NULL (all fields 0). On success *model is the caller's, to be given to gru_close.
 * On failure *model is NULL and message (GRU_MESSAGE_NBYTES bytes, or NULL if not wanted) says what was wrong, where.
 * */
GRU_API gru_result gru_open(const char *path, const gru_open_options *options, gru_model **model, char *message);

/* The same from a file's bytes in memory. */
GRU_API gru_result gru_open_memory(const void *data, size_t nbytes, const gru_open_options *options, gru_model **model,
                                   char *message);

/* Frees the model and unmaps its file. No call may be using it. NULL is fine. */
GRU_API void gru_close(gru_model *model);

typedef struct gru_info {
    size_t input_width;  /* floats per step; 0 if the input is tokens alone */
    size_t n_tokens;     /* tokens per step; 0 if the input is a vector alone */
    size_t vocabulary;   /* of the first token: it is below this; 0 if there is none */
    size_t n_inputs;     /* named parts of the input: parts of the vector, and tokens */
    size_t output_width; /* floats per step */
    size_t n_outputs;    /* named parts of the output vector */
    size_t state_width;  /* floats of a state as gru_state_get gives it: what its nodes keep, one after the other */
    size_t state_nbytes; /* bytes of a state block */
    size_t n_nodes;      /* operations of the program */
    size_t file_nbytes;
    size_t least_steps;   /* of a sequence: 1 or more where a value per sequence is made of steps, else 0 */
    size_t context_width; /* floats of a context vector; 0 if the network has no contexts */
    size_t n_contexts;    /* named parts of the context vector */
    int causal;           /* 1: can be stepped; 0: needs later steps (a reverse layer, a mean ...), only gru_run */
    int per_sequence;     /* 1: one output vector per sequence (of its last step, its mean ...), 0: one per step */
    int other_steps; /* 1: some values have other steps than the inputs (a stride, say), so that there is no `reset` */
    uint8_t digest[32]; /* SHA-256 of everything that determines a result */
} gru_info;

GRU_API void gru_get_info(const gru_model *model, gru_info *info);

/* Input i < n_inputs: its name (owned by the model; "" if an only input has none). A part of the vector: its first float there, its
 * width, and vocabulary 0. A token: its place among the tokens of a step, 1, and the number that it is below. */
GRU_API gru_result gru_get_input(const gru_model *model, size_t i, const char **name, size_t *first, size_t *width,
                                 size_t *vocabulary);

/* Context i < n_contexts: its name (owned by the model; "" if an only context has none), its first float in the context
 * vector, its width. */
GRU_API gru_result gru_get_context(const gru_model *model, size_t i, const char **name, size_t *first, size_t *width);

/* Output i < n_outputs: its name (owned by the model), its first float in the output vector, its width. */
GRU_API gru_result gru_get_output(const gru_model *model, size_t i, const char **name, size_t *first, size_t *width);

/* How many output vectors gru_run writes for a sequence of n_steps: n_steps, unless the network has strides, convolutions
 * without padding and the like; 1 if per_sequence. */
GRU_API size_t gru_output_steps(const gru_model *model, size_t n_steps);

/* The file's bytes, as mapped or copied; valid until gru_close. */
GRU_API void gru_get_file(const gru_model *model, const void **bytes, size_t *nbytes);

/* ------------------------------------------------------------------------------------------------ states */

/* Sets a state block to the start of a sequence, without a context. A block must be initialised by this or by gru_state_set
 * before anything else. */
GRU_API void gru_state_init(const gru_model *model, float *state);

/* Copies the hidden states out of, or into, a block: state_width floats. The context is no part of them: after
 * gru_state_set the block has none. */
GRU_API void gru_state_get(const gru_model *model, const float *state, float *values);
GRU_API void gru_state_set(const gru_model *model, float *state, const float *values);

/* A state block may be copied with memcpy: that forks the stream, its context included. */

/* ------------------------------------------------------------------------------------------------ contexts */

/* Some networks read, besides the inputs of their steps, *contexts*: what a stream is given once and keeps, such as a
 * speaker. What the network computes of contexts alone is computed when they are set, and kept in the state block. Until
 * then, and after gru_state_init and gru_state_set, gru_step, gru_prepare, gru_run and gru_generate give
 * GRU_ERROR_CONTEXT. */

/* Sets the context vector of a stream, context_width floats, before the first step or between two. The hidden states do
 * not change. The same bytes again cost a comparison. workspace: gru_step_workspace_nbytes. GRU_ERROR_ARGUMENT if the
 * network has no contexts. */
GRU_API gru_result gru_set_context(const gru_model *model, float *state, const float *context, void *workspace);

/* Copies the context vector out of a block: context_width floats. GRU_ERROR_CONTEXT if none has been set. */
GRU_API gru_result gru_state_context(const gru_model *model, const float *state, float *context);

/* Gives a stream another one's context with all that was computed of it; its own hidden states stay. Does nothing if the
 * network has no contexts. */
GRU_API gru_result gru_copy_context(const gru_model *model, const float *from, float *to);

/* ------------------------------------------------------------------------------------------------ stepping */

/* Bytes of workspace that gru_step and gru_prepare need. */
GRU_API size_t gru_step_workspace_nbytes(const gru_model *model);

/* One step of one stream. vector: input_width floats, or NULL if the model reads tokens alone; token: n_tokens tokens, or
 * NULL if it reads none. output: output_width floats. */
GRU_API gru_result gru_step(const gru_model *model, float *state, const float *vector, const int32_t *token,
                            float *output, void *workspace);

/* Computes, while the stream is idle, the half of the next step that does not depend on its input; the next gru_step or
 * the first step of the next gru_run then takes less time. Changes no result. Doing it twice does no harm. */
GRU_API gru_result gru_prepare(const gru_model *model, float *state, void *workspace);

/* ------------------------------------------------------------------------------------------------ running */

/* A team of threads, the caller's among them, for gru_run. One call at a time may use it. Between calls its threads
 * sleep (after some 50 µs of looking out for the next one). After a fork the child can go on using it: its threads are
 * started anew there. */
typedef struct gru_team gru_team;

/* Starts n_threads - 1 threads. *team is the caller's, to be given to gru_team_free; for n_threads = 1 it is NULL,
 * which is a team too. Results: GRU_ERROR_ARGUMENT (not from 1 to 1024), GRU_ERROR_MEMORY (no more threads to be had),
 * GRU_ERROR_UNSUPPORTED (built without threads). */
GRU_API gru_result gru_team_create(int n_threads, gru_team **team);
/* Ends the threads. NULL is fine. */
GRU_API void gru_team_free(gru_team *team);

typedef struct gru_run_args {
    size_t struct_nbytes;  /* sizeof(gru_run_args) */
    size_t n_streams;      /* B */
    size_t n_steps;        /* T */
    const float *vectors;  /* [B][T][input_width], or NULL if the model reads tokens alone */
    const int32_t *tokens; /* [B][T][n_tokens], or NULL if it reads none */
    float *const
        *states; /* [B] state blocks, all different: before the first step on entry, after the last on return */
    float *
        outputs; /* [B][gru_output_steps(model, T)][output_width]: T steps, but for a few networks, 1 if per_sequence */
    const size_t *lengths; /* [B], each at most T: steps from there on are padding; NULL: all T */
    const uint8_t *reset;  /* [B][T], nonzero: a new sequence begins at this step; NULL: nowhere. Networks some of whose
                            * values have other steps than the inputs cannot begin anew: GRU_ERROR_ARGUMENT */
    int carry_padding; /* outputs of padding steps: 0: zeros (ONNX, PyTorch), 1: the last valid output again (Keras) */
    gru_team *team;    /* the threads to use; NULL: the calling one alone */
} gru_run_args;

/* Bytes of workspace for gru_run of n_streams (B) over n_steps (T) with a team of n_threads. For T = 1 it is enough for
 * fewer streams and threads too. */
GRU_API size_t gru_run_workspace_nbytes(const gru_model *model, size_t n_streams, size_t n_steps, int n_threads);

/* Runs B streams over T steps. One step of any set of streams is T = 1. A network that is not causal sees the whole
 * sequence at once; its states of reverse layers go from the sequence's end to its start. B = 0 or T = 0 does nothing.
 * */
GRU_API gru_result gru_run(const gru_model *model, const gru_run_args *args, void *workspace, size_t workspace_nbytes);

/* ------------------------------------------------------------------------------------------------ generating */

/* What the floats of an output say about the tokens. */
typedef enum gru_scores {
    GRU_SCORES_UNKNOWN = 0,
    GRU_SCORES_LOGITS = 1,            /* any finite number, or -infinity: never this token */
    GRU_SCORES_LOG_PROBABILITIES = 2, /* treated as logits are; need not be normalised */
    GRU_SCORES_PROBABILITIES = 3      /* from 0 on; need not add up to 1 */
} gru_scores;

/* What output i holds by the operation that computes it: log-probabilities of a log-softmax, probabilities of a softmax,
 * logits of a dense layer without an activation. GRU_SCORES_UNKNOWN for anything else and if there is no output i. */
GRU_API gru_scores gru_get_scores(const gru_model *model, size_t i);

typedef struct gru_generate_args {
    size_t struct_nbytes; /* sizeof(gru_generate_args) */
    const int32_t *first; /* [n_first] the prompt */
    size_t n_first;       /* at least 1 */
    int32_t *tokens;      /* [n_tokens], written; may be NULL if n_tokens is 0 */
    size_t n_tokens;      /* most tokens to generate */
    size_t output;        /* the number of the output that scores the next token; its width must be the vocabulary's */
    gru_scores scores;    /* what it holds; GRU_SCORES_UNKNOWN: what gru_get_scores says */
    double temperature;   /* 0: always the token of the largest score; else finite and positive, 1: as the model says */
    size_t top_k;         /* choose among this many tokens of the largest scores; 0: among all */
    double top_p;  /* then among the fewest of the largest whose probabilities come to this share; 0 or 1: among all */
    uint64_t seed; /* of the random numbers: the same seed, the same tokens, on any machine */
    uint64_t offset;     /* how many of the seed's random numbers to skip: each token takes one */
    const int32_t *stop; /* [n_stop] tokens that end the generation; NULL if n_stop is 0 */
    size_t n_stop;
    gru_team *team; /* the threads to use; NULL: the calling one alone */
} gru_generate_args;

/* Bytes of workspace for gru_generate with a team of n_threads. */
GRU_API size_t gru_generate_workspace_nbytes(const gru_model *model, int n_threads);

/* Feeds the prompt to a stream, then chooses a token by the output, feeds it, chooses the next, and so on, until there
 * are n_tokens or one of `stop` has been chosen, which is the last one then. docs/GENERATION.md says how.
 *
 * The model must read one token per step and nothing else. *n_generated is the number of tokens written.
 *
 * On return everything but the very last token, of the prompt if n_tokens is 0, has been fed: hand that one over as
 * `first` of the next call. Generating n tokens and then, with `offset` higher by n, another m is the same as
 * generating n + m: cut a long generation up to look after something else meanwhile.
 *
 * Results: GRU_ERROR_ARGUMENT, GRU_ERROR_TOKEN (of first or stop), GRU_ERROR_NOT_CAUSAL, and GRU_ERROR_SCORES if an
 * output holds a NaN, +infinity, a negative probability, or nothing above -infinity or probability 0. *n_generated is
 * then the number of tokens before that, and `tokens` may have been written to; the state is as it was before the
 * call. */
GRU_API gru_result gru_generate(const gru_model *model, float *state, const gru_generate_args *args,
                                size_t *n_generated, void *workspace, size_t workspace_nbytes);

/* ------------------------------------------------------------------------------------------------ instruction sets */

/* Kernels exist for several instruction sets; the best that this machine can run is used, or the one that the
 * environment variable GRU_ENGINE_ISA names when the first model is opened. */

/* Name of the i-th kernel set in this build, worst first ("generic", "avx2", "avx512", "neon"), or NULL from the end
 * on. */
GRU_API const char *gru_isa_built(size_t i);
/* 1 if this machine, its operating system included, can run it; 0 if not or if there is none of that name. */
GRU_API int gru_isa_usable(const char *name);
/* The one in use. NULL if GRU_ENGINE_ISA names none that is usable. */
GRU_API const char *gru_isa_used(void);
/* Uses this one from the next call on, in all threads; NULL: the best. GRU_ERROR_ARGUMENT if it is not usable. */
GRU_API gru_result gru_isa_set(const char *name);

/* 1 if teams of several threads can be made. */
GRU_API int gru_has_threads(void);

#ifdef __cplusplus
}
#endif

#endif
