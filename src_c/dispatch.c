/* SPDX-License-Identifier: Apache-2.0 */
/* Which kernels this machine can run, and which are in use. */
#include "cpu.h"
#include "kernels.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* Worst first. */
static const gru_kernels *const built[] = {
    &gru_kernels_generic,
#ifdef GRU_BUILD_X86
    &gru_kernels_avx2,     &gru_kernels_avx512, &gru_kernels_avx512_vnni,
#endif
#ifdef GRU_BUILD_NEON
    &gru_kernels_neon,
#endif
#ifdef GRU_BUILD_NEON_DOT
    &gru_kernels_neon_dot,
#endif
};
#define N_BUILT (sizeof built / sizeof built[0])

int gru_cpu_has_generic(void) { return 1; }

#ifdef GRU_BUILD_NEON
int gru_cpu_has_neon(void) { return 1; /* part of AArch64 */ }
#endif

#ifdef GRU_BUILD_NEON_DOT
#include <sys/auxv.h>

int gru_cpu_has_neon_dot(void) { return getauxval(AT_HWCAP) >> 20 & 1; /* HWCAP_ASIMDDP */ }
#endif

#ifdef GRU_BUILD_X86
#include <cpuid.h>

/* The register sets that the operating system saves on a context switch (XCR0); 0 if it does not say. */
static unsigned saved_registers(void) {
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE)) {
        return 0;
    }
    unsigned low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

#define SAVED_AVX 0x06u    /* SSE, AVX */
#define SAVED_AVX512 0xE6u /* and the mask registers and both parts of the 512-bit registers */

int gru_cpu_has_avx2(void) {
    unsigned a, b, c, d;
    if ((saved_registers() & SAVED_AVX) != SAVED_AVX || !__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_AVX) ||
        !(c & bit_FMA) || !(c & bit_F16C)) {
        return 0;
    }
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_AVX2);
}

int gru_cpu_has_avx512(void) {
    const unsigned needed = bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL;
    unsigned a, b, c, d;
    return (saved_registers() & SAVED_AVX512) == SAVED_AVX512 && gru_cpu_has_avx2() &&
           __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & needed) == needed;
}

int gru_cpu_has_avx512_vnni(void) {
    unsigned a, b, c, d;
    return gru_cpu_has_avx512() && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (c & bit_AVX512VNNI);
}
#endif

static const gru_kernels *by_name(const char *name) {
    for (size_t i = 0; i < N_BUILT; i++) {
        if (strcmp(built[i]->name, name) == 0) {
            return built[i];
        }
    }
    return NULL;
}

static const gru_kernels *best(void) {
    for (size_t i = N_BUILT; i-- > 0;) {
        if (built[i]->usable()) {
            return built[i];
        }
    }
    return &gru_kernels_generic;
}

/* Found out at the first use. Threads that come first at the same time all find the same, so that no lock is needed. */
static _Atomic(const gru_kernels *) used;

const gru_kernels *gru_kernels_used(void) {
    const gru_kernels *kernels = atomic_load_explicit(&used, memory_order_acquire);
    if (!kernels) {
        const char *name = getenv("GRU_ENGINE_ISA");
        if (name && *name) {
            kernels = gru_isa_usable(name) ? by_name(name) : NULL;
        } else {
            kernels = best();
        }
        if (kernels) {
            atomic_store_explicit(&used, kernels, memory_order_release);
        }
    }
    return kernels;
}

const char *gru_isa_built(size_t i) { return i < N_BUILT ? built[i]->name : NULL; }

int gru_isa_usable(const char *name) {
    const gru_kernels *kernels = name ? by_name(name) : NULL;
    return kernels && kernels->usable();
}

const char *gru_isa_used(void) {
    const gru_kernels *kernels = gru_kernels_used();
    return kernels ? kernels->name : NULL;
}

gru_result gru_isa_set(const char *name) {
    if (name && !gru_isa_usable(name)) {
        return GRU_ERROR_ARGUMENT;
    }
    atomic_store_explicit(&used, name ? by_name(name) : best(), memory_order_release);
    return GRU_OK;
}
