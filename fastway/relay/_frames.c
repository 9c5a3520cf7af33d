/* The Python face of frames.h: frames become messages, and answers become frames.
 *
 * Law: what is taken here is the same in fastway.dialect, by functions of the same names and
 * arguments; those say what these are.
 */
#include "_face.h"

#include <string.h>

#include "frames.h"

/* Reading. The functions are bound to the type of their messages. */

enum { FIELDS = 7 }; /* route, body, format, token, answer_format, meta, refused */

struct cut {
    const uint8_t *data;
    size_t size, at;
    uint64_t limit;
    PyObject *kind, *routes, *forms, *events;
};

/* (data, limit, routes, forms, ..., events), of which there are `wanted`; else an exception. */
static bool begin(struct cut *cut, PyObject *kind, PyObject *const *args, Py_ssize_t count,
                  Py_ssize_t wanted)
{
    char *data;
    Py_ssize_t size;
    if (!count_is(count, wanted) || PyBytes_AsStringAndSize(args[0], &data, &size) < 0)
        return false;
    *cut = (struct cut){(const uint8_t *)data, (size_t)size, 0,
                        PyLong_AsUnsignedLongLong(args[1]), kind, args[2], args[3],
                        args[wanted - 1]};
    if (!PyErr_Occurred() && (!PyDict_Check(cut->routes) || !PyList_Check(cut->events)))
        PyErr_SetString(PyExc_TypeError, "a dict of routes and a list of events wanted");
    return !PyErr_Occurred();
}

/* Where it is cut to, unless there is an exception. */
static PyObject *end(const struct cut *cut)
{
    return PyErr_Occurred() ? NULL : PyLong_FromSize_t(cut->at);
}

/* What a dict has of a key, which it takes; NULL: nothing, or there is an exception. */
static PyObject *find(PyObject *dict, PyObject *key)
{
    PyObject *found = key == NULL ? NULL : PyDict_GetItemWithError(dict, key);
    Py_XINCREF(found);
    Py_XDECREF(key);
    return found;
}

static PyObject *bytes_of(const uint8_t *data, size_t size)
{
    return PyBytes_FromStringAndSize((const char *)data, (Py_ssize_t)size);
}

static PyObject *text_of(const uint8_t *data, size_t size)
{
    return PyUnicode_FromStringAndSize((const char *)data, (Py_ssize_t)size);
}

/* Of these parts, which it takes; NULL: one is missing. `kind` NULL: of tuple itself. */
static PyObject *make_tuple(PyObject *kind, PyObject *const *parts, Py_ssize_t count)
{
    PyObject *tuple = NULL;
    Py_ssize_t there = 0;
    while (there < count && parts[there] != NULL)
        there++;
    if (there == count && kind != NULL) {
        PyTypeObject *type = (PyTypeObject *)kind;
        tuple = ((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, count);
    } else if (there == count) {
        tuple = PyTuple_New(count);
    }
    for (Py_ssize_t i = 0; i < count; i++)
        if (tuple == NULL)
            Py_XDECREF(parts[i]);
        else
            PyTuple_SetItem(tuple, i, parts[i]);
    return tuple;
}

/* Tell a message, of parts that it takes; false: one is missing, or there is an exception. */
static bool tell(struct cut *cut, const struct frame *frame, PyObject *route, PyObject *form,
                 PyObject *token, PyObject *meta)
{
    PyObject *parts[FIELDS] = {route, bytes_of(frame->body, frame->body_size), form, token,
                               Py_NewRef(Py_None), meta, Py_NewRef(Py_None)};
    PyObject *message = make_tuple(cut->kind, parts, FIELDS);
    bool told = message != NULL && PyList_Append(cut->events, message) == 0;
    Py_XDECREF(message);
    if (told)
        cut->at += frame->size;
    return told;
}

static PyObject *read_requests(PyObject *kind, PyObject *const *args, Py_ssize_t count)
{
    struct cut cut;
    struct frame frame;
    if (!begin(&cut, kind, args, count, 5))
        return NULL;
    while (frame_pomelo(cut.data + cut.at, cut.size - cut.at, cut.limit, &frame)) {
        PyObject *route = find(cut.routes, bytes_of(frame.name, frame.name_size));
        if (route == NULL)
            break;
        PyObject *token = frame.asks ? PyLong_FromUnsignedLongLong(frame.number)
                                     : Py_NewRef(Py_None);
        if (!tell(&cut, &frame, route, Py_NewRef(cut.forms), token, PyTuple_New(0)))
            break;
    }
    return end(&cut);
}

static PyObject *read_calls(PyObject *kind, PyObject *const *args, Py_ssize_t count)
{
    struct cut cut;
    struct frame frame;
    if (!begin(&cut, kind, args, count, 5))
        return NULL;
    while (frame_teleport(cut.data + cut.at, cut.size - cut.at, cut.limit, &frame)) {
        PyObject *route = find(cut.routes, bytes_of(frame.name, frame.name_size));
        PyObject *form = route == NULL ? NULL : find(cut.forms, PyLong_FromLong(frame.codec));
        if (form == NULL) {
            Py_XDECREF(route);
            break;
        }
        PyObject *parts[] = {PyLong_FromUnsignedLongLong(frame.number),
                             PyLong_FromLong(frame.codec), bytes_of(NULL, 0), PyBool_FromLong(0)};
        PyObject *token = make_tuple(NULL, parts, 4);
        if (!frame.asks && token != NULL) {
            Py_DECREF(token);
            token = Py_NewRef(Py_None);
        }
        if (!tell(&cut, &frame, route, form, token, PyList_New(0)))
            break;
    }
    return end(&cut);
}

static PyObject *read_pulls(PyObject *kind, PyObject *const *args, Py_ssize_t count)
{
    struct cut cut;
    struct frame frame;
    if (!begin(&cut, kind, args, count, 5))
        return NULL;
    while (frame_teleport2(cut.data + cut.at, cut.size - cut.at, cut.limit, &frame)) {
        PyObject *uri = text_of(frame.name, frame.name_size);
        Py_XINCREF(uri);
        PyObject *route = find(cut.routes, uri);
        PyObject *form = route == NULL ? NULL : find(cut.forms, PyLong_FromLong(frame.codec));
        if (form == NULL) {
            Py_XDECREF(route);
            Py_XDECREF(uri);
            break;
        }
        PyObject *parts[] = {PyLong_FromUnsignedLongLong(frame.number), uri, PyLong_FromLong(0),
                             PyLong_FromLong('j'), PyLong_FromLong(frame.codec)};
        if (!tell(&cut, &frame, route, form, make_tuple(NULL, parts, 5), PyList_New(0)))
            break;
    }
    return end(&cut);
}

static PyObject *read_named(PyObject *kind, PyObject *const *args, Py_ssize_t count)
{
    struct cut cut;
    struct frame frame;
    if (!begin(&cut, kind, args, count, 7))
        return NULL;
    unsigned long width = PyLong_AsUnsignedLong(args[4]);
    int answered = PyObject_IsTrue(args[5]);
    if (PyErr_Occurred())
        return NULL;
    while (frame_hotpot(cut.data + cut.at, cut.size - cut.at, cut.limit, (unsigned)width, &frame)) {
        PyObject *name = text_of(frame.name, frame.name_size);
        Py_XINCREF(name);
        PyObject *route = find(cut.routes, name);
        PyObject *token = answered ? Py_XNewRef(name) : Py_NewRef(Py_None);
        if (route == NULL && !PyErr_Occurred())
            route = Py_XNewRef(name);
        Py_XDECREF(name);
        if (!tell(&cut, &frame, route, Py_NewRef(cut.forms), token, PyTuple_New(0)))
            break;
    }
    return end(&cut);
}

/* Writing: None is returned of what is not as most are. */

enum { NUMBER = 20 }; /* digits */

static size_t put_digits(char *to, uint64_t number, unsigned base)
{
    char digits[NUMBER];
    size_t size = 0;
    do
        digits[size++] = "0123456789abcdefghijklmnopqrstuvwxyz"[number % base];
    while ((number /= base) != 0);
    for (size_t i = 0; i < size; i++)
        to[i] = digits[size - 1 - i];
    return size;
}

static char *put(char *to, const void *data, size_t size)
{
    memcpy(to, data, size);
    return to + size;
}

static char *put_length(char *to, uint64_t length, unsigned width)
{
    for (unsigned i = 0; i < width; i++)
        to[i] = (char)(length >> 8 * (width - 1 - i));
    return to + width;
}

/* A number that is small enough; false: it is not, or none. */
static bool small(PyObject *number, uint64_t most, uint64_t *value)
{
    *value = PyLong_AsUnsignedLongLong(number);
    if (!PyErr_Occurred())
        return *value <= most;
    if (PyErr_ExceptionMatches(PyExc_OverflowError))
        PyErr_Clear();
    return false;
}

struct text {
    char *data;
    Py_ssize_t size;
};

/* Room for a frame of `size` bytes, where there are no more than `limit`. */
static PyObject *make_frame(size_t size, uint64_t limit, char **at)
{
    if (size > limit)
        Py_RETURN_NONE;
    PyObject *frame = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
    *at = frame == NULL ? NULL : PyBytes_AsString(frame);
    return frame;
}

static PyObject *none_unless_error(void)
{
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}

static bool get_bytes(PyObject *object, struct text *text)
{
    return PyBytes_AsStringAndSize(object, &text->data, &text->size) == 0;
}

static PyObject *response_packet(PyObject *kind, PyObject *const *args, Py_ssize_t count)
{
    struct text body;
    uint64_t mid, limit;
    char *at = NULL;
    (void)kind;
    if (!count_is(count, 3) || !get_bytes(args[1], &body) || !small(args[0], 0x7f, &mid)
        || !small(args[2], 0xffffff, &limit))
        return none_unless_error();
    size_t size = 2 + (size_t)body.size;
    PyObject *frame = make_frame(4 + size, 4 + limit, &at);
    if (at != NULL) {
        at = put_length(at, 4u << 24 | size, 4);
        *at++ = 4;
        *at++ = (char)mid;
        put(at, body.data, (size_t)body.size);
    }
    return frame;
}

static PyObject *write_answer(PyObject *kind, PyObject *const *args, Py_ssize_t count)
{
    static const char well[] = "\2\0\0\6code=0\0\0";
    struct text body;
    uint64_t seq, codec, limit;
    char number[NUMBER], *at = NULL;
    (void)kind;
    if (!count_is(count, 4) || !get_bytes(args[2], &body) || !small(args[0], UINT32_MAX, &seq)
        || !small(args[1], 0xff, &codec) || !small(args[3], UINT32_MAX, &limit))
        return none_unless_error();
    size_t width = put_digits(number, seq, 36);
    size_t size = 6 + width + (sizeof well - 1) + 1 + (size_t)body.size;
    PyObject *frame = make_frame(size, limit, &at);
    if (at != NULL) {
        at = put_length(at, size, 4);
        at = put_length(at, width, 2); /* and no filters before */
        at = put(put(at, number, width), well, sizeof well - 1);
        *at++ = (char)codec;
        put(at, body.data, (size_t)body.size);
    }
    return frame;
}

static PyObject *write_reply(PyObject *kind, PyObject *const *args, Py_ssize_t count)
{
    struct text tail, body;
    uint64_t seq, codec, limit;
    char number[NUMBER], *at = NULL;
    (void)kind;
    if (!count_is(count, 5) || !get_bytes(args[1], &tail) || !get_bytes(args[3], &body)
        || !small(args[0], UINT64_MAX, &seq) || !small(args[2], 0xff, &codec)
        || !small(args[4], UINT32_MAX, &limit) || tail.size == 0)
        return none_unless_error();
    static const char said[] = "\"seq\":";
    size_t digits = seq == 0 ? 0 : put_digits(number, seq, 10);
    size_t before = seq == 0 ? 0 : sizeof said - 1 + digits;
    /* Its comma is for what stands before. */
    if (seq == 0) {
        tail.data++;
        tail.size--;
    }
    size_t header = 2 + before + (size_t)tail.size;
    PyObject *frame = make_frame(8 + header + 1 + (size_t)body.size, limit, &at);
    if (at != NULL) {
        at = put(put_length(at, header, 4), "j{", 2);
        if (seq != 0)
            at = put(put(at, said, sizeof said - 1), number, digits);
        at = put(at, tail.data, (size_t)tail.size);
        at = put_length(at, 1 + (uint64_t)body.size, 4);
        *at++ = (char)codec;
        put(at, body.data, (size_t)body.size);
    }
    return frame;
}

static PyObject *write_named(PyObject *kind, PyObject *const *args, Py_ssize_t count)
{
    struct text head, body;
    uint64_t width, limit;
    char *at = NULL;
    (void)kind;
    if (!count_is(count, 4) || !get_bytes(args[0], &head) || !get_bytes(args[1], &body)
        || !small(args[2], 4, &width) || !small(args[3], INT64_MAX, &limit))
        return none_unless_error();
    static const char error[] = "{\"type\":\"Error\",\"data\":"; /* is written otherwise */
    if ((size_t)head.size == sizeof error - 1 && memcmp(head.data, error, sizeof error - 1) == 0)
        Py_RETURN_NONE;
    if (body.size == 0)
        body = (struct text){"null", 4};
    size_t size = (size_t)head.size + (size_t)body.size + 1;
    PyObject *frame = make_frame(width + size, width + limit, &at);
    if (at != NULL) {
        at = put(put_length(at, size, (unsigned)width), head.data, (size_t)head.size);
        *put(at, body.data, (size_t)body.size) = '}';
    }
    return frame;
}

#define BOUND(name) {#name, (PyCFunction)(void (*)(void))name, METH_FASTCALL, NULL}

static PyMethodDef functions[] = {
    BOUND(read_requests), BOUND(read_calls),   BOUND(read_pulls),  BOUND(read_named),
    BOUND(response_packet), BOUND(write_answer), BOUND(write_reply), BOUND(write_named),
};

/* All of them by their names, for messages of a kind of tuple. */
PyObject *make_frames(PyObject *module, PyObject *kind)
{
    (void)module;
    if (!PyType_Check(kind) || !PyType_IsSubtype((PyTypeObject *)kind, &PyTuple_Type)) {
        PyErr_SetString(PyExc_TypeError, "a kind of tuple wanted");
        return NULL;
    }
    PyObject *found = PyDict_New();
    for (size_t i = 0; found != NULL && i < sizeof functions / sizeof *functions; i++) {
        PyObject *one = PyCFunction_New(&functions[i], kind);
        if (one == NULL || PyDict_SetItemString(found, functions[i].ml_name, one) < 0)
            Py_CLEAR(found);
        Py_XDECREF(one);
    }
    return found;
}

/* (data, html) and (data): as frames.h has them. */
PyObject *is_plain_json(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    struct text data;
    (void)module;
    if (!count_is(count, 2) || !get_bytes(args[0], &data))
        return NULL;
    return PyBool_FromLong(
        json_is_plain((const uint8_t *)data.data, (size_t)data.size, args[1] == Py_True));
}

PyObject *is_shallow_json(PyObject *module, PyObject *bytes)
{
    struct text data;
    (void)module;
    if (!get_bytes(bytes, &data))
        return NULL;
    return PyBool_FromLong(json_is_shallow((const uint8_t *)data.data, (size_t)data.size));
}

/* (coroutine, context, begun): what the coroutine returned in its first step; else `begun`, of it,
 * what it waits for, and the context. No StopIteration is made for its end, which is half of what a
 * step costs. */
PyObject *first_step(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    PyObject *given;
    (void)module;
    if (!count_is(count, 3))
        return NULL;
    PySendResult how = PyIter_Send(args[0], Py_None, &given);
    if (how != PYGEN_NEXT)
        return how == PYGEN_RETURN ? given : NULL;
    PyObject *begun = PyObject_CallFunctionObjArgs(args[2], args[0], given, args[1], NULL);
    Py_DECREF(given);
    return begun;
}
