/*
 * Sessions on disk: a header, the tokens, the keys and values of each layer and head, and a hash of all that. Numbers are
 * of this machine's byte order; a file from another kind of machine fails at its header.
 */
#include <inttypes.h>
#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "model/fingerprint.h"
#include "model/session.h"

/* All that must be the same where a session is loaded; `length` is what it holds. */
typedef struct header {
    char magic[8];
    uint64_t model; /* fingerprint */
    uint64_t type, layers, heads, width;
    uint64_t length;
} header;

static header header_of(const dm_session *session) {
    const dm_kv_cache *cache = &session->cache;
    return (header){.magic = {'D', 'M', 'S', 'E', 'S', 'S', '0', '1'},
                    .model = dm_model_fingerprint(session->model),
                    .type = (uint64_t)cache->type,
                    .layers = cache->n_layers,
                    .heads = cache->n_heads,
                    .width = cache->width,
                    .length = (uint64_t)session->length};
}

/* A stretch of the session's memory that the file holds. */
typedef struct stretch {
    void *data;
    size_t bytes;
} stretch;

/* Stretch number i of `length` positions: the tokens, then keys and values of every head, block by block; data NULL
 * past the last. */
static stretch stretch_at(const dm_session *session, size_t i, size_t length) {
    const dm_kv_cache *cache = &session->cache;
    if (i == 0) {
        return (stretch){session->ids, length * sizeof *session->ids};
    }
    size_t blocks = (length + DM_KV_BLOCK - 1) / DM_KV_BLOCK;
    size_t first = blocks > 0 ? (i - 1) % blocks * DM_KV_BLOCK : 0;
    size_t array_number = blocks > 0 ? (i - 1) / blocks : i - 1, head = array_number / 2;
    if (head >= cache->n_layers * cache->n_heads) {
        return (stretch){NULL, 0};
    }
    uint8_t *array = array_number % 2 == 0 ? cache->keys : cache->values;
    return (stretch){dm_kv_cache_row(cache, array, (int32_t)(head / cache->n_heads), head % cache->n_heads, first),
                     (length - first < DM_KV_BLOCK ? length - first : DM_KV_BLOCK) * cache->row_bytes};
}

/* ---- Saving ---- */

static void write_all(const dm_session *session, FILE *stream) {
    const header start = header_of(session);
    uint64_t hash = dm_hash_bytes(&start, sizeof start, 0);
    fwrite(&start, sizeof start, 1, stream); /* errors are reported when the file is committed */
    for (size_t i = 0;; i++) {
        stretch part = stretch_at(session, i, (size_t)session->length);
        if (part.data == NULL) {
            break;
        }
        hash = dm_hash_bytes(part.data, part.bytes, hash);
        fwrite(part.data, 1, part.bytes, stream);
    }
    fwrite(&hash, sizeof hash, 1, stream);
}

dm_status dm_session_save(const dm_session *session, const char *path) {
    dm_replace file;
    DM_TRY(dm_replace_open(path, &file));
    write_all(session, file.stream);
    return dm_replace_commit(&file);
}

/* ---- Loading ---- */

static dm_status check_header(const dm_session *session, const header *found, const char *path) {
    const header own = header_of(session);
    if (memcmp(found->magic, own.magic, sizeof own.magic) != 0) {
        return dm_fail(DM_ERR_FORMAT, "%s: not a saved session", path);
    }
    if (found->model != own.model) {
        return dm_fail(DM_ERR_ARGUMENT, "%s: was saved with another model; remove it or name another file", path);
    }
    if (found->type != own.type) {
        const char *type = found->type < DM_TYPES ? dm_type_name((uint32_t)found->type) : NULL;
        return dm_fail(DM_ERR_ARGUMENT, "%s: was saved with keys and values in %s, expected %s", path,
                       type != NULL ? type : "an unknown type", dm_type_name((uint32_t)own.type));
    }
    if (found->layers != own.layers || found->heads != own.heads || found->width != own.width) {
        return dm_fail(DM_ERR_FORMAT, "%s: holds keys and values of another shape", path);
    }
    if (found->length > (uint64_t)session->context) {
        return dm_fail(DM_ERR_ARGUMENT, "%s: holds %" PRIu64 " tokens, the context only %d; ask for a longer one", path,
                       found->length, session->context);
    }
    return DM_OK;
}

/* The length is at most the context, for which all these sizes fit. */
static dm_status check_size(const dm_session *session, const dm_map *map, size_t length, const char *path) {
    size_t expected = sizeof(header) + sizeof(uint64_t) + length * sizeof(int32_t);
    expected += length * dm_kv_cache_position_bytes(&session->cache);
    if (map->size != expected) {
        return dm_fail(DM_ERR_FORMAT, "%s: has %zu bytes, expected %zu for its %zu tokens", path, map->size, expected, length);
    }
    return DM_OK;
}

static dm_status check_contents(const dm_session *session, const dm_map *map, size_t length, const char *path) {
    uint64_t hash = dm_hash_bytes(map->data, sizeof(header), 0), stated;
    const uint8_t *at = map->data + sizeof(header);
    for (size_t i = 0;; i++) {
        stretch part = stretch_at(session, i, length);
        if (part.data == NULL) {
            break;
        }
        hash = dm_hash_bytes(at, part.bytes, hash);
        at += part.bytes;
    }
    memcpy(&stated, at, sizeof stated);
    if (hash != stated) {
        return dm_fail(DM_ERR_FORMAT, "%s: is damaged: its contents are not those that were saved", path);
    }
    for (size_t i = 0; i < length; i++) { /* a hash can be forged, and ids index the vocabulary */
        int32_t id;
        memcpy(&id, map->data + sizeof(header) + i * sizeof id, sizeof id);
        if (id < 0 || id >= session->model->config.vocab) {
            return dm_fail(DM_ERR_FORMAT, "%s: token number %zu is %" PRId32 ", outside the vocabulary", path, i + 1, id);
        }
    }
    return DM_OK;
}

static void read_all(dm_session *session, const dm_map *map, size_t length) {
    const uint8_t *at = map->data + sizeof(header);
    for (size_t i = 0;; i++) {
        stretch part = stretch_at(session, i, length);
        if (part.data == NULL) {
            break;
        }
        memcpy(part.data, at, part.bytes);
        at += part.bytes;
    }
    session->length = (int32_t)length;
}

static dm_status load(dm_session *session, const dm_map *map, const char *path) {
    header found;
    if (map->size < sizeof found) {
        return dm_fail(DM_ERR_FORMAT, "%s: not a saved session (it has %zu bytes)", path, map->size);
    }
    memcpy(&found, map->data, sizeof found);
    DM_TRY(check_header(session, &found, path));
    DM_TRY(check_size(session, map, (size_t)found.length, path));
    DM_TRY(check_contents(session, map, (size_t)found.length, path));
    read_all(session, map, (size_t)found.length);
    return DM_OK;
}

dm_status dm_session_load(dm_session *session, const char *path) {
    dm_map map;
    DM_TRY(dm_map_open(path, &map));
    dm_status status = load(session, &map, path);
    dm_map_close(&map);
    return status;
}
