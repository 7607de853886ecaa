/* SPDX-License-Identifier: Apache-2.0 */
/* Steps a model 100 times and prints what comes out.
 *
 *     make example && build/c/stream model.gru
 *
 * The inputs are made up, so that the program needs nothing but the file: frame t holds sin(t + k), token t is t modulo the vocabulary. */
#include <gru_engine.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { N_STEPS = 100 };

static int run(const gru_model *model) {
    gru_info info;
    gru_get_info(model, &info);

    /* All memory that the stream will ever need. The library allocates nothing from here on. */
    float *state = malloc(info.state_nbytes);
    void *workspace = malloc(gru_step_workspace_nbytes(model));
    float *frame = calloc(info.input_width + 1, sizeof *frame); /* + 1: a model of tokens has no frames */
    int32_t *tokens = calloc(info.n_tokens + 1, sizeof *tokens);
    float *output = malloc(info.output_width * sizeof *output);
    gru_result result = state && workspace && frame && tokens && output ? GRU_OK : GRU_ERROR_MEMORY;

    if (result == GRU_OK) {
        gru_state_init(model, state);
    }
    for (int t = 0; t < N_STEPS && result == GRU_OK; t++) {
        for (size_t i = 0; i < info.n_inputs; i++) {
            const char *name;
            size_t first, width, vocabulary;
            gru_get_input(model, i, &name, &first, &width, &vocabulary);
            if (vocabulary) {
                tokens[first] = t % (int32_t)vocabulary;
            }
        }
        for (size_t k = 0; k < info.input_width; k++) {
            frame[k] = (float)sin((double)(t + (int)k));
        }
        result =
            gru_step(model, state, info.input_width ? frame : NULL, info.n_tokens ? tokens : NULL, output, workspace);
        for (size_t i = 0; i < info.output_width && result == GRU_OK; i++) {
            printf("%.9g%c", (double)output[i],
                   i + 1 < info.output_width ? ' ' : '\n'); /* nine digits are every bit of a float */
        }
    }
    free(state);
    free(workspace);
    free(frame);
    free(tokens);
    free(output);
    if (result != GRU_OK) {
        fprintf(stderr, "stream: %s\n", gru_result_string(result));
    }
    return result == GRU_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: %s model.gru\n", argv[0]);
        return 2;
    }
    gru_model *model;
    char why[GRU_MESSAGE_NBYTES];
    if (gru_open(argv[1], NULL, &model, why) != GRU_OK) {
        fprintf(stderr, "stream: %s: %s\n", argv[1], why);
        return EXIT_FAILURE;
    }
    const int status = run(model);
    gru_close(model);
    return status;
}
