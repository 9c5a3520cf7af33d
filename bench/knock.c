/* knock: what hostile peers do at a gateway's door, and below its packets, on 127.0.0.1 and for a
 * bounded time.
 *
 *     knock KIND [-c PEERS] [-r RATE] [-a SOURCE] [-d DURATION] [-k KEY] CLIENT_ADDR SERVER_ADDR
 *
 *     silence    they connect, and say nothing.
 *     slow       the beginning of what the port wants first, a byte every second: of a request for
 *                a WebSocket, of a TLS hello, of a PROXY header.
 *     half       a whole TLS hello each, whose answer is not answered; after a second they go and
 *                come again.
 *     garbage    random bytes.
 *     head       a request, or a TLS hello, that never ends, as fast as the socket takes it.
 *     cut        the beginning of a PROXY header, and the end of the connection.
 *     spoof      a PROXY header that claims an address, and a Ping.
 *     fragments  in a WebSocket: one message in fragments of one byte and of none, of which the
 *                bytes are stray packets of half a megabyte; elsewhere these as they are.
 *     pings      in a WebSocket: Pings of 125 bytes; their answers are read.
 *     deaf       the same, and nothing is read.
 *     renew      in TLS 1.2: handshakes again, as often as the gateway lets them.
 *     keys       in TLS 1.3: new keys all the time, and a request for the gateway's.
 *     crowd      they connect, send a Ping every 5 s, and stay.
 *     rush       in TLS: they connect, send a Ping when the handshake is over, and stay.
 *
 * CLIENT_ADDR says what the port speaks: [proxy-]ws:127.0.0.1:9080 and the like. PEERS are there at
 * a time, all from SOURCE, an address of 127/8. Who is cut off comes back; RATE connections a second
 * are made at most.
 *
 * It says "ready" at once; a line on its input begins the attack, and it says "begun"; the next
 * line, the end of the input or DURATION ends it, and a line of JSON says what was done: `done` are
 * connections, or pieces of a flood; `lost` the connections that the gateway ended; `half_in` and
 * `all_in` the seconds until so many of a rush had an answer, 0 if they had not.
 *
 * Law: nothing that is received is checked, `pair` does that.
 */
#define _GNU_SOURCE
#include <signal.h>

#include "ends.h"
#include "layers.h"

enum {
    EVENTS = 64,
    GARBAGE = 4096,
    HELLO = 1024,
    RECORD = 16 * 1024,
    WRITES = 64 * 1024, /* of a flood, at once */
    RECEIVED = 64 * 1024,
    LAPS = 4 /* new keys at once */
};

enum kind {
    SILENCE, SLOW, HALF, GARBAGES, HEAD, CUT, SPOOF, FRAGMENTS, PINGS, DEAF, RENEW, KEYS, CROWD,
    RUSH
};

static const char *const kinds[] = {"silence", "slow",      "half",  "garbage", "head",
                                    "cut",     "spoof",     "fragments", "pings", "deaf",
                                    "renew",   "keys",      "crowd", "rush"};

struct peer {
    int fd; /* -1: it is not connected */
    bool connecting;
    bool inside;   /* the handshakes that it makes are over */
    bool in;       /* it had an answer */
    bool blocked;  /* its socket takes no more now */
    uint64_t next; /* when it does something again */
    size_t at;     /* in its head, or its flood */
#ifdef WITH_TLS
    SSL *ssl;
#endif
};

static struct {
    enum kind kind;
    int peers, rate;
    uint32_t source;
    double duration;
} option = {.peers = 100, .rate = 1000, .source = INADDR_LOOPBACK + 1, .duration = 5};

static struct sockaddr_in client_address;
static int layers, poll_fd;
static struct peer *peers;
static struct peer input;
static struct bytes head, flood; /* what is said once, and again and again */
static size_t unit = 1;          /* bytes of the flood that count as one */
static size_t again;             /* where it goes on when it was said */
static bool attacking, over;
static uint64_t now, made, done, sent, received, lost, began, half_in, all_in;

static void say(const char *line)
{
    puts(line);
    fflush(stdout);
}

static void add(struct bytes *to, const void *data, size_t size)
{
    memcpy(append(to, size), data, size);
}

static void add_text(struct bytes *to, const char *text)
{
    add(to, text, strlen(text));
}

/* What they say. */

/* A stray message of the longest length, again and again, in fragments of one message. */
static void prepare_fragments(void)
{
    uint8_t packet[HEADER] = {0}, byte;

    put32(packet, MAX_PACKET);
    put32(packet + 4, 0x7fffffff);
    if (!(layers & WS)) {
        memset(append(&flood, 4 + (size_t)MAX_PACKET), 0, 4 + (size_t)MAX_PACKET);
        memcpy(flood.data, packet, HEADER);
        return;
    }
    add(&flood, "\2\x80\0\0\0\0", 6);
    again = flood.end;
    for (size_t i = 0; i < 4 + (size_t)MAX_PACKET; i++) {
        byte = i < HEADER ? packet[i] : 0;
        add(&flood, "\0\x81\0\0\0\0", 6);
        add(&flood, &byte, 1);
        add(&flood, "\0\x80\0\0\0\0", 6);
    }
    unit = 13;
}

static void prepare_pings(void)
{
    uint8_t payload[125] = {0};

    while (flood.end < WRITES) {
        add_frame(&flood, 9, payload, sizeof payload, 0);
        unit = unit > 1 ? unit : flood.end;
    }
}

#ifdef WITH_TLS
/* A client's hello as OpenSSL makes it. */
static void prepare_hello(void)
{
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    SSL *ssl = SSL_new(context);
    char *data;
    long size;

    SSL_set_bio(ssl, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    SSL_set_tlsext_host_name(ssl, "localhost");
    SSL_set_connect_state(ssl);
    SSL_do_handshake(ssl);
    size = BIO_get_mem_data(SSL_get_wbio(ssl), &data);
    if (size <= 0)
        die_of_tls();
    add(&head, data, (size_t)size);
    SSL_free(ssl);
    SSL_CTX_free(context);
}
#endif

/* A hello of 16 MB, record by record. */
static void prepare_long_hello(void)
{
    uint8_t zeros[RECORD] = {0};

    add(&head, "\x16\3\1\0\4\1\xff\xff\xff", 9);
    add(&flood, "\x16\3\1\x40\0", 5);
    add(&flood, zeros, sizeof zeros);
    unit = flood.end;
}

static void prepare_long_request(void)
{
    add_text(&head, "GET / HTTP/1.1\r\nHost: localhost\r\n");
    for (int i = 0; i < 100; i++)
        add_text(&flood, "X-Long: and longer, and longer, and longer, and longer still\r\n");
    unit = flood.end;
}

static void prepare_first_words(void)
{
    char text[512];

    if (layers & PROXY) {
        add_text(&head, "PROXY TCP4 203.0.113.66 127.0.0.1 40000 9010\r\n");
    } else if (layers & TLS) {
#ifdef WITH_TLS
        prepare_hello();
#endif
    } else if (layers & WS) {
        add(&head, text, ws_request(text, sizeof text));
    } else {
        add(&head, "\xff\xff\0\0\1\0\0\0", 8);
    }
}

static void prepare(void)
{
    uint8_t ping[MAX_COMMAND];
    char text[512];

    switch (option.kind) {
    case SLOW: prepare_first_words(); break;
    case CUT:
        prepare_first_words();
        head.end /= 2;
        break;
    case SPOOF:
        add_text(&head, "PROXY TCP4 203.0.113.66 127.0.0.1 40000 9010\r\n");
        add(&head, ping, encode_command(ping, PING, 0, 0, 0));
        break;
    case GARBAGES:
        srandom(1);
        for (int i = 0; i < GARBAGE; i++)
            *append(&head, 1) = (uint8_t)random();
        break;
    case HEAD: layers & TLS ? prepare_long_hello() : prepare_long_request(); break;
    case FRAGMENTS:
    case PINGS:
    case DEAF:
        if (layers & WS)
            add(&head, text, ws_request(text, sizeof text));
        option.kind == FRAGMENTS ? prepare_fragments() : prepare_pings();
        break;
    case RUSH:
    case CROWD: add(&flood, ping, unit = encode_command(ping, PING, 0, 0, 0)); break;
#ifdef WITH_TLS
    case HALF: prepare_hello(); break;
#endif
    default: break;
    }
}

/* Connections. */

static void forget(struct peer *peer)
{
    struct linger linger = {.l_onoff = 1};

#ifdef WITH_TLS
    SSL_free(peer->ssl);
    peer->ssl = NULL;
#endif
    setsockopt(peer->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
    close(peer->fd);
    peer->fd = -1;
}

static void lose(struct peer *peer)
{
    lost++;
    forget(peer);
}

static bool is_flood(void)
{
    return option.kind == HEAD || (FRAGMENTS <= option.kind && option.kind <= KEYS);
}

static void look(struct peer *peer, int operation)
{
    bool writes = peer->connecting || peer->blocked || (is_flood() && peer->inside);
    struct epoll_event event = {.data.ptr = peer};

    event.events = (option.kind == DEAF && peer->inside ? 0 : EPOLLIN) | (writes ? EPOLLOUT : 0);
    if (epoll_ctl(poll_fd, operation, peer->fd, &event) < 0)
        die("epoll_ctl: %s", strerror(errno));
}

static void open_peer(struct peer *peer)
{
    struct sockaddr_in source = {.sin_family = AF_INET};
    int yes = 1;

    *peer = (struct peer){.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0)};
    source.sin_addr.s_addr = htonl(option.source);
    if (peer->fd < 0)
        die("socket: %s", strerror(errno));
    setsockopt(peer->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    if (setsockopt(peer->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &yes, sizeof yes) < 0 ||
        bind(peer->fd, (struct sockaddr *)&source, sizeof source) < 0)
        die("bind: %s", strerror(errno));
    peer->connecting = true;
    made++;
    if (connect(peer->fd, (struct sockaddr *)&client_address, sizeof client_address) < 0 &&
        errno != EINPROGRESS)
        lose(peer); /* no port is free for it now */
    else
        look(peer, EPOLL_CTL_ADD);
}

/* False: it was cut off. */
static bool put(struct peer *peer, const uint8_t *data, size_t size, size_t *at)
{
    ssize_t put = send(peer->fd, data + *at, size - *at, MSG_NOSIGNAL);

    if (put < 0 && errno != EAGAIN && errno != EINTR) {
        lose(peer);
        return false;
    }
    if (put > 0) {
        *at += (size_t)put;
        sent += (uint64_t)put;
    }
    return true;
}

/* What is due at a certain time: the next byte, a Ping, or the end. */
static void do_next(struct peer *peer)
{
    size_t none = 0;

    peer->next = now + seconds(option.kind == CROWD ? 5 : 1);
    if (option.kind == SLOW && peer->at + 1 < head.end)
        put(peer, head.data, peer->at + 1, &peer->at);
    else if (option.kind == CROWD)
        put(peer, flood.data, flood.end, &none);
    else if (option.kind != SLOW)
        forget(peer);
}

#ifdef WITH_TLS
static void begin_tls(struct peer *peer)
{
    static SSL_CTX *context;

    if (!context) {
        context = SSL_CTX_new(TLS_client_method());
        if (option.kind == RENEW)
            SSL_CTX_set_max_proto_version(context, TLS1_2_VERSION);
    }
    peer->ssl = SSL_new(context);
    SSL_set_fd(peer->ssl, peer->fd);
    SSL_set_tlsext_host_name(peer->ssl, "localhost");
    SSL_set_connect_state(peer->ssl);
    peer->blocked = true;
}

/* One of a rush had an answer. */
static void let_in(struct peer *peer)
{
    int in = 0;

    if (peer->in)
        return;
    peer->in = true;
    for (int i = 0; i < option.peers; i++)
        in += peers[i].fd >= 0 && peers[i].in;
    if (!half_in && 2 * in >= option.peers)
        half_in = now - began;
    if (!all_in && in == option.peers)
        all_in = now - began;
}

static void drive_tls(struct peer *peer)
{
    char byte[1024];
    int result = 1, got = 1, error;

    ERR_clear_error();
    if (!peer->inside) {
        result = SSL_do_handshake(peer->ssl);
        peer->inside = result == 1;
        if (peer->inside && option.kind == RUSH)
            result = SSL_write(peer->ssl, flood.data, (int)flood.end) > 0 ? 1 : -1;
    }
    for (int i = 0; option.kind != RUSH && peer->inside && result == 1 && i < LAPS; i++) {
        if (option.kind == KEYS)
            result = SSL_key_update(peer->ssl, SSL_KEY_UPDATE_REQUESTED);
        else if (!SSL_renegotiate_pending(peer->ssl))
            result = SSL_renegotiate(peer->ssl);
        done++;
        if (result == 1)
            result = SSL_do_handshake(peer->ssl);
    }
    while (peer->inside && (got = SSL_read(peer->ssl, byte, sizeof byte)) > 0) {
        received += (uint64_t)got;
        let_in(peer);
    }
    error = SSL_get_error(peer->ssl, result == 1 ? got : result);
    peer->blocked = error == SSL_ERROR_WANT_WRITE;
    if (error != SSL_ERROR_NONE && error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE)
        lose(peer);
    else
        look(peer, EPOLL_CTL_MOD);
}
#endif

static void connected(struct peer *peer)
{
    int error = 0;
    socklen_t size = sizeof error;

    getsockopt(peer->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error) {
        lose(peer);
        return;
    }
    peer->connecting = false;
    peer->next = now + seconds(1);
    if (option.kind == SLOW)
        peer->next = now + seconds(1) * (made % 100) / 100; /* not all at once */
    if (option.kind == CROWD)
        peer->next = now;
    if (option.kind == RUSH)
        peer->next = UINT64_MAX;
    if (!is_flood())
        done++;
#ifdef WITH_TLS
    if (option.kind == RENEW || option.kind == KEYS || option.kind == RUSH)
        begin_tls(peer);
#endif
    if (option.kind != SLOW && head.end && !put(peer, head.data, head.end, &peer->at))
        return;
    if (option.kind == CUT)
        shutdown(peer->fd, SHUT_WR);
    if (!peer->blocked && (option.kind == HEAD || !(layers & WS)))
        peer->inside = true; /* in TLS when its handshake is over */
    peer->at = option.kind == SLOW ? peer->at : 0;
    look(peer, EPOLL_CTL_MOD);
}

static void hear(struct peer *peer)
{
    static char data[RECEIVED];
    ssize_t got = recv(peer->fd, data, sizeof data, 0);

    if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) {
        lose(peer);
        return;
    }
    if (got < 0)
        return;
    received += (uint64_t)got;
    if (!peer->inside && is_flood() && got > 4 && memcmp(data + got - 4, "\r\n\r\n", 4) == 0) {
        peer->inside = true;
        look(peer, EPOLL_CTL_MOD);
    }
}

static void go_on(struct peer *peer)
{
    size_t end = peer->at + WRITES < flood.end ? peer->at + WRITES : flood.end, before = peer->at;

    if (!put(peer, flood.data, end, &peer->at))
        return;
    done += peer->at / unit - before / unit;
    if (peer->at == flood.end)
        peer->at = again;
}

static void handle(struct peer *peer, uint32_t events)
{
    if (peer->connecting) {
        connected(peer);
        return;
    }
#ifdef WITH_TLS
    if (peer->ssl) {
        drive_tls(peer);
        return;
    }
#endif
    if (events & ~(uint32_t)EPOLLOUT)
        hear(peer);
    if (peer->fd >= 0 && events & EPOLLOUT && peer->inside)
        go_on(peer);
}

static void input_received(void)
{
    char line[16];
    ssize_t got = read(STDIN_FILENO, line, sizeof line);

    if (got <= 0 && !attacking)
        die("nobody waits for the attack");
    over = attacking;
    attacking = true;
}

static void turn(void)
{
    static uint64_t looked;
    struct epoll_event events[EVENTS];
    int ready = epoll_wait(poll_fd, events, EVENTS, 5);
    uint64_t may;

    now = clock_ns(CLOCK_MONOTONIC);
    for (int i = 0; i < ready && !over; i++) {
        struct peer *peer = events[i].data.ptr;

        if (peer == &input)
            input_received();
        else if (peer->fd >= 0)
            handle(peer, events[i].events);
    }
    if (!attacking || over || now - looked < 5000000)
        return;
    looked = now;
    may = (uint64_t)((double)(now - began) / 1e9 * option.rate) + 1;
    for (int i = 0; i < option.peers; i++) {
        struct peer *peer = &peers[i];

        if (peer->fd < 0 && made < may)
            open_peer(peer);
        else if (peer->fd >= 0 && !peer->connecting && peer->next <= now && !is_flood())
            do_next(peer);
    }
}

static void parse_options(int argc, char **argv)
{
    const char *client;
    int letter;

    while ((letter = getopt(argc, argv, "c:r:a:d:k:")) != -1) {
        switch (letter) {
        case 'c': option.peers = whole(optarg, 1, 100000); break;
        case 'r': option.rate = whole(optarg, 1, 1000000); break;
        case 'a': option.source = ntohl(inet_addr(optarg)); break;
        case 'd': option.duration = duration(optarg); break;
        case 'k': break; /* as all programs of the bench are called */
        default: exit(2);
        }
    }
    if (argc - optind != 2)
        die("usage: knock KIND [options] CLIENT_ADDR SERVER_ADDR");
    client = argv[optind];
    layers = parse_layers(&client);
    client_address = parse_address(client);
    if (ntohl(client_address.sin_addr.s_addr) >> 24 != 127 || option.source >> 24 != 127)
        die("only a gateway on loopback is attacked");
#ifndef WITH_TLS
    if (option.kind == HALF || option.kind == RENEW || option.kind == KEYS || option.kind == RUSH)
        die("this was built without OpenSSL");
#endif
}

int main(int argc, char **argv)
{
    struct epoll_event told = {.events = EPOLLIN, .data.ptr = &input};
    uint64_t deadline;

    while (argc > 1 && option.kind <= RUSH && strcmp(argv[1], kinds[option.kind]) != 0)
        option.kind++;
    if (argc < 2 || option.kind > RUSH)
        die("usage: knock silence|slow|...|rush [options] CLIENT_ADDR SERVER_ADDR");
    parse_options(argc - 1, argv + 1);
    if ((rlim_t)option.peers + 16 > raise_descriptors())
        die("%d peers need more descriptors than ulimit -n allows", option.peers);
    alarm(60 + (unsigned)option.duration); /* whatever happens, it ends */
    signal(SIGPIPE, SIG_IGN); /* OpenSSL writes to peers that are gone */
    peers = calloc((size_t)option.peers, sizeof *peers);
    if (!peers)
        die("out of memory");
    for (int i = 0; i < option.peers; i++)
        peers[i].fd = -1;
    prepare();
    poll_fd = epoll_create1(0);
    if (epoll_ctl(poll_fd, EPOLL_CTL_ADD, STDIN_FILENO, &told) < 0)
        die("epoll_ctl: %s", strerror(errno));
    say("ready");
    while (!attacking)
        turn();
    began = now;
    deadline = began + seconds(option.duration);
    say("begun");
    while (!over && now < deadline)
        turn();
    printf("{\"done\": %llu, \"seconds\": %.3f, \"received\": %llu, \"sent\": %llu, "
           "\"made\": %llu, \"lost\": %llu, \"half_in\": %.3f, \"all_in\": %.3f}\n",
           (unsigned long long)done, (double)(now - began) / 1e9, (unsigned long long)received,
           (unsigned long long)sent, (unsigned long long)made, (unsigned long long)lost,
           (double)half_in / 1e9, (double)all_in / 1e9);
    return 0;
}
