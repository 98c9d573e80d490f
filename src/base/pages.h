/* Memory of many megabytes in huge pages: where weights are read once a token, walks through page tables cost time. */
#ifndef DM_BASE_PAGES_H
#define DM_BASE_PAGES_H

#include "base/status.h"

enum { DM_HUGE_PAGE = 2 << 20 };

typedef struct dm_pages {
    uint8_t *data; /* aligned to DM_HUGE_PAGE; zeros */
    void *mapped;  /* what the system gave; NULL: nothing */
    size_t mapped_bytes;
} dm_pages;

/* `bytes` of memory: out of the pool of huge pages that the administrator reserved, if all of it fits there, and all of it is
 * taken at once; else memory that the system gives when it is first touched, with the advice to give it in huge pages. With
 * dm_set_huge_pages(false) small pages. DM_ERR_MEMORY; *out is then empty. */
dm_status dm_pages_map(size_t bytes, dm_pages *out);
/* The same near a memory node of the system, as far as that has room; a negative number is none. Where the system does not let
 * its pages be bound, they come near the thread that touches them first. */
dm_status dm_pages_map_near(size_t bytes, int node, dm_pages *out);
/* Whether the system says that this process has memory of one node alone. */
bool dm_pages_one_node(void);
/* Pages of 4 KiB of the first `bytes` of it that lie on the node, and those that lie elsewhere, as the system tells; what nobody
 * touched is neither. */
void dm_pages_count(const dm_pages *pages, size_t bytes, int node, uint64_t *there, uint64_t *elsewhere);
/* Has all pages made that lie in these bytes, in whole or in part; what they hold stays as it is. False where the system does not
 * know how (Linux before 5.14), or has no room. */
bool dm_pages_make(void *data, size_t bytes);
/* Gives it back and leaves *pages empty. */
void dm_pages_unmap(dm_pages *pages);

/* The same advice for all huge pages that begin in [data, data + bytes), memory from elsewhere that nobody has touched. */
void dm_pages_advise(void *data, size_t bytes);

#endif
