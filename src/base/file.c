#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

dm_status dm_map_open(const char *path, dm_map *out) {
    *out = (dm_map){0};
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) {
        return dm_fail(DM_ERR_IO, "%s: cannot open: %s", path, strerror(errno));
    }
    struct stat info;
    dm_status status = DM_OK;
    if (fstat(descriptor, &info) != 0) {
        status = dm_fail(DM_ERR_IO, "%s: cannot read its size: %s", path, strerror(errno));
    } else if (!S_ISREG(info.st_mode)) {
        status = dm_fail(DM_ERR_IO, "%s: not a regular file", path);
    } else if (info.st_size > 0) {
        void *data = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, descriptor, 0);
        if (data == MAP_FAILED) {
            status = dm_fail(DM_ERR_IO, "%s: cannot map %lld bytes: %s", path, (long long)info.st_size, strerror(errno));
        } else {
            uint64_t modified = (uint64_t)info.st_mtim.tv_sec * 1000000000u + (uint64_t)info.st_mtim.tv_nsec;
            *out = (dm_map){data, (size_t)info.st_size, modified};
        }
    }
    close(descriptor);
    return status;
}

void dm_map_close(dm_map *map) {
    if (map->data != NULL) {
        munmap((void *)(uintptr_t)map->data, map->size);
    }
    *map = (dm_map){0};
}

void dm_map_release(const dm_map *map, size_t start, size_t end) {
    dm_pages_release(map->data + start, end - start);
}

void dm_pages_release(const void *data, size_t size) {
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t start = ((uintptr_t)data + page - 1) / page * page;
    uintptr_t end = ((uintptr_t)data + size) / page * page;
    if (start < end) {
        madvise((void *)start, end - start, MADV_DONTNEED);
    }
}

static char *join(const char *folder, const char *separator, const char *name) {
    size_t size = strlen(folder) + strlen(separator) + strlen(name) + 1;
    char *text = malloc(size);
    if (text != NULL) {
        snprintf(text, size, "%s%s%s", folder, separator, name);
    }
    return text;
}

char *dm_path_join(const char *folder, const char *name) {
    return join(folder, "/", name);
}

bool dm_is_folder(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

/* "PATH.tmp-PID" (malloc). */
static char *temporary_name(const char *path) {
    char suffix[32];
    snprintf(suffix, sizeof suffix, ".tmp-%ld", (long)getpid());
    return join(path, "", suffix);
}

dm_status dm_replace_open(const char *path, dm_replace *out) {
    *out = (dm_replace){.path = strdup(path), .temporary = temporary_name(path)};
    if (out->path == NULL || out->temporary == NULL) {
        free(out->path);
        free(out->temporary);
        *out = (dm_replace){0};
        return dm_fail(DM_ERR_MEMORY, "out of memory opening %s", path);
    }
    out->stream = fopen(out->temporary, "wbe");
    if (out->stream == NULL) {
        dm_status status = dm_fail(DM_ERR_IO, "%s: cannot create: %s", out->temporary, strerror(errno));
        free(out->path);
        free(out->temporary);
        *out = (dm_replace){0};
        return status;
    }
    return DM_OK;
}

static void sync_folder(const char *path) {
    int descriptor = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor >= 0) {
        fsync(descriptor);
        close(descriptor);
    }
}

static void sync_folder_of(const char *path) {
    const char *slash = strrchr(path, '/');
    char folder[PATH_MAX];
    if (slash == NULL) {
        strcpy(folder, ".");
    } else {
        size_t length = slash == path ? 1 : (size_t)(slash - path);
        if (length >= sizeof folder) {
            return;
        }
        memcpy(folder, path, length);
        folder[length] = '\0';
    }
    sync_folder(folder);
}

/* Why an earlier write failed, which its caller left to the commit: what stood in the way, a full disk as a rule, still
 * does. Only for a stream that is given up. */
static int ask_again(FILE *stream) {
    clearerr(stream);
    errno = 0;
    return fputc(0, stream) == EOF || fflush(stream) != 0 ? errno : 0;
}

dm_status dm_replace_commit(dm_replace *file) {
    errno = 0;
    bool written = fflush(file->stream) == 0 && !ferror(file->stream) && fsync(fileno(file->stream)) == 0;
    int reason = errno;
    if (!written && reason == 0) {
        reason = ask_again(file->stream);
    }
    if (fclose(file->stream) != 0 && written) {
        written = false;
        reason = errno;
    }
    file->stream = NULL;
    dm_status status = DM_OK;
    if (!written) {
        status = dm_fail(DM_ERR_IO, "%s: cannot write: %s", file->path, strerror(reason != 0 ? reason : EIO));
    } else if (rename(file->temporary, file->path) != 0) {
        status = dm_fail(DM_ERR_IO, "%s: cannot put the new file in place: %s", file->path, strerror(errno));
    } else {
        sync_folder_of(file->path);
    }
    dm_replace_abandon(file); /* after a rename the temporary name is no longer there to remove */
    return status;
}

void dm_replace_abandon(dm_replace *file) {
    if (file->stream != NULL) {
        fclose(file->stream);
    }
    if (file->temporary != NULL) {
        unlink(file->temporary);
    }
    free(file->path);
    free(file->temporary);
    *file = (dm_replace){0};
}

static bool is_temporary(const char *name) {
    const char *mark = strstr(name, ".tmp-");
    return mark != NULL && mark[5] != '\0' && strspn(mark + 5, "0123456789") == strlen(mark + 5);
}

void dm_replace_sweep(const char *folder) {
    DIR *entries = opendir(folder);
    if (entries == NULL) {
        return;
    }
    for (const struct dirent *entry; (entry = readdir(entries)) != NULL;) {
        if (is_temporary(entry->d_name)) {
            unlinkat(dirfd(entries), entry->d_name, 0);
        }
    }
    closedir(entries);
}

/* ---- Folders ---- */

/* Nothing, or an empty folder. */
static dm_status check_free(const char *path) {
    struct stat info;
    if (lstat(path, &info) != 0) {
        return DM_OK;
    }
    DIR *entries = opendir(path);
    if (entries == NULL) {
        return dm_fail(DM_ERR_ARGUMENT, "%s: exists and is no folder; choose another name or remove it", path);
    }
    int count = 0;
    while (readdir(entries) != NULL) {
        count++;
    }
    closedir(entries);
    return count <= 2 ? DM_OK /* "." and ".." */
                      : dm_fail(DM_ERR_ARGUMENT, "%s: exists and is not empty; choose another name or remove it", path);
}

dm_status dm_new_folder_open(const char *path, dm_new_folder *out) {
    *out = (dm_new_folder){.path = strdup(path)};
    size_t length = out->path != NULL ? strlen(out->path) : 0;
    while (length > 1 && out->path[length - 1] == '/') { /* else the temporary name would lie inside */
        out->path[--length] = '\0';
    }
    out->temporary = out->path != NULL ? temporary_name(out->path) : NULL;
    dm_status status = out->temporary != NULL ? check_free(out->path) : dm_fail(DM_ERR_MEMORY, "out of memory making %s", path);
    if (status == DM_OK && mkdir(out->temporary, 0777) != 0) {
        status = dm_fail(DM_ERR_IO, "%s: cannot create the folder: %s", out->temporary, strerror(errno));
    }
    if (status != DM_OK) {
        free(out->path);
        free(out->temporary);
        *out = (dm_new_folder){0};
    }
    return status;
}

dm_status dm_new_folder_commit(dm_new_folder *folder) {
    dm_status status = DM_OK;
    sync_folder(folder->temporary);
    if (rename(folder->temporary, folder->path) != 0) {
        status = dm_fail(DM_ERR_IO, "%s: cannot put the new folder in place: %s", folder->path, strerror(errno));
    } else {
        sync_folder_of(folder->path);
    }
    dm_new_folder_abandon(folder); /* after a rename the temporary name is no longer there to remove */
    return status;
}

void dm_new_folder_abandon(dm_new_folder *folder) {
    DIR *entries = folder->temporary != NULL ? opendir(folder->temporary) : NULL;
    if (entries != NULL) {
        for (const struct dirent *entry; (entry = readdir(entries)) != NULL;) {
            unlinkat(dirfd(entries), entry->d_name, 0);
        }
        closedir(entries);
        rmdir(folder->temporary);
    }
    free(folder->path);
    free(folder->temporary);
    *folder = (dm_new_folder){0};
}

bool dm_cache_path(const char *name, char *path, size_t size) {
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    bool own = cache != NULL && cache[0] == '/'; /* others are to be ignored, says the XDG base directory specification */
    if (!own && (home == NULL || home[0] != '/')) {
        return false;
    }
    int length = snprintf(path, size, "%s%s/dilmodeli/%s", own ? cache : home, own ? "" : "/.cache", name);
    return length > 0 && (size_t)length < size;
}

dm_status dm_make_directory(const char *path) {
    char part[PATH_MAX];
    size_t length = strlen(path);
    if (length == 0 || length >= sizeof part) {
        return dm_fail(DM_ERR_ARGUMENT, "'%s' cannot be used as a folder name", path);
    }
    memcpy(part, path, length + 1);
    for (size_t i = 1; i <= length; i++) {
        if (part[i] != '/' && part[i] != '\0') {
            continue;
        }
        char kept = part[i];
        part[i] = '\0';
        if (mkdir(part, 0777) != 0 && errno != EEXIST) {
            return dm_fail(DM_ERR_IO, "%s: cannot create the folder: %s", part, strerror(errno));
        }
        part[i] = kept;
    }
    struct stat info;
    if (stat(path, &info) != 0 || !S_ISDIR(info.st_mode)) {
        return dm_fail(DM_ERR_IO, "%s: is not a folder", path);
    }
    return DM_OK;
}

dm_status dm_lock_file(const char *path, int *descriptor) {
    *descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (*descriptor < 0) {
        return dm_fail(DM_ERR_IO, "%s: cannot open: %s", path, strerror(errno));
    }
    if (flock(*descriptor, LOCK_EX | LOCK_NB) != 0) {
        int reason = errno;
        close(*descriptor);
        *descriptor = -1;
        if (reason == EWOULDBLOCK) {
            return dm_fail(DM_ERR_IO, "%s: another process is using this folder", path);
        }
        return dm_fail(DM_ERR_IO, "%s: cannot lock: %s", path, strerror(reason));
    }
    return DM_OK;
}

typedef struct file_list {
    char **files;
    size_t count, capacity;
} file_list;

static dm_status append(file_list *list, char *owned) {
    if (owned == NULL) {
        return dm_fail(DM_ERR_MEMORY, "out of memory listing files");
    }
    if (list->count == list->capacity) {
        size_t capacity = list->capacity != 0 ? 2 * list->capacity : 64;
        char **files = realloc(list->files, capacity * sizeof *files);
        if (files == NULL) {
            free(owned);
            return dm_fail(DM_ERR_MEMORY, "out of memory listing files");
        }
        list->files = files;
        list->capacity = capacity;
    }
    list->files[list->count++] = owned;
    return DM_OK;
}

static int visible(const struct dirent *entry) {
    return entry->d_name[0] != '.';
}

static int by_name(const struct dirent **a, const struct dirent **b) {
    return strcmp((*a)->d_name, (*b)->d_name);
}

static dm_status list_folder(const char *path, file_list *list) {
    struct dirent **entries;
    int n = scandir(path, &entries, visible, by_name);
    if (n < 0) {
        return dm_fail(DM_ERR_IO, "%s: cannot list the folder: %s", path, strerror(errno));
    }
    dm_status status = DM_OK;
    for (int i = 0; i < n; i++) {
        char *child = status == DM_OK ? join(path, "/", entries[i]->d_name) : NULL;
        free(entries[i]);
        if (status != DM_OK) {
            continue;
        }
        struct stat info;
        if (child == NULL) {
            status = dm_fail(DM_ERR_MEMORY, "out of memory listing %s", path);
        } else if (lstat(child, &info) == 0 && S_ISREG(info.st_mode)) {
            status = append(list, child);
            continue;
        } else if (S_ISDIR(info.st_mode)) {
            status = list_folder(child, list);
        }
        free(child);
    }
    free(entries);
    return status;
}

dm_status dm_list_files(const char *const *paths, size_t n, char ***files, size_t *count) {
    file_list list = {0};
    dm_status status = DM_OK;
    for (size_t i = 0; i < n && status == DM_OK; i++) {
        struct stat info;
        if (stat(paths[i], &info) != 0) {
            status = dm_fail(DM_ERR_IO, "%s: %s", paths[i], strerror(errno));
        } else if (S_ISDIR(info.st_mode)) {
            status = list_folder(paths[i], &list);
        } else {
            status = append(&list, strdup(paths[i]));
        }
    }
    if (status == DM_OK && list.count == 0) {
        status = dm_fail(DM_ERR_ARGUMENT, "no files found in %s", n > 0 ? paths[0] : "an empty list");
    }
    if (status != DM_OK) {
        dm_free_list(list.files, list.count);
        list = (file_list){0};
    }
    *files = list.files;
    *count = list.count;
    return status;
}

void dm_free_list(char **files, size_t count) {
    for (size_t i = 0; i < count; i++) {
        free(files[i]);
    }
    free(files);
}
