/* Rates: who sends more than he may is not read from for a while, and is lost for nothing. */
#include "bed.h"

static uint8_t got[1 << 20];

static void set(double packets, double bytes)
{
    CHECK(relay_rate(relay, 0, packets, bytes) == 0);
}

/* Have the client ends[0] say packets for the server ends[1], in one piece. */
static void say_many(int count, size_t size)
{
    static uint8_t packets[1 << 16];
    size_t end = 0;
    for (int i = 0; i < count; i++)
        end += make(packets + end, 7, size, (uint8_t)i);
    say(0, packets, end);
}

static void open_pair(const struct relay_port *port)
{
    begin(&plain_config, port);
    add(0);
    add(1);
    CHECK(relay_pair(relay, 7, ends[0].handle, ends[1].handle));
}

static uint64_t forwarded(void) { return counts(0).packets_in; }

static void settle_down(void)
{
    for (int i = 0; i < 20; i++)
        turn();
}

/* In any time no more than a second's worth, the rate since, and one read. */
static void test_packets(void)
{
    struct relay_port port = plain_port;
    port.read_size = 64; /* 4 packets */
    port.idle_timeout = 0;
    port.queue_packets = 100000;
    open_pair(&port);
    set(20, 0);
    say_many(200, 8);
    settle_down();
    CHECK(forwarded() >= 20 && forwarded() <= 24);
    CHECK(link_of(0)->slowed && counts(0).held && totals().slowed == 1 && totals().slows == 1);
    CHECK(!(link_of(0)->interest & EPOLLIN));
    double began = now;
    while (forwarded() < 200 && now < began + 30) {
        sweep(.1);
        turn();
        CHECK((double)forwarded() <= 20 + 20 * (now - began) + 4.01);
    }
    /* It had all that it may have: a tick late at the most. */
    CHECK(now - began > 8.5 && now - began < 9.5);
    size_t heard = 0;
    UNTIL((heard += hear(1, got, sizeof got)) == 200 * 16);
    for (int i = 0; i < 30; i++)
        sweep(.1);
    CHECK(!link_of(0)->slowed && totals().slowed == 0 && !counts(0).held);
    say_many(18, 8);
    settle_down();
    CHECK(forwarded() == 218 && !link_of(0)->slowed); /* a full bucket again */
    end();
}

/* Bytes, of packets that are not whole too; commands count as packets. */
static void test_bytes_and_commands(void)
{
    struct relay_port port = plain_port;
    port.read_size = 1000;
    port.idle_timeout = 0;
    open_pair(&port);
    set(0, 2000);
    uint8_t packet[8];
    make(packet, 7, 0, 0);
    uint32_t length = 50004;
    memcpy(packet, &length, 4);
    say(0, packet, 8);
    static uint8_t zeros[50000];
    say(0, zeros, 10000);
    settle_down();
    CHECK(counts(0).bytes_in >= 2000 && counts(0).bytes_in <= 3000);
    for (int i = 0; i < 10; i++)
        sweep(.1);
    settle_down();
    CHECK(counts(0).bytes_in >= 4000 && counts(0).bytes_in <= 5100);
    set(3, 0); /* other values hold at once */
    sweep(.1);
    settle_down();
    CHECK(counts(0).bytes_in == 10008);
    say(0, zeros, 40000);
    UNTIL(forwarded() == 1);
    size_t heard = 0;
    UNTIL((heard += hear(1, got, sizeof got)) == 50008);
    uint8_t dials[13 * 9];
    for (int i = 0; i < 9; i++) {
        make(dials + 13 * i, 0, 5, 1);
    }
    say(0, dials, sizeof dials);
    int handed = 0;
    for (int i = 0; i < 20; i++) {
        turn();
        handed += told(0, RELAY_PACKETS);
    }
    CHECK(handed == 1 && link_of(0)->slowed);
    set(0, 0);
    for (int i = 0; i < 2; i++)
        sweep(.1);
    CHECK(!link_of(0)->slowed && totals().slowed == 0);
    end();
}

/* What frames are made of counts as bytes: control frames, and heads of empty ones. */
static void test_frames(void)
{
    static const uint8_t frames[2][6] = {{0x89, 0x80, 1, 2, 3, 4}, {0x00, 0x80, 1, 2, 3, 4}};
    static const uint8_t first[6] = {0x02, 0x80, 1, 2, 3, 4};
    uint8_t flood[6 * 100];
    for (int kind = 0; kind < 2; kind++) {
        begin(&plain_config, &plain_port);
        set(0, 1000);
        ends[0].peer = dial();
        ends[0].handle = take_in(0);
        relay_set_owner(relay, ends[0].handle, &ends[0]);
        relay_start(relay, ends[0].handle, first, sizeof first, RELAY_WEBSOCKET, now);
        for (size_t at = 0; at < sizeof flood; at += 6)
            memcpy(flood + at, frames[kind], 6);
        say(0, flood, sizeof flood);
        say(0, flood, sizeof flood);
        UNTIL(link_of(0)->slowed);
        say(0, flood, sizeof flood);
        settle_down();
        CHECK(counts(0).bytes_in == 2 * sizeof flood && !told(0, RELAY_MISFRAMED));
        for (int i = 0; i < 30; i++)
            sweep(.1);
        UNTIL(counts(0).bytes_in == 3 * sizeof flood);
        end();
    }
}

/* Other links notice nothing, nor do those of other ports; Pings count. */
static void test_others(void)
{
    open_pair(&plain_port);
    add(2);
    CHECK(relay_pair(relay, 9, ends[2].handle, ends[1].handle));
    set(2, 0);
    for (int i = 0; i < 10; i++)
        say_packet(1, 7, 8, 's');
    for (int i = 0; i < 9; i++)
        say_packet(0, 0, 1, 5);
    UNTIL(link_of(0)->slowed);
    CHECK(totals().pings == 9 && !link_of(1)->slowed);
    say_packet(2, 9, 8, 'o');
    UNTIL(counts(2).packets_in == 1);
    CHECK(!link_of(2)->slowed);
    end();
}

/* Who is slowed is not idle, is heard when he ends, and what he said before is passed on. */
static void test_ends(void)
{
    struct relay_port port = plain_port;
    port.read_size = 160; /* 10 packets */
    port.idle_timeout = 3;
    port.queue_packets = 1000;
    open_pair(&port);
    relay->ports[1].idle_timeout = 0;
    set(1, 0);
    say_many(30, 8);
    shutdown(ends[0].peer, SHUT_WR);
    UNTIL(link_of(0)->slowed);
    settle_down();
    CHECK(counts(0).input_bytes == 20 * 16 && !told(0, RELAY_FIN));
    bool fin = false;
    for (int i = 0; i < 350; i++) {
        sweep(.1);
        CHECK(!told(0, RELAY_IDLE));
        turn();
        fin = fin || told(0, RELAY_FIN);
        CHECK(!fin || forwarded() == 30);
    }
    CHECK(fin && totals().slowed == 0);
    end();
}

/* An end of any kind leaves nothing, and the next link in its place begins anew. */
static void test_goes(void)
{
    open_pair(&plain_port);
    set(1, 0);
    for (int i = 0; i < 3; i++) {
        say_many(10, 8);
        UNTIL(link_of(0)->slowed);
        if (i == 0)
            break_off(0);
        else
            relay_close(relay, ends[0].handle, i == 1 ? RELAY_ABORT : RELAY_HALF);
        CHECK(i == 0 || totals().slowed == 0);
        if (i == 2) {
            close(ends[0].peer);
            ends[0].peer = -1;
        }
        for (int turns = 0; turns < 3000 && !told(0, RELAY_GONE); turns++) {
            sweep(.1);
            if (!told(0, RELAY_GONE))
                turn();
        }
        CHECK(told(0, RELAY_GONE) && totals().slowed == 0);
        relay_release(relay, ends[0].handle);
        if (ends[0].peer >= 0)
            close(ends[0].peer);
        add(0);
        CHECK(relay_pair(relay, 7, ends[0].handle, ends[1].handle));
        say_packet(0, 7, 8, 'n');
        UNTIL(forwarded() == 1);
        sweep(5);
    }
    end();
}

static void test_wrong(void)
{
    begin(&plain_config, &plain_port);
    CHECK(relay_rate(relay, 2, 1, 1) == -1 && errno == EINVAL);
    CHECK(relay_rate(relay, -1, 1, 1) == -1);
    CHECK(relay_rate(relay, 0, -1, 0) == -1);
    CHECK(relay_rate(relay, 0, 0, 0. / 0.) == -1);
    end();
}

/* Who is refused at the door gets a reset, and is no link. */
static void test_refuse(void)
{
    begin(&plain_config, &plain_port);
    int peer = dial();
    int fd = relay_take(listening, 1 << 20, &accepted);
    CHECK(fd >= 0 && totals().links == 0);
    relay_refuse(fd);
    usleep(1000);
    CHECK(recv(peer, got, 1, 0) == -1 && errno == ECONNRESET);
    close(peer);
    CHECK(relay_take(listening, 1 << 20, &accepted) == -1 && errno == EAGAIN);
    peer = dial();
    CHECK(relay_take(listening, 3, &accepted) == -1 && errno == EUSERS);
    close(peer);
    end();
}

int main(void)
{
    test_packets();
    test_bytes_and_commands();
    test_frames();
    test_others();
    test_ends();
    test_goes();
    test_wrong();
    test_refuse();
    puts("test_rates: ok");
    return 0;
}
