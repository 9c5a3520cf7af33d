/* Handshakes on a thread of their own, of a toy; and links whose bytes are answered later. */
#include "bed.h"
#include "toy.h"

#include <poll.h>
#include <sched.h>

#include "shake.h"

#define COUNT 20

static uint8_t sealed[TOY_RECORD], got[TOY_RECORD];

static struct shake *wait_for(struct shaker *shaker)
{
    struct pollfd waits = {.fd = shaker_fd(shaker), .events = POLLIN};
    for (;;) {
        CHECK(poll(&waits, 1, 10000) == 1);
        struct shake *shake = shaker_take(shaker);
        if (shake != NULL)
            return shake;
    }
}

static bool give(struct shaker *shaker, struct toy *toy, const void *data, size_t size)
{
    return shaker_give(shaker, toy, toy, toy->into, toy->from, data, size);
}

/* Steps come back in their order, with what they are to say. */
static void test_order(void)
{
    struct shaker *shaker = shaker_new(&toy_library);
    struct toy *all[COUNT];
    CHECK(shaker_take(shaker) == NULL);
    for (int i = 0; i < COUNT; i++) {
        uint8_t data[9000];
        memset(data, i, sizeof data);
        size_t size = toy_seal(sealed, 'h', data, sizeof data);
        all[i] = toy_new();
        CHECK(give(shaker, all[i], sealed, size));
    }
    for (int i = 0; i < COUNT; i++) {
        struct shake *shake = wait_for(shaker);
        CHECK(shake->owner == all[i] && shake->end == SHAKE_DONE && shake->used == 9003);
        CHECK(shake->answer_size == 9003 && (shake->answer[3] ^ TOY_TURN) == i);
        CHECK(all[i]->reads == 3); /* its memory never had to hold more than a morsel */
        CHECK(all[i]->into->most <= 4096);
        shake_free(shake);
        toy_free(all[i]);
    }
    shaker_stop(shaker);
    CHECK(shaker_take(shaker) == NULL);
    shaker_free(shaker);
}

/* One that wants more, one that has bytes behind it, and one that fails. */
static void test_ends(void)
{
    struct shaker *shaker = shaker_new(&toy_library);
    struct toy *toy = toy_new();
    size_t size = toy_seal(sealed, 'h', "hello", 5);
    CHECK(give(shaker, toy, sealed, 4));
    struct shake *shake = wait_for(shaker);
    CHECK(shake->end == SHAKE_WANTS && shake->used == 4 && shake->answer_size == 0);
    shake_free(shake);
    memset(sealed + size, 'x', 8000);
    CHECK(give(shaker, toy, sealed + 4, size - 4 + 8000));
    shake = wait_for(shaker);
    CHECK(shake->end == SHAKE_DONE && shake->used == 4096 && shake->answer_size == size);
    shake_free(shake);
    toy_free(toy);

    toy = toy_new();
    size = toy_seal(sealed, 'd', "hello", 5);
    CHECK(give(shaker, toy, sealed, size));
    shake = wait_for(shaker);
    CHECK(shake->end == SHAKE_FAILED && shake->error_count == 1 && shake->errors[0] == TOY_ERROR);
    CHECK(shake->answer_size == TOY_HEAD && toy_code == 0);
    shake_free(shake);
    toy_free(toy);
    shaker_stop(shaker);
    shaker_free(shaker);
}

/* What nobody waits for is not done; a stop leaves the rest undone, and what comes later is done. */
static void test_drop_and_stop(void)
{
    struct shaker *shaker = shaker_new(&toy_library);
    struct toy *toys[COUNT];
    size_t size = toy_seal(sealed, 'h', got, 9000);
    int dropped = 0, taken = 0, undone = 0;
    for (int i = 0; i < COUNT; i++) {
        toys[i] = toy_new();
        CHECK(give(shaker, toys[i], sealed, size));
    }
    for (int i = COUNT - 1; i >= COUNT / 2; i -= 2) {
        struct shake *shake = shaker_drop(shaker, toys[i]);
        if (shake == NULL)
            continue; /* it was quick */
        CHECK(shake->owner == toys[i] && toys[i]->reads == 0);
        shake_free(shake);
        dropped++;
    }
    CHECK(shaker_drop(shaker, &size) == NULL);
    shaker_stop(shaker);
    for (struct shake *shake; (shake = shaker_take(shaker)) != NULL; shake_free(shake)) {
        struct toy *toy = shake->owner;
        CHECK(shake->end == (toy->reads ? SHAKE_DONE : SHAKE_FAILED));
        taken++;
        undone += shake->end == SHAKE_FAILED;
    }
    CHECK(dropped + taken == COUNT && undone <= taken);
    struct toy *late = toy_new();
    CHECK(give(shaker, late, sealed, size));
    struct shake *shake = wait_for(shaker);
    CHECK(shake->end == SHAKE_DONE && shake->owner == late);
    shake_free(shake);
    toy_free(late);
    for (int i = 0; i < COUNT; i++)
        toy_free(toys[i]);
    shaker_stop(shaker);
    shaker_free(shaker);
}

/* Given, dropped and taken while the thread is at work: each comes back once, and nobody else's. */
static void test_hurry(void)
{
    struct shaker *shaker = shaker_new(&toy_library);
    struct toy *toys[COUNT];
    struct shake *shake;
    bool away[COUNT] = {false};
    int out = 0;
    uint32_t dice = 7;
    size_t size = toy_seal(sealed, 'h', "hello", 5);
    for (int i = 0; i < COUNT; i++)
        toys[i] = toy_new();
    for (int step = 0; step < 3000 || out > 0; step++) {
        dice = dice * 1664525 + 1013904223;
        int which = (int)(dice >> 16) % COUNT;
        if (dice >> 31)
            sched_yield();
        if (!away[which] && step < 3000) {
            CHECK(give(shaker, toys[which], sealed, size));
            away[which] = true;
            out++;
        } else if (away[which] && (shake = shaker_drop(shaker, toys[which])) != NULL) {
            CHECK(shake->owner == toys[which] && shake->used == 0);
            shake_free(shake);
            away[which] = false;
            out--;
        }
        shake = out > COUNT / 2 ? wait_for(shaker) : shaker_take(shaker);
        for (; shake != NULL; shake = shaker_take(shaker)) {
            for (which = 0; toys[which] != shake->owner; which++)
                CHECK(which < COUNT - 1);
            CHECK(away[which] && shake->end == SHAKE_DONE && shake->used == size);
            shake_free(shake);
            away[which] = false;
            out--;
        }
    }
    for (int i = 0; i < COUNT; i++)
        toy_free(toys[i]);
    shaker_stop(shaker);
    shaker_free(shaker);
}

/* Elsewhere than on the thread a handshake stops where its certificate is chosen. */
static int chosen;

static int choose(void *ssl)
{
    (void)ssl;
    chosen = shaker_choice(ssl, NULL);
    return 1;
}

static void test_choice(void)
{
    struct relay_library library = toy_library;
    struct toy *toy = toy_new();
    library.SSL_do_handshake = choose;
    CHECK(shaker_choice(toy, NULL) == -1);
    struct shaker *shaker = shaker_new(&library);
    CHECK(give(shaker, toy, NULL, 0)); /* all that came is inside already */
    shake_free(wait_for(shaker));
    CHECK(chosen == 1);
    shaker_stop(shaker);
    shaker_free(shaker);
    toy_free(toy);
}

int main(void)
{
    test_order();
    test_ends();
    test_drop_and_stop();
    test_hurry();
    test_choice();
    puts("test_shake: ok");
    return 0;
}
