#include "kernels/processor.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

static bool bit(unsigned word, unsigned index) {
    return (word >> index & 1) != 0;
}

/* Linux hands the tile registers only to a process that asks. */
static bool may_use_tiles(void) {
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 }; /* ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA */
    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}

/* The compiler's own test of avx2 and avx512f vouches for the operating system; the bits are those of Intel's manual. */
static void ask(dm_processor *p) {
    unsigned a, b, c, d;
    __builtin_cpu_init();
    p->avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __get_cpuid(1, &a, &b, &c, &d) && bit(c, 29);
    p->avx512 = p->avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    if (p->avx512 && __get_cpuid_count(7, 0, &a, &b, &c, &d)) {
        p->avx512_vbmi = bit(c, 1);
        p->avx512_vnni = bit(c, 11);
        p->amx_bf16 = bit(d, 22);
        p->amx_int8 = bit(d, 25);
        bool tiles = bit(d, 24) && (p->amx_bf16 || p->amx_int8) && may_use_tiles();
        p->amx_bf16 = p->amx_bf16 && tiles;
        p->amx_int8 = p->amx_int8 && tiles;
    }
    if (p->avx512 && __get_cpuid_count(7, 1, &a, &b, &c, &d)) {
        p->avx512_bf16 = bit(a, 5);
    }
}

/* Takes away what lies above `isa`; false where it lies above the machine itself or is unknown. */
static bool limit(dm_processor *p, const char *isa) {
    bool avx512 = strcmp(isa, "avx512") == 0, avx2 = strcmp(isa, "avx2") == 0;
    if ((avx512 && !p->avx512) || (avx2 && !p->avx2) || (!avx512 && !avx2 && strcmp(isa, "scalar") != 0)) {
        return false;
    }
    p->amx_bf16 = p->amx_int8 = false;
    if (!avx512) {
        *p = (dm_processor){.avx2 = avx2};
    }
    return true;
}
#elif defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>

static void ask(dm_processor *p) {
    unsigned long capabilities = getauxval(AT_HWCAP);
    p->neon = (capabilities & HWCAP_ASIMD) != 0;
    p->dotprod = p->neon && (capabilities & HWCAP_ASIMDDP) != 0;
}

static bool limit(dm_processor *p, const char *isa) {
    if (strcmp(isa, "scalar") == 0) {
        *p = (dm_processor){.neon = false};
        return true;
    }
    return p->neon && strcmp(isa, "neon") == 0;
}
#else
static void ask(dm_processor *p) {
    (void)p;
}

static bool limit(dm_processor *p, const char *isa) {
    (void)p;
    return strcmp(isa, "scalar") == 0;
}
#endif

static dm_processor features;
static const char *wanted_isa;
static bool met = true;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void find_out(void) {
    ask(&features);
    wanted_isa = getenv("DILMODELI_ISA");
    if (wanted_isa != NULL && wanted_isa[0] != '\0') {
        met = limit(&features, wanted_isa);
    }
}

const dm_processor *dm_processor_features(void) {
    pthread_once(&once, find_out);
    return &features;
}

bool dm_processor_request_met(const char **wanted) {
    pthread_once(&once, find_out);
    *wanted = wanted_isa;
    return met;
}
