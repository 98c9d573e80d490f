/* Who asks, and whether they may. */
#ifndef DM_SERVER_CLIENT_H
#define DM_SERVER_CLIENT_H

#include "server/server_parts.h"

/* A number for who asks: the key that was named, or else the address; never 0. */
uint64_t dm_client_of(const dm_exchange *exchange);
/* Whether the request names one of the server's keys, or there are none. Takes as long for a key that is nearly right as for
 * one that is not. */
bool dm_client_is_known(const dm_exchange *exchange);
/* Whether the request was meant for this machine by its own name, or a key was asked for. A page of a stranger whose name was
 * made to lead here (DNS rebinding, CVE-2024-28224) names itself as the host. Only of a server that nobody else reaches. */
bool dm_client_means_us(const dm_exchange *exchange);

#endif
