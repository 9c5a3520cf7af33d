/* WebSocket: the machine of frames alone, and links whose packets stand in them. */
#include <arpa/inet.h>

#include "bed.h"

#define BIG 400000

static uint8_t sent[BIG * 2], got[BIG * 2], plain[BIG];

/* What a client writes. */

static size_t frame_of(uint8_t *to, uint8_t first, const void *payload, size_t size)
{
    static uint32_t turn = 0x9E3779B9;
    uint8_t mask[4];
    size_t at = 2;
    turn = turn * 1664525 + 1013904223;
    memcpy(mask, &turn, 4);
    to[0] = first;
    to[1] = (uint8_t)(0x80 | (size < 126 ? size : size < 65536 ? 126 : 127));
    for (int left = size < 126 ? 0 : size < 65536 ? 2 : 8; left-- > 0;)
        to[at++] = (uint8_t)((uint64_t)size >> 8 * left);
    memcpy(to + at, mask, 4);
    at += 4;
    for (size_t i = 0; i < size; i++)
        to[at + i] = ((const uint8_t *)payload)[i] ^ mask[i & 3];
    return at + size;
}

static void say_frame(int which, uint8_t first, const void *payload, size_t size)
{
    static uint8_t frame[MAX_PACKET + 32];
    say(which, frame, frame_of(frame, first, payload, size));
}

static void fill(uint8_t *to, size_t size)
{
    uint32_t turn = (uint32_t)size + 1;
    for (size_t i = 0; i < size; i++)
        to[i] = (uint8_t)((turn = turn * 1664525 + 1013904223) >> 24);
}

/* What a server wrote: the payload of its messages, and its control frames one behind the other. */

struct heard {
    size_t size; /* of the payload, which is moved to the front */
    size_t frames, largest, used;
    uint8_t control[4096];
    size_t control_size, controls;
};

static struct heard read_frames(uint8_t *data, size_t size)
{
    static struct heard heard;
    memset(&heard, 0, sizeof heard);
    while (size - heard.used >= 2) {
        const uint8_t *head = data + heard.used;
        size_t length = head[1], at = 2;
        CHECK(head[0] == 0x82 || head[0] == 0x8A || head[0] == 0x88);
        CHECK(length <= 126); /* none is masked, none is so long */
        if (length == 126) {
            if (size - heard.used < 4)
                break;
            length = (size_t)head[2] << 8 | head[3];
            at = 4;
            CHECK(length >= 126);
        }
        if (size - heard.used < at + length)
            break;
        if (head[0] == 0x82) {
            memmove(data + heard.size, head + at, length);
            heard.size += length;
            heard.frames++;
            heard.largest = length > heard.largest ? length : heard.largest;
            CHECK(length > 0);
        } else {
            CHECK(at == 2 && heard.control_size + 2 + length <= sizeof heard.control);
            memcpy(heard.control + heard.control_size, head, 2 + length);
            heard.control_size += 2 + length;
            heard.controls++;
        }
        heard.used += at + length;
    }
    return heard;
}

/* The machine alone. */

/* Unwrap in pieces of `piece` bytes; returns the size of the payload, which is in `got`. */
static size_t unwrapped(struct websocket *ws, const uint8_t *data, size_t size, size_t piece)
{
    static uint8_t some[BIG];
    size_t came = 0;
    for (size_t at = 0; at < size; at += piece) {
        size_t now = size - at < piece ? size - at : piece;
        memcpy(some, data + at, now);
        size_t left = ws_unwrap(ws, some, now, 1 << 20);
        memcpy(got + came, some, left);
        came += left;
    }
    return came;
}

/* All sizes, in one frame, in two, whole and in any pieces. */
static void test_payload(void)
{
    static const size_t sizes[] = {0,   1,   2,   3,   4,   5,     7,     8,     31,
                                   32,  33,  63,  124, 125, 126,   127,   128,   255,
                                   256, 300, 999, 4095, 65535, 65536, 70001};
    static const size_t pieces[] = {1, 2, 3, 5, 6, 7, 13, 64, 1000, BIG};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t half = sizes[i] / 3, size = 0;
        fill(plain, sizes[i]);
        size += frame_of(sent + size, 0x82, plain, sizes[i]);
        size += frame_of(sent + size, 0x02, plain, half);
        size += frame_of(sent + size, 0x00, plain, 0);
        size += frame_of(sent + size, 0x8A, "?", 1);
        size += frame_of(sent + size, 0x80, plain + half, sizes[i] - half);
        for (size_t j = 0; j < sizeof pieces / sizeof *pieces; j++) {
            struct websocket *ws = ws_new(0);
            CHECK(unwrapped(ws, sent, size, pieces[j]) == 2 * sizes[i]);
            CHECK(memcmp(got, plain, sizes[i]) == 0);
            CHECK(memcmp(got + sizes[i], plain, sizes[i]) == 0);
            CHECK(!ws->problem && !ws->closed && !ws->inside && !ws->left && !ws->coming);
            ws_free(ws);
        }
    }
}

#define LONGEST "\x82\xFF\x80\0\0\0\0\0\0\1"

/* Each rule, as soon as the byte that breaks it is there. */
static void test_rules(void)
{
    static const struct {
        const char *bytes;
        size_t size;
        uint64_t problem;
    } rows[] = {
        {"\xC2", 1, RELAY_RESERVED_BIT},
        {"\x12", 1, RELAY_RESERVED_BIT},
        {"\xA9", 1, RELAY_RESERVED_BIT},
        {"\x83", 1, RELAY_RESERVED_OPCODE | 3 << 8},
        {"\x87", 1, RELAY_RESERVED_OPCODE | 7 << 8},
        {"\x8B", 1, RELAY_RESERVED_OPCODE | 11 << 8},
        {"\x8F", 1, RELAY_RESERVED_OPCODE | 15 << 8},
        {"\x09", 1, RELAY_CONTROL_IN_FRAGMENTS},
        {"\x08", 1, RELAY_CONTROL_IN_FRAGMENTS},
        {"\x80", 1, RELAY_NOTHING_TO_CONTINUE},
        {"\x02\x80\1\2\3\4\x82", 7, RELAY_MESSAGE_INSIDE},
        {"\x02\x80\1\2\3\4\x01", 7, RELAY_MESSAGE_INSIDE},
        {"\x81", 1, RELAY_TEXT},
        {"\x01", 1, RELAY_TEXT},
        {"\x82\x00", 2, RELAY_NO_MASK},
        {"\x82\x7E", 2, RELAY_NO_MASK},
        {"\x89\x00", 2, RELAY_NO_MASK},
        {"\x89\xFE", 2, RELAY_LONG_CONTROL},
        {"\x88\xFF", 2, RELAY_LONG_CONTROL},
        {"\x82\xFE\0\x7D", 4, RELAY_LENGTH_FORM},
        {"\x82\xFF\0\0\0\0\0\0\xFF\xFF", 10, RELAY_LENGTH_FORM},
        {LONGEST, 10, RELAY_LENGTH_FORM},
        {"\x82\xFF\0\0\0\0\0\x10\0\1", 10, RELAY_FRAME_TOO_LARGE | ((1 << 20) + 1)},
        {"\x82\xFF\x7F\xFF\xFF\xFF\xFF\xFF\xFF\xFF", 10, UINT64_MAX},
        {"\x88\x81\0\0\0\0\x03", 7, RELAY_CLOSE_CODE},
        {"\x88\x82\0\0\0\0\x03\xED", 8, RELAY_CLOSE_CODE},
        {"\x88\x83\0\0\0\0\x03\xE8\x80", 9, RELAY_CLOSE_TEXT},
        {"\x88\x86\0\0\0\0\x03\xE8\xED\xA0\x80!", 12, RELAY_CLOSE_TEXT},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (size_t piece = 1; piece < 20; piece += 6) {
            size_t before = frame_of(sent, 0x82, "before", 6), size = before + rows[i].size;
            memcpy(sent + before, rows[i].bytes, rows[i].size);
            struct websocket *ws = ws_new(0);
            CHECK(unwrapped(ws, sent, size - 1, piece) == 6 && ws->problem == RELAY_KEPT);
            CHECK(unwrapped(ws, sent + size - 1, 1, 1) == 0 && ws->problem == rows[i].problem);
            size = frame_of(sent, 0x82, "behind", 6);
            CHECK(unwrapped(ws, sent, size, piece) == 0 && ws->problem == rows[i].problem);
            ws_free(ws);
        }
}

static void test_codes(void)
{
    static const char *texts[] = {"", "caf\xC3\xA9", "\xF0\x9F\x8E\xB2", "\xEF\xBF\xBF", "\xF4\x8F\xBF\xBF"};
    static const char *wrong[] = {"\xFF", "\xC3", "\xC0\x80", "\xE0\x9F\xBF", "\xF0\x8F\xBF\xBF",
                                  "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xE2\x82", "\xE2\x28\xA1"};
    for (uint32_t code = 0; code < 65536; code++) {
        uint8_t payload[2] = {(uint8_t)(code >> 8), (uint8_t)code};
        bool known = (code >= 1000 && code <= 1014 && (code < 1004 || code > 1006))
                     || (code >= 3000 && code < 5000);
        struct websocket *ws = ws_new(0);
        CHECK(unwrapped(ws, sent, frame_of(sent, 0x88, payload, 2), 100) == 0);
        CHECK(ws->closed == known && ws->problem == (known ? 0 : RELAY_CLOSE_CODE));
        CHECK(!known || ws->peer_code == code);
        ws_free(ws);
    }
    for (size_t i = 0; i < 14; i++) {
        const char *text = i < 5 ? texts[i] : wrong[i - 5];
        char payload[16] = "\x0F\xA0";
        strcpy(payload + 2, text);
        struct websocket *ws = ws_new(0);
        unwrapped(ws, sent, frame_of(sent, 0x88, payload, 2 + strlen(text)), 1);
        CHECK(ws->problem == (i < 5 ? 0 : RELAY_CLOSE_TEXT));
        ws_free(ws);
    }
}

/* Room for all that is not about bounds. */
static const struct relay_port wide = {MAX_PACKET, 2048, 30, 1000, 1 << 20, 10, false, 1 << 20, false};

/* Links: `which` gets frames, behind a handshake. */
static void add_web(int which)
{
    int small = 4096;
    ends[which].peer = dial();
    ends[which].handle = take_in(which % 2);
    setsockopt(relay_socket(relay, ends[which].handle), SOL_SOCKET, SO_SNDBUF, &small,
               sizeof small);
    relay_set_owner(relay, ends[which].handle, &ends[which]);
    say(which, "GET", 3);
    UNTIL(told(which, RELAY_BYTES));
    relay_send(relay, ends[which].handle, "101", 3, 0);
    relay_start(relay, ends[which].handle, NULL, 0, RELAY_WEBSOCKET, now);
    turn();
    CHECK(hear(which, got, sizeof got) == 3 && memcmp(got, "101", 3) == 0);
}

/* Hear frames until so much payload, and so many control frames, are there. */
static struct heard hear_frames(int which, size_t payload, size_t controls)
{
    size_t size = 0;
    struct heard heard = {0};
    for (int turns = 0; turns < 3000; turns++) {
        static uint8_t copy[sizeof got];
        size += hear(which, sent + size, sizeof sent - size);
        memcpy(copy, sent, size);
        heard = read_frames(copy, size);
        memcpy(got, copy, heard.size);
        if (heard.size >= payload && heard.controls >= controls)
            break;
        turn();
    }
    CHECK(heard.size == payload && heard.controls == controls && heard.used == size);
    return heard;
}

/* Packets of all sizes to and from a link with frames, which are none of the packets'. */
static void test_both_ways(void)
{
    static const size_t sizes[] = {0, 1, 50, 117, 118, 2000, 16372, 16373, 60000, MAX_PACKET - 4};
    begin(&plain_config, &wide);
    add_web(0), add(1);
    CHECK(relay_pair(relay, 7, ends[0].handle, ends[1].handle));
    uint64_t packets = 0, bytes = 0, raw = 3;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t size = make(plain, 7, sizes[i], (uint8_t)(i + 1)), heard = 0;
        size_t first = size / 3, framed = frame_of(sent, 0x02, plain, first);
        framed += frame_of(sent + framed, 0x80, plain + first, size - first);
        for (size_t at = 0, piece; at < framed; at += piece) {
            piece = framed - at < 3000 ? framed - at : 3000;
            say(0, sent + at, piece);
            turn();
            heard += hear(1, got + heard, sizeof got - heard);
        }
        for (int turns = 0; turns < 300 && heard < size; turns++) {
            turn();
            heard += hear(1, got + heard, sizeof got - heard);
        }
        CHECK(heard == size && memcmp(got, plain, size) == 0);
        packets++, bytes += size, raw += framed;
        CHECK(counts(0).packets_in == packets && counts(0).bytes_in == raw);

        say(1, plain, size);
        struct heard web = hear_frames(0, size, 0);
        CHECK(memcmp(got, plain, size) == 0 && web.largest <= 16380);
        CHECK(counts(0).packets_out == packets && counts(0).bytes_out == bytes);
    }
    CHECK(last_count == 0 && counts(0).waiting_bytes == 0 && counts(0).input_bytes == 0);
    end();
}

/* Many packets of a turn are one frame, and one write. */
static void test_one_frame(void)
{
    begin(&plain_config, &wide);
    add_web(0), add(1);
    relay_pair(relay, 7, ends[0].handle, ends[1].handle);
    size_t size = 0;
    for (int i = 0; i < 100; i++)
        size += make(plain + size, 7, 20, (uint8_t)i);
    calls.sends = 0;
    say(1, plain, size);
    turn();
    CHECK(calls.sends == 1);
    struct heard heard = hear_frames(0, size, 0);
    CHECK(heard.frames == 1 && memcmp(got, plain, size) == 0);
    end();
}

/* To a peer that knows no packets what waits goes in one frame, however long: whole messages. */
static void test_whole(void)
{
    static uint8_t framed[BIG];
    static const size_t sizes[] = {3, 125, 126, 65535, 65536, MAX_PACKET - 4};
    begin(&plain_config, &wide);
    ends[0].peer = dial();
    ends[0].handle = take_in(0);
    relay_set_owner(relay, ends[0].handle, &ends[0]);
    relay_direct(relay, ends[0].handle, 7);
    relay_start(relay, ends[0].handle, NULL, 0, RELAY_WEBSOCKET, now);
    add(1);
    CHECK(relay_pair(relay, 7, ends[0].handle, ends[1].handle));
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t size = sizes[i], head = size < 126 ? 2 : size < 65536 ? 4 : 10, came = 0;
        say(1, plain, make(plain, 7, size, (uint8_t)i));
        for (int turns = 0; turns < 4000 && came < head + size; turns++) {
            turn();
            came += hear(0, framed + came, sizeof framed - came);
        }
        CHECK(came == head + size && framed[0] == 0x82);
        CHECK(framed[1] == (head == 2 ? size : head == 4 ? 126u : 127u));
        uint64_t length = head == 2 ? size : 0;
        for (size_t at = 2; at < head; at++)
            length = length << 8 | framed[at];
        CHECK(length == size && memcmp(framed + head, plain + 8, size) == 0);
    }
    end();
}

/* A socket that takes a few bytes at a time, cut anywhere: heads, payload, Pongs. What waits is
 * counted without any of that, and of the Pings that came meanwhile the last is answered. */
static void test_dripping(void)
{
    begin(&plain_config, &wide);
    add_web(0), add(1);
    relay_pair(relay, 7, ends[0].handle, ends[1].handle);
    for (unsigned most = 1; most < 9; most += 2) {
        size_t size = make(plain, 7, 300, 'd');
        size += make(plain + size, 7, 5, 'e');
        calls.send_most = most;
        say(1, plain, size);
        for (int i = 0; i < 4; i++)
            turn();
        CHECK(counts(0).waiting_bytes > 0 && counts(0).waiting_bytes < size);
        say_frame(0, 0x89, "one", 3);
        say_frame(0, 0x89, "two", 3);
        struct heard heard = hear_frames(0, size, 1);
        CHECK(memcmp(got, plain, size) == 0);
        CHECK(heard.control_size == 5 && memcmp(heard.control, "\x8A\3two", 5) == 0);

        /* One that is being written is not broken off, and the last that came since follows. */
        calls.send_most = 2;
        calls.fail_sends = EAGAIN;
        calls.spared = 1;
        say_frame(0, 0x89, "first", 5);
        turn();
        CHECK(link_of(0)->ws->pong != NULL && link_of(0)->ws->pong->at > 0);
        say_frame(0, 0x89, "second", 6);
        turn();
        say_frame(0, 0x89, "third", 5);
        turn();
        calls.fail_sends = 0;
        heard = hear_frames(0, 0, 2);
        CHECK(memcmp(heard.control, "\x8A\5first\x8A\5third", 14) == 0);
        calls.send_most = 0;
    }
    end();
}

/* What waits for a link that is blocked is bounded by packets and their bytes; its Pong is one. */
static void test_blocked(void)
{
    begin(&plain_config, &plain_port);
    add_web(0), add(1);
    relay_pair(relay, 7, ends[0].handle, ends[1].handle);
    calls.fail_sends = EAGAIN;
    for (int i = 0; i < 9; i++)
        say_packet(1, 7, 2000, 'b');
    UNTIL(counts(0).waiting_packets == 9);
    for (int i = 0; i < 2000; i++) {
        char text[16];
        sprintf(text, "%d", i);
        say_frame(0, 0x89, text, strlen(text));
        if (i % 64 == 0)
            turn();
    }
    turn();
    CHECK(counts(0).waiting_bytes == 9 * 2008 && last_count == 0);
    CHECK(link_of(0)->blocked && link_of(0)->ws->later == NULL);
    calls.fail_sends = 0;
    CHECK(memcmp(hear_frames(0, 9 * 2008, 1).control, "\x8A\4" "1999", 6) == 0);
    calls.fail_sends = EAGAIN;
    for (int i = 0; i < 10; i++)
        say_packet(1, 7, 2000, 'o');
    say_frame(0, 0x89, "?", 1);
    UNTIL(told(0, RELAY_OVER));
    CHECK(counts(0).waiting_bytes == 10 * 2008 && link_of(0)->ws->pong == NULL);
    end();
}

/* A peer that takes nothing of a Pong is stuck as any other; Pings are no packets. */
static void test_deadlines(void)
{
    begin(&plain_config, &wide);
    add_web(0), add_web(2);
    for (int i = 0; i < 29; i++) {
        say_frame(0, 0x89, "still here", 10);
        say_frame(0, 0x82, "", 0);
        sweep(1);
        turn();
        CHECK(last_count == 0);
    }
    sweep(1.2);
    CHECK(told(0, RELAY_IDLE) && told(2, RELAY_IDLE));
    end();

    begin(&plain_config, &wide);
    add_web(0);
    calls.fail_sends = EAGAIN;
    say_frame(0, 0x89, "take that", 9);
    turn();
    CHECK(link_of(0)->blocked && counts(0).waiting_bytes == 0);
    for (int i = 0; i < 9; i++) {
        sweep(1);
        CHECK(!told(0, RELAY_STUCK));
    }
    sweep(1.2);
    CHECK(told(0, RELAY_STUCK));
    end();
}

/* A goodbye comes behind the last byte and before the FIN, and what the peer says is dropped. */
static void test_goodbye(void)
{
    static char long_text[200];
    memset(long_text, 'x', sizeof long_text - 1);
    memcpy(long_text + 122, "\xC3\xA9", 2);
    for (int big = 0; big < 2; big++) {
        begin(&plain_config, &wide);
        add_web(0);
        size_t size = make(plain, 7, big ? 90000 : 10, 'g');
        relay_send(relay, ends[0].handle, plain, size, 1);
        say_frame(0, 0x89, "now?", 4); /* not read before the close */
        relay_farewell(relay, ends[0].handle, 4403, big ? long_text : "kicked");
        relay_farewell(relay, ends[0].handle, 1000, "once");
        relay_close(relay, ends[0].handle, RELAY_CLOSE);
        relay_send(relay, ends[0].handle, plain, 20, 1); /* nothing is behind it */
        say(0, "anything", 8);
        struct heard heard = hear_frames(0, size, 1);
        CHECK(memcmp(got, plain, size) == 0);
        if (big)
            CHECK(heard.control_size == 2 + 2 + 122 && heard.control[heard.control_size - 1] == 'x');
        else
            CHECK(memcmp(heard.control, "\x88\x08\x11\x33kicked", 10) == 0);
        turn();
        CHECK(recv(ends[0].peer, got, 1, 0) == 0); /* its FIN, */
        CHECK(!told(0, RELAY_GONE));               /* and it waits for the peer's */
        say_frame(0, 0x88, "", 0);
        shutdown(ends[0].peer, SHUT_WR);
        UNTIL(told(0, RELAY_GONE));
        CHECK(last[0].detail == 0);
        end();
    }
}

/* A Close of the peer ends it, behind all that came before, and is answered by its own code. */
static void test_peer_closes(void)
{
    for (int coded = 0; coded < 2; coded++) {
        begin(&plain_config, &wide);
        add_web(0);
        size_t size = make(plain, 99, 5, 'z');
        say_frame(0, 0x82, plain, size);
        say_frame(0, 0x88, "\x10\xE1" "bye", coded ? 5 : 0);
        say_frame(0, 0x89, "late", 4);
        UNTIL(told(0, RELAY_PACKETS));
        CHECK(kept_size == size);
        UNTIL(told(0, RELAY_FIN));
        CHECK(relay_socket(relay, ends[0].handle) >= 0);
        relay_farewell(relay, ends[0].handle, 1000, "closed by the peer");
        relay_close(relay, ends[0].handle, RELAY_CLOSE);
        struct heard heard = hear_frames(0, 0, 1);
        CHECK(heard.control_size == (coded ? 4 : 2));
        CHECK(memcmp(heard.control, coded ? "\x88\2\x10\xE1" : "\x88\0", heard.control_size) == 0);
        turn();
        CHECK(counts(0).input_bytes == 0 && link_of(0)->state == DEAD);
        end();
    }
}

/* What breaks a rule is told behind all that came before, and that can be answered. */
static void test_misframed(void)
{
    begin(&plain_config, &wide);
    add_web(0);
    size_t size = make(plain, 99, 5, 'z');
    make(plain + size, 98, 100, 'y'); /* a part of another */
    say_frame(0, 0x82, plain, size + 50);
    say_frame(0, 0x81, "text", 4);
    UNTIL(told(0, RELAY_PACKETS));
    CHECK(kept_size == size);
    UNTIL(told(0, RELAY_MISFRAMED));
    CHECK(last[0].detail == RELAY_TEXT && !told(0, RELAY_FIN) && counts(0).input_bytes == 0);
    relay_farewell(relay, ends[0].handle, 1003, "no text");
    relay_close(relay, ends[0].handle, RELAY_CLOSE);
    CHECK(link_of(0)->state == HALF);
    struct heard heard = hear_frames(0, 0, 1);
    CHECK(memcmp(heard.control, "\x88\x09\3\xEBno text", 11) == 0);
    end();
}

/* A link that is not read from: what the kernel had is unwrapped, kept and bounded as packets, and
 * its socket is kept for the answer. */
static void test_held(void)
{
    begin(&plain_config, &wide);
    add_web(0);
    relay_pause(relay, ends[0].handle);
    size_t size = make(plain, 99, 3000, 'h');
    for (size_t at = 0; at < size; at++)
        say_frame(0, 0x82, plain + at, 1);
    say_frame(0, 0x88, "\3\xE8", 2);
    say(0, "nothing of that", 15);
    shutdown(ends[0].peer, SHUT_WR);
    UNTIL(counts(0).input_bytes == size);
    for (int i = 0; i < 5; i++)
        turn();
    CHECK(last_count == 0 && counts(0).bytes_in >= 3 + size * 7 + 8);
    relay_resume(relay, ends[0].handle, now);
    UNTIL(told(0, RELAY_PACKETS));
    CHECK(kept_size == size && memcmp(kept, plain, size) == 0);
    UNTIL(told(0, RELAY_FIN));
    relay_farewell(relay, ends[0].handle, 1000, "");
    relay_close(relay, ends[0].handle, RELAY_CLOSE);
    hear_frames(0, 0, 1);
    end();

    begin(&plain_config, &plain_port);
    add_web(0);
    relay_pause(relay, ends[0].handle);
    for (int i = 0; i < 25; i++)
        say_frame(0, 0x82, plain, 1000); /* 20000 may wait */
    break_off(0);
    UNTIL(link_of(0)->lost || link_of(0)->fd < 0);
    CHECK(counts(0).input_bytes <= 20000);
    end();
}

/* What came before the start, and was kept, is unwrapped too; what was sent is not framed. */
static void test_start(void)
{
    for (int pieces = 0; pieces < 2; pieces++) {
        begin(&plain_config, &wide);
        ends[0].peer = dial();
        ends[0].handle = take_in(0);
        relay_set_owner(relay, ends[0].handle, &ends[0]);
        relay_pause(relay, ends[0].handle);
        size_t size = make(plain, 99, 3000, 's'), framed = 0, before;
        for (size_t at = 0; at < size; at += 16)
            framed += frame_of(sent + framed, 0x82, plain + at, size - at < 16 ? size - at : 16);
        framed += frame_of(sent + framed, 0x88, "", 0);
        before = pieces ? framed : 100;
        say(0, sent + before, framed - before);
        if (!pieces) {
            shutdown(ends[0].peer, SHUT_WR);
            UNTIL(counts(0).input_bytes == framed - before);
        }
        calls.fail_sends = EAGAIN;
        relay_send(relay, ends[0].handle, "answer", 6, 0);
        turn();
        relay_start(relay, ends[0].handle, sent, before, RELAY_WEBSOCKET, now);
        relay_send(relay, ends[0].handle, plain, 20, 1);
        calls.fail_sends = 0;
        CHECK(counts(0).input_bytes == size);
        relay_resume(relay, ends[0].handle, now);
        UNTIL(told(0, RELAY_PACKETS));
        CHECK(kept_size == size && memcmp(kept, plain, size) == 0);
        UNTIL(told(0, RELAY_FIN));
        for (int i = 0; i < 3; i++)
            turn();
        size_t heard = hear(0, got, sizeof got);
        /* Who ended before the start, and was not read from, is told nothing more. */
        CHECK(heard == (pieces ? 6 + 2 + 20 : 0));
        CHECK(!pieces || memcmp(got, "answer\x82\x14", 8) == 0);
        end();
    }
}

/* Floods of frames without payload cost time as their bytes do, and no memory. */
static void test_floods(void)
{
    static const uint8_t firsts[] = {0x89, 0x82, 0x8A};
    for (size_t kind = 0; kind < 3; kind++) {
        size_t size = 0;
        begin(&plain_config, &wide);
        add_web(0), add_web(2);
        while (size < 100000)
            size += frame_of(sent + size, firsts[kind], "", 0);
        for (int i = 0; i < 20; i++) {
            (void)!send(ends[0].peer, sent, size / 6 * 6, MSG_DONTWAIT | MSG_NOSIGNAL);
            calls.recvs = 0;
            turn();
            CHECK(pool_used(relay_pool(relay)) == 0 && last_count == 0);
            hear(0, got, sizeof got);
        }
        say_frame(2, 0x89, "me", 2);
        hear_frames(2, 0, 1);
        end();
    }
}

/* No memory: the link that needs it goes, and nothing is lost of it. */
static void test_no_memory(void)
{
    for (int what = 0; what < 3; what++) {
        begin(&plain_config, &wide);
        add_web(0);
        if (what == 0) {
            ends[2].peer = dial();
            ends[2].handle = take_in(0);
            relay_set_owner(relay, ends[2].handle, &ends[2]);
            calls.fail_calloc = 1;
            relay_start(relay, ends[2].handle, NULL, 0, RELAY_WEBSOCKET, now);
            turn();
            CHECK(told(2, RELAY_NO_MEMORY));
        } else if (what == 1) {
            calls.fail_calloc = 1;
            say_frame(0, 0x89, "", 0);
            UNTIL(told(0, RELAY_NO_MEMORY));
        } else {
            calls.fail_calloc = 1;
            relay_farewell(relay, ends[0].handle, 1001, "going");
            relay_close(relay, ends[0].handle, RELAY_CLOSE);
            turn();
            CHECK(recv(ends[0].peer, got, 1, 0) == 0);
        }
        end();
    }
}

/* A client that a server does not keep up with is held; what is in its frames waits as packets. */
static void test_shares(void)
{
    begin(&plain_config, &plain_port);
    add_web(0), add(1), add_web(2);
    relay_pair(relay, 1, ends[0].handle, ends[1].handle);
    relay_pair(relay, 2, ends[2].handle, ends[1].handle);
    size_t size = make(plain, 1, 1000, 'f'), total = 0;
    for (int i = 0; i < 4000 && !counts(0).held; i++, total += size) {
        say_frame(0, 0x82, plain, size);
        turn();
    }
    CHECK(counts(0).held && !counts(2).held);
    say_frame(0, 0x89, "?", 1);
    for (int i = 0; i < 3000 && total > 0; i++) {
        size_t some = hear(1, got, sizeof got);
        CHECK(some <= total);
        total -= some;
        turn();
    }
    CHECK(total == 0 && !counts(0).held);
    hear_frames(0, 0, 1);
    end();
}

int main(void)
{
    test_payload();
    test_rules();
    test_codes();
    test_both_ways();
    test_one_frame();
    test_whole();
    test_dripping();
    test_blocked();
    test_deadlines();
    test_goodbye();
    test_peer_closes();
    test_misframed();
    test_held();
    test_start();
    test_floods();
    test_no_memory();
    test_shares();
    puts("test_websocket: ok");
    return 0;
}
