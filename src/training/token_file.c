#include "training/token_file.h"

#include <errno.h>
#include <string.h>

/* Where the header's fields lie. Bytes 60 to 63 are zero. */
enum {
    AT_MAGIC = 0,      /* 8 bytes */
    AT_VERSION = 8,    /* uint32 */
    AT_WIDTH = 12,     /* uint32 */
    AT_TOKENIZER = 16, /* uint64 fingerprint */
    AT_SOURCE = 24,    /* uint64 fingerprint */
    AT_COUNT = 32,     /* uint64 */
    AT_BYTES = 40,     /* uint64 */
    AT_CHECKSUM = 48,  /* uint64 */
    AT_VOCAB = 56,     /* uint32 */
};
static const char magic[8] = {'D', 'M', 'T', 'O', 'K', 'E', 'N', 'S'};

static void put(uint8_t *bytes, uint64_t value, size_t width) {
    for (size_t i = 0; i < width; i++) {
        bytes[i] = (uint8_t)(value >> (8 * i));
    }
}

static uint64_t get(const uint8_t *bytes, size_t width) {
    uint64_t value = 0;
    for (size_t i = 0; i < width; i++) {
        value |= (uint64_t)bytes[i] << (8 * i);
    }
    return value;
}

/* One id's share of the checksum, their sum modulo 2^64. The factor is odd, so no change of a single id goes unseen, and
 * it depends on the place, so neither does a swap; being a sum, it can be taken in parallel. */
static uint64_t check_id(uint64_t index, uint32_t id) {
    return ((uint64_t)id + 1) * ((2 * index + 1) * 0x9e3779b97f4a7c15u);
}

/* ---- Writing ---- */

dm_status dm_token_writer_open(const char *path, const dm_tokenizer *tokenizer, uint64_t source, dm_token_writer *out) {
    int32_t vocab = dm_tokenizer_vocab(tokenizer);
    *out = (dm_token_writer){
        .width = vocab <= 1 << 16 ? 2 : 4,
        .vocab = (uint32_t)vocab,
        .tokenizer = dm_tokenizer_fingerprint(tokenizer),
        .source = source,
    };
    DM_TRY(dm_replace_open(path, &out->file));
    static const uint8_t room[DM_TOKENS_HEADER];
    if (fwrite(room, 1, sizeof room, out->file.stream) != sizeof room) {
        dm_fail(DM_ERR_IO, "%s: cannot write: %s", path, strerror(errno));
        dm_token_writer_abandon(out);
        return DM_ERR_IO;
    }
    return DM_OK;
}

dm_status dm_token_writer_add(dm_token_writer *writer, const int32_t *ids, size_t n, uint64_t bytes) {
    uint8_t buffer[4096];
    size_t used = 0;
    for (size_t i = 0; i < n; i++) {
        if (ids[i] < 0 || (uint32_t)ids[i] >= writer->vocab) {
            return dm_fail(DM_ERR_INTERNAL, "the tokenizer made id %d, outside its vocabulary of %u", ids[i], writer->vocab);
        }
        put(buffer + used, (uint32_t)ids[i], writer->width);
        writer->checksum += check_id(writer->count++, (uint32_t)ids[i]);
        used += writer->width;
        if (used == sizeof buffer || i + 1 == n) {
            if (fwrite(buffer, 1, used, writer->file.stream) != used) {
                return dm_fail(DM_ERR_IO, "%s: cannot write: %s", writer->file.path, strerror(errno));
            }
            used = 0;
        }
    }
    writer->bytes += bytes;
    return DM_OK;
}

dm_status dm_token_writer_finish(dm_token_writer *writer) {
    uint8_t header[DM_TOKENS_HEADER] = {0};
    memcpy(header + AT_MAGIC, magic, sizeof magic);
    put(header + AT_VERSION, DM_TOKENS_VERSION, 4);
    put(header + AT_WIDTH, writer->width, 4);
    put(header + AT_TOKENIZER, writer->tokenizer, 8);
    put(header + AT_SOURCE, writer->source, 8);
    put(header + AT_COUNT, writer->count, 8);
    put(header + AT_BYTES, writer->bytes, 8);
    put(header + AT_CHECKSUM, writer->checksum, 8);
    put(header + AT_VOCAB, writer->vocab, 4);
    if (fseek(writer->file.stream, 0, SEEK_SET) != 0 || fwrite(header, 1, sizeof header, writer->file.stream) != sizeof header) {
        dm_fail(DM_ERR_IO, "%s: cannot write: %s", writer->file.path, strerror(errno));
        dm_token_writer_abandon(writer);
        return DM_ERR_IO;
    }
    return dm_replace_commit(&writer->file);
}

void dm_token_writer_abandon(dm_token_writer *writer) {
    dm_replace_abandon(&writer->file);
}

/* ---- Reading ---- */

static dm_status check_header(const dm_map *map, const char *path, const dm_tokenizer *tokenizer, dm_tokens *out) {
    const uint8_t *header = map->data;
    if (map->size < DM_TOKENS_HEADER || memcmp(header + AT_MAGIC, magic, sizeof magic) != 0) {
        return dm_fail(DM_ERR_FORMAT, "%s: not a token file", path);
    }
    uint64_t version = get(header + AT_VERSION, 4), width = get(header + AT_WIDTH, 4);
    if (version != DM_TOKENS_VERSION) {
        return dm_fail(DM_ERR_UNSUPPORTED, "%s: token file of version %u, expected %d", path, (unsigned)version,
                       DM_TOKENS_VERSION);
    }
    if (get(header + AT_TOKENIZER, 8) != dm_tokenizer_fingerprint(tokenizer) ||
        get(header + AT_VOCAB, 4) != (uint64_t)dm_tokenizer_vocab(tokenizer)) {
        return dm_fail(DM_ERR_FORMAT, "%s: made with another tokenizer", path);
    }
    if (width != 2 && width != 4) {
        return dm_fail(DM_ERR_FORMAT, "%s: ids of %u bytes, expected 2 or 4", path, (unsigned)width);
    }
    out->wide = width == 4;
    out->source = get(header + AT_SOURCE, 8);
    out->count = get(header + AT_COUNT, 8);
    out->bytes = get(header + AT_BYTES, 8);
    out->ids = header + DM_TOKENS_HEADER;
    uint64_t room = map->size - DM_TOKENS_HEADER;
    if (room % width != 0 || out->count != room / width) {
        return dm_fail(DM_ERR_FORMAT, "%s: %llu tokens announced, %llu bytes found for them", path,
                       (unsigned long long)out->count, (unsigned long long)room);
    }
    return DM_OK;
}

enum { CHECK = 16 << 20 }; /* ids checked before their memory is given back */

/* Reads every id once, so that none can reach outside a table of the vocabulary's size later on. */
static dm_status check_ids(const dm_tokens *tokens, const char *path, uint32_t vocab) {
    const uint8_t *ids = tokens->ids;
    const size_t width = tokens->wide ? 4 : 2;
    uint32_t largest = 0;
    uint64_t checksum = 0;
    for (uint64_t first = 0; first < tokens->count; first += CHECK) {
        const uint64_t end = tokens->count - first > CHECK ? first + CHECK : tokens->count;
#pragma omp parallel for schedule(static) reduction(max : largest) reduction(+ : checksum)
        for (uint64_t i = first; i < end; i++) {
            uint32_t id = (uint32_t)get(ids + i * width, width);
            largest = id > largest ? id : largest;
            checksum += check_id(i, id);
        }
        dm_map_release(&tokens->map, DM_TOKENS_HEADER + first * width, DM_TOKENS_HEADER + end * width);
    }
    if (tokens->count > 0 && largest >= vocab) {
        return dm_fail(DM_ERR_FORMAT, "%s: holds token %u, outside the vocabulary of %u", path, largest, vocab);
    }
    if (checksum != get(tokens->map.data + AT_CHECKSUM, 8)) {
        return dm_fail(DM_ERR_FORMAT, "%s: damaged, the checksum of its tokens is wrong", path);
    }
    return DM_OK;
}

dm_status dm_tokens_open(const char *path, const dm_tokenizer *tokenizer, dm_tokens *out) {
    *out = (dm_tokens){0};
    DM_TRY(dm_map_open(path, &out->map));
    dm_status status = check_header(&out->map, path, tokenizer, out);
    if (status == DM_OK) {
        status = check_ids(out, path, (uint32_t)dm_tokenizer_vocab(tokenizer));
    }
    if (status != DM_OK) {
        dm_tokens_close(out);
    }
    return status;
}

void dm_tokens_close(dm_tokens *tokens) {
    dm_map_close(&tokens->map);
    *tokens = (dm_tokens){0};
}

void dm_tokens_copy(const dm_tokens *tokens, uint64_t start, size_t n, int32_t *out) {
    const size_t width = tokens->wide ? 4 : 2;
    const uint8_t *ids = (const uint8_t *)tokens->ids + start * width;
    for (size_t i = 0; i < n; i++) {
        out[i] = (int32_t)get(ids + i * width, width);
    }
}
