/* The events of the relay as Python's lists and tuples. */
#include "_face.h"

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

/* The events of a turn as [(kind, owner, payload)]. */
PyObject *take_events(struct relay *relay, int count)
{
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
