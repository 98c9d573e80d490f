/* Pages that the server has in itself: the files of web/page/, and the colours that they share with the report. */
#ifndef DM_SERVER_ASSETS_H
#define DM_SERVER_ASSETS_H

typedef struct dm_asset {
    const char *path; /* as clients ask for it */
    const char *type, *text;
} dm_asset;

/* NULL: there is none. */
const dm_asset *dm_asset_find(const char *path);

#endif
