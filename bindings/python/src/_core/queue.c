/* SPDX-License-Identifier: Apache-2.0 */
#include "core.h"

/* Publishers and subscribers of queues: jobs are numbers here, objects for Python. */

/* ---- publisher ------------------------------------------------------------------------------------------ */

static int32_t wait_done(void *ptr, void *Py_UNUSED(arg), int64_t timeout_ns)
{
	return shmb_publisher_wait_done(ptr, timeout_ns);
}

static PyObject *queue_wait_done(PyObject *self, PyObject *args, PyObject *kwargs)
{
	static char *names[] = { "timeout", NULL };
	PyObject *timeout = NULL;
	int64_t timeout_ns;
	int32_t r;

	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:wait_done", names, &timeout) ||
	    core_timeout(timeout, &timeout_ns) < 0 || handle_check(CAST(handle, self)) < 0)
		return NULL;
	r = handle_wait(CAST(handle, self), wait_done, NULL, core_deadline(timeout_ns));
	if (r < 0)
		return core_fail(r, SIDE_OTHER);
	Py_RETURN_NONE;
}

static PyMethodDef publisher_methods[] = {
	{ "wait_done", (PyCFunction)(void (*)(void))queue_wait_done, METH_VARARGS | METH_KEYWORDS,
	  "wait_done(timeout=None)\n--\n\n"
	  "Wait until all that was sent is done. Timeout; Busy: a loan is out; Evicted." },
	{ NULL, NULL, 0, NULL },
};

static PyType_Slot publisher_slots[] = {
	{ Py_tp_methods, publisher_methods },
	{ Py_tp_doc, "Sends records, each to one worker. For one thread at a time." },
	{ 0, NULL },
};

static PyType_Spec publisher_spec = {
	.name = "shmbroker._core.QueuePublisher",
	.basicsize = sizeof(struct publisher),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
	.slots = publisher_slots,
};

/* ---- subscriber ----------------------------------------------------------------------------------------- */

/* A record with its job and its attempt; takes the reference over. None stays None. */
static PyObject *with_job(PyObject *self, PyObject *record)
{
	const struct shmb_view *view = CAST(subscriber, self)->view;
	PyObject *tuple;

	if (!record || record == Py_None)
		return record;
	tuple = Py_BuildValue("(NKI)", record, (unsigned long long)view->term,
			      (unsigned int)view->attempt);
	if (!tuple) {
		/* Nobody would ever end it. */
		shmb_subscriber_fail(CAST(handle, self)->ptr, view->term);
	}
	return tuple;
}

static PyObject *queue_take(PyObject *self, PyObject *const *args, Py_ssize_t nargs,
			    PyObject *kwnames)
{
	static const char *const names[] = { "timeout", "block", NULL };
	PyObject *given[2];
	int64_t timeout_ns;

	if (core_arguments("_take", names, 0, args, nargs, kwnames, given) < 0 ||
	    core_patience(given[0], given[1], &timeout_ns) < 0)
		return NULL;
	return with_job(self, subscriber_receive(self, shmb_subscriber_take, timeout_ns));
}

static PyObject *queue_try_take(PyObject *self, PyObject *Py_UNUSED(ignored))
{
	return with_job(self, subscriber_try(self, shmb_subscriber_take));
}

/* Some jobs, all of them or none. */
static PyObject *queue_done(PyObject *self, PyObject *sequence)
{
	PyObject *tuple = PySequence_Tuple(sequence);
	Py_ssize_t count = tuple ? PyTuple_Size(tuple) : 0;
	uint64_t *jobs = tuple ? PyMem_Calloc((size_t)count + 1, sizeof(*jobs)) : NULL;
	int32_t r = RAISED;

	if (!jobs) {
		if (tuple)
			PyErr_NoMemory();
		Py_XDECREF(tuple);
		return NULL;
	}
	for (Py_ssize_t i = 0; i < count; i++)
		jobs[i] = PyLong_AsUnsignedLongLong(PyTuple_GetItem(tuple, i));
	Py_DECREF(tuple);
	if (!PyErr_Occurred() && handle_check(CAST(handle, self)) == 0)
		r = shmb_subscriber_done_many(CAST(handle, self)->ptr, jobs, (uint32_t)count);
	PyMem_Free(jobs);
	if (r < 0)
		return core_fail(r, SIDE_OTHER);
	Py_RETURN_NONE;
}

static PyObject *queue_fail(PyObject *self, PyObject *args)
{
	unsigned long long job;
	int32_t r;

	if (!PyArg_ParseTuple(args, "K:_fail", &job) || handle_check(CAST(handle, self)) < 0)
		return NULL;
	r = shmb_subscriber_fail(CAST(handle, self)->ptr, job);
	if (r < 0)
		return core_fail(r, SIDE_OTHER);
	Py_RETURN_NONE;
}

static PyMethodDef subscriber_methods[] = {
	{ "_take", (PyCFunction)(void (*)(void))queue_take, METH_FASTCALL | METH_KEYWORDS, NULL },
	{ "_try_take", queue_try_take, METH_NOARGS, NULL },
	{ "_done", queue_done, METH_O, NULL },
	{ "_fail", queue_fail, METH_VARARGS, NULL },
	{ NULL, NULL, 0, NULL },
};

static PyType_Slot subscriber_slots[] = {
	{ Py_tp_methods, subscriber_methods },
	{ Py_tp_doc, "Takes records of a queue. For one thread at a time." },
	{ 0, NULL },
};

static PyType_Spec subscriber_spec = {
	.name = "shmbroker._core.QueueSubscriber",
	.basicsize = sizeof(struct subscriber),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
	.slots = subscriber_slots,
};

int queue_init_module(PyObject *module)
{
	if (!core_add_type(module, &publisher_spec, publisher_type) ||
	    !core_add_type(module, &subscriber_spec, subscriber_type))
		return -1;
	return 0;
}
