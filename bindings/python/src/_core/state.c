/* SPDX-License-Identifier: Apache-2.0 */
#include "core.h"

/* As in shmbroker/layout.h, which is not for applications. */
#define KEY_LEN_MAX 64

/* Publishers and subscribers of state channels: keys are indices here, names are for Python. */

/* ---- publisher ------------------------------------------------------------------------------------------ */

static PyObject *state_claim(PyObject *self, PyObject *args)
{
	struct publisher *publisher = CAST(publisher, self);
	PyThreadState *thread;
	const char *key;
	Py_ssize_t len;
	int32_t r;

	if (!PyArg_ParseTuple(args, "y#:_claim", &key, &len) ||
	    handle_check(&publisher->handle) < 0)
		return NULL;
	publisher->handle.busy++;
	thread = PyEval_SaveThread();
	r = shmb_publisher_claim(publisher->handle.ptr, key,
				 len > UINT32_MAX ? UINT32_MAX : (uint32_t)len);
	PyEval_RestoreThread(thread);
	publisher->handle.busy--;
	return r < 0 ? core_fail(r, SIDE_PUBLISHER) : PyLong_FromLong(r);
}

static PyObject *state_disclaim(PyObject *self, PyObject *args)
{
	struct publisher *publisher = CAST(publisher, self);
	PyThreadState *thread;
	unsigned int key;
	int32_t r;

	if (!PyArg_ParseTuple(args, "I:_disclaim", &key) || handle_check(&publisher->handle) < 0)
		return NULL;
	publisher->handle.busy++;
	thread = PyEval_SaveThread();
	r = shmb_publisher_disclaim(publisher->handle.ptr, key);
	PyEval_RestoreThread(thread);
	publisher->handle.busy--;
	if (r < 0)
		return core_fail(r, SIDE_PUBLISHER);
	Py_RETURN_NONE;
}

/* The first one after a claim asks the broker; all others do not block. */
static PyObject *state_put(PyObject *self, PyObject *args)
{
	struct publisher *publisher = CAST(publisher, self);
	PyObject *value;
	Py_buffer buffer;
	unsigned int key;
	int32_t r;

	if (!PyArg_ParseTuple(args, "IO:_put", &key, &value) ||
	    handle_check(&publisher->handle) < 0 ||
	    payload_get(publisher->record, publisher->layout, value, &buffer) < 0)
		return NULL;
	r = shmb_publisher_put(publisher->handle.ptr, key, buffer.buf,
			       buffer.len > UINT32_MAX ? UINT32_MAX : (uint32_t)buffer.len);
	payload_put(&buffer);
	if (r < 0)
		return core_fail(r, SIDE_PUBLISHER);
	Py_RETURN_NONE;
}

static PyObject *state_erase(PyObject *self, PyObject *args)
{
	unsigned int key;
	int32_t r;

	if (!PyArg_ParseTuple(args, "I:_erase", &key) || handle_check(CAST(handle, self)) < 0)
		return NULL;
	r = shmb_publisher_erase(CAST(handle, self)->ptr, key);
	if (r < 0)
		return core_fail(r, SIDE_PUBLISHER);
	Py_RETURN_NONE;
}

static PyMethodDef publisher_methods[] = {
	{ "_claim", state_claim, METH_VARARGS, NULL },
	{ "_disclaim", state_disclaim, METH_VARARGS, NULL },
	{ "_put", state_put, METH_VARARGS, NULL },
	{ "_erase", state_erase, METH_VARARGS, NULL },
	{ NULL, NULL, 0, NULL },
};

static PyObject *publisher_term(PyObject *self, void *Py_UNUSED(ignored))
{
	if (handle_check(CAST(handle, self)) < 0)
		return NULL;
	return PyLong_FromUnsignedLongLong(CAST(publisher, self)->view->term);
}

static PyGetSetDef publisher_getset[] = {
	{ "term", publisher_term, NULL, "Of the last claim: higher than any before.", NULL },
	{ NULL, NULL, NULL, NULL, NULL },
};

static PyType_Slot publisher_slots[] = {
	{ Py_tp_methods, publisher_methods },
	{ Py_tp_getset, publisher_getset },
	{ Py_tp_doc, "Puts the latest values of the keys that it has claimed." },
	{ 0, NULL },
};

static PyType_Spec publisher_spec = {
	.name = "shmbroker._core.StatePublisher",
	.basicsize = sizeof(struct publisher),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
	.slots = publisher_slots,
};

/* ---- subscriber ----------------------------------------------------------------------------------------- */

static PyObject *fail_get(int32_t r)
{
	return r == -ESTALE ? core_fail(r, SIDE_OTHER) : core_fail(r, SIDE_SUBSCRIBER);
}

static PyObject *state_find(PyObject *self, PyObject *args)
{
	const char *key;
	Py_ssize_t len;
	int32_t r;

	if (!PyArg_ParseTuple(args, "y#:_find", &key, &len) || handle_check(CAST(handle, self)) < 0)
		return NULL;
	r = len > KEY_LEN_MAX ? -ENOENT
			      : shmb_subscriber_find(CAST(handle, self)->ptr, key, (uint32_t)len);
	if (r == -ENOENT)
		return PyLong_FromLong(-1);
	return r < 0 ? fail_get(r) : PyLong_FromLong(r);
}

static PyObject *state_n_keys(PyObject *self, PyObject *Py_UNUSED(ignored))
{
	int32_t r;

	if (handle_check(CAST(handle, self)) < 0)
		return NULL;
	r = shmb_subscriber_n_keys(CAST(handle, self)->ptr);
	return r < 0 ? fail_get(r) : PyLong_FromLong(r);
}

static PyObject *state_key(PyObject *self, PyObject *args)
{
	struct subscriber *subscriber = CAST(subscriber, self);
	char name[KEY_LEN_MAX];
	unsigned int key;
	int32_t r;

	if (!PyArg_ParseTuple(args, "I:_key", &key) || handle_check(&subscriber->handle) < 0)
		return NULL;
	r = shmb_subscriber_key(subscriber->handle.ptr, key, name, sizeof(name));
	if (r < 0)
		return fail_get(r);
	return Py_BuildValue("y#K", name, (Py_ssize_t)r,
			     (unsigned long long)subscriber->view->publisher_id);
}

/* A value, or None if there is none. @raw: as bytes, whatever the channel's records are. */
static PyObject *state_get(PyObject *self, PyObject *args)
{
	struct subscriber *subscriber = CAST(subscriber, self);
	uint32_t cap = subscriber->layout ? subscriber->layout->record_len : SCRATCH_LEN;
	char *to = subscriber->scratch;
	PyObject *object = NULL;
	unsigned int key;
	int raw = 0;
	int32_t r;

	if (!PyArg_ParseTuple(args, "I|p:_get", &key, &raw) ||
	    handle_check(&subscriber->handle) < 0)
		return NULL;
	if (subscriber->layout && !raw) {
		object = (PyObject *)record_new(subscriber->record, subscriber->layout);
		if (!object)
			return NULL;
		to = CAST(record, object)->data;
	} else if (cap > SCRATCH_LEN) {
		object = PyBytes_FromStringAndSize(NULL, cap);
		if (!object)
			return NULL;
		to = PyBytes_AsString(object);
	}
	r = shmb_subscriber_get(subscriber->handle.ptr, key, to, cap);
	/* It may be longer the next time, too, but never longer than the channel allows. */
	while (r == -EMSGSIZE) {
		Py_XDECREF(object);
		cap = subscriber->view->len;
		object = PyBytes_FromStringAndSize(NULL, cap);
		if (!object)
			return NULL;
		to = PyBytes_AsString(object);
		r = shmb_subscriber_get(subscriber->handle.ptr, key, to, cap);
	}
	if (r >= 0 && object && (uint32_t)r == cap)
		return object;
	if (r >= 0) {
		PyObject *bytes = PyBytes_FromStringAndSize(to, r);

		Py_XDECREF(object);
		return bytes;
	}
	Py_XDECREF(object);
	if (r == -ENODATA)
		Py_RETURN_NONE;
	return fail_get(r);
}

static PyObject *state_next(PyObject *self, PyObject *Py_UNUSED(ignored))
{
	int32_t r;

	if (handle_check(CAST(handle, self)) < 0)
		return NULL;
	r = shmb_subscriber_next(CAST(handle, self)->ptr);
	if (r == -EAGAIN)
		Py_RETURN_NONE;
	return r < 0 ? fail_get(r) : PyLong_FromLong(r);
}

static int32_t wait_key(void *ptr, void *arg, int64_t timeout_ns)
{
	const unsigned int *key = arg;

	return *key == UINT32_MAX ? shmb_subscriber_wait(ptr, timeout_ns)
				  : shmb_subscriber_wait_key(ptr, *key, timeout_ns);
}

static PyObject *state_wait(PyObject *self, PyObject *args)
{
	unsigned int key = UINT32_MAX;
	PyObject *timeout = NULL;
	int64_t timeout_ns;
	int32_t r;

	if (!PyArg_ParseTuple(args, "OI:_wait", &timeout, &key) ||
	    core_timeout(timeout, &timeout_ns) < 0 || handle_check(CAST(handle, self)) < 0)
		return NULL;
	r = handle_wait(CAST(handle, self), wait_key, &key, core_deadline(timeout_ns));
	if (r == -ETIMEDOUT)
		return core_fail_text(r, SIDE_SUBSCRIBER, "nothing has changed in time");
	if (r < 0)
		return fail_get(r);
	Py_RETURN_NONE;
}

/* Indices and bytes of all values. */
static PyObject *snapshot_list(const char *at, int32_t n)
{
	PyObject *list = PyList_New(n);

	for (int32_t i = 0; list && i < n; i++) {
		struct shmb_state_value head;
		PyObject *item;

		memcpy(&head, at, sizeof(head));
		item = Py_BuildValue("Iy#", (unsigned int)head.key, at + sizeof(head),
				     (Py_ssize_t)head.len);
		if (!item)
			Py_CLEAR(list);
		else
			PyList_SetItem(list, i, item);
		at += sizeof(head) + (((size_t)head.len + 7) & ~(size_t)7);
	}
	return list;
}

static PyObject *state_snapshot(PyObject *self, PyObject *Py_UNUSED(ignored))
{
	struct subscriber *subscriber = CAST(subscriber, self);
	PyObject *list = NULL;
	char *data = NULL, *bigger;
	uint32_t cap = 4096;
	int32_t r;

	if (handle_check(&subscriber->handle) < 0)
		return NULL;
	do {
		bigger = PyMem_Realloc(data, cap);
		if (!bigger) {
			PyMem_Free(data);
			return PyErr_NoMemory();
		}
		data = bigger;
		r = shmb_subscriber_snapshot(subscriber->handle.ptr, data, cap);
		cap = subscriber->view->len;
	} while (r == -EMSGSIZE);
	if (r >= 0)
		list = snapshot_list(data, r);
	PyMem_Free(data);
	return r < 0 ? fail_get(r) : list;
}

static PyMethodDef subscriber_methods[] = {
	{ "_find", state_find, METH_VARARGS, NULL },
	{ "_n_keys", state_n_keys, METH_NOARGS, NULL },
	{ "_key", state_key, METH_VARARGS, NULL },
	{ "_get", state_get, METH_VARARGS, NULL },
	{ "_next", state_next, METH_NOARGS, NULL },
	{ "_wait", state_wait, METH_VARARGS, NULL },
	{ "_snapshot", state_snapshot, METH_NOARGS, NULL },
	{ NULL, NULL, 0, NULL },
};

static PyObject *subscriber_term(PyObject *self, void *Py_UNUSED(ignored))
{
	if (handle_check(CAST(handle, self)) < 0)
		return NULL;
	return PyLong_FromUnsignedLongLong(CAST(subscriber, self)->view->term);
}

static PyGetSetDef subscriber_getset[] = {
	{ "term", subscriber_term, NULL, "Under which claim the last value was put.", NULL },
	{ NULL, NULL, NULL, NULL, NULL },
};

static PyType_Slot subscriber_slots[] = {
	{ Py_tp_methods, subscriber_methods },
	{ Py_tp_getset, subscriber_getset },
	{ Py_tp_doc, "Reads the latest values of all keys." },
	{ 0, NULL },
};

static PyType_Spec subscriber_spec = {
	.name = "shmbroker._core.StateSubscriber",
	.basicsize = sizeof(struct subscriber),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
	.slots = subscriber_slots,
};

int state_init_module(PyObject *module)
{
	if (!core_add_type(module, &publisher_spec, publisher_type) ||
	    !core_add_type(module, &subscriber_spec, subscriber_type))
		return -1;
	return 0;
}
