/* The only calls that read and write a link's socket.
 *
 * Law: as recv and sendmsg of a socket that does not block, and nothing is known here of what the
 * bytes are. What stands between a socket and its stream of bytes belongs here.
 */
#define _GNU_SOURCE
#include "inside.h"

#include <errno.h>
#include <sys/socket.h>

/* Bytes that came; 0: its FIN; -1: errno tells, and EAGAIN that nothing more is there. */
ssize_t read_socket(struct link *link, void *data, size_t size)
{
    ssize_t got;
    do
        got = recv(link->fd, data, size, 0);
    while (got < 0 && errno == EINTR);
    return got;
}

/* How many of the bytes that are offered it took; -1: errno tells, EAGAIN and ENOBUFS that it takes
 * nothing now. */
ssize_t write_socket(struct link *link, struct offer *offer)
{
    struct iovec *vector = offer->vector;
    struct msghdr message = {.msg_iov = vector, .msg_iovlen = (size_t)offer->count};
    ssize_t sent;
    do
        sent = offer->count == 1 ? send(link->fd, vector->iov_base, vector->iov_len, MSG_NOSIGNAL)
                                   : sendmsg(link->fd, &message, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent;
}
