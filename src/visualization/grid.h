/* A value for each kind of matrix in each layer of a model, told by the names of tensors. */
#ifndef DM_VISUALIZATION_GRID_H
#define DM_VISUALIZATION_GRID_H

#include "visualization/page.h"

enum { DM_GRID_LAYERS = 512, DM_GRID_KINDS = 32, DM_GRID_NAME = 64 };

/* All tensors of one kind in one layer: an amount over a weight, such as bits over elements. */
typedef struct dm_grid_cell {
    double amount, weight;
    const char *text; /* the same of all of them, or NULL; the caller's */
} dm_grid_cell;

typedef struct dm_grid {
    size_t layers, kinds; /* in use */
    size_t lost;          /* tensors of layers for which there was no place */
    char names[DM_GRID_KINDS][DM_GRID_NAME];
    char labels[DM_GRID_LAYERS][DM_NUMBER_TEXT];
    dm_grid_cell cells[DM_GRID_KINDS][DM_GRID_LAYERS];
    double values[DM_GRID_KINDS * DM_GRID_LAYERS]; /* [kinds, layers] */
    const char *texts[DM_GRID_KINDS * DM_GRID_LAYERS];
} dm_grid;

/* "blk.12.ffn_up.weight": layer 12, kind "ffn_up"; an expert's own number is left out. False for what is in no layer, and for
 * what no layer of a model is called. */
bool dm_grid_split(const char *name, size_t *layer, char kind[DM_GRID_NAME]);
/* Adds a tensor; from {0}. What is in no layer is passed over. */
void dm_grid_add(dm_grid *grid, const char *name, double amount, double weight, const char *text);
/* Nothing is drawn of an empty grid. The head's kind is set here. */
void dm_grid_draw(dm_page *page, dm_grid *grid, const dm_chart *head, const char *value_name);

#endif
