/* TLS handshakes on a thread of their own, so that who is in does not wait for who comes.
 *
 * Law: an SSL is one thread's at a time: the shaker's from shaker_give until shaker_take or
 * shaker_drop returns it. The thread does one step after the other, in their order, at a lower
 * priority; it begins with the first of them. No Python here, and what OpenSSL calls back is done
 * before (shaker_choice): the little of it that is not sees to its own locks. All but the thread's
 * own work belongs to one other thread.
 */
#ifndef FASTWAY_SHAKE_H
#define FASTWAY_SHAKE_H

#include "relay.h"

enum shake_end {
    SHAKE_WANTS, /* more of the peer */
    SHAKE_DONE,
    SHAKE_FAILED,
};

/* One step of a handshake. */
struct shake {
    struct shake *next;
    void *owner;
    void *ssl, *into, *from; /* with its memory BIOs */
    enum shake_end end;
    uint32_t errors[RELAY_TLS_ERRORS]; /* OpenSSL's, if it failed, the first it told first */
    int error_count;
    uint8_t *answer; /* sealed bytes for the peer */
    size_t answer_size;
    size_t used; /* bytes of the data that OpenSSL was given */
    size_t size;
    uint8_t data[];
};

struct shaker;

/* NULL: errno tells. */
struct shaker *shaker_new(const struct relay_library *library);
/* After shaker_stop, and when nothing is to be taken any more. */
void shaker_free(struct shaker *shaker);

/* Readable when there is something to take. */
int shaker_fd(const struct shaker *shaker);

/* Give the SSL these bytes of its peer, and let it go on. False: no memory, or no thread. */
bool shaker_give(struct shaker *shaker, void *owner, void *ssl, void *into, void *from,
                 const void *data, size_t size);
/* One that is over, or NULL. The caller frees it with shake_free. */
struct shake *shaker_take(struct shaker *shaker);
/* For SSL_set_cert_cb. A handshake stops where its certificate is chosen, with WANT_X509_LOOKUP: the
 * name that a client asks for was looked at, and nothing was calculated. The thread goes on. */
int shaker_choice(void *ssl, void *unused);

/* Nobody waits for the owner's step: it is not done, and the caller frees it. NULL: it has begun, and
 * is there to be taken in a while, or there is none. */
struct shake *shaker_drop(struct shaker *shaker, const void *owner);
/* Wait for the step that is under way, and end the thread; those that had not begun can be taken, as
 * SHAKE_FAILED. With the next one it begins anew. */
void shaker_stop(struct shaker *shaker);
void shake_free(struct shake *shake);

#endif
