#include "visualization/grid.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

bool dm_grid_split(const char *name, size_t *layer, char kind[DM_GRID_NAME]) {
    char *end;
    if (strncmp(name, "blk.", 4) != 0 || isdigit((unsigned char)name[4]) == 0) {
        return false;
    }
    unsigned long number = strtoul(name + 4, &end, 10);
    if (*end != '.' || number >= DM_GRID_LAYERS) {
        return false;
    }
    size_t used = 0;
    for (const char *at = end + 1; *at != '\0' && used + 1 < DM_GRID_NAME; at++) {
        if (*at == '.' && (strcmp(at, ".weight") == 0 || isdigit((unsigned char)at[1]) != 0)) {
            break;
        }
        kind[used++] = *at;
    }
    kind[used] = '\0';
    *layer = number;
    return true;
}

/* DM_GRID_KINDS where there are too many. */
static size_t kind_index(dm_grid *grid, const char *kind) {
    size_t k = 0;
    while (k < grid->kinds && strcmp(grid->names[k], kind) != 0) {
        k++;
    }
    if (k == grid->kinds && k < DM_GRID_KINDS) {
        memcpy(grid->names[grid->kinds++], kind, strlen(kind) + 1); /* both have DM_GRID_NAME bytes */
    }
    return k;
}

void dm_grid_add(dm_grid *grid, const char *name, double amount, double weight, const char *text) {
    size_t layer;
    char kind[DM_GRID_NAME];
    if (!dm_grid_split(name, &layer, kind)) {
        return;
    }
    size_t k = kind_index(grid, kind);
    if (k == DM_GRID_KINDS) {
        grid->lost++;
        return;
    }
    dm_grid_cell *cell = &grid->cells[k][layer];
    bool other = cell->text == NULL || text == NULL || strcmp(cell->text, text) != 0;
    cell->text = cell->weight == 0.0 ? text : other ? NULL : text;
    cell->amount += amount;
    cell->weight += weight;
    grid->layers = layer + 1 > grid->layers ? layer + 1 : grid->layers;
}

/* Kinds go down and layers aside: names need room, and a model may have many layers. */
void dm_grid_draw(dm_page *page, dm_grid *grid, const dm_chart *head, const char *value_name) {
    const char *kinds[DM_GRID_KINDS], *layers[DM_GRID_LAYERS];
    char note[512];
    for (size_t l = 0; l < grid->layers; l++) {
        snprintf(grid->labels[l], sizeof grid->labels[l], "%zu", l);
        layers[l] = grid->labels[l];
    }
    for (size_t k = 0; k < grid->kinds; k++) {
        kinds[k] = grid->names[k];
        for (size_t l = 0; l < grid->layers; l++) {
            const dm_grid_cell *cell = &grid->cells[k][l];
            grid->values[k * grid->layers + l] = cell->weight > 0.0 ? cell->amount / cell->weight : NAN;
            grid->texts[k * grid->layers + l] = cell->text;
        }
    }
    snprintf(note, sizeof note, grid->lost > 0 ? "%s %zu of further kinds are not shown." : "%s", head->note, grid->lost);
    const dm_heat_map map = {{&dm_heat_map_kind, head->name, head->title, note},
                             .x_name = "layer",
                             .y_name = "matrix",
                             .value_name = value_name,
                             .columns = grid->layers,
                             .rows = grid->kinds,
                             .column_labels = layers,
                             .row_labels = kinds,
                             .values = grid->values,
                             .texts = grid->texts};
    if (grid->kinds > 0) {
        dm_page_chart(page, &map.head);
    }
}
