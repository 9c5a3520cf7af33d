/* sends: the least that a message to many can cost; the floor of a push.
 *
 *     sends ADDR COUNT SIZE
 *
 * It accepts COUNT connections, then one more. Each SIZE bytes that come on that one are a packet,
 * which it sends to all the others, one call of send each, with its own number in place of the
 * packet's connection id: 1 for the first. Its end is the program's.
 *
 * Left out is everything else: there is no epoll, no queue, no bound, no second try.
 */
#define _GNU_SOURCE
#include <netinet/tcp.h>
#include <unistd.h>

#include "wire.h"

static int accept_one(int port)
{
    int fd = accept(port, NULL, NULL), yes = 1;

    if (fd < 0)
        die("accept: %s", strerror(errno));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    return fd;
}

int main(int argc, char **argv)
{
    static uint8_t packet[HEADER + MAX_PACKET];
    int count = argc == 4 ? atoi(argv[2]) : 0, size = argc == 4 ? atoi(argv[3]) : 0, yes = 1;

    if (count < 1 || size < HEADER || size > (int)sizeof packet)
        die("usage: sends ADDR COUNT SIZE");
    struct sockaddr_in address = parse_address(argv[1]);
    int port = socket(AF_INET, SOCK_STREAM, 0), *members = calloc((size_t)count, sizeof *members);
    if (port < 0 || members == NULL
        || setsockopt(port, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) < 0
        || bind(port, (struct sockaddr *)&address, sizeof address) < 0
        || listen(port, SOMAXCONN) < 0)
        die("cannot listen on %s: %s", argv[1], strerror(errno));
    raise_descriptors();
    puts("listening");
    fflush(stdout);
    for (int i = 0; i < count; i++)
        members[i] = accept_one(port);
    int conductor = accept_one(port);
    while (recv(conductor, packet, (size_t)size, MSG_WAITALL) == size)
        for (int i = 0; i < count; i++) {
            put32(packet + 4, (uint32_t)i + 1);
            if (send(members[i], packet, (size_t)size, MSG_NOSIGNAL) != size)
                die("a recipient does not take it");
        }
    for (int i = 0; i < count; i++)
        close(members[i]);
    free(members);
}
