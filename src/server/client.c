#include "server/client.h"

#include <netinet/in.h>
#include <poll.h>
#include <string.h>

#include "base/hash.h"

/* The key in "Authorization: Bearer KEY" or "X-Api-Key: KEY"; NULL: there is none. */
static const char *named_key(const dm_exchange *exchange) {
    const char *value = MHD_lookup_connection_value(exchange->connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_AUTHORIZATION);
    if (value != NULL && strncasecmp(value, "Bearer ", 7) == 0) {
        return value + 7 + strspn(value + 7, " ");
    }
    return MHD_lookup_connection_value(exchange->connection, MHD_HEADER_KIND, "X-Api-Key");
}

/* Looks at every byte of what was named, whatever differs. */
static bool is_key(const char *key, const char *named) {
    size_t length = strlen(key), n = strlen(named);
    unsigned difference = length != n || length == 0;
    for (size_t i = 0; i < n; i++) {
        difference |= (unsigned char)named[i] ^ (unsigned char)(length > 0 ? key[i % length] : 1);
    }
    return difference == 0;
}

bool dm_client_is_known(const dm_exchange *exchange) {
    const dm_server *server = exchange->server;
    const char *named = named_key(exchange);
    unsigned known = server->n_keys == 0;
    for (size_t i = 0; named != NULL && i < server->n_keys; i++) {
        known |= is_key(server->keys[i], named);
    }
    return known != 0;
}

static bool is_loopback(const char *host, size_t length) {
    bool all_digits = strspn(host, "0123456789.") >= length;
    return (length == 9 && strncasecmp(host, "localhost", length) == 0) || (length == 5 && strncmp(host, "[::1]", length) == 0) ||
           (length == 3 && strncmp(host, "::1", length) == 0) || (all_digits && strncmp(host, "127.", 4) == 0);
}

bool dm_client_means_us(const dm_exchange *exchange) {
    const dm_server *server = exchange->server;
    const char *host = MHD_lookup_connection_value(exchange->connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_HOST);
    if (server->n_keys > 0 || host == NULL || !is_loopback(server->host, strlen(server->host))) {
        return true;
    }
    const char *bracket = strchr(host, ']'), *port = strchr(bracket != NULL ? bracket : host, ':');
    return is_loopback(host, port != NULL ? (size_t)(port - host) : strlen(host));
}

static uint64_t hash_address(const struct sockaddr *address) {
    if (address != NULL && address->sa_family == AF_INET) {
        return dm_hash_bytes(&((const struct sockaddr_in *)(const void *)address)->sin_addr, sizeof(struct in_addr), 0);
    }
    if (address != NULL && address->sa_family == AF_INET6) {
        return dm_hash_bytes(&((const struct sockaddr_in6 *)(const void *)address)->sin6_addr, sizeof(struct in6_addr), 0);
    }
    return 1;
}

uint64_t dm_client_of(const dm_exchange *exchange) {
    const char *key = exchange->server->n_keys > 0 ? named_key(exchange) : NULL;
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(exchange->connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    uint64_t hash = key != NULL ? dm_hash_bytes(key, strlen(key), 1) : hash_address(info != NULL ? info->client_addr : NULL);
    return hash != 0 ? hash : 1;
}

void dm_touch(const dm_server *server, struct MHD_Connection *connection) {
    /* Setting it from 0 makes the library's clock start anew. */
    MHD_set_connection_option(connection, MHD_CONNECTION_OPTION_TIMEOUT, 0U);
    MHD_set_connection_option(connection, MHD_CONNECTION_OPTION_TIMEOUT, (unsigned)server->options.idle_s);
}

bool dm_peer_gone(struct MHD_Connection *connection) {
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    if (info == NULL) {
        return true;
    }
    struct pollfd look = {.fd = info->connect_fd, .events = POLLRDHUP};
    return poll(&look, 1, 0) > 0 && (look.revents & (POLLRDHUP | POLLHUP | POLLERR | POLLNVAL)) != 0;
}
