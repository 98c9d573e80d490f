#include "quantization/compress_solutions.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

dm_status dm_solutions_open(dm_solutions *it, const char *to) {
    const size_t room = strlen(to) + sizeof ".XXXXXX";
    char *name = malloc(room);
    *it = (dm_solutions){.to = to};
    if (name == NULL) {
        return dm_fail(DM_ERR_MEMORY, "out of memory");
    }
    snprintf(name, room, "%s.XXXXXX", to);
    const int descriptor = mkstemp(name);
    it->stream = descriptor >= 0 ? fdopen(descriptor, "w+b") : NULL;
    if (descriptor >= 0) {
        unlink(name);
    }
    if (it->stream == NULL && descriptor >= 0) {
        close(descriptor);
    }
    free(name);
    return it->stream != NULL ? DM_OK : dm_fail(DM_ERR_IO, "%s: cannot write beside it: %s", to, strerror(errno));
}

void dm_solutions_close(dm_solutions *it) {
    if (it->stream != NULL) {
        fclose(it->stream);
        it->stream = NULL;
    }
}

dm_status dm_solutions_add(dm_solutions *it, const void *data, size_t bytes) {
    if (fseeko(it->stream, (off_t)it->written, SEEK_SET) != 0 || fwrite(data, 1, bytes, it->stream) != bytes) {
        return dm_fail(DM_ERR_IO, "%s: cannot write beside it: %s", it->to, strerror(errno));
    }
    it->written += bytes;
    return DM_OK;
}

dm_status dm_solutions_read(const dm_solutions *it, uint64_t at, void *out, size_t bytes) {
    if (fseeko(it->stream, (off_t)at, SEEK_SET) != 0 || fread(out, 1, bytes, it->stream) != bytes) {
        return dm_fail(DM_ERR_IO, "%s: cannot read back what was compressed", it->to);
    }
    return DM_OK;
}
