/* Frames of the dialects: what is taken of them, what is left, and that nobody looks beyond. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "frames.h"
#include "sums.h"

enum { LIMIT = 4096, KINDS = 5 };

static bool take(int kind, const uint8_t *data, size_t size, uint64_t limit, struct frame *frame)
{
    switch (kind) {
    case 0:
        return frame_pomelo(data, size, limit, frame);
    case 1:
        return frame_teleport(data, size, limit, frame);
    case 2:
        return frame_teleport2(data, size, limit, frame);
    default:
        return frame_hotpot(data, size, limit, kind == 3 ? 2 : 4, frame);
    }
}

/* The same where the bytes end where memory does; what is told lies within them. */
static bool take_copy(int kind, const void *data, size_t size, uint64_t limit, struct frame *frame)
{
    uint8_t *copy = malloc(size > 0 ? size : 1);
    CHECK(copy != NULL);
    memcpy(copy, data, size);
    bool taken = take(kind, copy, size, limit, frame);
    if (taken) {
        CHECK(frame->size > 0 && frame->size <= size);
        CHECK(frame->name >= copy && frame->name + frame->name_size <= frame->body);
        CHECK(frame->body + frame->body_size <= copy + frame->size);
        frame->name = (const uint8_t *)data + (frame->name - copy);
        frame->body = (const uint8_t *)data + (frame->body - copy);
    }
    free(copy);
    return taken;
}

struct sample {
    int kind;
    const char *data;
    size_t size;
    bool asks;
    uint64_t number;
    uint8_t codec;
    const char *name, *body;
};

#define SAMPLE(kind, data, ...) {kind, data, sizeof data - 1, __VA_ARGS__}

static const struct sample samples[] = {
    SAMPLE(0, "\4\0\0\6\0\7\2abx", true, 7, 0, "ab", "x"),
    SAMPLE(0, "\4\0\0\5\0\0\2ab", false, 0, 0, "ab", ""),
    SAMPLE(0, "\4\0\0\5\2\2abx", false, 0, 0, "ab", "x"),
    SAMPLE(0, "\4\0\0\3\0\1\0", true, 1, 0, "", ""),
    SAMPLE(1, "\0\0\0\x1a\0\2zZ\1\2/a\0\6code=0\0\0j{}0", true, 35 * 36 + 35, 'j', "/a", "{}0"),
    SAMPLE(1, "\0\0\0\x12\0\5" "10000\3\0\0\0\0\0\0", false, 36 * 36 * 36 * 36, 0, "", ""),
    SAMPLE(2, "\0\0\0\x1fj{\"seq\":12,\"type\":1,\"uri\":\"/a\"}\0\0\0\2jx", true, 12, 'j', "/a",
           "x"),
    SAMPLE(2,
           "\0\0\0\x53j{\"status\":\"\",\"uri\":\"\",\"seq\":9999999999999999999,"
           "\"gzip\":0,\"type\":1,\"status_code\":0}\0\0\0\1s",
           true, 9999999999999999999u, 's', "", ""),
    SAMPLE(3, "\0\x16{\"type\":\"A\",\"data\":{}}", false, 0, 0, "A", "{}"),
    SAMPLE(3, "\0\x18{\"type\":\"A\",\"data\":null}", false, 0, 0, "A", ""),
    SAMPLE(4, "\0\0\0\x16{\"type\":\"Ab\",\"data\":0}", false, 0, 0, "Ab", "0"),
};

static void test_taken(void)
{
    for (size_t i = 0; i < sizeof samples / sizeof *samples; i++) {
        const struct sample *sample = &samples[i];
        struct frame frame;
        uint8_t more[256];
        /* With something behind it, alone, and never in part. */
        memcpy(more, sample->data, sample->size);
        memset(more + sample->size, 0xff, 9);
        CHECK(take_copy(sample->kind, more, sample->size + 9, LIMIT, &frame));
        CHECK(frame.size == sample->size);
        for (size_t size = 0; size < sample->size; size++)
            CHECK(!take_copy(sample->kind, sample->data, size, LIMIT, &frame));
        CHECK(take_copy(sample->kind, sample->data, sample->size, LIMIT, &frame));
        CHECK(frame.size == sample->size && frame.asks == sample->asks);
        CHECK(frame.number == sample->number && frame.codec == sample->codec);
        CHECK(frame.name_size == strlen(sample->name));
        CHECK(memcmp(frame.name, sample->name, frame.name_size) == 0);
        CHECK(frame.body_size == strlen(sample->body));
        CHECK(memcmp(frame.body, sample->body, frame.body_size) == 0);
        /* The limit is of the body of a packet in pomelo, of a message in hotpot. */
        size_t head = sample->kind == 0 || sample->kind == 4 ? 4 : sample->kind == 3 ? 2 : 0;
        CHECK(take(sample->kind, (const uint8_t *)sample->data, sample->size, sample->size - head,
                   &frame));
        CHECK(!take(sample->kind, (const uint8_t *)sample->data, sample->size,
                    sample->size - head - 1, &frame));
    }
}

#define NOT(kind, data) {kind, data, sizeof data - 1, false, 0, 0, NULL, NULL}

/* Each is a sample with one change. */
static const struct sample refused[] = {
    NOT(0, "\3\0\0\6\0\7\2abx"), /* no data */
    NOT(0, "\4\0\0\6\1\7\2abx"), /* a code */
    NOT(0, "\4\0\0\6\4\7\2abx"), /* a response */
    NOT(0, "\4\0\0\6\0\x87\2abx"), /* a longer mid */
    NOT(0, "\4\0\0\6\0\7\4abx"), /* a route beyond its packet */
    NOT(0, "\4\0\0\2\0\7\2abx"), /* no route */
    NOT(0, "\4\0\0\1\2\7\2abx"),
    NOT(1, "\0\0\0\x1a\1\2zZ\1\2/a\0\6code=0\0\0j{}0"), /* a filter */
    NOT(1, "\0\0\0\x1a\0\2z-\1\2/a\0\6code=0\0\0j{}0"), /* no number */
    NOT(1, "\0\0\0\x1a\0\2zZ\2\2/a\0\6code=0\0\0j{}0"), /* a reply */
    NOT(1, "\0\0\0\x1a\0\2zZ\1\2/a\0\6code=0\0\1j{}0"), /* meta */
    NOT(1, "\0\0\0\x1a\0\2zZ\1\2/a\0\x0b" "code=0\0\0j{}0"), /* a status beyond its frame */
    NOT(1, "\0\0\0\x1a\0\2zZ\1\x0d/a\0\6code=0\0\0j{}0"), /* a method beyond it */
    NOT(1, "\0\0\0\x1a\0\0\1\2/a\0\6code=0\0\0j{}0zZ"), /* no seq */
    NOT(1, "\0\0\0\x18\0\1" "1\1\x0a/heartbeat\0\0\0\0j"),
    NOT(1, "\0\0\0\x17\0\1" "1\1\x09heartbeat\0\0\0\0j"),
    NOT(1, "\0\0\0\x13\0\6" "100000\3\0\0\0\0\0\0"), /* a longer seq */
    NOT(1, "\0\0\0\x0d\0\5" "10000\3\0\0\0\0\0\0"), /* less than the least */
    NOT(2, "\xff\xff\xff\xffj{\"type\":1,\"uri\":\"\"}\0\0\0\2jx"),
    NOT(2, "\0\0\0\x14j{\"type\":1,\"uri\":\"\"}\xff\xff\xff\xffjx"),
    NOT(2, "\0\0\0\x14j{\"type\":1,\"uri\":\"\"}\0\0\0\0jx"), /* no codec */
    NOT(2, "\0\0\0\x14p{\"type\":1,\"uri\":\"\"}\0\0\0\2jx"), /* another header */
    NOT(3, "\0\0"),
};

static void test_refused(void)
{
    struct frame frame;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        if (take_copy(refused[i].kind, refused[i].data, refused[i].size, LIMIT, &frame)) {
            fprintf(stderr, "refused[%zu] is taken\n", i);
            abort();
        }
}

/* A PULL with this header. */
static bool takes_header(const char *header, size_t size)
{
    uint8_t packet[256] = {0, 0, 0, (uint8_t)(1 + size), 'j'};
    struct frame frame;
    CHECK(5 + size + 6 <= sizeof packet);
    memcpy(packet + 5, header, size);
    memcpy(packet + 5 + size, "\0\0\0\2jx", 6);
    return take_copy(2, packet, 5 + size + 6, LIMIT, &frame);
}

static bool takes_message(const char *json, size_t size)
{
    uint8_t message[1024] = {(uint8_t)(size >> 8), (uint8_t)size};
    struct frame frame;
    CHECK(2 + size <= sizeof message);
    memcpy(message + 2, json, size);
    return take_copy(3, message, 2 + size, LIMIT, &frame);
}

/* Data of hotpot, as it stands in its message. */
static bool takes_data(const char *data, size_t size)
{
    static const char before[] = "{\"type\":\"A\",\"data\":";
    char json[1000];
    CHECK(sizeof before + size <= sizeof json);
    memcpy(json, before, sizeof before - 1);
    memcpy(json + sizeof before - 1, data, size);
    json[sizeof before - 1 + size] = '}';
    return takes_message(json, sizeof before + size);
}

static void expect(bool (*takes)(const char *, size_t), bool is, const char *const *texts,
                   size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (takes(texts[i], strlen(texts[i])) != is) {
            fprintf(stderr, "%s is%s taken\n", texts[i], is ? " not" : "");
            abort();
        }
}

#define EXPECT(takes, is, ...) \
    expect(takes, is, (const char *const[]){__VA_ARGS__}, \
           sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *))

static void test_json(void)
{
    EXPECT(takes_header, true, "{\"type\":1,\"uri\":\"\"}", "{\"uri\":\"/a?b\",\"type\":1,\"seq\":0}",
           "{\"seq\":9999999999999999999,\"type\":1,\"uri\":\"/\"}",
           "{\"type\":1,\"uri\":\"\",\"gzip\":0,\"status_code\":0,\"status\":\"\"}");
    EXPECT(takes_header, false, "", "{", "{}", "{\"type\":1}", "{\"uri\":\"\"}",
           "{\"type\":2,\"uri\":\"\"}", "{\"type\":01,\"uri\":\"\"}", "{\"type\":1.0,\"uri\":\"\"}",
           "{\"type\":1,\"uri\":\"\"} ", "{\"type\":1,\"uri\":\"\",}", "{\"type\":1,\"uri\":\"\"",
           "{\"type\":1,\"uri\":\"", "{\"type\":1,\"uri\":\"\\n\"}", "{\"type\":1,\"uri\":\"\xc3\xa9\"}",
           "{\"type\":1,\"uri\":\"\",\"uri\":\"\"}", "{\"type\":1,\"type\":1,\"uri\":\"\"}",
           "{\"type\":1,\"uri\":\"\",\"seq\":-1}", "{\"type\":1,\"uri\":\"\",\"seq\":}",
           "{\"type\":1,\"uri\":\"\",\"seq\":10000000000000000000}",
           "{\"type\":1,\"uri\":\"\",\"gzip\":5}", "{\"type\":1,\"uri\":\"\",\"status_code\":200}",
           "{\"type\":1,\"uri\":\"\",\"status\":\"OK\"}", "{\"type\":1,\"uri\":\"\",\"more\":0}");
    EXPECT(takes_message, true, "{\"type\":\"A\",\"data\":{}}", "{\"type\":\"Error\",\"data\":{}}");
    EXPECT(takes_message, false, "{\"type\":\"Ping\",\"data\":{}}", "{\"type\":\"Pong\",\"data\":{}}",
           "{\"type\":\"\",\"data\":{}}", "{\"type\":\"A\"}", "{\"data\":{},\"type\":\"A\"}",
           "{\"type\":\"A\",\"data\":1,\"data\":2}", "{\"type\":\"A\",\"data\":{}}x",
           "{\"type\":\"\\u0041\",\"data\":{}}", "{\"type\":\"A", "{\"type\":\"A\",\"data\":");
    EXPECT(takes_data, true, "{}", "[]", "0", "-0", "-12", "1.5", "0.5e3", "1E+9", "1e-9", "true",
           "false", "null", "[[],{}]", "[1,\"a\",true,null]",
           "{\"a\":{\"b\":[{\"c\":0}]},\"d\":\"\"}",
           "[\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\uD7ff\\ue000\"]", "[\"\xc3\xa9\x7f\"]");
    EXPECT(takes_data, false, "", "{", "}", "[", "]", "{]", "[}", "[1,]", "[,1]", "[1 ]", "[1,,2]",
           "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{a:1}", "{1:1}", "{\"a\":1 }", "{\"a\":1]", "01",
           "-", "+1", ".5", "1.", "1e", "1e+", "tru", "True", "nul", "nan", "[\"]", "[\"\\x\"]",
           "[\"\\u12\"]", "[\"\\u12g4\"]", "[\"\\ud800\"]", "[\"\\udfff\"]", "[\"\n\"]", "[\"a",
           "[\"\\", "[\"\\u", "{}{}", "[]]", "1 2", "1,2", "\"a\"");
    CHECK(!takes_data("[\"\\\0\"]", 6));
    for (int depth = 1; depth < 100; depth++) {
        char data[200];
        for (int i = 0; i < depth; i++) {
            data[i] = '[';
            data[2 * depth - 1 - i] = ']';
        }
        CHECK(takes_data(data, (size_t)depth * 2) == (depth <= FRAME_DEPTH));
    }
}

/* Whatever is changed in it, nobody looks beyond what there is. */
static void test_changed(void)
{
    static const uint8_t bytes[] = {0, 1, 2, 4, 0x7f, 0x80, 0xff, '{', '}', '[', '"', '\\', ',', 'u'};
    uint32_t taken = 0;
    srandom(1);
    for (int day = 0; day < 200000; day++) {
        const struct sample *sample = &samples[(size_t)random() % (sizeof samples / sizeof *samples)];
        uint8_t data[256];
        struct frame frame;
        memcpy(data, sample->data, sample->size);
        for (int i = (int)random() % 4; i > 0; i--)
            data[(size_t)random() % sample->size] = bytes[(size_t)random() % sizeof bytes];
        size_t size = random() % 3 ? sample->size : (size_t)random() % (sample->size + 1);
        taken += take_copy((int)random() % 8 ? sample->kind : (int)random() % KINDS, data, size,
                           random() % 3 ? LIMIT : (uint64_t)random() % 64, &frame);
    }
    CHECK(taken > 1000);
}

/* One byte after the other. */
static bool is_shallow(const uint8_t *data, size_t size)
{
    size_t brackets = 0;
    for (size_t i = 0; i < size; i++)
        brackets += data[i] == '{' || data[i] == '[';
    return size <= JSON_LEVELS || (size <= JSON_MOST && brackets <= JSON_LEVELS);
}

static bool is_plain(const uint8_t *data, size_t size, bool html)
{
    for (size_t i = 0; i < size; i++)
        if (data[i] >= 0x80 || (html && data[i] != 0 && strchr("<>&", data[i]) != NULL)
            || (size - i >= 4 && memcmp(data + i, "null", 4) == 0))
            return false;
    return is_shallow(data, size);
}

static void test_looked_at(void)
{
    static const uint8_t bytes[] = "null\"{[]}:;\x80\xff<>&='%\0ab~\x7f";
    static const size_t sizes[] = {JSON_LEVELS - 1, JSON_LEVELS, JSON_LEVELS + 1,
                                   JSON_MOST - 1, JSON_MOST, JSON_MOST + 1};
    uint32_t plain = 0;
    srandom(2);
    for (int day = 0; day < 100000; day++) {
        size_t size = day % 50 ? (size_t)random() % 40 : sizes[(size_t)random() % 6];
        uint8_t *data = malloc(size > 0 ? size : 1);
        CHECK(data != NULL);
        memset(data, random() % 4 ? 'x' : '[', size);
        for (int i = (int)random() % 6; i > 0 && size > 0; i--) {
            size_t at = (size_t)random() % size, from = (size_t)random() % (sizeof bytes - 4);
            size_t some = (size_t)random() % 5;
            memcpy(data + at, bytes + from, some < size - at ? some : size - at);
        }
        CHECK(json_is_shallow(data, size) == is_shallow(data, size));
        for (int html = 0; html < 2; html++) {
            CHECK(json_is_plain(data, size, html) == is_plain(data, size, html));
            plain += json_is_plain(data, size, html);
        }
        free(data);
    }
    CHECK(plain > 10000 && plain < 190000);
}

int main(void)
{
    test_taken();
    test_refused();
    test_json();
    test_changed();
    test_looked_at();
    puts("test_frames: ok");
    return 0;
}
