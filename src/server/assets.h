/* Pages that the server has in itself: the files of web/page/, put into the program when it is built (cmake/assets.cmake). */
#ifndef DM_SERVER_ASSETS_H
#define DM_SERVER_ASSETS_H

#include <stddef.h>

typedef struct dm_asset {
    const char *path; /* as clients ask for it: "/index.html" */
    const char *type;
    const unsigned char *bytes; /* [length] */
    size_t length;
} dm_asset;

/* [dm_n_assets], made by the build. */
extern const dm_asset dm_assets[];
extern const size_t dm_n_assets;

/* "/" is "/index.html". NULL: there is none. */
const dm_asset *dm_asset_find(const char *path);

#endif
