/* A thread for TLS handshakes: see shake.h. */
#define _GNU_SOURCE
#include "shake.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MORSEL 4096u /* OpenSSL's memory never shrinks: so much is the largest it has to hold */
#define NICE 10 /* more than the process has: a tenth of the weight, enough for 300 a second */
#define SLICE 20000000u /* ns; who wakes up and has a shorter one, as all others, goes first (Linux 6.12) */

enum { WANT_READ = 2 }; /* of SSL_get_error */

struct queue {
    struct shake *first, **end;
};

struct shaker {
    struct relay_library library;
    pthread_mutex_t lock; /* of all that follows */
    pthread_cond_t given;
    pthread_t thread;
    bool running, stopping;
    int wake; /* an eventfd */
    struct queue waiting, done;
};

static void put(struct queue *queue, struct shake *shake)
{
    shake->next = NULL;
    *queue->end = shake;
    queue->end = &shake->next;
}

static struct shake *get(struct queue *queue)
{
    struct shake *first = queue->first;
    if (first != NULL && (queue->first = first->next) == NULL)
        queue->end = &queue->first;
    return first;
}

/* The thread. */

static void note_failure(const struct relay_library *library, struct shake *shake)
{
    unsigned long code;
    shake->end = SHAKE_FAILED;
    while (shake->error_count < RELAY_TLS_ERRORS && (code = library->ERR_get_error()) != 0)
        shake->errors[shake->error_count++] = (uint32_t)code;
    library->ERR_clear_error();
}

static void collect(const struct relay_library *library, struct shake *shake)
{
    char *unused;
    long size = library->BIO_get_mem_data(shake->from, &unused);
    if (size <= 0)
        return;
    shake->answer = malloc((size_t)size);
    if (shake->answer == NULL) {
        shake->end = SHAKE_FAILED;
        return;
    }
    int got = library->BIO_read(shake->from, shake->answer, (int)size);
    shake->answer_size = got > 0 ? (size_t)got : 0;
}

static void go_on(const struct relay_library *library, struct shake *shake)
{
    library->ERR_clear_error();
    do {
        size_t left = shake->size - shake->used;
        int piece = (int)(left < MORSEL ? left : MORSEL);
        if (piece > 0
            && library->BIO_write(shake->into, shake->data + shake->used, piece) != piece) {
            note_failure(library, shake);
            break;
        }
        shake->used += (size_t)piece;
        int result = library->SSL_do_handshake(shake->ssl);
        if (result == 1)
            shake->end = SHAKE_DONE;
        else if (library->SSL_get_error(shake->ssl, result) != WANT_READ)
            note_failure(library, shake);
    } while (shake->used < shake->size && shake->end == SHAKE_WANTS);
    collect(library, shake);
}

/* Let others go first: on Linux each thread has a priority of its own, and may have a slice. It is not
 * inherited when the process has a real-time one. What the system refuses is done without. */
static void stand_back(void)
{
    struct { /* sched_attr: SCHED_OTHER is 0 */
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t runtime, deadline, period;
    } wanted = {.size = 48, .runtime = SLICE};
    id_t self = (id_t)syscall(SYS_gettid);
    errno = 0;
    int now = getpriority(PRIO_PROCESS, self);
    if (errno != 0)
        return;
    wanted.nice = now + NICE < 19 ? now + NICE : 19;
    if (syscall(SYS_sched_setattr, self, &wanted, 0) < 0)
        setpriority(PRIO_PROCESS, self, wanted.nice);
}

static void wake(const struct shaker *shaker)
{
    uint64_t one = 1;
    while (write(shaker->wake, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

static _Thread_local bool inside;

int shaker_choice(void *ssl, void *unused)
{
    (void)ssl;
    (void)unused;
    return inside ? 1 : -1;
}

static void *work(void *of)
{
    struct shaker *shaker = of;
    inside = true;
    stand_back();
    pthread_mutex_lock(&shaker->lock);
    while (!shaker->stopping) {
        struct shake *shake = get(&shaker->waiting);
        if (shake == NULL) {
            pthread_cond_wait(&shaker->given, &shaker->lock);
            continue;
        }
        pthread_mutex_unlock(&shaker->lock);
        go_on(&shaker->library, shake);
        pthread_mutex_lock(&shaker->lock);
        bool first = shaker->done.first == NULL;
        put(&shaker->done, shake);
        if (first) {
            pthread_mutex_unlock(&shaker->lock);
            wake(shaker); /* it runs at once, and wants the lock */
            pthread_mutex_lock(&shaker->lock);
        }
    }
    pthread_mutex_unlock(&shaker->lock);
    return NULL;
}

/* Everybody else. */

/* Signals are the caller's thread's. */
static bool begin(struct shaker *shaker)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&shaker->thread, NULL, work, shaker);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    shaker->running = error == 0;
    return shaker->running;
}

struct shaker *shaker_new(const struct relay_library *library)
{
    struct shaker *shaker = calloc(1, sizeof *shaker);
    if (shaker == NULL)
        return NULL;
    shaker->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (shaker->wake < 0) {
        free(shaker);
        return NULL;
    }
    shaker->library = *library;
    shaker->waiting.end = &shaker->waiting.first;
    shaker->done.end = &shaker->done.first;
    pthread_mutex_init(&shaker->lock, NULL);
    pthread_cond_init(&shaker->given, NULL);
    return shaker;
}

void shaker_free(struct shaker *shaker)
{
    pthread_cond_destroy(&shaker->given);
    pthread_mutex_destroy(&shaker->lock);
    close(shaker->wake);
    free(shaker);
}

int shaker_fd(const struct shaker *shaker) { return shaker->wake; }

bool shaker_give(struct shaker *shaker, void *owner, void *ssl, void *into, void *from,
                 const void *data, size_t size)
{
    struct shake *shake = calloc(1, sizeof *shake + size);
    if (shake == NULL)
        return false;
    shake->owner = owner;
    shake->ssl = ssl;
    shake->into = into;
    shake->from = from;
    shake->size = size;
    if (size > 0)
        memcpy(shake->data, data, size);
    pthread_mutex_lock(&shaker->lock);
    bool given = shaker->running || begin(shaker);
    if (given) {
        put(&shaker->waiting, shake);
        pthread_cond_signal(&shaker->given);
    }
    pthread_mutex_unlock(&shaker->lock);
    if (!given)
        free(shake);
    return given;
}

struct shake *shaker_take(struct shaker *shaker)
{
    uint64_t count;
    pthread_mutex_lock(&shaker->lock);
    struct shake *shake = get(&shaker->done);
    if (shaker->done.first == NULL)
        while (read(shaker->wake, &count, sizeof count) < 0 && errno == EINTR)
            ;
    pthread_mutex_unlock(&shaker->lock);
    return shake;
}

struct shake *shaker_drop(struct shaker *shaker, const void *owner)
{
    struct shake *found = NULL;
    pthread_mutex_lock(&shaker->lock);
    for (struct shake **at = &shaker->waiting.first; *at != NULL; at = &(*at)->next) {
        if ((*at)->owner != owner)
            continue;
        found = *at;
        *at = found->next;
        if (*at == NULL)
            shaker->waiting.end = at;
        break;
    }
    pthread_mutex_unlock(&shaker->lock);
    return found;
}

void shaker_stop(struct shaker *shaker)
{
    struct shake *left;
    pthread_mutex_lock(&shaker->lock);
    bool running = shaker->running;
    shaker->stopping = true;
    shaker->running = false;
    pthread_cond_signal(&shaker->given);
    pthread_mutex_unlock(&shaker->lock);
    if (running)
        pthread_join(shaker->thread, NULL);
    shaker->stopping = false;
    while ((left = get(&shaker->waiting)) != NULL) {
        left->end = SHAKE_FAILED;
        put(&shaker->done, left);
    }
    if (shaker->done.first != NULL)
        wake(shaker);
}

void shake_free(struct shake *shake)
{
    free(shake->answer);
    free(shake);
}
