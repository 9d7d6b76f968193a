/* SPDX-License-Identifier: Apache-2.0 */
#include "core.h"

/* Callers and servers of call channels: calls are numbers here, objects are for Python. */

static PyTypeObject *caller_stats_type;
static PyTypeObject *server_stats_type;

/* Replies and requests up to this length take no detour to learn how long they are. */
struct end {
	struct handle handle;
	struct shmb_call_view *view;
	char scratch[SCRATCH_LEN];
};

static PyObject *fail(int32_t r)
{
	return core_fail(r, SIDE_OTHER);
}

/* ---- opening --------------------------------------------------------------------------------- */

/* What caller and server do alike. */
static struct handle *parse_open(PyObject *args, const char *format, uint32_t *flags,
				 uint32_t *spin_ns)
{
	PyObject *channel_object;

	if (!PyArg_ParseTuple(args, format, channel_type, &channel_object, flags, spin_ns) ||
	    handle_check(CAST(handle, channel_object)) < 0)
		return NULL;
	return CAST(handle, channel_object);
}

static int32_t caller_close(struct handle *handle)
{
	return shmb_caller_close(handle->ptr);
}

static PyObject *caller_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
	struct shmb_caller_options options = { .options_len = sizeof(options) };
	struct shmb_caller *ptr = NULL;
	struct handle *channel;
	PyThreadState *thread;
	PyObject *self;
	int32_t r;

	channel = parse_open(args, "O!II:Caller", &options.flags, &options.spin_ns);
	self = channel ? PyType_GenericAlloc(type, 0) : NULL;
	if (!self)
		return NULL;
	channel->busy++;
	thread = PyEval_SaveThread();
	r = shmb_caller_open(channel->ptr, &options, &ptr);
	PyEval_RestoreThread(thread);
	channel->busy--;
	if (r < 0) {
		fail(r);
		Py_DECREF(self);
		return NULL;
	}
	CAST(end, self)->view = shmb_caller_view(ptr);
	handle_opened(CAST(handle, self), ptr, "caller", caller_close, channel);
	return self;
}

static int32_t server_close(struct handle *handle)
{
	return shmb_server_close(handle->ptr);
}

static PyObject *server_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
	struct shmb_server_options options = { .options_len = sizeof(options) };
	struct shmb_server *ptr = NULL;
	struct handle *channel;
	PyThreadState *thread;
	PyObject *self;
	int32_t r;

	channel = parse_open(args, "O!II:Server", &options.flags, &options.spin_ns);
	self = channel ? PyType_GenericAlloc(type, 0) : NULL;
	if (!self)
		return NULL;
	channel->busy++;
	thread = PyEval_SaveThread();
	r = shmb_server_open(channel->ptr, &options, &ptr);
	PyEval_RestoreThread(thread);
	channel->busy--;
	if (r < 0) {
		fail(r);
		Py_DECREF(self);
		return NULL;
	}
	CAST(end, self)->view = shmb_server_view(ptr);
	handle_opened(CAST(handle, self), ptr, "server", server_close, channel);
	return self;
}

/* ---- receiving, on both sides ---------------------------------------------------------------- */

/**
 * struct room - where a request or reply goes
 * @call:  of the caller's recv
 * @data:  @cap bytes
 * @bytes: holds @data, NULL: it is the scratch
 */
struct room {
	int32_t call;
	char *data;
	uint32_t cap;
	PyObject *bytes;
};

static int32_t recv_reply(void *ptr, void *arg, int64_t timeout_ns)
{
	const struct room *room = arg;

	return shmb_caller_recv(ptr, room->call, room->data, room->cap, timeout_ns);
}

static int32_t recv_request(void *ptr, void *arg, int64_t timeout_ns)
{
	const struct room *room = arg;

	return shmb_server_recv(ptr, room->data, room->cap, timeout_ns);
}

/* Returns bytes, or NULL with *ret_result; the exception is not set yet, unless it is RAISED. */
static PyObject *receive(struct end *end, wait_fn recv, struct room *room, int64_t timeout_ns,
			 int32_t *ret_result)
{
	int64_t deadline_ns = core_deadline(timeout_ns);
	PyObject *bytes;

	room->data = end->scratch;
	room->cap = sizeof(end->scratch);
	room->bytes = NULL;
	for (;;) {
		*ret_result = handle_wait(&end->handle, recv, room, deadline_ns);
		if (*ret_result != -EMSGSIZE)
			break;
		/* It stays, and the view says how long it is. */
		Py_XDECREF(room->bytes);
		room->cap = end->view->len;
		room->call = recv == recv_reply ? end->view->call : 0;
		room->bytes = PyBytes_FromStringAndSize(NULL, room->cap);
		if (!room->bytes) {
			*ret_result = RAISED;
			return NULL;
		}
		room->data = PyBytes_AsString(room->bytes);
	}
	if (*ret_result >= 0 && room->bytes && (uint32_t)*ret_result == room->cap)
		return room->bytes;
	bytes = *ret_result >= 0 ? PyBytes_FromStringAndSize(room->data, *ret_result) : NULL;
	if (*ret_result >= 0 && !bytes)
		*ret_result = RAISED;
	Py_XDECREF(room->bytes);
	return bytes;
}

/* ---- caller ---------------------------------------------------------------------------------- */

static int32_t wait_server(void *ptr, void *arg, int64_t timeout_ns)
{
	return shmb_caller_wait(ptr, *(const uint32_t *)arg, timeout_ns);
}

static PyObject *caller_start(PyObject *self, PyObject *args)
{
	struct handle *handle = CAST(handle, self);
	int64_t timeout_ns, deadline_ns, left_ns;
	PyObject *request, *timeout;
	PyThreadState *thread;
	unsigned int type;
	Py_buffer buffer;
	uint32_t len;
	int32_t r;

	if (!PyArg_ParseTuple(args, "IOO:_start", &type, &request, &timeout) ||
	    core_timeout(timeout, &timeout_ns) < 0 || handle_check(handle) < 0 ||
	    PyObject_GetBuffer(request, &buffer, PyBUF_SIMPLE) < 0)
		return NULL;
	len = buffer.len > UINT32_MAX ? UINT32_MAX : (uint32_t)buffer.len;
	deadline_ns = core_deadline(timeout_ns);
	r = handle_wait(handle, wait_server, &len, deadline_ns);
	if (r >= 0) {
		left_ns =
			timeout_ns == SHMB_FOREVER ? SHMB_FOREVER : deadline_ns - core_deadline(0);
		if (left_ns < 0 && timeout_ns != SHMB_FOREVER)
			left_ns = 0;
		handle->busy++;
		thread = PyEval_SaveThread();
		r = shmb_caller_start(handle->ptr, type, buffer.buf, len, left_ns);
		PyEval_RestoreThread(thread);
		handle->busy--;
	}
	PyBuffer_Release(&buffer);
	return r < 0 ? fail(r) : PyLong_FromLong(r);
}

/* A tuple: what has come, or None at the end; call; type; are there more? */
static PyObject *caller_recv(PyObject *self, PyObject *args)
{
	struct end *end = CAST(end, self);
	struct room room = { 0 };
	PyObject *timeout, *bytes;
	int64_t timeout_ns;
	int32_t r;

	if (!PyArg_ParseTuple(args, "iO:_recv", &room.call, &timeout) ||
	    core_timeout(timeout, &timeout_ns) < 0 || handle_check(&end->handle) < 0)
		return NULL;
	bytes = receive(end, recv_reply, &room, timeout_ns, &r);
	if (bytes)
		return Py_BuildValue("NiIO", bytes, end->view->call, end->view->type,
				     end->view->more ? Py_True : Py_False);
	if (r == -ENODATA)
		return Py_BuildValue("OiIO", Py_None, end->view->call, 0u, Py_False);
	return fail(r);
}

static PyObject *caller_cancel(PyObject *self, PyObject *args)
{
	int call;
	int32_t r;

	if (!PyArg_ParseTuple(args, "i:_cancel", &call) || handle_check(CAST(handle, self)) < 0)
		return NULL;
	r = shmb_caller_cancel(CAST(handle, self)->ptr, call);
	if (r < 0 && r != -ENOENT)
		return fail(r);
	return PyBool_FromLong(r == 0);
}

static PyObject *caller_fileno(PyObject *self, PyObject *Py_UNUSED(ignored))
{
	int32_t r;

	if (handle_check(CAST(handle, self)) < 0)
		return NULL;
	r = shmb_caller_fd(CAST(handle, self)->ptr);
	return r < 0 ? fail(r) : PyLong_FromLong(r);
}

static PyObject *caller_arm(PyObject *self, PyObject *Py_UNUSED(ignored))
{
	int32_t r;

	if (handle_check(CAST(handle, self)) < 0)
		return NULL;
	r = shmb_caller_arm(CAST(handle, self)->ptr);
	return r < 0 ? fail(r) : PyBool_FromLong(r);
}

static PyObject *caller_stats(PyObject *self, PyObject *Py_UNUSED(ignored))
{
	struct shmb_caller_stats stats;
	int32_t r;

	if (handle_check(CAST(handle, self)) < 0)
		return NULL;
	r = shmb_caller_stats(CAST(handle, self)->ptr, &stats, sizeof(stats));
	if (r < 0)
		return fail(r);
	return core_numbers(caller_stats_type,
			    (uint64_t[]){ stats.caller_id, stats.calls, stats.replies, stats.late,
					  stats.timeouts, stats.resets, stats.n_open,
					  stats.n_servers },
			    8);
}

static PyObject *caller_code(PyObject *self, void *Py_UNUSED(ignored))
{
	if (handle_check(CAST(handle, self)) < 0)
		return NULL;
	return PyLong_FromLong(CAST(end, self)->view->code);
}

static PyMethodDef caller_methods[] = {
	{ "_start", caller_start, METH_VARARGS, NULL },
	{ "_recv", caller_recv, METH_VARARGS, NULL },
	{ "_cancel", caller_cancel, METH_VARARGS, NULL },
	{ "fileno", caller_fileno, METH_NOARGS,
	  "fileno()\n--\n\n"
	  "An fd for event loops: readable when something may have come since arm() returned\n"
	  "False. Never read from it or close it." },
	{ "arm", caller_arm, METH_NOARGS,
	  "arm()\n--\n\nPrepare to sleep on fileno(). True: there is something, receive first." },
	{ "stats", caller_stats, METH_NOARGS, "stats()\n--\n\nCounters since it was opened." },
	{ "close", handle_py_close, METH_NOARGS,
	  "close()\n--\n\nStop calling; open calls are cancelled." },
	{ "__enter__", handle_py_enter, METH_NOARGS, NULL },
	{ "__exit__", handle_py_exit, METH_VARARGS, NULL },
	{ NULL, NULL, 0, NULL },
};

static PyGetSetDef caller_getset[] = {
	{ "closed", handle_py_closed, NULL, "Has it been closed?", NULL },
	{ "_code", caller_code, NULL, NULL, NULL },
	{ NULL, NULL, NULL, NULL, NULL },
};

static PyType_Slot caller_slots[] = {
	{ Py_tp_new, caller_new },
	{ Py_tp_dealloc, handle_dealloc },
	{ Py_tp_methods, caller_methods },
	{ Py_tp_getset, caller_getset },
	{ Py_tp_doc, "Sends requests to the servers of a channel. For one thread at a time." },
	{ 0, NULL },
};

static PyType_Spec caller_spec = {
	.name = "shmbroker._core.Caller",
	.basicsize = sizeof(struct end),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
	.slots = caller_slots,
};

/* ---- server ---------------------------------------------------------------------------------- */

/* A tuple: request, call, type, pid, uid, id of the caller, deadline in ns, 0 for none. */
static PyObject *server_recv(PyObject *self, PyObject *args)
{
	struct end *end = CAST(end, self);
	struct room room = { 0 };
	PyObject *timeout, *bytes;
	int64_t timeout_ns;
	int32_t r;

	if (!PyArg_ParseTuple(args, "O:_recv", &timeout) ||
	    core_timeout(timeout, &timeout_ns) < 0 || handle_check(&end->handle) < 0)
		return NULL;
	bytes = receive(end, recv_request, &room, timeout_ns, &r);
	if (!bytes)
		return fail(r);
	return Py_BuildValue("NiIIIKK", bytes, end->view->call, end->view->type, end->view->pid,
			     end->view->uid, (unsigned long long)end->view->peer_id,
			     (unsigned long long)end->view->deadline_ns);
}

/**
 * struct answer - what is sent
 * @call: whose
 * @type: of a reply
 * @flags: of a reply
 * @code: of a failure
 * @kind: 'r' reply, 'e' end, 'f' failure
 * @data: payload or sentence, @len bytes
 * @len:  of @data
 */
struct answer {
	int32_t call;
	uint32_t type;
	uint32_t flags;
	int32_t code;
	char kind;
	const char *data;
	uint32_t len;
};

static int32_t send_answer(void *ptr, void *arg, int64_t timeout_ns)
{
	const struct answer *answer = arg;

	if (answer->kind == 'e')
		return shmb_server_end(ptr, answer->call, timeout_ns);
	if (answer->kind == 'f')
		return shmb_server_fail(ptr, answer->call, answer->code, answer->data, answer->len,
					timeout_ns);
	return shmb_server_reply(ptr, answer->call, answer->type, answer->data, answer->len,
				 answer->flags, timeout_ns);
}

static PyObject *answer_all(PyObject *self, struct answer *answer, PyObject *timeout)
{
	int64_t timeout_ns;
	int32_t r;

	if (core_timeout(timeout, &timeout_ns) < 0 || handle_check(CAST(handle, self)) < 0)
		return NULL;
	/* There is room most of the time. */
	r = send_answer(CAST(handle, self)->ptr, answer, 0);
	if (r == -ETIMEDOUT && timeout_ns)
		r = handle_wait(CAST(handle, self), send_answer, answer, core_deadline(timeout_ns));
	if (r < 0)
		return fail(r);
	Py_RETURN_NONE;
}

static PyObject *server_reply(PyObject *self, PyObject *args)
{
	struct answer answer = { .kind = 'r' };
	PyObject *data, *timeout, *result;
	Py_buffer buffer;

	if (!PyArg_ParseTuple(args, "iIOIO:_reply", &answer.call, &answer.type, &data,
			      &answer.flags, &timeout) ||
	    PyObject_GetBuffer(data, &buffer, PyBUF_SIMPLE) < 0)
		return NULL;
	answer.data = buffer.buf;
	answer.len = buffer.len > UINT32_MAX ? UINT32_MAX : (uint32_t)buffer.len;
	result = answer_all(self, &answer, timeout);
	PyBuffer_Release(&buffer);
	return result;
}

static PyObject *server_end(PyObject *self, PyObject *args)
{
	struct answer answer = { .kind = 'e' };
	PyObject *timeout;

	if (!PyArg_ParseTuple(args, "iO:_end", &answer.call, &timeout))
		return NULL;
	return answer_all(self, &answer, timeout);
}

static PyObject *server_fail(PyObject *self, PyObject *args)
{
	struct answer answer = { .kind = 'f' };
	PyObject *timeout;
	Py_ssize_t len;

	if (!PyArg_ParseTuple(args, "iiy#O:_fail", &answer.call, &answer.code, &answer.data, &len,
			      &timeout))
		return NULL;
	answer.len = len > UINT32_MAX ? UINT32_MAX : (uint32_t)len;
	return answer_all(self, &answer, timeout);
}

static PyObject *server_cancelled(PyObject *self, PyObject *args)
{
	int call;
	int32_t r;

	if (!PyArg_ParseTuple(args, "i:_cancelled", &call) || handle_check(CAST(handle, self)) < 0)
		return NULL;
	r = shmb_server_cancelled(CAST(handle, self)->ptr, call);
	return r < 0 ? fail(r) : PyBool_FromLong(r);
}

static PyObject *server_fileno(PyObject *self, PyObject *Py_UNUSED(ignored))
{
	int32_t r;

	if (handle_check(CAST(handle, self)) < 0)
		return NULL;
	r = shmb_server_fd(CAST(handle, self)->ptr);
	return r < 0 ? fail(r) : PyLong_FromLong(r);
}

static PyObject *server_arm(PyObject *self, PyObject *Py_UNUSED(ignored))
{
	int32_t r;

	if (handle_check(CAST(handle, self)) < 0)
		return NULL;
	r = shmb_server_arm(CAST(handle, self)->ptr);
	return r < 0 ? fail(r) : PyBool_FromLong(r);
}

static PyObject *server_stats(PyObject *self, PyObject *Py_UNUSED(ignored))
{
	struct shmb_server_stats stats;
	int32_t r;

	if (handle_check(CAST(handle, self)) < 0)
		return NULL;
	r = shmb_server_stats(CAST(handle, self)->ptr, &stats, sizeof(stats));
	if (r < 0)
		return fail(r);
	return core_numbers(server_stats_type,
			    (uint64_t[]){ stats.server_id, stats.requests, stats.replies,
					  stats.expired, stats.cancelled, stats.n_open,
					  stats.n_callers },
			    7);
}

static PyMethodDef server_methods[] = {
	{ "_recv", server_recv, METH_VARARGS, NULL },
	{ "_reply", server_reply, METH_VARARGS, NULL },
	{ "_end", server_end, METH_VARARGS, NULL },
	{ "_fail", server_fail, METH_VARARGS, NULL },
	{ "_cancelled", server_cancelled, METH_VARARGS, NULL },
	{ "fileno", server_fileno, METH_NOARGS,
	  "fileno()\n--\n\n"
	  "An fd for event loops: readable when something may have come since arm() returned\n"
	  "False. Never read from it or close it." },
	{ "arm", server_arm, METH_NOARGS,
	  "arm()\n--\n\nPrepare to sleep on fileno(). True: there is something, receive first." },
	{ "stats", server_stats, METH_NOARGS, "stats()\n--\n\nCounters since it was opened." },
	{ "close", handle_py_close, METH_NOARGS,
	  "close()\n--\n\nStop serving; open calls end, and their callers are told." },
	{ "__enter__", handle_py_enter, METH_NOARGS, NULL },
	{ "__exit__", handle_py_exit, METH_VARARGS, NULL },
	{ NULL, NULL, 0, NULL },
};

static PyGetSetDef server_getset[] = {
	{ "closed", handle_py_closed, NULL, "Has it been closed?", NULL },
	{ NULL, NULL, NULL, NULL, NULL },
};

static PyType_Slot server_slots[] = {
	{ Py_tp_new, server_new },
	{ Py_tp_dealloc, handle_dealloc },
	{ Py_tp_methods, server_methods },
	{ Py_tp_getset, server_getset },
	{ Py_tp_doc, "Answers the requests of callers. For one thread at a time." },
	{ 0, NULL },
};

static PyType_Spec server_spec = {
	.name = "shmbroker._core.Server",
	.basicsize = sizeof(struct end),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
	.slots = server_slots,
};

static PyStructSequence_Field caller_stats_fields[] = {
	{ "caller_id", "unique in this broker's life and after" },
	{ "calls", "requests sent" },
	{ "replies", "received" },
	{ "late", "replies to calls that had ended" },
	{ "timeouts", "calls that ended because their time was up" },
	{ "resets", "calls that ended because their server had gone" },
	{ "n_open", "calls open now" },
	{ "n_servers", "servers now" },
	{ NULL, NULL },
};

static PyStructSequence_Desc caller_stats_desc = {
	.name = "shmbroker.CallerStats",
	.doc = "Counters of a caller since it was opened.",
	.fields = caller_stats_fields,
	.n_in_sequence = 8,
};

static PyStructSequence_Field server_stats_fields[] = {
	{ "server_id", "unique in this broker's life and after" },
	{ "requests", "handed out" },
	{ "replies", "sent" },
	{ "expired", "requests not handed out because their deadline had passed" },
	{ "cancelled",
	  "calls that were cancelled, or whose caller went, before they were answered" },
	{ "n_open", "calls open now" },
	{ "n_callers", "callers now" },
	{ NULL, NULL },
};

static PyStructSequence_Desc server_stats_desc = {
	.name = "shmbroker.ServerStats",
	.doc = "Counters of a server since it was opened.",
	.fields = server_stats_fields,
	.n_in_sequence = 7,
};

int call_init_module(PyObject *module)
{
	caller_stats_type = PyStructSequence_NewType(&caller_stats_desc);
	server_stats_type = PyStructSequence_NewType(&server_stats_desc);
	if (!core_add_type(module, &caller_spec, NULL) ||
	    !core_add_type(module, &server_spec, NULL) || !caller_stats_type || !server_stats_type)
		return -1;
	Py_INCREF((PyObject *)caller_stats_type);
	Py_INCREF((PyObject *)server_stats_type);
	if (PyModule_AddObject(module, "CallerStats", (PyObject *)caller_stats_type) < 0)
		return -1;
	return PyModule_AddObject(module, "ServerStats", (PyObject *)server_stats_type);
}
