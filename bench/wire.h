/* What the C programs of the bench share: the layout of a packet, bytes that wait, and one
 * read and one write of a non-blocking socket.
 *
 * Law: nothing here knows what a packet means, or which side it is on.
 */
#ifndef BENCH_WIRE_H
#define BENCH_WIRE_H

#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>

enum { DIAL, ACCEPT, CONNECT, REFUSE, CLOSE, PING };

enum {
    HEADER = 8,                  /* length:u32 conn_id:u32 */
    MAX_PACKET = 512 * 1024,     /* of the length field */
    MAX_COMMAND = HEADER + 1 + 8 /* type:u8 and two u32 */
};

__attribute__((noreturn, format(printf, 1, 2))) static inline void die(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    fprintf(stderr, "%s: ", program_invocation_short_name);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

static inline uint32_t get32(const uint8_t *data)
{
    uint32_t value;

    memcpy(&value, data, sizeof value);
    return le32toh(value);
}

static inline void put32(uint8_t *data, uint32_t value)
{
    value = htole32(value);
    memcpy(data, &value, sizeof value);
}

#define BAD_PACKET SIZE_MAX

/* Bytes of the packet that `data` begins with; 0 when it is not whole yet. */
static inline size_t packet_size(const uint8_t *data, size_t left)
{
    uint32_t length;

    if (left < 4)
        return 0;
    length = get32(data);
    if (length < 4 || length > MAX_PACKET)
        return BAD_PACKET;
    return left < 4 + (size_t)length ? 0 : 4 + (size_t)length;
}

/* A command with up to two arguments into `data`, which has MAX_COMMAND bytes; its size. */
static inline size_t encode_command(uint8_t *data, int type, int count, uint32_t first,
                                    uint32_t second)
{
    put32(data, 5 + 4 * (uint32_t)count);
    put32(data + 4, 0);
    data[8] = (uint8_t)type;
    if (count > 0)
        put32(data + 9, first);
    if (count > 1)
        put32(data + 13, second);
    return HEADER + 1 + 4 * (size_t)count;
}

struct bytes {
    uint8_t *data;
    size_t start, end, capacity;
};

/* Room for `size` bytes at the end; they count from now on. */
static inline uint8_t *append(struct bytes *bytes, size_t size)
{
    uint8_t *room;

    if (bytes->end + size > bytes->capacity && bytes->start) {
        bytes->end -= bytes->start;
        memmove(bytes->data, bytes->data + bytes->start, bytes->end);
        bytes->start = 0;
    }
    if (bytes->end + size > bytes->capacity) {
        size_t capacity = bytes->capacity * 2;

        if (capacity < bytes->end + size)
            capacity = bytes->end + size;
        bytes->data = realloc(bytes->data, capacity);
        if (!bytes->data)
            die("out of memory");
        bytes->capacity = capacity;
    }
    room = bytes->data + bytes->end;
    bytes->end += size;
    return room;
}

struct stream;

/* What lies between a stream's bytes and its socket, if anything does; layers.h makes them. */
struct layers {
    struct bytes wire;              /* what the socket has not taken */
    void (*seal)(struct stream *);  /* moves `out` into `wire`, if that may be now */
    ssize_t (*open)(struct stream *, uint8_t *room, size_t most); /* instead of recv */
};

/* One TCP connection. First member of what each program knows about it. */
struct stream {
    int fd;
    struct layers *layers; /* NULL: its bytes go as they are */
    bool blocked; /* waits for EPOLLOUT */
    bool touched; /* is in the list of those with something new to write */
    struct stream *next_touched;
    struct bytes in;  /* the beginning of a packet whose rest has not come */
    struct bytes out; /* what the socket has not taken */
};

static struct stream *touched;

static inline void touch(struct stream *stream)
{
    if (stream->touched)
        return;
    stream->touched = true;
    stream->next_touched = touched;
    touched = stream;
}

static inline struct stream *next_touched(void)
{
    struct stream *stream = touched;

    if (stream) {
        touched = stream->next_touched;
        stream->touched = false;
    }
    return stream;
}

static inline void watch(int poll, int operation, struct stream *stream, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = stream};

    if (epoll_ctl(poll, operation, stream->fd, &event) < 0)
        die("epoll_ctl: %s", strerror(errno));
}

/* One write of what waits, if anything does. False: the connection is broken. */
static inline bool write_waiting(int poll, struct stream *stream)
{
    struct bytes *out = &stream->out;
    ssize_t size;
    bool blocked;

    if (stream->layers) {
        stream->layers->seal(stream);
        out = &stream->layers->wire;
    }
    if (out->end == 0)
        return true;
    size = send(stream->fd, out->data + out->start, out->end - out->start, MSG_NOSIGNAL);
    if (size < 0 && errno != EAGAIN && errno != EINTR)
        return false;
    if (size > 0)
        out->start += (size_t)size;
    if (out->start == out->end)
        out->start = out->end = 0;
    blocked = out->end > 0;
    if (blocked != stream->blocked) {
        stream->blocked = blocked;
        watch(poll, EPOLL_CTL_MOD, stream, blocked ? EPOLLIN | EPOLLOUT : EPOLLIN);
    }
    return true;
}

enum { READ = 64 * 1024 };

/* What was read last, of any connection, behind what was kept of it. */
static uint8_t arrived[4 + MAX_PACKET + READ];

/* One read of at most `most` bytes, and READ at most; everything from the first unfinished packet
 * on is then in `arrived`. -1: the connection is over. 0: nothing came. */
static inline ssize_t read_arrived(struct stream *stream, size_t most)
{
    size_t kept = stream->in.end;
    ssize_t size = stream->layers ? stream->layers->open(stream, arrived + kept, most)
                                  : recv(stream->fd, arrived + kept, most, 0);

    if (size <= 0)
        return size < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : -1;
    if (kept) {
        memcpy(arrived, stream->in.data, kept);
        stream->in.end = 0;
    }
    return (ssize_t)kept + size;
}

/* Keep the beginning of a packet until its rest comes. */
static inline void keep(struct stream *stream, const uint8_t *data, size_t size)
{
    if (size)
        memcpy(append(&stream->in, size), data, size);
}

/* An address written as 127.0.0.1:9010. */
static inline struct sockaddr_in parse_address(const char *text)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    char host[64];
    unsigned port;
    int end = 0;

    if (sscanf(text, "%63[0-9.]:%5u%n", host, &port, &end) != 2 || text[end] || port > 65535 ||
        inet_pton(AF_INET, host, &address.sin_addr) != 1)
        die("an address is written like 127.0.0.1:9010, not %s", text);
    address.sin_port = htons((uint16_t)port);
    return address;
}

/* As many descriptors as we may have. */
static inline rlim_t raise_descriptors(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        die("getrlimit: %s", strerror(errno));
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
        die("setrlimit: %s", strerror(errno));
    return limit.rlim_cur;
}

#endif
