/* A page of charts that is one file and asks the network for nothing; or the charts alone, a file each; or both. */
#ifndef DM_VISUALIZATION_PAGE_H
#define DM_VISUALIZATION_PAGE_H

#include "base/status.h"
#include "visualization/chart.h"
#include "visualization/markup.h"

/* What grows side by side. */
enum { DM_PAGE_FACTS, DM_PAGE_LINKS, DM_PAGE_BODY, DM_PAGE_LEFT, DM_PAGE_PARTS };

typedef struct dm_page {
    const char *svg; /* folder for charts, which is made; NULL: none */
    dm_text_stream parts[DM_PAGE_PARTS];
    bool in_section;
    size_t charts, left_out;
    dm_status status; /* of the first failure, which the calls below pass on in silence until dm_page_end() */
} dm_page;

/* Every page ends with dm_page_end(). */
void dm_page_begin(dm_page *page, const char *svg);
/* A line of what the page is about. */
void dm_page_fact(dm_page *page, const char *name, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* What follows belongs together. `name` is a dm_slug(). */
void dm_page_section(dm_page *page, const char *name, const char *title, const char *intro);
/* The chart, its note and its table. */
void dm_page_chart(dm_page *page, const dm_chart *chart);
/* Markup that the caller writes into the section. */
FILE *dm_page_body(dm_page *page);
/* "not in this report, because ...": what, and why. */
void dm_page_leave_out(dm_page *page, const char *what, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* Writes the page to `path` (NULL: nowhere), atomically, and frees what it holds. */
dm_status dm_page_end(dm_page *page, const char *path, const char *title);
/* The other end: what is between the page's head and its script. *out (NUL-terminated) is the caller's to free(). */
dm_status dm_page_end_content(dm_page *page, char **out);
/* A page that has no content yet and gets it, again and again, from the events of its own server's "events". */
dm_status dm_page_live(const char *title, char **out);

#endif
