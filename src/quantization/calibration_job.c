#include "quantization/calibration_job.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/threads.h"
#include "model/session.h"

/* ---- Parts ---- */

char *dm_calibration_part(const dm_calibration_job *job, size_t group) {
    const size_t size = strlen(job->out) + 32;
    char *path = malloc(size);
    if (path == NULL) {
        dm_fail(DM_ERR_MEMORY, "out of memory for the name of a part");
    } else if (group == DM_CALIBRATION_SLOPES) {
        snprintf(path, size, "%s.part-slopes", job->out);
    } else if (group == DM_CALIBRATION_SCALED) {
        snprintf(path, size, "%s.part-scaled", job->out);
    } else {
        snprintf(path, size, "%s.part-%04zu", job->out, group);
    }
    return path;
}

void dm_calibration_clear(const dm_calibration_job *job) {
    const size_t groups = dm_calibration_groups(job);
    for (size_t i = 0; i <= groups + 1; i++) {
        char *path = dm_calibration_part(job, i < groups ? i : i == groups ? DM_CALIBRATION_SLOPES : DM_CALIBRATION_SCALED);
        if (path != NULL) {
            unlink(path);
        }
        free(path);
    }
}

size_t dm_calibration_groups(const dm_calibration_job *job) {
    const dm_config *config = &job->model->config;
    size_t groups = 0;
    for (size_t first = 0; first < dm_calibration_slots(config); groups++) {
        first = dm_calibration_group_end(config, first, job->memory);
    }
    return groups;
}

static void free_paths(char **paths, size_t n) {
    for (size_t i = 0; paths != NULL && i < n; i++) {
        free(paths[i]);
    }
    dm_free(paths);
}

dm_status dm_calibration_finish(const dm_calibration_job *job, size_t slopes) {
    const size_t groups = dm_calibration_groups(job), n = groups + (slopes != 0);
    char **paths = dm_alloc(n, sizeof(char *));
    dm_status status = paths != NULL ? DM_OK : DM_ERR_MEMORY;
    for (size_t i = 0; i < n && status == DM_OK; i++) {
        paths[i] = dm_calibration_part(job, i < groups ? i : slopes);
        status = paths[i] != NULL ? DM_OK : DM_ERR_MEMORY;
    }
    if (status == DM_OK) {
        status = dm_calibration_merge(&job->model->config, &job->origin, (const char *const *)paths, groups,
                                      slopes != 0 ? paths[groups] : NULL, job->out);
    }
    free_paths(paths, n);
    return status;
}

/* ---- Progress ---- */

bool dm_calibration_step(dm_calibration_job *job, const char *stage, uint64_t tokens) {
    const double now = dm_seconds();
    job->done += tokens;
    if (job->on_step != NULL) {
        const double speed = (double)(job->done - job->skipped) / (now - job->started);
        const dm_calibrate_progress progress = {stage, job->done, job->total, (double)(job->total - job->done) / speed};
        job->on_step(job->user, &progress);
    }
    return now - job->saved >= job->every;
}

void dm_calibration_skip(dm_calibration_job *job, uint64_t tokens) {
    job->done += tokens;
    job->skipped += tokens;
}

/* ---- One group ---- */

static uint64_t tokens_before(const dm_calibration_windows *windows, uint64_t end) {
    uint64_t tokens = 0;
    for (size_t i = 0; i < end; i++) {
        tokens += dm_calibration_window(windows, i, NULL);
    }
    return tokens;
}

/* What a run before this one measured of the group; nothing where its part is missing, damaged, or of something else. */
static dm_status resume(dm_calibration_job *job, const char *path, dm_calibration_sums *sums, uint64_t *done) {
    const size_t first = sums->first, end = sums->end;
    *done = 0;
    if (access(path, F_OK) != 0) {
        return DM_OK;
    }
    if (dm_calibration_read_sums(path, &job->origin, sums, done) == DM_OK) {
        dm_calibration_skip(job, tokens_before(job->windows, *done));
        return DM_OK;
    }
    dm_log("starting over: %s", dm_error_message());
    dm_calibration_sums_free(sums);
    *done = 0;
    return dm_calibration_sums_create(&job->model->config, first, end, sums);
}

static dm_status save(dm_calibration_job *job, const char *path, const dm_calibration_sums *sums, uint64_t done) {
    DM_TRY(dm_calibration_write_sums(path, &job->origin, sums, done));
    job->saved = dm_seconds();
    return DM_OK;
}

/* By single passes, which nothing interrupts: a window is seen whole or not at all. */
static dm_status feed(dm_session *session, const int32_t *ids, size_t n) {
    const size_t most = (size_t)session->batch;
    for (size_t first = 0; first < n; first += most) {
        DM_TRY(dm_session_feed(session, ids + first, (int32_t)(n - first < most ? n - first : most), false, NULL));
    }
    return DM_OK;
}

static dm_status read_windows(dm_calibration_job *job, dm_session *session, const char *path, const dm_calibration_sums *sums,
                              uint64_t done, int32_t *ids) {
    for (size_t i = done; i < job->windows->count; i++) {
        const size_t n = dm_calibration_window(job->windows, i, ids);
        dm_session_truncate(session, 0);
        DM_TRY(feed(session, ids, n));
        const bool due = dm_calibration_step(job, "inputs", n), last = i + 1 == job->windows->count;
        if (dm_interrupted() && !last) {
            DM_TRY(save(job, path, sums, i + 1));
            return dm_fail(DM_ERR_INTERRUPTED, "interrupted; the same command goes on from here");
        }
        if (due || last) {
            DM_TRY(save(job, path, sums, i + 1));
        }
    }
    return DM_OK;
}

/* Layers that a pass has to run so that the last of the slots is seen. */
static int32_t layers_for(const dm_config *config, size_t end) {
    const dm_calibration_slot last = dm_calibration_slot_at(config, end - 1);
    return last.layer < 0 ? config->n_layers : last.layer + 1;
}

static dm_status read_text(dm_calibration_job *job, const char *path, dm_calibration_sums *sums, uint64_t done) {
    const dm_observer observer = {dm_calibration_sums_see, sums, layers_for(&job->model->config, sums->end)};
    const dm_session_options options = {.context = (int32_t)job->windows->length, .cache = DM_CACHE_F32};
    dm_session *session = NULL;
    int32_t *ids = dm_alloc(job->windows->length, sizeof *ids);
    dm_status status = ids != NULL ? dm_session_create_observed(job->model, &options, &observer, &session) : DM_ERR_MEMORY;
    status = status == DM_OK ? read_windows(job, session, path, sums, done, ids) : status;
    dm_session_free(session);
    dm_free(ids);
    return status;
}

static dm_status measure_group(dm_calibration_job *job, const char *path, size_t first, size_t end) {
    dm_calibration_sums sums;
    uint64_t done = 0;
    dm_status status = dm_calibration_sums_create(&job->model->config, first, end, &sums);
    status = status == DM_OK ? resume(job, path, &sums, &done) : status;
    if (status == DM_OK && done < job->windows->count) {
        status = read_text(job, path, &sums, done);
    }
    dm_calibration_sums_free(&sums);
    return status;
}

dm_status dm_calibration_measure(dm_calibration_job *job) {
    const dm_config *config = &job->model->config;
    size_t group = 0;
    for (size_t first = 0; first < dm_calibration_slots(config); group++) {
        const size_t end = dm_calibration_group_end(config, first, job->memory);
        char *path = dm_calibration_part(job, group);
        dm_status status = path != NULL ? measure_group(job, path, first, end) : DM_ERR_MEMORY;
        free(path);
        DM_TRY(status);
        first = end;
    }
    return DM_OK;
}
