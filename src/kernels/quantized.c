/* Which table of products with panels runs here. */
#include "kernels/quantized.h"

#include <pthread.h>

#include "kernels/processor.h"
#include "kernels/quantized_tables.h"

size_t dm_quantized_tables(const dm_quantized_table *tables[4]) {
    const dm_processor *processor = dm_processor_features();
    size_t n = 0;
#if defined(__x86_64__)
    if (processor->avx512_vnni) {
        tables[n++] = &dm_quantized_avx512;
    }
    if (processor->avx2) {
        tables[n++] = &dm_quantized_avx2;
    }
#elif defined(__aarch64__)
    if (processor->dotprod) {
        tables[n++] = &dm_quantized_neon;
    }
#else
    (void)processor;
#endif
    tables[n++] = &dm_quantized_scalar;
    return n;
}

static const dm_quantized_table *chosen;
static pthread_once_t chosen_once = PTHREAD_ONCE_INIT;

static void choose(void) {
    const dm_quantized_table *tables[4];
    dm_quantized_tables(tables);
    chosen = tables[0];
}

const dm_quantized_table *dm_quantized(void) {
    pthread_once(&chosen_once, choose);
    return chosen;
}
