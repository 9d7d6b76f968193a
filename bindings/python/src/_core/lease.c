/* SPDX-License-Identifier: Apache-2.0 */
#include "core.h"

/*
 * Memory of a lane in Python's hands. Every buffer made from it is counted, so that nothing can
 * look at it after it has been given back: giving back with live views is an error, and so is a
 * new view afterwards.
 */

PyTypeObject *loan_type;
PyTypeObject *peek_type;
PyTypeObject *hold_type;
static PyTypeObject *row_type;

bool lease_is(PyObject *object)
{
	return Py_TYPE(object) == peek_type || Py_TYPE(object) == loan_type ||
	       Py_TYPE(object) == hold_type;
}

static int32_t publish(void *ptr, uint32_t len, const int32_t *fds, uint32_t n_fds)
{
	return shmb_publisher_publish_fds(ptr, len, fds, n_fds);
}

static int32_t cancel(void *ptr)
{
	return shmb_publisher_cancel(ptr);
}

static int32_t release(void *ptr, uint32_t count)
{
	return shmb_subscriber_release(ptr, count);
}

static int32_t unhold(void *ptr, uint32_t hold)
{
	return shmb_subscriber_unhold(ptr, hold);
}

const struct lessor publisher_lessor = { .publish = publish,
					 .cancel = cancel,
					 .errors = SIDE_PUBLISHER };
const struct lessor subscriber_lessor = { .release = release,
					  .unhold = unhold,
					  .errors = SIDE_SUBSCRIBER };

PyObject *lease_new(PyTypeObject *type, struct handle *handle, const struct lessor *lessor,
		    const struct shmb_view *view, PyTypeObject *record, struct layout *layout)
{
	struct lease *lease = CAST(lease, PyType_GenericAlloc(type, 0));

	if (!lease)
		return NULL;
	Py_INCREF((PyObject *)handle);
	lease->handle = handle;
	lease->lessor = lessor;
	Py_XINCREF((PyObject *)record);
	lease->record = record;
	Py_XINCREF((PyObject *)layout);
	lease->layout = layout;
	lease->data = (char *)(uintptr_t)view->data;
	lease->len = view->len;
	lease->write = type == loan_type;
	lease->count = lease->write ? 1 : view->count;
	lease->stride = lease->count > 1 ? view->stride : view->len;
	lease->type = view->type;
	lease->sequence = view->sequence;
	lease->publisher_id = view->publisher_id;
	lease->live = true;
	if (type == hold_type) {
		lease->count = 1;
		lease->stride = lease->len;
		lease->next = handle->holds;
		handle->holds = lease;
	} else {
		handle->lease = lease;
	}
	return (PyObject *)lease;
}

static bool is_hold(const struct lease *lease)
{
	return Py_TYPE((PyObject *)lease) == hold_type;
}

static const char *noun_of(const struct lease *lease)
{
	return lease->write ? "loan" : is_hold(lease) ? "hold" : "peek";
}

void lease_void(struct lease *lease)
{
	struct lease **at = &lease->handle->holds;

	if (lease->live && !is_hold(lease))
		lease->handle->lease = NULL;
	while (lease->live && is_hold(lease) && *at != lease)
		at = &(*at)->next;
	if (lease->live && is_hold(lease))
		*at = lease->next;
	lease->live = false;
}

Py_ssize_t lease_exports(const struct handle *handle)
{
	Py_ssize_t n = handle->lease ? handle->lease->exports : 0;

	for (const struct lease *at = handle->holds; at; at = at->next)
		n += at->exports;
	return n;
}

void lease_void_all(struct handle *handle)
{
	if (handle->lease)
		lease_void(handle->lease);
	while (handle->holds)
		lease_void(handle->holds);
}

static int check_live(struct lease *lease)
{
	if (lease->live)
		return handle_check(lease->handle);
	core_fail_buffer("this %s has been given back", noun_of(lease));
	return -1;
}

static int check_exports(struct lease *lease)
{
	if (check_live(lease) < 0)
		return -1;
	if (lease->exports == 0)
		return 0;
	core_fail_buffer("%zd view(s) of this %s still exist", lease->exports, noun_of(lease));
	return -1;
}

static void lease_dealloc(PyObject *self)
{
	struct lease *lease = CAST(lease, self);
	struct handle *handle = lease->handle;

	if (lease->live && lease->write)
		lease->lessor->cancel(handle->ptr);
	else if (lease->live && is_hold(lease))
		lease->lessor->unhold(handle->ptr, lease->hold);
	else if (lease->live)
		lease->lessor->release(handle->ptr, 0);
	lease_void(lease);
	Py_XDECREF((PyObject *)lease->record);
	Py_XDECREF((PyObject *)lease->layout);
	Py_XDECREF(lease->entered);
	core_free(self);
	Py_DECREF((PyObject *)handle);
}

/* ---- buffers and items -------------------------------------------------------------------------------- */

static int lease_getbuffer(PyObject *self, Py_buffer *view, int flags)
{
	struct lease *lease = CAST(lease, self);
	const bool packed = lease->count == 1 || lease->stride == lease->len;
	const uint64_t len = (uint64_t)lease->len * lease->count;

	view->obj = NULL;
	if (check_live(lease) < 0)
		return -1;
	if ((flags & PyBUF_WRITABLE) && !lease->write) {
		core_fail_buffer("what is peeked at or held is read-only");
		return -1;
	}
	if (!packed && (flags & PyBUF_STRIDES) != PyBUF_STRIDES) {
		core_fail_buffer("%u records do not lie side by side", (unsigned int)lease->count);
		return -1;
	}
	if (!packed && ((flags & PyBUF_C_CONTIGUOUS) == PyBUF_C_CONTIGUOUS ||
			(flags & PyBUF_F_CONTIGUOUS) == PyBUF_F_CONTIGUOUS ||
			(flags & PyBUF_ANY_CONTIGUOUS) == PyBUF_ANY_CONTIGUOUS)) {
		core_fail_buffer("%u records do not lie side by side", (unsigned int)lease->count);
		return -1;
	}
	memset(view, 0, sizeof(*view));
	view->buf = lease->data;
	view->len = (Py_ssize_t)len;
	view->readonly = !lease->write;
	/* Typed: an array of records. Raw: rows of bytes, or just bytes. */
	lease->shape[0] = lease->count;
	lease->strides[0] = lease->stride;
	lease->shape[1] = lease->len;
	lease->strides[1] = 1;
	if (lease->layout) {
		view->itemsize = lease->len;
		view->ndim = 1;
		view->format = PyBytes_AsString(lease->layout->format);
		view->shape = lease->shape;
		view->strides = lease->strides;
	} else {
		view->itemsize = 1;
		view->ndim = lease->count == 1 ? 1 : 2;
		view->format = (char *)"B";
		view->shape = &lease->shape[2 - view->ndim];
		view->strides = &lease->strides[2 - view->ndim];
	}
	if (!(flags & PyBUF_FORMAT))
		view->format = NULL;
	if (!(flags & PyBUF_ND))
		view->shape = NULL;
	if ((flags & PyBUF_STRIDES) != PyBUF_STRIDES)
		view->strides = NULL;
	Py_INCREF(self);
	view->obj = self;
	lease->exports++;
	return 0;
}

static void lease_releasebuffer(PyObject *self, Py_buffer *Py_UNUSED(view))
{
	CAST(lease, self)->exports--;
}

/* One of several raw records: a memoryview cannot cut a row out of two dimensions itself. */
struct row {
	PyObject_HEAD struct lease *lease;
	Py_ssize_t index;
};

static int row_getbuffer(PyObject *self, Py_buffer *view, int flags)
{
	struct row *row = CAST(row, self);
	struct lease *lease = row->lease;

	view->obj = NULL;
	if (check_live(lease) < 0)
		return -1;
	if (PyBuffer_FillInfo(view, self, lease->data + row->index * lease->stride, lease->len,
			      !lease->write, flags) < 0)
		return -1;
	lease->exports++;
	return 0;
}

static void row_releasebuffer(PyObject *self, Py_buffer *Py_UNUSED(view))
{
	CAST(row, self)->lease->exports--;
}

static void row_dealloc(PyObject *self)
{
	Py_XDECREF((PyObject *)CAST(row, self)->lease);
	core_free(self);
}

static PyType_Slot row_slots[] = {
	{ Py_tp_dealloc, row_dealloc },
	{ Py_bf_getbuffer, row_getbuffer },
	{ Py_bf_releasebuffer, row_releasebuffer },
	{ Py_tp_doc, "One raw record where it lies in shared memory." },
	{ 0, NULL },
};

static PyType_Spec row_spec = {
	.name = "shmbroker._core.Row",
	.basicsize = sizeof(struct row),
	.flags = Py_TPFLAGS_DEFAULT,
	.slots = row_slots,
};

static PyObject *item_at(struct lease *lease, Py_ssize_t index)
{
	PyObject *row, *item;

	if (lease->record)
		return record_view(lease->record, lease->layout, (PyObject *)lease,
				   (uint64_t)index * lease->stride);
	row = PyType_GenericAlloc(row_type, 0);
	if (!row)
		return NULL;
	Py_INCREF((PyObject *)lease);
	CAST(row, row)->lease = lease;
	CAST(row, row)->index = index;
	item = PyMemoryView_FromObject(row);
	Py_DECREF(row);
	return item;
}

static Py_ssize_t lease_length(PyObject *self)
{
	return CAST(lease, self)->count;
}

static PyObject *lease_item(PyObject *self, Py_ssize_t index)
{
	struct lease *lease = CAST(lease, self);

	if (check_live(lease) < 0)
		return NULL;
	if (index < 0 || index >= lease->count) {
		PyErr_SetString(PyExc_IndexError, "no such record");
		return NULL;
	}
	return item_at(lease, index);
}

static PyObject *lease_number(PyObject *self, void *offset)
{
	const char *at = (char *)self + (size_t)(uintptr_t)offset;

	return PyLong_FromUnsignedLong(*(const uint32_t *)(const void *)at);
}

static PyObject *lease_long(PyObject *self, void *offset)
{
	const char *at = (char *)self + (size_t)(uintptr_t)offset;

	return PyLong_FromUnsignedLongLong(*(const uint64_t *)(const void *)at);
}

#define NUMBER(field, doc)                                                             \
	{                                                                              \
#field, lease_number, NULL, doc, (void *)offsetof(struct lease, field) \
	}
#define LONG(field, doc)                                                             \
	{                                                                            \
#field, lease_long, NULL, doc, (void *)offsetof(struct lease, field) \
	}

/* ---- peek ----------------------------------------------------------------------------------------------- */

static PyObject *peek_release(PyObject *self, PyObject *args)
{
	struct lease *lease = CAST(lease, self);
	PyObject *count_object = Py_None;
	long long count = lease->count;
	int32_t r;

	if (!PyArg_ParseTuple(args, "|O:release", &count_object))
		return NULL;
	if (count_object != Py_None) {
		count = PyLong_AsLongLong(count_object);
		if (count == -1 && PyErr_Occurred())
			return NULL;
		if (count < 0 || count > lease->count) {
			PyErr_Format(PyExc_ValueError, "cannot release %lld of %u records", count,
				     (unsigned int)lease->count);
			return NULL;
		}
	}
	if (check_exports(lease) < 0)
		return NULL;
	r = lease->lessor->release(lease->handle->ptr, (uint32_t)count);
	lease_void(lease);
	if (r < 0)
		return core_fail(r, SIDE_SUBSCRIBER);
	Py_RETURN_NONE;
}

static PyObject *peek_enter(PyObject *self, PyObject *Py_UNUSED(ignored))
{
	if (check_live(CAST(lease, self)) < 0)
		return NULL;
	Py_INCREF(self);
	return self;
}

static PyObject *peek_exit(PyObject *self, PyObject *args)
{
	struct lease *lease = CAST(lease, self);
	PyObject *type, *value, *traceback, *rest, *result;

	if (!PyArg_ParseTuple(args, "OOO:__exit__", &type, &value, &traceback))
		return NULL;
	if (!lease->live)
		Py_RETURN_NONE;
	/* The exception matters more than views that hang in its traceback. */
	if (type != Py_None && lease->exports)
		Py_RETURN_NONE;
	rest = type == Py_None ? PyTuple_New(0) : Py_BuildValue("(i)", 0);
	if (!rest)
		return NULL;
	result = peek_release(self, rest);
	Py_DECREF(rest);
	return result;
}

static PyObject *peek_hold(PyObject *self, PyObject *Py_UNUSED(ignored))
{
	struct lease *lease = CAST(lease, self);
	struct handle *handle = lease->handle;
	PyObject *hold;
	int32_t r;

	if (check_exports(lease) < 0)
		return NULL;
	r = shmb_subscriber_hold(handle->ptr);
	if (r < 0 && r != -ESTALE)
		return core_fail(r, SIDE_SUBSCRIBER);
	lease_void(lease);
	if (r < 0)
		return core_fail(r, SIDE_SUBSCRIBER);
	hold = lease_new(hold_type, handle, lease->lessor, shmb_subscriber_view(handle->ptr),
			 lease->record, lease->layout);
	if (hold)
		CAST(lease, hold)->hold = (uint32_t)r;
	else
		shmb_subscriber_unhold(handle->ptr, (uint32_t)r);
	return hold;
}

static PyMethodDef peek_methods[] = {
	{ "release", peek_release, METH_VARARGS,
	  "release(count=None)\n--\n\nBe done with the first count records, by default all; 0 keeps\n"
	  "them for the next call. BufferError: views of the memory still exist. Overwritten: the\n"
	  "subscriber is lossy and was lapped meanwhile, what was seen is void." },
	{ "hold", peek_hold, METH_NOARGS,
	  "hold()\n--\n\nBe done with the first record, but keep it: a Hold, whose memory stays as it\n"
	  "is until it is released, while the subscriber goes on. The others are the next records.\n"
	  "Error: the channel does not allow more holds, or has no blocks. BufferError and\n"
	  "Overwritten as release()." },
	{ "__enter__", peek_enter, METH_NOARGS, NULL },
	{ "__exit__", peek_exit, METH_VARARGS,
	  "Releases all records; after an exception keeps them for the next call." },
	{ NULL, NULL, 0, NULL },
};

static PyGetSetDef peek_getset[] = {
	NUMBER(count, "Records."),
	NUMBER(len, "Bytes of each."),
	NUMBER(stride, "Bytes from one to the next."),
	NUMBER(type, "Type of the first."),
	LONG(sequence, "Sequence number of the first."),
	LONG(publisher_id, "Whose they are."),
	{ NULL, NULL, NULL, NULL, NULL },
};

static PyType_Slot peek_slots[] = {
	{ Py_tp_dealloc, lease_dealloc },
	{ Py_tp_methods, peek_methods },
	{ Py_tp_getset, peek_getset },
	{ Py_sq_length, lease_length },
	{ Py_sq_item, lease_item },
	{ Py_bf_getbuffer, lease_getbuffer },
	{ Py_bf_releasebuffer, lease_releasebuffer },
	{ Py_tp_doc,
	  "Records where they lie in shared memory, read-only: a sequence, and a buffer\n"
	  "for memoryview and numpy. See Subscriber.peek()." },
	{ 0, NULL },
};

static PyType_Spec peek_spec = {
	.name = "shmbroker._core.Peek",
	.basicsize = sizeof(struct lease),
	.flags = Py_TPFLAGS_DEFAULT,
	.slots = peek_slots,
};

/* ---- hold ----------------------------------------------------------------------------------------------- */

static PyObject *hold_release(PyObject *self, PyObject *Py_UNUSED(ignored))
{
	struct lease *lease = CAST(lease, self);
	int32_t r;

	if (check_exports(lease) < 0)
		return NULL;
	r = lease->lessor->unhold(lease->handle->ptr, lease->hold);
	lease_void(lease);
	if (r < 0)
		return core_fail(r, lease->lessor->errors);
	Py_RETURN_NONE;
}

static PyObject *hold_exit(PyObject *self, PyObject *args)
{
	struct lease *lease = CAST(lease, self);
	PyObject *type, *value, *traceback;

	if (!PyArg_ParseTuple(args, "OOO:__exit__", &type, &value, &traceback))
		return NULL;
	/* The exception matters more than views that hang in its traceback. */
	if (!lease->live || (type != Py_None && lease->exports))
		Py_RETURN_NONE;
	return hold_release(self, NULL);
}

static PyObject *hold_record(PyObject *self, void *Py_UNUSED(ignored))
{
	return check_live(CAST(lease, self)) < 0 ? NULL : item_at(CAST(lease, self), 0);
}

static PyMethodDef hold_methods[] = {
	{ "release", hold_release, METH_NOARGS,
	  "release()\n--\n\nBe done with the record. BufferError: views of the memory still exist.\n"
	  "Overwritten: the broker has thrown the subscriber out meanwhile, and the record may have\n"
	  "been overwritten since." },
	{ "__enter__", peek_enter, METH_NOARGS, NULL },
	{ "__exit__", hold_exit, METH_VARARGS, "Releases the record." },
	{ NULL, NULL, 0, NULL },
};

static PyGetSetDef hold_getset[] = {
	{ "record", hold_record, NULL, "The record; on a raw channel a read-only memoryview.",
	  NULL },
	NUMBER(len, "Bytes of the record."),
	NUMBER(type, "Type of the record."),
	LONG(sequence, "Sequence number of the record."),
	LONG(publisher_id, "Whose it is."),
	{ NULL, NULL, NULL, NULL, NULL },
};

static PyType_Slot hold_slots[] = {
	{ Py_tp_dealloc, lease_dealloc },
	{ Py_tp_methods, hold_methods },
	{ Py_tp_getset, hold_getset },
	{ Py_bf_getbuffer, lease_getbuffer },
	{ Py_bf_releasebuffer, lease_releasebuffer },
	{ Py_tp_doc,
	  "A record, request or reply that is kept while its reader goes on, read-only: a buffer for\n"
	  "memoryview and numpy. See Peek.hold(), Call.recv_hold() and Server.recv_hold()." },
	{ 0, NULL },
};

static PyType_Spec hold_spec = {
	.name = "shmbroker._core.Hold",
	.basicsize = sizeof(struct lease),
	.flags = Py_TPFLAGS_DEFAULT,
	.slots = hold_slots,
};

/* ---- loan ----------------------------------------------------------------------------------------------- */

static PyObject *publish_with(struct lease *lease, PyObject *given)
{
	int32_t fds[CORE_FDS_MAX], r;
	int n_fds = core_fds(given, fds);

	if (n_fds < 0 || check_exports(lease) < 0)
		return NULL;
	if (!lease->lessor->publish) {
		PyErr_SetString(PyExc_TypeError,
				"a request is sent by start(), a reply by reply()");
		return NULL;
	}
	r = lease->lessor->publish(lease->handle->ptr, lease->len, fds, (uint32_t)n_fds);
	if (r < 0)
		return core_fail(r, lease->lessor->errors);
	lease_void(lease);
	Py_RETURN_NONE;
}

static PyObject *loan_publish(PyObject *self, PyObject *args)
{
	PyObject *fds = NULL;

	if (!PyArg_ParseTuple(args, "|O:publish", &fds))
		return NULL;
	return publish_with(CAST(lease, self), fds);
}

static PyObject *loan_cancel(PyObject *self, PyObject *Py_UNUSED(ignored))
{
	struct lease *lease = CAST(lease, self);
	int32_t r;

	if (check_exports(lease) < 0)
		return NULL;
	r = lease->lessor->cancel(lease->handle->ptr);
	lease_void(lease);
	if (r < 0)
		return core_fail(r, lease->lessor->errors);
	Py_RETURN_NONE;
}

static PyObject *loan_truncate(PyObject *self, PyObject *argument)
{
	struct lease *lease = CAST(lease, self);
	unsigned long len = PyLong_AsUnsignedLong(argument);

	if (len == (unsigned long)-1 && PyErr_Occurred())
		return NULL;
	if (check_live(lease) < 0)
		return NULL;
	if (len > lease->len) {
		PyErr_Format(PyExc_ValueError, "%lu bytes are more than the %u that were loaned",
			     len, (unsigned int)lease->len);
		return NULL;
	}
	lease->len = (uint32_t)len;
	Py_RETURN_NONE;
}

static PyObject *loan_enter(PyObject *self, PyObject *Py_UNUSED(ignored))
{
	struct lease *lease = CAST(lease, self);
	PyObject *item;

	if (check_live(lease) < 0)
		return NULL;
	item = item_at(lease, 0);
	if (item && !lease->record) {
		Py_INCREF(item);
		Py_XDECREF(lease->entered);
		lease->entered = item;
	}
	return item;
}

/* The memoryview that __enter__ gave out ends here; others must have ended before. */
static int loan_leave(struct lease *lease)
{
	PyObject *result;

	if (!lease->entered)
		return 0;
	result = PyObject_CallMethod(lease->entered, "release", NULL);
	if (!result)
		return -1;
	Py_DECREF(result);
	Py_CLEAR(lease->entered);
	return 0;
}

static PyObject *loan_exit(PyObject *self, PyObject *args)
{
	struct lease *lease = CAST(lease, self);
	PyObject *type, *value, *traceback, *result;

	if (!PyArg_ParseTuple(args, "OOO:__exit__", &type, &value, &traceback))
		return NULL;
	if (loan_leave(lease) < 0)
		return NULL;
	if (!lease->live)
		Py_RETURN_NONE;
	if (type != Py_None && lease->exports)
		Py_RETURN_NONE;
	if (type != Py_None)
		return loan_cancel(self, NULL);
	if (!lease->lessor->publish) {
		/* It is still to be sent. */
		if (check_exports(lease) < 0)
			return NULL;
		Py_RETURN_NONE;
	}
	result = publish_with(lease, NULL);
	if (!result && lease->live && lease->exports == 0) {
		/* The loan must not stay out behind the with block. */
		lease->lessor->cancel(lease->handle->ptr);
		lease_void(lease);
	}
	return result;
}

struct lease *lease_lent(const struct handle *handle, PyObject *object)
{
	return Py_TYPE(object) == loan_type && CAST(lease, object)->handle == handle
		       ? CAST(lease, object)
		       : NULL;
}

int lease_settle(struct lease *lease)
{
	return loan_leave(lease) < 0 ? -1 : check_exports(lease);
}

static PyMethodDef loan_methods[] = {
	{ "publish", loan_publish, METH_VARARGS,
	  "publish(fds=(), /)\n--\n\nPublish the record, with these file descriptors. BufferError: views\n"
	  "of the memory still exist." },
	{ "cancel", loan_cancel, METH_NOARGS, "cancel()\n--\n\nGive the memory back unpublished." },
	{ "truncate", loan_truncate, METH_O,
	  "truncate(len)\n--\n\nPublish only the first len bytes (raw channels)." },
	{ "__enter__", loan_enter, METH_NOARGS,
	  "The record to fill in; on a raw channel a writable memoryview." },
	{ "__exit__", loan_exit, METH_VARARGS,
	  "Publishes the record, or leaves a request or reply to be sent; cancels it on an\n"
	  "exception." },
	{ NULL, NULL, 0, NULL },
};

static PyGetSetDef loan_getset[] = {
	NUMBER(len, "Bytes that will be published."),
	{ NULL, NULL, NULL, NULL, NULL },
};

static PyType_Slot loan_slots[] = {
	{ Py_tp_dealloc, lease_dealloc },
	{ Py_tp_methods, loan_methods },
	{ Py_tp_getset, loan_getset },
	{ Py_bf_getbuffer, lease_getbuffer },
	{ Py_bf_releasebuffer, lease_releasebuffer },
	{ Py_tp_doc, "One record, request or reply to be, in shared memory. See Publisher.loan(),\n"
		     "Caller.loan() and Request.loan()." },
	{ 0, NULL },
};

static PyType_Spec loan_spec = {
	.name = "shmbroker._core.Loan",
	.basicsize = sizeof(struct lease),
	.flags = Py_TPFLAGS_DEFAULT,
	.slots = loan_slots,
};

int lease_init_module(PyObject *module)
{
	peek_type = core_add_type(module, &peek_spec, NULL);
	loan_type = core_add_type(module, &loan_spec, NULL);
	hold_type = core_add_type(module, &hold_spec, NULL);
	row_type = core_add_type(module, &row_spec, NULL);
	return peek_type && loan_type && hold_type && row_type ? 0 : -1;
}
