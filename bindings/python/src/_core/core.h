/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMBROKER_PYTHON_CORE_H
#define SHMBROKER_PYTHON_CORE_H

/*
 * shmbroker._core: one C type per handle of libshmbroker, and records.
 *
 * The GIL is the lock of everything here. It is kept in calls that never block, and released in
 * those that may; a handle is marked busy meanwhile, and refuses to be used or closed.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include <shmbroker/schema.h>
#include <shmbroker/shmbroker.h>

#define CAST(type, object) ((struct type *)(void *)(object))

/* ---- errors and time (module.c) ---------------------------------------------------------------- */

/* The errno value of "nothing there" or "no room" means another exception on either side. */
enum side {
	SIDE_OTHER,
	SIDE_PUBLISHER,
	SIDE_SUBSCRIBER,
	SIDE_CONNECT,
};

/* A Python exception has been set already; no result of the library. */
#define RAISED INT32_MIN

/* Raises what a negative result means, with the library's sentence. Returns NULL. */
PyObject *core_fail(int32_t result, enum side side);

/* Raises the exception class of a result with a sentence of our own. Returns NULL. */
PyObject *core_fail_text(int32_t result, enum side side, const char *format, ...);

/* Raises BufferError. Returns NULL. */
PyObject *core_fail_buffer(const char *format, ...);

/* None: for ever; else seconds. Returns 0, or -1 with an exception. */
int core_timeout(PyObject *seconds, int64_t *ret_ns);

/* As core_timeout(), and block=False is timeout=0. Any of both may be NULL. */
int core_patience(PyObject *timeout, PyObject *block, int64_t *ret_ns);

/* When a timeout that begins now will end. */
int64_t core_deadline(int64_t timeout_ns);

/* An argument parser for fast calls: O objects into ret[], NULL where not given. 0 or -1. */
int core_arguments(const char *function, const char *const *names, Py_ssize_t n_required,
		   PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames, PyObject **ret);

/* ---- handles (module.c) ------------------------------------------------------------------------- */

struct lease;

/**
 * struct handle - head of every object that wraps a handle of the library
 * @ptr:      the library's handle, NULL when closed
 * @noun:     "client", "channel", ... for sentences
 * @close:    closes @ptr
 * @busy:     calls that run without the GIL
 * @parent:   strong
 * @children: those that are open, borrowed
 * @next:     among the parent's children
 * @lease:    the loan or peek that is out, borrowed
 * @holds:    those that are out, borrowed
 * @waitset:  that it is in, borrowed
 */
struct handle {
	PyObject_HEAD void *ptr;
	const char *noun;
	int32_t (*close)(struct handle *handle);
	uint32_t busy;
	struct handle *parent;
	struct handle *children;
	struct handle *next;
	struct lease *lease;
	struct lease *holds;
	struct handle *waitset;
};

/* Takes @ptr in. */
void handle_opened(struct handle *handle, void *ptr, const char *noun,
		   int32_t (*close)(struct handle *handle), struct handle *parent);
/* Is it open and not in use? Returns 0, or -1 with an exception. */
int handle_check(struct handle *handle);
/* Closes children first; nothing is closed if any of them is in use. Returns 0, or -1 raised. */
int handle_close(struct handle *handle);
void handle_dealloc(PyObject *self);

PyObject *handle_py_close(PyObject *self, PyObject *ignored);
PyObject *handle_py_enter(PyObject *self, PyObject *ignored);
PyObject *handle_py_exit(PyObject *self, PyObject *args);
PyObject *handle_py_closed(PyObject *self, void *ignored);

/* One slice of a wait, without the GIL. */
typedef int32_t (*wait_fn)(void *ptr, void *arg, int64_t timeout_ns);

/* Waits in slices, so that signal handlers run. Result of @wait, or RAISED. */
int32_t handle_wait(struct handle *handle, wait_fn wait, void *arg, int64_t deadline_ns);

/* ---- records (record.c) ------------------------------------------------------------------------- */

struct field {
	PyObject *name; /* str */
	PyTypeObject *record; /* of a struct, else NULL */
	uint32_t offset;
	uint32_t size;
	uint32_t count;
	uint8_t kind;
};

/* What a Record class knows about its bytes. */
struct layout {
	PyObject_HEAD PyObject *table; /* bytes */
	PyObject *format; /* bytes, as in PEP 3118 */
	uint32_t record_len;
	uint32_t n_fields;
	struct field *fields;
};

/**
 * struct record - an instance of a Record class
 * @layout: strong
 * @owner:  NULL: @data are its bytes; else the record or lease that has them at @offset
 * @offset: there
 */
struct record {
	PyObject_VAR_HEAD struct layout *layout;
	PyObject *owner;
	uint64_t offset;
	_Alignas(8) char data[];
};

extern PyTypeObject *layout_type;
extern PyTypeObject *record_type;

int record_init_module(PyObject *module);
/* The layout of a Record class, or NULL with TypeError. A new reference. */
struct layout *record_layout(PyObject *type);
/* A record with bytes of its own, all zero. */
struct record *record_new(PyTypeObject *type, struct layout *layout);
/* A record whose bytes lie in @owner. */
PyObject *record_view(PyTypeObject *type, struct layout *layout, PyObject *owner, uint64_t offset);
/* Where its bytes are, or NULL with an exception. */
char *record_bytes(struct record *record, bool write);

/* ---- leases: memory that a loan, peek or hold lends (lease.c) ------------------------------- */

/**
 * struct lessor - what those who lend do in their own ways
 * @publish: sends a loan; NULL: it goes as an argument of another call
 * @cancel:  gives a loan back
 * @release: gives back what is peeked at
 * @unhold:  gives a hold back
 * @errors:  whose they are
 */
struct lessor {
	int32_t (*publish)(void *ptr, uint32_t len, const int32_t *fds, uint32_t n_fds);
	int32_t (*cancel)(void *ptr);
	int32_t (*release)(void *ptr, uint32_t count);
	int32_t (*unhold)(void *ptr, uint32_t hold);
	enum side errors;
};

extern const struct lessor publisher_lessor;
extern const struct lessor subscriber_lessor;

/**
 * struct lease - a Loan, a Peek or a Hold
 * @handle:  who lends it: a publisher, subscriber, caller or server, strong
 * @data:    first payload
 * @len:     bytes of each
 * @count:   payloads
 * @stride:  from one to the next
 * @live:    neither released nor published nor cancelled
 * @write:   a loan
 * @exports: buffers that somebody holds
 * @record:  Record class of typed channels, else NULL, strong
 * @layout:  its layout, strong
 * @shape:   for buffers
 * @strides: for buffers
 * @type:    of the first record
 * @sequence: of the first record
 * @publisher_id: whose it is
 * @lessor:  how it is given back
 * @hold:    of a Hold: its number
 * @next:    of a Hold: among the handle's
 */
struct lease {
	PyObject_HEAD struct handle *handle;
	char *data;
	uint32_t len;
	uint32_t count;
	uint32_t stride;
	bool live;
	bool write;
	Py_ssize_t exports;
	PyTypeObject *record;
	struct layout *layout;
	Py_ssize_t shape[2];
	Py_ssize_t strides[2];
	uint32_t type;
	uint64_t sequence;
	uint64_t publisher_id;
	const struct lessor *lessor;
	uint32_t hold;
	struct lease *next;
	PyObject *entered; /* memoryview that __enter__ of a raw loan gave out */
};

extern PyTypeObject *loan_type;
extern PyTypeObject *peek_type;
extern PyTypeObject *hold_type;

int lease_init_module(PyObject *module);
PyObject *lease_new(PyTypeObject *type, struct handle *handle, const struct lessor *lessor,
		    const struct shmb_view *view, PyTypeObject *record, struct layout *layout);
/* The loan that this is, if the handle has lent it; else NULL, and no exception. */
struct lease *lease_lent(const struct handle *handle, PyObject *object);
/* It is about to be sent: nobody may look at it any more. Returns 0 or -1 raised. */
int lease_settle(struct lease *lease);
/* The memory goes away with its handle. */
void lease_void(struct lease *lease);
/* Buffers that somebody holds of what a handle has lent. */
Py_ssize_t lease_exports(const struct handle *handle);
/* All of it goes away with the handle. */
void lease_void_all(struct handle *handle);
bool lease_is(PyObject *object);

/* ---- the other nouns ---------------------------------------------------------------------------- */

struct channel {
	struct handle handle;
};

struct publisher {
	struct handle handle;
	struct shmb_view *view;
	PyTypeObject *record; /* NULL: raw */
	struct layout *layout;
};

/* Raw records up to this length take no detour to learn how long they are. */
#define SCRATCH_LEN 4096u

/**
 * struct subscriber
 * @handle:   head
 * @view:     of the library
 * @record:   Record class; NULL: raw
 * @layout:   its layout
 * @on_close: called when it closes, so that nobody waits for ever
 * @scratch:  for raw records
 */
struct subscriber {
	struct handle handle;
	struct shmb_view *view;
	PyTypeObject *record;
	struct layout *layout;
	PyObject *on_close;
	char scratch[SCRATCH_LEN];
};

extern PyTypeObject *client_type;
extern PyTypeObject *channel_type;
extern PyTypeObject *publisher_type;
extern PyTypeObject *subscriber_type;
extern PyTypeObject *caller_type;
extern PyTypeObject *server_type;

int client_init_module(PyObject *module);
int publisher_init_module(PyObject *module);
int subscriber_init_module(PyObject *module);
int waitset_init_module(PyObject *module);
int state_init_module(PyObject *module);
int queue_init_module(PyObject *module);

/* How the library copies one record out: to receive it, or to take it. */
typedef int32_t (*subscriber_recv_fn)(struct shmb_subscriber *subscriber, void *data, uint32_t cap);

/* The next record, waiting for it; NULL with Empty, Timeout or another exception. */
PyObject *subscriber_receive(PyObject *self, subscriber_recv_fn recv, int64_t timeout_ns);
/* The next record, or None. */
PyObject *subscriber_try(PyObject *self, subscriber_recv_fn recv);
int call_init_module(PyObject *module);

/*
 * Bytes of a record or of anything with a buffer, as the channel wants them: records of this class, or raw
 * ones if that is NULL. Returns 0 or -1 raised.
 */
int payload_get(PyTypeObject *record, const struct layout *layout, PyObject *object,
		Py_buffer *buffer);
void payload_put(Py_buffer *buffer);

/* Record class and layout of an argument: a class or None. Returns 0 or -1. */
int core_record_class(PyObject *object, PyTypeObject **ret_record, struct layout **ret_layout);
/* Makes a heap type and adds it to the module. */
PyTypeObject *core_add_type(PyObject *module, PyType_Spec *spec, PyTypeObject *base);
/* Frees an instance of a heap type. */
void core_free(PyObject *self);
/* A struct sequence of unsigned numbers. */
PyObject *core_numbers(PyTypeObject *type, const uint64_t *values, Py_ssize_t n);

#define CORE_FDS_MAX 256u /* more than a record can carry */

/*
 * The numbers of an iterable of integers or objects with a fileno(); NULL or None: none. They are open for
 * as long as whatever of the iterable owns them. Returns how many, or -1 raised.
 */
int core_fds(PyObject *iterable, int32_t fds[CORE_FDS_MAX]);

/* A handle that is about to be closed leaves the wait set that it is in. */
void waitset_leave(struct handle *member);

#endif
