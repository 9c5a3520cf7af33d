/* What the files of the relay's Python face share: the limited API of CPython 3.10, so that one
 * build serves all later versions. */
#ifndef FASTWAY_FACE_H
#define FASTWAY_FACE_H

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030A0000
#include <Python.h>

#include "relay.h"

typedef struct {
    PyObject_HEAD
    struct relay *relay;
} Core;

#define RELAY(self) (((Core *)(self))->relay)

static inline relay_handle to_handle(PyObject *number)
{
    return PyLong_AsUnsignedLongLong(number);
}

/* A function, or an object of OpenSSL, as the number of its address. */
static inline void *to_pointer(PyObject *number) { return (void *)(uintptr_t)to_handle(number); }

/* So many arguments were given; else there is an exception. */
bool count_is(Py_ssize_t got, Py_ssize_t wanted);

/* OpenSSL's functions from their addresses; else there is an exception. */
bool convert_library(PyObject *const *args, Py_ssize_t count, struct relay_library *library);

/* Put the type Shaker into the module; -1: there is an exception. */
int add_shaker(PyObject *module);

/* The events of a turn as [(kind, owner, payload)]; they are the caller's no more. */
PyObject *take_events(struct relay *relay, int count);

/* (socket, address, host, port): the address in 4 or 16 bytes, IPv4 inside of IPv6 as IPv4, and as
 * text. b"", "" and 0 for what is not IP. */
PyObject *make_taken(int fd, const struct sockaddr_storage *peer);

/* Methods of Core. */
PyObject *core_counts(PyObject *self, PyObject *number);
PyObject *core_totals(PyObject *self, PyObject *unused);
PyObject *core_pool(PyObject *self, PyObject *unused);

/* Functions of the module: frames of dialects by their names, a look at JSON, and a coroutine's
 * first step. */
PyObject *make_frames(PyObject *module, PyObject *kind);
PyObject *is_plain_json(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *is_shallow_json(PyObject *module, PyObject *bytes);
PyObject *first_step(PyObject *module, PyObject *const *args, Py_ssize_t count);

#endif
