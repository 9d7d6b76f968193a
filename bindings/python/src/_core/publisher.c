/* SPDX-License-Identifier: Apache-2.0 */
#include "core.h"

PyTypeObject *publisher_type;
static PyTypeObject *stats_type;

static int32_t publisher_close(struct handle *handle)
{
	return shmb_publisher_close(handle->ptr);
}

static PyObject *publisher_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
	struct shmb_publisher_options options = { .options_len = sizeof(options) };
	struct shmb_publisher *ptr = NULL;
	struct publisher *publisher;
	PyObject *channel_object, *record, *self;
	unsigned long long arena_len = 0;
	struct handle *channel;
	PyThreadState *thread;
	int32_t r;

	if (!PyArg_ParseTuple(args, "O!OI|KI:Publisher", channel_type, &channel_object, &record,
			      &options.flags, &arena_len, &options.priority))
		return NULL;
	options.arena_len = arena_len;
	channel = CAST(handle, channel_object);
	if (handle_check(channel) < 0)
		return NULL;
	self = PyType_GenericAlloc(type, 0);
	if (!self)
		return NULL;
	publisher = CAST(publisher, self);
	if (core_record_class(record, &publisher->record, &publisher->layout) < 0) {
		Py_DECREF(self);
		return NULL;
	}
	channel->busy++;
	thread = PyEval_SaveThread();
	r = shmb_publisher_open(channel->ptr, &options, &ptr);
	PyEval_RestoreThread(thread);
	channel->busy--;
	if (r < 0) {
		core_fail(r, SIDE_OTHER);
		Py_DECREF(self);
		return NULL;
	}
	publisher->view = shmb_publisher_view(ptr);
	handle_opened(&publisher->handle, ptr, "publisher", publisher_close, channel);
	return self;
}

static void publisher_dealloc(PyObject *self)
{
	struct publisher *publisher = CAST(publisher, self);

	Py_CLEAR(publisher->record);
	Py_CLEAR(publisher->layout);
	handle_dealloc(self);
}

/* ---- what to send, and how long to try ------------------------------------------------------------------- */

/* Bytes of a record or of anything with a buffer. @buffer->obj is what keeps them. */
int payload_get(PyTypeObject *class, const struct layout *layout, PyObject *object,
		Py_buffer *buffer)
{
	struct record *record;

	if (!PyObject_TypeCheck(object, record_type))
		return PyObject_GetBuffer(object, buffer, PyBUF_SIMPLE);
	record = CAST(record, object);
	if (!layout) {
		PyErr_SetString(PyExc_TypeError, "this channel has raw records: send bytes");
		return -1;
	}
	if (record->layout != layout &&
	    PyObject_RichCompareBool(record->layout->table, layout->table, Py_EQ) != 1) {
		PyErr_Format(PyExc_TypeError, "this channel has records of %R, not of %R", class,
			     Py_TYPE(object));
		return -1;
	}
	if (record->owner)
		return PyObject_GetBuffer(object, buffer, PyBUF_SIMPLE);
	Py_INCREF(object);
	buffer->obj = NULL;
	buffer->internal = object;
	buffer->buf = record->data;
	buffer->len = record->layout->record_len;
	return 0;
}

void payload_put(Py_buffer *buffer)
{
	if (buffer->obj)
		PyBuffer_Release(buffer);
	else
		Py_DECREF((PyObject *)buffer->internal);
}

static int32_t wait_room(void *ptr, void *arg, int64_t timeout_ns)
{
	return shmb_publisher_wait(ptr, *(uint32_t *)arg, timeout_ns);
}

static int check_len(Py_ssize_t len)
{
	if (len <= UINT32_MAX)
		return 0;
	core_fail_text(-EMSGSIZE, SIDE_PUBLISHER, "%zd bytes are too long for a record", len);
	return -1;
}

/* ---- send ---------------------------------------------------------------------------------------------- */

/* What comes with a record. */
struct extras {
	unsigned long type;
	int n_fds;
	int32_t fds[CORE_FDS_MAX];
};

static int32_t send_with(struct publisher *publisher, const Py_buffer *buffer,
			 const struct extras *extras)
{
	return shmb_publisher_send_fds(publisher->handle.ptr, buffer->buf, (uint32_t)buffer->len,
				       (uint32_t)extras->type, extras->fds,
				       (uint32_t)extras->n_fds);
}

static int extras_get(PyObject *type, PyObject *fds, struct extras *extras)
{
	extras->type = type ? PyLong_AsUnsignedLong(type) : 0;
	if (extras->type == (unsigned long)-1 && PyErr_Occurred())
		return -1;
	if (extras->type > UINT16_MAX) {
		PyErr_Format(PyExc_OverflowError, "type %lu is above 65535", extras->type);
		return -1;
	}
	extras->n_fds = core_fds(fds, extras->fds);
	return extras->n_fds < 0 ? -1 : 0;
}

static PyObject *publisher_send(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
				PyObject *kwnames)
{
	static const char *const names[] = { "record", "timeout", "block", "type", "fds", NULL };
	struct publisher *publisher = CAST(publisher, self);
	PyObject *given[5] = { nargs == 1 ? args[0] : NULL, NULL, NULL, NULL, NULL };
	int64_t timeout_ns = SHMB_FOREVER;
	struct extras extras;
	Py_buffer buffer;
	uint32_t len;
	int32_t r;

	extras.type = 0;
	extras.n_fds = 0;
	if ((nargs != 1 || kwnames) &&
	    (core_arguments("send", names, 1, args, nargs, kwnames, given) < 0 ||
	     core_patience(given[1], given[2], &timeout_ns) < 0 ||
	     extras_get(given[3], given[4], &extras) < 0))
		return NULL;
	if (handle_check(&publisher->handle) < 0 ||
	    payload_get(publisher->record, publisher->layout, given[0], &buffer) < 0)
		return NULL;
	if (check_len(buffer.len) < 0) {
		payload_put(&buffer);
		return NULL;
	}
	len = (uint32_t)buffer.len;
	r = send_with(publisher, &buffer, &extras);
	if (r == -EAGAIN && timeout_ns != 0) {
		int64_t deadline_ns = core_deadline(timeout_ns);

		do {
			r = handle_wait(&publisher->handle, wait_room, &len, deadline_ns);
			if (r == 0)
				r = send_with(publisher, &buffer, &extras);
		} while (r == -EAGAIN);
	}
	payload_put(&buffer);
	if (r < 0)
		return core_fail(r, SIDE_PUBLISHER);
	Py_RETURN_NONE;
}

/* ---- send_many ----------------------------------------------------------------------------------------- */

/* Records side by side, and what keeps them. */
struct batch {
	char *data;
	uint32_t len; /* of each, if @lens is NULL */
	uint32_t *lens; /* of each */
	uint32_t count;
	Py_buffer buffer; /* .obj is NULL: @data is ours */
};

static void batch_put(struct batch *batch)
{
	if (batch->buffer.obj)
		PyBuffer_Release(&batch->buffer);
	else
		PyMem_Free(batch->data);
	PyMem_Free(batch->lens);
}

static int fail_memory(void)
{
	PyErr_NoMemory();
	return -1;
}

static int batch_of_array(struct publisher *publisher, PyObject *object, struct batch *batch)
{
	Py_buffer *buffer = &batch->buffer;
	Py_ssize_t len, count;

	if (PyObject_GetBuffer(object, buffer, PyBUF_C_CONTIGUOUS) < 0)
		return -1;
	len = publisher->layout	 ? (Py_ssize_t)publisher->layout->record_len
	      : buffer->ndim > 1 ? buffer->len / (buffer->shape[0] ? buffer->shape[0] : 1)
				 : buffer->itemsize;
	if (publisher->layout && buffer->itemsize != 1 && buffer->itemsize != len) {
		PyErr_Format(PyExc_TypeError, "an array of %zd-byte items is no array of %R",
			     buffer->itemsize, publisher->record);
		return -1;
	}
	if (!publisher->layout && buffer->ndim < 2 && buffer->itemsize == 1) {
		PyErr_SetString(PyExc_TypeError,
				"raw records come as a list of bytes, or as rows of an "
				"array");
		return -1;
	}
	if (len == 0 || buffer->len % len) {
		PyErr_Format(PyExc_ValueError, "%zd bytes are no whole number of records of %zd",
			     buffer->len, len);
		return -1;
	}
	count = buffer->len / len;
	if (check_len(len) < 0)
		return -1;
	batch->data = buffer->buf;
	batch->len = (uint32_t)len;
	batch->count = count > INT32_MAX ? INT32_MAX : (uint32_t)count;
	return 0;
}

/* Copies the records of a sequence side by side. */
static int batch_of_sequence(struct publisher *publisher, PyObject *sequence, struct batch *batch)
{
	Py_ssize_t count = PyTuple_Size(sequence);
	size_t used = 0, cap = 0;

	if (count > INT32_MAX) {
		PyErr_SetString(PyExc_OverflowError, "too many records");
		return -1;
	}
	batch->lens = PyMem_Calloc((size_t)count + 1, sizeof(*batch->lens));
	if (!batch->lens)
		return fail_memory();
	for (Py_ssize_t i = 0; i < count; i++) {
		Py_buffer buffer;

		if (payload_get(publisher->record, publisher->layout, PyTuple_GetItem(sequence, i),
				&buffer) < 0)
			return -1;
		if (check_len(buffer.len) < 0) {
			payload_put(&buffer);
			return -1;
		}
		if (used + (size_t)buffer.len > cap) {
			size_t wanted = (used + (size_t)buffer.len) * 2;
			char *bigger;

			if (wanted < (size_t)buffer.len * (size_t)count && i == 0)
				wanted = (size_t)buffer.len * (size_t)count;
			bigger = PyMem_Realloc(batch->data, wanted);
			if (!bigger) {
				payload_put(&buffer);
				return fail_memory();
			}
			batch->data = bigger;
			cap = wanted;
		}
		if (buffer.len)
			memcpy(batch->data + used, buffer.buf, (size_t)buffer.len);
		used += (size_t)buffer.len;
		batch->lens[i] = (uint32_t)buffer.len;
		payload_put(&buffer);
	}
	batch->count = (uint32_t)count;
	return 0;
}

static int batch_get(struct publisher *publisher, PyObject *object, struct batch *batch)
{
	PyObject *sequence;
	int r;

	memset(batch, 0, sizeof(*batch));
	if (PyObject_TypeCheck(object, record_type) || PyUnicode_Check(object)) {
		PyErr_SetString(PyExc_TypeError, "several records are wanted");
		return -1;
	}
	if (PyObject_CheckBuffer(object)) {
		r = batch_of_array(publisher, object, batch);
	} else {
		sequence = PySequence_Tuple(object);
		if (!sequence)
			return -1;
		r = batch_of_sequence(publisher, sequence, batch);
		Py_DECREF(sequence);
	}
	if (r < 0)
		batch_put(batch);
	return r;
}

static PyObject *publisher_send_many(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
				     PyObject *kwnames)
{
	static const char *const names[] = { "records", "timeout", "block", NULL };
	struct publisher *publisher = CAST(publisher, self);
	PyObject *given[3];
	int64_t timeout_ns, deadline_ns = 0;
	struct batch batch;
	uint32_t sent = 0;
	const char *at;
	int32_t r = 0;

	if (core_arguments("send_many", names, 1, args, nargs, kwnames, given) < 0 ||
	    core_patience(given[1], given[2], &timeout_ns) < 0 ||
	    batch_get(publisher, given[0], &batch) < 0)
		return NULL;
	if (handle_check(&publisher->handle) < 0) {
		batch_put(&batch);
		return NULL;
	}
	at = batch.data;
	while (sent < batch.count) {
		const uint32_t *lens = batch.lens ? batch.lens + sent : NULL;

		r = shmb_publisher_send_many(publisher->handle.ptr, at, batch.len, lens,
					     batch.count - sent);
		if (r == -EAGAIN && timeout_ns != 0) {
			uint32_t len = lens ? lens[0] : batch.len;

			if (deadline_ns == 0)
				deadline_ns = core_deadline(timeout_ns);
			r = handle_wait(&publisher->handle, wait_room, &len, deadline_ns);
			if (r == 0)
				continue;
		}
		if (r < 0)
			break;
		for (int32_t i = 0; i < r; i++)
			at += lens ? lens[i] : batch.len;
		sent += (uint32_t)r;
	}
	batch_put(&batch);
	/* What was sent was sent: only a call that sent nothing fails for lack of room. */
	if (r < 0 && !(sent > 0 && (r == -EAGAIN || r == -ETIMEDOUT)))
		return core_fail(r, SIDE_PUBLISHER);
	return PyLong_FromUnsignedLong(sent);
}

/* ---- loan ---------------------------------------------------------------------------------------------- */

static PyObject *publisher_loan(PyObject *self, PyObject *args, PyObject *kwargs)
{
	static char *names[] = { "len", "timeout", "block", NULL };
	struct publisher *publisher = CAST(publisher, self);
	PyObject *len_object = Py_None, *timeout = NULL, *block = NULL, *loan;
	unsigned long long len;
	int64_t timeout_ns;
	uint32_t wanted;
	int32_t r;

	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|OOO:loan", names, &len_object, &timeout,
					 &block) ||
	    core_patience(timeout, block, &timeout_ns) < 0 || handle_check(&publisher->handle) < 0)
		return NULL;
	if (len_object == Py_None && !publisher->layout) {
		PyErr_SetString(PyExc_TypeError, "loan() on a raw channel needs a len");
		return NULL;
	}
	len = len_object == Py_None ? publisher->layout->record_len
				    : PyLong_AsUnsignedLongLong(len_object);
	if (len == (unsigned long long)-1 && PyErr_Occurred())
		return NULL;
	if (len > UINT32_MAX || (publisher->layout && len != publisher->layout->record_len))
		return core_fail_text(-EMSGSIZE, SIDE_PUBLISHER, "a record cannot have %llu bytes",
				      len);
	wanted = (uint32_t)len;
	r = shmb_publisher_loan(publisher->handle.ptr, wanted);
	if (r == -EAGAIN && timeout_ns != 0) {
		int64_t deadline_ns = core_deadline(timeout_ns);

		do {
			r = handle_wait(&publisher->handle, wait_room, &wanted, deadline_ns);
			if (r == 0)
				r = shmb_publisher_loan(publisher->handle.ptr, wanted);
		} while (r == -EAGAIN);
	}
	if (r < 0)
		return core_fail(r, SIDE_PUBLISHER);
	/* Fields that are not set are zero, as in any other record. */
	if (publisher->layout)
		memset((void *)(uintptr_t)publisher->view->data, 0, wanted);
	loan = lease_new(loan_type, &publisher->handle, &publisher_lessor, publisher->view,
			 publisher->record,
			 publisher->layout);
	if (!loan)
		shmb_publisher_cancel(publisher->handle.ptr);
	return loan;
}

/* ---- the rest ------------------------------------------------------------------------------------------ */

static PyObject *publisher_fileno(PyObject *self, PyObject *Py_UNUSED(ignored))
{
	int32_t r;

	if (handle_check(CAST(handle, self)) < 0)
		return NULL;
	r = shmb_publisher_fd(CAST(handle, self)->ptr);
	return r < 0 ? core_fail(r, SIDE_OTHER) : PyLong_FromLong(r);
}

static PyObject *publisher_stats(PyObject *self, PyObject *Py_UNUSED(ignored))
{
	struct shmb_publisher_stats stats;
	int32_t r;

	if (handle_check(CAST(handle, self)) < 0)
		return NULL;
	r = shmb_publisher_stats(CAST(handle, self)->ptr, &stats, sizeof(stats));
	if (r < 0)
		return core_fail(r, SIDE_OTHER);
	return core_numbers(stats_type,
			    (uint64_t[]){ stats.publisher_id, stats.published, stats.published_len,
					  stats.dropped, stats.refused, stats.rings,
					  stats.n_subscribers, stats.n_blocks, stats.n_held,
					  stats.arena_len, stats.n_evicted, stats.backstops,
					  stats.fds_lost },
			    13);
}

static PyMethodDef publisher_methods[] = {
	{ "send", (PyCFunction)(void (*)(void))publisher_send, METH_FASTCALL | METH_KEYWORDS,
	  "send(record, timeout=None, block=True, type=0, fds=())\n--\n\n"
	  "Publish a copy of one record: a Record, or anything with bytes of the right length.\n"
	  "timeout: seconds to wait for room, None waits for ever. type: 0 to 65535, handed to\n"
	  "the subscribers. fds: file descriptors, or objects with a fileno(), that the record\n"
	  "carries; they stay open here. Full: no room (block=False or timeout=0); Timeout;\n"
	  "Invalid: wrong length, too many fds; Evicted." },
	{ "send_many", (PyCFunction)(void (*)(void))publisher_send_many,
	  METH_FASTCALL | METH_KEYWORDS,
	  "send_many(records, timeout=None, block=True)\n--\n\n"
	  "Publish copies of several records: an iterable of records, or an array with one\n"
	  "record per item or row. Those that fit at once become visible together. Returns how\n"
	  "many were sent: fewer only when the time was up. Full or Timeout: none was." },
	{ "loan", (PyCFunction)(void (*)(void))publisher_loan, METH_VARARGS | METH_KEYWORDS,
	  "loan(len=None, timeout=None, block=True)\n--\n\n"
	  "Memory in the lane for one record, to be used with `with`: gives the record (on a raw\n"
	  "channel a memoryview of len bytes), publishes it at the end, cancels it on an\n"
	  "exception. Full, Timeout, Invalid: too long." },
	{ "fileno", publisher_fileno, METH_NOARGS,
	  "fileno()\n--\n\n"
	  "An fd for event loops: readable when a call that found no room may find some, or when a\n"
	  "worker of a queue has gone; try again then. Never read from it or close it." },
	{ "stats", publisher_stats, METH_NOARGS, "stats()\n--\n\nCounters since it was opened." },
	{ "close", handle_py_close, METH_NOARGS,
	  "close()\n--\n\nStop publishing; subscribers still get all that was published." },
	{ "__enter__", handle_py_enter, METH_NOARGS, NULL },
	{ "__exit__", handle_py_exit, METH_VARARGS, NULL },
	{ NULL, NULL, 0, NULL },
};

static PyGetSetDef publisher_getset[] = {
	{ "closed", handle_py_closed, NULL, "Has it been closed?", NULL },
	{ NULL, NULL, NULL, NULL, NULL },
};

static PyType_Slot publisher_slots[] = {
	{ Py_tp_new, publisher_new },
	{ Py_tp_dealloc, publisher_dealloc },
	{ Py_tp_methods, publisher_methods },
	{ Py_tp_getset, publisher_getset },
	{ Py_tp_doc, "Writes records into a lane of its own. For one thread at a time." },
	{ 0, NULL },
};

static PyType_Spec publisher_spec = {
	.name = "shmbroker._core.Publisher",
	.basicsize = sizeof(struct publisher),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
	.slots = publisher_slots,
};

static PyStructSequence_Field stats_fields[] = {
	{ "publisher_id", "unique in this broker's life and after" },
	{ "published", "records" },
	{ "published_len", "bytes of ring they took, headers and padding included" },
	{ "dropped", "records dropped because the lane was full" },
	{ "refused", "calls that found the lane full" },
	{ "rings", "system calls made to wake subscribers" },
	{ "n_subscribers", "subscribers that it serves now" },
	{ "n_blocks", "blocks in use: not passed by all reliable subscribers" },
	{ "n_held", "blocks that were passed, but are held" },
	{ "arena_len", "bytes of memory for blocks that it has now" },
	{ "n_evicted", "subscribers that it has stopped waiting for" },
	{ "backstops", "lost wake-ups, should be 0" },
	{ "fds_lost", "file descriptors that a subscriber could not be sent" },
	{ NULL, NULL },
};

static PyStructSequence_Desc stats_desc = {
	.name = "shmbroker.PublisherStats",
	.doc = "Counters of a publisher since it was opened.",
	.fields = stats_fields,
	.n_in_sequence = 13,
};

int publisher_init_module(PyObject *module)
{
	publisher_type = core_add_type(module, &publisher_spec, NULL);
	stats_type = PyStructSequence_NewType(&stats_desc);
	if (!publisher_type || !stats_type)
		return -1;
	Py_INCREF((PyObject *)stats_type);
	return PyModule_AddObject(module, "PublisherStats", (PyObject *)stats_type);
}
