/*
 * Saved sessions. Input: a byte that chooses the model and the cache, and whether the hash is made to fit what the file holds
 * (a hash can be forged, and few mutations would get past it otherwise); then the file. A session that loads goes on.
 */
#include "base/hash.h"
#include "fuzz.h"
#include "model/session.h"

enum { MODELS = 2, CACHES = DM_CACHE_F32 + 1, CONTEXT = 12, HELD = 5, FORGED = 0x80 };
enum { HEADER = 56, LENGTH_AT = 48 }; /* bytes of a file's header, and where in it the number of tokens stands */

static dm_model *models[MODELS];
static int32_t vocab;

/* Small models with weights that are always the same, so that the seeds' fingerprints stay theirs. */
static void make_models(void) {
    static const dm_model_info shapes[MODELS] = {
        {.architecture = "llama", .layers = 2, .dim = 8, .heads = 2, .kv_heads = 1, .head_dim = 6, .context = 16, .ffn_dim = 8},
        {.architecture = "gpt2", .layers = 2, .dim = 8, .heads = 2, .context = 16, .ffn_dim = 8},
    };
    for (int i = 0; i < MODELS; i++) {
        dm_model_info made;
        char path[] = "/dev/shm/dilmodeli-fuzz-XXXXXX";
        close(mkstemp(path));
        FUZZ_CHECK(dm_model_create(path, &shapes[i], NULL, true, "f32", 1, &made) == DM_OK);
        FUZZ_CHECK(dm_model_open(path, &models[i]) == DM_OK);
        unlink(path);
        vocab = made.vocab;
    }
}

static dm_session *open_session(uint8_t choice) {
    if (models[0] == NULL) {
        make_models();
    }
    const dm_session_options options = {.context = CONTEXT, .cache = (dm_cache_type)((choice & ~FORGED) / MODELS % CACHES)};
    dm_session *session;
    FUZZ_CHECK(dm_session_create_with(models[choice % MODELS], &options, &session) == DM_OK);
    return session;
}

static void feed(dm_session *session, int32_t n) {
    const int32_t ids[CONTEXT] = {1, 5, 2, 7, 100, 200};
    float *logits = calloc((size_t)vocab, sizeof *logits);
    FUZZ_CHECK(logits != NULL && dm_session_feed(session, ids, n, false, logits) == DM_OK);
    free(logits);
}

/* Puts the right hash at the end of a file whose size is right: each stretch of the file adds to it. */
static void forge(uint8_t *bytes, size_t size, const dm_session *session) {
    const dm_kv_cache *cache = &session->cache;
    size_t arrays = 2 * cache->n_layers * cache->n_heads;
    uint64_t length = UINT64_MAX;
    if (size >= HEADER) {
        memcpy(&length, bytes + LENGTH_AT, sizeof length);
    }
    if (length > CONTEXT || size != HEADER + length * (sizeof(int32_t) + arrays * cache->row_bytes) + sizeof(uint64_t)) {
        return;
    }
    uint64_t hash = dm_hash_bytes(bytes, HEADER, 0);
    bytes += HEADER;
    for (size_t i = 0; i <= arrays; i++) {
        size_t stretch = length * (i == 0 ? sizeof(int32_t) : cache->row_bytes);
        hash = dm_hash_bytes(bytes, stretch, hash);
        bytes += stretch;
    }
    memcpy(bytes, &hash, sizeof hash);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 1) {
        return 0;
    }
    uint8_t *copy = malloc(size);
    FUZZ_CHECK(copy != NULL);
    memcpy(copy, data, size);
    dm_session *session = open_session(data[0]);
    if ((data[0] & FORGED) != 0) {
        forge(copy + 1, size - 1, session);
    }
    char path[32];
    int file = fuzz_file(copy + 1, size - 1, path);
    feed(session, 2);
    if (dm_session_load(session, path) == DM_OK) {
        FUZZ_CHECK(dm_session_length(session) >= 0 && dm_session_length(session) <= CONTEXT);
        dm_session_truncate(session, CONTEXT - 3);
        feed(session, 3);
    } else {
        FUZZ_CHECK(dm_session_length(session) == 2 && strncmp(dm_error_message(), path, strlen(path)) == 0);
    }
    close(file);
    dm_session_free(session);
    free(copy);
    return 0;
}

static void fuzz_seeds(void) {
    for (uint8_t choice = 0; choice < MODELS * CACHES; choice++) {
        char path[] = "/dev/shm/dilmodeli-seed-XXXXXX", name[32];
        close(mkstemp(path));
        dm_session *session = open_session(choice);
        feed(session, HELD);
        FUZZ_CHECK(dm_session_save(session, path) == DM_OK);
        dm_session_free(session);
        static uint8_t seed[1 << 16];
        FILE *stream = fopen(path, "rb");
        FUZZ_CHECK(stream != NULL);
        size_t size = 1 + fread(seed + 1, 1, sizeof seed - 1, stream);
        fclose(stream);
        unlink(path);
        for (int forged = 0; forged <= FORGED; forged += FORGED) {
            seed[0] = (uint8_t)(choice | forged);
            snprintf(name, sizeof name, "session-%d-%d", choice, forged != 0);
            fuzz_seed(name, seed, size);
        }
    }
}
