#include "core/equilibria.h"

#include <stdlib.h>
#include <string.h>

#include "base/table.h"

bool dm_equilibria_full(const dm_equilibria *list) {
    return list->count > 0 && (list->count + 1) * list->game->total > DM_EQUILIBRIA_MAX_NUMBERS;
}

dm_status dm_equilibria_add(dm_equilibria *list, const double *x, int32_t component) {
    size_t total = list->game->total;
    list->found++;
    if (dm_equilibria_full(list)) {
        return DM_OK;
    }
    DM_TRY(dm_reserve((void *)&list->x, &list->x_room, (list->count + 1) * total, sizeof *list->x));
    DM_TRY(dm_reserve((void *)&list->components, &list->components_room, list->count + 1, sizeof *list->components));
    memcpy(list->x + list->count * total, x, total * sizeof *x);
    list->components[list->count++] = component;
    return DM_OK;
}

void dm_equilibria_free(dm_equilibria *list) {
    free(list->x);
    free(list->components);
    list->x = NULL;
    list->components = NULL;
    list->count = list->x_room = list->components_room = 0;
}
