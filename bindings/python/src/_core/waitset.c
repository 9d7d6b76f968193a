/* SPDX-License-Identifier: Apache-2.0 */
#include "core.h"

static PyTypeObject *waitset_type;

#define READY_MAX 256

static int32_t waitset_close(struct handle *handle)
{
	int32_t r = shmb_waitset_close(handle->ptr);

	subscriber_forget_waitset(handle->parent, handle);
	return r;
}

static PyObject *waitset_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
	struct shmb_waitset *waitset = NULL;
	PyObject *client, *self;
	int32_t r;

	if (!PyArg_ParseTuple(args, "O!:WaitSet", client_type, &client) ||
	    handle_check(CAST(handle, client)) < 0)
		return NULL;
	self = PyType_GenericAlloc(type, 0);
	if (!self)
		return NULL;
	r = shmb_waitset_open(CAST(handle, client)->ptr, &waitset);
	if (r < 0) {
		core_fail(r, SIDE_OTHER);
		Py_DECREF(self);
		return NULL;
	}
	handle_opened(CAST(handle, self), waitset, "wait set", waitset_close, CAST(handle, client));
	return self;
}

static PyObject *none_or_fail(int32_t r)
{
	if (r < 0)
		return core_fail(r, SIDE_OTHER);
	Py_RETURN_NONE;
}

static PyObject *waitset_add(PyObject *self, PyObject *args)
{
	unsigned long long cookie;
	PyObject *subscriber;
	int32_t r;

	if (!PyArg_ParseTuple(args, "O!K:_add", subscriber_type, &subscriber, &cookie) ||
	    handle_check(CAST(handle, self)) < 0 || handle_check(CAST(handle, subscriber)) < 0)
		return NULL;
	r = shmb_waitset_add(CAST(handle, self)->ptr, CAST(handle, subscriber)->ptr, cookie);
	if (r == 0)
		*subscriber_waitset(subscriber) = CAST(handle, self);
	return none_or_fail(r);
}

static PyObject *waitset_add_fd(PyObject *self, PyObject *args)
{
	unsigned long long cookie;
	unsigned int events;
	int fd;

	if (!PyArg_ParseTuple(args, "iIK:_add_fd", &fd, &events, &cookie) ||
	    handle_check(CAST(handle, self)) < 0)
		return NULL;
	return none_or_fail(shmb_waitset_add_fd(CAST(handle, self)->ptr, fd, events, cookie));
}

static PyObject *waitset_remove(PyObject *self, PyObject *args)
{
	struct handle **waitset;
	PyObject *subscriber;

	if (!PyArg_ParseTuple(args, "O!:_remove", subscriber_type, &subscriber) ||
	    handle_check(CAST(handle, self)) < 0)
		return NULL;
	/* A subscriber that has been closed has left by itself. */
	waitset = subscriber_waitset(subscriber);
	if (*waitset != CAST(handle, self))
		Py_RETURN_NONE;
	*waitset = NULL;
	return none_or_fail(
		shmb_waitset_remove(CAST(handle, self)->ptr, CAST(handle, subscriber)->ptr));
}

static PyObject *waitset_remove_fd(PyObject *self, PyObject *args)
{
	int fd;

	if (!PyArg_ParseTuple(args, "i:_remove_fd", &fd) || handle_check(CAST(handle, self)) < 0)
		return NULL;
	return none_or_fail(shmb_waitset_remove_fd(CAST(handle, self)->ptr, fd));
}

struct ready {
	struct shmb_ready list[READY_MAX];
	uint32_t max;
};

static int32_t wait_ready(void *ptr, void *arg, int64_t timeout_ns)
{
	struct ready *ready = arg;

	return shmb_waitset_wait(ptr, ready->list, ready->max, timeout_ns);
}

static PyObject *waitset_wait(PyObject *self, PyObject *args)
{
	struct ready ready;
	unsigned int max;
	PyObject *timeout, *result;
	int64_t timeout_ns;
	int32_t r;

	if (!PyArg_ParseTuple(args, "OI:_wait", &timeout, &max) ||
	    core_timeout(timeout, &timeout_ns) < 0 || handle_check(CAST(handle, self)) < 0)
		return NULL;
	ready.max = max < READY_MAX ? max : READY_MAX;
	r = handle_wait(CAST(handle, self), wait_ready, &ready, core_deadline(timeout_ns));
	if (r < 0 && r != -ETIMEDOUT)
		return core_fail(r, SIDE_OTHER);
	result = PyList_New(r < 0 ? 0 : r);
	for (int32_t i = 0; result && i < r; i++) {
		PyObject *item = Py_BuildValue("(KI)", (unsigned long long)ready.list[i].cookie,
					       (unsigned int)ready.list[i].events);

		if (!item)
			Py_CLEAR(result);
		else
			PyList_SetItem(result, i, item);
	}
	return result;
}

static PyObject *waitset_fileno(PyObject *self, PyObject *Py_UNUSED(ignored))
{
	int32_t r;

	if (handle_check(CAST(handle, self)) < 0)
		return NULL;
	r = shmb_waitset_fd(CAST(handle, self)->ptr);
	return r < 0 ? core_fail(r, SIDE_OTHER) : PyLong_FromLong(r);
}

static PyObject *waitset_backend(PyObject *self, void *Py_UNUSED(ignored))
{
	if (handle_check(CAST(handle, self)) < 0)
		return NULL;
	return PyUnicode_FromString(shmb_waitset_backend(CAST(handle, self)->ptr));
}

static PyMethodDef waitset_methods[] = {
	{ "_add", waitset_add, METH_VARARGS, NULL },
	{ "_add_fd", waitset_add_fd, METH_VARARGS, NULL },
	{ "_remove", waitset_remove, METH_VARARGS, NULL },
	{ "_remove_fd", waitset_remove_fd, METH_VARARGS, NULL },
	{ "_wait", waitset_wait, METH_VARARGS, NULL },
	{ "fileno", waitset_fileno, METH_NOARGS,
	  "fileno()\n--\n\n"
	  "An fd for event loops: readable when something may have become ready since\n"
	  "wait(timeout=0) last returned nothing. Never read from it or close it." },
	{ "close", handle_py_close, METH_NOARGS,
	  "close()\n--\n\nClose the wait set; what is in it stays open." },
	{ "__enter__", handle_py_enter, METH_NOARGS, NULL },
	{ "__exit__", handle_py_exit, METH_VARARGS, NULL },
	{ NULL, NULL, 0, NULL },
};

static PyGetSetDef waitset_getset[] = {
	{ "closed", handle_py_closed, NULL, "Has it been closed?", NULL },
	{ "backend", waitset_backend, NULL, "How it sleeps: 'io_uring' or 'epoll'.", NULL },
	{ NULL, NULL, NULL, NULL, NULL },
};

static PyType_Slot waitset_slots[] = {
	{ Py_tp_new, waitset_new },
	{ Py_tp_dealloc, handle_dealloc },
	{ Py_tp_methods, waitset_methods },
	{ Py_tp_getset, waitset_getset },
	{ Py_tp_doc, "One place to wait for many subscribers and fds." },
	{ 0, NULL },
};

static PyType_Spec waitset_spec = {
	.name = "shmbroker._core.WaitSet",
	.basicsize = sizeof(struct handle),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
	.slots = waitset_slots,
};

int waitset_init_module(PyObject *module)
{
	waitset_type = core_add_type(module, &waitset_spec, NULL);
	return waitset_type ? 0 : -1;
}
