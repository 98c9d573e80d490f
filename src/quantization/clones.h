/* Functions whose loops go over the 16 rows of a panel, compiled for wider vectors too and chosen when the program is loaded.
 * Products and sums stay apart and in their order (-ffp-contract=off), so every one gives the same bits. */
#ifndef DM_QUANTIZATION_CLONES_H
#define DM_QUANTIZATION_CLONES_H

/* Sanitizers are not ready yet when functions are chosen. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) &&                         \
    !defined(__SANITIZE_THREAD__)
#define DM_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define DM_CLONES
#endif

/* The 16 rows, anywhere in memory. */
typedef float dm_lanes __attribute__((vector_size(64), aligned(4), may_alias));

static inline dm_lanes *dm_lanes_at(float *rows) {
    return (dm_lanes *)(void *)rows;
}
static inline const dm_lanes *dm_const_lanes_at(const float *rows) {
    return (const dm_lanes *)(const void *)rows;
}

#endif
