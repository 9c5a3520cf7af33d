/* What the programs of the bench share that play clients and game servers: the proof of the key,
 * messages that can be checked, connections, times, and numbers of a command line.
 *
 * Law: nothing here knows what is measured.
 */
#ifndef BENCH_ENDS_H
#define BENCH_ENDS_H

#include <fcntl.h>
#include <netinet/tcp.h>
#include <time.h>
#include <unistd.h>

#include "wire.h"

/* Nanoseconds. */
static inline uint64_t clock_ns(clockid_t clock)
{
    struct timespec time;

    if (clock_gettime(clock, &time) < 0)
        die("a clock cannot be read: %s", strerror(errno));
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

static inline uint64_t seconds(double value)
{
    return (uint64_t)(value * 1e9);
}

/* Durations: buckets of which 128 make a doubling, so each is exact to one in 128. */

enum { STEPS = 128, BUCKETS = 35 * STEPS };

struct durations {
    uint64_t buckets[BUCKETS];
    uint64_t count;
};

static inline void record(struct durations *durations, uint64_t ns)
{
    size_t bucket = ns, shift = 0;

    while (bucket >= 2 * STEPS) {
        bucket >>= 1;
        shift++;
    }
    bucket += shift * STEPS;
    durations->buckets[bucket < BUCKETS ? bucket : BUCKETS - 1]++;
    durations->count++;
}

/* Microseconds that a part of the durations did not exceed; 0 where there are none. */
static inline double percentile(const struct durations *durations, double part)
{
    uint64_t before = 0, wanted = (uint64_t)(part * (double)durations->count);

    for (size_t bucket = 0; bucket < BUCKETS; bucket++) {
        before += durations->buckets[bucket];
        if (before > wanted) {
            size_t shift = bucket < 2 * STEPS ? 0 : bucket / STEPS - 1;

            return (double)((bucket - shift * STEPS + 1) << shift) / 1e3;
        }
    }
    return 0;
}

/* RFC 1321, for the handshake only. */

static inline void md5_block(uint32_t state[4], const uint8_t *block)
{
    static const uint8_t shifts[4][4] = {
        {7, 12, 17, 22}, {5, 9, 14, 20}, {4, 11, 16, 23}, {6, 10, 15, 21}};
    static const uint32_t sines[64] = {
        0xd76aa478, 0xe8c7b756, 0x242070db, 0xc1bdceee, 0xf57c0faf, 0x4787c62a, 0xa8304613,
        0xfd469501, 0x698098d8, 0x8b44f7af, 0xffff5bb1, 0x895cd7be, 0x6b901122, 0xfd987193,
        0xa679438e, 0x49b40821, 0xf61e2562, 0xc040b340, 0x265e5a51, 0xe9b6c7aa, 0xd62f105d,
        0x02441453, 0xd8a1e681, 0xe7d3fbc8, 0x21e1cde6, 0xc33707d6, 0xf4d50d87, 0x455a14ed,
        0xa9e3e905, 0xfcefa3f8, 0x676f02d9, 0x8d2a4c8a, 0xfffa3942, 0x8771f681, 0x6d9d6122,
        0xfde5380c, 0xa4beea44, 0x4bdecfa9, 0xf6bb4b60, 0xbebfbc70, 0x289b7ec6, 0xeaa127fa,
        0xd4ef3085, 0x04881d05, 0xd9d4d039, 0xe6db99e5, 0x1fa27cf8, 0xc4ac5665, 0xf4292244,
        0x432aff97, 0xab9423a7, 0xfc93a039, 0x655b59c3, 0x8f0ccc92, 0xffeff47d, 0x85845dd1,
        0x6fa87e4f, 0xfe2ce6e0, 0xa3014314, 0x4e0811a1, 0xf7537e82, 0xbd3af235, 0x2ad7d2bb,
        0xeb86d391};
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3];

    for (int i = 0; i < 64; i++) {
        int round = i / 16, shift = shifts[round][i % 4], word;
        uint32_t mixed;

        if (round == 0)
            mixed = (b & c) | (~b & d), word = i;
        else if (round == 1)
            mixed = (d & b) | (~d & c), word = (5 * i + 1) % 16;
        else if (round == 2)
            mixed = b ^ c ^ d, word = (3 * i + 5) % 16;
        else
            mixed = c ^ (b | ~d), word = 7 * i % 16;
        mixed += a + sines[i] + get32(block + 4 * word);
        a = d;
        d = c;
        c = b;
        b += mixed << shift | mixed >> (32 - shift);
    }
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
}

static inline void prove(uint8_t proof[16], const uint8_t challenge[8], const char *key)
{
    uint32_t state[4] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476};
    size_t size = 8 + strlen(key), padded = (size + 9 + 63) / 64 * 64;
    uint8_t *text = calloc(1, padded);

    if (!text)
        die("out of memory");
    memcpy(text, challenge, 8);
    memcpy(text + 8, key, strlen(key));
    text[size] = 0x80;
    put32(text + padded - 8, (uint32_t)(size << 3));
    for (size_t start = 0; start < padded; start += 64)
        md5_block(state, text + start);
    for (int i = 0; i < 4; i++)
        put32(proof + 4 * i, state[i]);
    free(text);
}

/* Messages: the flow's number, the message's number in it, and a pattern made from both. */

static inline uint64_t first_word(uint32_t flow, uint32_t number)
{
    return (uint64_t)number << 32 | flow;
}

static inline uint64_t next_word(uint64_t first, uint64_t word)
{
    return (word ^ word >> 29) * 0x9e3779b97f4a7c15 + first;
}

static inline void write_pattern(uint8_t *message, size_t size, uint32_t flow, uint32_t number)
{
    uint64_t first = first_word(flow, number), word = first;

    for (size_t at = 0; at < size; at += sizeof word) {
        size_t left = size - at;

        memcpy(message + at, &word, left < sizeof word ? left : sizeof word);
        word = next_word(first, word);
    }
}

/* Where the first 8 bytes begin that differ from the pattern; `size` if none does. */
static inline size_t find_difference(const uint8_t *message, size_t size, uint32_t flow,
                                     uint32_t number)
{
    uint64_t first = first_word(flow, number), word = first;

    for (size_t at = 0; at < size; at += sizeof word) {
        size_t left = size - at;

        if (memcmp(message + at, &word, left < sizeof word ? left : sizeof word) != 0)
            return at;
        word = next_word(first, word);
    }
    return size;
}

/* Connections. One address has some 28 000 ports; one on loopback is reached from several. */

enum { PER_SOURCE = 8192 };

/* A blocking or non-blocking socket from which the `number`th connection to `address` is made. */
static inline int open_socket(const struct sockaddr_in *address, int number, int flags)
{
    struct sockaddr_in source = {.sin_family = AF_INET};
    int fd = socket(AF_INET, SOCK_STREAM | flags, 0), yes = 1;

    if (fd < 0)
        die("socket: %s", strerror(errno));
    source.sin_addr.s_addr = htonl(INADDR_LOOPBACK + (uint32_t)(number / PER_SOURCE));
    if (ntohl(address->sin_addr.s_addr) >> 24 == 127 && number >= PER_SOURCE &&
        (setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &yes, sizeof yes) < 0 ||
         bind(fd, (struct sockaddr *)&source, sizeof source) < 0))
        die("bind: %s", strerror(errno));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    return fd;
}

/* The socket is blocking; each call on it takes `patience` seconds and one more at most. */
static inline int connect_to(const struct sockaddr_in *address, int number, double patience)
{
    struct timeval most = {.tv_sec = (time_t)patience + 1};
    int fd = open_socket(address, number, 0);

    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &most, sizeof most);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &most, sizeof most);
    if (connect(fd, (const struct sockaddr *)address, sizeof *address) < 0)
        die("cannot connect: %s", strerror(errno));
    return fd;
}

static inline void unblock(int fd)
{
    if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
        die("fcntl: %s", strerror(errno));
}

static inline void receive_exactly(int fd, uint8_t *data, size_t size)
{
    ssize_t got;

    for (; size; data += got, size -= (size_t)got)
        if ((got = recv(fd, data, size, 0)) <= 0)
            die("no answer to the handshake: %s", got ? strerror(errno) : "connection ended");
}

/* A server's handshake, and a Ping, so that the gateway knows it when the first dial comes. */
static inline int connect_server(const struct sockaddr_in *address, uint32_t server_id,
                                 const char *key, double patience)
{
    int fd = connect_to(address, 0, patience);
    uint8_t challenge[8], answer[20 + MAX_COMMAND], ping[MAX_COMMAND];
    size_t ping_size = encode_command(answer + 20, PING, 0, 0, 0);

    receive_exactly(fd, challenge, sizeof challenge);
    prove(answer, challenge, key);
    put32(answer + 16, server_id);
    if (send(fd, answer, 20 + ping_size, MSG_NOSIGNAL) != (ssize_t)(20 + ping_size))
        die("the handshake cannot be sent: %s", strerror(errno));
    receive_exactly(fd, ping, ping_size);
    if (memcmp(ping, answer + 20, ping_size) != 0)
        die("the handshake's Ping came back changed");
    unblock(fd);
    return fd;
}

/* Numbers of a command line. */

static inline int whole(const char *text, int least, int most)
{
    char *end;
    long value = strtol(text, &end, 10);

    if (*end || end == text || value < least || value > most)
        die("%s is not a number from %d to %d", text, least, most);
    return (int)value;
}

static inline double duration(const char *text)
{
    char *end;
    double value = strtod(text, &end);

    if (*end || end == text || !(value >= 0 && value <= 3600))
        die("%s is not a time from 0 to 3600 seconds", text);
    return value;
}

#endif
