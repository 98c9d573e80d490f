/* Which table of row operations runs here. */
#include "kernels/vector.h"

#include <pthread.h>

#include "base/status.h"
#include "kernels/processor.h"
#include "kernels/vector_tables.h"

size_t dm_vector_tables(const dm_vector_table *tables[4]) {
    const dm_processor *processor = dm_processor_features();
    size_t n = 0;
#if defined(__x86_64__)
    if (processor->avx512) {
        tables[n++] = &dm_vector_avx512;
    }
    if (processor->avx2) {
        tables[n++] = &dm_vector_avx2;
    }
#elif defined(__aarch64__)
    if (processor->neon) {
        tables[n++] = &dm_vector_neon;
    }
#else
    (void)processor;
#endif
    tables[n++] = &dm_vector_scalar;
    return n;
}

static const dm_vector_table *chosen;
static pthread_once_t chosen_once = PTHREAD_ONCE_INIT;

static void choose(void) {
    const dm_vector_table *tables[4];
    const char *wanted;
    dm_vector_tables(tables);
    chosen = tables[0];
    if (!dm_processor_request_met(&wanted)) {
        dm_log("DILMODELI_ISA=%s cannot run on this machine; using %s", wanted, chosen->isa);
    }
}

const dm_vector_table *dm_vector(void) {
    pthread_once(&chosen_once, choose);
    return chosen;
}

const char *dm_isa(void) {
    return dm_vector()->isa;
}
