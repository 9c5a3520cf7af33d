/* load: loads a gateway from both sides and says what that cost; one line of JSON.
 *
 *     load CASE [-c CLIENTS] [-v CONNECTIONS] [-w WINDOW] [-s SIZE] [-u WARM_UP] [-d DURATION]
 *               [-t PATIENCE] [-k KEY] [-p PID] CLIENT_ADDR SERVER_ADDR
 *     load proof CHALLENGE KEY
 *
 * One process and one thread plays one game server (id 1) and CLIENTS clients, each with
 * CONNECTIONS virtual connections to it and WINDOW messages of SIZE bytes in flight on each. The
 * clients speak what CLIENT_ADDR says (layers.h).
 *
 *     echo      a client sends, the server sends the same bytes back, the client sends the next.
 *               Two forwards a round trip.
 *     fan-in    a client sends; the next goes out when the server has one.
 *     fan-out   the server sends rounds: one message on every virtual connection, in order, put
 *               into its stream at once. Round r goes out when round r - WINDOW is all received.
 *     dial      a client dials; when Accept and Connect are there it sends Close; when both ends
 *               have the gateway's Close it dials again. CONNECTIONS and WINDOW are 1.
 *     connect   CLIENTS connections are made, at most WINDOW of them unanswered: each sends a Ping
 *               and counts when the Ping is back. Then they idle and memory is read. Not bounded
 *               by DURATION but by CLIENTS.
 *     refuse    the gateway has room for CLIENTS and has them; WINDOW more are made at a time, and
 *               each counts when the gateway has ended it.
 *     proof     prints md5(challenge + key), the challenge in hex.
 *
 * Law: every message is compared with what was sent, byte by byte and in order, at each end that
 * receives it (at both, for an echo), and at the end nothing may be missing or left over. Whatever
 * is wrong, or does not move for PATIENCE seconds, ends the program with one line and status 1.
 * Times are in seconds in options and in microseconds in the result. CPU is that of all threads of
 * PID, from its CPU clock in nanoseconds, between the ends of the measured window.
 */
#define _GNU_SOURCE
#include "ends.h"
#include "layers.h"

enum { EVENTS = 512, SERVER_ID = 1, MAX_UNANSWERED = 32, NOBODY = -1 };

enum kind { ECHO, FAN_IN, FAN_OUT, DIALS, CONNECTS, REFUSED };

static const char *const kinds[] = {"echo", "fan-in", "fan-out", "dial", "connect", "refuse"};
static const char *const units[] = {"forward",    "forward",    "forward",
                                    "dial+close", "connection", "refusal"};

struct link {
    struct stream stream;
    int number;         /* of the client; NOBODY: the server */
    uint32_t remote_id; /* what the gateway calls it; 0: not known yet */
    int answered;       /* of its dials, which are answered in their order */
    uint64_t ping_at;   /* since when a Ping is out; 0: none is */
};

struct flow {
    struct link *client;
    uint32_t conn_id;
    uint32_t sent, at_server, at_client; /* messages so far */
    uint64_t *sent_at;                   /* of those in flight, by number % window */
};

/* What is known of a connection id. Accept and Connect may come in either order. */
struct entry {
    uint32_t conn_id;   /* 0: the entry is free */
    uint32_t remote_id; /* of the client, as Connect says; 0 until the Connect */
    int flow;           /* NOBODY until the Accept */
    bool client_closed, server_closed;
};

static struct {
    enum kind kind;
    int clients, connections, window;
    size_t size;
    double warm_up, duration, patience;
    const char *key;
    pid_t pid; /* 0: not given */
} option = {
    .clients = 1, .connections = 1, .window = 1, .size = 64,
    .warm_up = 0.2, .duration = 1, .patience = 10, .key = "",
};

static struct sockaddr_in client_address, server_address;
static int client_layers;
static int poll_fd;
static struct link server = {.number = NOBODY};
static struct link *clients;
static struct flow *flows;
static int flow_count, open_flows, unanswered; /* Pings */
static struct entry *entries;
static uint32_t entry_mask;
static int *round_left; /* of the rounds in flight: messages still out, by number % window */
static bool running;    /* what arrives makes the next one go out */
static bool measuring;  /* round trips are recorded */
static uint64_t count, in_flight, now, progress;
static struct durations round_trips;

static void check_message(const struct link *at, uint32_t flow, uint32_t number,
                          const uint8_t *message, size_t size)
{
    const char *where = at->number == NOBODY ? "the server" : "the client";
    uint64_t found;
    size_t differs;

    if (size != option.size)
        die("wrong message at %s: flow %u message %u has %zu bytes instead of %zu", where, flow,
            number, size, option.size);
    differs = find_difference(message, size, flow, number);
    if (differs < size) {
        memcpy(&found, message, sizeof found);
        die("wrong message at %s: flow %u message %u is expected, "
            "this is headed flow %u message %u and differs within 8 bytes from byte %zu on",
            where, flow, number, (uint32_t)found, (uint32_t)(found >> 32), differs);
    }
}

/* Connection ids: open addressing, linear probing. */

static struct entry *find(uint32_t conn_id)
{
    uint32_t at = conn_id * 0x9e3779b1 & entry_mask;

    while (entries[at].conn_id && entries[at].conn_id != conn_id)
        at = (at + 1) & entry_mask;
    return &entries[at];
}

static struct entry *find_or_add(uint32_t conn_id)
{
    struct entry *entry = find(conn_id);

    if (conn_id == 0)
        die("the gateway gave out connection id 0");
    if (!entry->conn_id)
        *entry = (struct entry){.conn_id = conn_id, .flow = NOBODY};
    return entry;
}

/* Frees an entry, and puts those behind it where a search will find them. */
static void forget(struct entry *entry)
{
    uint32_t at = (uint32_t)(entry - entries);

    entry->conn_id = 0;
    for (at = (at + 1) & entry_mask; entries[at].conn_id; at = (at + 1) & entry_mask) {
        struct entry moved = entries[at];

        entries[at].conn_id = 0;
        *find(moved.conn_id) = moved;
    }
}

/* Sending. */

static void send_command(struct link *link, int type, int arguments, uint32_t argument)
{
    uint8_t command[MAX_COMMAND];
    size_t size = encode_command(command, type, arguments, argument, 0);

    memcpy(append(&link->stream.out, size), command, size);
    touch(&link->stream);
}

static void dial(struct flow *flow)
{
    flow->sent_at[0] = now;
    in_flight++;
    send_command(flow->client, DIAL, 1, SERVER_ID);
}

static void send_message(struct link *from, struct flow *flow)
{
    uint8_t *packet = append(&from->stream.out, HEADER + option.size);

    put32(packet, 4 + (uint32_t)option.size);
    put32(packet + 4, flow->conn_id);
    write_pattern(packet + HEADER, option.size, (uint32_t)(flow - flows), flow->sent);
    flow->sent_at[flow->sent % (uint32_t)option.window] = now;
    flow->sent++;
    in_flight++;
    touch(&from->stream);
}

static void send_round(void)
{
    round_left[flows[0].sent % (uint32_t)option.window] = flow_count;
    for (int i = 0; i < flow_count; i++)
        send_message(&server, &flows[i]);
}

/* Receiving. */

static void record_trip(uint64_t ns)
{
    if (measuring)
        record(&round_trips, ns);
}

static void arrived_last(struct flow *flow, uint32_t number)
{
    record_trip(now - flow->sent_at[number % (uint32_t)option.window]);
    in_flight--;
    if (option.kind == FAN_OUT) {
        if (--round_left[number % (uint32_t)option.window] == 0 && running)
            send_round();
    } else if (running) {
        send_message(flow->client, flow);
    }
}

static void message_received(struct link *link, const uint8_t *packet, size_t size)
{
    uint32_t conn_id = get32(packet + 4);
    struct entry *entry = find(conn_id);
    bool at_server = link->number == NOBODY;
    struct flow *flow;
    uint32_t number;

    if (!entry->conn_id || entry->flow == NOBODY)
        die("a message on connection %u, which was never made", conn_id);
    flow = &flows[entry->flow];
    if (!at_server && link != flow->client)
        die("client %d got a message of client %d", link->number, flow->client->number);
    if (at_server ? option.kind == FAN_OUT : option.kind == FAN_IN)
        die("a message came back to its sender");
    number = at_server ? flow->at_server++ : flow->at_client++;
    if (number == (option.kind == ECHO && !at_server ? flow->at_server : flow->sent))
        die("flow %d got a message that was not sent", entry->flow);
    check_message(link, (uint32_t)entry->flow, number, packet + HEADER, size - HEADER);
    count++;
    if (option.kind == ECHO && at_server) {
        memcpy(append(&server.stream.out, size), packet, size);
        touch(&server.stream);
    } else {
        arrived_last(flow, number);
    }
}

/* Accept and Connect are both there. */
static void opened(const struct entry *entry)
{
    struct flow *flow = &flows[entry->flow];
    struct link *client = flow->client;

    if (client->remote_id && client->remote_id != entry->remote_id)
        die("client %d was %u to the server and is now %u", client->number, client->remote_id,
            entry->remote_id);
    client->remote_id = entry->remote_id;
    if (option.kind == DIALS) {
        send_command(client, CLOSE, 1, flow->conn_id);
    } else {
        in_flight--;
        open_flows++;
    }
}

static void accepted(struct link *link, uint32_t conn_id, uint32_t remote_id)
{
    struct entry *entry = find_or_add(conn_id);
    struct flow *flow;

    if (link == &server || remote_id != SERVER_ID || link->answered == option.connections)
        die("an Accept that nobody asked for");
    if (entry->flow != NOBODY)
        die("connection id %u was given out twice", conn_id);
    entry->flow = link->number * option.connections + link->answered++;
    flow = &flows[entry->flow];
    flow->conn_id = conn_id;
    if (entry->remote_id)
        opened(entry);
}

static void connected(struct link *link, uint32_t conn_id, uint32_t remote_id)
{
    struct entry *entry = find_or_add(conn_id);

    if (link != &server || remote_id == 0)
        die("a Connect that cannot be");
    if (entry->remote_id)
        die("connection id %u was given out twice", conn_id);
    entry->remote_id = remote_id;
    if (entry->flow != NOBODY)
        opened(entry);
}

static void closed(struct link *link, uint32_t conn_id)
{
    struct entry *entry = find(conn_id);
    struct flow *flow;

    if (!entry->conn_id || entry->flow == NOBODY)
        die("a Close of connection %u, which was never made", conn_id);
    flow = &flows[entry->flow];
    if (option.kind != DIALS || !entry->remote_id)
        die("the gateway closed connection %u", conn_id);
    if (link != &server && link != flow->client)
        die("client %d got a Close of client %d", link->number, flow->client->number);
    *(link == &server ? &entry->server_closed : &entry->client_closed) = true;
    if (!entry->server_closed || !entry->client_closed)
        return;
    forget(entry);
    flow->client->answered = 0;
    record_trip(now - flow->sent_at[0]);
    in_flight--;
    count++;
    if (running)
        dial(flow);
}

static void ping_returned(struct link *link)
{
    if (!link->ping_at)
        die("a Ping that nobody sent");
    record_trip(now - link->ping_at);
    link->ping_at = 0;
    unanswered--;
    count++;
}

static void receive(struct link *link)
{
    ssize_t got = read_arrived(&link->stream, READ);
    const uint8_t *data = arrived;
    size_t left, size;

    if (got < 0 && link == &server)
        die("the gateway ended the server's connection");
    if (got < 0)
        die("the gateway ended the connection of client %d", link->number);
    now = progress = clock_ns(CLOCK_MONOTONIC);
    left = (size_t)got;
    while ((size = packet_size(data, left)) != 0) {
        if (size == BAD_PACKET)
            die("a packet of an impossible length, %u", get32(data));
        if (get32(data + 4))
            message_received(link, data, size);
        else if (size == HEADER + 9 && data[HEADER] == ACCEPT)
            accepted(link, get32(data + HEADER + 1), get32(data + HEADER + 5));
        else if (size == HEADER + 9 && data[HEADER] == CONNECT)
            connected(link, get32(data + HEADER + 1), get32(data + HEADER + 5));
        else if (size == HEADER + 5 && data[HEADER] == CLOSE)
            closed(link, get32(data + HEADER + 1));
        else if (size == HEADER + 1 && data[HEADER] == PING)
            ping_returned(link);
        else if (size == HEADER + 5 && data[HEADER] == REFUSE)
            die("the gateway refused a dial");
        else
            die("a command of %zu bytes that is none", size);
        data += size;
        left -= size;
    }
    keep(&link->stream, data, left);
}

static void write_touched(void)
{
    struct stream *stream;

    while ((stream = next_touched()))
        if (!write_waiting(poll_fd, stream))
            die("a connection broke: %s", strerror(errno));
}

/* Waits until `deadline` at most, and handles what came; each event's answers leave at once. */
static void turn(uint64_t deadline)
{
    struct epoll_event events[EVENTS];
    uint64_t left = deadline > now ? (deadline - now) / 1000000 : 0;
    int ready;

    write_touched();
    ready = epoll_wait(poll_fd, events, EVENTS, left < 100 ? (int)left : 100);
    for (int i = 0; i < ready; i++) {
        if (events[i].events & EPOLLOUT)
            touch(events[i].data.ptr);
        if (events[i].events & ~(uint32_t)EPOLLOUT)
            receive(events[i].data.ptr);
        write_touched();
    }
    now = clock_ns(CLOCK_MONOTONIC);
    if (now > progress + seconds(option.patience))
        die("nothing came for %g s, and there are out: %d Pings, %llu dials or messages",
            option.patience, unanswered, (unsigned long long)in_flight);
}

/* Connections. */

static void join(struct link *link, int fd)
{
    unblock(fd);
    link->stream.fd = fd;
    watch(poll_fd, EPOLL_CTL_ADD, &link->stream, EPOLLIN);
    if (link != &server && client_layers)
        add_layers(&link->stream, client_layers);
}

static void ping(struct link *link)
{
    link->ping_at = clock_ns(CLOCK_MONOTONIC);
    unanswered++;
    send_command(link, PING, 0, 0);
}

static void open_clients(int most)
{
    int made = 0;

    while (made < option.clients || unanswered) {
        for (; made < option.clients && unanswered < most; made++) {
            clients[made].number = made;
            ping(&clients[made]);
            join(&clients[made], connect_to(&client_address, made, option.patience));
        }
        turn(UINT64_MAX);
    }
}

/* Answers to Pings come behind everything else: whatever is left over comes before them. */
static void find_left_over(void)
{
    ping(&server);
    for (int i = 0; i < option.clients; i++)
        ping(&clients[i]);
    while (unanswered)
        turn(UINT64_MAX);
}

/* What is measured. */

struct reading {
    uint64_t wall, gateway, load, count;
};

static struct reading take_reading(void)
{
    struct reading reading = {.count = count};
    clockid_t clock;

    if (option.pid) {
        if (clock_getcpuclockid(option.pid, &clock) != 0)
            die("there is no process %d", option.pid);
        reading.gateway = clock_ns(clock);
    }
    reading.load = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    reading.wall = now = clock_ns(CLOCK_MONOTONIC);
    return reading;
}

/* Bytes of memory that are the gateway's own (Pss); -1: not known. */
static long long memory(void)
{
    char path[64], line[256];
    long long kilobytes = -1;
    FILE *file;

    snprintf(path, sizeof path, "/proc/%d/smaps_rollup", option.pid);
    if (!option.pid || !(file = fopen(path, "r")))
        return -1;
    while (fgets(line, sizeof line, file) && sscanf(line, "Pss: %lld", &kilobytes) != 1)
        ;
    fclose(file);
    return kilobytes < 0 ? -1 : kilobytes * 1024;
}

static void print_number(const char *name, bool known, double value)
{
    if (known)
        printf(", \"%s\": %.4f", name, value);
    else
        printf(", \"%s\": null", name);
}

static void report(const struct reading *begin, const struct reading *end, long long before,
                   long long after)
{
    double wall = (double)(end->wall - begin->wall), done = (double)(end->count - begin->count);
    double gateway = (double)(end->gateway - begin->gateway);

    printf("{\"case\": \"%s\", \"clients\": %d, \"connections\": %d, ", kinds[option.kind],
           option.clients, option.connections);
    printf("\"window\": %d, \"size\": %zu", option.window, option.size);
    printf(", \"unit\": \"%s\", \"count\": %.0f", units[option.kind], done);
    print_number("seconds", true, wall / 1e9);
    print_number("per_second", true, done / wall * 1e9);
    print_number("cpu_us", option.pid, gateway / done / 1e3);
    print_number("gateway_busy", option.pid, gateway / wall);
    print_number("load_busy", true, (double)(end->load - begin->load) / wall);
    print_number("p50_us", true, percentile(&round_trips, 0.50));
    print_number("p99_us", true, percentile(&round_trips, 0.99));
    print_number("p999_us", true, percentile(&round_trips, 0.999));
    print_number("memory", after >= 0, (double)after);
    print_number("idle_bytes", before >= 0 && after >= 0,
                 (double)(after - before) / option.clients);
    printf("}\n");
}

static void measure_connects(void)
{
    struct timespec settle = {.tv_nsec = 300 * 1000 * 1000};
    long long before = memory();
    struct reading begin = take_reading(), end;

    measuring = true;
    open_clients(option.window);
    end = take_reading();
    nanosleep(&settle, NULL);
    report(&begin, &end, before, memory());
}

/* Connects, and waits in the kernel until the gateway has ended it; only its own end is closed then,
 * so that the gateway's ports are free again. */
static void measure_refusals(void)
{
    struct epoll_event events[EVENTS];
    struct reading begin = {0}, end;
    int made = option.clients, under_way = 0, poll = epoll_create1(0), ready;
    uint64_t until = 0, began;
    char byte;

    open_clients(MAX_UNANSWERED);
    began = now;
    while (!until || now < until || count == begin.count) {
        for (; under_way < option.window; under_way++) {
            struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP};

            event.data.fd = open_socket(&client_address, made++, SOCK_NONBLOCK);
            if (connect(event.data.fd, (struct sockaddr *)&client_address,
                        sizeof client_address) < 0 &&
                errno != EINPROGRESS)
                die("cannot connect: %s", strerror(errno));
            if (epoll_ctl(poll, EPOLL_CTL_ADD, event.data.fd, &event) < 0)
                die("epoll_ctl: %s", strerror(errno));
        }
        ready = epoll_wait(poll, events, EVENTS, 100);
        now = clock_ns(CLOCK_MONOTONIC);
        for (int i = 0; i < ready; i++) {
            if (recv(events[i].data.fd, &byte, 1, 0) > 0)
                die("the gateway speaks to who is one too many");
            close(events[i].data.fd);
            under_way--;
            count++;
            progress = now;
        }
        if (!until && now > began + seconds(option.warm_up)) {
            begin = take_reading();
            until = begin.wall + seconds(option.duration);
        }
        if (now > progress + seconds(option.patience))
            die("nobody was refused for %g s", option.patience);
    }
    end = take_reading();
    find_left_over();
    report(&begin, &end, -1, memory());
}

/* Until `deadline`, and in any case until something is done that was not at `begin`. */
static void run_until(uint64_t deadline, uint64_t begin)
{
    while (now < deadline || count == begin)
        turn(deadline);
}

static void measure_traffic(void)
{
    struct reading begin, end;

    open_clients(MAX_UNANSWERED);
    if (option.kind != DIALS) {
        for (int i = 0; i < flow_count; i++)
            dial(&flows[i]);
        while (open_flows < flow_count)
            turn(UINT64_MAX);
    }
    running = true;
    for (int i = 0; option.kind == FAN_OUT && i < option.window; i++)
        send_round();
    for (int i = 0; option.kind == DIALS && i < flow_count; i++)
        dial(&flows[i]);
    for (int i = 0; (option.kind == ECHO || option.kind == FAN_IN) && i < flow_count; i++)
        for (int sent = 0; sent < option.window; sent++)
            send_message(flows[i].client, &flows[i]);
    write_touched();
    run_until(now + seconds(option.warm_up), count);
    begin = take_reading();
    measuring = true;
    run_until(begin.wall + seconds(option.duration), begin.count);
    end = take_reading();
    running = measuring = false;
    while (in_flight)
        turn(UINT64_MAX);
    find_left_over();
    report(&begin, &end, -1, memory());
}

static void allocate(void)
{
    uint64_t *sent_at;
    size_t size = 64;

    flow_count = option.clients * option.connections;
    while (size < 4 * (size_t)flow_count)
        size *= 2;
    entry_mask = (uint32_t)size - 1;
    entries = calloc(size, sizeof *entries);
    clients = calloc((size_t)option.clients, sizeof *clients);
    flows = calloc((size_t)flow_count, sizeof *flows);
    round_left = calloc((size_t)option.window, sizeof *round_left);
    sent_at = calloc((size_t)flow_count * (size_t)option.window, sizeof *sent_at);
    if (!entries || !clients || !flows || !round_left || !sent_at)
        die("out of memory");
    for (int i = 0; i < flow_count; i++) {
        flows[i].client = &clients[i / option.connections];
        flows[i].sent_at = sent_at + (size_t)i * (size_t)option.window;
    }
}

static void print_proof(const char *hex, const char *key)
{
    uint8_t challenge[8], proof[16];

    for (int i = 0; i < 8; i++)
        if (sscanf(hex + 2 * i, "%2hhx", &challenge[i]) != 1)
            die("a challenge has 16 hexadecimal digits");
    prove(proof, challenge, key);
    for (int i = 0; i < 16; i++)
        printf("%02x", proof[i]);
    putchar('\n');
}

static void parse_options(int argc, char **argv)
{
    const char *client;
    int letter;

    while ((letter = getopt(argc, argv, "c:v:w:s:u:d:t:k:p:")) != -1) {
        switch (letter) {
        case 'c': option.clients = whole(optarg, 1, 1000000); break;
        case 'v': option.connections = whole(optarg, 1, 1000000); break;
        case 'w': option.window = whole(optarg, 1, 1000000); break;
        case 's': option.size = (size_t)whole(optarg, 1, MAX_PACKET - 4); break;
        case 'u': option.warm_up = duration(optarg); break;
        case 'd': option.duration = duration(optarg); break;
        case 't': option.patience = duration(optarg); break;
        case 'k': option.key = optarg; break;
        case 'p': option.pid = whole(optarg, 1, 1 << 30); break;
        default: exit(2);
        }
    }
    if (argc - optind != 2)
        die("usage: load CASE [options] CLIENT_ADDR SERVER_ADDR");
    if (option.size < sizeof(uint64_t))
        die("a message has at least 8 bytes, for its numbers");
    if (option.kind == DIALS)
        option.connections = option.window = 1;
    if ((double)option.clients * option.connections * option.window > 1e7)
        die("more than ten million messages in flight");
    client = argv[optind];
    client_layers = parse_layers(&client);
    client_address = parse_address(client);
    server_address = parse_address(argv[optind + 1]);
}

int main(int argc, char **argv)
{
    enum kind kind = ECHO;

    if (argc == 4 && strcmp(argv[1], "proof") == 0) {
        print_proof(argv[2], argv[3]);
        return 0;
    }
    while (argc > 1 && kind <= REFUSED && strcmp(argv[1], kinds[kind]) != 0)
        kind++;
    if (argc < 2 || kind > REFUSED)
        die("usage: load echo|fan-in|fan-out|dial|connect|refuse [options] CLIENT_ADDR SERVER_ADDR");
    option.kind = kind;
    parse_options(argc - 1, argv + 1);
    if ((rlim_t)option.clients + 16 > raise_descriptors())
        die("%d clients need more descriptors than ulimit -n allows", option.clients);
    allocate();
    poll_fd = epoll_create1(0);
    now = progress = clock_ns(CLOCK_MONOTONIC);
    join(&server, connect_server(&server_address, SERVER_ID, option.key, option.patience));
    if (kind == CONNECTS)
        measure_connects();
    else if (kind == REFUSED)
        measure_refusals();
    else
        measure_traffic();
    return 0;
}
