/*
 * The pictures of a run while it trains, over HTTP on this machine alone. GET / is the report's page; GET /events sends its
 * content anew, as server-sent events, whenever the run has written more.
 *
 * What it costs is bounded: a thread of its own reads metrics.jsonl and draws only while somebody looks, and then rests 250 times
 * as long as that took, two seconds at least. The training thread is not involved.
 */
#ifndef DM_VISUALIZATION_DASHBOARD_H
#define DM_VISUALIZATION_DASHBOARD_H

#include "base/status.h"

typedef struct dm_dashboard dm_dashboard;

/* Of the run in `folder`, which need not be there yet, on 127.0.0.1; port 0: any that is free. DM_ERR_IO where the port is not to
 * be had; DM_ERR_UNSUPPORTED where the library was built without libmicrohttpd. */
dm_status dm_dashboard_start(const char *folder, uint16_t port, dm_dashboard **out);
/* That it listens on. */
uint16_t dm_dashboard_port(const dm_dashboard *it);
/* Ends all connections; NULL: there is none. */
void dm_dashboard_stop(dm_dashboard *it);

/* Whether there is what it takes. */
bool dm_dashboard_is_built(void);

#endif
