/* The core alone: framing, one write a turn, deadlines, ends, virtual connections. */
#include "bed.h"

/* Packets of all sizes, whole and byte by byte, arrive as they were sent. */
static void test_framing(void)
{
    static uint8_t sent[300000], got[300000];
    static const size_t sizes[] = {0, 1, 3, 40, 2039, 2040, 2041, 5000, MAX_PACKET - 4};
    begin(&plain_config, &plain_port);
    add(0), add(1);
    CHECK(relay_pair(relay, 7, ends[0].handle, ends[1].handle));
    for (int drip = 0; drip < 2; drip++) {
        size_t size = 0, heard = 0;
        for (size_t i = 0; i < (drip ? 6 : sizeof sizes / sizeof *sizes); i++)
            size += make(sent + size, 7, sizes[i], (uint8_t)(i + 1));
        for (size_t at = 0, piece; at < size; at += piece) {
            piece = drip ? 1 : size - at < 3000 ? size - at : 3000;
            say(0, sent + at, piece);
            turn();
            CHECK(last_count == 0);
            heard += hear(1, got + heard, sizeof got - heard);
        }
        for (int i = 0; i < 200 && heard < size; i++) {
            turn();
            heard += hear(1, got + heard, sizeof got - heard);
        }
        CHECK(heard == size && memcmp(sent, got, size) == 0);
    }
    CHECK(calls.asked == 2048);
    CHECK(pool_used(relay_pool(relay)) == 0);
    end();
}

/* A length is judged when its fourth byte is there, at the limits and around them. */
static void test_limits(void)
{
    static const struct {
        uint32_t length;
        bool broken;
    } rows[] = {{0, true}, {3, true}, {4, false}, {MAX_PACKET, false}, {MAX_PACKET + 1, true},
                {UINT32_MAX, true}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        begin(&plain_config, &plain_port);
        add(0);
        say(0, &rows[i].length, 3);
        turn();
        CHECK(last_count == 0);
        say(0, (const uint8_t *)&rows[i].length + 3, 1);
        turn();
        CHECK(told(0, RELAY_BROKEN) == rows[i].broken);
        CHECK(!rows[i].broken || last[0].detail == rows[i].length);
        CHECK(pool_used(relay_pool(relay)) == 0); /* what is announced allocates nothing */
        end();
    }
}

/* Packets for several links in turns are one write for each; a run is handed up whole, and what
 * comes behind it waits for the answer. */
static void test_one_write(void)
{
    static uint8_t data[65536], got[65536];
    struct relay_port port = plain_port;
    port.queue_packets = 1000;
    begin(&plain_config, &port);
    add(0), add(2), add(4), add(1);
    for (uint32_t i = 0; i < 3; i++)
        relay_pair(relay, i + 1, ends[1].handle, ends[i * 2].handle);
    size_t size = 0;
    for (uint32_t i = 0; i < 300; i++)
        size += make(data + size, 1 + i % 3, 20, (uint8_t)i);
    say(1, data, size);
    turn();
    CHECK(last_count == 0 && calls.sends == 3);
    CHECK(hear(0, got, sizeof got) == 100 * 28);

    size = make(data, 1, 5, 'a');
    size += make(data + size, 0, 1, 'b'); /* a command, a stray, a packet */
    size += make(data + size, 99, 1, 'c');
    size_t between = size;
    size += make(data + size, 1, 5, 'd');
    calls.sends = 0;
    say(1, data, size);
    usleep(200);
    CHECK(relay_run(relay, now) == 1);
    CHECK(relay_events(relay)[0].data->end == between - 13);
    CHECK(calls.sends == 1); /* what came before is written before the caller is asked */
    relay_clear_events(relay);
    relay_send(relay, ends[0].handle, "\4\0\0\0\1\0\0\0", 8, 1);
    relay_go_on(relay, now);
    CHECK(calls.sends == 2);
    CHECK(hear(0, got, sizeof got) == 13 + 8 + 13);
    CHECK(got[8] == 'a' && got[13] == 4 && got[29] == 'd');
    end();
}

/* Deadlines: never early, kept within a tick; packets and holds move them. */
static void test_deadlines(void)
{
    begin(&plain_config, &plain_port);
    add(0), add(2), add(1);
    relay_pair(relay, 1, ends[0].handle, ends[1].handle);
    for (int i = 0; i < 4000 && !counts(0).held; i++) {
        say_packet(0, 1, 3000, 'x');
        turn();
    }
    for (int i = 0; i < 4; i++) {
        sweep(2.4);
        CHECK(last_count == 0);
    }
    sweep(0.5); /* the server has taken nothing for 10 s */
    CHECK(told(1, RELAY_STUCK));
    for (int i = 0; i < 19; i++)
        sweep(1);
    CHECK(!told(2, RELAY_IDLE));
    say(2, "\4\0", 2); /* dripping gains nothing */
    turn();
    sweep(1.1);
    CHECK(told(2, RELAY_IDLE) && !told(0, RELAY_IDLE));
    end();
}

/* A reset in the middle of a gathered write, and both ends of a connection gone in one batch. */
static void test_resets(void)
{
    static uint8_t data[60000];
    struct linger reset = {1, 0};
    begin(&plain_config, &plain_port);
    add(0), add(2), add(1);
    relay_pair(relay, 1, ends[0].handle, ends[1].handle);
    relay_pair(relay, 2, ends[2].handle, ends[1].handle);
    size_t size = 0;
    for (int i = 0; i < 20; i++)
        size += make(data + size, 1 + (uint32_t)i % 2, 2000, 'y');
    say(1, data, size);
    calls.fail_send = ECONNRESET;
    turn();
    CHECK(told(0, RELAY_GONE) != told(2, RELAY_GONE)); /* the first that was written to */
    int other = told(0, RELAY_GONE) ? 2 : 0;
    CHECK(last[0].detail == ECONNRESET);
    CHECK(counts(other).packets_out == 10);
    relay_release(relay, ends[2 - other].handle);

    say_packet(other, other ? 2 : 1, 50, 'z');
    say_packet(1, other ? 2 : 1, 50, 'z');
    setsockopt(ends[other].peer, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    setsockopt(ends[1].peer, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close(ends[other].peer);
    close(ends[1].peer);
    ends[other].peer = ends[1].peer = -1;
    turn();
    CHECK(told(other, RELAY_GONE) && told(1, RELAY_GONE));
    end();
}

/* Ends in order: what waits is written first; a half-closed link reads on into nothing. */
static void test_ends(void)
{
    static uint8_t got[200000], packet[50008];
    struct relay_port port = plain_port;
    port.queue_bytes = 60000;
    begin(&plain_config, &port);
    add(0), add(2);
    size_t size = make(packet, 1, 50000, 'q'), heard = 0;
    for (int which = 0; which <= 2; which += 2) {
        relay_send(relay, ends[which].handle, packet, size, 1);
        relay_close(relay, ends[which].handle, which ? RELAY_HALF : RELAY_CLOSE);
        for (heard = 0; heard < size;) {
            turn();
            heard += hear(which, got + heard, sizeof got - heard);
        }
        CHECK(memcmp(got, packet, size) == 0);
    }
    turn();
    say_packet(2, 5, 1000, 'r');
    turn();
    CHECK(!told(2, RELAY_GONE) && !told(2, RELAY_PACKETS));
    shutdown(ends[2].peer, SHUT_WR);
    turn();
    CHECK(told(2, RELAY_GONE));

    add(4);
    say_packet(4, 0, 1, 'f');
    shutdown(ends[4].peer, SHUT_WR);
    turn();
    CHECK(told(4, RELAY_PACKETS));
    turn();
    CHECK(told(4, RELAY_FIN));
    end();
}

/* Interrupted system calls change nothing. */
static void test_interrupts(void)
{
    static uint8_t got[65536];
    begin(&plain_config, &plain_port);
    add(0), add(1);
    relay_pair(relay, 1, ends[0].handle, ends[1].handle);
    calls.interrupt = 2;
    size_t heard = 0;
    for (int i = 0; i < 50; i++) {
        say_packet(0, 1, 100, (uint8_t)i);
        turn();
        CHECK(last_count == 0);
        heard += hear(1, got, sizeof got);
    }
    for (int i = 0; i < 10; i++) {
        turn();
        heard += hear(1, got, sizeof got);
    }
    CHECK(heard == 50 * 108);
    end();
}

/* The table of virtual connections finds each, through growing, shrinking and gaps. */
static void test_pairs(void)
{
    begin(&plain_config, &plain_port);
    add(0), add(1), add(2);
    for (int round = 0; round < 3; round++) {
        for (uint32_t id = 1; id < 20000; id++)
            CHECK(relay_pair(relay, id * (id % 5 ? 1 : 77777), ends[0].handle, ends[1].handle));
        for (uint32_t id = 1; id < 20000; id++) {
            uint32_t conn_id = id * (id % 5 ? 1 : 77777);
            struct link *link = find(relay, ends[0].handle);
            CHECK(other_end(relay, link, conn_id) == find(relay, ends[1].handle));
            CHECK(other_end(relay, find(relay, ends[2].handle), conn_id) == NULL);
            if (id % 3)
                relay_unpair(relay, conn_id);
        }
        for (uint32_t id = 3; id < 20000; id += 3)
            relay_unpair(relay, id * (id % 5 ? 1 : 77777));
        CHECK(relay->totals.pairs == 0 && relay->pair_room <= 128);
    }
    end();
}

int main(void)
{
    test_framing();
    test_limits();
    test_one_write();
    test_deadlines();
    test_resets();
    test_ends();
    test_interrupts();
    test_pairs();
    puts("test_relay: ok");
    return 0;
}
