/* What may lie between a client's packets and its socket: WebSocket, TLS, or both.
 *
 * A client address says it: 127.0.0.1:9010, ws:127.0.0.1:9080, tls:127.0.0.1:9010 or
 * wss:127.0.0.1:9443; with proxy- in front (proxy-tcp:127.0.0.1:9010) a PROXY header comes first, of
 * a client at 203.0.113.1. Each packet is a masked frame of its own, as a page sends it. TLS is
 * OpenSSL's, where it is compiled in (WITH_TLS); certificates are not looked at.
 *
 * Law: what a gateway may not send by RFC 6455 ends the program with one line, and so does what
 * OpenSSL does not like.
 */
#ifndef BENCH_LAYERS_H
#define BENCH_LAYERS_H

#include <strings.h>

#ifdef WITH_TLS
#include <openssl/err.h>
#include <openssl/ssl.h>
#endif

#include "wire.h"

enum { WS = 1, TLS = 2, PROXY = 4 };

enum { MAX_ANSWER = 4096, SEALED = 17 * 1024 /* bytes that TLS may keep of a record */ };

/* The key of RFC 6455, section 1.3, and what answers it. */
#define WS_KEY "dGhlIHNhbXBsZSBub25jZQ=="
#define WS_ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

/* First member of a stream's layers. */
struct stack {
    struct layers layers;
    int kinds;
    bool asking;         /* the answer to the WebSocket's request is not whole */
    bool shaking;        /* TLS is not agreed on */
    uint8_t head[10];    /* of a frame */
    size_t head_size;    /* bytes of it that are there */
    uint64_t frame_left; /* bytes of its payload that are not */
    uint64_t pongs;
    uint32_t mask;
    struct bytes answer;
#ifdef WITH_TLS
    SSL *ssl;
#endif
};

/* WebSocket. */

/* A frame's head and mask; the payload behind it is to be masked. */
static inline size_t encode_frame(uint8_t *head, int opcode, size_t size, const uint8_t mask[4])
{
    size_t at = 2;

    head[0] = (uint8_t)(0x80 | opcode);
    if (size < 126) {
        head[1] = (uint8_t)(0x80 | size);
    } else if (size < 65536) {
        head[1] = 0x80 | 126;
        head[at++] = (uint8_t)(size >> 8);
        head[at++] = (uint8_t)size;
    } else {
        head[1] = 0x80 | 127;
        for (int shift = 56; shift >= 0; shift -= 8)
            head[at++] = (uint8_t)((uint64_t)size >> shift);
    }
    memcpy(head + at, mask, 4);
    return at + 4;
}

static inline void apply_mask(uint8_t *to, const uint8_t *from, size_t size, const uint8_t mask[4])
{
    uint64_t wide, word;
    size_t at = 0;

    memcpy(&wide, mask, 4);
    memcpy((uint8_t *)&wide + 4, mask, 4);
    for (; at + sizeof word <= size; at += sizeof word) {
        memcpy(&word, from + at, sizeof word);
        word ^= wide;
        memcpy(to + at, &word, sizeof word);
    }
    for (; at < size; at++)
        to[at] = from[at] ^ mask[at % 4];
}

/* A whole frame behind what is in `to`. */
static inline void add_frame(struct bytes *to, int opcode, const uint8_t *data, size_t size,
                             uint32_t mask)
{
    uint8_t head[14], key[4];
    size_t head_size;

    memcpy(key, &mask, 4);
    head_size = encode_frame(head, opcode, size, key);
    memcpy(append(to, head_size), head, head_size);
    apply_mask(append(to, size), data, size, key);
}

/* A frame for each packet. */
static inline void add_frames(struct stack *stack, struct bytes *to, const uint8_t *data,
                              size_t left)
{
    for (size_t size; left; data += size, left -= size) {
        size = packet_size(data, left);
        if (size == 0 || size == BAD_PACKET)
            size = left;
        stack->mask = stack->mask * 1664525 + 1013904223;
        add_frame(to, 2, data, size, stack->mask);
    }
}

static inline size_t ws_request(char *text, size_t most)
{
    return (size_t)snprintf(text, most,
                            "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
                            "Connection: Upgrade\r\nSec-WebSocket-Key: " WS_KEY "\r\n"
                            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: fastway\r\n\r\n");
}

/* Bytes of a frame's head by its second one. */
static inline size_t head_length(uint8_t second)
{
    second &= 0x7f;
    return second < 126 ? 2 : second == 126 ? 4 : 10;
}

/* The bytes of `data` that are the answer's; all of them while it is not whole. */
static inline size_t hear_answer(struct stack *stack, const uint8_t *data, size_t size)
{
    struct bytes *answer = &stack->answer;
    size_t before = answer->end, line;
    char *text, *end;

    if (before + size > MAX_ANSWER)
        size = MAX_ANSWER - before;
    memcpy(append(answer, size), data, size);
    *append(answer, 1) = 0;
    text = (char *)answer->data;
    end = strstr(text, "\r\n\r\n");
    answer->end = before + size;
    if (!end && answer->end == MAX_ANSWER)
        die("an answer of more than %d bytes to the WebSocket's request", MAX_ANSWER);
    if (!end)
        return size;
    line = strcspn(text, "\r");
    if (strncmp(text, "HTTP/1.1 101 ", 13) != 0)
        die("no WebSocket: %.*s", (int)(line < 200 ? line : 200), text);
    if (!strcasestr(text, "\nsec-websocket-accept: " WS_ACCEPT "\r"))
        die("the WebSocket's request was answered without a proof");
    size = (size_t)(end - text) + 4 - before;
    free(answer->data);
    *answer = (struct bytes){0};
    stack->asking = false;
    return size;
}

/* The payloads of frames, in place; bytes of them. `closed`: the gateway's Close came. */
static inline size_t unframe(struct stack *stack, uint8_t *data, size_t left, bool *closed)
{
    uint8_t *to = data, *begin = data, *head = stack->head;

    while (left && !*closed) {
        if (stack->frame_left) {
            size_t size = left < stack->frame_left ? left : (size_t)stack->frame_left;

            memmove(to, data, size);
            to += size;
            data += size;
            left -= size;
            stack->frame_left -= size;
            continue;
        }
        head[stack->head_size++] = *data++;
        left--;
        if (stack->head_size < 2 || stack->head_size < head_length(head[1]))
            continue;
        if (head[0] != 0x82 && head[0] != 0x88 && head[0] != 0x8a)
            die("a WebSocket frame that begins with %02x", head[0]);
        if (head[1] & 0x80)
            die("the gateway masks its frames");
        if (head[0] == 0x8a && head[1])
            die("a Pong that nobody asked for");
        stack->pongs += head[0] == 0x8a;
        *closed = head[0] == 0x88;
        stack->frame_left = head[1] < 126 ? head[1] : 0;
        for (size_t i = 2; i < stack->head_size; i++)
            stack->frame_left = stack->frame_left << 8 | head[i];
        stack->head_size = 0;
    }
    return (size_t)(to - begin);
}

/* TLS. */

#ifdef WITH_TLS

/* What came from the socket for the connection that is read now. OpenSSL keeps what it needs. */
static struct {
    const uint8_t *data;
    size_t left;
} coming;

static inline int bio_read(BIO *bio, char *to, int most)
{
    size_t size = coming.left < (size_t)most ? coming.left : (size_t)most;

    BIO_clear_retry_flags(bio);
    if (size == 0) {
        BIO_set_retry_read(bio);
        return -1;
    }
    memcpy(to, coming.data, size);
    coming.data += size;
    coming.left -= size;
    return (int)size;
}

static inline int bio_write(BIO *bio, const char *data, int size)
{
    struct stack *stack = BIO_get_data(bio);

    memcpy(append(&stack->layers.wire, (size_t)size), data, (size_t)size);
    return size;
}

static inline long bio_control(BIO *bio, int command, long number, void *pointer)
{
    (void)bio, (void)number, (void)pointer;
    return command == BIO_CTRL_FLUSH;
}

__attribute__((noreturn)) static inline void die_of_tls(void)
{
    die("TLS: %s", ERR_reason_error_string(ERR_peek_last_error()));
}

static inline SSL *open_tls(struct stack *stack)
{
    static SSL_CTX *context;
    static BIO_METHOD *method;
    BIO *bio;
    SSL *ssl;

    if (!context) {
        context = SSL_CTX_new(TLS_client_method());
        method = BIO_meth_new(BIO_TYPE_SOURCE_SINK | BIO_get_new_index(), "bench");
        if (!context || !method)
            die_of_tls();
        SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
        BIO_meth_set_read(method, bio_read);
        BIO_meth_set_write(method, bio_write);
        BIO_meth_set_ctrl(method, bio_control);
    }
    ssl = SSL_new(context);
    bio = BIO_new(method);
    if (!ssl || !bio)
        die_of_tls();
    BIO_set_data(bio, stack);
    BIO_set_init(bio, 1);
    SSL_set_bio(ssl, bio, bio);
    SSL_set_tlsext_host_name(ssl, "localhost");
    SSL_set_connect_state(ssl);
    return ssl;
}

static inline void shake(struct stack *stack)
{
    int result;

    ERR_clear_error();
    result = SSL_do_handshake(stack->ssl);
    stack->shaking = result != 1;
    if (result != 1 && SSL_get_error(stack->ssl, result) != SSL_ERROR_WANT_READ)
        die_of_tls();
}

static inline void add_sealed(struct stack *stack, const uint8_t *data, size_t size)
{
    ERR_clear_error();
    if (size && SSL_write(stack->ssl, data, (int)size) != (int)size)
        die_of_tls();
}

/* Opens what came, up to READ bytes, which is more than TLS makes of READ - SEALED. */
static inline size_t unseal(struct stack *stack, uint8_t *room, bool *closed)
{
    size_t size = 0;
    int got, error;

    ERR_clear_error();
    while ((got = SSL_read(stack->ssl, room + size, (int)(READ - size))) > 0)
        size += (size_t)got;
    error = SSL_get_error(stack->ssl, got);
    *closed = error == SSL_ERROR_ZERO_RETURN;
    if (!*closed && error != SSL_ERROR_WANT_READ)
        die_of_tls();
    return size;
}

#endif

/* Both. */

static inline void seal(struct stream *stream)
{
    struct stack *stack = (struct stack *)stream->layers;
    struct bytes *out = &stream->out, *wire = &stack->layers.wire;
    const uint8_t *data = out->data + out->start;
    size_t size = out->end - out->start;

    if (stack->shaking || stack->asking || !size)
        return;
#ifdef WITH_TLS
    static struct bytes frames;

    if (stack->kinds & TLS && stack->kinds & WS) {
        frames.end = 0;
        add_frames(stack, &frames, data, size);
        add_sealed(stack, frames.data, frames.end);
    } else if (stack->kinds & TLS) {
        add_sealed(stack, data, size);
    }
#endif
    if (!(stack->kinds & TLS)) {
        if (stack->kinds & WS)
            add_frames(stack, wire, data, size);
        else
            memcpy(append(wire, size), data, size);
    }
    out->start = out->end = 0;
}

static inline void ask(struct stack *stack)
{
    char text[512];
    size_t size = ws_request(text, sizeof text);

    stack->asking = true;
#ifdef WITH_TLS
    if (stack->kinds & TLS) {
        add_sealed(stack, (uint8_t *)text, size);
        return;
    }
#endif
    memcpy(append(&stack->layers.wire, size), text, size);
}

static inline ssize_t unlayer(struct stream *stream, uint8_t *room, size_t most)
{
    struct stack *stack = (struct stack *)stream->layers;
    bool closed = false;
    ssize_t got;
    size_t size = 0, used;

#ifdef WITH_TLS
    static uint8_t sealed[READ];

    if (stack->kinds & TLS) {
        got = recv(stream->fd, sealed, most < READ - SEALED ? most : READ - SEALED, 0);
        if (got <= 0)
            return got;
        coming.data = sealed;
        coming.left = (size_t)got;
        if (stack->shaking) {
            shake(stack);
            if (!stack->shaking && stack->kinds & WS)
                ask(stack);
        }
        if (!stack->shaking)
            size = unseal(stack, room, &closed);
    }
#endif
    if (!(stack->kinds & TLS)) {
        got = recv(stream->fd, room, most, 0);
        if (got <= 0)
            return got;
        size = (size_t)got;
    }
    if (stack->asking && size) {
        used = hear_answer(stack, room, size);
        memmove(room, room + used, size -= used);
    }
    if (stack->kinds & WS)
        size = unframe(stack, room, size, &closed);
    touch(stream); /* there may be answers to write, or it may write from now on */
    if (size || closed)
        return (ssize_t)size;
    errno = EAGAIN;
    return -1;
}

static inline void add_proxy(struct stack *stack, int fd)
{
    struct sockaddr_in own = {0};
    socklen_t size = sizeof own;
    char text[108];

    if (getsockname(fd, (struct sockaddr *)&own, &size) < 0)
        die("getsockname: %s", strerror(errno));
    size = (socklen_t)snprintf(text, sizeof text, "PROXY TCP4 203.0.113.1 127.0.0.1 %u 9010\r\n",
                               ntohs(own.sin_port));
    memcpy(append(&stack->layers.wire, size), text, size);
}

/* Puts layers between a stream and its socket, which is connected. */
static inline void add_layers(struct stream *stream, int kinds)
{
    struct stack *stack = calloc(1, sizeof *stack);

    if (!stack)
        die("out of memory");
    stack->layers = (struct layers){.seal = seal, .open = unlayer};
    stack->kinds = kinds;
    stack->mask = 0x9e3779b9u * (uint32_t)stream->fd;
    stream->layers = &stack->layers;
    if (kinds & PROXY)
        add_proxy(stack, stream->fd);
#ifdef WITH_TLS
    if (kinds & TLS) {
        stack->shaking = true;
        stack->ssl = open_tls(stack);
        shake(stack);
    }
#endif
    if (kinds & WS && !(kinds & TLS))
        ask(stack);
    touch(stream);
}

/* Which layers an address asks for by what it begins with; it is then without that. */
static inline int parse_layers(const char **text)
{
    static const struct {
        const char *name;
        int kinds;
    } known[] = {{"ws:", WS}, {"tls:", TLS}, {"wss:", WS | TLS}, {"tcp:", 0}};
    int kinds = 0;

    if (strncmp(*text, "proxy-", 6) == 0) {
        kinds = PROXY;
        *text += 6;
    }
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strncmp(*text, known[i].name, strlen(known[i].name)) != 0)
            continue;
#ifndef WITH_TLS
        if (known[i].kinds & TLS)
            die("this was built without OpenSSL");
#endif
        *text += strlen(known[i].name);
        return kinds | known[i].kinds;
    }
    if (kinds)
        die("what does the proxy's client speak? %s", *text);
    return 0;
}

#endif
