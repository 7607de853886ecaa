/* SPDX-License-Identifier: Apache-2.0 */
/* What the machine can run, its operating system included. */
#ifndef GRU_CPU_H
#define GRU_CPU_H

int gru_cpu_has_generic(void);
int gru_cpu_has_avx2(void);
int gru_cpu_has_avx512(void);
int gru_cpu_has_avx512_vnni(void);
int gru_cpu_has_neon(void);
int gru_cpu_has_neon_dot(void);

#endif
