#include "base/pseudo_file.h"

#include <inttypes.h>
#include <limits.h>
#include <string.h>

FILE *dm_pseudo_open(const char *root, const char *path) {
    char whole[PATH_MAX];
    int length = snprintf(whole, sizeof whole, "%s%s", root, path);
    return length > 0 && (size_t)length < sizeof whole ? fopen(whole, "re") : NULL;
}

bool dm_pseudo_line(const char *root, const char *path, char *text, size_t size) {
    FILE *file = dm_pseudo_open(root, path);
    bool read = file != NULL && fgets(text, (int)size, file) != NULL;
    if (file != NULL) {
        fclose(file);
    }
    if (!read) {
        text[0] = '\0';
    }
    text[strcspn(text, "\n")] = '\0';
    return read;
}

bool dm_pseudo_number(const char *root, const char *path, uint64_t *out) {
    char text[32];
    *out = 0;
    return dm_pseudo_line(root, path, text, sizeof text) && sscanf(text, "%" SCNu64, out) == 1;
}

bool dm_pseudo_value(const char *root, const char *path, const char *key, uint64_t *out) {
    FILE *file = dm_pseudo_open(root, path);
    char line[256], name[128];
    bool found = false;
    *out = 0;
    while (file != NULL && !found && fgets(line, sizeof line, file) != NULL) {
        found = sscanf(line, "%127[^: \t\n]%*[: \t]%" SCNu64, name, out) == 2 && strcmp(name, key) == 0;
    }
    if (file != NULL) {
        fclose(file);
    }
    *out = found ? *out : 0;
    return found;
}
