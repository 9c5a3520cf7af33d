/* Frames of the dialects, cut where they are as most are. (frames.h) */
#define _GNU_SOURCE
#include "frames.h"

#include <string.h>

static uint32_t big32(const uint8_t *data)
{
    return (uint32_t)data[0] << 24 | (uint32_t)data[1] << 16 | (uint32_t)data[2] << 8 | data[3];
}

/* pomelo: type, 3 bytes of length; flag, mid unless it is a notify, length of the route, route;
 * payload. */
bool frame_pomelo(const uint8_t *data, size_t left, uint64_t limit, struct frame *frame)
{
    enum { HEAD = 4, LEAST = 7, DATA = 4, REQUEST = 0, NOTIFY = 2 };
    if (left < LEAST || data[0] != DATA || (data[4] != REQUEST && data[4] != NOTIFY))
        return false;
    bool request = data[4] == REQUEST;
    size_t size = big32(data) & 0xffffff, at = request ? LEAST : LEAST - 1;
    size_t name_size = data[at - 1];
    if (size > limit || size > left - HEAD || at + name_size > HEAD + size
        || (request && data[5] > 0x7f))
        return false;
    *frame = (struct frame){
        .size = HEAD + size,
        .asks = request && data[5] != 0,
        .number = request ? data[5] : 0,
        .name = data + at,
        .name_size = name_size,
        .body = data + at + name_size,
        .body_size = HEAD + size - at - name_size,
    };
    return true;
}

/* teleport v6: 4 bytes of size; filters, none; length of the seq, seq to the base 36; type; length
 * of the method, method; 2 bytes of length of the status, status; the same of the meta, none;
 * codec; body. */

static int digit36(uint8_t byte)
{
    if (byte >= '0' && byte <= '9')
        return byte - '0';
    byte |= 0x20;
    return byte >= 'a' && byte <= 'z' ? byte - 'a' + 10 : -1;
}

static bool is(const uint8_t *data, size_t size, const char *text)
{
    return size == strlen(text) && memcmp(data, text, size) == 0;
}

bool frame_teleport(const uint8_t *data, size_t left, uint64_t limit, struct frame *frame)
{
    enum { HEAD = 6, LEAST = 14, DIGITS = 5, CALL = 1, PUSH = 3 };
    if (left < LEAST)
        return false;
    size_t size = big32(data), width = data[5], at = HEAD + width;
    if (data[4] != 0 || size < LEAST || size > limit || size > left || width == 0
        || width > DIGITS || at + 7 > size || (data[at] != CALL && data[at] != PUSH))
        return false;
    *frame = (struct frame){.size = size, .asks = data[at] == CALL};
    for (size_t i = HEAD; i < at; i++) {
        int digit = digit36(data[i]);
        if (digit < 0)
            return false;
        frame->number = frame->number * 36 + (uint64_t)digit;
    }
    frame->name = data + at + 2;
    frame->name_size = data[at + 1];
    at += 2 + frame->name_size;
    if (at + 5 > size)
        return false;
    at += 2 + ((size_t)data[at] << 8 | data[at + 1]);
    if (at + 3 > size || data[at] != 0 || data[at + 1] != 0
        || is(frame->name, frame->name_size, "/heartbeat")
        || is(frame->name, frame->name_size, "heartbeat"))
        return false;
    frame->codec = data[at + 2];
    frame->body = data + at + 3;
    frame->body_size = size - at - 3;
    return true;
}

/* JSON without spaces between its words: each function goes on at `at`, and has come to NULL where
 * that is not what it wants, or the end. */

/* A text, of which escapes are looked at and characters are not: they are whoever's who reads it. */
static const uint8_t *skip_text(const uint8_t *at, const uint8_t *end)
{
    if (at == end || *at++ != '"')
        return NULL;
    while (at < end && *at != '"') {
        if (*at < 0x20)
            return NULL;
        if (*at++ != '\\')
            continue;
        if (at == end)
            return NULL;
        if (*at == 'u') {
            if (end - at < 5)
                return NULL;
            for (int i = 1; i < 5; i++)
                if (digit36(at[i]) < 0 || digit36(at[i]) > 15)
                    return NULL;
            if (digit36(at[1]) == 13 && digit36(at[2]) >= 8)
                return NULL; /* half of a character */
            at += 5;
        } else if (strchr("\"\\/bfnrt", *at) != NULL && *at != '\0') {
            at++;
        } else {
            return NULL;
        }
    }
    return at < end ? at + 1 : NULL;
}

static bool is_digit(const uint8_t *at, const uint8_t *end)
{
    return at < end && *at >= '0' && *at <= '9';
}

static const uint8_t *skip_digits(const uint8_t *at, const uint8_t *end)
{
    if (!is_digit(at, end))
        return NULL;
    while (is_digit(at, end))
        at++;
    return at;
}

static const uint8_t *skip_number(const uint8_t *at, const uint8_t *end)
{
    if (*at == '-')
        at++;
    at = at < end && *at == '0' ? at + 1 : skip_digits(at, end);
    if (at != NULL && at < end && *at == '.')
        at = skip_digits(at + 1, end);
    if (at != NULL && at < end && (*at | 0x20) == 'e') {
        at++;
        if (at < end && (*at == '+' || *at == '-'))
            at++;
        at = skip_digits(at, end);
    }
    return at;
}

static const uint8_t *skip_word(const uint8_t *at, const uint8_t *end, const char *word)
{
    size_t size = strlen(word);
    return (size_t)(end - at) >= size && memcmp(at, word, size) == 0 ? at + size : NULL;
}

/* What is no list, no map and no text. */
static const uint8_t *skip_plain(const uint8_t *at, const uint8_t *end)
{
    switch (*at) {
    case 't':
        return skip_word(at, end, "true");
    case 'f':
        return skip_word(at, end, "false");
    case 'n':
        return skip_word(at, end, "null");
    default:
        return skip_number(at, end);
    }
}

/* The name of a map's value, and its colon. */
static const uint8_t *skip_key(const uint8_t *at, const uint8_t *end)
{
    at = skip_text(at, end);
    return at != NULL && at < end && *at == ':' ? at + 1 : NULL;
}

static const uint8_t *skip_value(const uint8_t *at, const uint8_t *end)
{
    uint64_t maps = 0; /* a bit for each level: it is a map */
    int depth = 0;
    for (;;) {
        if (at == NULL || at == end)
            return NULL;
        if (*at == '{' || *at == '[') {
            bool map = *at++ == '{';
            if (depth == FRAME_DEPTH || at == end)
                return NULL;
            maps = maps << 1 | map;
            depth++;
            if (*at != (map ? '}' : ']')) {
                at = map ? skip_key(at, end) : at;
                continue;
            }
        } else {
            at = *at == '"' ? skip_text(at, end) : skip_plain(at, end);
        }
        /* Behind a value: what it stands in ends as well, or goes on. */
        while (depth > 0) {
            if (at == NULL || at == end)
                return NULL;
            if (*at == ',') {
                at = maps & 1 ? skip_key(at + 1, end) : at + 1;
                break;
            }
            if (*at++ != (maps & 1 ? '}' : ']'))
                return NULL;
            maps >>= 1;
            depth--;
        }
        if (depth == 0)
            return at;
    }
}

/* A text in which every byte is a character, as names of programs are; without its quotes. */
static const uint8_t *take_name(const uint8_t *at, const uint8_t *end, struct frame *frame)
{
    if (at == NULL || at == end || *at++ != '"')
        return NULL;
    frame->name = at;
    while (at < end && *at != '"' && *at != '\\' && *at >= 0x20 && *at < 0x7f)
        at++;
    frame->name_size = (size_t)(at - frame->name);
    return at < end && *at == '"' ? at + 1 : NULL;
}

/* teleport v2.5: 4 bytes of length, 'j', header; 4 bytes of length, codec, body. */

/* A number from 0 up that is surely less than 2^64. */
static const uint8_t *take_number(const uint8_t *at, const uint8_t *end, uint64_t *number)
{
    enum { DIGITS = 19 };
    const uint8_t *begun = at;
    *number = 0;
    for (; is_digit(at, end); at++) {
        if (at - begun == DIGITS || (at > begun && *begun == '0'))
            return NULL;
        *number = *number * 10 + (uint64_t)(*at - '0');
    }
    return at > begun ? at : NULL;
}

/* {"seq":…,"type":1,"uri":…}: each once at most, in any order; what is nothing may be told too. */
static bool read_pull(const uint8_t *at, const uint8_t *end, struct frame *frame)
{
    enum { SEQ, TYPE, GZIP, CODE, NUMBERS, URI = NUMBERS, STATUS, FIELDS };
    static const char *const names[FIELDS] = {"\"seq\":",         "\"type\":", "\"gzip\":",
                                              "\"status_code\":", "\"uri\":",  "\"status\":"};
    uint64_t numbers[NUMBERS] = {0};
    unsigned seen = 0;
    if (at == end || *at != '{')
        return false;
    do {
        const uint8_t *value = NULL;
        int field = 0;
        for (at++; field < FIELDS; field++)
            if ((value = skip_word(at, end, names[field])) != NULL)
                break;
        if (field == FIELDS || seen & 1u << field)
            return false;
        seen |= 1u << field;
        at = field < NUMBERS   ? take_number(value, end, &numbers[field])
             : field == URI    ? take_name(value, end, frame)
                               : skip_word(value, end, "\"\"");
        if (at == NULL || at == end)
            return false;
    } while (*at == ',');
    frame->number = numbers[SEQ];
    return *at == '}' && at + 1 == end && numbers[TYPE] == 1 && numbers[GZIP] == 0
           && numbers[CODE] == 0 && frame->name != NULL;
}

bool frame_teleport2(const uint8_t *data, size_t left, uint64_t limit, struct frame *frame)
{
    enum { HEAD = 4 };
    if (left <= 2 * HEAD || data[HEAD] != 'j')
        return false;
    size_t width = big32(data), rest = left - HEAD;
    if (width < 3 || width > rest || rest - width <= HEAD)
        return false;
    const uint8_t *place = data + HEAD + width;
    size_t size = big32(place), before = 2 * HEAD + width;
    if (size == 0 || size > left - before || before + size > limit)
        return false;
    *frame = (struct frame){.size = before + size, .asks = true, .codec = place[HEAD]};
    frame->body = place + HEAD + 1;
    frame->body_size = size - 1;
    return read_pull(data + HEAD + 1, place, frame);
}

/* hotpot: length; {"type":…,"data":…}, of which the data is no text. */

bool frame_hotpot(const uint8_t *data, size_t left, uint64_t limit, unsigned width,
                  struct frame *frame)
{
    size_t size = 0;
    if (left < width)
        return false;
    for (unsigned i = 0; i < width; i++)
        size = size << 8 | data[i];
    if (size > limit || size > left - width)
        return false;
    const uint8_t *end = data + width + size, *at = data + width;
    *frame = (struct frame){.size = width + size};
    at = skip_word(at, end, "{\"type\":");
    at = take_name(at, end, frame);
    at = at == NULL ? NULL : skip_word(at, end, ",\"data\":");
    if (at == NULL || at == end || *at == '"' || is(frame->name, frame->name_size, "Ping")
        || is(frame->name, frame->name_size, "Pong"))
        return false;
    frame->body = at;
    at = skip_value(at, end);
    if (at == NULL || end - at != 1 || *at != '}')
        return false;
    frame->body_size = (size_t)(at - frame->body);
    if (is(frame->body, frame->body_size, "null"))
        frame->body_size = 0;
    return frame->name_size > 0 && frame->name_size <= 255;
}

/* JSON of an application: eight bytes at a time. */

#define EACH(byte) (UINT64_C(0x0101010101010101) * (byte))

static uint64_t load(const uint8_t *data)
{
    uint64_t word;
    memcpy(&word, data, sizeof word);
    return word;
}

/* The high bit of each byte that is 0. */
static uint64_t zeros(uint64_t word)
{
    return ~(((word & EACH(0x7f)) + EACH(0x7f)) | word | EACH(0x7f));
}

/* One bracket is the other but for a bit. */
static size_t count_brackets(const uint8_t *data, size_t size)
{
    size_t count = 0, at = 0;
    for (; size - at >= sizeof(uint64_t); at += sizeof(uint64_t))
        count += (size_t)__builtin_popcountll(zeros((load(data + at) | EACH(0x20)) ^ EACH('{')));
    for (; at < size; at++)
        count += (data[at] | 0x20) == '{';
    return count;
}

bool json_is_shallow(const uint8_t *data, size_t size)
{
    return size <= JSON_MOST && (size <= JSON_LEVELS || count_brackets(data, size) <= JSON_LEVELS);
}

static bool is_odd(uint8_t byte, bool html)
{
    return byte >= 0x80 || (html && (byte == '<' || byte == '>' || byte == '&'));
}

bool json_is_plain(const uint8_t *data, size_t size, bool html)
{
    uint64_t odd = 0, nulls = 0, most = html ? UINT64_MAX : 0;
    size_t at = 0;
    if (!json_is_shallow(data, size))
        return false;
    for (; size - at > sizeof(uint64_t); at += sizeof(uint64_t)) {
        uint64_t word = load(data + at);
        odd |= word | (most & (zeros((word | EACH(2)) ^ EACH('>')) | zeros(word ^ EACH('&'))));
        nulls |= zeros((word ^ EACH('n')) | (load(data + at + 1) ^ EACH('u')));
    }
    if (odd & EACH(0x80))
        return false;
    for (; at < size; at++) {
        if (is_odd(data[at], html))
            return false;
        nulls |= data[at] == 'n';
    }
    return nulls == 0 || memmem(data, size, "null", 4) == NULL;
}
