/* What quantize or optimize reported. */
#include "visualization/parts.h"

dm_status dm_part_compression(dm_page *page, const json_t *report, const char *path) {
    (void)report;
    dm_page_leave_out(page, "x", "because %s", path);
    return page->status;
}
