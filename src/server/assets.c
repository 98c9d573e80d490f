#include "server/assets.h"

#include <string.h>

const dm_asset *dm_asset_find(const char *path) {
    const char *wanted = strcmp(path, "/") == 0 ? "/index.html" : path;
    for (size_t i = 0; i < dm_n_assets; i++) {
        if (strcmp(dm_assets[i].path, wanted) == 0) {
            return &dm_assets[i];
        }
    }
    return NULL;
}
