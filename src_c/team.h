/* SPDX-License-Identifier: Apache-2.0 */
/* A team of threads that does one piece of work at a time, all members running the same function. gru_engine.h has what
 * callers see of it.
 *
 * Why not OpenMP: its threads belong to the process rather than to a caller, do not survive a fork, spin after the work
 * for as long as an environment variable says, and several of its run times in one process get in each other's way. */
#ifndef GRU_TEAM_H
#define GRU_TEAM_H

#include "gru_engine.h"

/* Members that can work now, the caller among them; 1 for NULL. In a forked child it starts the threads anew; if the
 * child may not have any, the caller is alone. */
size_t gru_team_ready(gru_team *team);

/* Calls work(context, member) once for each member at the same time and returns when all have returned. The caller is
 * member 0. Call gru_team_ready before; NULL is the caller alone. */
void gru_team_run(gru_team *team, void (*work)(void *context, size_t member), void *context);

/* Inside the work: returns when all members have come here. What they wrote before is visible to all after. Does
 * nothing for NULL. */
void gru_team_barrier(gru_team *team);

#endif
