/* floor: the least that a gateway must do for this wire protocol, to measure others beside it.
 *
 *     floor CLIENT_ADDR SERVER_ADDR
 *
 * It accepts on both ports, cuts the streams into packets, answers Dial with Accept and Connect or
 * with Refuse, answers Ping, passes Close on, closes what a lost end leaves behind, and copies
 * every other packet to the other end of its virtual connection. A turn is one epoll_wait of at
 * most EVENTS events; each readable socket is read once, at most READ bytes; at the end of the
 * turn every connection with something new to write is written once.
 *
 * Left out, so that a gateway has to cost more than this: the proof of the server key (the
 * challenge is a constant and any answer will do), a Dial limit, every bound on what waits for an
 * end, every timeout, back-pressure, two servers with one id (the first found is dialled),
 * fairness, counters, logging, options, a clean stop, and giving buffers back before their
 * connection ends. It holds at most CONNECTIONS virtual connections and dies of an error in its
 * own system calls. It is no limit of what can be done: whoever reads more before he writes can be
 * cheaper where several messages wait for one end.
 */
#define _GNU_SOURCE
#include <netinet/tcp.h>
#include <unistd.h>

#include "wire.h"

enum { EVENTS = 256, CONNECTIONS = 1 << 16 };

struct link {
    struct stream stream;
    bool is_server, ready, lost;
    uint32_t id;          /* among the clients, or among the servers */
    uint32_t connections; /* virtual */
    struct link *next_lost;
};

/* Virtual connection `conn_id` is in slot conn_id % CONNECTIONS. */
struct connection {
    uint32_t conn_id;
    struct link *ends[2];
};

static struct connection connections[CONNECTIONS];
static uint32_t last_conn_id, last_client_id;
static struct link **clients; /* by id */
static size_t clients_capacity;
static struct link *servers[256];
static struct link *lost_links;
static int poll_fd;

static void send_bytes(struct link *link, const uint8_t *data, size_t size)
{
    memcpy(append(&link->stream.out, size), data, size);
    touch(&link->stream);
}

static void send_command(struct link *link, int type, int count, uint32_t first, uint32_t second)
{
    uint8_t command[MAX_COMMAND];

    send_bytes(link, command, encode_command(command, type, count, first, second));
}

static struct connection *find(uint32_t conn_id)
{
    struct connection *connection = &connections[conn_id % CONNECTIONS];

    return conn_id && connection->conn_id == conn_id ? connection : NULL;
}

static struct link *find_server(uint32_t id)
{
    for (size_t i = 0; i < sizeof servers / sizeof *servers; i++)
        if (servers[i] && servers[i]->id == id)
            return servers[i];
    return NULL;
}

static void dial(struct link *from, uint32_t remote_id)
{
    struct link *to = NULL;
    struct connection *connection = NULL;

    if (!from->is_server)
        to = find_server(remote_id);
    else if (remote_id && remote_id <= last_client_id)
        to = clients[remote_id];
    for (int i = 0; to && i < CONNECTIONS && !connection; i++) {
        if (++last_conn_id == 0)
            last_conn_id = 1;
        if (connections[last_conn_id % CONNECTIONS].conn_id == 0)
            connection = &connections[last_conn_id % CONNECTIONS];
    }
    if (!connection) {
        send_command(from, REFUSE, 1, remote_id, 0);
        return;
    }
    *connection = (struct connection){last_conn_id, {from, to}};
    from->connections++;
    to->connections++;
    send_command(from, ACCEPT, 2, last_conn_id, remote_id);
    send_command(to, CONNECT, 2, last_conn_id, from->id);
}

static void close_connection(struct connection *connection)
{
    for (int i = 0; i < 2; i++) {
        connection->ends[i]->connections--;
        if (!connection->ends[i]->lost)
            send_command(connection->ends[i], CLOSE, 1, connection->conn_id, 0);
    }
    connection->conn_id = 0;
}

static void lose(struct link *link)
{
    if (link->lost)
        return;
    link->lost = true;
    close(link->stream.fd);
    for (size_t i = 0; link->connections && i < CONNECTIONS; i++)
        if (connections[i].conn_id &&
            (connections[i].ends[0] == link || connections[i].ends[1] == link))
            close_connection(&connections[i]);
    if (!link->is_server)
        clients[link->id] = NULL;
    else
        for (size_t i = 0; i < sizeof servers / sizeof *servers; i++)
            if (servers[i] == link)
                servers[i] = NULL;
    /* Events and the list of the touched may still name it until the turn is over. */
    link->next_lost = lost_links;
    lost_links = link;
}

static void run_command(struct link *link, const uint8_t *packet, size_t size)
{
    int type = size > HEADER ? packet[HEADER] : -1;
    struct connection *connection;

    if (type == DIAL && size == HEADER + 5) {
        dial(link, get32(packet + HEADER + 1));
    } else if (type == CLOSE && size == HEADER + 5) {
        connection = find(get32(packet + HEADER + 1));
        if (connection && (connection->ends[0] == link || connection->ends[1] == link))
            close_connection(connection);
    } else if (type == PING) {
        send_bytes(link, packet, size);
    } else {
        lose(link);
    }
}

static void forward(struct link *from, uint32_t conn_id, const uint8_t *packet, size_t size)
{
    struct connection *connection = find(conn_id);

    if (!connection)
        send_command(from, CLOSE, 1, conn_id, 0);
    else if (connection->ends[0] == from)
        send_bytes(connection->ends[1], packet, size);
    else if (connection->ends[1] == from)
        send_bytes(connection->ends[0], packet, size);
    else
        lose(from);
}

/* md5:16 bytes server_id:u32 */
static void let_in(struct link *link, const uint8_t *answer)
{
    size_t i = 0;

    while (i < sizeof servers / sizeof *servers && servers[i])
        i++;
    if (i == sizeof servers / sizeof *servers) {
        lose(link);
        return;
    }
    servers[i] = link;
    link->id = get32(answer + 16);
    link->ready = true;
}

static void read_link(struct link *link)
{
    ssize_t got = read_arrived(&link->stream, READ);
    const uint8_t *data = arrived;
    size_t left, size;

    if (got < 0) {
        lose(link);
        return;
    }
    left = (size_t)got;
    if (!link->ready && left >= 20) {
        let_in(link, data);
        data += 20;
        left -= 20;
    }
    while (link->ready && !link->lost && (size = packet_size(data, left)) != 0) {
        if (size == BAD_PACKET) {
            lose(link);
            return;
        }
        if (get32(data + 4))
            forward(link, get32(data + 4), data, size);
        else
            run_command(link, data, size);
        data += size;
        left -= size;
    }
    if (!link->lost)
        keep(&link->stream, data, left);
}

static void accept_waiting(int port, bool is_server)
{
    int fd, yes = 1;

    while ((fd = accept4(port, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        struct link *link = calloc(1, sizeof *link);

        if (!link)
            die("out of memory");
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        link->stream.fd = fd;
        link->is_server = is_server;
        watch(poll_fd, EPOLL_CTL_ADD, &link->stream, EPOLLIN);
        if (is_server) {
            send_bytes(link, (const uint8_t *)"\1\2\3\4\5\6\7\10", 8);
            continue;
        }
        link->ready = true;
        link->id = ++last_client_id;
        if (link->id >= clients_capacity) {
            clients_capacity = 2 * link->id;
            clients = realloc(clients, clients_capacity * sizeof *clients);
            if (!clients)
                die("out of memory");
        }
        clients[link->id] = link;
    }
    if (errno != EAGAIN && errno != ECONNABORTED)
        die("accept: %s", strerror(errno));
}

static int listen_on(const char *text)
{
    struct sockaddr_in address = parse_address(text);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), yes = 1;

    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) < 0 ||
        bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, SOMAXCONN) < 0)
        die("cannot listen on %s: %s", text, strerror(errno));
    return fd;
}

int main(int argc, char **argv)
{
    struct epoll_event events[EVENTS];
    struct stream client_port = {0}, server_port = {0}, *stream;

    if (argc != 3)
        die("usage: floor CLIENT_ADDR SERVER_ADDR");
    raise_descriptors();
    poll_fd = epoll_create1(0);
    client_port.fd = listen_on(argv[1]);
    server_port.fd = listen_on(argv[2]);
    watch(poll_fd, EPOLL_CTL_ADD, &client_port, EPOLLIN);
    watch(poll_fd, EPOLL_CTL_ADD, &server_port, EPOLLIN);
    for (;;) {
        int count = epoll_wait(poll_fd, events, EVENTS, -1);

        for (int i = 0; i < count; i++) {
            stream = events[i].data.ptr;
            if (stream == &client_port || stream == &server_port) {
                accept_waiting(stream->fd, stream == &server_port);
            } else if (!((struct link *)stream)->lost) {
                if (events[i].events & EPOLLOUT)
                    touch(stream);
                if (events[i].events & ~(uint32_t)EPOLLOUT)
                    read_link((struct link *)stream);
            }
        }
        while ((stream = next_touched()))
            if (!((struct link *)stream)->lost && stream->out.end &&
                !write_waiting(poll_fd, stream))
                lose((struct link *)stream);
        while (lost_links) {
            struct link *link = lost_links;

            lost_links = link->next_lost;
            free(link->stream.in.data);
            free(link->stream.out.data);
            free(link);
        }
    }
}
