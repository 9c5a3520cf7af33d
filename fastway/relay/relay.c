/* The relay: making and unmaking, and the verbs of relay.h; inside.h says what is where. */
#define _GNU_SOURCE
#include "inside.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* Bytes of a link that holds that wait in the kernel: there is no fair share of those. Less would
 * cost more writes for large messages. */
#define UNSENT (512 << 10)

/* Making and unmaking. */

static bool sensible(const struct relay_config *config)
{
    return config->commands_each > 0 && config->commands_turn > 0 && config->events_turn > 0
           && config->openings_turn > 0
           && config->events_turn <= 1u << 20 && config->openings_turn <= 1u << 20
           && config->share_least > 0
           && config->share_least <= config->share_most && config->turn_seconds >= 0
           && config->turn_seconds <= 10;
}

struct relay *relay_new(const struct relay_config *config)
{
    if (!sensible(config)) {
        errno = EINVAL;
        return NULL;
    }
    struct relay *relay = calloc(1, sizeof *relay);
    if (relay == NULL)
        return NULL;
    relay->config = *config;
    relay->epoll = relay->wake = -1;
    struct node *lists[] = {&relay->dirty,  &relay->work,   &relay->handled,
                            &relay->asking, &relay->judged, &relay->due,    &relay->greedy};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        list_begin(lists[i]);
    for (size_t i = 0; i < SLOTS; i++)
        list_begin(&relay->slots[i]);
    relay->told = calloc((size_t)config->events_turn + config->openings_turn, sizeof *relay->told);
    relay->pool = relay->told == NULL ? NULL : pool_new(&config->pool);
    relay->epoll = epoll_create1(EPOLL_CLOEXEC);
    relay->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = 0};
    int error = relay->told == NULL ? ENOMEM : EINVAL;
    if (relay->pool != NULL) {
        if (relay->epoll >= 0 && relay->wake >= 0
            && epoll_ctl(relay->epoll, EPOLL_CTL_ADD, relay->wake, &event) == 0)
            return relay;
        error = errno;
    }
    relay_free(relay);
    errno = error;
    return NULL;
}

static void free_link(struct link *link)
{
    clear_jam(link);
    ws_free(link->ws);
    free(link->tls);
    free(link);
}

static void drop_events(struct relay *relay, struct ring *ring)
{
    for (; ring->count > 0; ring->count--) {
        struct chunk *data = ring->events[ring->start].data;
        ring->start = (ring->start + 1) % ring->room;
        if (data != NULL)
            pool_put(relay->pool, data);
    }
}

void relay_free(struct relay *relay)
{
    for (uint32_t index = 0; index < relay->link_end; index++) {
        struct link *link = relay->links[index];
        if (link == NULL)
            continue;
        drop_input(relay, link);
        drop_output(relay, link);
        forget_shares(relay, link);
        if (link->fd >= 0)
            close(link->fd);
    }
    relay_clear_events(relay);
    drop_events(relay, &relay->events);
    drop_events(relay, &relay->openings);
    for (uint32_t index = 0; index < relay->link_end; index++)
        if (relay->links[index] != NULL)
            free_link(relay->links[index]);
    if (relay->epoll >= 0)
        close(relay->epoll);
    if (relay->wake >= 0)
        close(relay->wake);
    if (relay->pool != NULL)
        pool_free(relay->pool);
    free(relay->links);
    free(relay->free_indices);
    free(relay->events.events);
    free(relay->openings.events);
    free(relay->told);
    free(relay->pairs);
    free(relay->rates);
    free(relay->scratch);
    free(relay->sealed);
    free(relay);
}

int relay_fd(const struct relay *relay) { return relay->epoll; }

void relay_limit(struct relay *relay, uint64_t bytes) { pool_set_limit(relay->pool, bytes); }

/* Room for one read, sealed, and opened: then it may have more of a record that came in part. */
static bool grow_scratch(struct relay *relay, size_t size)
{
    if (size < KEEP_PIECE)
        size = KEEP_PIECE;
    uint8_t *scratch = realloc(relay->scratch, size + TLS_RECORD);
    if (scratch != NULL)
        relay->scratch = scratch;
    uint8_t *sealed = realloc(relay->sealed, size);
    if (sealed != NULL)
        relay->sealed = sealed;
    if (scratch == NULL || sealed == NULL)
        return false;
    relay->scratch_size = size;
    return true;
}

int relay_port(struct relay *relay, const struct relay_port *config)
{
    if (config->max_packet < MIN_LENGTH || config->max_packet > RELAY_MAX_PACKET
        || config->read_size < 1 || config->read_size > RELAY_MAX_READ
        || !(config->idle_timeout >= 0) || !(config->write_timeout >= 0)) {
        errno = EINVAL;
        return -1;
    }
    if (relay->port_count == RELAY_PORTS) {
        errno = ENOSPC;
        return -1;
    }
    if (config->read_size > relay->scratch_size && !grow_scratch(relay, (size_t)config->read_size))
        return -1;
    relay->ports[relay->port_count] = *config;
    return relay->port_count++;
}

static bool grow(void *array, size_t count, size_t size)
{
    void **pointer = array;
    void *larger = reallocarray(*pointer, count, size);
    if (larger == NULL)
        return false;
    *pointer = larger;
    return true;
}

static bool room_for_events(struct ring *ring, size_t room)
{
    struct relay_event *events = reallocarray(NULL, room, sizeof *events);
    if (events == NULL)
        return false;
    for (size_t i = 0; i < ring->count; i++)
        events[i] = ring->events[(ring->start + i) % ring->room];
    free(ring->events);
    *ring = (struct ring){events, room, 0, ring->count};
    return true;
}

/* Room for one more link, and for all the events that it can have. */
static bool room_for_link(struct relay *relay)
{
    if (relay->link_end < relay->link_room)
        return true;
    size_t room = relay->link_room ? (size_t)relay->link_room * 2 : 64;
    if (room > UINT32_MAX / 2 || !grow(&relay->links, room, sizeof *relay->links)
        || !grow(&relay->free_indices, room, sizeof *relay->free_indices)
        || !room_for_events(&relay->events, room * RELAY_KINDS)
        || !room_for_events(&relay->openings, room * RELAY_KINDS))
        return false;
    relay->link_room = (uint32_t)room;
    return true;
}

relay_handle relay_adopt(struct relay *relay, int fd, int port, double now)
{
    if (port < 0 || port >= relay->port_count) {
        errno = EINVAL;
        return 0;
    }
    struct link *link = calloc(1, sizeof *link);
    if (link == NULL || (relay->free_count == 0 && !room_for_link(relay))) {
        free(link);
        errno = ENOMEM;
        return 0;
    }
    bool fresh = relay->free_count == 0;
    link->index = fresh ? relay->link_end : relay->free_indices[relay->free_count - 1];
    link->generation = relay->generation + 1; /* no link of its slot had it */
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = handle_of(link)};
    if (epoll_ctl(relay->epoll, EPOLL_CTL_ADD, fd, &event) < 0) {
        int error = errno;
        free(link);
        errno = error;
        return 0;
    }
    if (fresh)
        relay->link_end++;
    else
        relay->free_count--;
    relay->generation = link->generation;
    relay->links[link->index] = link;
    link->interest = EPOLLIN;
    link->port = &relay->ports[port];
    link->fd = fd;
    link->tell_taken = UINT64_MAX;
    link->last_packet = now;
    if (relay->totals.links++ == 0)
        relay->reached = relay->trimmed = (int64_t)(now / RELAY_TICK);
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (link->port->holds)
        setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &(int){UNSENT}, sizeof(int));
    return handle_of(link);
}

int relay_take(int listening, int most, struct sockaddr_storage *peer)
{
    /* Asked here and not of the socket: who resets at once has no name any more. */
    socklen_t size = sizeof *peer;
    memset(peer, 0, sizeof *peer);
    int fd = accept4(listening, (struct sockaddr *)peer, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd <= most)
        return fd;
    close(fd);
    errno = EUSERS;
    return -1;
}

void relay_refuse(int fd)
{
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &(struct linger){1, 0}, sizeof(struct linger));
    close(fd);
}

void relay_set_owner(struct relay *relay, relay_handle handle, void *owner)
{
    struct link *link = find(relay, handle);
    if (link != NULL)
        link->owner = owner;
}

/* The verbs. */

void relay_direct(struct relay *relay, relay_handle handle, uint32_t conn_id)
{
    struct link *link = find(relay, handle);
    if (link == NULL || link->state != OPEN || link->started)
        return;
    link->direct = true;
    put_u32(link->head + 4, conn_id);
}

void relay_start(struct relay *relay, relay_handle handle, const void *data, size_t size,
                 enum relay_framing framing, double now)
{
    struct link *link = find(relay, handle);
    if (link == NULL || link->state != OPEN || link->started)
        return;
    relay->now = link->last_packet = now;
    link->started = true;
    if (link->direct)
        took_more(link);
    check(relay, link);
    if (size > 0 && !link->broken) {
        /* What was kept meanwhile comes behind it. */
        struct chunk *head = link->rest_head, *tail = link->rest_tail;
        link->rest_head = link->rest_tail = NULL;
        if (!keep(relay, link, data, size)) {
            pool_put_list(relay->pool, head);
        } else if (head != NULL) {
            link->rest_tail->next = head;
            link->rest_tail = tail;
        }
    }
    if (framing == RELAY_WEBSOCKET && !link->broken) {
        link->ws = ws_new(link->waiting_bytes);
        if (link->ws == NULL)
            fail(relay, link, RELAY_NO_MEMORY);
        else
            unwrap_rest(relay, link);
    }
    if (has_rest(link) || link->ended)
        go_on_soon(relay, link);
}

bool relay_send(struct relay *relay, relay_handle handle, const void *data, size_t size,
                uint32_t packets)
{
    struct link *link = find(relay, handle);
    if (link == NULL || !takes(link) || size == 0)
        return false;
    bool bare = link->direct && packets > 0;
    if (bare ? queue_messages(relay, link, data, size, true)
             : queue_bytes(relay, link, data, size, packets, true))
        write_later(relay, link);
    else
        fail(relay, link, RELAY_NO_MEMORY);
    return link->blocked && link->waiting_bytes > PIECE;
}

uint64_t relay_waiting(const struct relay *relay, relay_handle handle)
{
    const struct link *link = find(relay, handle);
    return link == NULL ? 0 : link->waiting_bytes;
}

bool relay_over(const struct relay *relay, relay_handle handle)
{
    struct link *link = find(relay, handle);
    return link != NULL && link->blocked && over(link);
}

bool relay_saturated(const struct relay *relay, relay_handle handle)
{
    struct link *link = find(relay, handle);
    return link != NULL && link->blocked && beyond(link, 2);
}

void relay_pause(struct relay *relay, relay_handle handle)
{
    struct link *link = find(relay, handle);
    if (link == NULL || link->state == DEAD)
        return;
    link->paused = true;
    update_interest(relay, link);
}

void relay_resume(struct relay *relay, relay_handle handle, double now)
{
    struct link *link = find(relay, handle);
    if (link == NULL || link->state == DEAD)
        return;
    if (link->paused)
        link->last_packet = now;
    link->paused = false;
    if (has_rest(link))
        go_on_soon(relay, link);
    update_interest(relay, link);
}

uint64_t relay_added(const struct relay *relay, relay_handle handle)
{
    struct link *link = find(relay, handle);
    return link == NULL ? 0 : link->taken + link->waiting_bytes;
}

uint64_t relay_taken(const struct relay *relay, relay_handle handle)
{
    struct link *link = find(relay, handle);
    return link == NULL ? 0 : link->taken;
}

void relay_tell_taken(struct relay *relay, relay_handle handle, uint64_t position)
{
    struct link *link = find(relay, handle);
    if (link == NULL || link->state != OPEN || !writes(link))
        return;
    if (position < link->tell_taken)
        link->tell_taken = position;
    let_go_drained(relay, link);
}

void relay_close(struct relay *relay, relay_handle handle, enum relay_end how)
{
    struct link *link = find(relay, handle);
    if (link == NULL || link->state == DEAD)
        return;
    if (how == RELAY_ABORT) {
        link->reset = true;
        drop_output(relay, link);
    } else if (link->state == CLOSING) {
        return;
    }
    if (link->ws != NULL)
        how = ws_end(link, how);
    link->state = how == RELAY_HALF ? HALF : CLOSING;
    if (link->jam != NULL) {
        link->jam->over_packets = link->jam->over_bytes = 0;
        list_drop(&link->jam->judge_node);
    }
    link->tell_taken = UINT64_MAX;
    forget_tick(relay, link);
    drop_input(relay, link);
    forget_senders(relay, link);
    forget_shares(relay, link);
    speed_up(relay, link);
    list_drop(&link->work_node);
    update_interest(relay, link);
    mark_dirty(relay, link);
}

void *relay_release(struct relay *relay, relay_handle handle)
{
    struct link *link = find(relay, handle);
    if (link == NULL || link->state != DEAD || link->told != 0)
        return NULL;
    void *owner = link->owner;
    relay->links[link->index] = NULL;
    relay->free_indices[relay->free_count++] = link->index;
    relay->totals.links--;
    free_link(link);
    return owner;
}

/* Looking. */

bool relay_rests(const struct relay *relay)
{
    return relay->totals.links == 0 && pool_rests(relay->pool);
}

bool relay_counts(const struct relay *relay, relay_handle handle, struct relay_counts *out)
{
    const struct link *link = find(relay, handle);
    if (link == NULL)
        return false;
    const struct jam *jam = link->jam;
    bool was_over = jam != NULL && jam->over_bytes > 0;
    *out = (struct relay_counts){
        .packets_in = link->packets_in,
        .bytes_in = link->bytes_in,
        .packets_out = link->packets_out,
        .bytes_out = link->bytes_out,
        .waiting_packets = was_over ? jam->over_packets : link->waiting_packets,
        .waiting_bytes = was_over ? jam->over_bytes : link->waiting_bytes,
        .input_bytes = link->in_bytes + link->rest_bytes,
        .held = link->held > 0 || link->slowed,
        .most_waiting = link->most_waiting,
    };
    return true;
}

int relay_socket(const struct relay *relay, relay_handle handle)
{
    const struct link *link = find(relay, handle);
    return link == NULL ? -1 : link->fd;
}

void relay_totals(const struct relay *relay, struct relay_totals *out) { *out = relay->totals; }

const struct pool *relay_pool(const struct relay *relay) { return relay->pool; }

void *relay_next_owner(const struct relay *relay, uint32_t *place)
{
    while (*place < relay->link_end) {
        const struct link *link = relay->links[(*place)++];
        if (link != NULL && link->owner != NULL)
            return link->owner;
    }
    return NULL;
}
