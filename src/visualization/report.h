/* A report: the pictures of a training run, a model or a compression, as one page that needs no network. */
#ifndef DM_VISUALIZATION_REPORT_H
#define DM_VISUALIZATION_REPORT_H

#include "base/status.h"

/* All zero but the source: the defaults. */
typedef struct dm_report_options {
    const char *source; /* a run's folder, a GGUF model, or the JSON that quantize or optimize reported */
    const char *model;  /* the model that a report of quantize is about, or NULL */
    const char *text;   /* [text_length] bytes to run the model over: NULL: what needs that is left out */
    size_t text_length;
    int32_t tokens;   /* most of it, 0: 512 */
    double beta;      /* of the games, see dm_router_options: crowding, */
    double gamma;     /* and fetching, with room for half of a layer's experts; both 0: 0.5 and 0.2 */
    const char *page; /* file to write, or NULL */
    const char *svg;  /* folder for the charts, a file each, or NULL */
} dm_report_options;

typedef struct dm_report_result {
    size_t charts;
    size_t left_out; /* that there was no data for; the page says why */
    size_t skipped;  /* lines of metrics.jsonl that could not be used */
} dm_report_result;

/* Writes the page and the charts, each file atomically. Fails where the source cannot be read or has nothing to show. The model
 * runs over the text token by token for the flock and the caches, plays games over it in pieces, and is timed, all for seconds;
 * the rest of a report takes no time, and depends on the source alone. DM_ERR_INTERRUPTED after dm_interrupt(). */
dm_status dm_report(const dm_report_options *options, dm_report_result *result);

/* The content of the page that dm_report() would write of a run's folder, as far as metrics.jsonl goes; of a run that has no step
 * yet, what is missing. *out (NUL-terminated) is the caller's to free(). */
dm_status dm_report_content(const char *folder, char **out);
/* And the page to put it into, see dm_page_live(). */
dm_status dm_report_live_page(const char *folder, char **out);

#endif
