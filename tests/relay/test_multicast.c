/* One message over many virtual connections of a link. */
#include "bed.h"

static uint8_t got[1 << 20], said[1 << 20];

/* A server, 1, and clients 0, 2 and 4, over the virtual connections 10, 12 and 14. */
static void pair_all(const struct relay_config *config, const struct relay_port *port)
{
    begin(config, port);
    add(1);
    for (int which = 0; which <= 4; which += 2) {
        add(which);
        CHECK(relay_pair(relay, 10u + (uint32_t)which, ends[1].handle, ends[which].handle));
    }
}

/* What a client hears is exactly this. */
static void hear_just(int which, const uint8_t *data, size_t size)
{
    size_t came = 0;
    for (int i = 0; i < 4000 && came < size; i++) {
        turn();
        came += hear(which, got + came, sizeof got - came);
    }
    CHECK(came == size && memcmp(got, data, size) == 0);
}

static size_t multicast(size_t count, uint32_t *conn_ids, size_t size, uint8_t fill)
{
    static uint8_t message[1 << 20];
    memset(message, fill, size);
    return relay_multicast(relay, ends[1].handle, conn_ids, count, message, size);
}

/* Small and large, each gets it on its own connection, in order with what comes singly. */
static void test_order(void)
{
    static const size_t sizes[] = {0, 1, 64, 4095, 4096, 70000};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct relay_port port = plain_port;
        port.queue_packets = port.queue_bytes = 1 << 30;
        pair_all(&plain_config, &port);
        say_packet(1, 12, 3, 'a');
        UNTIL(counts(2).packets_out == 1);
        CHECK(multicast(3, (uint32_t[]){10, 12, 14}, sizes[i], 'b') == 0);
        say_packet(1, 12, 3, 'c');
        for (int which = 0; which <= 4; which += 2) {
            size_t size = which == 2 ? make(said, 12, 3, 'a') : 0;
            size += make(said + size, 10u + (uint32_t)which, sizes[i], 'b');
            if (which == 2)
                size += make(said + size, 12, 3, 'c');
            hear_just(which, said, size);
        }
        CHECK(totals().packets == 5 && totals().bytes == 3 * (8 + sizes[i]) + 22);
        CHECK(counts(1).packets_in == 2 && counts(0).packets_out == 1);
        CHECK(totals().waiting_bytes == 0 && totals().waiting_packets == 0);
        CHECK(pool_used(relay->pool) == 0);
        end();
    }
}

/* Those that are nobody's come back, in order; so do all of a link that is gone. */
static void test_left(void)
{
    pair_all(&plain_config, &plain_port);
    uint32_t conn_ids[] = {99, 10, 0, 14, 98};
    relay_close(relay, ends[4].handle, RELAY_ABORT);
    CHECK(multicast(5, conn_ids, 5000, 'x') == 4);
    CHECK(conn_ids[0] == 99 && conn_ids[1] == 0 && conn_ids[2] == 14 && conn_ids[3] == 98);
    hear_just(0, said, make(said, 10, 5000, 'x'));
    uint32_t more[] = {10, 12};
    CHECK(relay_multicast(relay, ends[0].handle, more, 2, "x", 1) == 1 && more[0] == 12);
    CHECK(relay_multicast(relay, 12345, more, 1, "x", 1) == 1);
    relay_close(relay, ends[1].handle, RELAY_CLOSE);
    CHECK(multicast(1, (uint32_t[]){10}, 5000, 'x') == 1);
    CHECK(multicast(0, NULL, 5000, 'x') == 0);
    end();
}

/* A client that does not read is lost for its bytes; the others get all. */
static void test_over(void)
{
    struct relay_port port = plain_port;
    port.queue_packets = 1 << 30;
    pair_all(&plain_config, &port);
    bool over = false;
    size_t heard = 0, sent = 0;
    for (int i = 0; i < 4000 && !over; i++) {
        CHECK(multicast(2, (uint32_t[]){10, 12}, 5000, 'x') == 0);
        sent += 5008;
        turn();
        over = told(0, RELAY_OVER);
        CHECK(!told(2, RELAY_OVER));
        heard += hear(2, got, sizeof got);
    }
    CHECK(over);
    relay_close(relay, ends[0].handle, RELAY_ABORT);
    for (int i = 0; i < 4000 && heard < sent; i++) {
        turn();
        heard += hear(2, got, sizeof got);
    }
    CHECK(heard == sent && pool_used(relay->pool) == 0);
    end();
}

/* A server that is sent to holds who sends, as ever. */
static void test_holds(void)
{
    begin(&plain_config, &plain_port);
    add(0);
    add(1);
    CHECK(relay_pair(relay, 7, ends[0].handle, ends[1].handle));
    for (int i = 0; i < 4000 && !counts(0).held; i++) {
        CHECK(relay_multicast(relay, ends[0].handle, (uint32_t[]){7}, 1, said, 1500) == 0);
        turn();
    }
    CHECK(counts(0).held);
    for (int i = 0; i < 8000 && counts(0).held; i++) {
        hear(1, got, sizeof got);
        turn();
    }
    CHECK(!counts(0).held);
    end();
}

/* Where there is no memory, one copy is of use to all; without any the sender pays. */
static void test_memory(void)
{
    struct relay_config config = plain_config;
    config.pool.limit = 20000;
    pair_all(&config, &plain_port);
    CHECK(multicast(3, (uint32_t[]){10, 12, 14}, 16000, 'x') == 0);
    CHECK(pool_used(relay->pool) < 20000 && totals().waiting_bytes == 3 * 16008);
    for (int which = 0; which <= 4; which += 2)
        hear_just(which, said, make(said, 10u + (uint32_t)which, 16000, 'x'));
    CHECK(multicast(3, (uint32_t[]){10, 12, 14}, 30000, 'x') == 3);
    turn();
    CHECK(told(1, RELAY_NO_MEMORY) && !told(0, RELAY_NO_MEMORY));
    end();
}

int main(void)
{
    test_order();
    test_left();
    test_over();
    test_holds();
    test_memory();
    puts("test_multicast: ok");
    return 0;
}
