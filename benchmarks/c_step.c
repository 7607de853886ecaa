/* SPDX-License-Identifier: Apache-2.0
 *
 * A step without Python: least CPU time of gru_step, and of gru_step after gru_prepare, in one thread.
 *
 *     c_step MODEL.gru [SECONDS]      prints JSON, in seconds
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "gru_engine.h"

enum { STREAMS = 64 };

static double now(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int main(int argc, char **argv) {
    char message[GRU_MESSAGE_NBYTES];
    gru_model *model;
    if (argc < 2 || gru_open(argv[1], NULL, &model, message) != GRU_OK) {
        fprintf(stderr, "%s\n", argc < 2 ? "c_step MODEL.gru" : message);
        return 1;
    }
    double budget = argc > 2 ? atof(argv[2]) : 0.05;
    gru_info info;
    gru_get_info(model, &info);
    size_t stride = (info.state_nbytes + 63) / 64 * 64;
    size_t scratch = (gru_step_workspace_nbytes(model) + 63) / 64 * 64 + 64;
    char *states = aligned_alloc(64, STREAMS * stride), *workspace = aligned_alloc(64, scratch);
    float *x = calloc(info.input_width + 1, sizeof *x), *y = calloc(info.output_width, sizeof *y);
    int32_t token = 0;
    const float *vector = info.input_width ? x : NULL;
    const int32_t *tokens = info.input_width ? NULL : &token;
    if (!states || !workspace || !x || !y) return 1;
    for (size_t i = 0; i < info.input_width; i++) x[i] = (float)(i % 7) / 7 - 0.5f;
    for (size_t s = 0; s < STREAMS; s++) gru_state_init(model, (float *)(states + s * stride));

    double best[3] = {1e9, 1e9, 1e9}; /* one stream; 64 streams in turns; those after gru_prepare */
    double end = now(CLOCK_MONOTONIC) + budget;
    size_t n = 64;
    do {
        double t = now(CLOCK_THREAD_CPUTIME_ID);
        for (size_t i = 0; i < n; i++) gru_step(model, (float *)states, vector, tokens, y, workspace);
        t = now(CLOCK_THREAD_CPUTIME_ID) - t;
        if (t < 300e-6) {
            n *= 2;
            continue;
        }
        if (t / (double)n < best[0]) best[0] = t / (double)n;
        for (int prepared = 0; prepared < 2; prepared++) {
            double sum = 0;
            size_t rounds = 0;
            for (; sum < 600e-6; rounds++) {
                if (prepared)
                    for (size_t s = 0; s < STREAMS; s++) gru_prepare(model, (float *)(states + s * stride), workspace);
                t = now(CLOCK_THREAD_CPUTIME_ID);
                for (size_t s = 0; s < STREAMS; s++)
                    gru_step(model, (float *)(states + s * stride), vector, tokens, y, workspace);
                sum += now(CLOCK_THREAD_CPUTIME_ID) - t;
            }
            sum /= (double)(rounds * STREAMS);
            if (sum < best[1 + prepared]) best[1 + prepared] = sum;
        }
    } while (now(CLOCK_MONOTONIC) < end || best[0] > 1e8);
    printf("{\"step\": %.4e, \"step of 64 streams\": %.4e, \"after prepare\": %.4e}\n", best[0], best[1], best[2]);
    free(states);
    free(workspace);
    free(x);
    free(y);
    gru_close(model);
    return 0;
}
