/* SPDX-License-Identifier: Apache-2.0 */
#include "core.h"

static PyTypeObject *waitset_type;

#define READY_MAX 256

/* ---- what can be in it ------------------------------------------------------------------------------- */

static int32_t add_subscriber(struct shmb_waitset *waitset, void *ptr, uint64_t cookie)
{
	return shmb_waitset_add(waitset, ptr, cookie);
}

static int32_t remove_subscriber(struct shmb_waitset *waitset, void *ptr)
{
	return shmb_waitset_remove(waitset, ptr);
}

static int32_t add_caller(struct shmb_waitset *waitset, void *ptr, uint64_t cookie)
{
	return shmb_waitset_add_caller(waitset, ptr, cookie);
}

static int32_t remove_caller(struct shmb_waitset *waitset, void *ptr)
{
	return shmb_waitset_remove_caller(waitset, ptr);
}

static int32_t add_server(struct shmb_waitset *waitset, void *ptr, uint64_t cookie)
{
	return shmb_waitset_add_server(waitset, ptr, cookie);
}

static int32_t remove_server(struct shmb_waitset *waitset, void *ptr)
{
	return shmb_waitset_remove_server(waitset, ptr);
}

/**
 * struct way - how a kind of handle enters and leaves
 * @type:   of the handle
 * @add:    enters
 * @remove: leaves
 */
struct way {
	PyTypeObject **type;
	int32_t (*add)(struct shmb_waitset *waitset, void *ptr, uint64_t cookie);
	int32_t (*remove)(struct shmb_waitset *waitset, void *ptr);
};

static const struct way ways[] = {
	{ &subscriber_type, add_subscriber, remove_subscriber },
	{ &caller_type, add_caller, remove_caller },
	{ &server_type, add_server, remove_server },
};

/* NULL: it cannot be in a wait set; an exception is set. */
static const struct way *find_way(PyObject *member)
{
	for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++)
		if (PyObject_TypeCheck(member, *ways[i].type))
			return &ways[i];
	PyErr_Format(PyExc_TypeError, "a %R cannot be in a wait set", Py_TYPE(member));
	return NULL;
}

void waitset_leave(struct handle *member)
{
	if (member->waitset)
		find_way((PyObject *)member)->remove(member->waitset->ptr, member->ptr);
	member->waitset = NULL;
}

/* What was in it is in none any more. */
static void forget_members(const struct handle *client, const struct handle *waitset)
{
	for (struct handle *channel = client->children; channel; channel = channel->next)
		for (struct handle *member = channel->children; member; member = member->next)
			if (member->waitset == waitset)
				member->waitset = NULL;
}

static int32_t waitset_close(struct handle *handle)
{
	int32_t r = shmb_waitset_close(handle->ptr);

	forget_members(handle->parent, handle);
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
	const struct way *way;
	PyObject *member;
	int32_t r;

	if (!PyArg_ParseTuple(args, "OK:_add", &member, &cookie))
		return NULL;
	way = find_way(member);
	if (!way || handle_check(CAST(handle, self)) < 0 || handle_check(CAST(handle, member)) < 0)
		return NULL;
	r = way->add(CAST(handle, self)->ptr, CAST(handle, member)->ptr, cookie);
	if (r == 0)
		CAST(handle, member)->waitset = CAST(handle, self);
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

static PyObject *waitset_remove(PyObject *self, PyObject *member)
{
	const struct way *way = find_way(member);

	if (!way || handle_check(CAST(handle, self)) < 0)
		return NULL;
	/* One that has been closed has left by itself. */
	if (CAST(handle, member)->waitset != CAST(handle, self))
		Py_RETURN_NONE;
	CAST(handle, member)->waitset = NULL;
	return none_or_fail(way->remove(CAST(handle, self)->ptr, CAST(handle, member)->ptr));
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
	{ "_remove", waitset_remove, METH_O, NULL },
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
	{ Py_tp_doc, "One place to wait for many subscribers, callers, servers and fds." },
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
