/* The Python face of the thread for handshakes: see shake.h.
 *
 * Law: who waits for a step lives until it is taken. Whatever waits for the thread lets go of the
 * interpreter's lock, as what OpenSSL calls back wants it.
 */
#include "_face.h"

#include "shake.h"

typedef struct {
    PyObject_HEAD
    struct shaker *shaker;
} Shaker;

#define LIBRARY 13 /* functions of a struct relay_library */
#define SHAKER(self) (((Shaker *)(self))->shaker)

bool convert_library(PyObject *const *args, Py_ssize_t count, struct relay_library *library)
{
    if (!count_is(count, LIBRARY))
        return false;
    *library = (struct relay_library){
        (int (*)(void *, void *, int))to_pointer(args[0]),
        (int (*)(void *, const void *, int))to_pointer(args[1]),
        (int (*)(void *, int))to_pointer(args[2]),
        (int (*)(void *))to_pointer(args[3]),
        (int (*)(void *))to_pointer(args[4]),
        (int (*)(void *, void *, int))to_pointer(args[5]),
        (int (*)(void *, const void *, int))to_pointer(args[6]),
        (long (*)(void *, char **))to_pointer(args[7]),
        (void *(*)(const void *))to_pointer(args[8]),
        (const void *(*)(void))to_pointer(args[9]),
        (void (*)(void *, void *, void *))to_pointer(args[10]),
        (unsigned long (*)(void))to_pointer(args[11]),
        (void (*)(void))to_pointer(args[12]),
    };
    return !PyErr_Occurred();
}

static PyObject *shaker_object_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    struct relay_library library;
    PyObject *functions[LIBRARY];
    (void)kwargs;
    Py_ssize_t count = PyTuple_Size(args);
    for (Py_ssize_t i = 0; i < count && i < LIBRARY; i++)
        functions[i] = PyTuple_GetItem(args, i);
    if (!convert_library(functions, count, &library))
        return NULL;
    allocfunc alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Shaker *self = (Shaker *)alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->shaker = shaker_new(&library);
    if (self->shaker == NULL) {
        PyErr_SetFromErrno(PyExc_OSError);
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static PyObject *shaker_object_fileno(PyObject *self, PyObject *unused)
{
    (void)unused;
    return PyLong_FromLong(shaker_fd(SHAKER(self)));
}

static PyObject *shaker_object_give(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    char *data;
    Py_ssize_t size;
    if (!count_is(count, 5))
        return NULL;
    void *ssl = to_pointer(args[1]), *into = to_pointer(args[2]), *from = to_pointer(args[3]);
    if (PyErr_Occurred() || PyBytes_AsStringAndSize(args[4], &data, &size) < 0)
        return NULL;
    Py_INCREF(args[0]);
    bool given = shaker_give(SHAKER(self), args[0], ssl, into, from, data, (size_t)size);
    if (!given)
        Py_DECREF(args[0]);
    return PyBool_FromLong(given);
}

static PyObject *make_errors(const struct shake *shake)
{
    PyObject *list = PyList_New(shake->error_count);
    for (int i = 0; list != NULL && i < shake->error_count; i++) {
        PyObject *code = PyLong_FromUnsignedLong(shake->errors[i]);
        if (code == NULL || PyList_SetItem(list, i, code) < 0)
            Py_CLEAR(list);
    }
    return list;
}

/* (owner, how it ended, bytes used, answer, errors), or None. */
static PyObject *shaker_object_take(PyObject *self, PyObject *unused)
{
    (void)unused;
    struct shake *shake = shaker_take(SHAKER(self));
    if (shake == NULL)
        Py_RETURN_NONE;
    PyObject *parts[] = {
        shake->owner,
        PyLong_FromLong((long)shake->end),
        PyLong_FromSize_t(shake->used),
        PyBytes_FromStringAndSize((const char *)shake->answer, (Py_ssize_t)shake->answer_size),
        make_errors(shake),
    };
    shake_free(shake);
    const Py_ssize_t count = sizeof parts / sizeof *parts;
    PyObject *tuple = PyTuple_New(count);
    for (Py_ssize_t i = 0; i < count; i++) {
        if (parts[i] == NULL)
            Py_CLEAR(tuple);
        if (tuple == NULL || parts[i] == NULL)
            Py_XDECREF(parts[i]);
        else
            PyTuple_SetItem(tuple, i, parts[i]);
    }
    return tuple;
}

static PyObject *shaker_object_drop(PyObject *self, PyObject *owner)
{
    struct shake *shake = shaker_drop(SHAKER(self), owner);
    if (shake == NULL)
        Py_RETURN_FALSE;
    shake_free(shake);
    Py_DECREF(owner);
    Py_RETURN_TRUE;
}

static PyObject *shaker_object_stop(PyObject *self, PyObject *unused)
{
    (void)unused;
    Py_BEGIN_ALLOW_THREADS
    shaker_stop(SHAKER(self));
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static void shaker_object_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    struct shaker *shaker = SHAKER(self);
    if (shaker != NULL) {
        struct shake *left;
        Py_BEGIN_ALLOW_THREADS
        shaker_stop(shaker);
        Py_END_ALLOW_THREADS
        while ((left = shaker_take(shaker)) != NULL) {
            PyObject *owner = left->owner;
            shake_free(left);
            Py_DECREF(owner);
        }
        shaker_free(shaker);
    }
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

static PyMethodDef shaker_methods[] = {
    {"fileno", shaker_object_fileno, METH_NOARGS, NULL},
    {"give", (PyCFunction)(void (*)(void))shaker_object_give, METH_FASTCALL, NULL},
    {"take", shaker_object_take, METH_NOARGS, NULL},
    {"drop", shaker_object_drop, METH_O, NULL},
    {"stop", shaker_object_stop, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot shaker_slots[] = {
    {Py_tp_doc, "A thread for handshakes: see shake.h."},
    {Py_tp_new, shaker_object_new},
    {Py_tp_dealloc, shaker_object_dealloc},
    {Py_tp_methods, shaker_methods},
    {0, NULL},
};

static PyType_Spec shaker_spec = {
    .name = "fastway.relay._core.Shaker",
    .basicsize = sizeof(Shaker),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = shaker_slots,
};

int add_shaker(PyObject *module)
{
    PyObject *type = PyType_FromSpec(&shaker_spec);
    if (type == NULL)
        return -1;
    int added = PyModule_AddObjectRef(module, "Shaker", type);
    PyObject *choice = PyLong_FromUnsignedLongLong((uintptr_t)shaker_choice);
    if (choice == NULL || PyModule_AddObjectRef(module, "CHOICE", choice) < 0
        || PyModule_AddIntConstant(module, "WANTS", SHAKE_WANTS) < 0
        || PyModule_AddIntConstant(module, "DONE", SHAKE_DONE) < 0
        || PyModule_AddIntConstant(module, "FAILED", SHAKE_FAILED) < 0)
        added = -1;
    Py_XDECREF(choice);
    Py_DECREF(type);
    return added;
}
