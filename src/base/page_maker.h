/* Has memory's pages made by a thread that runs where nothing else does, before they are needed. */
#ifndef DM_BASE_PAGE_MAKER_H
#define DM_BASE_PAGE_MAKER_H

#include <stddef.h>

typedef struct dm_stretch {
    void *data;
    size_t bytes;
} dm_stretch;

typedef struct dm_page_maker dm_page_maker;

/* Begins with the pages of stretches[n], in that order; what they hold stays as it is, and others may use them meanwhile. They
 * have to be there until dm_page_maker_stop(); the list itself is copied. NULL where there is no thread for it, or no memory,
 * which is no failure: then pages are made when they are first touched. */
dm_page_maker *dm_page_maker_start(const dm_stretch *stretches, size_t n);
/* Ends it, within a few milliseconds, wherever it is. NULL is fine. */
void dm_page_maker_stop(dm_page_maker *it);

#endif
