/* Packets in the frames of a WebSocket (RFC 6455), the server's side.
 *
 * Law: binary messages are one stream of bytes, so nothing is put together again: frames are
 * unwrapped in place and in time that is linear in the bytes, however they are cut, and made when
 * they are written. The rules, and what is told of those that break them, are those of
 * fastway/websocket/frames.py; tests hold one against the other.
 *
 * Of a frame that is not whole its head is kept, and of a control frame what it says. Of several
 * Pings the last is answered. No memory for one is the end of the link.
 */
#define _GNU_SOURCE
#include "inside.h"

#include <stdlib.h>
#include <string.h>

#define FIN 0x80
#define MASKED 0x80
#define FRAME (16384u - 4) /* bytes of payload in one that is sent: with its head a TLS record */

enum opcode { CONTINUATION = 0, TEXT = 1, BINARY = 2, GOODBYE = 8, PING = 9, PONG = 10 };

/* `before`: bytes that wait already, and are sent as they are. */
struct websocket *ws_new(uint64_t before)
{
    struct websocket *ws = calloc(1, sizeof *ws);
    if (ws != NULL)
        ws->frame_left = before; /* as the rest of a frame */
    return ws;
}

/* Nothing more is written. */
void ws_silence(struct websocket *ws)
{
    free(ws->pong);
    free(ws->later);
    free(ws->goodbye);
    ws->pong = ws->later = ws->goodbye = NULL;
    ws->frame_left = ws->head_left = 0;
}

void ws_free(struct websocket *ws)
{
    if (ws == NULL)
        return;
    ws_silence(ws);
    free(ws->coming);
    free(ws);
}

/* What comes. */

/* Move bytes to the front, unmasked. */
static void unmask(uint8_t *to, const uint8_t *from, size_t size, const uint8_t mask[4])
{
    uint64_t wide, one, two, three, four;
    size_t at = 0;
    memcpy(&wide, mask, 4);
    memcpy((uint8_t *)&wide + 4, mask, 4);
    /* `to` lies before `from`: what a store covers has been loaded. */
    for (; size - at >= 32; at += 32) {
        memcpy(&one, from + at, 8);
        memcpy(&two, from + at + 8, 8);
        memcpy(&three, from + at + 16, 8);
        memcpy(&four, from + at + 24, 8);
        one ^= wide, two ^= wide, three ^= wide, four ^= wide;
        memcpy(to + at, &one, 8);
        memcpy(to + at + 8, &two, 8);
        memcpy(to + at + 16, &three, 8);
        memcpy(to + at + 24, &four, 8);
    }
    for (; size - at >= 8; at += 8) {
        memcpy(&one, from + at, 8);
        one ^= wide;
        memcpy(to + at, &one, 8);
    }
    for (; at < size; at++)
        to[at] = from[at] ^ mask[at & 3];
}

/* So many bytes of a frame came, and more will. */
static void turn_mask(uint8_t mask[4], size_t size)
{
    uint8_t old[4];
    memcpy(old, mask, 4);
    for (size_t i = 0; i < 4; i++)
        mask[i] = old[(i + size) & 3];
}

static bool is_utf8(const uint8_t *text, size_t size)
{
    for (size_t at = 0; at < size;) {
        uint8_t first = text[at++];
        if (first < 0x80)
            continue;
        size_t more = first >= 0xF0 ? 3 : first >= 0xE0 ? 2 : 1;
        if (first < 0xC2 || first > 0xF4 || size - at < more)
            return false;
        /* No longer form than needed, no surrogates, nothing over U+10FFFF. */
        uint8_t least = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
        uint8_t most = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
        if (text[at] < least || text[at] > most)
            return false;
        for (size_t i = 1; i < more; i++)
            if ((text[at + i] & 0xC0) != 0x80)
                return false;
        at += more;
    }
    return true;
}

static uint64_t problem_of_close(const uint8_t *payload, size_t size)
{
    if (size == 0)
        return RELAY_KEPT;
    uint32_t code = size < 2 ? 0 : (uint32_t)payload[0] << 8 | payload[1];
    if (!((code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014)
          || (code >= 3000 && code <= 4999)))
        return RELAY_CLOSE_CODE;
    return is_utf8(payload + 2, size - 2) ? RELAY_KEPT : RELAY_CLOSE_TEXT;
}

/* A frame may begin with this byte, now. */
static uint64_t problem_of_first(const struct websocket *ws, uint8_t first)
{
    uint8_t opcode = first & 15;
    if (first & 0x70)
        return RELAY_RESERVED_BIT;
    if (opcode > PONG || (opcode > BINARY && opcode < GOODBYE))
        return RELAY_RESERVED_OPCODE | (uint64_t)opcode << 8;
    if (opcode >= GOODBYE)
        return first & FIN ? RELAY_KEPT : RELAY_CONTROL_IN_FRAGMENTS;
    if ((opcode == CONTINUATION) != ws->inside)
        return ws->inside ? RELAY_MESSAGE_INSIDE : RELAY_NOTHING_TO_CONTINUE;
    return opcode == TEXT ? RELAY_TEXT : RELAY_KEPT;
}

/* Bytes of the length's longer form. */
static uint8_t wide(uint8_t second)
{
    return (second & 0x7F) == 127 ? 8 : (second & 0x7F) == 126 ? 2 : 0;
}

/* The length of a frame whose head is there as far as that. */
static uint64_t length_of(const uint8_t *head)
{
    uint64_t length = head[1] & 0x7F;
    uint8_t more = wide(head[1]);
    if (more > 0)
        length = 0;
    for (uint8_t i = 0; i < more; i++)
        length = length << 8 | head[2 + i];
    return length;
}

/* What is wrong with a head as far as it is there, now that it has one byte more. */
static uint64_t problem_of_head(const struct websocket *ws, uint64_t limit)
{
    const uint8_t *head = ws->head;
    if (ws->head_size == 1)
        return problem_of_first(ws, head[0]);
    if (ws->head_size == 2) {
        if (!(head[1] & MASKED))
            return RELAY_NO_MASK;
        return (head[0] & 15) >= GOODBYE && (head[1] & 0x7F) > CONTROL ? RELAY_LONG_CONTROL
                                                                       : RELAY_KEPT;
    }
    uint8_t more = wide(head[1]);
    if (more == 0 || ws->head_size != 2 + more)
        return RELAY_KEPT;
    uint64_t length = length_of(head);
    if (length < 126 || (more == 8 && length <= UINT16_MAX) || length >> 63)
        return RELAY_LENGTH_FORM;
    return length > limit ? RELAY_FRAME_TOO_LARGE | length : RELAY_KEPT;
}

/* A Ping is answered by the Pong that it becomes; only one that is being written goes before. */
static void answer(struct websocket *ws, struct control *pong)
{
    struct control **place = ws->pong != NULL && ws->pong->at > 0 ? &ws->later : &ws->pong;
    free(*place);
    pong->bytes[0] = FIN | PONG;
    pong->at = 0;
    *place = pong;
}

/* A control frame is whole. */
static void obey(struct websocket *ws)
{
    struct control *came = ws->coming;
    const uint8_t *payload = came->bytes + 2;
    size_t size = came->size - 2u;
    uint8_t opcode = came->bytes[0] & 15;
    ws->coming = NULL;
    if (opcode == PING) {
        answer(ws, came);
        return;
    }
    if (opcode == GOODBYE) {
        ws->problem = problem_of_close(payload, size);
        ws->closed = ws->problem == RELAY_KEPT;
        ws->peer_code = size == 0 ? 0 : (uint16_t)(payload[0] << 8 | payload[1]);
    }
    free(came);
}

/* The head is whole. */
static void begin_frame(struct websocket *ws)
{
    const uint8_t *head = ws->head;
    uint64_t length = length_of(head);
    memcpy(ws->mask, head + ws->head_size - 4, 4);
    ws->head_size = 0;
    if ((head[0] & 15) < GOODBYE) {
        ws->inside = !(head[0] & FIN);
        ws->left = length;
        return;
    }
    struct control *coming = ws->coming = calloc(1, sizeof *coming);
    if (coming == NULL) {
        ws->no_memory = true;
        return;
    }
    coming->size = (uint8_t)(2 + length);
    coming->at = 2;
    coming->bytes[0] = head[0];
    coming->bytes[1] = (uint8_t)length;
    if (length == 0)
        obey(ws);
}

/* Take some of a head; returns how many bytes. */
static size_t take_head(struct websocket *ws, const uint8_t *data, size_t size, uint64_t limit)
{
    /* Most frames: binary, whole messages, short, and their head in one piece. */
    if (ws->head_size == 0 && size >= 6 && data[0] == (FIN | BINARY) && !ws->inside
        && data[1] >= MASKED && (data[1] & 0x7F) < 126) {
        ws->left = data[1] & 0x7F;
        memcpy(ws->mask, data + 2, 4);
        return 6;
    }
    size_t took = 0;
    while (took < size) {
        ws->head[ws->head_size++] = data[took++];
        ws->problem = problem_of_head(ws, limit);
        if (ws->problem != RELAY_KEPT)
            break;
        if (ws->head_size >= 6 && ws->head_size == 6 + wide(ws->head[1])) {
            begin_frame(ws);
            break;
        }
    }
    return took;
}

/* Take some of a control frame; returns how many bytes. */
static size_t take_control(struct websocket *ws, const uint8_t *data, size_t size)
{
    struct control *coming = ws->coming;
    size_t wanted = (size_t)coming->size - coming->at, took = wanted < size ? wanted : size;
    unmask(coming->bytes + coming->at, data, took, ws->mask);
    turn_mask(ws->mask, took);
    coming->at += (uint8_t)took;
    if (took == wanted)
        obey(ws);
    return took;
}

/* Nothing more of the peer is understood. */
static inline bool over_with(const struct websocket *ws)
{
    return ws->closed || ws->problem != RELAY_KEPT || ws->no_memory;
}

/* Unwrap bytes in place; returns how many are left of them. */
size_t ws_unwrap(struct websocket *ws, uint8_t *data, size_t size, uint64_t limit)
{
    uint8_t *to = data;
    for (size_t at = 0; at < size && !over_with(ws);) {
        if (ws->left > 0) {
            size_t piece = ws->left < size - at ? (size_t)ws->left : size - at;
            unmask(to, data + at, piece, ws->mask);
            to += piece;
            at += piece;
            ws->left -= piece;
            if (ws->left > 0)
                turn_mask(ws->mask, piece);
        } else if (ws->coming != NULL) {
            at += take_control(ws, data + at, size - at);
        } else {
            at += take_head(ws, data + at, size - at, limit);
        }
    }
    return (size_t)(to - data);
}

/* The same for what was read from a link: what is told there is noted, and a Pong is due. */
size_t unwrap(struct relay *relay, struct link *link, uint8_t *data, size_t size)
{
    struct websocket *ws = link->ws;
    size = ws_unwrap(ws, data, size, link->port->frame_limit);
    if (ws->no_memory) {
        fail(relay, link, RELAY_NO_MEMORY);
        return 0;
    }
    if (over_with(ws))
        link->ended = true;
    if (ws->pong != NULL && !link->blocked)
        mark_dirty(relay, link);
    return size;
}

/* The same for what was kept before the frames began. */
void unwrap_rest(struct relay *relay, struct link *link)
{
    struct chunk **place = &link->rest_head;
    link->rest_tail = NULL;
    while (*place != NULL) {
        struct chunk *chunk = *place;
        size_t size = chunk_length(chunk);
        size_t left = unwrap(relay, link, chunk_bytes(chunk) + chunk->start, size);
        if (link->failed)
            return; /* and nothing is kept any more */
        chunk->end = chunk->start + (uint32_t)left;
        count_input(relay, link, &link->rest_bytes, -(int64_t)(size - left));
        if (left > 0) {
            link->rest_tail = chunk;
            place = &chunk->next;
        } else {
            *place = chunk->next;
            pool_put(relay->pool, chunk);
        }
    }
}

/* What goes out. */

/* Of a direct link all that waits, which are whole messages: some clients need theirs in one. */
static uint64_t next_frame(const struct link *link, uint64_t ahead)
{
    return link->direct || ahead < FRAME ? ahead : FRAME;
}

static uint8_t head_size(uint64_t length)
{
    return length < 126 ? 2 : length < 0x10000 ? 4 : 10;
}

/* The last `left` bytes of the head of a frame. */
static void offer_head(struct offer *to, uint64_t length, uint8_t left)
{
    uint8_t *head = to->head[to->heads++], size = head_size(length);
    head[0] = FIN | BINARY;
    head[1] = size == 2 ? (uint8_t)length : size == 4 ? 126 : 127;
    for (uint8_t at = size - 1; at > 1; at--, length >>= 8)
        head[at] = (uint8_t)length;
    offer(to, head + size - left, left);
}

static void offer_control(struct offer *to, const struct control *control)
{
    offer(to, control->bytes + control->at, (size_t)control->size - control->at);
}

static bool has_room(const struct offer *to) { return to->count + 2 <= VECTOR && to->size < PIECE; }

/* What is written next: a Pong between two frames, what waits in frames, a Close behind it. */
void ws_offer(const struct link *link, struct offer *to)
{
    const struct websocket *ws = link->ws;
    uint64_t frame = ws->frame_left, ahead = link->waiting_bytes;
    if (frame == 0 && ws->pong != NULL)
        offer_control(to, ws->pong);
    if (ws->head_left > 0)
        offer_head(to, frame, ws->head_left);
    for (struct chunk *chunk = link->out_head; chunk != NULL; chunk = chunk->next) {
        const uint8_t *data = chunk_bytes(chunk) + chunk->start;
        for (size_t left = chunk_length(chunk); left > 0;) {
            if (!has_room(to))
                return;
            if (frame == 0) {
                frame = next_frame(link, ahead);
                offer_head(to, frame, head_size(frame));
            }
            size_t piece = frame < left ? (size_t)frame : left;
            offer(to, data, piece);
            data += piece;
            left -= piece;
            frame -= piece;
            ahead -= piece;
        }
    }
    if (ws->goodbye != NULL && has_room(to))
        offer_control(to, ws->goodbye);
}

/* So much of a control frame was written. */
static void sent_control(struct control **place, size_t sent)
{
    (*place)->at += (uint8_t)sent;
    if ((*place)->at < (*place)->size)
        return;
    free(*place);
    *place = NULL;
}

static size_t least(uint64_t one, uint64_t other) { return (size_t)(one < other ? one : other); }

/* So many bytes of what was gathered are written; returns how many of them waited in the queue. */
size_t ws_sent(struct link *link, size_t sent)
{
    struct websocket *ws = link->ws;
    uint64_t ahead = link->waiting_bytes;
    if (ws->frame_left == 0 && ws->pong != NULL) {
        size_t piece = least(sent, ws->pong->size - ws->pong->at);
        sent_control(&ws->pong, piece);
        sent -= piece;
        if (ws->pong == NULL) {
            ws->pong = ws->later;
            ws->later = NULL;
        }
    }
    size_t taken = 0;
    while (sent > 0) {
        if (ws->frame_left == 0 && ahead == taken) {
            sent_control(&ws->goodbye, sent);
            break;
        }
        if (ws->frame_left == 0) {
            ws->frame_left = next_frame(link, ahead - taken);
            ws->head_left = head_size(ws->frame_left);
        }
        size_t head = least(ws->head_left, sent), piece = least(ws->frame_left, sent - head);
        ws->head_left -= (uint8_t)head;
        ws->frame_left -= piece;
        sent -= head + piece;
        taken += piece;
    }
    return taken;
}

void relay_farewell(struct relay *relay, relay_handle handle, uint16_t code, const char *text)
{
    struct link *link = find(relay, handle);
    struct websocket *ws = link == NULL ? NULL : link->ws;
    if (ws == NULL || link->state != OPEN || !takes(link))
        return;
    ws->parted = true;
    struct control *goodbye = calloc(1, sizeof *goodbye);
    if (goodbye == NULL)
        return; /* it ends without one */
    size_t size = strlen(text);
    if (size > CONTROL - 2)
        for (size = CONTROL - 2; size > 0 && (text[size] & 0xC0) == 0x80; size--)
            ; /* whole characters */
    if (ws->closed) { /* who said it first hears his own code */
        code = ws->peer_code;
        size = 0;
    }
    uint8_t *payload = goodbye->bytes + 2;
    goodbye->at = 0;
    goodbye->size = 2;
    if (code != 0) {
        payload[0] = (uint8_t)(code >> 8);
        payload[1] = (uint8_t)code;
        memcpy(payload + 2, text, size);
        goodbye->size += (uint8_t)(2 + size);
    }
    goodbye->bytes[0] = FIN | GOODBYE;
    goodbye->bytes[1] = (uint8_t)(goodbye->size - 2);
    ws->goodbye = goodbye;
    free(ws->later);
    ws->later = NULL;
    if (ws->pong != NULL && ws->pong->at == 0) {
        free(ws->pong);
        ws->pong = NULL;
    }
}

/* A peer that has not ended itself gets to read its goodbye: bytes of it that nobody reads would
 * make a close a reset. */
enum relay_end ws_end(const struct link *link, enum relay_end how)
{
    const struct websocket *ws = link->ws;
    bool ended = link->ended && ws->problem == RELAY_KEPT;
    return how == RELAY_CLOSE && ws->goodbye != NULL && !ended ? RELAY_HALF : how;
}
