/* Files: read-only maps and replacement that a crash or a full disk cannot tear. */
#ifndef DM_BASE_FILE_H
#define DM_BASE_FILE_H

#include <stdio.h>

#include "base/status.h"

typedef struct dm_map {
    const uint8_t *data; /* NULL for an empty file */
    size_t size;         /* bytes */
    uint64_t modified;   /* nanoseconds since 1970 */
} dm_map;

/* Maps a regular file whole, privately: a page that is made writable and written is this process's own. The caller unmaps it with
 * dm_map_close(). */
dm_status dm_map_open(const char *path, dm_map *out);
void dm_map_close(dm_map *map);
/* Gives back the memory that holds bytes [start, end), whole pages only; they can still be read. Keeps the resident set
 * small while a file larger than memory passes by. */
void dm_map_release(const dm_map *map, size_t start, size_t end);
/* The same for `size` bytes of any map, wherever they lie in it. */
void dm_pages_release(const void *data, size_t size);

/* A file being written under a temporary name beside its final one. */
typedef struct dm_replace {
    FILE *stream; /* write here; errors may be left to dm_replace_commit() */
    char *path;
    char *temporary;
} dm_replace;

/* Starts replacing `path`. Every dm_replace_open() that succeeds must be ended
 * by exactly one commit or abandon. */
dm_status dm_replace_open(const char *path, dm_replace *out);
/* Flushes, syncs, renames over `path` and syncs the folder. On failure the old
 * file stands and the temporary one is gone. */
dm_status dm_replace_commit(dm_replace *file);
void dm_replace_abandon(dm_replace *file);
/* Removes the temporary files that killed processes left in `folder`. Only for a folder that is locked against others. */
void dm_replace_sweep(const char *folder);

/* A folder of files being written under a temporary name beside its final one. */
typedef struct dm_new_folder {
    char *path;
    char *temporary; /* write here, each file with a dm_replace */
} dm_new_folder;

/* Starts making `path`, which does not exist or is an empty folder; anything else is DM_ERR_ARGUMENT. Every
 * dm_new_folder_open() that succeeds must be ended by exactly one commit or abandon. */
dm_status dm_new_folder_open(const char *path, dm_new_folder *out);
/* Syncs the folder, renames it to `path` and syncs what it lies in. On failure nothing is left. */
dm_status dm_new_folder_commit(dm_new_folder *folder);
void dm_new_folder_abandon(dm_new_folder *folder);
/* "FOLDER/NAME" (malloc), the caller's to free(); NULL when memory is short. */
char *dm_path_join(const char *folder, const char *name);
bool dm_is_folder(const char *path);

/* "NAME" below the user's cache folder for this program: ${XDG_CACHE_HOME:-~/.cache}/dilmodeli/NAME. False where there is none,
 * for want of a home or of length. */
bool dm_cache_path(const char *name, char *path, size_t size);

/* Creates a folder and its parents; one that exists is fine. */
dm_status dm_make_directory(const char *path);

/* Takes an exclusive advisory lock on `path`, creating it. *descriptor is the caller's to close(), which releases the
 * lock, as does the end of the process. DM_ERR_IO when another process holds it. */
dm_status dm_lock_file(const char *path, int *descriptor);

/* The files in `paths` (each a file, or a folder walked recursively, hidden entries and links left out), folders in
 * byte order of the names so that the result does not depend on the machine. *files (array and strings) is freed with
 * dm_free_list(). */
dm_status dm_list_files(const char *const *paths, size_t n, char ***files, size_t *count);
void dm_free_list(char **files, size_t count);

#endif
