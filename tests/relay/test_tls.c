/* TLS: links whose bytes a library seals and opens, here a toy. */
#include "bed.h"
#include "toy.h"

#define BIG 400000

static uint8_t sealed[2 * BIG], got[2 * BIG], plain[BIG];
static struct toy *toys[ENDS], *far[ENDS]; /* the core's, and the peers' */

static void fill(uint8_t *to, size_t size)
{
    uint32_t turn = (uint32_t)size + 1;
    for (size_t i = 0; i < size; i++)
        to[i] = (uint8_t)((turn = turn * 1664525 + 1013904223) >> 24);
}

static struct relay_port roomy(void)
{
    struct relay_port port = plain_port;
    port.queue_bytes = port.queue_packets = 1 << 20;
    return port;
}

/* A link that is not started; even ones are clients. */
static void accept_link(int which)
{
    int small = 4096;
    ends[which].peer = dial();
    ends[which].handle = take_in(which % 2);
    CHECK(ends[which].handle != 0);
    setsockopt(relay_socket(relay, ends[which].handle), SOL_SOCKET, SO_SNDBUF, &small,
               sizeof small);
    relay_set_owner(relay, ends[which].handle, &ends[which]);
}

/* What the library says of a link that is gone; 0: nothing. */
static uint32_t error_of(int which)
{
    uint32_t codes[RELAY_TLS_ERRORS];
    int count = relay_tls_errors(relay, ends[which].handle, codes);
    CHECK(count <= 1);
    return count == 0 ? 0 : codes[0];
}

static bool secure(int which, const void *data, size_t size)
{
    struct toy *toy = toys[which];
    return relay_tls(relay, ends[which].handle, toy, toy->into, toy->from, data, size);
}

static void add_secure(int which, bool started)
{
    accept_link(which);
    CHECK(secure(which, NULL, 0));
    if (started)
        relay_start(relay, ends[which].handle, NULL, 0, RELAY_PLAIN, now);
}

static void begin_secure(const struct relay_port *port)
{
    begin(&plain_config, port);
    relay_library(relay, &toy_library);
    for (int i = 0; i < ENDS; i++) {
        toys[i] = toy_new();
        far[i] = toy_new();
    }
}

static void end_secure(void)
{
    end();
    for (int i = 0; i < ENDS; i++) {
        toy_free(toys[i]);
        toy_free(far[i]);
        toys[i] = far[i] = NULL;
    }
}

static size_t say_sealed(int which, char kind, const void *data, size_t size)
{
    uint8_t record[TOY_HEAD + TOY_RECORD];
    size_t all = toy_seal(record, kind, data, size);
    say(which, record, all);
    return all;
}

/* Let the peer read what has come, and open it; returns how many bytes were in it. */
static size_t hear_opened(int which, uint8_t *data, size_t room)
{
    struct toy *toy = far[which];
    size_t size = hear(which, sealed, sizeof sealed), all = 0;
    int some;
    toy_put(toy->into, sealed, size);
    toy_code = 0;
    while (all < room && (some = toy_read_on(toy, data + all, (int)(room - all))) > 0)
        all += (size_t)some;
    toy_code = 0;
    CHECK(!toy->broken);
    return all;
}

/* The peer reads until it has so much, or TLS has ended. */
static size_t hear_all(int which, uint8_t *data, size_t wanted)
{
    size_t all = 0;
    for (int i = 0; i < 4000 && all < wanted && !far[which]->ended; i++) {
        turn();
        all += hear_opened(which, data + all, wanted - all);
    }
    return all;
}

/* Before the start: bytes come opened and go sealed, and those of the handshake before neither. */
static void test_bytes(void)
{
    begin_secure(&plain_port);
    accept_link(0);
    say(0, "hello", 5);
    UNTIL(told(0, RELAY_BYTES));
    CHECK(kept_size == 5 && memcmp(kept, "hello", 5) == 0);
    relay_send(relay, ends[0].handle, "server hello", 12, 0);
    CHECK(secure(0, NULL, 0));
    CHECK(!secure(0, NULL, 0)); /* it has it */
    CHECK(counts(0).bytes_in == 0 && counts(0).waiting_bytes == 0);
    relay_send(relay, ends[0].handle, "secret", 6, 0);
    turn();
    CHECK(hear(0, got, 12) == 12 && memcmp(got, "server hello", 12) == 0);
    CHECK(hear_all(0, got, 6) == 6 && memcmp(got, "secret", 6) == 0);
    say_sealed(0, 'd', "answer", 6);
    UNTIL(told(0, RELAY_BYTES));
    CHECK(kept_size == 6 && memcmp(kept, "answer", 6) == 0);
    CHECK(counts(0).bytes_in == 6);
    end_secure();
}

/* Without a library, for who is gone or started, there is none. */
static void test_refused(void)
{
    begin_secure(&plain_port);
    accept_link(0);
    CHECK(error_of(0) == 0 && error_of(1) == 0);
    relay->library = (struct relay_library){0};
    CHECK(!secure(0, NULL, 0));
    relay_library(relay, &toy_library);
    relay_start(relay, ends[0].handle, NULL, 0, RELAY_PLAIN, now);
    CHECK(!secure(0, NULL, 0));
    accept_link(2);
    relay_close(relay, ends[2].handle, RELAY_ABORT);
    CHECK(!secure(2, NULL, 0));
    accept_link(4);
    calls.fail_calloc = 1;
    CHECK(!secure(4, NULL, 0));
    turn();
    CHECK(told(4, RELAY_NO_MEMORY));
    end_secure();
}

/* What came behind the handshake is not lost: in the library, and given along. */
static void test_what_came_before(void)
{
    begin_secure(&plain_port);
    accept_link(0);
    uint8_t record[64];
    toy_put(toys[0]->into, record, toy_seal(record, 'd', "one", 3));
    size_t size = toy_seal(record, 'd', "two", 3);
    toy_put(toys[0]->into, record, 2); /* its first bytes */
    CHECK(secure(0, record + 2, size - 2));
    CHECK(counts(0).input_bytes == 6);
    for (int i = 0; i < 10 && !told(0, RELAY_BYTES); i++)
        turn();
    CHECK(kept_size == 6 && memcmp(kept, "onetwo", 6) == 0);
    end_secure();
}

/* What was kept while the caller shook hands is opened too, and its end is judged. */
static void test_kept_before(void)
{
    static const struct {
        char last;
        enum relay_event_kind kind;
    } ways[] = {{'c', RELAY_FIN}, {'d', RELAY_GONE}};
    for (int way = 0; way < 2; way++) {
        begin_secure(&plain_port);
        accept_link(0);
        say(0, "hello", 5);
        do
            run();
        while (!told(0, RELAY_BYTES));
        link_of(0)->suspended = true; /* as if its answer took longer */
        list_drop(&link_of(0)->work_node);
        say_sealed(0, 'd', "three", 5);
        say_sealed(0, ways[way].last, "", 0);
        shutdown(ends[0].peer, SHUT_WR);
        for (int i = 0; i < 10; i++)
            run();
        CHECK(link_of(0)->ended && link_of(0)->rest_bytes > 5);
        link_of(0)->suspended = false;
        CHECK(secure(0, NULL, 0));
        CHECK(link_of(0)->rest_bytes == 5);
        for (int i = 0; i < 10 && !told(0, RELAY_BYTES); i++)
            turn();
        CHECK(kept_size == 5 && memcmp(kept, "three", 5) == 0);
        UNTIL(told(0, ways[way].kind));
        end_secure();
    }
}

/* Packets between two such links, in records cut anywhere. */
static void test_forward(void)
{
    begin_secure(&plain_port);
    add_secure(0, true), add_secure(1, true);
    relay_pair(relay, 1, ends[0].handle, ends[1].handle);
    size_t size = 0, out = 0;
    for (int i = 0; i < 60; i++)
        size += make(plain + size, 1, (size_t)i * 37 % 900, (uint8_t)i);
    for (size_t at = 0, piece = 1; at < size; at += piece, piece = piece * 7 % 701 + 1) {
        if (piece > size - at)
            piece = size - at;
        out += toy_seal(sealed + out, 'd', plain + at, piece);
    }
    size_t back = 0;
    for (size_t at = 0, piece = 1; at < out; at += piece, piece = piece * 5 % 97 + 1) {
        if (piece > out - at)
            piece = out - at;
        say(0, sealed + at, piece);
        turn();
        CHECK(!toy_has(toys[0]));
        uint8_t *copy = malloc(out);
        memcpy(copy, sealed, out);
        back += hear_opened(1, got + back, sizeof got - back);
        memcpy(sealed, copy, out);
        free(copy);
    }
    back += hear_all(1, got + back, size - back);
    CHECK(back == size && memcmp(got, plain, size) == 0);
    CHECK(totals().packets == 60 && counts(0).bytes_in == size && counts(1).bytes_out == size);
    CHECK(counts(1).waiting_bytes == 0);
    end_secure();
}

/* A record larger than a read: it is opened when it is whole, and nothing stays inside. */
static void test_large_records(void)
{
    begin_secure(&plain_port); /* reads 2048 bytes at once */
    add_secure(0, true), add_secure(1, true);
    relay_pair(relay, 1, ends[0].handle, ends[1].handle);
    size_t size = make(plain, 1, 60000, 'x'), at = 0, back = 0;
    while (at < size) {
        size_t piece = size - at < TOY_RECORD ? size - at : TOY_RECORD;
        size_t all = toy_seal(sealed, 'd', plain + at, piece);
        for (size_t sent = 0; sent < all;) {
            ssize_t some = send(ends[0].peer, sealed + sent, all - sent, MSG_DONTWAIT);
            sent += some > 0 ? (size_t)some : 0;
            turn();
            CHECK(!toy_has(toys[0]));
        }
        at += piece;
    }
    back = hear_all(1, got, size);
    CHECK(back == size && memcmp(got, plain, size) == 0);
    CHECK(toys[0]->into->most <= 4096 && toys[1]->from->most <= 4096 + TOY_HEAD);
    end_secure();
}

static void say_barren(int which, size_t count)
{
    uint8_t flood[1000 * TOY_HEAD];
    CHECK(count <= 1000);
    for (size_t i = 0; i < count; i++)
        toy_seal(flood + i * TOY_HEAD, 'k', "", 0);
    say(which, flood, count * TOY_HEAD);
}

static void say_behind(int which)
{
    say_sealed(which, 'd', "behind", 6);
    do
        turn();
    while (!told(which, RELAY_BYTES));
}

/* Who says much that brings nothing is lost at once, whatever data is between; as much as one may
 * say in the end loses nothing. */
static void test_barren(void)
{
    begin_secure(&plain_port);
    add_secure(0, false), add_secure(2, false);
    for (int i = 0; i < 20; i++, now += 32) {
        say_barren(0, 32);
        say_behind(0);
        CHECK(kept_size == 6 && memcmp(kept, "behind", 6) == 0);
    }
    now += 1000; /* is no more than a rest */
    say_barren(0, 30);
    say_behind(0);
    unsigned reads = toys[0]->reads;
    say_barren(0, 500);
    say_sealed(0, 'd', "behind", 6);
    UNTIL(told(0, RELAY_GONE));
    CHECK(last[0].detail == EPROTO && error_of(0) == RELAY_TLS_BARREN);
    CHECK(toys[0]->reads <= reads + 4);
    end_secure();
}

/* Memory that the handshake or much data went through is replaced, where there is some. */
static void test_shed(void)
{
    for (toy_full = 0; toy_full < 2; toy_full++) {
        struct relay_port port = roomy();
        begin_secure(&port);
        accept_link(0);
        struct toy *toy = toys[0];
        toy_put(toy->into, plain, 1000), toy_take(toy->into, plain, 1000);
        toy_put(toy->from, plain, 1000), toy_take(toy->from, plain, 1000);
        toy_put(toy->into, sealed, toy_seal(sealed, 'd', "one", 3));
        CHECK(secure(0, NULL, 0));
        CHECK(!toy_full == (toy->into->room == 0) && !toy_full == (toy->from->room == 0));
        UNTIL(told(0, RELAY_BYTES));
        CHECK(kept_size == 3 && memcmp(kept, "one", 3) == 0);
        say_behind(0);
        CHECK(toy->into->room > 0);
        say_sealed(0, 'd', plain, 2000);
        do
            turn();
        while (!told(0, RELAY_BYTES));
        CHECK(!toy_full == (toy->into->room == 0));
        relay_send(relay, ends[0].handle, plain, 100, 1);
        CHECK(hear_all(0, got, 100) == 100 && toy->from->room > 0);
        relay_send(relay, ends[0].handle, plain, 3000, 1);
        CHECK(hear_all(0, got, 3000) == 3000 && !toy_full == (toy->from->room == 0));
        end_secure();
    }
    toy_full = 0;
}

/* Peers that want short records have the library seal less than it is given, each time. */
static void test_short_records(void)
{
    struct relay_port port = roomy();
    begin_secure(&port);
    add_secure(0, true);
    toys[0]->piece = 512;
    fill(plain, 50000);
    relay_send(relay, ends[0].handle, plain, 50000, 1);
    CHECK(hear_all(0, got, 50000) == 50000 && memcmp(got, plain, 50000) == 0);
    CHECK(toys[0]->from->most < 4096 + 4096 && totals().waiting_bytes == 0);
    end_secure();
}

/* What a link that is not read from has inside the library waits as what was read, and goes on
 * without its socket. */
static void test_paused(void)
{
    begin_secure(&plain_port);
    add_secure(0, true), add_secure(1, true);
    relay_pair(relay, 1, ends[0].handle, ends[1].handle);
    size_t command = make(plain, 0, 5, 0), size = command;
    plain[8] = 9; /* for the caller */
    for (int i = 0; i < 30; i++)
        size += make(plain + size, 1, 100, (uint8_t)i);
    say(0, sealed, toy_seal(sealed, 'd', plain, size)); /* in one record */
    for (int i = 0; i < 100 && !told(0, RELAY_PACKETS); i++)
        run();
    CHECK(told(0, RELAY_PACKETS) && counts(0).input_bytes == size - command);
    CHECK(!toy_has(toys[0]));
    relay_pause(relay, ends[0].handle);
    for (int i = 0; i < 5; i++)
        turn();
    CHECK(counts(1).bytes_out == 0);
    relay_resume(relay, ends[0].handle, now);
    CHECK(hear_all(1, got, size - command) == size - command);
    CHECK(memcmp(got, plain + command, size - command) == 0);
    end_secure();
}

/* The peer ends TLS: behind all that it said that is a FIN, whether TCP's follows or not. */
static void test_end_of_peer(void)
{
    for (int follows = 0; follows < 2; follows++) {
        begin_secure(&plain_port);
        add_secure(0, true), add_secure(1, true);
        relay_pair(relay, 1, ends[0].handle, ends[1].handle);
        size_t size = make(plain, 1, 1000, 'x'), out = toy_seal(sealed, 'd', plain, size);
        out += toy_seal(sealed + out, 'c', "", 0);
        out += toy_seal(sealed + out, 'd', plain, size); /* does not count */
        say(0, sealed, out);
        if (follows)
            shutdown(ends[0].peer, SHUT_WR);
        UNTIL(told(0, RELAY_FIN));
        CHECK(counts(1).bytes_out == size && counts(0).bytes_in == size);
        relay_close(relay, ends[0].handle, RELAY_CLOSE);
        CHECK(hear_all(0, got, 1) == 0 && far[0]->ended); /* and so do we */
        end_secure();
    }
}

/* TCP's end alone could be anybody's: the link breaks, behind what it said. */
static void test_cut_off(void)
{
    for (int held = 0; held < 2; held++) {
        begin_secure(&plain_port);
        add_secure(0, true), add_secure(1, true);
        relay_pair(relay, 1, ends[0].handle, ends[1].handle);
        if (held)
            relay_pause(relay, ends[0].handle);
        size_t size = make(plain, 1, 1000, 'x'), out = toy_seal(sealed, 'd', plain, size);
        say(0, sealed, out);
        say(0, "d\7", 2); /* and a part of a record */
        shutdown(ends[0].peer, SHUT_WR);
        for (int i = 0; held && i < 10; i++)
            turn();
        if (held)
            relay_resume(relay, ends[0].handle, now);
        for (int i = 0; i < 100 && !told(0, RELAY_GONE); i++)
            turn();
        CHECK(told(0, RELAY_GONE) && last[0].detail == ECONNRESET);
        CHECK(counts(1).bytes_out == size && error_of(0) == 0);
        end_secure();
    }
}

/* What cannot be opened breaks the link behind what could be; its peer is told, the caller too. */
static void test_broken(void)
{
    for (int started = 0; started < 2; started++) {
        begin_secure(&plain_port);
        add_secure(0, started), add_secure(1, true);
        relay_pair(relay, 1, ends[0].handle, ends[1].handle);
        size_t size = make(plain, 1, 1000, 'x'), out = toy_seal(sealed, 'd', plain, size);
        out += toy_seal(sealed + out, 'x', plain, 9);
        out += toy_seal(sealed + out, 'd', plain, size);
        say(0, sealed, out);
        for (int i = 0; i < 100 && !told(0, started ? RELAY_GONE : RELAY_BYTES); i++)
            turn();
        if (!started) {
            CHECK(kept_size == size);
            UNTIL(told(0, RELAY_GONE));
        }
        CHECK(last[last_count - 1].detail == EPROTO);
        CHECK(error_of(0) == TOY_ERROR);
        CHECK(!started || counts(1).bytes_out == size);
        CHECK(hear(0, got, sizeof got) == TOY_HEAD && got[0] == 'e');
        end_secure();
    }
}

/* The same where all of it came in the breath of the handshake, and counts. */
static void test_broken_at_once(void)
{
    begin_secure(&plain_port);
    add_secure(1, true);
    accept_link(0);
    size_t size = make(plain, 1, 1000, 'x'), out = toy_seal(sealed, 'd', plain, size);
    toy_put(toys[0]->into, sealed, out + toy_seal(sealed + out, 'x', plain, 9));
    CHECK(secure(0, NULL, 0));
    relay_pair(relay, 1, ends[0].handle, ends[1].handle);
    relay_start(relay, ends[0].handle, NULL, 0, RELAY_PLAIN, now);
    UNTIL(told(0, RELAY_GONE));
    CHECK(last[last_count - 1].detail == EPROTO && error_of(0) == TOY_ERROR);
    CHECK(counts(1).bytes_out == size && counts(0).bytes_in == size);
    end_secure();
}

/* Much for a peer that does not read: it is bounded and counted as without TLS, and arrives. */
static void test_blocked(void)
{
    struct relay_port port = roomy();
    begin_secure(&port);
    add_secure(0, true);
    fill(plain, BIG);
    for (int i = 0; i < 10; i++)
        relay_send(relay, ends[0].handle, plain + i * (BIG / 10), BIG / 10, 1);
    turn();
    const struct link *link = link_of(0);
    CHECK(link->blocked && link->tls->out != NULL && chunk_length(link->tls->out) <= 20480);
    CHECK(counts(0).waiting_bytes > BIG / 2);
    CHECK(counts(0).waiting_bytes + relay_taken(relay, ends[0].handle) == BIG);
    relay_tell_taken(relay, ends[0].handle, BIG - 1);
    size_t back = 0;
    bool taken = false;
    for (int i = 0; i < 20000 && back < BIG; i++) {
        turn();
        taken = taken || told(0, RELAY_TAKEN);
        back += hear_opened(0, got + back, sizeof got - back);
        CHECK(counts(0).waiting_bytes + relay_taken(relay, ends[0].handle) == BIG);
        CHECK((link->blocked && link->tls->out != NULL) || counts(0).waiting_bytes == 0);
    }
    CHECK(back == BIG && memcmp(got, plain, BIG) == 0 && taken);
    turn();
    CHECK(!link->blocked && link->tls->out == NULL && link->jam == NULL);
    CHECK(toys[0]->from->most <= 4096 + TOY_HEAD);
    end_secure();
}

/* The last bytes are sealed and wait: nothing is queued, and it is blocked all the same. */
static void test_blocked_by_the_last(void)
{
    begin_secure(&plain_port);
    add_secure(0, true);
    struct link *link = link_of(0);
    fill(plain, BIG);
    relay_send(relay, ends[0].handle, plain, 15000, 1);
    while (link->waiting_bytes > 0 || link->tls->out == NULL) {
        relay_send(relay, ends[0].handle, plain, 700, 1);
        turn();
        CHECK(link->waiting_bytes == 0);
    }
    CHECK(link->blocked && link->jam != NULL);
    sweep(5);
    CHECK(!told(0, RELAY_STUCK));
    for (int i = 0; i < 8 && !told(0, RELAY_STUCK); i++)
        sweep(5);
    CHECK(told(0, RELAY_STUCK));
    relay_close(relay, ends[0].handle, RELAY_CLOSE);
    turn();
    CHECK(link->fd >= 0);
    CHECK(hear_all(0, got, sizeof got) >= 15000 && far[0]->ended && link->state == DEAD);
    end_secure();
}

/* A close says that TLS ends, behind what waits; an abort and a loss say nothing. */
static void test_goodbye(void)
{
    static const enum relay_end hows[] = {RELAY_CLOSE, RELAY_HALF, RELAY_ABORT};
    struct relay_port port = roomy();
    for (int i = 0; i < 3; i++) {
        begin_secure(&port);
        add_secure(0, true);
        fill(plain, 100000);
        relay_send(relay, ends[0].handle, plain, 100000, 1);
        relay_close(relay, ends[0].handle, hows[i]);
        size_t back = hear_all(0, got, hows[i] == RELAY_ABORT ? 1 : 100001);
        CHECK(toys[0]->said == (hows[i] != RELAY_ABORT));
        if (hows[i] != RELAY_ABORT)
            CHECK(far[0]->ended && back == 100000 && memcmp(got, plain, back) == 0);
        if (hows[i] == RELAY_HALF) {
            CHECK(link_of(0)->state == HALF);
            say_sealed(0, 'd', plain, 5000); /* into nothing */
            say_sealed(0, 'k', "", 0);       /* and it is not answered any more */
            for (int turns = 0; turns < 10; turns++)
                turn();
            CHECK(link_of(0)->state == HALF && hear(0, got, 1) == 0);
            say_sealed(0, 'c', "", 0);
        }
        UNTIL(link_of(0)->state == DEAD);
        end_secure();
    }
}

/* In a half-close what cannot be opened, and TCP's end, are its end. */
static void test_half_ends(void)
{
    for (int way = 0; way < 2; way++) {
        begin_secure(&plain_port);
        add_secure(0, true);
        relay_close(relay, ends[0].handle, RELAY_HALF);
        turn();
        if (way == 0)
            say_sealed(0, 'x', "", 0);
        else
            shutdown(ends[0].peer, SHUT_WR);
        UNTIL(link_of(0)->state == DEAD);
        end_secure();
    }
}

/* Answers of the library go out by themselves; a peer that wants ever more and reads none is lost. */
static void test_answers(void)
{
    begin_secure(&plain_port);
    add_secure(0, true);
    say_sealed(0, 'k', "", 0);
    turn();
    CHECK(hear(0, got, sizeof got) == TOY_HEAD && got[0] == 'a');
    toys[0]->chatty = 1000;
    bool lost = false;
    size_t most = 0;
    for (int i = 0; i < 4000 && !lost; i++, now += 20) {
        say_barren(0, 20);
        turn();
        lost = told(0, RELAY_GONE);
        const struct tls *tls = link_of(0)->tls;
        if (tls->out != NULL && chunk_length(tls->out) > most)
            most = chunk_length(tls->out);
    }
    CHECK(lost && last[0].detail == EPROTO && most > 30000 && most <= 64 << 10);
    end_secure();
}

/* Over the bounds, without memory, at a socket that breaks: as without TLS. */
static void test_losses(void)
{
    begin_secure(&plain_port);
    add_secure(0, true), add_secure(2, true);
    fill(plain, BIG);
    for (int i = 0; i < 40 && !told(0, RELAY_OVER); i++) {
        relay_send(relay, ends[0].handle, plain, 15000, 1);
        turn();
    }
    CHECK(told(0, RELAY_OVER) && link_of(0)->tls->out == NULL);
    relay_close(relay, ends[0].handle, RELAY_CLOSE);
    UNTIL(link_of(0)->state == DEAD);
    CHECK(!toys[0]->said); /* within a record */
    calls.fail_send = EPIPE;
    relay_send(relay, ends[2].handle, plain, 10, 1);
    UNTIL(told(2, RELAY_GONE));
    end_secure();
}

/* A library that fails to seal is the end of the link. */
static void test_seal_fails(void)
{
    begin_secure(&plain_port);
    add_secure(0, true);
    toys[0]->broken = 1;
    relay_send(relay, ends[0].handle, plain, 10, 1);
    UNTIL(told(0, RELAY_GONE));
    CHECK(last[0].detail == EPROTO && error_of(0) == TOY_ERROR);
    end_secure();
}

/* What is sealed and waits is memory too, for which its link goes. */
static void test_memory_limit(void)
{
    begin_secure(&plain_port);
    add_secure(0, true), add_secure(2, true), add_secure(1, true);
    relay_pair(relay, 1, ends[0].handle, ends[1].handle);
    fill(plain, BIG);
    while (link_of(2)->waiting_bytes > 0 || link_of(2)->tls->out == NULL) {
        relay_send(relay, ends[2].handle, plain, 700, 1);
        turn();
        CHECK(link_of(2)->waiting_bytes == 0);
    }
    relay_limit(relay, pool_used(relay_pool(relay)) + 64);
    say(0, sealed, toy_seal(sealed, 'd', plain, make(plain, 1, 1000, 'x')));
    UNTIL(told(2, RELAY_NO_MEMORY));
    CHECK(link_of(2)->tls->out == NULL);
    CHECK(hear_all(1, got, 1008) == 1008);
    relay_limit(relay, 0);
    end_secure();
}

/* The frames of a WebSocket inside of it, and its Close before the end of TLS. */
static void test_websocket_inside(void)
{
    struct relay_port port = roomy();
    begin_secure(&port);
    add_secure(0, false);
    relay_start(relay, ends[0].handle, NULL, 0, RELAY_WEBSOCKET, now);
    uint8_t frame[] = {0x82, 0x89, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 5}; /* a Ping of ours */
    say_sealed(0, 'd', frame, sizeof frame);
    CHECK(hear_all(0, got, 11) == 11 && got[0] == 0x82 && got[1] == 9 && got[10] == 5);
    fill(plain, 100000);
    relay_send(relay, ends[0].handle, plain, 100000, 1);
    relay_farewell(relay, ends[0].handle, 1001, "bye");
    relay_close(relay, ends[0].handle, RELAY_CLOSE);
    size_t back = hear_all(0, got, sizeof got), at = 0, body = 0;
    CHECK(far[0]->ended && back > 100000 + 7);
    while (got[at] == 0x82) {
        size_t length = got[at + 1], head = 2;
        if (length == 126) {
            length = (size_t)got[at + 2] << 8 | got[at + 3];
            head = 4;
        }
        CHECK(memcmp(got + at + head, plain + body, length) == 0);
        body += length;
        at += head + length;
    }
    CHECK(body == 100000 && back - at == 7 && memcmp(got + at, "\x88\5\3\xE9" "bye", 7) == 0);
    say_sealed(0, 'c', "", 0);
    UNTIL(link_of(0)->state == DEAD);
    end_secure();
}

int main(void)
{
    test_bytes();
    test_refused();
    test_what_came_before();
    test_kept_before();
    test_forward();
    test_large_records();
    test_barren();
    test_shed();
    test_short_records();
    test_paused();
    test_end_of_peer();
    test_cut_off();
    test_broken();
    test_broken_at_once();
    test_blocked();
    test_blocked_by_the_last();
    test_goodbye();
    test_half_ends();
    test_answers();
    test_losses();
    test_seal_fails();
    test_memory_limit();
    test_websocket_inside();
    printf("test_tls: ok\n");
    return 0;
}
