/* One code of a panel's unit (panels.h), read and written the slow way that needs no vectors. */
#ifndef DM_KERNELS_PANEL_CODES_H
#define DM_KERNELS_PANEL_CODES_H

#include "kernels/panels.h"

/* Bits [0, bits) of column `column`, of a plane of 4, 2 or 1 bits. */
static inline int dm_plane_code(const uint8_t *plane, int bits, int row, int column) {
    int line = column / 4; /* of as many in the plane as a code has bits */
    int byte = plane[line % bits * DM_PANEL_LINE + row * 4 + column % 4];
    return byte >> (line / bits * bits) & ((1 << bits) - 1);
}

/* As it is stored: that of 8 bits is a signed number, that of a table its index. */
static inline int dm_panel_code(dm_panel_codes codes, const uint8_t *unit, int row, int column) {
    const uint8_t *second = unit + (codes == DM_CODES_3 ? 2 : 4) * DM_PANEL_LINE;
    switch (codes) {
    case DM_CODES_2:
        return dm_plane_code(unit, 2, row, column);
    case DM_CODES_3:
        return dm_plane_code(unit, 2, row, column) | dm_plane_code(second, 1, row, column) << 2;
    case DM_CODES_4:
    case DM_CODES_TABLE:
        return dm_plane_code(unit, 4, row, column);
    case DM_CODES_5:
        return dm_plane_code(unit, 4, row, column) | dm_plane_code(second, 1, row, column) << 4;
    case DM_CODES_6:
        return dm_plane_code(unit, 4, row, column) | dm_plane_code(second, 2, row, column) << 4;
    case DM_CODES_8:
        break;
    }
    return (int8_t)unit[column / 4 * DM_PANEL_LINE + row * 4 + column % 4];
}

static inline void dm_plane_put(uint8_t *plane, int bits, int row, int column, int code) {
    int line = column / 4;
    uint8_t *byte = plane + line % bits * DM_PANEL_LINE + row * 4 + column % 4;
    *byte = (uint8_t)(*byte | (code & ((1 << bits) - 1)) << (line / bits * bits));
}

/* Into a unit of zeros. */
static inline void dm_panel_put(dm_panel_codes codes, uint8_t *unit, int row, int column, int code) {
    uint8_t *second = unit + (codes == DM_CODES_3 ? 2 : 4) * DM_PANEL_LINE;
    switch (codes) {
    case DM_CODES_8:
        unit[column / 4 * DM_PANEL_LINE + row * 4 + column % 4] = (uint8_t)code;
        return;
    case DM_CODES_2:
        dm_plane_put(unit, 2, row, column, code);
        return;
    case DM_CODES_3:
        dm_plane_put(unit, 2, row, column, code);
        dm_plane_put(second, 1, row, column, code >> 2);
        return;
    case DM_CODES_4:
    case DM_CODES_TABLE:
    case DM_CODES_5:
    case DM_CODES_6:
        break;
    }
    dm_plane_put(unit, 4, row, column, code);
    if (codes == DM_CODES_5 || codes == DM_CODES_6) {
        dm_plane_put(second, codes == DM_CODES_5 ? 1 : 2, row, column, code >> 4);
    }
}

#endif
