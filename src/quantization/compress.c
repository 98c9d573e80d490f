/* Compressing a model: what is asked for is checked, and one of the two ways is taken. */
#include <stdlib.h>
#include <sys/stat.h>

#include "base/threads.h"
#include "quantization/compress_way.h"

dm_status dm_compress_check(const dm_compress_options *o, const char *to) {
    if (!(o->bpw > 0.0) && o->bytes == 0 && o->width == 0) {
        return dm_fail(DM_ERR_ARGUMENT, "expected bits per weight, bytes of the file, or a width");
    }
    if (o->players && (!(o->bpw > 0.0) || o->bytes != 0)) {
        return dm_fail(DM_ERR_ARGUMENT, "expected bits per weight of the matrices that play, and no bytes of the file");
    }
    if (!(o->pruned >= 0.0 && o->pruned < 1.0)) {
        return dm_fail(DM_ERR_ARGUMENT, "a share of %g cannot be pruned, expected 0 to below 1", o->pruned);
    }
    if (o->embedding != 0 && (o->embedding < 0 || dm_mixed_number((unsigned)o->embedding) < 0)) {
        return dm_fail(DM_ERR_ARGUMENT, "there is no width of %d bits, expected 2, 3, 4, 5, 6 or 8", o->embedding);
    }
    if (o->width != 0 && (o->width < 0 || dm_mixed_number((unsigned)o->width) < 0)) {
        return dm_fail(DM_ERR_ARGUMENT, "there is no width of %d bits, expected 2, 3, 4, 5, 6 or 8", o->width);
    }
    if (o->neighbours < 0 || o->sweeps < 0 || o->sweeps > DM_COMPRESS_SWEEPS) {
        return dm_fail(DM_ERR_ARGUMENT, "expected 0 neighbours or more, and up to %d sweeps", DM_COMPRESS_SWEEPS);
    }
    if (o->calibration == NULL && o->method != DM_COMPRESS_RTN && o->method != DM_COMPRESS_MAGNITUDE) {
        return dm_fail(DM_ERR_ARGUMENT, "this method needs a calibration: make one with `dilmodeli calibrate`");
    }
    if (o->compat && (o->width != 0 || o->pruned > 0.0)) {
        return dm_fail(DM_ERR_ARGUMENT,
                       "common GGUF types have neither one width for all nor pruned tiles: expected bits or bytes");
    }
    return dm_conversion_check_target(to);
}

dm_status dm_compressor_open(dm_compressor *it, const char *from, const char *to, const dm_compress_options *options) {
    *it = (dm_compressor){.way = options->compat ? &dm_compress_to_blocks : &dm_compress_to_panels};
    DM_TRY(dm_compress_check(options, to));
    DM_TRY(dm_compress_model_open(&it->model, from, options));
    it->model.total = dm_compress_weights(&it->model, DM_COMPRESS_PLAYING) + dm_compress_weights(&it->model, DM_COMPRESS_ALL);
    DM_TRY(dm_conversion_prepare(&it->model.conversion, 0));
    return it->way->open(&it->model, &it->state);
}

void dm_compressor_close(dm_compressor *it) {
    if (it->state != NULL) {
        it->way->close(it->state);
    }
    free(it->model.conversion.piece);
    dm_compress_model_close(&it->model);
}

dm_status dm_compressor_solve(dm_compressor *it, const char *to, dm_compress_outcome *out) {
    if (it->solved) { /* costs are known */
        it->model.done = 0;
        it->model.total = dm_compress_weights(&it->model, DM_COMPRESS_ALL);
    }
    DM_TRY(it->way->solve(it->state, to, out));
    it->solved = true;
    out->result.bytes_in = dm_gguf_size(it->model.model->file);
    out->result.bpw_in = 8.0 * (double)dm_compress_bytes_in(&it->model) / (double)dm_config_params(&it->model.model->config);
    out->result.bpw = dm_compress_outcome_bpw(out, &it->model);
    return DM_OK;
}

dm_status dm_compressor_write(dm_compressor *it, dm_compress_outcome *outcome, const char *to) {
    dm_gguf_writer *writer = dm_gguf_writer_create();
    dm_status status = writer != NULL ? it->way->describe(it->state, outcome, writer) : DM_ERR_MEMORY;
    if (status == DM_OK) {
        status = dm_compress_outcome_write(outcome, &it->model, writer, to);
    }
    dm_gguf_writer_free(writer);
    struct stat made;
    outcome->result.bytes_out = status == DM_OK && stat(to, &made) == 0 ? (uint64_t)made.st_size : 0;
    return status;
}

dm_status dm_compress(const char *from, const char *to, const dm_compress_options *options, dm_compress_result *result) {
    const double start = dm_seconds();
    dm_compressor it;
    dm_compress_outcome outcome = {0};
    dm_status status = dm_compressor_open(&it, from, to, options);
    if (status == DM_OK) {
        status = dm_compressor_solve(&it, to, &outcome);
    }
    if (status == DM_OK) {
        status = dm_compressor_write(&it, &outcome, to);
    }
    dm_compress_outcome_close(&outcome);
    dm_compressor_close(&it);
    outcome.result.seconds = dm_seconds() - start;
    if (status == DM_OK && result != NULL) {
        *result = outcome.result;
    }
    return status;
}
