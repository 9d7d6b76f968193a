/* SPDX-License-Identifier: Apache-2.0 */
#include "core.h"

#include <unistd.h>

PyTypeObject *subscriber_type;
static PyTypeObject *stats_type;

/* As much is received in one call at most. */
#define BATCH_LEN_MAX (16u << 20)

static int32_t subscriber_close(struct handle *handle)
{
	struct subscriber *subscriber = CAST(subscriber, handle);
	PyObject *on_close = subscriber->on_close, *result;

	waitset_leave(handle);
	subscriber->on_close = NULL;
	if (on_close) {
		result = PyObject_CallNoArgs(on_close);
		if (!result)
			PyErr_WriteUnraisable(on_close);
		Py_XDECREF(result);
		Py_DECREF(on_close);
	}
	return shmb_subscriber_close(handle->ptr);
}

static PyObject *subscriber_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
	struct shmb_subscriber_options options = { .options_len = sizeof(options) };
	struct shmb_subscriber *ptr = NULL;
	struct subscriber *subscriber;
	PyObject *channel_object, *record, *self;
	struct handle *channel;
	PyThreadState *thread;
	int32_t r;

	if (!PyArg_ParseTuple(args, "O!OIII|IIIII:Subscriber", channel_type, &channel_object,
			      &record, &options.flags, &options.spin_ns, &options.history,
			      &options.credit, &options.max_attempts, &options.evict_after_ms,
			      &options.conflate_offset, &options.conflate_len))
		return NULL;
	channel = CAST(handle, channel_object);
	if (handle_check(channel) < 0)
		return NULL;
	self = PyType_GenericAlloc(type, 0);
	if (!self)
		return NULL;
	subscriber = CAST(subscriber, self);
	if (core_record_class(record, &subscriber->record, &subscriber->layout) < 0) {
		Py_DECREF(self);
		return NULL;
	}
	channel->busy++;
	thread = PyEval_SaveThread();
	r = shmb_subscriber_open(channel->ptr, &options, &ptr);
	PyEval_RestoreThread(thread);
	channel->busy--;
	if (r < 0) {
		core_fail(r, SIDE_OTHER);
		Py_DECREF(self);
		return NULL;
	}
	subscriber->view = shmb_subscriber_view(ptr);
	handle_opened(&subscriber->handle, ptr, "subscriber", subscriber_close, channel);
	return self;
}

static void subscriber_dealloc(PyObject *self)
{
	struct subscriber *subscriber = CAST(subscriber, self);

	Py_CLEAR(subscriber->record);
	Py_CLEAR(subscriber->layout);
	Py_CLEAR(subscriber->on_close);
	handle_dealloc(self);
}

/* ---- waiting --------------------------------------------------------------------------------------------- */

static int32_t wait_record(void *ptr, void *Py_UNUSED(arg), int64_t timeout_ns)
{
	return shmb_subscriber_wait(ptr, timeout_ns);
}

/* One try of a receiving call. Result of the library or RAISED; >= 0: *ret_object is what came. */
typedef int32_t (*try_fn)(struct subscriber *subscriber, void *arg, PyObject **ret_object);

/* How one record is copied out: the argument of try_record() and try_bytes(). */
struct way {
	subscriber_recv_fn recv;
};

static PyObject *fail_receive(int32_t r)
{
	if (r == -EAGAIN)
		return core_fail_text(r, SIDE_SUBSCRIBER, "there is no record");
	if (r == -ETIMEDOUT)
		return core_fail_text(r, SIDE_SUBSCRIBER, "no record came in time");
	return core_fail(r, SIDE_SUBSCRIBER);
}

static PyObject *receive(struct subscriber *subscriber, try_fn try, void *arg, int64_t timeout_ns)
{
	PyObject *object = NULL;
	int32_t r;

	if (handle_check(&subscriber->handle) < 0)
		return NULL;
	r = try(subscriber, arg, &object);
	if (r == -EAGAIN && timeout_ns != 0) {
		int64_t deadline_ns = core_deadline(timeout_ns);

		do {
			r = handle_wait(&subscriber->handle, wait_record, NULL, deadline_ns);
			if (r == 0)
				r = try(subscriber, arg, &object);
		} while (r == -EAGAIN);
	}
	return r < 0 ? fail_receive(r) : object;
}

/* ---- one record ------------------------------------------------------------------------------------------- */

/* The library refuses other lengths on a typed channel; this keeps a record whole in any case. */
static int32_t check_record(struct subscriber *subscriber, uint32_t len)
{
	if (len == subscriber->layout->record_len)
		return 0;
	core_fail_text(-EBADMSG, SIDE_SUBSCRIBER, "a publisher sent %u bytes, a record has %u", len,
		       subscriber->layout->record_len);
	return RAISED;
}

static int32_t try_record(struct subscriber *subscriber, void *arg, PyObject **ret_object)
{
	struct record *record = record_new(subscriber->record, subscriber->layout);
	const struct way *way = arg;
	int32_t r;

	if (!record)
		return RAISED;
	r = way->recv(subscriber->handle.ptr, record->data, subscriber->layout->record_len);
	if (r >= 0)
		r = check_record(subscriber, (uint32_t)r);
	if (r < 0) {
		Py_DECREF((PyObject *)record);
		return r;
	}
	*ret_object = (PyObject *)record;
	return r;
}

static int32_t try_bytes(struct subscriber *subscriber, void *arg, PyObject **ret_object)
{
	const struct way *way = arg;
	int32_t r =
		way->recv(subscriber->handle.ptr, subscriber->scratch, sizeof(subscriber->scratch));

	if (r >= 0) {
		*ret_object = PyBytes_FromStringAndSize(subscriber->scratch, r);
		return *ret_object ? r : RAISED;
	}
	/* Too long for the scratch: it stays, and the view says how long it is. */
	while (r == -EMSGSIZE) {
		uint32_t len = subscriber->view->len;
		PyObject *bytes = PyBytes_FromStringAndSize(NULL, len);

		if (!bytes)
			return RAISED;
		r = way->recv(subscriber->handle.ptr, PyBytes_AsString(bytes), len);
		if (r >= 0 && (uint32_t)r < len) {
			*ret_object = PyBytes_FromStringAndSize(PyBytes_AsString(bytes), r);
			Py_DECREF(bytes);
			return *ret_object ? r : RAISED;
		}
		if (r >= 0)
			*ret_object = bytes;
		else
			Py_DECREF(bytes);
	}
	return r;
}

static struct way receiving = { shmb_subscriber_recv };

static PyObject *receive_one(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
			     PyObject *kwnames, const char *function, try_fn try)
{
	static const char *const names[] = { "timeout", "block", NULL };
	int64_t timeout_ns = SHMB_FOREVER;
	PyObject *given[2];

	if ((nargs || kwnames) &&
	    (core_arguments(function, names, 0, args, nargs, kwnames, given) < 0 ||
	     core_patience(given[0], given[1], &timeout_ns) < 0))
		return NULL;
	return receive(CAST(subscriber, self), try, &receiving, timeout_ns);
}

static try_fn try_one(PyObject *self)
{
	return CAST(subscriber, self)->layout ? try_record : try_bytes;
}

PyObject *subscriber_receive(PyObject *self, subscriber_recv_fn recv, int64_t timeout_ns)
{
	struct way way = { recv };

	return receive(CAST(subscriber, self), try_one(self), &way, timeout_ns);
}

PyObject *subscriber_try(PyObject *self, subscriber_recv_fn recv)
{
	struct subscriber *subscriber = CAST(subscriber, self);
	struct way way = { recv };
	PyObject *object = NULL;
	int32_t r;

	if (handle_check(&subscriber->handle) < 0)
		return NULL;
	r = try_one(self)(subscriber, &way, &object);
	if (r == -EAGAIN)
		Py_RETURN_NONE;
	return r < 0 ? fail_receive(r) : object;
}

static PyObject *subscriber_recv(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
				 PyObject *kwnames)
{
	return receive_one(self, args, nargs, kwnames, "recv", try_one(self));
}

static PyObject *subscriber_recv_bytes(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
				       PyObject *kwnames)
{
	return receive_one(self, args, nargs, kwnames, "recv_bytes", try_bytes);
}

static PyObject *subscriber_try_recv(PyObject *self, PyObject *Py_UNUSED(ignored))
{
	return subscriber_try(self, shmb_subscriber_recv);
}

static PyObject *subscriber_iternext(PyObject *self)
{
	return receive(CAST(subscriber, self), try_one(self), &receiving, SHMB_FOREVER);
}

static PyObject *subscriber_iter(PyObject *self)
{
	Py_INCREF(self);
	return self;
}

/* ---- several records -------------------------------------------------------------------------------------- */

static int parse_max(PyObject *object, uint32_t *ret_max)
{
	long max = object ? PyLong_AsLong(object) : 1000;

	if (max == -1 && PyErr_Occurred())
		return -1;
	if (max < 1) {
		PyErr_SetString(PyExc_ValueError, "max must be at least 1");
		return -1;
	}
	*ret_max = max > INT32_MAX ? INT32_MAX : (uint32_t)max;
	return 0;
}

/* Room for a batch; @lens is NULL for records of one length. */
struct room {
	uint32_t max;
	uint32_t cap;
	char *data;
	uint32_t *lens;
};

static PyObject *list_of(struct subscriber *subscriber, const struct room *room, int32_t count)
{
	PyObject *list = PyList_New(count);
	const char *at = room->data;

	for (int32_t i = 0; list && i < count; i++) {
		uint32_t len = room->lens[i];
		PyObject *item;

		if (subscriber->layout) {
			struct record *record;

			if (check_record(subscriber, len) < 0) {
				Py_CLEAR(list);
				break;
			}
			record = record_new(subscriber->record, subscriber->layout);
			if (record)
				memcpy(record->data, at, len);
			item = (PyObject *)record;
		} else {
			item = PyBytes_FromStringAndSize(at, len);
		}
		if (!item)
			Py_CLEAR(list);
		else
			PyList_SetItem(list, i, item);
		at += len;
	}
	return list;
}

static int32_t try_list(struct subscriber *subscriber, void *arg, PyObject **ret_object)
{
	struct room *room = arg;
	int32_t r;

	for (;;) {
		char *bigger;

		r = shmb_subscriber_recv_many(subscriber->handle.ptr, room->data, room->cap,
					      room->lens, room->max);
		if (r != -EMSGSIZE)
			break;
		/* Raw, and the first one is longer than all the room. */
		bigger = PyMem_Realloc(room->data, subscriber->view->len);
		if (!bigger) {
			PyErr_NoMemory();
			return RAISED;
		}
		room->data = bigger;
		room->cap = subscriber->view->len;
	}
	if (r < 0)
		return r;
	*ret_object = list_of(subscriber, room, r);
	return *ret_object ? r : RAISED;
}

static PyObject *subscriber_recv_many(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
				      PyObject *kwnames)
{
	static const char *const names[] = { "max", "timeout", "block", NULL };
	struct subscriber *subscriber = CAST(subscriber, self);
	PyObject *given[3], *list = NULL;
	uint64_t record_len, cap;
	int64_t timeout_ns;
	struct room room;

	if (core_arguments("recv_many", names, 0, args, nargs, kwnames, given) < 0 ||
	    parse_max(given[0], &room.max) < 0 ||
	    core_patience(given[1], given[2], &timeout_ns) < 0)
		return NULL;
	record_len = subscriber->layout ? subscriber->layout->record_len : 256;
	cap = record_len * room.max;
	if (cap > BATCH_LEN_MAX)
		cap = record_len > BATCH_LEN_MAX ? record_len : BATCH_LEN_MAX;
	/* The shortest records that fill the room are empty ones: never more lens than max. */
	room.cap = (uint32_t)cap;
	if (room.max > BATCH_LEN_MAX / sizeof(*room.lens))
		room.max = BATCH_LEN_MAX / sizeof(*room.lens);
	room.data = PyMem_Malloc(room.cap);
	room.lens = PyMem_Malloc(room.max * sizeof(*room.lens));
	if (!room.data || !room.lens)
		PyErr_NoMemory();
	else
		list = receive(subscriber, try_list, &room, timeout_ns);
	PyMem_Free(room.data);
	PyMem_Free(room.lens);
	return list;
}

static int32_t try_into(struct subscriber *subscriber, void *arg, PyObject **ret_object)
{
	struct room *room = arg;
	int32_t r = subscriber->layout
			    ? shmb_subscriber_recv_many(subscriber->handle.ptr, room->data,
							room->cap, NULL, room->max)
			    : shmb_subscriber_recv(subscriber->handle.ptr, room->data, room->cap);

	if (r < 0)
		return r;
	*ret_object = PyLong_FromLong(r);
	return *ret_object ? r : RAISED;
}

static PyObject *subscriber_recv_into(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
				      PyObject *kwnames)
{
	static const char *const names[] = { "buffer", "timeout", "block", NULL };
	struct subscriber *subscriber = CAST(subscriber, self);
	PyObject *given[3], *count = NULL;
	struct room room = { 0 };
	int64_t timeout_ns;
	Py_buffer buffer;

	if (core_arguments("recv_into", names, 1, args, nargs, kwnames, given) < 0 ||
	    core_patience(given[1], given[2], &timeout_ns) < 0 ||
	    PyObject_GetBuffer(given[0], &buffer, PyBUF_WRITABLE) < 0)
		return NULL;
	room.data = buffer.buf;
	room.cap = buffer.len > INT32_MAX ? INT32_MAX : (uint32_t)buffer.len;
	room.max = subscriber->layout ? room.cap / subscriber->layout->record_len : 1;
	if (room.max == 0)
		PyErr_SetString(PyExc_ValueError, "the buffer has no room for a record");
	else
		count = receive(subscriber, try_into, &room, timeout_ns);
	PyBuffer_Release(&buffer);
	return count;
}

/* ---- peek ------------------------------------------------------------------------------------------------- */

static int32_t try_peek(struct subscriber *subscriber, void *arg, PyObject **ret_object)
{
	int32_t r;

	/* The library would show the same records again, and two would give them back. */
	if (subscriber->handle.lease) {
		core_fail_text(-EBUSY, SIDE_SUBSCRIBER, "this subscriber is peeking already");
		return RAISED;
	}
	r = shmb_subscriber_peek(subscriber->handle.ptr, *(uint32_t *)arg);
	if (r < 0)
		return r;
	if (subscriber->layout && check_record(subscriber, subscriber->view->len) < 0) {
		shmb_subscriber_release(subscriber->handle.ptr, (uint32_t)r);
		return RAISED;
	}
	*ret_object = lease_new(peek_type, &subscriber->handle, &subscriber_lessor, subscriber->view,
				subscriber->record, subscriber->layout);
	if (!*ret_object) {
		shmb_subscriber_release(subscriber->handle.ptr, 0);
		return RAISED;
	}
	return r;
}

static PyObject *subscriber_peek(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
				 PyObject *kwnames)
{
	static const char *const names[] = { "max", "timeout", "block", NULL };
	PyObject *given[3];
	int64_t timeout_ns;
	uint32_t max;

	if (core_arguments("peek", names, 0, args, nargs, kwnames, given) < 0 ||
	    parse_max(given[0], &max) < 0 || core_patience(given[1], given[2], &timeout_ns) < 0)
		return NULL;
	return receive(CAST(subscriber, self), try_peek, &max, timeout_ns);
}

/* ---- event loops ------------------------------------------------------------------------------------------- */

static PyObject *subscriber_fileno(PyObject *self, PyObject *Py_UNUSED(ignored))
{
	int32_t r;

	if (handle_check(CAST(handle, self)) < 0)
		return NULL;
	r = shmb_subscriber_fd(CAST(handle, self)->ptr);
	return r < 0 ? core_fail(r, SIDE_OTHER) : PyLong_FromLong(r);
}

static PyObject *subscriber_arm(PyObject *self, PyObject *Py_UNUSED(ignored))
{
	int32_t r;

	if (handle_check(CAST(handle, self)) < 0)
		return NULL;
	r = shmb_subscriber_arm(CAST(handle, self)->ptr);
	return r < 0 ? core_fail(r, SIDE_SUBSCRIBER) : PyBool_FromLong(r);
}

static PyObject *subscriber_wait(PyObject *self, PyObject *args)
{
	struct handle *handle = CAST(handle, self);
	PyObject *timeout = NULL;
	int64_t timeout_ns;
	int32_t r;

	if (!PyArg_ParseTuple(args, "|O:wait", &timeout) ||
	    core_timeout(timeout, &timeout_ns) < 0 || handle_check(handle) < 0)
		return NULL;
	r = handle_wait(handle, wait_record, NULL, core_deadline(timeout_ns));
	if (r < 0)
		return fail_receive(r);
	Py_RETURN_NONE;
}

/* ---- the rest ------------------------------------------------------------------------------------------------ */

static PyObject *subscriber_stats(PyObject *self, PyObject *Py_UNUSED(ignored))
{
	struct shmb_subscriber_stats stats;
	int32_t r;

	if (handle_check(CAST(handle, self)) < 0)
		return NULL;
	r = shmb_subscriber_stats(CAST(handle, self)->ptr, &stats, sizeof(stats));
	if (r < 0)
		return core_fail(r, SIDE_OTHER);
	return core_numbers(stats_type,
			    (uint64_t[]){ stats.subscriber_id, stats.received, stats.lost,
					  stats.sleeps, stats.backstops, stats.pending,
					  stats.n_publishers, stats.expired, stats.disordered,
					  stats.conflated, stats.fds_lost },
			    11);
}

static PyObject *view_type(PyObject *self, void *Py_UNUSED(ignored))
{
	if (handle_check(CAST(handle, self)) < 0)
		return NULL;
	return PyLong_FromUnsignedLong(CAST(subscriber, self)->view->type);
}

static PyObject *view_long(PyObject *self, void *offset)
{
	const char *view;
	uint64_t value;

	if (handle_check(CAST(handle, self)) < 0)
		return NULL;
	view = (const char *)CAST(subscriber, self)->view;
	memcpy(&value, view + (size_t)(uintptr_t)offset, sizeof(value));
	return PyLong_FromUnsignedLongLong(value);
}

static PyObject *get_on_close(PyObject *self, void *Py_UNUSED(ignored))
{
	PyObject *on_close = CAST(subscriber, self)->on_close;

	on_close = on_close ? on_close : Py_None;
	Py_INCREF(on_close);
	return on_close;
}

static int set_on_close(PyObject *self, PyObject *value, void *Py_UNUSED(ignored))
{
	struct subscriber *subscriber = CAST(subscriber, self);
	PyObject *before = subscriber->on_close;

	if (value == Py_None)
		value = NULL;
	Py_XINCREF(value);
	subscriber->on_close = value;
	Py_XDECREF(before);
	return 0;
}

/* ---- file descriptors ------------------------------------------------------------------------------------ */

static PyObject *view_fds(PyObject *self, void *Py_UNUSED(ignored))
{
	if (handle_check(CAST(handle, self)) < 0)
		return NULL;
	return PyLong_FromLong(CAST(subscriber, self)->view->n_fds);
}

static PyObject *view_fds_lost(PyObject *self, void *Py_UNUSED(ignored))
{
	if (handle_check(CAST(handle, self)) < 0)
		return NULL;
	return PyLong_FromLong(CAST(subscriber, self)->view->n_fds_lost);
}

static PyObject *subscriber_take_fds(PyObject *self, PyObject *Py_UNUSED(ignored))
{
	int32_t fds[CORE_FDS_MAX], r;
	PyObject *list;

	if (handle_check(CAST(handle, self)) < 0)
		return NULL;
	/* Before there is anything that would have to be closed. */
	list = PyList_New(0);
	if (!list)
		return NULL;
	r = shmb_subscriber_take_fds(CAST(handle, self)->ptr, fds, CORE_FDS_MAX);
	if (r < 0) {
		Py_DECREF(list);
		return core_fail(r, SIDE_SUBSCRIBER);
	}
	for (int32_t i = 0; i < r; i++) {
		PyObject *number = PyLong_FromLong(fds[i]);
		int added = number ? PyList_Append(list, number) : -1;

		Py_XDECREF(number);
		if (added == 0)
			continue;
		for (int32_t k = 0; k < r; k++)
			close(fds[k]);
		Py_DECREF(list);
		return NULL;
	}
	return list;
}

#define FAST(name, function, doc)                                                                 \
	{                                                                                         \
		name, (PyCFunction)(void (*)(void))(function), METH_FASTCALL | METH_KEYWORDS, doc \
	}

static PyMethodDef subscriber_methods[] = {
	FAST("recv", subscriber_recv,
	     "recv(timeout=None, block=True)\n--\n\n"
	     "The next record: a Record, on a raw channel bytes. timeout: seconds, None waits for\n"
	     "ever. Empty: none there (block=False or timeout=0); Timeout; CorruptPeer."),
	FAST("recv_bytes", subscriber_recv_bytes,
	     "recv_bytes(timeout=None, block=True)\n--\n\nThe next record as bytes; see recv()."),
	{ "try_recv", subscriber_try_recv, METH_NOARGS,
	  "try_recv()\n--\n\nThe next record, or None if there is none. Never waits." },
	FAST("recv_many", subscriber_recv_many,
	     "recv_many(max=1000, timeout=None, block=True)\n--\n\n"
	     "A list of the next records, at least one: what is there, at most max, in one call.\n"
	     "type, sequence and publisher_id are those of the first. Errors as recv()."),
	FAST("recv_into", subscriber_recv_into,
	     "recv_into(buffer, timeout=None, block=True)\n--\n\n"
	     "Fill a writable buffer with as many records as are there and fit; returns how many.\n"
	     "On a raw channel with one record; returns its bytes. Errors as recv(), and Invalid\n"
	     "if the record is longer than the buffer."),
	FAST("peek", subscriber_peek,
	     "peek(max=1000, timeout=None, block=True)\n--\n\n"
	     "Look at the next records of one publisher where they lie, at most max; to be used\n"
	     "with `with`, which releases them at the end, or keeps them for the next call on an\n"
	     "exception. Gives a Peek: a read-only sequence and buffer. The bytes are shared: a\n"
	     "hostile publisher may change them while you look; recv() copies. Errors as recv()."),
	{ "take_fds", subscriber_take_fds, METH_NOARGS,
	  "take_fds()\n--\n\n"
	  "A list of the file descriptors that came with the record that was received last, or is\n"
	  "peeked at; they are the caller's to close, and not inherited. Those that are not taken\n"
	  "are closed with the next call. n_fds says how many there are." },
	{ "wait", subscriber_wait, METH_VARARGS,
	  "wait(timeout=None)\n--\n\nWait until there is something to receive. Timeout." },
	{ "fileno", subscriber_fileno, METH_NOARGS,
	  "fileno()\n--\n\n"
	  "An fd for event loops: readable when something may have come since arm() returned\n"
	  "False. Never read from it or close it." },
	{ "arm", subscriber_arm, METH_NOARGS,
	  "arm()\n--\n\n"
	  "Prepare to sleep on fileno(). True: receive first, there is something. The loop is:\n"
	  "try_recv() until None; arm(); True: again; False: wait until fileno() is readable." },
	{ "stats", subscriber_stats, METH_NOARGS, "stats()\n--\n\nCounters since it was opened." },
	{ "close", handle_py_close, METH_NOARGS, "close()\n--\n\nStop receiving." },
	{ "__enter__", handle_py_enter, METH_NOARGS, NULL },
	{ "__exit__", handle_py_exit, METH_VARARGS, NULL },
	{ NULL, NULL, 0, NULL },
};

#define VIEW(field, doc)                                                                \
	{                                                                               \
#field, view_long, NULL, doc, (void *)offsetof(struct shmb_view, field) \
	}

static PyGetSetDef subscriber_getset[] = {
	{ "closed", handle_py_closed, NULL, "Has it been closed?", NULL },
	{ "type", view_type, NULL, "Type of the last record.", NULL },
	VIEW(sequence, "Number of the last record among those of its publisher."),
	VIEW(lost, "Records that this subscriber has lost so far."),
	VIEW(publisher_id, "Whose the last record was."),
	{ "n_fds", view_fds, NULL, "File descriptors that came with it and can be taken.", NULL },
	{ "n_fds_lost", view_fds_lost, NULL, "Those that came with it and cannot be had any more.",
	  NULL },
	{ "_on_close", get_on_close, set_on_close, NULL, NULL },
	{ NULL, NULL, NULL, NULL, NULL },
};

static PyType_Slot subscriber_slots[] = {
	{ Py_tp_new, subscriber_new },
	{ Py_tp_dealloc, subscriber_dealloc },
	{ Py_tp_methods, subscriber_methods },
	{ Py_tp_getset, subscriber_getset },
	{ Py_tp_iter, subscriber_iter },
	{ Py_tp_iternext, subscriber_iternext },
	{ Py_tp_doc, "Reads the records of all publishers. For one thread at a time." },
	{ 0, NULL },
};

static PyType_Spec subscriber_spec = {
	.name = "shmbroker._core.Subscriber",
	.basicsize = sizeof(struct subscriber),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
	.slots = subscriber_slots,
};

static PyStructSequence_Field stats_fields[] = {
	{ "subscriber_id", "unique in this broker's life and after" },
	{ "received", "records" },
	{ "lost", "records lost because a publisher lapped this lossy or evicted subscriber" },
	{ "sleeps", "times it went to sleep" },
	{ "backstops", "lost wake-ups, should be 0" },
	{ "pending", "records published and not received yet, at least" },
	{ "n_publishers", "publishers that it reads now" },
	{ "expired", "records skipped because they were older than the channel's ttl" },
	{ "disordered", "records of an ordered channel received behind one published later" },
	{ "conflated", "records skipped because a newer one of their key was there" },
	{ "fds_lost", "file descriptors that came with records and could not be had any more" },
	{ NULL, NULL },
};

static PyStructSequence_Desc stats_desc = {
	.name = "shmbroker.SubscriberStats",
	.doc = "Counters of a subscriber since it was opened.",
	.fields = stats_fields,
	.n_in_sequence = 11,
};

int subscriber_init_module(PyObject *module)
{
	subscriber_type = core_add_type(module, &subscriber_spec, NULL);
	stats_type = PyStructSequence_NewType(&stats_desc);
	if (!subscriber_type || !stats_type)
		return -1;
	Py_INCREF((PyObject *)stats_type);
	return PyModule_AddObject(module, "SubscriberStats", (PyObject *)stats_type);
}
