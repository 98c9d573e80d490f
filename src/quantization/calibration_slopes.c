#include "quantization/calibration_slopes.h"

#include "base/memory.h"

size_t dm_calibration_copies(const dm_config *config, dm_role role) {
    return dm_role_is_expert(role) ? (size_t)config->n_experts : 1;
}

/* Rows in a layer of the matrices of roles before `end`. */
static uint64_t rows_before(const dm_config *config, int end) {
    uint64_t rows = 0;
    for (int role = 0; role < end; role++) {
        if (role != DM_OUTPUT) {
            rows += (uint64_t)dm_calibration_rows(config, (dm_role)role) * dm_calibration_copies(config, (dm_role)role);
        }
    }
    return rows;
}

uint64_t dm_calibration_slopes_at(const dm_config *config, int32_t layer, dm_role role, int32_t expert) {
    if (role == DM_OUTPUT) {
        return (uint64_t)config->n_layers * rows_before(config, DM_ROLES);
    }
    const uint64_t own = expert > 0 ? (uint64_t)expert * dm_calibration_rows(config, role) : 0;
    return (uint64_t)layer * rows_before(config, DM_ROLES) + rows_before(config, (int)role) + own;
}

uint64_t dm_calibration_slopes_count(const dm_config *config) {
    return dm_calibration_slopes_at(config, -1, DM_OUTPUT, -1) + dm_calibration_rows(config, DM_OUTPUT);
}

dm_status dm_calibration_slopes_create(const dm_config *config, dm_calibration_slopes *out) {
    const size_t slots = dm_calibration_slots(config);
    *out = (dm_calibration_slopes){.config = config};
    out->sums = dm_alloc(dm_calibration_slopes_count(config), sizeof *out->sums);
    out->squares = dm_alloc(slots, sizeof *out->squares);
    out->visits = dm_alloc(slots, sizeof *out->visits);
    return out->sums != NULL && out->squares != NULL && out->visits != NULL ? DM_OK : DM_ERR_MEMORY;
}

void dm_calibration_slopes_free(dm_calibration_slopes *slopes) {
    dm_free(slopes->sums);
    dm_free(slopes->squares);
    dm_free(slopes->visits);
    *slopes = (dm_calibration_slopes){0};
}
