/* What the relay has, as Python's tuples; none of it changes anything. */
#include "_face.h"

#include <arpa/inet.h>
#include <netinet/in.h>

PyObject *core_counts(PyObject *self, PyObject *number)
{
    relay_handle handle = to_handle(number);
    struct relay_counts counts;
    if (PyErr_Occurred())
        return NULL;
    if (!relay_counts(RELAY(self), handle, &counts)) {
        PyErr_SetString(PyExc_LookupError, "no such link");
        return NULL;
    }
    return Py_BuildValue("(KKKKKKKOK)", (unsigned long long)counts.packets_in,
                         (unsigned long long)counts.bytes_in,
                         (unsigned long long)counts.packets_out,
                         (unsigned long long)counts.bytes_out,
                         (unsigned long long)counts.waiting_packets,
                         (unsigned long long)counts.waiting_bytes,
                         (unsigned long long)counts.input_bytes,
                         counts.held ? Py_True : Py_False,
                         (unsigned long long)counts.most_waiting);
}

PyObject *make_taken(int fd, const struct sockaddr_storage *peer)
{
    char host[INET6_ADDRSTRLEN] = "";
    const char *address = "";
    Py_ssize_t size = 0;
    unsigned port = 0;
    if (peer->ss_family == AF_INET) {
        const struct sockaddr_in *in = (const void *)peer;
        inet_ntop(AF_INET, &in->sin_addr, host, sizeof host);
        address = (const char *)&in->sin_addr;
        size = 4;
        port = ntohs(in->sin_port);
    } else if (peer->ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const void *)peer;
        bool mapped = IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr);
        inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof host);
        address = (const char *)&in6->sin6_addr + (mapped ? 12 : 0);
        size = mapped ? 4 : 16;
        port = ntohs(in6->sin6_port);
    }
    return Py_BuildValue("(iy#sI)", fd, address, size, host, port);
}

PyObject *core_totals(PyObject *self, PyObject *unused)
{
    (void)unused;
    struct relay_totals totals;
    relay_totals(RELAY(self), &totals);
    return Py_BuildValue("(KKKKKKKKKKKKKKKK)", (unsigned long long)totals.packets,
                         (unsigned long long)totals.bytes, (unsigned long long)totals.pings,
                         (unsigned long long)totals.holds, (unsigned long long)totals.links,
                         (unsigned long long)totals.pairs,
                         (unsigned long long)totals.waiting_packets,
                         (unsigned long long)totals.waiting_bytes,
                         (unsigned long long)totals.input_bytes, (unsigned long long)totals.held,
                         (unsigned long long)totals.shed, (unsigned long long)totals.slows,
                         (unsigned long long)totals.slowed,
                         (unsigned long long)totals.holding.waiting_packets,
                         (unsigned long long)totals.holding.waiting_bytes,
                         (unsigned long long)totals.holding.input_bytes);
}

PyObject *core_pool(PyObject *self, PyObject *unused)
{
    (void)unused;
    const struct pool *pool = relay_pool(RELAY(self));
    struct pool_stats stats;
    pool_stats(pool, &stats);
    PyObject *classes = PyList_New(0);
    for (int which = 0; classes != NULL && which < pool_class_count(pool); which++) {
        struct pool_class_stats class;
        pool_class_stats(pool, which, &class);
        PyObject *row = Py_BuildValue("(IKKK)", (unsigned int)class.size,
                                      (unsigned long long)class.pages,
                                      (unsigned long long)class.used,
                                      (unsigned long long)class.free);
        if (row == NULL || PyList_Append(classes, row) < 0)
            Py_CLEAR(classes);
        Py_XDECREF(row);
    }
    if (classes == NULL)
        return NULL;
    return Py_BuildValue("(KKKN)", (unsigned long long)stats.used_bytes,
                         (unsigned long long)stats.plain, (unsigned long long)stats.failed,
                         classes);
}
