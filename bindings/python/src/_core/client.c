/* SPDX-License-Identifier: Apache-2.0 */
#include "core.h"

PyTypeObject *client_type;
PyTypeObject *channel_type;
static PyTypeObject *broker_type;
static PyTypeObject *info_type;

/* ---- client --------------------------------------------------------------------------------------------- */

static int32_t client_close(struct handle *handle)
{
	return shmb_client_close(handle->ptr);
}

static PyObject *client_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
	static char *names[] = { "address", "label",	       "key_file", "broker_key_file",
				 "start",   "connect_timeout", NULL };
	struct shmb_client_options options = { .options_len = sizeof(options) };
	const char *address = NULL, *label = NULL;
	Py_ssize_t address_len = 0, label_len = 0;
	PyObject *timeout = Py_None, *self;
	struct shmb_client *client = NULL;
	int start = 1;
	PyThreadState *thread;
	int32_t r;

	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|z#z#zzpO:Client", names, &address,
					 &address_len, &label, &label_len, &options.key_file,
					 &options.broker_key_file, &start, &timeout))
		return NULL;
	if (timeout != Py_None && core_timeout(timeout, &options.connect_timeout_ns) < 0)
		return NULL;
	options.flags = start ? 0 : SHMB_CLIENT_NO_START;
	options.address = address;
	options.address_len = (uint32_t)address_len;
	options.label = label;
	options.label_len = (uint32_t)label_len;
	self = PyType_GenericAlloc(type, 0);
	if (!self)
		return NULL;
	thread = PyEval_SaveThread();
	r = shmb_client_open(&options, &client);
	PyEval_RestoreThread(thread);
	if (r < 0) {
		core_fail(r, SIDE_CONNECT);
		Py_DECREF(self);
		return NULL;
	}
	handle_opened(CAST(handle, self), client, "client", client_close, NULL);
	return self;
}

static int32_t wait_ping(void *ptr, void *Py_UNUSED(arg), int64_t timeout_ns)
{
	return shmb_client_ping(ptr, timeout_ns);
}

static PyObject *client_ping(PyObject *self, PyObject *args)
{
	PyObject *timeout = NULL;
	int64_t timeout_ns = 5000000000ll;
	struct handle *handle = CAST(handle, self);
	int32_t r;

	if (!PyArg_ParseTuple(args, "|O:ping", &timeout) ||
	    (timeout && core_timeout(timeout, &timeout_ns) < 0) || handle_check(handle) < 0)
		return NULL;
	r = handle_wait(handle, wait_ping, NULL, core_deadline(timeout_ns));
	if (r < 0)
		return core_fail(r, SIDE_OTHER);
	Py_RETURN_NONE;
}

static PyObject *client_remove(PyObject *self, PyObject *args)
{
	struct handle *handle = CAST(handle, self);
	PyThreadState *thread;
	const char *name;
	Py_ssize_t name_len;
	int32_t r;

	if (!PyArg_ParseTuple(args, "s#:remove", &name, &name_len) || handle_check(handle) < 0)
		return NULL;
	handle->busy++;
	thread = PyEval_SaveThread();
	r = shmb_channel_remove(handle->ptr, name, (uint32_t)name_len);
	PyEval_RestoreThread(thread);
	handle->busy--;
	if (r < 0)
		return core_fail(r, SIDE_OTHER);
	Py_RETURN_NONE;
}

static PyObject *client_connected(PyObject *self, void *Py_UNUSED(ignored))
{
	int32_t r;

	if (handle_check(CAST(handle, self)) < 0)
		return NULL;
	r = shmb_client_connected(CAST(handle, self)->ptr);
	return r < 0 ? core_fail(r, SIDE_OTHER) : PyBool_FromLong(r);
}

static PyMethodDef client_methods[] = {
	{ "ping", client_ping, METH_VARARGS,
	  "ping(timeout=5.0)\n--\n\nAsk the broker for a sign of life. Timeout, NotConnected." },
	{ "remove", client_remove, METH_VARARGS,
	  "remove(name)\n--\n\nLet a retained channel go: what publishers that have gone have left\n"
	  "there now, the channel when nobody has it open any more. NotFound, Invalid, NotConnected,\n"
	  "Timeout." },
	{ "close", handle_py_close, METH_NOARGS,
	  "close()\n--\n\nDisconnect; channels, publishers, subscribers and wait sets are closed\n"
	  "first." },
	{ "__enter__", handle_py_enter, METH_NOARGS, NULL },
	{ "__exit__", handle_py_exit, METH_VARARGS, NULL },
	{ NULL, NULL, 0, NULL },
};

static PyGetSetDef client_getset[] = {
	{ "closed", handle_py_closed, NULL, "Has it been closed?", NULL },
	{ "connected", client_connected, NULL,
	  "Is there a broker now? Channels that are open flow without one.", NULL },
	{ NULL, NULL, NULL, NULL, NULL },
};

static PyType_Slot client_slots[] = {
	{ Py_tp_new, client_new },
	{ Py_tp_dealloc, handle_dealloc },
	{ Py_tp_methods, client_methods },
	{ Py_tp_getset, client_getset },
	{ Py_tp_doc, "A connection to a broker." },
	{ 0, NULL },
};

static PyType_Spec client_spec = {
	.name = "shmbroker._core.Client",
	.basicsize = sizeof(struct handle),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
	.slots = client_slots,
};

/* ---- channel -------------------------------------------------------------------------------------------- */

static int32_t channel_close(struct handle *handle)
{
	return shmb_channel_close(handle->ptr);
}

static PyObject *channel_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
	struct shmb_channel_options options = { .options_len = sizeof(options) };
	const char *name, *schema;
	Py_ssize_t name_len, schema_len;
	struct shmb_channel *channel = NULL;
	unsigned long long arena_len;
	struct handle *client;
	PyObject *client_object, *self;
	PyThreadState *thread;
	int32_t r;

	if (!PyArg_ParseTuple(args, "O!s#z#IIIIIIIIIIKIIII|II:Channel", client_type, &client_object,
			      &name, &name_len, &schema, &schema_len, &options.flags,
			      &options.lane_len, &options.max_publishers, &options.max_subscribers,
			      &options.history, &options.backing, &options.pattern,
			      &options.max_keys, &options.value_len, &options.record_len_max,
			      &arena_len, &options.inline_len_max, &options.max_holds,
			      &options.block_flags, &options.numa_node, &options.ttl_ms,
			      &options.max_fds))
		return NULL;
	client = CAST(handle, client_object);
	if (handle_check(client) < 0)
		return NULL;
	options.arena_len = arena_len;
	options.schema = schema;
	options.schema_len = (uint32_t)schema_len;
	self = PyType_GenericAlloc(type, 0);
	if (!self)
		return NULL;
	client->busy++;
	thread = PyEval_SaveThread();
	r = shmb_channel_open(client->ptr, name, (uint32_t)name_len, &options, &channel);
	PyEval_RestoreThread(thread);
	client->busy--;
	if (r < 0) {
		core_fail(r, SIDE_OTHER);
		Py_DECREF(self);
		return NULL;
	}
	handle_opened(CAST(handle, self), channel, "channel", channel_close, client);
	return self;
}

static PyObject *channel_table(PyObject *self, PyObject *Py_UNUSED(ignored))
{
	char table[SHMB_SCHEMA_LEN_MAX];
	int32_t r;

	if (handle_check(CAST(handle, self)) < 0)
		return NULL;
	r = shmb_channel_schema(CAST(handle, self)->ptr, table, sizeof(table));
	if (r < 0)
		return core_fail(r, SIDE_OTHER);
	if ((size_t)r > sizeof(table))
		return core_fail_text(-EBADMSG, SIDE_OTHER, "the channel's schema has %d bytes", r);
	return PyBytes_FromStringAndSize(table, r);
}

static PyObject *channel_info(PyObject *self, PyObject *Py_UNUSED(ignored))
{
	struct shmb_channel_info info;
	int32_t r;

	if (handle_check(CAST(handle, self)) < 0)
		return NULL;
	r = shmb_channel_info(CAST(handle, self)->ptr, &info, sizeof(info));
	if (r < 0)
		return core_fail(r, SIDE_OTHER);
	return core_numbers(
		info_type,
		(uint64_t[]){ info.lane_len,	   info.record_len_max,	 info.record_len,
			      info.max_publishers, info.max_subscribers, info.n_publishers,
			      info.n_subscribers,  info.history,	 info.backing,
			      info.pattern,	   info.max_keys,	 info.value_len_max,
			      info.arena_len,	   info.inline_len_max,	 info.max_holds,
			      info.ttl_ms,	   info.ordered,	 info.retained,
			      info.request_len,	   info.reply_len,	 info.max_fds },
		21);
}

struct members {
	uint32_t publishers;
	uint32_t subscribers;
};

static int32_t wait_members(void *ptr, void *arg, int64_t timeout_ns)
{
	const struct members *members = arg;

	return shmb_channel_wait_members(ptr, members->publishers, members->subscribers,
					 timeout_ns);
}

static PyObject *channel_wait_members(PyObject *self, PyObject *args, PyObject *kwargs)
{
	static char *names[] = { "publishers", "subscribers", "timeout", NULL };
	struct members members = { 0, 0 };
	PyObject *timeout = NULL;
	int64_t timeout_ns;
	int32_t r;

	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|IIO:wait_members", names,
					 &members.publishers, &members.subscribers, &timeout) ||
	    core_timeout(timeout, &timeout_ns) < 0 || handle_check(CAST(handle, self)) < 0)
		return NULL;
	r = handle_wait(CAST(handle, self), wait_members, &members, core_deadline(timeout_ns));
	if (r < 0)
		return core_fail(r, SIDE_OTHER);
	Py_RETURN_NONE;
}

static PyMethodDef channel_methods[] = {
	{ "_table", channel_table, METH_NOARGS, "The channel's schema as bytes; empty: untyped." },
	{ "info", channel_info, METH_NOARGS,
	  "info()\n--\n\nWhat the channel is and who is there." },
	{ "wait_members", (PyCFunction)(void (*)(void))channel_wait_members,
	  METH_VARARGS | METH_KEYWORDS,
	  "wait_members(publishers=0, subscribers=0, timeout=None)\n--\n\nWait until at least so\n"
	  "many are there. Timeout." },
	{ "close", handle_py_close, METH_NOARGS,
	  "close()\n--\n\nClose the channel, its publishers and subscribers first." },
	{ "__enter__", handle_py_enter, METH_NOARGS, NULL },
	{ "__exit__", handle_py_exit, METH_VARARGS, NULL },
	{ NULL, NULL, 0, NULL },
};

static PyGetSetDef channel_getset[] = {
	{ "closed", handle_py_closed, NULL, "Has it been closed?", NULL },
	{ NULL, NULL, NULL, NULL, NULL },
};

static PyType_Slot channel_slots[] = {
	{ Py_tp_new, channel_new },
	{ Py_tp_dealloc, handle_dealloc },
	{ Py_tp_methods, channel_methods },
	{ Py_tp_getset, channel_getset },
	{ Py_tp_doc, "A named, typed meeting place." },
	{ 0, NULL },
};

static PyType_Spec channel_spec = {
	.name = "shmbroker._core.Channel",
	.basicsize = sizeof(struct handle),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
	.slots = channel_slots,
};

static PyStructSequence_Field info_fields[] = {
	{ "lane_len", "bytes of each publisher's ring" },
	{ "record_len_max", "bytes of the largest record" },
	{ "record_len", "bytes of every record, 0 if untyped" },
	{ "max_publishers", "limit" },
	{ "max_subscribers", "limit" },
	{ "n_publishers", "now" },
	{ "n_subscribers", "now" },
	{ "history", "records of each publisher that a late subscriber gets" },
	{ "backing", "what is made for its members from now on: 1 posix, 2 sealed" },
	{ "pattern", "1 stream, 2 queue, 3 call, 4 state" },
	{ "max_keys", "state: limit" },
	{ "value_len_max", "state: bytes of the longest value" },
	{ "arena_len", "bytes that the blocks of each publisher may take; 0: there are none" },
	{ "inline_len_max", "longer records lie in blocks" },
	{ "max_holds", "so many records may each subscriber hold" },
	{ "ttl_ms", "subscribers skip records that were published longer ago; 0: none" },
	{ "ordered", "1: the records of all publishers have one order" },
	{ "retained", "1: it stays until it is removed" },
	{ "request_len", "call: bytes of every request, 0 if untyped" },
	{ "reply_len", "call: bytes of every reply, 0 if untyped" },
	{ "max_fds", "so many file descriptors may a record carry; 0: none" },
	{ NULL, NULL },
};

static PyStructSequence_Desc info_desc = {
	.name = "shmbroker.ChannelInfo",
	.doc = "What a channel is and who is there.",
	.fields = info_fields,
	.n_in_sequence = 21,
};

/* ---- embedded broker -------------------------------------------------------------------------------------- */

static int32_t broker_close(struct handle *handle)
{
	struct shmb_broker *broker = handle->ptr;
	PyThreadState *thread;
	int32_t r;

	thread = PyEval_SaveThread();
	r = shmb_broker_stop(broker);
	PyEval_RestoreThread(thread);
	return r;
}

static PyObject *broker_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
	static char *names[] = { "directory", NULL };
	struct shmb_broker_options options = { .options_len = sizeof(options) };
	struct shmb_broker *broker = NULL;
	PyObject *self, *directory = NULL;
	PyThreadState *thread;
	int32_t r;

	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:Broker", names, &directory))
		return NULL;
	if (directory == Py_None)
		directory = NULL;
	if (directory && !PyUnicode_FSConverter(directory, &directory))
		return NULL;
	if (directory)
		options.directory = PyBytes_AsString(directory);
	self = PyType_GenericAlloc(type, 0);
	if (!self) {
		Py_XDECREF(directory);
		return NULL;
	}
	thread = PyEval_SaveThread();
	r = shmb_broker_start(&options, &broker);
	PyEval_RestoreThread(thread);
	Py_XDECREF(directory);
	if (r < 0) {
		core_fail(r, SIDE_OTHER);
		Py_DECREF(self);
		return NULL;
	}
	handle_opened(CAST(handle, self), broker, "broker", broker_close, NULL);
	return self;
}

static PyObject *broker_address(PyObject *self, void *Py_UNUSED(ignored))
{
	if (handle_check(CAST(handle, self)) < 0)
		return NULL;
	return PyUnicode_DecodeFSDefault(shmb_broker_address(CAST(handle, self)->ptr));
}

static PyMethodDef broker_methods[] = {
	{ "stop", handle_py_close, METH_NOARGS,
	  "stop()\n--\n\nStop the broker and remove all that it made." },
	{ "__enter__", handle_py_enter, METH_NOARGS, NULL },
	{ "__exit__", handle_py_exit, METH_VARARGS, NULL },
	{ NULL, NULL, 0, NULL },
};

static PyGetSetDef broker_getset[] = {
	{ "address", broker_address, NULL, "Path of its socket, for connect(address=...).", NULL },
	{ NULL, NULL, NULL, NULL, NULL },
};

static PyType_Slot broker_slots[] = {
	{ Py_tp_new, broker_new },
	{ Py_tp_dealloc, handle_dealloc },
	{ Py_tp_methods, broker_methods },
	{ Py_tp_getset, broker_getset },
	{ Py_tp_doc, "A broker on a thread of this process." },
	{ 0, NULL },
};

static PyType_Spec broker_spec = {
	.name = "shmbroker._core.Broker",
	.basicsize = sizeof(struct handle),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
	.slots = broker_slots,
};

int client_init_module(PyObject *module)
{
	client_type = core_add_type(module, &client_spec, NULL);
	channel_type = core_add_type(module, &channel_spec, NULL);
	broker_type = core_add_type(module, &broker_spec, NULL);
	info_type = PyStructSequence_NewType(&info_desc);
	if (!client_type || !channel_type || !broker_type || !info_type)
		return -1;
	Py_INCREF((PyObject *)info_type);
	return PyModule_AddObject(module, "ChannelInfo", (PyObject *)info_type);
}
