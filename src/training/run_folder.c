#include "training/run_folder.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"

dm_status dm_run_folder_file(const dm_run_folder *folder, const char *name, char **path) {
    size_t size = strlen(folder->path) + strlen(name) + 2;
    *path = malloc(size);
    if (*path == NULL) {
        return dm_fail(DM_ERR_MEMORY, "out of memory");
    }
    snprintf(*path, size, "%s/%s", folder->path, name);
    return DM_OK;
}

static dm_status write_config(const dm_run_folder *folder, const dm_train_config *config) {
    char *path;
    dm_replace file;
    DM_TRY(dm_run_folder_file(folder, "config.txt", &path));
    dm_status status = dm_replace_open(path, &file);
    free(path);
    DM_TRY(status);
    dm_train_config_write(config, file.stream);
    return dm_replace_commit(&file);
}

dm_status dm_run_folder_open(const dm_train_config *config, dm_run_folder *out) {
    *out = (dm_run_folder){.path = config->out, .lock = -1};
    char *lock;
    DM_TRY(dm_make_directory(config->out));
    DM_TRY(dm_run_folder_file(out, "lock", &lock));
    dm_status status = dm_lock_file(lock, &out->lock);
    free(lock);
    DM_TRY(status);
    dm_replace_sweep(config->out); /* a checkpoint is large, and a run may be killed often */
    status = write_config(out, config);
    if (status != DM_OK) {
        dm_run_folder_close(out);
    }
    return status;
}

void dm_run_folder_close(dm_run_folder *folder) {
    if (folder->metrics != NULL) {
        fclose(folder->metrics);
    }
    if (folder->lock >= 0) {
        close(folder->lock);
    }
    *folder = (dm_run_folder){.lock = -1};
}

/* Copies whole lines whose "step" is at most `step`. */
static void copy_lines(FILE *from, FILE *to, int64_t step) {
    char *line = NULL;
    size_t capacity = 0;
    ssize_t length;
    while ((length = getline(&line, &capacity, from)) > 0 && line[length - 1] == '\n') {
        json_t *object = json_loadb(line, (size_t)length, 0, NULL);
        const json_t *at = json_object_get(object, "step");
        if (json_is_integer(at) && json_integer_value(at) <= step) {
            fwrite(line, 1, (size_t)length, to);
        }
        json_decref(object);
    }
    free(line);
}

dm_status dm_run_folder_metrics(dm_run_folder *folder, int64_t step) {
    char *path;
    dm_replace file;
    DM_TRY(dm_run_folder_file(folder, "metrics.jsonl", &path));
    dm_status status = dm_replace_open(path, &file);
    if (status == DM_OK) {
        FILE *old = fopen(path, "re");
        if (old != NULL) {
            copy_lines(old, file.stream, step);
            fclose(old);
        }
        status = dm_replace_commit(&file);
    }
    if (status == DM_OK) {
        folder->metrics = fopen(path, "ae");
        if (folder->metrics == NULL) {
            status = dm_fail(DM_ERR_IO, "%s: cannot open: %s", path, strerror(errno));
        }
    }
    free(path);
    return status;
}

dm_status dm_run_folder_record(dm_run_folder *folder, json_t *object) {
    bool written = object != NULL && json_dumpf(object, folder->metrics, JSON_COMPACT | JSON_REAL_PRECISION(17)) == 0 &&
                   fputc('\n', folder->metrics) != EOF && fflush(folder->metrics) == 0;
    int reason = errno;
    json_decref(object);
    return written ? DM_OK : dm_fail(DM_ERR_IO, "%s/metrics.jsonl: cannot write: %s", folder->path, strerror(reason));
}
