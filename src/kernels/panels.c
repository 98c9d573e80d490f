#include "kernels/panels.h"

enum { ROWS = DM_PANEL_ROWS, UNIT = DM_PANEL_UNIT };

static const dm_panel_format formats[] = {
#define DM_PANEL_ENTRY(name, type, codes, scales, offset) {type, codes, scales, offset},
    DM_PANEL_FORMATS(DM_PANEL_ENTRY)
#undef DM_PANEL_ENTRY
};

const dm_panel_format *dm_panel_format_of(dm_type type) {
    for (size_t i = 0; i < DM_PANEL_COUNT; i++) {
        if (formats[i].type == type) {
            return &formats[i];
        }
    }
    return NULL;
}

const dm_panel_format *dm_panel_format_at(int index) {
    return &formats[index];
}

static size_t round_up(size_t n) {
    return (n + DM_PANEL_LINE - 1) / DM_PANEL_LINE * DM_PANEL_LINE;
}

static size_t code_bytes(const dm_panel_format *format, size_t units) {
    return units * dm_panel_lines(format->codes) * DM_PANEL_LINE;
}

size_t dm_panel_bytes(const dm_panel_format *format, size_t columns) {
    size_t units = columns / UNIT;
    size_t supers = units / DM_PANEL_SUPER;
    return code_bytes(format, units) +
           round_up(units * dm_panel_unit_scales(format->scales) + supers * dm_panel_super_scales(format->scales));
}

size_t dm_panel_count(size_t rows) {
    return (rows + ROWS - 1) / ROWS;
}
