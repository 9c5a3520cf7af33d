/* Links whose peers know no packets: their reads become messages, and messages bare bytes. */
#include "bed.h"

static uint8_t got[1 << 20], said[1 << 20];

/* As add; it is not started before its virtual connection is known. */
static void add_direct(int which, uint32_t conn_id)
{
    int small = 4096;
    ends[which].peer = dial();
    ends[which].handle = take_in(which % 2);
    CHECK(ends[which].handle != 0);
    setsockopt(relay_socket(relay, ends[which].handle), SOL_SOCKET, SO_SNDBUF, &small,
               sizeof small);
    relay_set_owner(relay, ends[which].handle, &ends[which]);
    relay_direct(relay, ends[which].handle, conn_id);
    relay_start(relay, ends[which].handle, NULL, 0, RELAY_PLAIN, now);
}

/* A direct client 0 and its server 1, over virtual connection 7. */
static void pair(const struct relay_config *config, const struct relay_port *port)
{
    begin(config, port);
    add_direct(0, 7);
    add(1);
    CHECK(relay_pair(relay, 7, ends[0].handle, ends[1].handle));
}

/* Hear so much. */
static void hear_all(int which, uint8_t *data, size_t size)
{
    size_t came = 0;
    for (int i = 0; i < 4000 && came < size; i++) {
        turn();
        came += hear(which, data + came, size + 1 - came);
    }
    CHECK(came == size);
}

/* The messages of whole packets over connection 7, one behind the other in place; their size. */
static size_t strip(uint8_t *data, size_t size, size_t most)
{
    size_t to = 0;
    for (size_t at = 0; at < size;) {
        uint32_t length = read_u32(data + at), conn_id = read_u32(data + at + 4);
        CHECK(conn_id == 7 && length > 4 && length - 4 <= most && size - at - 4 >= length);
        memmove(data + to, data + at + 8, length - 4);
        to += length - 4;
        at += 4 + length;
    }
    return to;
}

static void fill(uint8_t *data, size_t size)
{
    for (size_t i = 0; i < size; i++)
        data[i] = (uint8_t)(i * 31 + i / 256);
}

static void test_messages(void)
{
    pair(&plain_config, &plain_port);
    say(0, "hello", 5);
    hear_all(1, got, 13);
    CHECK(read_u32(got) == 9 && read_u32(got + 4) == 7 && memcmp(got + 8, "hello", 5) == 0);
    size_t size = make(said, 7, 2, 'a');
    size += make(said + size, 7, 0, 0);
    size += make(said + size, 7, 3, 'b');
    say(1, said, size);
    hear_all(0, got, 5);
    CHECK(memcmp(got, "aabbb", 5) == 0);
    CHECK(counts(0).packets_in == 1 && counts(0).bytes_in == 5);
    CHECK(counts(0).packets_out == 2 && counts(0).bytes_out == 5);
    CHECK(counts(1).packets_in == 3 && counts(1).bytes_in == size);
    CHECK(totals().packets == 4 && totals().bytes == 13 + size);
    say_packet(1, 7, 0, 0); /* nothing, alone */
    for (int i = 0; i < 5; i++)
        turn();
    CHECK(hear(0, got, sizeof got) == 0 && totals().packets == 5);
    end();
}

/* The server's packets come in pieces, cut anywhere. */
static void test_pieces(void)
{
    size_t size = 0, wanted = 0;
    static const size_t sizes[] = {1, 0, 5, 700, 0, 3};
    uint8_t bare[1000];
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size += make(said + size, 7, sizes[i], (uint8_t)('a' + i));
        memset(bare + wanted, (int)('a' + i), sizes[i]);
        wanted += sizes[i];
    }
    for (size_t step = 1; step < 40; step += step < 12 ? 1 : 9) {
        pair(&plain_config, &plain_port);
        for (size_t at = 0; at < size; at += step) {
            say(1, said + at, size - at < step ? size - at : step);
            if (step > 3 || at < 60)
                turn();
        }
        hear_all(0, got, wanted);
        CHECK(memcmp(got, bare, wanted) == 0);
        CHECK(counts(0).packets_out == 4 && counts(0).bytes_out == wanted);
        end();
    }
}

/* Many small messages, in more chunks than one. */
static void test_many(void)
{
    struct relay_config config = plain_config;
    struct relay_port port = plain_port;
    config.pool.max_chunk = 512;
    port.queue_packets = port.queue_bytes = 1 << 30;
    pair(&config, &port);
    size_t size = 0, wanted = 0;
    for (size_t i = 0; i < 3000; i++) {
        size += make(said + size, 7, i % 5, (uint8_t)i);
        wanted += i % 5;
    }
    for (size_t at = 0; at < size; at += 4000) {
        say(1, said + at, size - at < 4000 ? size - at : 4000);
        turn();
    }
    for (size_t came = 0, i = 0; came < wanted; i++) {
        CHECK(i < 4000);
        turn();
        came += hear(0, got + came, sizeof got - came);
        CHECK(came <= wanted);
    }
    for (size_t i = 0, at = 0; i < 3000; i++)
        for (size_t j = 0; j < i % 5; j++)
            CHECK(got[at++] == (uint8_t)i);
    end();
}

/* A message has the bytes of one read, and fits a packet. */
static void test_cut(void)
{
    struct relay_port port = plain_port;
    port.max_packet = 104;
    port.read_size = 64;
    pair(&plain_config, &port);
    fill(said, 5000);
    say(0, said, 5000);
    size_t came = 0;
    for (int i = 0; i < 4000 && came < 5000 + 79 * 8; i++) {
        turn();
        came += hear(1, got + came, sizeof got - came);
    }
    CHECK(strip(got, came, 64) == 5000 && memcmp(got, said, 5000) == 0);
    end();
    port.read_size = 4096;
    pair(&plain_config, &port);
    say(0, said, 5000);
    came = 0;
    for (int i = 0; i < 4000 && came < 5000 + 50 * 8; i++) {
        turn();
        came += hear(1, got + came, sizeof got - came);
    }
    CHECK(strip(got, came, 100) == 5000 && memcmp(got, said, 5000) == 0);
    end();
}

/* A server that does not read holds it, and gets all that it said, its end behind that. */
static void test_held(void)
{
    struct relay_port port = plain_port;
    size_t sent = 0, came = 0;
    port.queue_bytes = 30000;
    pair(&plain_config, &port);
    fill(said, sizeof said);
    for (int i = 0; i < 4000 && !counts(0).held; i++) {
        say(0, said + sent, 1500);
        sent += 1500;
        turn();
    }
    CHECK(counts(0).held && !told(0, RELAY_FIN));
    say(0, said + sent, 5000);
    sent += 5000;
    close(ends[0].peer);
    ends[0].peer = -1;
    UNTIL(counts(0).bytes_in == sent);
    bool ended = false;
    for (int i = 0; i < 8000 && !ended; i++) {
        came += hear(1, got + came, sizeof got - came);
        turn();
        ended = told(0, RELAY_FIN);
    }
    CHECK(ended && counts(0).input_bytes == 0);
    for (int i = 0; i < 400; i++) {
        turn();
        came += hear(1, got + came, sizeof got - came);
    }
    CHECK(strip(got, came, 2048) == sent && memcmp(got, said, sent) == 0);
    end();
}

/* What waits for one that does not read is bounded in its own bytes. */
static void test_over(void)
{
    struct relay_port port = plain_port;
    port.queue_packets = 1 << 30;
    pair(&plain_config, &port);
    size_t size = 0;
    for (int i = 0; i < 500; i++)
        size += make(said + size, 7, 2, 'x');
    bool over = false;
    for (int i = 0; i < 4000 && !over; i++) {
        say(1, said, size);
        turn();
        over = told(0, RELAY_OVER);
        CHECK(over || counts(0).waiting_bytes <= 20000);
        CHECK(over || !link_of(0)->blocked || counts(0).waiting_packets >= counts(0).waiting_bytes / 2);
    }
    CHECK(over && counts(0).waiting_bytes > 20000 && counts(0).waiting_bytes <= 21000);
    end();
}

/* A server that is not the core's gets its messages from the caller. */
static void test_handed_up(void)
{
    begin(&plain_config, &plain_port);
    add_direct(0, 7);
    say(0, "hello", 5);
    UNTIL(told(0, RELAY_PACKETS));
    CHECK(kept_size == 13 && strip(kept, kept_size, 5) == 5 && memcmp(kept, "hello", 5) == 0);
    fill(said, 9000);
    say(0, said, 9000);
    size_t came = 0;
    for (int i = 0; i < 4000 && came < 9000; i++) {
        turn();
        size_t size = strip(kept, kept_size, 2048);
        memcpy(got + came, kept, size);
        came += size;
    }
    CHECK(came == 9000 && memcmp(got, said, 9000) == 0);
    end();
}

/* What the caller sends as packets is bare too. */
static void test_sent(void)
{
    begin(&plain_config, &plain_port);
    add_direct(0, 7);
    size_t size = make(said, 7, 3, 'a');
    size += make(said + size, 7, 0, 'b');
    size += make(said + size, 7, 1, 'c');
    relay_send(relay, ends[0].handle, said, size, 3);
    relay_send(relay, ends[0].handle, said, make(said, 7, 0, 0), 1);
    relay_send(relay, ends[0].handle, "raw", 3, 0);
    hear_all(0, got, 7);
    CHECK(memcmp(got, "aaacraw", 7) == 0 && counts(0).packets_out == 2);
    CHECK(counts(0).waiting_packets == 0 && totals().waiting_bytes == 0);
    end();
}

/* Nothing is read of it before it is started, if the caller says so; its end is heard. */
static void test_waits(void)
{
    begin(&plain_config, &plain_port);
    ends[0].peer = dial();
    ends[0].handle = take_in(0);
    relay_set_owner(relay, ends[0].handle, &ends[0]);
    relay_pause(relay, ends[0].handle);
    say(0, "before", 6);
    for (int i = 0; i < 20; i++) {
        turn();
        CHECK(last_count == 0);
    }
    CHECK(counts(0).bytes_in == 0);
    shutdown(ends[0].peer, SHUT_WR);
    UNTIL(counts(0).bytes_in == 6);
    CHECK(!told(0, RELAY_FIN));
    add(1);
    relay_direct(relay, ends[0].handle, 7);
    relay_pair(relay, 7, ends[0].handle, ends[1].handle);
    relay_start(relay, ends[0].handle, "and ", 4, RELAY_PLAIN, now);
    relay_resume(relay, ends[0].handle, now);
    bool ended = false;
    size_t came = 0;
    for (int i = 0; i < 4000 && !(ended && came >= 18); i++) {
        turn();
        ended = ended || told(0, RELAY_FIN);
        came += hear(1, got + came, sizeof got - came);
    }
    CHECK(ended && strip(got, came, 100) == 10 && memcmp(got, "and before", 10) == 0);
    end();
}

/* All that was sent before a half-close is written, then comes the FIN. */
static void test_half(void)
{
    struct relay_port port = plain_port;
    port.queue_bytes = port.queue_packets = 1 << 30;
    pair(&plain_config, &port);
    for (int i = 0; i < 100; i++) {
        say_packet(1, 7, 1000, (uint8_t)i);
        turn();
    }
    UNTIL(counts(0).packets_out == 100);
    CHECK(counts(0).waiting_bytes > 0);
    relay_unpair(relay, 7);
    relay_close(relay, ends[0].handle, RELAY_HALF);
    say(0, "not read", 8);
    size_t came = 0;
    for (int i = 0; i < 4000 && came < 100000; i++) {
        turn();
        came += hear(0, got + came, sizeof got - came);
    }
    CHECK(came == 100000);
    for (size_t i = 0; i < came; i++)
        CHECK(got[i] == i / 1000);
    for (int i = 0; i < 5; i++)
        turn();
    CHECK(recv(ends[0].peer, got, 1, MSG_DONTWAIT) == 0);
    end();
}

/* Bytes count as packets, either way; who neither says nor takes anything is idle. */
static void test_idle(void)
{
    pair(&plain_config, &plain_port);
    link_of(1)->port = &(struct relay_port){.max_packet = MAX_PACKET, .read_size = 65536,
                                            .queue_packets = 10, .queue_bytes = 20000,
                                            .holds = true};
    sweep(20);
    say(0, "x", 1);
    for (int i = 0; i < 20; i++)
        turn();
    sweep(20);
    CHECK(!told(0, RELAY_IDLE));
    say_packet(1, 7, 10, 'y');
    hear_all(0, got, 10);
    hear_all(1, got, 9);
    for (int i = 0; i < 12; i++) { /* it took something: a whole time more */
        sweep(2);
        CHECK(!told(0, RELAY_IDLE));
    }
    bool idle = false;
    for (int i = 0; i < 40 && !idle; i++) {
        sweep(1);
        idle = told(0, RELAY_IDLE);
    }
    CHECK(idle);
    end();
    pair(&plain_config, &plain_port);
    sweep(29.5);
    CHECK(!told(0, RELAY_IDLE));
    sweep(1);
    CHECK(told(0, RELAY_IDLE));
    end();
}

/* Where there is no memory its server's stream stays whole: no head without its message. */
static void test_no_memory(void)
{
    struct relay_config config = plain_config;
    config.pool.max_chunk = 64;
    config.pool.limit = 1000;
    pair(&config, &plain_port);
    say(0, "one", 3);
    hear_all(1, got, 11);
    fill(said, 2000);
    say(0, said, 2000);
    UNTIL(told(0, RELAY_NO_MEMORY));
    CHECK(!told(1, RELAY_NO_MEMORY) && counts(1).waiting_bytes == 0);
    say_packet(1, 0, 1, 5); /* a Ping */
    hear_all(1, got, 9);
    CHECK(read_u32(got) == 5 && read_u32(got + 4) == 0);
    end();
    pair(&config, &plain_port);
    size_t size = 0;
    for (int i = 0; i < 100; i++)
        size += make(said + size, 7, 12, 'x');
    say(1, said, size);
    UNTIL(told(1, RELAY_NO_MEMORY));
    CHECK(!told(0, RELAY_NO_MEMORY) && counts(0).waiting_bytes == 0);
    end();
}

int main(void)
{
    test_messages();
    test_pieces();
    test_many();
    test_cut();
    test_held();
    test_over();
    test_handed_up();
    test_sent();
    test_waits();
    test_half();
    test_idle();
    test_no_memory();
    puts("test_direct: ok");
    return 0;
}
