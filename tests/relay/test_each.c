/* What the caller says to many links, which are not started. */
#include "bed.h"

static uint8_t got[1 << 20], message[1 << 20];

/* Links 0 to 3, clients and servers, that are not started. */
static void add_all(const struct relay_config *config, const struct relay_port *port)
{
    begin(config, port);
    for (int which = 0; which < 4; which++) {
        int small = 4096;
        ends[which].peer = dial();
        ends[which].handle = take_in(which % 2);
        CHECK(ends[which].handle != 0);
        setsockopt(relay_socket(relay, ends[which].handle), SOL_SOCKET, SO_SNDBUF, &small,
                   sizeof small);
        relay_set_owner(relay, ends[which].handle, &ends[which]);
    }
}

static size_t send_each(size_t size, uint8_t fill)
{
    relay_handle handles[] = {ends[0].handle, ends[1].handle, 12345, ends[2].handle, 0,
                              ends[3].handle};
    memset(message, fill, size);
    return relay_send_each(relay, handles, sizeof handles / sizeof *handles, message, size);
}

/* All that comes is so many bytes of `fill`, and then so many of another. */
static void hear_runs(int which, const size_t *sizes, const char *fills)
{
    size_t came = 0, wanted = 0;
    for (int i = 0; fills[i]; i++)
        wanted += sizes[i];
    for (int i = 0; i < 4000 && came < wanted; i++) {
        turn();
        came += hear(which, got + came, sizeof got - came);
    }
    CHECK(came == wanted);
    for (size_t i = 0, at = 0; fills[i]; i++)
        for (size_t end = at + sizes[i]; at < end; at++)
            CHECK(got[at] == (uint8_t)fills[i]);
}

/* Each gets it bare, in order with what it is told alone; of large ones there is one copy. */
static void test_order(void)
{
    static const size_t sizes[] = {1, 64, 4095, 4096, 70000};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct relay_port port = plain_port;
        port.queue_packets = port.queue_bytes = 1 << 30;
        add_all(&plain_config, &port);
        relay_send(relay, ends[2].handle, "aaa", 3, 0);
        CHECK(send_each(sizes[i], 'b') == 4);
        relay_send(relay, ends[2].handle, "cc", 2, 0);
        if (sizes[i] > 60000)
            CHECK(pool_used(relay->pool) < 2 * sizes[i]);
        for (int which = 0; which < 4; which++)
            if (which == 2)
                hear_runs(which, (size_t[]){3, sizes[i], 2}, "abc");
            else
                hear_runs(which, &sizes[i], "b");
        CHECK(totals().waiting_bytes == 0 && totals().waiting_packets == 0);
        CHECK(counts(1).packets_out == 1 && pool_used(relay->pool) == 0);
        CHECK(send_each(0, 'x') == 0);
        end();
    }
}

/* Who was closed gets nothing behind that, but what he was told before. */
static void test_closed(void)
{
    add_all(&plain_config, &plain_port);
    CHECK(send_each(10, 'a') == 4);
    relay_close(relay, ends[0].handle, RELAY_CLOSE);
    relay_close(relay, ends[1].handle, RELAY_HALF);
    relay_close(relay, ends[2].handle, RELAY_ABORT);
    CHECK(send_each(5000, 'b') == 1);
    hear_runs(0, (size_t[]){10}, "a");
    hear_runs(1, (size_t[]){10}, "a");
    hear_runs(3, (size_t[]){10, 5000}, "ab");
    end();
}

/* Who does not read is over his bound for what he was told so too, and alone is lost. */
static void test_over(void)
{
    struct relay_port port = plain_port;
    port.queue_packets = 1 << 30;
    add_all(&plain_config, &port);
    bool over = false;
    size_t heard[4] = {0}, sent = 100;
    CHECK(send_each(100, 'x') == 4 && relay_waiting(relay, ends[0].handle) == 100);
    for (int i = 0; i < 4000 && !over; i++) {
        CHECK(send_each(5000, 'x') == 4);
        sent += 5000;
        turn();
        over = told(0, RELAY_OVER);
        CHECK(over || relay_waiting(relay, ends[0].handle) <= port.queue_bytes);
        CHECK(!told(1, RELAY_OVER) && !told(2, RELAY_OVER) && !told(3, RELAY_OVER));
        for (int which = 1; which < 4; which++)
            heard[which] += hear(which, got, sizeof got);
    }
    CHECK(over);
    relay_close(relay, ends[0].handle, RELAY_ABORT);
    CHECK(relay_waiting(relay, 12345) == 0 && relay_waiting(relay, ends[0].handle) == 0);
    for (int which = 1; which < 4; which++)
        UNTIL((heard[which] += hear(which, got, sizeof got)) == sent);
    CHECK(pool_used(relay->pool) == 0);
    end();
}

/* Over the memory limit who holds most goes, and the others are told all the same. */
static void test_memory(void)
{
    struct relay_config config = plain_config;
    struct relay_port port = plain_port;
    config.pool.limit = 200000;
    port.queue_packets = port.queue_bytes = 1 << 30;
    add_all(&config, &port);
    memset(message, 'y', sizeof message);
    for (int i = 0; i < 150 && !told(2, RELAY_NO_MEMORY); i++) {
        relay_send(relay, ends[2].handle, message, 2000, 0);
        CHECK(send_each(100, 'x') >= 3);
        for (int which = 0; which < 4; which++)
            if (which != 2)
                hear(which, got, sizeof got);
        turn();
    }
    CHECK(told(2, RELAY_NO_MEMORY) && !told(0, RELAY_NO_MEMORY));
    CHECK(send_each(300000, 'z') == 3); /* it is larger than the limit itself */
    CHECK(!told(0, RELAY_NO_MEMORY));
    end();
}

int main(void)
{
    test_order();
    test_closed();
    test_over();
    test_memory();
    puts("test_each: ok");
    return 0;
}
