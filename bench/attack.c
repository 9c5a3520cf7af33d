/* attack: what hostile or unlucky peers do to a gateway, on 127.0.0.1 and for a bounded time.
 *
 *     attack KIND [-c CLIENTS] [-v CONNECTIONS] [-r RATE] [-p PIECE] [-n SERVER_ID] [-i IDLE]
 *                 [-d DURATION] [-k KEY] CLIENT_ADDR SERVER_ADDR
 *
 *     dials pings strays closes mix   each client sends commands as fast as its socket takes them:
 *               Dials to absent servers; Pings; packets of connections that never were; Closes of
 *               others' connections; all in turn. It reads RATE bytes a second of the answers.
 *     churn     each client dials and sends Close when the Accept is there, 16 at a time.
 *     messages  each client sends messages of 64 bytes to a server that reads RATE bytes a second.
 *     storm     connections are made and closed at once, 64 under way at a time.
 *     reset     CLIENTS, each with CONNECTIONS to a server, reset all at once.
 *     server    the same, and the server resets.
 *     idle      CLIENTS that send a Ping every second stop that, all at once; the gateway's idle
 *               timeout is IDLE seconds.
 *     crowd     CLIENTS, each with CONNECTIONS, that do nothing more.
 *
 * RATE is for each who reads; -1 reads all, 0 nothing. With PIECE all clients together send so
 * many bytes every tenth of a millisecond, so that a gateway gets little at a time. With SERVER_ID
 * a server that is there already is dialled; without, one of its own with the id 2 is opened where
 * a kind needs one.
 *
 * It says "ready" when all are connected; a line on its input begins the attack, and it says
 * "begun"; the next line, the end of the input or DURATION ends it, and a line of JSON says what
 * was done.
 *
 * Law: attackers who are cut off come back. Nothing they receive is checked, `pair` does that.
 */
#define _GNU_SOURCE
#include <poll.h>

#include "ends.h"

enum {
    EVENTS = 32, /* after so many a server of ours is read: it does not wait for its flooders */
    OWN_SERVER = 2,
    SERVER_READS = 32,
    ABSENT = 1000000,
    MAX_UNANSWERED = 32,
    AT_ONCE = 64,
    CHURN = 16,
    FLOOD = 16 * 1024,
    UNSENT = 64 * 1024, /* bytes that the kernel keeps for an attacker: what is sent has left */
    REFILLS = 100,
    KEEP_ALIVES = 100, /* parts of the clients that send their Pings one after another */
    PAUSE_NS = 100 * 1000,
    STORM_PATIENCE_NS = 20 * 1000 * 1000
};

enum kind {
    DIALS, PINGS, STRAYS, CLOSES, MIX, CHURNS, MESSAGES, STORM, RESET, SERVER, IDLE, CROWD
};

static const char *const kinds[] = {"dials",    "pings", "strays", "closes", "mix",  "churn",
                                    "messages", "storm", "reset",  "server", "idle", "crowd"};

struct link {
    struct stream stream;
    bool connecting, deaf;
    bool ready; /* its first Ping is back */
    int number;
    int answered;     /* Accepts so far */
    uint32_t conn_id; /* of the last one */
    double allowance; /* bytes it may read before the next refill */
    size_t at;        /* how far it is in its flood */
    uint8_t *flood;   /* what it sends again and again; NULL: nothing */
    size_t flood_size;
};

static struct {
    enum kind kind;
    int clients, connections, server_id, piece;
    double rate, duration, idle;
    const char *key;
} option = {.clients = 1, .rate = -1, .duration = 5, .idle = 3, .key = ""};

static struct sockaddr_in client_address, server_address;
static int poll_fd;
static struct link server;
static struct link *clients;
static struct stream input;
static uint8_t shared_flood[FLOOD];
static size_t shared_size, unit; /* bytes of the flood, and of one command in it on the average */
static bool attacking, over;
static int made, ready_clients;
static uint64_t now, sent, received, lost, done, refilled;

static bool reads_slowly(const struct link *link)
{
    if (option.rate < 0)
        return false;
    return option.kind == MESSAGES ? link == &server : link != &server;
}

static bool needs_server(void)
{
    return option.connections > 0 && !option.server_id;
}

static void say(const char *line)
{
    puts(line);
    fflush(stdout);
}

/* What is sent. */

static size_t add_command(uint8_t *to, enum kind kind, uint32_t turn)
{
    switch (kind) {
    case DIALS: return encode_command(to, DIAL, 1, ABSENT, 0);
    case PINGS: return encode_command(to, PING, 0, 0, 0);
    case CLOSES: return encode_command(to, CLOSE, 1, 1 + turn % 100, 0);
    default: put32(to, 4); put32(to + 4, 0x80000000 + turn); return HEADER;
    }
}

static void prepare_flood(void)
{
    uint32_t turn = 0;

    for (; shared_size + MAX_COMMAND <= FLOOD; turn++) {
        enum kind kind = option.kind == MIX ? (enum kind)(turn % MIX) : option.kind;

        shared_size += add_command(shared_flood + shared_size, kind, turn);
    }
    unit = shared_size / turn;
}

static void prepare_messages(struct link *link)
{
    enum { SIZE = 64, COUNT = FLOOD / (HEADER + SIZE) };

    unit = HEADER + SIZE;
    link->flood_size = COUNT * unit;
    if (!link->flood && !(link->flood = malloc(link->flood_size)))
        die("out of memory");
    for (uint32_t i = 0; i < COUNT; i++) {
        put32(link->flood + i * unit, 4 + SIZE);
        put32(link->flood + i * unit + 4, link->conn_id);
        write_pattern(link->flood + i * unit + HEADER, SIZE, (uint32_t)link->number, i);
    }
}

static void queue_command(struct link *link, int type, int arguments, uint32_t argument)
{
    uint8_t command[MAX_COMMAND];
    size_t size = encode_command(command, type, arguments, argument, 0);

    memcpy(append(&link->stream.out, size), command, size);
    touch(&link->stream);
}

static bool floods(const struct link *link)
{
    return attacking && !over && link->flood && !link->connecting &&
           link->answered >= option.connections;
}

static void look(struct link *link)
{
    uint32_t events = link->deaf ? 0 : EPOLLIN;

    link->stream.blocked = link->connecting || floods(link) || link->stream.out.end;
    watch(poll_fd, EPOLL_CTL_MOD, &link->stream, events | (link->stream.blocked ? EPOLLOUT : 0));
}

/* Connections. */

static void greet(struct link *link)
{
    for (int i = 0; i < option.connections && option.kind != CHURNS; i++)
        queue_command(link, DIAL, 1, option.server_id ? (uint32_t)option.server_id : OWN_SERVER);
    if (option.kind == CHURNS) {
        for (int i = 0; i < CHURN && attacking; i++)
            queue_command(link, DIAL, 1, OWN_SERVER);
    }
    if (!attacking)
        queue_command(link, PING, 0, 0);
}

static void open_client(struct link *link)
{
    int fd = open_socket(&client_address, made++, SOCK_NONBLOCK), unsent = UNSENT;

    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &unsent, sizeof unsent);
    link->stream.fd = fd;
    link->stream.in.start = link->stream.in.end = 0;
    link->stream.out.start = link->stream.out.end = 0;
    link->connecting = link->stream.blocked = true;
    link->deaf = false;
    link->answered = 0;
    link->at = 0;
    if (connect(fd, (struct sockaddr *)&client_address, sizeof client_address) < 0 &&
        errno != EINPROGRESS)
        die("cannot connect: %s", strerror(errno));
    watch(poll_fd, EPOLL_CTL_ADD, &link->stream, EPOLLIN | EPOLLOUT);
}

static void reset(struct link *link)
{
    struct linger linger = {.l_onoff = 1};

    setsockopt(link->stream.fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
    close(link->stream.fd);
    link->stream.fd = -1;
}

/* The gateway has cut it off, or its connection cannot be made. */
static void link_lost(struct link *link)
{
    lost++;
    if (link == &server && !attacking)
        die("the gateway ended the server's connection");
    if (!attacking && option.kind != STORM)
        die("the gateway ended the connection of client %d", link->number);
    close(link->stream.fd);
    link->stream.fd = -1;
    if (link != &server && !over && option.kind <= MESSAGES)
        open_client(link);
}

static void write_link(struct link *link)
{
    struct bytes *out = &link->stream.out;
    ssize_t size;

    if (out->end) {
        size = send(link->stream.fd, out->data + out->start, out->end - out->start, MSG_NOSIGNAL);
        if (size > 0)
            out->start += (size_t)size;
        if (out->start == out->end)
            out->start = out->end = 0;
    } else if (floods(link)) {
        size_t most = link->flood_size - link->at;

        if (option.piece && most > (size_t)option.piece)
            most = (size_t)option.piece;
        size = send(link->stream.fd, link->flood + link->at, most, MSG_NOSIGNAL);
        if (option.piece)
            nanosleep(&(struct timespec){.tv_nsec = PAUSE_NS}, NULL);
        if (size > 0) {
            sent += (uint64_t)size;
            link->at = (link->at + (size_t)size) % link->flood_size;
        }
    } else {
        size = 0;
    }
    if (size < 0 && errno != EAGAIN && errno != EINTR)
        link_lost(link);
    else if (link->stream.blocked != (floods(link) || out->end))
        look(link);
}

static void connected(struct link *link)
{
    int error = 0;
    socklen_t size = sizeof error;

    getsockopt(link->stream.fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error) {
        link_lost(link);
        return;
    }
    link->connecting = false;
    greet(link);
    look(link);
}

static void packet_received(struct link *link, const uint8_t *packet, size_t size)
{
    bool is_command = get32(packet + 4) == 0;

    if (link == &server || !is_command)
        return;
    if (packet[HEADER] == ACCEPT && option.kind == CHURNS) {
        queue_command(link, CLOSE, 1, get32(packet + HEADER + 1));
        sent += 2 * unit;
        if (!over)
            queue_command(link, DIAL, 1, OWN_SERVER);
    } else if (packet[HEADER] == ACCEPT) {
        link->answered++;
        link->conn_id = get32(packet + HEADER + 1);
        if (option.kind == MESSAGES && link->answered == option.connections) {
            prepare_messages(link);
            look(link);
        }
    } else if (packet[HEADER] == REFUSE && !attacking) {
        die("the gateway refused a dial");
    } else if (packet[HEADER] == PING && size == HEADER + 1 && !link->ready) {
        link->ready = true;
        ready_clients++;
    }
}

/* One read. False: there was nothing to read, or there may be none. */
static bool receive(struct link *link)
{
    bool slow = attacking && reads_slowly(link);
    size_t most = slow && link->allowance < READ ? (size_t)link->allowance : READ;
    size_t kept = link->stream.in.end, left, size;
    const uint8_t *data = arrived;
    ssize_t got;

    if (most == 0) {
        link->deaf = true;
        look(link);
        return false;
    }
    got = read_arrived(&link->stream, most);
    if (got < 0) {
        link_lost(link);
        return false;
    }
    if ((size_t)got <= kept)
        return false;
    received += (uint64_t)got - kept;
    if (slow)
        link->allowance -= (double)((size_t)got - kept);
    left = (size_t)got;
    while ((size = packet_size(data, left)) != 0 && size != BAD_PACKET) {
        packet_received(link, data, size);
        data += size;
        left -= size;
    }
    keep(&link->stream, data, left);
    return true;
}

static void refill(void)
{
    struct link *link;

    if (!attacking || option.rate < 0 || now - refilled < 1000000000 / REFILLS)
        return;
    for (int i = -1; i < option.clients; i++) {
        link = i < 0 ? &server : &clients[i];
        if (!reads_slowly(link) || link->stream.fd < 0)
            continue;
        link->allowance = option.rate * (double)(now - refilled) / 1e9;
        if (link->deaf && link->allowance >= 1) {
            link->deaf = false;
            look(link);
        }
    }
    refilled = now;
}

static void input_received(void)
{
    char line[16];
    ssize_t got = read(STDIN_FILENO, line, sizeof line);

    if (got <= 0 && !attacking)
        die("nobody waits for the attack");
    if (attacking)
        over = true;
    attacking = true;
    refilled = now;
}

static void turn(int timeout)
{
    struct epoll_event events[EVENTS];
    struct stream *stream;
    struct link *link;
    int ready = epoll_wait(poll_fd, events, EVENTS, timeout);

    now = clock_ns(CLOCK_MONOTONIC);
    for (int i = 0; i < ready; i++) {
        stream = events[i].data.ptr;
        link = (struct link *)stream;
        if (stream == &input)
            input_received();
        else if (link->connecting && events[i].events & EPOLLOUT)
            connected(link);
        else if (link->connecting)
            link_lost(link);
        else {
            if (events[i].events & ~(uint32_t)EPOLLOUT)
                receive(link);
            if (stream->fd >= 0 && !link->connecting && events[i].events & EPOLLOUT)
                write_link(link);
        }
    }
    for (int i = 0; i < SERVER_READS && server.stream.fd >= 0 && !server.deaf; i++)
        if (!receive(&server))
            break;
    while ((stream = next_touched()))
        if (stream->fd >= 0 && !((struct link *)stream)->connecting)
            write_link((struct link *)stream);
    refill();
}

/* The attacks that are not floods. */

/* A gateway's queue of new connections may be full, and the kernel then tries again after a
 * second: who storms does not wait for that. */
static void storm(uint64_t deadline)
{
    struct pollfd under_way[AT_ONCE], told = {.fd = STDIN_FILENO, .events = POLLIN};
    uint64_t since[AT_ONCE] = {0};

    for (int i = 0; i < AT_ONCE; i++)
        under_way[i] = (struct pollfd){.fd = -1, .events = POLLOUT};
    while (now < deadline && poll(&told, 1, 0) == 0) {
        for (int i = 0; i < AT_ONCE; i++) {
            bool is_made = under_way[i].fd >= 0 && under_way[i].revents;

            if (under_way[i].fd >= 0 && !is_made && now - since[i] < STORM_PATIENCE_NS)
                continue;
            if (under_way[i].fd >= 0)
                close(under_way[i].fd);
            done += is_made;
            under_way[i].fd = open_socket(&client_address, made++, SOCK_NONBLOCK);
            since[i] = now;
            connect(under_way[i].fd, (struct sockaddr *)&client_address, sizeof client_address);
        }
        poll(under_way, AT_ONCE, 1);
        now = clock_ns(CLOCK_MONOTONIC);
    }
    for (int i = 0; i < AT_ONCE; i++)
        close(under_way[i].fd);
}

/* Who must not idle out before the attack sends a Ping every second, but not all at once. */
static void keep_alive(void)
{
    static uint64_t pinged;
    static int part;

    if (option.kind != IDLE || now - pinged < 1000000000 / KEEP_ALIVES)
        return;
    pinged = now;
    part = (part + 1) % KEEP_ALIVES;
    for (int i = part; i < option.clients; i += KEEP_ALIVES)
        if (clients[i].ready)
            queue_command(&clients[i], PING, 0, 0);
}

static void open_all(void)
{
    int opened = 0;

    server.stream.fd = -1;
    if (needs_server()) {
        server.stream.fd = connect_server(&server_address, OWN_SERVER, option.key, 10);
        watch(poll_fd, EPOLL_CTL_ADD, &server.stream, EPOLLIN);
    }
    for (int i = 0; i < option.clients; i++)
        clients[i].stream.fd = -1;
    while (ready_clients < option.clients) {
        for (; opened < option.clients && opened - ready_clients < MAX_UNANSWERED; opened++) {
            clients[opened].number = opened;
            if (option.kind <= MIX) {
                clients[opened].flood = shared_flood;
                clients[opened].flood_size = shared_size;
            }
            open_client(&clients[opened]);
        }
        turn(10);
        keep_alive();
    }
}

static void wait_for_line(void)
{
    while (!attacking) {
        turn(10);
        keep_alive();
    }
}

static void begin(void)
{
    uint64_t until;

    now = clock_ns(CLOCK_MONOTONIC);
    if (option.kind == IDLE) {
        for (int i = 0; i < option.clients; i++)
            queue_command(&clients[i], PING, 0, 0);
        for (until = now + seconds(option.idle - 0.3); now < until;)
            turn(10);
    }
    say("begun");
    if (option.kind == RESET)
        for (int i = 0; i < option.clients; i++, done++)
            reset(&clients[i]);
    if (option.kind == SERVER) {
        reset(&server);
        done = (uint64_t)option.clients * (uint64_t)option.connections;
    }
    for (int i = 0; i < option.clients && option.kind <= MESSAGES; i++) {
        if (option.kind == CHURNS)
            greet(&clients[i]);
        look(&clients[i]);
    }
}

static void parse_options(int argc, char **argv)
{
    int letter;

    while ((letter = getopt(argc, argv, "c:v:r:p:n:i:d:k:")) != -1) {
        switch (letter) {
        case 'c': option.clients = whole(optarg, 1, 1000000); break;
        case 'v': option.connections = whole(optarg, 0, 1000000); break;
        case 'r': option.rate = whole(optarg, -1, 1 << 30); break;
        case 'p': option.piece = whole(optarg, 1, FLOOD); break;
        case 'n': option.server_id = whole(optarg, 1, 1 << 30); break;
        case 'i': option.idle = duration(optarg); break;
        case 'd': option.duration = duration(optarg); break;
        case 'k': option.key = optarg; break;
        default: exit(2);
        }
    }
    if (argc - optind != 2)
        die("usage: attack KIND [options] CLIENT_ADDR SERVER_ADDR");
    client_address = parse_address(argv[optind]);
    server_address = parse_address(argv[optind + 1]);
    if (ntohl(client_address.sin_addr.s_addr) >> 24 != 127 ||
        ntohl(server_address.sin_addr.s_addr) >> 24 != 127)
        die("only a gateway on loopback is attacked");
}

int main(int argc, char **argv)
{
    uint64_t began, deadline;
    double took;

    while (argc > 1 && option.kind <= CROWD && strcmp(argv[1], kinds[option.kind]) != 0)
        option.kind++;
    if (argc < 2 || option.kind > CROWD)
        die("usage: attack dials|pings|...|crowd [options] CLIENT_ADDR SERVER_ADDR");
    if (option.kind == CHURNS || option.kind == MESSAGES)
        option.connections = 1;
    parse_options(argc - 1, argv + 1);
    if ((rlim_t)option.clients + AT_ONCE > raise_descriptors())
        die("%d clients need more descriptors than ulimit -n allows", option.clients);
    alarm(60 + (unsigned)option.duration); /* whatever happens, it ends */
    clients = calloc((size_t)option.clients, sizeof *clients);
    if (!clients)
        die("out of memory");
    poll_fd = epoll_create1(0);
    input.fd = STDIN_FILENO;
    unit = HEADER + 5;
    if (option.kind <= MIX)
        prepare_flood();
    if (option.kind == STORM)
        option.clients = 0;
    open_all();
    watch(poll_fd, EPOLL_CTL_ADD, &input, EPOLLIN);
    say("ready");
    wait_for_line();
    begin();
    began = now;
    deadline = began + seconds(option.duration);
    if (option.kind == STORM)
        storm(deadline);
    while (!over && now < deadline)
        turn(10);
    took = (double)(now - began) / 1e9;
    if (option.kind <= MESSAGES)
        done = sent / unit;
    if (option.kind == IDLE)
        done = lost;
    printf("{\"done\": %llu, \"seconds\": %.3f, \"received\": %llu, \"lost\": %llu}\n",
           (unsigned long long)done, took, (unsigned long long)received,
           (unsigned long long)lost);
    return 0;
}
