/* The Python face of the relay.
 *
 * Law: it only translates; what is done is behind relay.h.
 */
#include "_face.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#ifndef RELAY_SOURCES
#define RELAY_SOURCES "" /* setup.py says of which sources this is: sources.py */
#endif

/* Arguments. */

bool count_is(Py_ssize_t got, Py_ssize_t wanted)
{
    if (got != wanted)
        PyErr_Format(PyExc_TypeError, "%zd arguments wanted, %zd given", wanted, got);
    return got == wanted;
}

/* An unsigned number of 32 bits. */
static uint32_t to_u32(PyObject *number)
{
    unsigned long long value = PyLong_AsUnsignedLongLong(number);
    if (value > UINT32_MAX && !PyErr_Occurred())
        PyErr_Format(PyExc_OverflowError, "%llu does not fit 32 bits", value);
    return (uint32_t)value;
}

/* For O&: the formats for unsigned numbers would cut off what does not fit. */
static int convert_u32(PyObject *number, void *to)
{
    *(uint32_t *)to = to_u32(number);
    return !PyErr_Occurred();
}

static int convert_u64(PyObject *number, void *to)
{
    *(uint64_t *)to = PyLong_AsUnsignedLongLong(number);
    return !PyErr_Occurred();
}

/* Turns. */

/* One step of a turn; returns how many events there are, or -1. */
static int step(PyObject *self, PyObject *now, int (*take)(struct relay *, double))
{
    struct relay *relay = RELAY(self);
    double seconds = PyFloat_AsDouble(now);
    int count;
    if (PyErr_Occurred())
        return -1;
    Py_BEGIN_ALLOW_THREADS
    count = take(relay, seconds);
    Py_END_ALLOW_THREADS
    return count;
}

static PyObject *core_run(PyObject *self, PyObject *now)
{
    int count = step(self, now, relay_run);
    if (count == 0)
        Py_RETURN_NONE;
    return count < 0 ? NULL : take_events(RELAY(self), count);
}

static PyObject *core_sweep(PyObject *self, PyObject *now)
{
    int count = step(self, now, relay_sweep);
    if (count == 0 && relay_rests(RELAY(self)))
        Py_RETURN_NONE;
    return count < 0 ? NULL : take_events(RELAY(self), count);
}

static int go_on(struct relay *relay, double now)
{
    relay_go_on(relay, now);
    return 0;
}

static PyObject *core_go_on(PyObject *self, PyObject *now)
{
    if (step(self, now, go_on) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* Links. */

static PyObject *core_fileno(PyObject *self, PyObject *unused)
{
    (void)unused;
    return PyLong_FromLong(relay_fd(RELAY(self)));
}

static PyObject *core_limit(PyObject *self, PyObject *number)
{
    uint64_t bytes = PyLong_AsUnsignedLongLong(number);
    if (PyErr_Occurred())
        return NULL;
    relay_limit(RELAY(self), bytes);
    Py_RETURN_NONE;
}

static PyObject *core_port(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"max_packet",  "read_size",     "idle_timeout", "queue_packets",
                            "queue_bytes", "write_timeout", "holds",        "frame_limit",
                            "answers",     NULL};
    struct relay_port config = {0};
    int holds, answers = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O&O&dO&O&dpO&|$p", names, convert_u64,
                                     &config.max_packet, convert_u64, &config.read_size,
                                     &config.idle_timeout, convert_u64, &config.queue_packets,
                                     convert_u64, &config.queue_bytes, &config.write_timeout,
                                     &holds, convert_u64, &config.frame_limit, &answers))
        return NULL;
    config.holds = holds != 0;
    config.answers = answers != 0;
    int port = relay_port(RELAY(self), &config);
    if (port < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    return PyLong_FromLong(port);
}

static PyObject *core_rate(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    if (!count_is(count, 3))
        return NULL;
    long port = PyLong_AsLong(args[0]);
    double packets = PyFloat_AsDouble(args[1]), bytes = PyFloat_AsDouble(args[2]);
    if (PyErr_Occurred())
        return NULL;
    if (relay_rate(RELAY(self), (int)port, packets, bytes) < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    Py_RETURN_NONE;
}

/* (socket, address, host, port), or -errno. */
static PyObject *core_take(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    (void)self;
    if (!count_is(count, 2))
        return NULL;
    long listening = PyLong_AsLong(args[0]), most = PyLong_AsLong(args[1]);
    if (PyErr_Occurred())
        return NULL;
    if (most > INT_MAX)
        most = INT_MAX;
    struct sockaddr_storage peer;
    int fd = relay_take((int)listening, (int)most, &peer);
    if (fd < 0)
        return PyLong_FromLong(-errno);
    return make_taken(fd, &peer);
}

static PyObject *core_refuse(PyObject *self, PyObject *number)
{
    (void)self;
    long fd = PyLong_AsLong(number);
    if (PyErr_Occurred())
        return NULL;
    relay_refuse((int)fd);
    Py_RETURN_NONE;
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
    if (!count_is(count, 4))
        return NULL;
    relay_handle handle = to_handle(args[0]);
    uint32_t framing = to_u32(args[2]);
    double now = PyFloat_AsDouble(args[3]);
    if (PyErr_Occurred() || PyBytes_AsStringAndSize(args[1], &data, &size) < 0)
        return NULL;
    relay_start(RELAY(self), handle, data, (size_t)size, (enum relay_framing)framing, now);
    Py_RETURN_NONE;
}


static PyObject *core_library(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    struct relay_library library;
    if (!convert_library(args, count, &library))
        return NULL;
    relay_library(RELAY(self), &library);
    Py_RETURN_NONE;
}

static PyObject *core_tls(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    char *data;
    Py_ssize_t size;
    if (!count_is(count, 5))
        return NULL;
    relay_handle handle = to_handle(args[0]);
    void *ssl = to_pointer(args[1]), *into = to_pointer(args[2]), *from = to_pointer(args[3]);
    if (PyErr_Occurred() || PyBytes_AsStringAndSize(args[4], &data, &size) < 0)
        return NULL;
    return PyBool_FromLong(relay_tls(RELAY(self), handle, ssl, into, from, data, (size_t)size));
}

static PyObject *core_tls_errors(PyObject *self, PyObject *number)
{
    relay_handle handle = to_handle(number);
    uint32_t codes[RELAY_TLS_ERRORS];
    if (PyErr_Occurred())
        return NULL;
    int count = relay_tls_errors(RELAY(self), handle, codes);
    PyObject *list = PyList_New(count);
    for (int i = 0; list != NULL && i < count; i++) {
        PyObject *code = PyLong_FromUnsignedLong(codes[i]);
        if (code == NULL || PyList_SetItem(list, i, code) < 0)
            Py_CLEAR(list);
    }
    return list;
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
    return PyBool_FromLong(relay_send(RELAY(self), handle, data, (size_t)size, packets));
}

/* To all handles of a list; how many are to get it. */
static PyObject *core_send_each(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    char *data;
    Py_ssize_t size, room;
    if (!count_is(count, 2) || (room = PyList_Size(args[0])) < 0
        || PyBytes_AsStringAndSize(args[1], &data, &size) < 0)
        return NULL;
    relay_handle *handles = PyMem_Malloc((size_t)(room + 1) * sizeof *handles);
    if (handles == NULL)
        return PyErr_NoMemory();
    for (Py_ssize_t i = 0; i < room && !PyErr_Occurred(); i++)
        handles[i] = to_handle(PyList_GetItem(args[0], i));
    size_t took = 0;
    if (!PyErr_Occurred() && size > RELAY_MAX_PACKET)
        PyErr_SetString(PyExc_ValueError, "more bytes than a packet may have");
    else if (!PyErr_Occurred())
        took = relay_send_each(RELAY(self), handles, (size_t)room, data, (size_t)size);
    PyMem_Free(handles);
    return PyErr_Occurred() ? NULL : PyLong_FromSize_t(took);
}

/* The ids are an array of native u32, and so are those that are returned. */
static PyObject *core_multicast(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    char *ids, *data;
    Py_ssize_t ids_size, size;
    if (!count_is(count, 3))
        return NULL;
    relay_handle handle = to_handle(args[0]);
    if (PyErr_Occurred() || PyBytes_AsStringAndSize(args[1], &ids, &ids_size) < 0
        || PyBytes_AsStringAndSize(args[2], &data, &size) < 0)
        return NULL;
    if (size > RELAY_MAX_PACKET || ids_size % (Py_ssize_t)sizeof(uint32_t) != 0) {
        PyErr_SetString(PyExc_ValueError, "a message too large, or part of an id");
        return NULL;
    }
    uint32_t *conn_ids = PyMem_Malloc(ids_size > 0 ? (size_t)ids_size : 1);
    if (conn_ids == NULL)
        return PyErr_NoMemory();
    memcpy(conn_ids, ids, (size_t)ids_size);
    size_t left = relay_multicast(RELAY(self), handle, conn_ids,
                                  (size_t)ids_size / sizeof *conn_ids, data, (size_t)size);
    PyObject *rest = PyBytes_FromStringAndSize((const char *)conn_ids,
                                               (Py_ssize_t)(left * sizeof *conn_ids));
    PyMem_Free(conn_ids);
    return rest;
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

static PyObject *core_tell_taken(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    if (!count_is(count, 2))
        return NULL;
    relay_handle handle = to_handle(args[0]);
    uint64_t position = PyLong_AsUnsignedLongLong(args[1]);
    if (PyErr_Occurred())
        return NULL;
    relay_tell_taken(RELAY(self), handle, position);
    Py_RETURN_NONE;
}

static PyObject *core_farewell(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    if (!count_is(count, 3))
        return NULL;
    relay_handle handle = to_handle(args[0]);
    uint32_t code = to_u32(args[1]);
    const char *text = PyErr_Occurred() ? NULL : PyUnicode_AsUTF8AndSize(args[2], NULL);
    if (text == NULL)
        return NULL;
    relay_farewell(RELAY(self), handle, (uint16_t)code, text);
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

/* Verbs and questions that take a handle alone. */

static PyObject *none(void) { Py_RETURN_NONE; }

#define BY_HANDLE(name, result) \
    static PyObject *core_##name(PyObject *self, PyObject *number) \
    { \
        relay_handle handle = to_handle(number); \
        return PyErr_Occurred() ? NULL : result; \
    }

static PyObject *core_direct(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    if (!count_is(count, 2))
        return NULL;
    relay_handle handle = to_handle(args[0]);
    uint32_t conn_id = to_u32(args[1]);
    if (PyErr_Occurred())
        return NULL;
    relay_direct(RELAY(self), handle, conn_id);
    Py_RETURN_NONE;
}

BY_HANDLE(over, PyBool_FromLong(relay_over(RELAY(self), handle)))
BY_HANDLE(saturated, PyBool_FromLong(relay_saturated(RELAY(self), handle)))
BY_HANDLE(waiting, PyLong_FromUnsignedLongLong(relay_waiting(RELAY(self), handle)))
BY_HANDLE(added, PyLong_FromUnsignedLongLong(relay_added(RELAY(self), handle)))
BY_HANDLE(taken, PyLong_FromUnsignedLongLong(relay_taken(RELAY(self), handle)))
BY_HANDLE(defer, (relay_defer(RELAY(self), handle), none()))
BY_HANDLE(handled, (relay_handled(RELAY(self), handle), none()))
BY_HANDLE(pause, (relay_pause(RELAY(self), handle), none()))
BY_HANDLE(socket, PyLong_FromLong(relay_socket(RELAY(self), handle)))

/* The type. */

static PyObject *core_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"pool_type",   "factor",       "min_chunk",     "max_chunk",
                            "page_size",   "limit",        "commands_each", "commands_turn",
                            "events_turn", "openings_turn", "share_least",  "share_most",
                            "shares",      "turn_seconds", NULL};
    uint32_t pool_type;
    struct relay_config config = {0};
    struct pool_config *pool = &config.pool;
    if (!PyArg_ParseTupleAndKeywords(
            args, kwargs, "$O&O&O&O&O&O&O&O&O&O&O&O&O&d", names, convert_u32, &pool_type,
            convert_u32, &pool->factor, convert_u32, &pool->min_chunk, convert_u32,
            &pool->max_chunk, convert_u32, &pool->page_size, convert_u64, &pool->limit,
            convert_u32, &config.commands_each, convert_u32, &config.commands_turn, convert_u32,
            &config.events_turn, convert_u32, &config.openings_turn, convert_u64, &config.share_least, convert_u64,
            &config.share_most, convert_u64, &config.shares, &config.turn_seconds))
        return NULL;
    pool->type = (enum pool_type)pool_type;
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
    ONE("limit", core_limit),
    {"port", (PyCFunction)(void (*)(void))core_port, METH_VARARGS | METH_KEYWORDS, NULL},
    FAST("rate", core_rate),
    FAST("take", core_take),
    ONE("refuse", core_refuse),
    FAST("adopt", core_adopt),
    FAST("own", core_own),
    ONE("release", core_release),
    FAST("direct", core_direct),
    FAST("start", core_start),
    FAST("library", core_library),
    FAST("tls", core_tls),
    ONE("tls_errors", core_tls_errors),
    FAST("pair", core_pair),
    ONE("unpair", core_unpair),
    FAST("send", core_send),
    FAST("multicast", core_multicast),
    FAST("send_each", core_send_each),
    ONE("waiting", core_waiting),
    ONE("over", core_over),
    ONE("saturated", core_saturated),
    ONE("added", core_added),
    ONE("taken", core_taken),
    FAST("tell_taken", core_tell_taken),
    ONE("defer", core_defer),
    ONE("handled", core_handled),
    ONE("pause", core_pause),
    FAST("resume", core_resume),
    FAST("farewell", core_farewell),
    FAST("close", core_close),
    ONE("counts", core_counts),
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
        {"STUCK", RELAY_STUCK},     {"OVER", RELAY_OVER},       {"TAKEN", RELAY_TAKEN},
        {"NO_MEMORY", RELAY_NO_MEMORY}, {"MISFRAMED", RELAY_MISFRAMED},
        {"PLAIN", RELAY_PLAIN},     {"WEBSOCKET", RELAY_WEBSOCKET},
        {"ABORT", RELAY_ABORT},     {"CLOSE", RELAY_CLOSE},     {"HALF", RELAY_HALF},
        {"ATOM", POOL_ATOM},        {"CHAN", POOL_CHAN},        {"SYNC", POOL_SYNC},
    };
    for (size_t i = 0; i < sizeof constants / sizeof *constants; i++)
        if (PyModule_AddIntConstant(module, constants[i].name, constants[i].value) < 0)
            return -1;
    if (PyModule_AddStringConstant(module, "SOURCES", RELAY_SOURCES) < 0)
        return -1;
    PyObject *type = add_shaker(module) < 0 ? NULL : PyType_FromSpec(&core_spec);
    if (type == NULL)
        return -1;
    PyObject *tick = PyFloat_FromDouble(RELAY_TICK);
    int added = PyModule_AddObjectRef(module, "Core", type);
    if (added == 0 && tick != NULL)
        added = PyModule_AddObjectRef(module, "TICK", tick);
    Py_XDECREF(tick);
    Py_DECREF(type);
    return tick == NULL ? -1 : added;
}

static PyMethodDef module_functions[] = {
    ONE("frames", make_frames),
    FAST("first_step", first_step),
    FAST("is_plain_json", is_plain_json),
    ONE("is_shallow_json", is_shallow_json),
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, (void *)exec_module},
    {0, NULL},
};

static struct PyModuleDef module_definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_core",
    .m_doc = "The native part of fastway.relay.",
    .m_size = 0,
    .m_methods = module_functions,
    .m_slots = module_slots,
};

PyMODINIT_FUNC PyInit__core(void) { return PyModuleDef_Init(&module_definition); }
