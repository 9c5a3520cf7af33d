/* pair: honest clients and their game server, who talk steadily while others do not; how long each
 * message took, phase by phase, and whether every one came.
 *
 *     pair [-c CLIENTS] [-i INTERVAL] [-s SIZE] [-r RATE] [-n SERVER_ID] [-t PATIENCE] [-k KEY]
 *          CLIENT_ADDR SERVER_ADDR
 *
 * Each client has one virtual connection to the server and one message on its way at a time, due
 * every INTERVAL seconds; the server sends it back. The server reads RATE bytes a second at most
 * (0: all that comes), and swallows what strangers send it. The clients speak what CLIENT_ADDR says
 * (layers.h).
 *
 * It says "ready", then a line of JSON for each line on its input: what was measured since the
 * line before. When the input ends it reads all, waits PATIENCE seconds for what is out, and says
 * "all".
 *
 * Law: a message that is due while the last one is out counts from when it was due, so that a
 * pause weighs as much as it lasts. What is out when a phase ends counts with the time it has
 * waited. Every message is compared, at both ends and in order; what is wrong ends the program
 * with one line and status 1. It does little for each message: whoever runs it gives it
 * precedence over what loads the gateway.
 */
#define _GNU_SOURCE
#include <sys/timerfd.h>

#include "ends.h"
#include "layers.h"

enum { EVENTS = 256, NOBODY = -1, TICK_NS = 500 * 1000, MAX_UNANSWERED = 32 };

struct link {
    struct stream stream;
    int number; /* of the client; NOBODY: the server */
};

struct flow {
    struct link link;                    /* the client's */
    uint32_t conn_id;                    /* 0: not known yet */
    uint32_t sent, at_server, at_client; /* messages so far */
    bool ping_out;
    uint64_t sent_at; /* of the last one */
    uint64_t due;     /* the first moment at which a message is due that is not recorded */
};

static struct {
    int clients, rate;
    uint32_t server_id;
    size_t size;
    uint64_t interval;
    double patience;
    const char *key;
} option = {
    .clients = 1, .server_id = 1, .size = 64, .interval = 2000000, .patience = 10, .key = "",
};

static struct sockaddr_in client_address, server_address;
static int client_layers;
static int poll_fd;
static struct link server = {.number = NOBODY};
static struct stream timer, input;
static struct flow *flows;
static struct durations waits;
static uint64_t now, longest, count, strangers, refilled;
static double allowance; /* bytes that the server may read now */
static bool talking, ended, server_ping_out, deaf;
static int unanswered; /* Pings */

static bool out(const struct flow *flow)
{
    return flow->at_client < flow->sent;
}

/* A message is back, or the phase is over: what was due meanwhile has waited until now. */
static void record_due(struct flow *flow)
{
    for (; flow->due <= now; flow->due += option.interval)
        record(&waits, now - flow->due);
    if (now - flow->sent_at > longest)
        longest = now - flow->sent_at;
}

static void send_due(struct flow *flow)
{
    uint8_t *packet = append(&flow->link.stream.out, HEADER + option.size);

    put32(packet, 4 + (uint32_t)option.size);
    put32(packet + 4, flow->conn_id);
    write_pattern(packet + HEADER, option.size, (uint32_t)(flow - flows), flow->sent);
    flow->sent++;
    flow->sent_at = flow->due = now;
    touch(&flow->link.stream);
}

static void send_ping(struct link *link)
{
    uint8_t command[MAX_COMMAND];
    size_t size = encode_command(command, PING, 0, 0, 0);

    memcpy(append(&link->stream.out, size), command, size);
    touch(&link->stream);
    *(link == &server ? &server_ping_out : &flows[link->number].ping_out) = true;
    unanswered++;
}

static void ping_returned(struct link *link)
{
    bool *is_out = link == &server ? &server_ping_out : &flows[link->number].ping_out;

    if (!*is_out)
        die("a Ping that nobody sent");
    *is_out = false;
    unanswered--;
}

static struct flow *find_flow(uint32_t conn_id)
{
    for (int i = 0; i < option.clients; i++)
        if (flows[i].conn_id == conn_id)
            return &flows[i];
    return NULL;
}

static void check_message(const char *where, const struct flow *flow, uint32_t number,
                          const uint8_t *message, size_t size)
{
    if (number >= flow->sent)
        die("%s got a message that was not sent", where);
    if (size != option.size ||
        find_difference(message, size, (uint32_t)(flow - flows), number) != size)
        die("wrong message at %s: message %u of client %d is expected", where, number,
            flow->link.number);
}

static void message_received(struct link *link, const uint8_t *packet, size_t size)
{
    struct flow *flow = find_flow(get32(packet + 4));

    if (link == &server && !flow) {
        strangers += size;
    } else if (link == &server) {
        check_message("the server", flow, flow->at_server++, packet + HEADER, size - HEADER);
        memcpy(append(&server.stream.out, size), packet, size);
        touch(&server.stream);
    } else if (flow != &flows[link->number]) {
        die("client %d got a message of another", link->number);
    } else {
        check_message("the client", flow, flow->at_client++, packet + HEADER, size - HEADER);
        record_due(flow);
        count++;
    }
}

static void command_received(struct link *link, const uint8_t *packet, size_t size)
{
    int type = size > HEADER ? packet[HEADER] : -1;
    uint32_t conn_id = size >= HEADER + 5 ? get32(packet + HEADER + 1) : 0;

    if (type == PING && size == HEADER + 1)
        ping_returned(link);
    else if (type == ACCEPT && size == HEADER + 9 && link != &server &&
             !flows[link->number].conn_id)
        flows[link->number].conn_id = conn_id;
    else if (type == CLOSE && size == HEADER + 5 && find_flow(conn_id))
        die("the gateway closed the connection of client %d", find_flow(conn_id)->link.number);
    else if (link != &server || (type != CONNECT && type != CLOSE))
        die("a command of type %d that nobody asked for", type);
}

static void receive(struct link *link)
{
    bool limited = link == &server && option.rate && !ended;
    size_t most = limited && allowance < READ ? (size_t)allowance : READ;
    size_t kept = link->stream.in.end, left, size;
    ssize_t got = most ? read_arrived(&link->stream, most) : 0;
    const uint8_t *data = arrived;

    if (got < 0 && link == &server)
        die("the gateway ended the server's connection");
    if (got < 0)
        die("the gateway ended the connection of client %d", link->number);
    if (!most)
        deaf = false; /* a write has made it look again: `refill` mends that */
    if (got == 0)
        return;
    if (limited)
        allowance -= (double)((size_t)got - kept);
    now = clock_ns(CLOCK_MONOTONIC);
    left = (size_t)got;
    while ((size = packet_size(data, left)) != 0) {
        if (size == BAD_PACKET)
            die("a packet of an impossible length, %u", get32(data));
        if (get32(data + 4))
            message_received(link, data, size);
        else
            command_received(link, data, size);
        data += size;
        left -= size;
    }
    keep(&link->stream, data, left);
}

/* The server looks for more only when it may read. */
static void refill(void)
{
    double most = option.rate / 50.0;
    bool blind;

    allowance += (double)(now - refilled) / 1e9 * option.rate;
    if (allowance > most)
        allowance = most;
    refilled = now;
    blind = option.rate && !ended && allowance < 1;
    if (blind != deaf) {
        deaf = blind;
        watch(poll_fd, EPOLL_CTL_MOD, &server.stream,
              (blind ? 0 : EPOLLIN) | (server.stream.blocked ? EPOLLOUT : 0));
    }
}

static void write_touched(void)
{
    struct stream *stream;

    while ((stream = next_touched()))
        if (!write_waiting(poll_fd, stream))
            die("a connection broke: %s", strerror(errno));
}

static void report(void)
{
    uint64_t waits_still = 0;

    for (int i = 0; i < option.clients; i++) {
        if (out(&flows[i])) {
            record_due(&flows[i]);
            if (now - flows[i].sent_at > waits_still)
                waits_still = now - flows[i].sent_at;
        }
    }
    printf("{\"count\": %llu, \"waiting_us\": %.2f, \"strangers\": %llu, \"p50_us\": %.2f, "
           "\"p99_us\": %.2f, \"longest_us\": %.2f}\n",
           (unsigned long long)count, (double)waits_still / 1e3, (unsigned long long)strangers,
           percentile(&waits, 0.50), percentile(&waits, 0.99), (double)longest / 1e3);
    fflush(stdout);
    memset(&waits, 0, sizeof waits);
    count = longest = strangers = 0;
}

static void input_received(void)
{
    char lines[64];
    ssize_t got = read(STDIN_FILENO, lines, sizeof lines);

    if (got <= 0) {
        ended = true;
        talking = false;
        watch(poll_fd, EPOLL_CTL_DEL, &input, 0);
        return;
    }
    for (ssize_t i = 0; i < got; i++)
        if (lines[i] == '\n')
            report();
}

static void tick(void)
{
    uint64_t expired;

    if (read(timer.fd, &expired, sizeof expired) < 0 && errno != EAGAIN)
        die("read: %s", strerror(errno));
    for (int i = 0; talking && i < option.clients; i++)
        if (!out(&flows[i]) && flows[i].due <= now)
            send_due(&flows[i]);
}

static void turn(void)
{
    struct epoll_event events[EVENTS];
    int ready;

    write_touched();
    ready = epoll_wait(poll_fd, events, EVENTS, 100);
    now = clock_ns(CLOCK_MONOTONIC);
    refill();
    for (int i = 0; i < ready; i++) {
        struct stream *stream = events[i].data.ptr;

        if (stream == &timer) {
            tick();
        } else if (stream == &input) {
            input_received();
        } else {
            if (events[i].events & EPOLLOUT)
                touch(stream);
            if (events[i].events & ~(uint32_t)EPOLLOUT)
                receive((struct link *)stream);
        }
        write_touched();
    }
    refill();
}

static void join(struct link *link, int fd)
{
    unblock(fd);
    link->stream.fd = fd;
    watch(poll_fd, EPOLL_CTL_ADD, &link->stream, EPOLLIN);
    if (link != &server && client_layers)
        add_layers(&link->stream, client_layers);
}

/* `done` looks at what must have happened within PATIENCE. */
static void wait_for(bool (*done)(void), const char *what)
{
    uint64_t deadline = clock_ns(CLOCK_MONOTONIC) + seconds(option.patience);

    while (!done()) {
        turn();
        if (now > deadline)
            die("%s did not come within %g s", what, option.patience);
    }
}

static bool all_answered(void)
{
    return unanswered == 0;
}

static bool all_open(void)
{
    for (int i = 0; i < option.clients; i++)
        if (!flows[i].conn_id)
            return false;
    return true;
}

static bool all_back(void)
{
    for (int i = 0; i < option.clients; i++)
        if (out(&flows[i]))
            return false;
    return true;
}

static void open_all(void)
{
    uint8_t command[MAX_COMMAND];
    size_t size = encode_command(command, DIAL, 1, option.server_id, 0);
    int fd = connect_server(&server_address, option.server_id, option.key, option.patience);

    join(&server, fd);
    for (int i = 0; i < option.clients; i++) {
        flows[i].link.number = i;
        join(&flows[i].link, connect_to(&client_address, i, option.patience));
        memcpy(append(&flows[i].link.stream.out, size), command, size);
        touch(&flows[i].link.stream);
        if (i % MAX_UNANSWERED == 0) {
            send_ping(&flows[i].link);
            wait_for(all_answered, "a Ping");
        }
    }
    wait_for(all_open, "an Accept");
}

static void watch_others(void)
{
    struct itimerspec every = {.it_interval.tv_nsec = TICK_NS, .it_value.tv_nsec = TICK_NS};

    timer.fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    if (timer.fd < 0 || timerfd_settime(timer.fd, 0, &every, NULL) < 0)
        die("timerfd: %s", strerror(errno));
    watch(poll_fd, EPOLL_CTL_ADD, &timer, EPOLLIN);
    input.fd = STDIN_FILENO;
    watch(poll_fd, EPOLL_CTL_ADD, &input, EPOLLIN);
}

static void parse_options(int argc, char **argv)
{
    const char *client;
    int letter;

    while ((letter = getopt(argc, argv, "c:i:s:r:n:t:k:")) != -1) {
        switch (letter) {
        case 'c': option.clients = whole(optarg, 1, 10000); break;
        case 'i': option.interval = seconds(duration(optarg)); break;
        case 's': option.size = (size_t)whole(optarg, 8, MAX_PACKET - 4); break;
        case 'r': option.rate = whole(optarg, 0, 1 << 30); break;
        case 'n': option.server_id = (uint32_t)whole(optarg, 1, 1 << 30); break;
        case 't': option.patience = duration(optarg); break;
        case 'k': option.key = optarg; break;
        default: exit(2);
        }
    }
    if (argc - optind != 2)
        die("usage: pair [options] CLIENT_ADDR SERVER_ADDR");
    if (option.interval < TICK_NS)
        die("messages are due every half a millisecond at most");
    client = argv[optind];
    client_layers = parse_layers(&client);
    client_address = parse_address(client);
    server_address = parse_address(argv[optind + 1]);
}

int main(int argc, char **argv)
{
    parse_options(argc, argv);
    if ((rlim_t)option.clients + 16 > raise_descriptors())
        die("%d clients need more descriptors than ulimit -n allows", option.clients);
    flows = calloc((size_t)option.clients, sizeof *flows);
    if (!flows)
        die("out of memory");
    poll_fd = epoll_create1(0);
    now = refilled = clock_ns(CLOCK_MONOTONIC);
    open_all();
    watch_others();
    for (int i = 0; i < option.clients; i++) /* not all at the same moment */
        flows[i].due = now + option.interval * (uint64_t)i / (uint64_t)option.clients;
    talking = true;
    puts("ready");
    fflush(stdout);
    while (!ended)
        turn();
    wait_for(all_back, "a message");
    for (int i = 0; i < option.clients; i++)
        send_ping(&flows[i].link);
    send_ping(&server);
    wait_for(all_answered, "a Ping"); /* behind everything that is left over */
    puts("all");
    return 0;
}
