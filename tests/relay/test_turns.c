/* Turns: bounded in time, commands and events; what is left comes first in the next one. */
#include <sys/resource.h>

#include "bed.h"

#define CROWD 1024
#define FLOOD 16 /* packets of 1000 bytes that each says at a time */

static struct end crowd[CROWD];
static uint8_t got[1 << 20];

/* As many clients as there are descriptors for, all paired with the server ends[1]. */
static int gather(const struct relay_config *config, const struct relay_port *port, int wanted)
{
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    int room = files.rlim_cur > 4000 ? CROWD : (int)(files.rlim_cur - 100) / 2;
    begin(config, port);
    add(1);
    for (int i = 0; i < wanted && i < room; i++) {
        crowd[i].peer = dial();
        crowd[i].handle = take_in(0);
        CHECK(crowd[i].handle != 0);
        relay_set_owner(relay, crowd[i].handle, &crowd[i]);
        relay_start(relay, crowd[i].handle, NULL, 0, RELAY_PLAIN, now);
        relay_pair(relay, (uint32_t)i + 1, crowd[i].handle, ends[1].handle);
    }
    return wanted < room ? wanted : room;
}

static void scatter(int count)
{
    calls.step = 0;
    for (int i = 0; i < count; i++) {
        if (crowd[i].peer >= 0)
            close(crowd[i].peer);
        relay_close(relay, crowd[i].handle, RELAY_ABORT);
    }
    for (int i = 0; i < 2000 && totals().links > 1; i++) {
        turn();
        for (int at = 0; at < last_count; at++)
            if (last[at].kind == RELAY_GONE && last[at].owner != &ends[1])
                relay_release(relay, last[at].handle);
    }
    for (int i = 0; i < count; i++)
        relay_release(relay, crowd[i].handle);
    end();
}

static void crowd_says(int which, const void *data, size_t size)
{
    (void)!send(crowd[which].peer, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static uint64_t read_of(int count)
{
    uint64_t sum = 0;
    for (int i = 0; i < count; i++) {
        struct relay_counts of;
        CHECK(relay_counts(relay, crowd[i].handle, &of));
        sum += of.bytes_in;
    }
    return sum;
}

/* A flood of a thousand: a turn ends in its time, and the server's queue stays bounded, whatever
 * is left in the sockets. */
static void test_flood(void)
{
    static uint8_t packets[FLOOD * 1008];
    struct relay_config config = plain_config;
    struct relay_port port = plain_port;
    config.turn_seconds = .02; /* under sanitizers */
    port.read_size = 2048;
    port.queue_bytes = 1 << 20;
    port.queue_packets = 100000;
    int count = gather(&config, &port, CROWD);
    for (int i = 0; i < 30; i++) {
        for (int j = 0; j < count; j++) {
            for (int n = 0; n < FLOOD; n++)
                make(packets + n * 1008, (uint32_t)j + 1, 1000, 'f');
            crowd_says(j, packets, sizeof packets);
        }
        double began = clock_seconds();
        relay_run(relay, now);
        double took = clock_seconds() - began;
        CHECK(relay->told_count == 0);
        CHECK(took < .3); /* the bound is .06; on a machine that does other things */
        check_sums(relay, 1);
        /* The bound of the whole queue, and of each a share, a read and a packet over it. */
        CHECK(counts(1).waiting_bytes <= (1u << 20) + (unsigned)count * (2048 + 1008));
    }
    CHECK(totals().held > 0 && pool_used(relay_pool(relay)) < 8u << 20);
    scatter(count);
}

/* Sockets that a turn had no time for come first in the next one. */
static void test_unreached(void)
{
    static uint8_t packet[64];
    struct relay_config config = plain_config;
    config.turn_seconds = .05;
    int count = gather(&config, &plain_port, 64);
    size_t size = make(packet, 1, 10, 'u');
    for (int i = 0; i < count; i++) {
        make(packet, (uint32_t)i + 1, 10, 'u');
        crowd_says(i, packet, size);
    }
    usleep(2000);
    calls.step = .01; /* each look at the clock: a few sockets a turn */
    int turns = 0, most = 0;
    for (; read_of(count) < size * (uint64_t)count && turns < 200; turns++) {
        uint64_t before = read_of(count);
        CHECK(readable());
        relay_run(relay, now);
        int served = (int)((read_of(count) - before) / size);
        most = served > most ? served : most;
        /* The first ones have more to say at once, and are not preferred. */
        for (int i = 0; i < 4; i++)
            crowd_says(i, "", 0);
        uint64_t now_read = read_of(count);
        CHECK(now_read > before);
    }
    CHECK(turns > 5 && most < 20);
    scatter(count);
}

/* One that always has more does not keep others from being read. */
static void test_starvation(void)
{
    static uint8_t flood[4096];
    struct relay_config config = plain_config;
    struct relay_port port = plain_port;
    config.turn_seconds = .05;
    port.queue_bytes = 64 << 20;
    port.queue_packets = 1 << 20;
    int count = gather(&config, &port, 40);
    size_t size = make(flood, 1, 4000, 's');
    uint8_t quiet[16];
    for (int i = 20; i < count; i++) {
        make(quiet, (uint32_t)i + 1, 2, 'q');
        crowd_says(i, quiet, 10);
    }
    usleep(2000);
    calls.step = .01;
    uint64_t heard = 0;
    for (int i = 0; i < 60 && heard < 200; i++) {
        for (int j = 0; j < 20; j++) {
            make(flood, (uint32_t)j + 1, 4000, 's');
            crowd_says(j, flood, size);
        }
        relay_run(relay, now);
        relay_go_on(relay, now);
        heard = read_of(count) - read_of(20);
    }
    CHECK(heard == 200);
    scatter(count);
}

/* One that has little to say does not wait until all who flood were read. */
static void test_quiet_before_greedy(void)
{
    static uint8_t flood[4096];
    struct relay_config config = plain_config;
    struct relay_port port = plain_port;
    config.turn_seconds = .05;
    config.share_least = config.share_most = config.shares = 1 << 30; /* nobody is held */
    port.queue_bytes = 64 << 20;
    port.queue_packets = 1 << 20;
    int count = gather(&config, &port, 41), quiet = count - 1, turns = 0;
    uint64_t sent = 0;
    calls.step = .001; /* each look at the clock: some reads a turn */
    for (int i = 0; i < 3; i++) {
        for (int j = 0; j < quiet; j++)
            for (int n = 0; n < 8; n++) {
                size_t size = make(flood, (uint32_t)j + 1, 4000, 'g');
                crowd_says(j, flood, size);
                sent += size;
            }
        usleep(2000);
        for (int n = 0; n < 1000 && read_of(quiet) + (uint64_t)quiet * 16000 < sent; n++) {
            relay_run(relay, now);
            while (hear(1, got, sizeof got) == sizeof got)
                ;
        }
    }
    crowd_says(quiet, flood, make(flood, (uint32_t)quiet + 1, 2, 'q'));
    usleep(2000);
    for (; read_of(count) == read_of(quiet) && turns < 100; turns++)
        relay_run(relay, now);
    CHECK(turns <= 3);
    scatter(count);
}

/* Nor until all were read whose rate lets them go on. */
static void test_quiet_before_slowed(void)
{
    static uint8_t flood[4096];
    struct relay_config config = plain_config;
    struct relay_port port = plain_port;
    config.turn_seconds = .05;
    port.read_size = 1000;
    int count = gather(&config, &port, 41), quiet = count - 1;
    CHECK(relay_rate(relay, 0, 0, 1000) == 0);
    for (int j = 0; j < quiet; j++)
        crowd_says(j, flood, make(flood, (uint32_t)j + 1, 4000, 's'));
    for (int n = 0; n < 1000 && totals().slowed < (uint64_t)quiet; n++)
        relay_run(relay, now);
    CHECK(totals().slowed == (uint64_t)quiet);
    uint64_t before = read_of(quiet), all = read_of(count);
    now += 2;
    for (int n = 0; n < 100 && totals().slowed > 0; n++)
        relay_sweep(relay, now);
    crowd_says(quiet, flood, make(flood, (uint32_t)quiet + 1, 2, 'q'));
    usleep(2000);
    calls.step = .001;
    for (int n = 0; n < 100 && read_of(count) - all == read_of(quiet) - before; n++)
        relay_run(relay, now);
    CHECK(read_of(count) - all > read_of(quiet) - before); /* the quiet one was read, */
    CHECK(read_of(quiet) - before < (uint64_t)quiet * 500); /* and not half of the others */
    scatter(count);
}

/* So many commands of one link a turn, so many of all; links take turns, in order, and what
 * stands behind is not lost. */
static void test_commands(void)
{
    enum { EACH = 4, ALL = 10, COUNT = 6, SENT = 13 };
    static uint8_t data[SENT * 9];
    struct relay_config config = plain_config;
    config.commands_each = EACH;
    config.commands_turn = ALL;
    gather(&config, &plain_port, COUNT);
    for (int i = 0; i < COUNT; i++) {
        size_t size = 0;
        for (int n = 0; n < SENT; n++) /* commands and strays, also long runs of one id */
            size += make(data + size, n < 3 ? 0 : 5000, 1, (uint8_t)n);
        crowd_says(i, data, size);
    }
    usleep(2000);
    int handed[COUNT] = {0}, turns = 0, done = 0;
    while (done < COUNT * SENT) {
        CHECK(readable());
        run();
        CHECK(last_count > 0 && turns++ < 20);
        size_t at = 0;
        for (int i = 0; i < last_count; i++) {
            CHECK(last[i].kind == RELAY_PACKETS);
            int which = (int)((struct end *)last[i].owner - crowd), packets = 0;
            size_t stop = i + 1 == last_count ? kept_size : 0;
            (void)stop;
            /* Each is 9 bytes; its number is its last. */
            while (at < kept_size && kept[at + 8] == handed[which] && packets < EACH) {
                handed[which]++;
                packets++;
                at += 9;
                done++;
            }
            CHECK(packets > 0 && packets <= EACH);
        }
        CHECK(at == kept_size && kept_size <= ALL * 9);
        /* Nobody is two turns ahead of another. */
        for (int i = 0; i < COUNT; i++)
            for (int j = 0; j < COUNT; j++)
                CHECK(handed[i] <= handed[j] + 2 * EACH);
        relay_go_on(relay, now);
        check_sums(relay, 1);
    }
    run();
    CHECK(last_count == 0);
    scatter(COUNT);
}

/* Who waits with commands is not read from, and does not keep the loop awake by that. */
static void test_commands_wait(void)
{
    static uint8_t data[2000 * 9];
    struct relay_config config = plain_config;
    config.commands_each = 2;
    begin(&config, &plain_port);
    add(0), add(1);
    relay_pair(relay, 1, ends[0].handle, ends[1].handle);
    size_t size = 0;
    for (int i = 0; i < 2000; i++)
        size += make(data + size, 0, 1, 'c');
    say(0, data, size);
    run();
    CHECK(last_count == 1 && kept_size == 18);
    uint64_t read = counts(0).bytes_in;
    CHECK(read <= 2048 && counts(0).input_bytes == read - 18);
    for (int i = 0; i < 20; i++) {
        relay_go_on(relay, now);
        CHECK(!(link_of(0)->interest & EPOLLIN));
        run();
        CHECK(last_count == 1 && kept_size == 18 && counts(0).bytes_in == read);
    }
    relay_pause(relay, ends[0].handle); /* and paused it asks nothing, and nothing spins */
    relay_go_on(relay, now);
    turn();
    turn();
    CHECK(last_count == 0 && !readable());
    relay_resume(relay, ends[0].handle, now);
    turn();
    CHECK(last_count == 1 && kept_size == 18);
    end();
}

/* Packets behind a command go on as soon as it was handled, up to the next command. */
static void test_behind_commands(void)
{
    uint8_t data[200];
    begin(&plain_config, &plain_port);
    add(0), add(1);
    relay_pair(relay, 1, ends[0].handle, ends[1].handle);
    size_t size = make(data, 0, 1, 'a');
    size += make(data + size, 1, 5, 'b');
    size += make(data + size, 1, 6, 'c');
    size += make(data + size, 0, 1, 'd');
    size += make(data + size, 1, 7, 'e');
    say(0, data, size);
    run();
    CHECK(last_count == 1 && kept_size == 9 && hear(1, got, sizeof got) == 0);
    relay_go_on(relay, now);
    CHECK(hear(1, got, sizeof got) == 13 + 14);
    run();
    CHECK(last_count == 1 && kept_size == 9 && kept[8] == 'd');
    relay_go_on(relay, now);
    CHECK(hear(1, got, sizeof got) == 15);
    end();
}

/* Thousands of ends are told in slices, in order, with forwarding between them. */
static void test_mass_ends(void)
{
    int count = gather(&plain_config, &plain_port, 300);
    add(0);
    relay_pair(relay, 9999, ends[0].handle, ends[1].handle);
    for (int i = 0; i < count; i++) {
        close(crowd[i].peer);
        crowd[i].peer = -1;
    }
    usleep(20000);
    int ends_told = 0, turns = 0;
    for (; ends_told < count && turns < 50; turns++) {
        say_packet(0, 9999, 10, 'm');
        run();
        CHECK(last_count <= 64);
        CHECK(hear(1, got, sizeof got) == 18);
        for (int i = 0; i < last_count; i++)
            if (last[i].kind == RELAY_FIN && last[i].owner != &ends[0])
                ends_told++;
        CHECK(ends_told == count || readable() || relay->running);
        relay_go_on(relay, now);
        CHECK(ends_told == count || readable());
    }
    CHECK(ends_told == count && turns >= count / 64);
    scatter(count);
}

/* So are deadlines: some hundred a sweep, the others in the turns after it. */
static void test_mass_deadlines(void)
{
    int count = gather(&plain_config, &plain_port, 600), idle = 0, calls_made = 0;
    now += 31;
    relay_send(relay, ends[1].handle, "", 0, 0);
    sweep(0);
    for (; idle < count && calls_made < 50; calls_made++) {
        CHECK(last_count <= 64);
        for (int i = 0; i < last_count; i++)
            if (last[i].kind == RELAY_IDLE && last[i].owner != &ends[1])
                idle++;
        CHECK(idle == count || readable());
        turn();
    }
    CHECK(idle == count && calls_made >= count / 64);
    scatter(count);
}

/* Thousands that are let go at once go on as there is time. */
static void test_mass_release(void)
{
    static uint8_t packet[4100];
    struct relay_config config = plain_config;
    struct relay_port port = plain_port;
    config.turn_seconds = .05;
    port.queue_bytes = 100000;
    port.queue_packets = 1000000;
    int count = gather(&config, &port, 200);
    for (int round = 0; round < 400 && totals().held < 100; round++) {
        for (int i = 0; i < count; i++)
            crowd_says(i, packet, make(packet, (uint32_t)i + 1, 3000, 'r'));
        turn();
    }
    CHECK(totals().held >= 100);
    uint64_t before = totals().held;
    for (int i = 0; i < count; i++) {
        struct link *link = find(relay, crowd[i].handle);
        CHECK(link->held == 0 || !(link->interest & EPOLLIN));
    }
    calls.step = .01;
    relay_close(relay, ends[1].handle, RELAY_ABORT); /* lets all go */
    CHECK(totals().held == 0);
    relay_run(relay, now);
    int listening_again = 0;
    for (int i = 0; i < count; i++)
        listening_again += (find(relay, crowd[i].handle)->interest & EPOLLIN) != 0;
    CHECK(listening_again < (int)before); /* not all in one turn */
    relay_clear_events(relay);
    relay_go_on(relay, now);
    CHECK(readable());
    calls.step = 0;
    for (int i = 0; i < 20; i++)
        turn();
    for (int i = 0; i < count; i++)
        CHECK(find(relay, crowd[i].handle)->interest & EPOLLIN);
    scatter(count);
}

/* Of those who do not talk yet a few are heard in a turn: each may cost the caller a handshake. */
static void test_openings(void)
{
    struct relay_config config = plain_config;
    config.openings_turn = 2;
    begin(&config, &plain_port);
    for (int i = 0; i < ENDS; i++) {
        ends[i].peer = dial();
        ends[i].handle = take_in(0);
        relay_set_owner(relay, ends[i].handle, &ends[i]);
        say(i, "hello", 5);
    }
    usleep(2000);
    int heard = 0, turns = 0;
    for (; heard < ENDS && turns < 20; turns++) {
        int now_heard = 0;
        turn();
        for (int i = 0; i < last_count; i++)
            now_heard += last[i].kind == RELAY_BYTES;
        CHECK(now_heard <= 2);
        heard += now_heard;
        CHECK(heard == ENDS || readable());
    }
    CHECK(heard == ENDS && turns >= ENDS / 2);
    end();
}

/* Who is in comes before those who are not, however many these are. */
static void test_who_is_in(void)
{
    struct relay_config config = plain_config;
    config.events_turn = config.openings_turn = 1;
    begin(&config, &plain_port);
    add(0);
    for (int i = 2; i < ENDS; i += 2) {
        ends[i].peer = dial();
        ends[i].handle = take_in(0);
        relay_set_owner(relay, ends[i].handle, &ends[i]);
        say(i, "hello", 5);
    }
    usleep(2000);
    turn();
    CHECK(last_count == 1 && last[0].kind == RELAY_BYTES);
    shutdown(ends[0].peer, SHUT_WR);
    usleep(2000);
    turn();
    CHECK(last_count == 2 && told(0, RELAY_FIN) && last[1].kind == RELAY_BYTES);
    relay_close(relay, last[1].handle, RELAY_ABORT); /* and what it still had to tell is void */
    UNTIL(!readable());
    end();
}

/* Nothing of a link that the caller has closed is told any more but its end. */
static void test_void_events(void)
{
    struct relay_config config = plain_config;
    config.events_turn = 1;
    begin(&config, &plain_port);
    add(0), add(2);
    say_packet(0, 0, 1, 'v');
    say_packet(2, 0, 1, 'v');
    usleep(2000);
    run();
    CHECK(last_count == 1);
    int first = told(0, RELAY_PACKETS) ? 0 : 2;
    relay_close(relay, ends[2 - first].handle, RELAY_CLOSE);
    relay_go_on(relay, now);
    turn();
    CHECK(last_count == 1 && told(2 - first, RELAY_GONE));
    end();
}

/* While there is memory to give back the sweep has work, also without links. */
static void test_trim(void)
{
    static uint8_t packet[60000];
    struct relay_port port = plain_port;
    port.queue_bytes = 1 << 20;
    begin(&plain_config, &port);
    add(0);
    relay_send(relay, ends[0].handle, packet, sizeof packet, 1);
    turn();
    relay_close(relay, ends[0].handle, RELAY_ABORT);
    turn();
    CHECK(!relay_rests(relay));
    relay_release(relay, ends[0].handle);
    CHECK(totals().links == 0 && !relay_rests(relay));
    for (int i = 0; i < 30 && !relay_rests(relay); i++)
        sweep(.1);
    CHECK(relay_rests(relay));
    end();
}

int main(void)
{
    test_flood();
    test_unreached();
    test_starvation();
    test_quiet_before_greedy();
    test_quiet_before_slowed();
    test_commands();
    test_commands_wait();
    test_behind_commands();
    test_mass_ends();
    test_mass_deadlines();
    test_mass_release();
    test_openings();
    test_who_is_in();
    test_void_events();
    test_trim();
    puts("test_turns: ok");
    return 0;
}
