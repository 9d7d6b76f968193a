/* SPDX-License-Identifier: Apache-2.0 */
#include "core.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>

/* A wait looks for signals this often. */
#define SLICE_NS 100000000ll
#define NS_PER_S 1000000000ll

static PyObject *errors; /* the module shmbroker.errors */

/* ---- errors and time ----------------------------------------------------------------------------- */

static const char *class_of(int32_t result, enum side side)
{
	switch (-result) {
	case EAGAIN:
		return side == SIDE_SUBSCRIBER ? "Empty" : "Full";
	case ETIMEDOUT:
	case ETIME:
		return "Timeout";
	case EREMOTEIO:
		return "RemoteError";
	case ECONNRESET:
		return "PeerGone";
	case EHOSTUNREACH:
		return "NoServer";
	case ECANCELED:
		return "Cancelled";
	case EPROTOTYPE:
		return "SchemaMismatch";
	case EBADMSG:
		return "CorruptPeer";
	case ENOBUFS:
		return "Evicted";
	case ESTALE:
		return side == SIDE_SUBSCRIBER ? "Overwritten" : "Evicted";
	case ECHILD:
		return "Forked";
	case ENOTCONN:
	case ECONNREFUSED:
	case EKEYREJECTED:
		return "NotConnected";
	case ENOENT:
		return side == SIDE_CONNECT ? "NotConnected" : "NotFound";
	case EEXIST:
		return "Exists";
	case EACCES:
		return "Denied";
	case EBUSY:
		return "Busy";
	case EINVAL:
	case EMSGSIZE:
		return "Invalid";
	case EBADF:
		return "Closed";
	default:
		return "Error";
	}
}

static PyObject *raise_sentence(int32_t result, enum side side, const char *sentence)
{
	PyObject *class = PyObject_GetAttrString(errors, class_of(result, side));
	PyObject *value = NULL;

	if (class)
		value = PyObject_CallFunction(class, "is", -result, sentence);
	if (value)
		PyErr_SetObject(class, value);
	Py_XDECREF(value);
	Py_XDECREF(class);
	return NULL;
}

PyObject *core_fail(int32_t result, enum side side)
{
	char sentence[512];

	if (result == RAISED)
		return NULL;
	if (shmb_last_error(sentence, sizeof(sentence)) <= 0)
		snprintf(sentence, sizeof(sentence), "%s", shmb_strerror(result));
	return raise_sentence(result, side, sentence);
}

PyObject *core_fail_text(int32_t result, enum side side, const char *format, ...)
{
	char sentence[512];
	va_list args;

	va_start(args, format);
	vsnprintf(sentence, sizeof(sentence), format, args);
	va_end(args);
	return raise_sentence(result, side, sentence);
}

PyObject *core_fail_buffer(const char *format, ...)
{
	char sentence[256];
	va_list args;

	va_start(args, format);
	vsnprintf(sentence, sizeof(sentence), format, args);
	va_end(args);
	PyErr_SetString(PyExc_BufferError, sentence);
	return NULL;
}

int core_timeout(PyObject *seconds, int64_t *ret_ns)
{
	double value;

	if (!seconds || seconds == Py_None) {
		*ret_ns = SHMB_FOREVER;
		return 0;
	}
	value = PyFloat_AsDouble(seconds);
	if (value == -1.0 && PyErr_Occurred())
		return -1;
	if (!(value >= 0)) {
		PyErr_SetString(PyExc_ValueError, "timeout must be None or not negative");
		return -1;
	}
	*ret_ns = value > 9e9 ? SHMB_FOREVER : (int64_t)(value * NS_PER_S);
	return 0;
}

int core_patience(PyObject *timeout, PyObject *block, int64_t *ret_ns)
{
	int truth = block ? PyObject_IsTrue(block) : 1;

	if (truth < 0 || core_timeout(timeout, ret_ns) < 0)
		return -1;
	if (!truth)
		*ret_ns = 0;
	return 0;
}

static int64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * NS_PER_S + now.tv_nsec;
}

int64_t core_deadline(int64_t timeout_ns)
{
	return timeout_ns == SHMB_FOREVER ? INT64_MAX : now_ns() + timeout_ns;
}

int core_arguments(const char *function, const char *const *names, Py_ssize_t n_required,
		   PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames, PyObject **ret)
{
	Py_ssize_t n_names = 0, n_keywords = kwnames ? PyTuple_Size(kwnames) : 0;
	Py_ssize_t i, j;

	while (names[n_names])
		ret[n_names++] = NULL;
	if (nargs > n_names) {
		PyErr_Format(PyExc_TypeError, "%s() takes at most %zd arguments (%zd given)",
			     function, n_names, nargs);
		return -1;
	}
	for (i = 0; i < nargs; i++)
		ret[i] = args[i];
	for (i = 0; i < n_keywords; i++) {
		PyObject *keyword = PyTuple_GetItem(kwnames, i);

		for (j = 0; j < n_names; j++) {
			if (PyUnicode_CompareWithASCIIString(keyword, names[j]) == 0)
				break;
		}
		if (j == n_names) {
			PyErr_Format(PyExc_TypeError, "%s() has no argument '%U'", function,
				     keyword);
			return -1;
		}
		if (ret[j]) {
			PyErr_Format(PyExc_TypeError, "%s() got two values for argument '%U'",
				     function, keyword);
			return -1;
		}
		ret[j] = args[nargs + i];
	}
	for (i = 0; i < n_required; i++) {
		if (!ret[i]) {
			PyErr_Format(PyExc_TypeError, "%s() needs the argument '%s'", function,
				     names[i]);
			return -1;
		}
	}
	return 0;
}

/* ---- types ---------------------------------------------------------------------------------------- */

PyTypeObject *core_add_type(PyObject *module, PyType_Spec *spec, PyTypeObject *base)
{
	PyObject *bases = base ? PyTuple_Pack(1, (PyObject *)base) : NULL;
	PyObject *type;

	if (base && !bases)
		return NULL;
	type = PyType_FromSpecWithBases(spec, bases);
	Py_XDECREF(bases);
	if (!type)
		return NULL;
	Py_INCREF(type);
	if (PyModule_AddObject(module, strrchr(spec->name, '.') + 1, type) < 0) {
		Py_DECREF(type);
		Py_DECREF(type);
		return NULL;
	}
	return (PyTypeObject *)(void *)type;
}

void core_free(PyObject *self)
{
	PyTypeObject *type = Py_TYPE(self);
	freefunc free_slot = (freefunc)PyType_GetSlot(type, Py_tp_free);

	free_slot(self);
	Py_DECREF((PyObject *)type);
}

int core_fds(PyObject *iterable, int32_t fds[CORE_FDS_MAX])
{
	PyObject *sequence;
	Py_ssize_t n;

	if (!iterable || iterable == Py_None)
		return 0;
	sequence = PySequence_Tuple(iterable);
	if (!sequence)
		return -1;
	n = PyTuple_Size(sequence);
	if (n > (Py_ssize_t)CORE_FDS_MAX) {
		PyErr_Format(PyExc_ValueError, "%zd file descriptors are too many", n);
		n = -1;
	}
	for (Py_ssize_t i = 0; i < n; i++) {
		fds[i] = PyObject_AsFileDescriptor(PyTuple_GetItem(sequence, i));
		if (fds[i] < 0) {
			n = -1;
			break;
		}
	}
	Py_DECREF(sequence);
	return (int)n;
}

PyObject *core_numbers(PyTypeObject *type, const uint64_t *values, Py_ssize_t n)
{
	PyObject *result = PyStructSequence_New(type);

	for (Py_ssize_t i = 0; result && i < n; i++) {
		PyObject *number = PyLong_FromUnsignedLongLong(values[i]);

		if (!number)
			Py_CLEAR(result);
		else
			PyStructSequence_SetItem(result, i, number);
	}
	return result;
}

int core_record_class(PyObject *object, PyTypeObject **ret_record, struct layout **ret_layout)
{
	*ret_record = NULL;
	*ret_layout = NULL;
	if (!object || object == Py_None)
		return 0;
	*ret_layout = record_layout(object);
	if (!*ret_layout)
		return -1;
	Py_INCREF(object);
	*ret_record = (PyTypeObject *)(void *)object;
	return 0;
}

/* ---- handles -------------------------------------------------------------------------------------- */

void handle_opened(struct handle *handle, void *ptr, const char *noun,
		   int32_t (*close)(struct handle *handle), struct handle *parent)
{
	handle->ptr = ptr;
	handle->noun = noun;
	handle->close = close;
	handle->parent = parent;
	if (parent) {
		Py_INCREF((PyObject *)parent);
		handle->next = parent->children;
		parent->children = handle;
	}
}

int handle_check(struct handle *handle)
{
	if (handle->ptr && !handle->busy)
		return 0;
	if (!handle->ptr)
		core_fail_text(-EBADF, SIDE_OTHER, "this %s is closed",
			       handle->noun ? handle->noun : "handle");
	else
		core_fail_text(-EBUSY, SIDE_OTHER, "another thread is waiting in this %s",
			       handle->noun);
	return -1;
}

static int may_close(struct handle *handle)
{
	if (handle->busy)
		return handle_check(handle);
	if (lease_exports(handle)) {
		core_fail_buffer("%zd view(s) of this %s's memory still exist",
				 lease_exports(handle), handle->noun);
		return -1;
	}
	for (struct handle *child = handle->children; child; child = child->next) {
		if (may_close(child) < 0)
			return -1;
	}
	return 0;
}

static int32_t close_now(struct handle *handle)
{
	int32_t r, first = 0;

	while (handle->children) {
		r = close_now(handle->children);
		if (r < 0 && first == 0)
			first = r;
	}
	lease_void_all(handle);
	/* It may run Python code, which must not come back here. */
	handle->busy++;
	r = handle->close(handle);
	handle->busy--;
	if (r < 0 && first == 0)
		first = r;
	handle->ptr = NULL;
	if (handle->parent) {
		struct handle **link = &handle->parent->children;

		while (*link != handle)
			link = &(*link)->next;
		*link = handle->next;
	}
	return first;
}

int handle_close(struct handle *handle)
{
	int32_t r;

	if (!handle->ptr)
		return 0;
	if (may_close(handle) < 0)
		return -1;
	r = close_now(handle);
	/* In a forked child there is nothing to close. */
	if (r < 0 && r != -ECHILD) {
		core_fail(r, SIDE_OTHER);
		return -1;
	}
	return 0;
}

void handle_dealloc(PyObject *self)
{
	struct handle *handle = CAST(handle, self);
	struct handle *parent = handle->parent;

	if (handle->ptr)
		close_now(handle);
	core_free(self);
	Py_XDECREF((PyObject *)parent);
}

PyObject *handle_py_close(PyObject *self, PyObject *Py_UNUSED(ignored))
{
	if (handle_close(CAST(handle, self)) < 0)
		return NULL;
	Py_RETURN_NONE;
}

PyObject *handle_py_enter(PyObject *self, PyObject *Py_UNUSED(ignored))
{
	if (handle_check(CAST(handle, self)) < 0)
		return NULL;
	Py_INCREF(self);
	return self;
}

PyObject *handle_py_exit(PyObject *self, PyObject *Py_UNUSED(args))
{
	return handle_py_close(self, NULL);
}

PyObject *handle_py_closed(PyObject *self, void *Py_UNUSED(ignored))
{
	return PyBool_FromLong(!CAST(handle, self)->ptr);
}

int32_t handle_wait(struct handle *handle, wait_fn wait, void *arg, int64_t deadline_ns)
{
	for (;;) {
		int64_t left = deadline_ns - now_ns();
		PyThreadState *thread;
		int32_t r;

		if (left < 0)
			left = 0;
		handle->busy++;
		thread = PyEval_SaveThread();
		r = wait(handle->ptr, arg, left < SLICE_NS ? left : SLICE_NS);
		PyEval_RestoreThread(thread);
		handle->busy--;
		if (r != -ETIMEDOUT)
			return r;
		if (PyErr_CheckSignals() < 0)
			return RAISED;
		if (left <= SLICE_NS)
			return -ETIMEDOUT;
	}
}

/* ---- module --------------------------------------------------------------------------------------- */

static PyObject *version(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(ignored))
{
	return PyUnicode_FromString(shmb_version());
}

static PyObject *abi_version(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(ignored))
{
	return PyLong_FromLong(shmb_abi_version());
}

static PyObject *schema_check(PyObject *Py_UNUSED(self), PyObject *args)
{
	const char *table;
	Py_ssize_t len;
	int32_t r;

	if (!PyArg_ParseTuple(args, "y#:schema_check", &table, &len))
		return NULL;
	r = shmb_schema_check(table, len > UINT32_MAX ? UINT32_MAX : (uint32_t)len);
	if (r < 0)
		return core_fail(r, SIDE_OTHER);
	Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
	{ "version", version, METH_NOARGS, "Version of libshmbroker." },
	{ "abi_version", abi_version, METH_NOARGS, "ABI version of libshmbroker." },
	{ "schema_check", schema_check, METH_VARARGS, "Invalid: these bytes are no schema." },
	{ NULL, NULL, 0, NULL },
};

static struct PyModuleDef definition = {
	.m_base = PyModuleDef_HEAD_INIT,
	.m_name = "shmbroker._core",
	.m_doc = "libshmbroker's handles, and records.",
	.m_size = -1,
	.m_methods = functions,
};

PyMODINIT_FUNC PyInit__core(void)
{
	PyObject *module;

	if (shmb_abi_version() < SHMB_ABI_VERSION) {
		PyErr_Format(PyExc_ImportError,
			     "libshmbroker %s has ABI version %d, this module needs %d",
			     shmb_version(), (int)shmb_abi_version(), SHMB_ABI_VERSION);
		return NULL;
	}
	errors = PyImport_ImportModule("shmbroker.errors");
	if (!errors)
		return NULL;
	module = PyModule_Create(&definition);
	if (!module)
		return NULL;
	if (record_init_module(module) < 0 || lease_init_module(module) < 0 ||
	    client_init_module(module) < 0 || publisher_init_module(module) < 0 ||
	    subscriber_init_module(module) < 0 || waitset_init_module(module) < 0 ||
	    state_init_module(module) < 0 || queue_init_module(module) < 0 ||
	    call_init_module(module) < 0) {
		Py_DECREF(module);
		return NULL;
	}
	return module;
}
