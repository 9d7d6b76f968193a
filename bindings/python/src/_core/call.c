/* SPDX-License-Identifier: Apache-2.0 */
#include "core.h"

/* Callers and servers of call channels: calls are numbers here, objects are for Python. */

PyTypeObject *caller_type;
PyTypeObject *server_type;
static PyTypeObject *caller_stats_type;
static PyTypeObject *server_stats_type;

/**
 * struct form - what goes one way
 * @record: Record class; NULL: bytes
 * @layout: its layout
 */
struct form {
	PyTypeObject *record;
	struct layout *layout;
};

/**
 * struct end - a caller or a server
 * @handle:  head
 * @side:    which of them
 * @view:    of the library
 * @sent:    requests, or a server's replies
 * @received: the others
 * @scratch: what is no longer takes no detour to learn how long it is
 */
struct end {
	struct handle handle;
	const struct side_of_call *side;
	struct shmb_call_view *view;
	struct form sent;
	struct form received;
	char scratch[SCRATCH_LEN];
};

/**
 * struct side_of_call - what caller and server do in their own ways
 * @noun:  for sentences
 * @open:  opens one
 * @close: closes it
 * @view:  its view block
 * @fd:    for event loops
 * @arm:   prepares to sleep on it
 * @lessor: what becomes of loans and holds
 */
struct side_of_call {
	const char *noun;
	int32_t (*open)(struct shmb_channel *channel, uint32_t flags, uint32_t spin_ns, void **ret);
	int32_t (*close)(void *ptr);
	struct shmb_call_view *(*view)(void *ptr);
	int32_t (*fd)(void *ptr);
	int32_t (*arm)(void *ptr);
	struct lessor lessor;
};

static int32_t open_caller(struct shmb_channel *channel, uint32_t flags, uint32_t spin_ns,
			   void **ret)
{
	struct shmb_caller_options options = { .options_len = sizeof(options),
					       .flags = flags,
					       .spin_ns = spin_ns };

	return shmb_caller_open(channel, &options, (struct shmb_caller **)ret);
}

static int32_t open_server(struct shmb_channel *channel, uint32_t flags, uint32_t spin_ns,
			   void **ret)
{
	struct shmb_server_options options = { .options_len = sizeof(options),
					       .flags = flags,
					       .spin_ns = spin_ns };

	return shmb_server_open(channel, &options, (struct shmb_server **)ret);
}

/* The library's functions take their own types. */
#define SIDE(side)                                                                    \
	static int32_t close_##side(void *ptr)                                        \
	{                                                                             \
		return shmb_##side##_close(ptr);                                      \
	}                                                                             \
	static struct shmb_call_view *view_##side(void *ptr)                          \
	{                                                                             \
		return shmb_##side##_view(ptr);                                       \
	}                                                                             \
	static int32_t fd_##side(void *ptr)                                           \
	{                                                                             \
		return shmb_##side##_fd(ptr);                                         \
	}                                                                             \
	static int32_t arm_##side(void *ptr)                                          \
	{                                                                             \
		return shmb_##side##_arm(ptr);                                        \
	}                                                                             \
	static int32_t cancel_loan_##side(void *ptr)                                  \
	{                                                                             \
		return shmb_##side##_cancel_loan(ptr);                                \
	}                                                                             \
	static int32_t unhold_##side(void *ptr, uint32_t hold)                        \
	{                                                                             \
		return shmb_##side##_unhold(ptr, hold);                               \
	}                                                                             \
	static const struct side_of_call side##_side = {                              \
		#side,                                                                \
		open_##side,                                                          \
		close_##side,                                                         \
		view_##side,                                                          \
		fd_##side,                                                            \
		arm_##side,                                                           \
		{ .cancel = cancel_loan_##side,                                       \
		  .unhold = unhold_##side,                                            \
		  .errors = SIDE_OTHER },                                               \
	}

SIDE(caller);
SIDE(server);

static PyObject *fail(int32_t r)
{
	return core_fail(r, SIDE_OTHER);
}

/* ---- what both do alike ------------------------------------------------------------------------ */

static int32_t end_close(struct handle *handle)
{
	waitset_leave(handle);
	return CAST(end, handle)->side->close(handle->ptr);
}

static int take_form(PyObject *record, struct form *form)
{
	return core_record_class(record, &form->record, &form->layout);
}

static PyObject *end_new(PyTypeObject *type, PyObject *args, const struct side_of_call *side)
{
	PyObject *channel_object, *sent, *received, *self;
	uint32_t flags, spin_ns;
	struct handle *channel;
	PyThreadState *thread;
	struct end *end;
	void *ptr = NULL;
	int32_t r;

	if (!PyArg_ParseTuple(args, "O!OOII", channel_type, &channel_object, &sent, &received,
			      &flags, &spin_ns) ||
	    handle_check(CAST(handle, channel_object)) < 0)
		return NULL;
	channel = CAST(handle, channel_object);
	self = PyType_GenericAlloc(type, 0);
	if (!self)
		return NULL;
	end = CAST(end, self);
	end->side = side;
	if (take_form(sent, &end->sent) < 0 || take_form(received, &end->received) < 0) {
		Py_DECREF(self);
		return NULL;
	}
	channel->busy++;
	thread = PyEval_SaveThread();
	r = side->open(channel->ptr, flags, spin_ns, &ptr);
	PyEval_RestoreThread(thread);
	channel->busy--;
	if (r < 0) {
		fail(r);
		Py_DECREF(self);
		return NULL;
	}
	end->view = side->view(ptr);
	handle_opened(&end->handle, ptr, side->noun, end_close, channel);
	return self;
}

static void end_dealloc(PyObject *self)
{
	struct end *end = CAST(end, self);

	Py_CLEAR(end->sent.record);
	Py_CLEAR(end->sent.layout);
	Py_CLEAR(end->received.record);
	Py_CLEAR(end->received.layout);
	handle_dealloc(self);
}

static PyObject *end_fileno(PyObject *self, PyObject *Py_UNUSED(ignored))
{
	int32_t r;

	if (handle_check(CAST(handle, self)) < 0)
		return NULL;
	r = CAST(end, self)->side->fd(CAST(handle, self)->ptr);
	return r < 0 ? fail(r) : PyLong_FromLong(r);
}

static PyObject *end_arm(PyObject *self, PyObject *Py_UNUSED(ignored))
{
	int32_t r;

	if (handle_check(CAST(handle, self)) < 0)
		return NULL;
	r = CAST(end, self)->side->arm(CAST(handle, self)->ptr);
	return r < 0 ? fail(r) : PyBool_FromLong(r);
}

#define END_METHODS                                                                             \
	{ "fileno", end_fileno, METH_NOARGS,                                                    \
	  "fileno()\n--\n\n"                                                                    \
	  "An fd for event loops: readable when something may have come since arm() returned\n" \
	  "False. Never read from it or close it." },                                           \
		{ "arm", end_arm, METH_NOARGS,                                                  \
		  "arm()\n--\n\n"                                                               \
		  "Prepare to sleep on fileno(). True: there is something, receive first." },   \
		{ "__enter__", handle_py_enter, METH_NOARGS, NULL },                            \
	{                                                                                       \
		"__exit__", handle_py_exit, METH_VARARGS, NULL                                  \
	}

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

static int32_t hold_reply(void *ptr, void *arg, int64_t timeout_ns)
{
	return shmb_caller_recv_hold(ptr, ((const struct room *)arg)->call, timeout_ns);
}

static int32_t hold_request(void *ptr, void *arg, int64_t timeout_ns)
{
	(void)arg;
	return shmb_server_recv_hold(ptr, timeout_ns);
}

static PyObject *receive_bytes(struct end *end, wait_fn recv, struct room *room,
			       int64_t deadline_ns, int32_t *ret_result)
{
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

static PyObject *receive_record(struct end *end, wait_fn recv, struct room *room,
				int64_t deadline_ns, int32_t *ret_result)
{
	const struct form *form = &end->received;
	struct record *record = record_new(form->record, form->layout);

	*ret_result = RAISED;
	if (!record)
		return NULL;
	room->data = record->data;
	room->cap = form->layout->record_len;
	*ret_result = handle_wait(&end->handle, recv, room, deadline_ns);
	/* The library sees to it that it has this length. */
	if (*ret_result >= 0 && (uint32_t)*ret_result != room->cap)
		*ret_result = -EBADMSG;
	if (*ret_result >= 0)
		return (PyObject *)record;
	Py_DECREF((PyObject *)record);
	return NULL;
}

/* Returns what came, or NULL with *ret_result; the exception is not set yet, unless it is RAISED. */
static PyObject *receive(struct end *end, wait_fn recv, struct room *room, int64_t timeout_ns,
			 int32_t *ret_result)
{
	return (end->received.layout ? receive_record : receive_bytes)(
		end, recv, room, core_deadline(timeout_ns), ret_result);
}

/* What the view says is on loan or held, as an object. NULL: raised, and it is given back. */
static PyObject *lease(struct end *end, PyTypeObject *type, uint32_t hold)
{
	const struct form *form = type == loan_type ? &end->sent : &end->received;
	struct shmb_view view = { .data = end->view->data,
				  .len = end->view->len,
				  .count = 1,
				  .type = end->view->type,
				  .publisher_id = end->view->peer_id };
	PyObject *object = lease_new(type, &end->handle, &end->side->lessor, &view, form->record,
				     form->layout);

	if (object)
		CAST(lease, object)->hold = hold;
	else if (type == loan_type)
		end->side->lessor.cancel(end->handle.ptr);
	else
		end->side->lessor.unhold(end->handle.ptr, hold);
	return object;
}

/* As receive(). */
static PyObject *receive_hold(struct end *end, wait_fn recv, struct room *room, int64_t timeout_ns,
			      int32_t *ret_result)
{
	PyObject *hold;

	*ret_result = handle_wait(&end->handle, recv, room, core_deadline(timeout_ns));
	if (*ret_result < 0)
		return NULL;
	hold = lease(end, hold_type, (uint32_t)*ret_result);
	if (!hold)
		*ret_result = RAISED;
	return hold;
}

/* How many bytes to lend: of a typed channel as many as there must be. Returns 0 or -1 raised. */
static int loan_len(const struct end *end, PyObject *object, uint32_t *ret_len)
{
	unsigned long len;

	if (end->sent.layout && object == Py_None) {
		*ret_len = end->sent.layout->record_len;
		return 0;
	}
	if (object == Py_None) {
		PyErr_SetString(PyExc_TypeError, "loan() of bytes needs a len");
		return -1;
	}
	len = PyLong_AsUnsignedLong(object);
	if (len == (unsigned long)-1 && PyErr_Occurred())
		return -1;
	*ret_len = len > UINT32_MAX ? UINT32_MAX : (uint32_t)len;
	return 0;
}

/* What is sent, as its channel wants it. Returns 0 or -1 raised. */
static int payload_of(const struct end *end, PyObject *object, Py_buffer *buffer, uint32_t *ret_len)
{
	if (payload_get(end->sent.record, end->sent.layout, object, buffer) < 0)
		return -1;
	*ret_len = buffer->len > UINT32_MAX ? UINT32_MAX : (uint32_t)buffer->len;
	return 0;
}

/* ---- caller ---------------------------------------------------------------------------------- */

static int32_t wait_server(void *ptr, void *arg, int64_t timeout_ns)
{
	return shmb_caller_wait(ptr, *(const uint32_t *)arg, timeout_ns);
}

/* Of what there was to wait for so long. */
static int64_t left_of(int64_t timeout_ns, int64_t deadline_ns)
{
	int64_t left_ns;

	if (timeout_ns == SHMB_FOREVER)
		return SHMB_FOREVER;
	left_ns = deadline_ns - core_deadline(0);
	return left_ns < 0 ? 0 : left_ns;
}

/* Sends what was lent. */
static PyObject *start_loan(struct handle *handle, struct lease *loan, unsigned int type,
			    int64_t timeout_ns)
{
	int32_t r;

	if (lease_settle(loan) < 0)
		return NULL;
	r = shmb_caller_start_loan(handle->ptr, type, loan->len, timeout_ns);
	if (r >= 0 || r == -ECONNRESET)
		lease_void(loan);
	return r < 0 ? fail(r) : PyLong_FromLong(r);
}

static PyObject *caller_start(PyObject *self, PyObject *args)
{
	struct handle *handle = CAST(handle, self);
	int64_t timeout_ns, deadline_ns;
	PyObject *request, *timeout;
	PyThreadState *thread;
	struct lease *loan;
	unsigned int type;
	Py_buffer buffer;
	uint32_t len;
	int32_t r;

	if (!PyArg_ParseTuple(args, "IOO:_start", &type, &request, &timeout) ||
	    core_timeout(timeout, &timeout_ns) < 0 || handle_check(handle) < 0)
		return NULL;
	loan = lease_lent(handle, request);
	if (loan)
		return start_loan(handle, loan, type, timeout_ns);
	if (payload_of(CAST(end, self), request, &buffer, &len) < 0)
		return NULL;
	deadline_ns = core_deadline(timeout_ns);
	r = handle_wait(handle, wait_server, &len, deadline_ns);
	if (r >= 0) {
		handle->busy++;
		thread = PyEval_SaveThread();
		r = shmb_caller_start(handle->ptr, type, buffer.buf, len,
				      left_of(timeout_ns, deadline_ns));
		PyEval_RestoreThread(thread);
		handle->busy--;
	}
	payload_put(&buffer);
	return r < 0 ? fail(r) : PyLong_FromLong(r);
}

static int32_t lend_request(void *ptr, void *arg, int64_t timeout_ns)
{
	return shmb_caller_loan(ptr, *(const uint32_t *)arg, timeout_ns);
}

static PyObject *caller_loan(PyObject *self, PyObject *args)
{
	PyObject *len_object, *timeout;
	int64_t timeout_ns;
	uint32_t len;
	int32_t r;

	if (!PyArg_ParseTuple(args, "OO:_loan", &len_object, &timeout) ||
	    core_timeout(timeout, &timeout_ns) < 0 || handle_check(CAST(handle, self)) < 0 ||
	    loan_len(CAST(end, self), len_object, &len) < 0)
		return NULL;
	r = handle_wait(CAST(handle, self), lend_request, &len, core_deadline(timeout_ns));
	return r < 0 ? fail(r) : lease(CAST(end, self), loan_type, 0);
}

/* A tuple: what has come, or None at the end; call; type; are there more? */
static PyObject *caller_take(PyObject *self, PyObject *args, bool hold)
{
	struct end *end = CAST(end, self);
	struct room room = { 0 };
	PyObject *timeout, *came;
	int64_t timeout_ns;
	int32_t r;

	if (!PyArg_ParseTuple(args, "iO", &room.call, &timeout) ||
	    core_timeout(timeout, &timeout_ns) < 0 || handle_check(&end->handle) < 0)
		return NULL;
	came = hold ? receive_hold(end, hold_reply, &room, timeout_ns, &r)
		    : receive(end, recv_reply, &room, timeout_ns, &r);
	if (came)
		return Py_BuildValue("NiIO", came, end->view->call, end->view->type,
				     end->view->more ? Py_True : Py_False);
	if (r == -ENODATA)
		return Py_BuildValue("OiIO", Py_None, end->view->call, 0u, Py_False);
	return fail(r);
}

static PyObject *caller_recv(PyObject *self, PyObject *args)
{
	return caller_take(self, args, false);
}

static PyObject *caller_recv_hold(PyObject *self, PyObject *args)
{
	return caller_take(self, args, true);
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

static PyObject *caller_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
	return end_new(type, args, &caller_side);
}

static PyMethodDef caller_methods[] = {
	{ "_start", caller_start, METH_VARARGS, NULL },
	{ "_recv", caller_recv, METH_VARARGS, NULL },
	{ "_recv_hold", caller_recv_hold, METH_VARARGS, NULL },
	{ "_loan", caller_loan, METH_VARARGS, NULL },
	{ "_cancel", caller_cancel, METH_VARARGS, NULL },
	{ "stats", caller_stats, METH_NOARGS, "stats()\n--\n\nCounters since it was opened." },
	{ "close", handle_py_close, METH_NOARGS,
	  "close()\n--\n\nStop calling; open calls are cancelled." },
	END_METHODS,
	{ NULL, NULL, 0, NULL },
};

static PyGetSetDef caller_getset[] = {
	{ "closed", handle_py_closed, NULL, "Has it been closed?", NULL },
	{ "_code", caller_code, NULL, NULL, NULL },
	{ NULL, NULL, NULL, NULL, NULL },
};

static PyType_Slot caller_slots[] = {
	{ Py_tp_new, caller_new },
	{ Py_tp_dealloc, end_dealloc },
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
static PyObject *server_take(PyObject *self, PyObject *args, bool hold)
{
	struct end *end = CAST(end, self);
	struct room room = { 0 };
	PyObject *timeout, *came;
	int64_t timeout_ns;
	int32_t r;

	if (!PyArg_ParseTuple(args, "O", &timeout) || core_timeout(timeout, &timeout_ns) < 0 ||
	    handle_check(&end->handle) < 0)
		return NULL;
	came = hold ? receive_hold(end, hold_request, &room, timeout_ns, &r)
		    : receive(end, recv_request, &room, timeout_ns, &r);
	if (!came)
		return fail(r);
	return Py_BuildValue("NiIIIKK", came, end->view->call, end->view->type, end->view->pid,
			     end->view->uid, (unsigned long long)end->view->peer_id,
			     (unsigned long long)end->view->deadline_ns);
}

static PyObject *server_recv(PyObject *self, PyObject *args)
{
	return server_take(self, args, false);
}

static PyObject *server_recv_hold(PyObject *self, PyObject *args)
{
	return server_take(self, args, true);
}

/**
 * struct answer - what is sent
 * @call: whose
 * @type: of a reply
 * @flags: of a reply
 * @code: of a failure
 * @kind: 'r' reply, 'e' end, 'f' failure, 'l' only memory for a reply
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
	if (answer->kind == 'l')
		return shmb_server_loan(ptr, answer->call, answer->len, timeout_ns);
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

/* Sends what was lent. */
static PyObject *reply_loan(PyObject *self, struct lease *loan, const struct answer *answer)
{
	struct handle *handle = CAST(handle, self);
	int32_t r;

	if (lease_settle(loan) < 0)
		return NULL;
	if (loan->hold != (uint32_t)answer->call) {
		PyErr_SetString(PyExc_ValueError, "the loan is of the reply to another request");
		return NULL;
	}
	r = shmb_server_reply_loan(handle->ptr, answer->type, loan->len, answer->flags);
	if (r >= 0 || r == -ECONNRESET || r == -ECANCELED || r == -ENOENT)
		lease_void(loan);
	if (r < 0)
		return fail(r);
	Py_RETURN_NONE;
}

static PyObject *server_reply(PyObject *self, PyObject *args)
{
	struct answer answer = { .kind = 'r' };
	PyObject *data, *timeout, *result;
	struct lease *loan;
	Py_buffer buffer;

	if (!PyArg_ParseTuple(args, "iIOIO:_reply", &answer.call, &answer.type, &data,
			      &answer.flags, &timeout) ||
	    handle_check(CAST(handle, self)) < 0)
		return NULL;
	loan = lease_lent(CAST(handle, self), data);
	if (loan)
		return reply_loan(self, loan, &answer);
	if (payload_of(CAST(end, self), data, &buffer, &answer.len) < 0)
		return NULL;
	answer.data = buffer.buf;
	result = answer_all(self, &answer, timeout);
	payload_put(&buffer);
	return result;
}

static PyObject *server_loan(PyObject *self, PyObject *args)
{
	struct answer answer = { .kind = 'l' };
	PyObject *len, *timeout, *result;

	if (!PyArg_ParseTuple(args, "iOO:_loan", &answer.call, &len, &timeout) ||
	    loan_len(CAST(end, self), len, &answer.len) < 0)
		return NULL;
	result = answer_all(self, &answer, timeout);
	if (!result)
		return NULL;
	Py_DECREF(result);
	/* Whose reply it is. */
	return lease(CAST(end, self), loan_type, (uint32_t)answer.call);
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
					  stats.n_callers, stats.n_held },
			    8);
}

static PyObject *server_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
	return end_new(type, args, &server_side);
}

static PyMethodDef server_methods[] = {
	{ "_recv", server_recv, METH_VARARGS, NULL },
	{ "_recv_hold", server_recv_hold, METH_VARARGS, NULL },
	{ "_loan", server_loan, METH_VARARGS, NULL },
	{ "_reply", server_reply, METH_VARARGS, NULL },
	{ "_end", server_end, METH_VARARGS, NULL },
	{ "_fail", server_fail, METH_VARARGS, NULL },
	{ "_cancelled", server_cancelled, METH_VARARGS, NULL },
	{ "stats", server_stats, METH_NOARGS, "stats()\n--\n\nCounters since it was opened." },
	{ "close", handle_py_close, METH_NOARGS,
	  "close()\n--\n\nStop serving; open calls end, and their callers are told." },
	END_METHODS,
	{ NULL, NULL, 0, NULL },
};

static PyGetSetDef server_getset[] = {
	{ "closed", handle_py_closed, NULL, "Has it been closed?", NULL },
	{ NULL, NULL, NULL, NULL, NULL },
};

static PyType_Slot server_slots[] = {
	{ Py_tp_new, server_new },
	{ Py_tp_dealloc, end_dealloc },
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
	{ "n_held",
	  "of them, those whose requests wait: they have as many calls open as they may" },
	{ NULL, NULL },
};

static PyStructSequence_Desc server_stats_desc = {
	.name = "shmbroker.ServerStats",
	.doc = "Counters of a server since it was opened.",
	.fields = server_stats_fields,
	.n_in_sequence = 8,
};

int call_init_module(PyObject *module)
{
	caller_stats_type = PyStructSequence_NewType(&caller_stats_desc);
	server_stats_type = PyStructSequence_NewType(&server_stats_desc);
	caller_type = core_add_type(module, &caller_spec, NULL);
	server_type = core_add_type(module, &server_spec, NULL);
	if (!caller_type || !server_type || !caller_stats_type || !server_stats_type)
		return -1;
	Py_INCREF((PyObject *)caller_stats_type);
	Py_INCREF((PyObject *)server_stats_type);
	if (PyModule_AddObject(module, "CallerStats", (PyObject *)caller_stats_type) < 0)
		return -1;
	return PyModule_AddObject(module, "ServerStats", (PyObject *)server_stats_type);
}
