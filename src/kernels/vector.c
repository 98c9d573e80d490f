/* Which table of row operations runs here. */
#include "kernels/vector.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "kernels/vector_tables.h"

#if defined(__x86_64__)
#include <cpuid.h>

/* Half-precision conversions have no name in older compilers' __builtin_cpu_supports; AVX2 there vouches for the
 * operating system. */
static bool has_f16c(void) {
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C) != 0;
}

static bool has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
}

static bool has_avx512(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#elif defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>

static bool has_neon(void) {
    return (getauxval(AT_HWCAP) & HWCAP_ASIMD) != 0;
}
#endif

size_t dm_vector_tables(const dm_vector_table *tables[4]) {
    size_t n = 0;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (has_avx512()) {
        tables[n++] = &dm_vector_avx512;
    }
    if (has_avx2()) {
        tables[n++] = &dm_vector_avx2;
    }
#elif defined(__aarch64__)
    if (has_neon()) {
        tables[n++] = &dm_vector_neon;
    }
#endif
    tables[n++] = &dm_vector_scalar;
    return n;
}

static const dm_vector_table *chosen;
static pthread_once_t chosen_once = PTHREAD_ONCE_INIT;

static void choose(void) {
    const dm_vector_table *tables[4];
    size_t n = dm_vector_tables(tables);
    const char *wanted = getenv("DILMODELI_ISA");
    chosen = tables[0];
    if (wanted == NULL || wanted[0] == '\0') {
        return;
    }
    for (size_t i = 0; i < n; i++) {
        if (strcmp(tables[i]->isa, wanted) == 0) {
            chosen = tables[i];
            return;
        }
    }
    dm_log("DILMODELI_ISA=%s cannot run on this machine; using %s", wanted, chosen->isa);
}

const dm_vector_table *dm_vector(void) {
    pthread_once(&chosen_once, choose);
    return chosen;
}

const char *dm_isa(void) {
    return dm_vector()->isa;
}
