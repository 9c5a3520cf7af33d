/* The system calls of the core, so that tests can count them and make them fail: this is read
 * before each of its files (-include with -DCORE), and whoever tests defines what is declared.
 */
#ifndef CALLS_H
#define CALLS_H
#ifdef CORE
#define _GNU_SOURCE
#endif
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>

ssize_t test_recv(int fd, void *data, size_t size, int flags);
ssize_t test_send(int fd, const void *data, size_t size, int flags);
ssize_t test_sendmsg(int fd, const struct msghdr *message, int flags);
int test_epoll_wait(int fd, struct epoll_event *events, int count, int timeout);
int test_epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event);
int test_clock_gettime(clockid_t clock, struct timespec *time);
void *test_calloc(size_t count, size_t size);

#ifdef CORE
#define recv test_recv
#define send test_send
#define sendmsg test_sendmsg
#define epoll_wait test_epoll_wait
#define epoll_ctl test_epoll_ctl
#define clock_gettime test_clock_gettime
#define calloc test_calloc
#endif
#endif
