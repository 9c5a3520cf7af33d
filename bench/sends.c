/* sends: the least that a message to many can cost; the floor of a push.
 *
 *     sends ADDR COUNT SIZE
 *
 * It accepts COUNT connections, then one more. That one sends packets of SIZE bytes, headers
 * included. What has one of the numbers 1 to COUNT as its connection id is sent to that member, the
 * first is 1; any other is sent to all of them, with their own numbers in its place. Each is one
 * call of send. Its end is the program's.
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

static void give(int member, const uint8_t *packet, int size)
{
    if (send(member, packet, (size_t)size, MSG_NOSIGNAL) != size)
        die("a recipient does not take it");
}

int main(int argc, char **argv)
{
    static uint8_t room[MAX_PACKET], *packet = room;
    int count = argc == 4 ? atoi(argv[2]) : 0, size = argc == 4 ? atoi(argv[3]) : 0, yes = 1;

    if (count < 1 || size < HEADER || size > (int)sizeof room)
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
    ssize_t got;
    for (size_t had = 0; (got = recv(conductor, room + had, sizeof room - had, 0)) > 0;) {
        had += (size_t)got;
        for (packet = room; had >= (size_t)size; packet += size, had -= (size_t)size) {
            uint32_t number = get32(packet + 4);
            if (number >= 1 && number <= (uint32_t)count) {
                give(members[number - 1], packet, size);
                continue;
            }
            for (int i = 0; i < count; i++) {
                put32(packet + 4, (uint32_t)i + 1);
                give(members[i], packet, size);
            }
        }
        memmove(room, packet, had);
    }
    for (int i = 0; i < count; i++)
        close(members[i]);
    free(members);
}
