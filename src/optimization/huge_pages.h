/* What the system does about huge pages, which spare memory reads the walk through page tables. */
#ifndef DM_OPTIMIZATION_HUGE_PAGES_H
#define DM_OPTIMIZATION_HUGE_PAGES_H

#include "dilmodeli.h"

/* Reads /sys below `root`: "" for that of this machine. What it does not tell is "" or 0. */
void dm_huge_pages_read(const char *root, dm_huge_pages *out);

#endif
