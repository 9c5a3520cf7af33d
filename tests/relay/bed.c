#include "bed.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <time.h>

struct calls calls;
struct relay *relay;
double now;
struct end ends[ENDS];
struct relay_event last[LAST];
uint8_t kept[1 << 20];
size_t kept_size;
int last_count;
int listening = -1;
struct sockaddr_storage accepted;

const struct relay_config plain_config = {
    .pool = {POOL_ATOM, 2, 64, 65536, 1 << 20, 0},
    .commands_each = 16,
    .commands_turn = 64,
    .events_turn = 64,
    .openings_turn = 64,
    .share_least = 4096,
    .share_most = 65536,
    .shares = 1 << 20,
    .turn_seconds = 1, /* tests are run on slow machines; those of time set their own */
};
const struct relay_port plain_port = {MAX_PACKET, 2048, 30, 10, 20000, 10, false, 1 << 20, false};

/* What the core calls. */

static bool interrupted(void)
{
    if (calls.interrupt == 0 || ++calls.calls % calls.interrupt)
        return false;
    errno = EINTR;
    return true;
}

ssize_t test_recv(int fd, void *data, size_t size, int flags)
{
    if (interrupted())
        return -1;
    calls.recvs++;
    calls.asked = size;
    return recv(fd, data, size, flags);
}

static bool send_fails(void)
{
    errno = calls.fail_send;
    calls.fail_send = 0;
    if (errno == 0 && calls.spared > 0)
        calls.spared--;
    else if (errno == 0)
        errno = calls.fail_sends;
    return errno != 0;
}

ssize_t test_send(int fd, const void *data, size_t size, int flags)
{
    if (interrupted() || send_fails())
        return -1;
    calls.sends++;
    if (calls.send_most > 0 && size > calls.send_most)
        size = calls.send_most;
    return send(fd, data, size, flags);
}

/* The first bytes, of as many pieces as they lie in. */
static ssize_t send_some(int fd, const struct msghdr *message, int flags)
{
    struct iovec vector[64];
    struct msghdr some = *message;
    size_t left = calls.send_most;
    some.msg_iov = vector;
    for (some.msg_iovlen = 0; some.msg_iovlen < message->msg_iovlen && left > 0;) {
        struct iovec *piece = &vector[some.msg_iovlen];
        *piece = message->msg_iov[some.msg_iovlen++];
        if (piece->iov_len > left)
            piece->iov_len = left;
        left -= piece->iov_len;
    }
    return sendmsg(fd, &some, flags);
}

ssize_t test_sendmsg(int fd, const struct msghdr *message, int flags)
{
    if (interrupted() || send_fails())
        return -1;
    calls.sends++;
    calls.vectors = (unsigned)message->msg_iovlen;
    if (calls.send_most > 0)
        return send_some(fd, message, flags);
    return sendmsg(fd, message, flags);
}

int test_epoll_wait(int fd, struct epoll_event *events, int count, int timeout)
{
    return interrupted() ? -1 : epoll_wait(fd, events, count, timeout);
}

int test_epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event)
{
    calls.controls++;
    if (calls.fail_control && operation != EPOLL_CTL_DEL) {
        errno = calls.fail_control;
        return -1;
    }
    return epoll_ctl(epoll, operation, fd, event);
}

int test_clock_gettime(clockid_t clock, struct timespec *time)
{
    static double turned;
    if (calls.step == 0)
        return clock_gettime(clock, time);
    turned += calls.step;
    *time = (struct timespec){(time_t)turned, (long)((turned - (double)(time_t)turned) * 1e9)};
    return 0;
}

void *test_calloc(size_t count, size_t size)
{
    if (calls.fail_calloc > 0 && --calls.fail_calloc == 0)
        return NULL;
    return calloc(count, size);
}

/* The bed. */

void begin(const struct relay_config *config, const struct relay_port *clients)
{
    memset(&calls, 0, sizeof calls);
    memset(ends, 0, sizeof ends);
    now = 5000;
    relay = relay_new(config);
    CHECK(relay != NULL);
    struct relay_port servers = *clients;
    servers.read_size = 65536;
    servers.holds = true;
    CHECK(relay_port(relay, clients) == 0 && relay_port(relay, &servers) == 1);
    for (int i = 0; i < ENDS; i++)
        ends[i].peer = -1;
}

int dial(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    if (listening < 0) {
        listening = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        CHECK(bind(listening, (struct sockaddr *)&address, size) == 0);
        CHECK(listen(listening, 4096) == 0);
    }
    getsockname(listening, (struct sockaddr *)&address, &size);
    int peer = socket(AF_INET, SOCK_STREAM, 0), small = 4096;
    setsockopt(peer, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    CHECK(connect(peer, (struct sockaddr *)&address, size) == 0);
    return peer;
}

relay_handle take_in(int port)
{
    int fd = relay_take(listening, 1 << 20, &accepted);
    relay_handle handle = fd < 0 ? 0 : relay_adopt(relay, fd, port, now);
    if (handle == 0 && fd >= 0) {
        int error = errno;
        close(fd);
        errno = error;
    }
    return handle;
}

void add(int which)
{
    int small = 4096;
    ends[which].peer = dial();
    ends[which].handle = take_in(which % 2);
    CHECK(ends[which].handle != 0);
    setsockopt(relay_socket(relay, ends[which].handle), SOL_SOCKET, SO_SNDBUF, &small,
               sizeof small);
    relay_set_owner(relay, ends[which].handle, &ends[which]);
    relay_start(relay, ends[which].handle, NULL, 0, RELAY_PLAIN, now);
}

size_t make(uint8_t *to, uint32_t conn_id, size_t size, uint8_t fill)
{
    uint32_t length = (uint32_t)size + 4;
    memcpy(to, &length, 4);
    memcpy(to + 4, &conn_id, 4);
    memset(to + 8, fill, size);
    return size + 8;
}

void say(int which, const void *data, size_t size)
{
    CHECK(send(ends[which].peer, data, size, MSG_NOSIGNAL) == (ssize_t)size);
}

void say_packet(int which, uint32_t conn_id, size_t size, uint8_t fill)
{
    static uint8_t packet[MAX_PACKET + 8];
    say(which, packet, make(packet, conn_id, size, fill));
}

size_t hear(int which, uint8_t *data, size_t room)
{
    size_t got = 0;
    ssize_t some;
    while ((some = recv(ends[which].peer, data + got, room - got, MSG_DONTWAIT)) > 0)
        got += (size_t)some;
    return got;
}

void break_off(int which)
{
    struct linger reset = {1, 0};
    setsockopt(ends[which].peer, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close(ends[which].peer);
    ends[which].peer = -1;
}

static void take_events(int count)
{
    last_count = 0;
    kept_size = 0;
    for (int i = 0; i < count; i++) {
        struct relay_event event = relay_events(relay)[i];
        CHECK(last_count < LAST);
        if (event.data != NULL) {
            memcpy(kept + kept_size, chunk_bytes(event.data), event.data->end);
            kept_size += event.data->end;
        }
        last[last_count++] = event;
    }
    relay_clear_events(relay);
}

void run(void)
{
    usleep(200); /* loopback delivers at once, nearly */
    take_events(relay_run(relay, now));
    check_sums(relay, 0);
}

void turn(void)
{
    run();
    relay_go_on(relay, now);
    check_sums(relay, 1);
}

void sweep(double seconds)
{
    now += seconds;
    take_events(relay_sweep(relay, now));
    relay_go_on(relay, now);
    check_sums(relay, 1);
}

bool told(int which, enum relay_event_kind kind)
{
    for (int i = 0; i < last_count; i++)
        if (last[i].kind == kind && last[i].owner == &ends[which])
            return true;
    return false;
}

struct relay_counts counts(int which)
{
    struct relay_counts counts;
    CHECK(relay_counts(relay, ends[which].handle, &counts));
    return counts;
}

struct link *link_of(int which) { return find(relay, ends[which].handle); }

struct relay_totals totals(void)
{
    struct relay_totals totals;
    relay_totals(relay, &totals);
    return totals;
}

void block(int from, int to, uint32_t conn_id)
{
    for (int i = 0; i < 4000 && !link_of(to)->blocked; i++) {
        say_packet(from, conn_id, 1000, 'b');
        turn();
    }
    CHECK(link_of(to)->blocked);
}

bool readable(void)
{
    struct pollfd poll_fd = {.fd = relay_fd(relay), .events = POLLIN};
    return poll(&poll_fd, 1, 0) == 1;
}

void end(void)
{
    calls = (struct calls){0};
    for (int i = 0; i < ENDS; i++) {
        relay_close(relay, ends[i].handle, RELAY_ABORT);
        if (ends[i].peer >= 0)
            close(ends[i].peer);
    }
    for (int i = 0; i < 4; i++)
        turn();
    for (int i = 0; i < ENDS; i++)
        relay_release(relay, ends[i].handle);
    CHECK(pool_used(relay_pool(relay)) == 0);
    CHECK(totals().links == 0);
    relay_free(relay);
}
