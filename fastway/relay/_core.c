/* The Python face of the relay.
 *
 * Law: it only translates; what is done is in relay.c. The limited API of CPython 3.10, so that
 * one build serves all later versions.
 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030A0000
#include <Python.h>

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>

#include "relay.h"

typedef struct {
    PyObject_HEAD
    struct relay *relay;
} Core;

#define RELAY(self) (((Core *)(self))->relay)

/* Arguments. */

static bool count_is(Py_ssize_t got, Py_ssize_t wanted)
{
    if (got != wanted)
        PyErr_Format(PyExc_TypeError, "%zd arguments wanted, %zd given", wanted, got);
    return got == wanted;
}

static relay_handle to_handle(PyObject *number) { return PyLong_AsUnsignedLongLong(number); }

/* An unsigned number of 32 bits. */
static uint32_t to_u32(PyObject *number)
{
    unsigned long long value = PyLong_AsUnsignedLongLong(number);
    if (value > UINT32_MAX && !PyErr_Occurred())
        PyErr_Format(PyExc_OverflowError, "%llu does not fit 32 bits", value);
    return (uint32_t)value;
}

/* Events. */

static uint32_t read_u32(const uint8_t *data)
{
    return (uint32_t)data[0] | (uint32_t)data[1] << 8 | (uint32_t)data[2] << 16
           | (uint32_t)data[3] << 24;
}

/* Whole packets as [(conn_id, their bytes, how many)]; a command is always alone. */
static PyObject *make_runs(const uint8_t *data, size_t size)
{
    PyObject *runs = PyList_New(0);
    if (runs == NULL)
        return NULL;
    for (size_t start = 0; start < size;) {
        uint32_t conn_id = read_u32(data + start + 4);
        size_t at = start;
        unsigned long count = 0;
        do {
            at += 4 + (size_t)read_u32(data + at);
            count++;
        } while (conn_id != 0 && at < size && read_u32(data + at + 4) == conn_id);
        PyObject *run = Py_BuildValue("ky#k", (unsigned long)conn_id, (const char *)data + start,
                                      (Py_ssize_t)(at - start), count);
        if (run == NULL || PyList_Append(runs, run) < 0) {
            Py_XDECREF(run);
            Py_DECREF(runs);
            return NULL;
        }
        Py_DECREF(run);
        start = at;
    }
    return runs;
}

static PyObject *make_payload(const struct relay_event *event)
{
    if (event->data == NULL)
        return PyLong_FromUnsignedLongLong(event->detail);
    const uint8_t *data = chunk_bytes(event->data);
    if (event->kind == RELAY_PACKETS)
        return make_runs(data, event->data->end);
    return PyBytes_FromStringAndSize((const char *)data, event->data->end);
}

/* The events of a turn as [(kind, owner, payload)]; None if there are none. */
static PyObject *take_events(struct relay *relay, int count)
{
    if (count == 0)
        Py_RETURN_NONE;
    const struct relay_event *events = relay_events(relay);
    PyObject *list = PyList_New(0);
    for (int i = 0; list != NULL && i < count; i++) {
        if (events[i].owner == NULL)
            continue;
        PyObject *payload = make_payload(&events[i]);
        PyObject *event = NULL;
        if (payload != NULL)
            event = Py_BuildValue("iON", (int)events[i].kind, (PyObject *)events[i].owner,
                                  payload);
        if (event == NULL || PyList_Append(list, event) < 0)
            Py_CLEAR(list);
        Py_XDECREF(event);
    }
    relay_clear_events(relay);
    return list;
}

/* One step of a turn, and its events. */
static PyObject *step(PyObject *self, PyObject *now, int (*take)(struct relay *, double))
{
    struct relay *relay = RELAY(self);
    double seconds = PyFloat_AsDouble(now);
    if (PyErr_Occurred())
        return NULL;
    int count;
    Py_BEGIN_ALLOW_THREADS
    count = take(relay, seconds);
    Py_END_ALLOW_THREADS
    return take_events(relay, count);
}

static PyObject *core_run(PyObject *self, PyObject *now) { return step(self, now, relay_run); }

static PyObject *core_go_on(PyObject *self, PyObject *now)
{
    return step(self, now, relay_continue);
}

static PyObject *core_sweep(PyObject *self, PyObject *now) { return step(self, now, relay_sweep); }

/* Links. */

static PyObject *core_fileno(PyObject *self, PyObject *unused)
{
    (void)unused;
    return PyLong_FromLong(relay_fd(RELAY(self)));
}

static PyObject *core_port(PyObject *self, PyObject *args)
{
    unsigned int max_packet, read_size;
    unsigned long long queue_packets, queue_bytes;
    double idle_timeout, write_timeout;
    int holds;
    if (!PyArg_ParseTuple(args, "IIdKKdp", &max_packet, &read_size, &idle_timeout,
                          &queue_packets, &queue_bytes, &write_timeout, &holds))
        return NULL;
    struct relay_port config = {
        .max_packet = max_packet,
        .read_size = read_size,
        .idle_timeout = idle_timeout,
        .queue_packets = queue_packets,
        .queue_bytes = queue_bytes,
        .write_timeout = write_timeout,
        .holds = holds != 0,
    };
    int port = relay_port(RELAY(self), &config);
    if (port < 0)
        return PyErr_NoMemory();
    return PyLong_FromLong(port);
}

static PyObject *core_accept(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    if (!count_is(count, 3))
        return NULL;
    long listening = PyLong_AsLong(args[0]), port = PyLong_AsLong(args[1]);
    double now = PyFloat_AsDouble(args[2]);
    if (PyErr_Occurred())
        return NULL;
    relay_handle handle = relay_accept(RELAY(self), (int)listening, (int)port, now);
    if (handle == 0)
        return PyLong_FromLong(-errno);
    return PyLong_FromUnsignedLongLong(handle);
}

static PyObject *core_adopt(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    if (!count_is(count, 3))
        return NULL;
    long fd = PyLong_AsLong(args[0]), port = PyLong_AsLong(args[1]);
    double now = PyFloat_AsDouble(args[2]);
    if (PyErr_Occurred())
        return NULL;
    relay_handle handle = relay_adopt(RELAY(self), (int)fd, (int)port, now);
    if (handle == 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    return PyLong_FromUnsignedLongLong(handle);
}

static PyObject *core_own(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    if (!count_is(count, 2))
        return NULL;
    relay_handle handle = to_handle(args[0]);
    struct relay_counts counts;
    if (PyErr_Occurred())
        return NULL;
    if (relay_counts(RELAY(self), handle, &counts)) {
        Py_INCREF(args[1]);
        relay_set_owner(RELAY(self), handle, args[1]);
    }
    Py_RETURN_NONE;
}

static PyObject *core_release(PyObject *self, PyObject *number)
{
    relay_handle handle = to_handle(number);
    if (PyErr_Occurred())
        return NULL;
    PyObject *owner = relay_release(RELAY(self), handle);
    Py_XDECREF(owner);
    Py_RETURN_NONE;
}

static PyObject *core_start(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    char *data;
    Py_ssize_t size;
    if (!count_is(count, 3))
        return NULL;
    relay_handle handle = to_handle(args[0]);
    double now = PyFloat_AsDouble(args[2]);
    if (PyErr_Occurred() || PyBytes_AsStringAndSize(args[1], &data, &size) < 0)
        return NULL;
    relay_start(RELAY(self), handle, data, (size_t)size, now);
    Py_RETURN_NONE;
}

static PyObject *core_pair(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    if (!count_is(count, 3))
        return NULL;
    uint32_t conn_id = to_u32(args[0]);
    relay_handle one = to_handle(args[1]), other = to_handle(args[2]);
    if (PyErr_Occurred())
        return NULL;
    return PyBool_FromLong(relay_pair(RELAY(self), conn_id, one, other));
}

static PyObject *core_unpair(PyObject *self, PyObject *number)
{
    uint32_t conn_id = to_u32(number);
    if (PyErr_Occurred())
        return NULL;
    relay_unpair(RELAY(self), conn_id);
    Py_RETURN_NONE;
}

static PyObject *core_send(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    char *data;
    Py_ssize_t size;
    if (!count_is(count, 3))
        return NULL;
    relay_handle handle = to_handle(args[0]);
    uint32_t packets = to_u32(args[2]);
    if (PyErr_Occurred() || PyBytes_AsStringAndSize(args[1], &data, &size) < 0)
        return NULL;
    relay_send(RELAY(self), handle, data, (size_t)size, packets);
    return PyBool_FromLong(relay_over(RELAY(self), handle));
}

static PyObject *core_over(PyObject *self, PyObject *number)
{
    relay_handle handle = to_handle(number);
    if (PyErr_Occurred())
        return NULL;
    return PyBool_FromLong(relay_over(RELAY(self), handle));
}

static PyObject *core_pause(PyObject *self, PyObject *number)
{
    relay_handle handle = to_handle(number);
    if (PyErr_Occurred())
        return NULL;
    relay_pause(RELAY(self), handle);
    Py_RETURN_NONE;
}

static PyObject *core_resume(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    if (!count_is(count, 2))
        return NULL;
    relay_handle handle = to_handle(args[0]);
    double now = PyFloat_AsDouble(args[1]);
    if (PyErr_Occurred())
        return NULL;
    relay_resume(RELAY(self), handle, now);
    Py_RETURN_NONE;
}

static PyObject *core_tell_drained(PyObject *self, PyObject *number)
{
    relay_handle handle = to_handle(number);
    if (PyErr_Occurred())
        return NULL;
    relay_tell_drained(RELAY(self), handle);
    Py_RETURN_NONE;
}

static PyObject *core_forget_drained(PyObject *self, PyObject *number)
{
    relay_handle handle = to_handle(number);
    if (PyErr_Occurred())
        return NULL;
    relay_forget_drained(RELAY(self), handle);
    Py_RETURN_NONE;
}

static PyObject *core_close(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    if (!count_is(count, 2))
        return NULL;
    relay_handle handle = to_handle(args[0]);
    uint32_t how = to_u32(args[1]);
    if (PyErr_Occurred())
        return NULL;
    relay_close(RELAY(self), handle, (enum relay_end)how);
    Py_RETURN_NONE;
}

/* Looking. */

static PyObject *core_counts(PyObject *self, PyObject *number)
{
    relay_handle handle = to_handle(number);
    struct relay_counts counts;
    if (PyErr_Occurred())
        return NULL;
    if (!relay_counts(RELAY(self), handle, &counts)) {
        PyErr_SetString(PyExc_LookupError, "no such link");
        return NULL;
    }
    return Py_BuildValue("(KKKKKKii)", (unsigned long long)counts.packets_in,
                         (unsigned long long)counts.bytes_in,
                         (unsigned long long)counts.packets_out,
                         (unsigned long long)counts.bytes_out,
                         (unsigned long long)counts.waiting_packets,
                         (unsigned long long)counts.waiting_bytes, (int)counts.held,
                         (int)counts.drained);
}

/* One of them, by its place. */
static PyObject *core_count(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    if (!count_is(count, 2))
        return NULL;
    relay_handle handle = to_handle(args[0]);
    uint32_t place = to_u32(args[1]);
    struct relay_counts counts;
    if (PyErr_Occurred())
        return NULL;
    if (!relay_counts(RELAY(self), handle, &counts)) {
        PyErr_SetString(PyExc_LookupError, "no such link");
        return NULL;
    }
    const uint64_t values[] = {
        counts.packets_in,      counts.bytes_in,      counts.packets_out, counts.bytes_out,
        counts.waiting_packets, counts.waiting_bytes, counts.held,        counts.drained,
    };
    if (place >= sizeof values / sizeof *values) {
        PyErr_SetString(PyExc_IndexError, "no such count");
        return NULL;
    }
    return PyLong_FromUnsignedLongLong(values[place]);
}

/* (host, port); ("", 0) for what is not IP. */
static PyObject *make_address(const struct sockaddr_storage *address)
{
    char host[INET6_ADDRSTRLEN] = "";
    unsigned port = 0;
    if (address->ss_family == AF_INET) {
        const struct sockaddr_in *in = (const void *)address;
        inet_ntop(AF_INET, &in->sin_addr, host, sizeof host);
        port = ntohs(in->sin_port);
    } else if (address->ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const void *)address;
        inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof host);
        port = ntohs(in6->sin6_port);
    }
    return Py_BuildValue("(sI)", host, port);
}

static PyObject *core_peer(PyObject *self, PyObject *number)
{
    relay_handle handle = to_handle(number);
    struct sockaddr_storage address;
    if (PyErr_Occurred())
        return NULL;
    if (!relay_peer(RELAY(self), handle, &address)) {
        PyErr_SetString(PyExc_LookupError, "no such link");
        return NULL;
    }
    return make_address(&address);
}

static PyObject *core_socket(PyObject *self, PyObject *number)
{
    relay_handle handle = to_handle(number);
    if (PyErr_Occurred())
        return NULL;
    return PyLong_FromLong(relay_socket(RELAY(self), handle));
}

static PyObject *core_totals(PyObject *self, PyObject *unused)
{
    (void)unused;
    struct relay_totals totals;
    relay_totals(RELAY(self), &totals);
    return Py_BuildValue("(KKKKK)", (unsigned long long)totals.packets,
                         (unsigned long long)totals.bytes, (unsigned long long)totals.holds,
                         (unsigned long long)totals.links, (unsigned long long)totals.pairs);
}

static PyObject *core_pool(PyObject *self, PyObject *unused)
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

/* The type. */

static PyObject *core_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    int pool_type;
    unsigned int factor, min_chunk, max_chunk, page_size;
    unsigned long long limit;
    (void)kwargs;
    if (!PyArg_ParseTuple(args, "iIIIIK", &pool_type, &factor, &min_chunk, &max_chunk, &page_size,
                          &limit))
        return NULL;
    struct pool_config config = {
        .type = (enum pool_type)pool_type,
        .factor = factor,
        .min_chunk = min_chunk,
        .max_chunk = max_chunk,
        .page_size = page_size,
        .limit = limit,
    };
    allocfunc alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Core *core = (Core *)alloc(type, 0);
    if (core == NULL)
        return NULL;
    core->relay = relay_new(&config);
    if (core->relay == NULL) {
        PyErr_SetFromErrno(PyExc_OSError);
        Py_DECREF(core);
        return NULL;
    }
    return (PyObject *)core;
}

static int core_traverse(PyObject *self, visitproc visit, void *arg)
{
    uint32_t place = 0;
    PyObject *owner;
    Py_VISIT(Py_TYPE(self));
    if (RELAY(self) != NULL)
        while ((owner = relay_next_owner(RELAY(self), &place)) != NULL)
            Py_VISIT(owner);
    return 0;
}

static void core_dealloc(PyObject *self)
{
    struct relay *relay = RELAY(self);
    uint32_t place = 0;
    PyObject *owner;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (relay != NULL) {
        while ((owner = relay_next_owner(relay, &place)) != NULL)
            Py_DECREF(owner);
        relay_free(relay);
    }
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

#define FAST(name, function) {name, (PyCFunction)(void (*)(void))function, METH_FASTCALL, NULL}
#define ONE(name, function) {name, function, METH_O, NULL}
#define NONE(name, function) {name, function, METH_NOARGS, NULL}

static PyMethodDef core_methods[] = {
    ONE("run", core_run),
    ONE("go_on", core_go_on),
    ONE("sweep", core_sweep),
    NONE("fileno", core_fileno),
    {"port", core_port, METH_VARARGS, NULL},
    FAST("accept", core_accept),
    FAST("adopt", core_adopt),
    FAST("own", core_own),
    ONE("release", core_release),
    FAST("start", core_start),
    FAST("pair", core_pair),
    ONE("unpair", core_unpair),
    FAST("send", core_send),
    ONE("over", core_over),
    ONE("pause", core_pause),
    FAST("resume", core_resume),
    ONE("tell_drained", core_tell_drained),
    ONE("forget_drained", core_forget_drained),
    FAST("close", core_close),
    ONE("counts", core_counts),
    FAST("count", core_count),
    ONE("peer", core_peer),
    ONE("socket", core_socket),
    NONE("totals", core_totals),
    NONE("pool", core_pool),
    {NULL, NULL, 0, NULL},
};

static PyType_Slot core_slots[] = {
    {Py_tp_doc, "One relay: see relay.h."},
    {Py_tp_new, core_new},
    {Py_tp_traverse, core_traverse},
    {Py_tp_dealloc, core_dealloc},
    {Py_tp_methods, core_methods},
    {0, NULL},
};

static PyType_Spec core_spec = {
    .name = "fastway.relay._core.Core",
    .basicsize = sizeof(Core),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = core_slots,
};

static int exec_module(PyObject *module)
{
    static const struct {
        const char *name;
        int value;
    } constants[] = {
        {"PACKETS", RELAY_PACKETS}, {"BYTES", RELAY_BYTES},     {"FIN", RELAY_FIN},
        {"GONE", RELAY_GONE},       {"BROKEN", RELAY_BROKEN},   {"IDLE", RELAY_IDLE},
        {"STUCK", RELAY_STUCK},     {"OVER", RELAY_OVER},       {"DRAINED", RELAY_DRAINED},
        {"NO_MEMORY", RELAY_NO_MEMORY},
        {"ABORT", RELAY_ABORT},     {"CLOSE", RELAY_CLOSE},     {"HALF", RELAY_HALF},
        {"ATOM", POOL_ATOM},        {"CHAN", POOL_CHAN},        {"SYNC", POOL_SYNC},
    };
    for (size_t i = 0; i < sizeof constants / sizeof *constants; i++)
        if (PyModule_AddIntConstant(module, constants[i].name, constants[i].value) < 0)
            return -1;
    PyObject *type = PyType_FromSpec(&core_spec);
    if (type == NULL)
        return -1;
    int added = PyModule_AddObjectRef(module, "Core", type);
    Py_DECREF(type);
    return added;
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, (void *)exec_module},
    {0, NULL},
};

static struct PyModuleDef module_definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_core",
    .m_doc = "The native part of fastway.relay.",
    .m_size = 0,
    .m_slots = module_slots,
};

PyMODINIT_FUNC PyInit__core(void) { return PyModuleDef_Init(&module_definition); }
