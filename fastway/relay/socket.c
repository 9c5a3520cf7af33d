/* The only calls that read and write a link's socket.
 *
 * Law: as recv and sendmsg of a socket that does not block, and nothing is known here of what the
 * bytes are. What stands between a socket and its stream of bytes belongs here.
 */
#define _GNU_SOURCE
#include "inside.h"

#include <errno.h>
#include <sys/socket.h>

/* As recv and send. */
ssize_t read_raw(struct link *link, void *data, size_t size)
{
    ssize_t got;
    do
        got = recv(link->fd, data, size, 0);
    while (got < 0 && errno == EINTR);
    return got;
}

ssize_t write_raw(struct link *link, const void *data, size_t size)
{
    ssize_t sent;
    do
        sent = send(link->fd, data, size, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent;
}

/* Bytes that came; 0: its FIN; -1: errno tells, and EAGAIN that nothing more is there. `full`: there
 * may be more. `data` has room for TLS_RECORD more than `size`, and TLS may use it. */
ssize_t read_socket(struct relay *relay, struct link *link, uint8_t *data, size_t size, bool *full)
{
    if (link->tls != NULL)
        return tls_read(relay, link, data, size, full);
    ssize_t got = read_raw(link, data, size);
    *full = got >= 0 && (size_t)got == size;
    return got;
}

/* How many of the bytes that are offered it took; -1: errno tells, EAGAIN and ENOBUFS that it takes
 * nothing now. `all`: it may take more at once. */
ssize_t write_socket(struct relay *relay, struct link *link, struct offer *offer, bool *all)
{
    if (link->tls != NULL)
        return tls_write(relay, link, offer, all);
    struct iovec *vector = offer->vector;
    struct msghdr message = {.msg_iov = vector, .msg_iovlen = (size_t)offer->count};
    ssize_t sent;
    if (offer->count == 1) {
        sent = write_raw(link, vector->iov_base, vector->iov_len);
    } else {
        do
            sent = sendmsg(link->fd, &message, MSG_NOSIGNAL);
        while (sent < 0 && errno == EINTR);
    }
    *all = sent >= 0 && (size_t)sent == offer->size;
    return sent;
}
