/* The events of the relay as Python's lists and tuples. */
#include "_face.h"

static uint32_t read_u32(const uint8_t *data)
{
    return (uint32_t)data[0] | (uint32_t)data[1] << 8 | (uint32_t)data[2] << 16
           | (uint32_t)data[3] << 24;
}

/* (one, two, three), which takes what it is given, or NULL if one of them is. */
static PyObject *triple(PyObject *one, PyObject *two, PyObject *three)
{
    PyObject *tuple = one != NULL && two != NULL && three != NULL ? PyTuple_New(3) : NULL;
    if (tuple == NULL) {
        Py_XDECREF(one);
        Py_XDECREF(two);
        Py_XDECREF(three);
        return NULL;
    }
    PyTuple_SetItem(tuple, 0, one);
    PyTuple_SetItem(tuple, 1, two);
    PyTuple_SetItem(tuple, 2, three);
    return tuple;
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
        PyObject *run = triple(PyLong_FromUnsignedLong(conn_id),
                               PyBytes_FromStringAndSize((const char *)data + start,
                                                         (Py_ssize_t)(at - start)),
                               PyLong_FromUnsignedLong(count));
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

/* The events of a turn as [(kind, owner, payload)]. */
PyObject *take_events(struct relay *relay, int count)
{
    const struct relay_event *events = relay_events(relay);
    PyObject *list = PyList_New(0);
    for (int i = 0; list != NULL && i < count; i++) {
        if (events[i].owner == NULL)
            continue;
        PyObject *event =
            triple(PyLong_FromLong((long)events[i].kind), Py_NewRef((PyObject *)events[i].owner),
                   make_payload(&events[i]));
        if (event == NULL || PyList_Append(list, event) < 0)
            Py_CLEAR(list);
        Py_XDECREF(event);
    }
    relay_clear_events(relay);
    return list;
}
