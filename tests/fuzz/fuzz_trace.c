/*
 * Traces of experts. Input: such a file. One that is read has its experts within it, each once in a layer of a pass, and can be
 * replayed to every policy; what is as large as the file says is not replayed.
 */
#include "fuzz.h"
#include "moe/replay.h"

enum { MOST_REPLAYED = 4096 };

static void check(const dm_trace *t) {
    const size_t records = t->passes * (size_t)t->shape.layers;
    FUZZ_CHECK(t->starts[0] == 0);
    for (size_t i = 0; i < records; i++) {
        FUZZ_CHECK(t->starts[i] <= t->starts[i + 1] && t->starts[i + 1] - t->starts[i] <= (size_t)t->shape.experts);
    }
    for (size_t i = 0; i < t->starts[records]; i++) {
        FUZZ_CHECK(t->experts[i] >= 0 && t->experts[i] < t->shape.experts);
    }
}

static void replay(const dm_trace *t) {
    uint64_t misses[DM_EVICTION_POLICIES], different;
    const int32_t slots = (t->shape.experts + 1) / 2;
    FUZZ_CHECK(dm_replay_different(t, &different) == DM_OK);
    for (int shared = 0; shared < 2; shared++) {
        for (int policy = 0; policy < DM_EVICTION_POLICIES; policy++) {
            const dm_eviction_rule rule = {(dm_eviction_policy)policy, 0.5};
            FUZZ_CHECK(dm_replay(t, &rule, shared == 1, slots, &misses[policy]) == DM_OK);
            FUZZ_CHECK(misses[policy] >= different && misses[policy] <= dm_replay_asked(t));
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char path[32];
    int file = fuzz_file(data, size, path);
    dm_trace trace;
    if (dm_trace_read(path, &trace) == DM_OK) {
        check(&trace);
        if ((int64_t)trace.shape.layers * trace.shape.experts <= MOST_REPLAYED) {
            replay(&trace);
        }
        dm_trace_free(&trace);
    }
    close(file);
    return 0;
}

static void fuzz_seeds(void) {
    const uint8_t file[] = {'D', 'M', 'T', 'R', 'A', 'C', 'E', '1', 2, 0, 0, 0, 5, 0, 0, 0, 232, 3, 0, 0, 0, 0,
                            0,   0,   2,   0,   0,   0,   0,   0,   0, 0, 1, 2, 0, 4, 1, 3, 1,   0, 2, 1, 2};
    fuzz_seed("whole", file, sizeof file);
    fuzz_seed("cut", file, sizeof file - 1);
    fuzz_seed("header", file, DM_TRACE_HEADER);
}
