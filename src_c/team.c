/* SPDX-License-Identifier: Apache-2.0 */
/* Members wait for work and for each other by spinning for some microseconds, because the next step is often that near,
 * and then by sleeping, so that nothing burns a core. */
#if !defined(_WIN32)
#define _POSIX_C_SOURCE 200809L
#endif
#include "team.h"

#include <stdlib.h>

#if defined(_WIN32)

struct gru_team { int unused; };

gru_result gru_team_create(int n_threads, gru_team **team) {
    *team = NULL;
    return n_threads == 1 ? GRU_OK : GRU_ERROR_UNSUPPORTED;
}

void gru_team_free(gru_team *team) { (void)team; }

size_t gru_team_ready(gru_team *team) {
    (void)team;
    return 1;
}

void gru_team_run(gru_team *team, void (*work)(void *context, size_t member), void *context) {
    (void)team;
    work(context, 0);
}

void gru_team_barrier(gru_team *team) { (void)team; }

int gru_has_threads(void) { return 0; }

#else

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

enum {
    SPIN = 4000,        /* looks at a flag before sleeping or giving way: some 20 to 50 µs */
    STOP_GENERATION = 0 /* what tells members to end */
};

typedef struct member {
    gru_team *team;
    pthread_t thread;
    size_t number;
} member;

struct gru_team {
    size_t size;
    pid_t process; /* whose threads the members are: those of a parent do not exist in a forked child */
    void (*work)(void *context, size_t member);
    void *context;
    atomic_uint generation; /* goes up with every piece of work */
    atomic_size_t working;  /* members other than the caller that are not done yet */
    atomic_size_t arrived;  /* at the barrier */
    atomic_uint phase;      /* of the barrier */
    pthread_mutex_t mutex;  /* guards sleeping only */
    pthread_cond_t wake;    /* new work */
    pthread_cond_t done;    /* work finished */
    member members[];
};

static void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Waits for a generation other than `seen` and returns it. */
static unsigned next_generation(gru_team *team, unsigned seen) {
    for (int i = 0; i < SPIN; i++) {
        const unsigned generation = atomic_load_explicit(&team->generation, memory_order_acquire);
        if (generation != seen) {
            return generation;
        }
        relax();
    }
    pthread_mutex_lock(&team->mutex);
    while (atomic_load_explicit(&team->generation, memory_order_acquire) == seen) {
        pthread_cond_wait(&team->wake, &team->mutex);
    }
    const unsigned generation = atomic_load_explicit(&team->generation, memory_order_acquire);
    pthread_mutex_unlock(&team->mutex);
    return generation;
}

/* The new generation is set under the mutex, so that a member on its way to sleep cannot miss it. */
static void set_generation(gru_team *team, unsigned generation) {
    pthread_mutex_lock(&team->mutex);
    atomic_store_explicit(&team->generation, generation, memory_order_release);
    pthread_cond_broadcast(&team->wake);
    pthread_mutex_unlock(&team->mutex);
}

static void *serve(void *argument) {
    const member *self = argument;
    gru_team *team = self->team;
    for (unsigned generation = 1;;) {
        generation = next_generation(team, generation);
        if (generation == STOP_GENERATION) {
            return NULL;
        }
        team->work(team->context, self->number);
        if (atomic_fetch_sub_explicit(&team->working, 1, memory_order_acq_rel) == 1) {
            pthread_mutex_lock(&team->mutex);
            pthread_cond_signal(&team->done);
            pthread_mutex_unlock(&team->mutex);
        }
    }
}

static void stop(gru_team *team, size_t n_started) {
    set_generation(team, STOP_GENERATION);
    for (size_t i = 1; i < n_started; i++) {
        pthread_join(team->members[i].thread, NULL);
    }
    pthread_cond_destroy(&team->done);
    pthread_cond_destroy(&team->wake);
    pthread_mutex_destroy(&team->mutex);
}

/* Starts all members but the caller, with all flags at their beginning. */
static gru_result start(gru_team *team) {
    team->process = getpid();
    atomic_init(&team->generation, 1);
    atomic_init(&team->working, 0);
    atomic_init(&team->arrived, 0);
    atomic_init(&team->phase, 0);
    pthread_mutex_init(&team->mutex, NULL);
    pthread_cond_init(&team->wake, NULL);
    pthread_cond_init(&team->done, NULL);
    for (size_t i = 1; i < team->size; i++) {
        team->members[i] = (member){.team = team, .number = i};
        if (pthread_create(&team->members[i].thread, NULL, serve, &team->members[i]) != 0) {
            stop(team, i);
            return GRU_ERROR_MEMORY;
        }
    }
    return GRU_OK;
}

gru_result gru_team_create(int n_threads, gru_team **out) {
    if (!out || n_threads < 1 || n_threads > 1024) {
        return GRU_ERROR_ARGUMENT;
    }
    *out = NULL;
    if (n_threads == 1) {
        return GRU_OK;
    }
    gru_team *team = calloc(1, sizeof *team + (size_t)n_threads * sizeof(member));
    if (!team) {
        return GRU_ERROR_MEMORY;
    }
    team->size = (size_t)n_threads;
    const gru_result result = start(team);
    if (result != GRU_OK) {
        free(team);
        return result;
    }
    *out = team;
    return GRU_OK;
}

void gru_team_free(gru_team *team) {
    if (team && team->process == getpid()) {
        stop(team, team->size);
    }
    free(team);
}

size_t gru_team_ready(gru_team *team) {
    if (!team) {
        return 1;
    }
    if (team->process != getpid() && start(team) != GRU_OK) {
        team->process = 0; /* another try next time */
        return 1;
    }
    return team->size;
}

void gru_team_run(gru_team *team, void (*work)(void *context, size_t member), void *context) {
    if (!team) {
        work(context, 0);
        return;
    }
    team->work = work;
    team->context = context;
    atomic_store_explicit(&team->working, team->size - 1, memory_order_relaxed);
    unsigned next = atomic_load_explicit(&team->generation, memory_order_relaxed) + 1;
    set_generation(team, next == STOP_GENERATION ? next + 1 : next);
    work(context, 0);
    for (int i = 0; i < SPIN; i++) {
        if (atomic_load_explicit(&team->working, memory_order_acquire) == 0) {
            return;
        }
        relax();
    }
    pthread_mutex_lock(&team->mutex);
    while (atomic_load_explicit(&team->working, memory_order_acquire) != 0) {
        pthread_cond_wait(&team->done, &team->mutex);
    }
    pthread_mutex_unlock(&team->mutex);
}

void gru_team_barrier(gru_team *team) {
    if (!team || team->size == 1) {
        return;
    }
    const unsigned phase = atomic_load_explicit(&team->phase, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&team->arrived, 1, memory_order_acq_rel) + 1 == team->size) {
        atomic_store_explicit(&team->arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&team->phase, phase + 1, memory_order_release);
        return;
    }
    for (int i = 0; atomic_load_explicit(&team->phase, memory_order_acquire) == phase; i++) {
        if (i < SPIN) {
            relax();
        } else {
            sched_yield();
        }
    }
}

int gru_has_threads(void) { return 1; }

#endif
