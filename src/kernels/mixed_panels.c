/* Checking matrices of mixed-width panels, and finding their parts. */
#include "kernels/mixed_panels.h"

#include <inttypes.h>
#include <string.h>

#include "base/memory.h"

int dm_mixed_number(unsigned bits) {
    for (int i = 0; i < DM_MIXED_WIDTHS; i++) {
        if ((unsigned)dm_mixed_bits(i) == bits) {
            return i;
        }
    }
    return -1;
}

int dm_mixed_level(const dm_mixed_levels *levels, int number, unsigned code) {
    switch (dm_mixed_bits(number)) {
    case 2:
        return levels->of_2[code];
    case 3:
        return levels->of_3[code];
    case 4:
        return levels->of_4[code];
    case 8:
        return (int8_t)code;
    default:
        return (int)code - dm_mixed_offset(number);
    }
}

size_t dm_mixed_tiles(const dm_mixed_entry *entry) {
    size_t tiles = 0;
    for (int i = 0; i < DM_MIXED_WIDTHS; i++) {
        tiles += entry->tiles[i];
    }
    return tiles;
}

size_t dm_mixed_panel_bytes(const dm_mixed_entry *entry) {
    size_t lines = 0;
    for (int i = 0; i < DM_MIXED_WIDTHS; i++) {
        lines += entry->tiles[i] * dm_panel_lines(dm_mixed_codes(i));
    }
    return dm_mixed_scale_bytes(dm_mixed_tiles(entry)) + lines * DM_PANEL_LINE;
}

size_t dm_mixed_front_bytes(size_t rows, size_t tiles) {
    size_t bytes = sizeof(dm_mixed_header) + dm_panel_count(rows) * sizeof(dm_mixed_entry) + tiles * sizeof(uint16_t);
    return (bytes + DM_MIXED_ALIGNMENT - 1) / DM_MIXED_ALIGNMENT * DM_MIXED_ALIGNMENT;
}

void dm_mixed_count(const dm_mixed_header *matrix, dm_mixed_totals *totals) {
    const size_t panels = dm_panel_count(matrix->rows);
    for (size_t p = 0; p < panels; p++) {
        for (int i = 0; i < DM_MIXED_WIDTHS; i++) {
            totals->tiles[i] += dm_mixed_entries(matrix)[p].tiles[i];
        }
    }
    totals->pruned += panels * (matrix->columns / DM_PANEL_UNIT) - matrix->tiles;
    totals->matrices++;
    totals->weights += (uint64_t)matrix->rows * matrix->columns;
    totals->bytes += matrix->bytes;
}

/* ---- Checks ---- */

bool dm_mixed_claims(const void *data, size_t bytes) {
    return bytes >= sizeof(dm_mixed_header) && memcmp(data, DM_MIXED_MAGIC, 4) == 0;
}

static dm_status check_header(const dm_mixed_header *h, size_t bytes, uint64_t rows, uint64_t columns) {
    if (h->version != DM_MIXED_VERSION) {
        return dm_fail(DM_ERR_UNSUPPORTED, "mixed-width panels of version %" PRIu32 ", expected %d", h->version,
                       DM_MIXED_VERSION);
    }
    if (h->rows != rows || h->columns != columns) {
        return dm_fail(DM_ERR_FORMAT, "mixed-width panels of %" PRIu32 " x %" PRIu32 ", expected %" PRIu64 " x %" PRIu64,
                       h->columns, h->rows, columns, rows);
    }
    if (columns == 0 || rows == 0 || columns % DM_PANEL_UNIT != 0 || columns / DM_PANEL_UNIT > DM_MIXED_MOST_UNITS) {
        return dm_fail(DM_ERR_FORMAT, "mixed-width panels of %" PRIu64 " columns, expected a multiple of %d up to %d", columns,
                       DM_PANEL_UNIT, DM_MIXED_MOST_UNITS * DM_PANEL_UNIT);
    }
    if (h->bytes > bytes || h->bytes % DM_MIXED_ALIGNMENT != 0) {
        return dm_fail(DM_ERR_FORMAT,
                       "mixed-width panels of %" PRIu64 " bytes where %zu are left, expected a multiple of %d that fits",
                       h->bytes, bytes, DM_MIXED_ALIGNMENT);
    }
    size_t front = dm_mixed_front_bytes(h->rows, h->tiles); /* of 32-bit numbers: nothing wraps */
    if (front > h->bytes) {
        return dm_fail(DM_ERR_FORMAT, "the tables of mixed-width panels need %zu bytes of %" PRIu64, front, h->bytes);
    }
    return DM_OK;
}

/* The tiles of one panel: their units are there, each at most once, and ascend inside a width. */
static dm_status check_units(const uint16_t *units, const dm_mixed_entry *entry, size_t panel, size_t n_units) {
    uint64_t seen[DM_MIXED_MOST_UNITS / 64];
    memset(seen, 0, (n_units + 63) / 64 * sizeof *seen);
    for (int i = 0; i < DM_MIXED_WIDTHS; i++) {
        for (size_t k = 0; k < entry->tiles[i]; k++, units++) {
            if (*units >= n_units) {
                return dm_fail(DM_ERR_FORMAT, "mixed-width panel %zu has a tile at unit %u, expected less than %zu", panel,
                               *units, n_units);
            }
            if (k > 0 && *units <= units[-1]) {
                return dm_fail(DM_ERR_FORMAT, "mixed-width panel %zu has unit %u after unit %u, expected ascending ones", panel,
                               *units, units[-1]);
            }
            if ((seen[*units / 64] >> *units % 64 & 1) != 0) {
                return dm_fail(DM_ERR_FORMAT, "mixed-width panel %zu has unit %u twice, of two widths", panel, *units);
            }
            seen[*units / 64] |= (uint64_t)1 << *units % 64;
        }
    }
    return DM_OK;
}

/* A panel begins where the one before ends; *line and *tiles go on. */
static dm_status check_panel(const dm_mixed_header *h, size_t panel, uint64_t *line, uint64_t *tiles) {
    const dm_mixed_entry *entry = dm_mixed_entries(h) + panel;
    if (entry->line != *line || entry->first != *tiles) {
        return dm_fail(DM_ERR_FORMAT,
                       "mixed-width panel %zu is at line %" PRIu32 " and tile %" PRIu32 ", expected %" PRIu64 " and %" PRIu64,
                       panel, entry->line, entry->first, *line, *tiles);
    }
    size_t own = dm_mixed_tiles(entry);
    *line += dm_mixed_panel_bytes(entry) / DM_PANEL_LINE;
    *tiles += own;
    if (*tiles > h->tiles || *line > h->bytes / DM_PANEL_LINE) {
        return dm_fail(DM_ERR_FORMAT, "mixed-width panel %zu of %zu tiles ends past its matrix (%" PRIu64 " bytes)", panel, own,
                       h->bytes);
    }
    return check_units(dm_mixed_units(h) + entry->first, entry, panel, h->columns / DM_PANEL_UNIT);
}

static dm_status check_tables(const dm_mixed_header *h) {
    uint64_t line = dm_mixed_front_bytes(h->rows, h->tiles) / DM_PANEL_LINE, tiles = 0;
    for (size_t p = 0; p < dm_panel_count(h->rows); p++) {
        DM_TRY(check_panel(h, p, &line, &tiles));
    }
    if (tiles != h->tiles || line * DM_PANEL_LINE != h->bytes) {
        return dm_fail(DM_ERR_FORMAT,
                       "mixed-width panels of %" PRIu64 " tiles in %" PRIu64 " bytes, expected %" PRIu32 " in %" PRIu64, tiles,
                       line * DM_PANEL_LINE, h->tiles, h->bytes);
    }
    return DM_OK;
}

static dm_status check_place(const void *data, size_t bytes) {
    if (!dm_mixed_claims(data, bytes)) {
        return dm_fail(DM_ERR_FORMAT, "%zu bytes are no mixed-width panels: expected the letters %s and a header", bytes,
                       DM_MIXED_MAGIC);
    }
    if ((uintptr_t)data % DM_MIXED_ALIGNMENT != 0) {
        return dm_fail(DM_ERR_FORMAT, "mixed-width panels begin at no multiple of %d bytes", DM_MIXED_ALIGNMENT);
    }
    return DM_OK;
}

static dm_status check_zero(const dm_mixed_header *h) {
    return h->elsewhere == 0
               ? DM_OK
               : dm_fail(DM_ERR_FORMAT, "the header of mixed-width panels ends with %" PRId64 ", expected 0", h->elsewhere);
}

dm_status dm_mixed_check(const void *data, size_t bytes, uint64_t rows, uint64_t columns) {
    DM_TRY(check_place(data, bytes));
    DM_TRY(check_zero(data));
    DM_TRY(check_header(data, bytes, rows, columns));
    return check_tables(data);
}

dm_status dm_mixed_copy(const void *data, size_t bytes, uint64_t rows, uint64_t columns, dm_mixed_header **out) {
    *out = NULL;
    DM_TRY(check_place(data, bytes));
    dm_mixed_header first;
    memcpy(&first, data, sizeof first);
    DM_TRY(check_zero(&first));
    DM_TRY(check_header(&first, bytes, rows, columns));
    const size_t front = dm_mixed_front_bytes(first.rows, first.tiles);
    dm_mixed_header *copy = dm_alloc(front, 1);
    if (copy == NULL) {
        return DM_ERR_MEMORY;
    }
    memcpy(copy, &first, sizeof first);
    memcpy(copy + 1, (const uint8_t *)data + sizeof first, front - sizeof first);
    copy->elsewhere = (int64_t)((uintptr_t)data - (uintptr_t)copy);
    dm_status status = check_tables(copy);
    if (status != DM_OK) {
        dm_free(copy);
        return status;
    }
    *out = copy;
    return DM_OK;
}

dm_status dm_mixed_measure(const void *data, size_t bytes, dm_mixed_totals *totals) {
    for (size_t at = 0; at < bytes;) {
        dm_mixed_header claimed = {.rows = 0}, *matrix;
        if (bytes - at >= sizeof claimed) {
            memcpy(&claimed, (const uint8_t *)data + at, sizeof claimed);
        }
        DM_TRY(dm_mixed_copy((const uint8_t *)data + at, bytes - at, claimed.rows, claimed.columns, &matrix));
        dm_mixed_count(matrix, totals);
        at += matrix->bytes;
        dm_free(matrix);
    }
    return DM_OK;
}
