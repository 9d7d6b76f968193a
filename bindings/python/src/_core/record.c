/* SPDX-License-Identifier: Apache-2.0 */
#include "core.h"

#include <math.h>

PyTypeObject *layout_type;
PyTypeObject *record_type;
static PyTypeObject *field_type;
static PyObject *layout_attribute; /* "__layout__" */

/* ---- layout: what a schema table means -------------------------------------------------------------- */

static int layout_traverse(PyObject *self, visitproc visit, void *arg)
{
	struct layout *layout = CAST(layout, self);

	Py_VISIT((PyObject *)Py_TYPE(self));
	for (uint32_t i = 0; i < layout->n_fields; i++)
		Py_VISIT((PyObject *)layout->fields[i].record);
	return 0;
}

static void layout_dealloc(PyObject *self)
{
	struct layout *layout = CAST(layout, self);

	PyObject_GC_UnTrack(self);
	for (uint32_t i = 0; layout->fields && i < layout->n_fields; i++) {
		Py_XDECREF(layout->fields[i].name);
		Py_XDECREF((PyObject *)layout->fields[i].record);
	}
	PyMem_Free(layout->fields);
	Py_XDECREF(layout->table);
	Py_XDECREF(layout->format);
	core_free(self);
}

/* The class of a struct field; its bytes must be those of the field. */
static int load_struct(struct field *field, PyObject *class)
{
	struct layout *layout = record_layout(class);
	uint32_t record_len;

	if (!layout)
		return -1;
	record_len = layout->record_len;
	Py_DECREF((PyObject *)layout);
	if (record_len != field->size) {
		PyErr_Format(PyExc_ValueError, "field '%U' has %u bytes, its class has %u",
			     field->name, (unsigned int)field->size, (unsigned int)record_len);
		return -1;
	}
	Py_INCREF(class);
	field->record = (PyTypeObject *)(void *)class;
	return 0;
}

/* Top-level fields only: the classes of the structs know their own. */
static int load_fields(struct layout *layout, const char *table, PyObject *classes)
{
	struct shmb_schema head;
	struct shmb_schema_field entry;
	Py_ssize_t n_classes = 0;

	memcpy(&head, table, sizeof(head));
	layout->record_len = head.record_len;
	layout->fields = PyMem_Calloc(head.n_fields, sizeof(*layout->fields));
	if (!layout->fields) {
		PyErr_NoMemory();
		return -1;
	}
	for (uint32_t i = 0; i < head.n_fields; i++) {
		struct field *field = &layout->fields[layout->n_fields];

		memcpy(&entry, table + SHMB_SCHEMA_LEN(i), sizeof(entry));
		if (entry.parent != SHMB_FIELD_NO_PARENT)
			continue;
		layout->n_fields++;
		field->offset = entry.offset;
		field->size = entry.size;
		field->count = entry.count;
		field->kind = entry.kind;
		field->name = PyUnicode_InternFromString(entry.name);
		if (!field->name)
			return -1;
		if (entry.kind != SHMB_KIND_STRUCT)
			continue;
		if (n_classes >= PyTuple_Size(classes)) {
			PyErr_SetString(PyExc_ValueError, "a struct field has no class");
			return -1;
		}
		if (load_struct(field, PyTuple_GetItem(classes, n_classes++)) < 0)
			return -1;
	}
	return 0;
}

static PyObject *layout_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
	PyObject *table, *classes, *format, *self;
	struct layout *layout;
	char *bytes;
	Py_ssize_t len;
	int32_t r;

	if (!PyArg_ParseTuple(args, "O!O!O!:Layout", &PyBytes_Type, &table, &PyTuple_Type, &classes,
			      &PyBytes_Type, &format))
		return NULL;
	if (PyBytes_AsStringAndSize(table, &bytes, &len) < 0)
		return NULL;
	r = shmb_schema_check(bytes, len > UINT32_MAX ? UINT32_MAX : (uint32_t)len);
	if (r < 0)
		return core_fail(r, SIDE_OTHER);
	self = PyType_GenericAlloc(type, 0);
	if (!self)
		return NULL;
	layout = CAST(layout, self);
	Py_INCREF(table);
	layout->table = table;
	Py_INCREF(format);
	layout->format = format;
	if (load_fields(layout, bytes, classes) < 0) {
		Py_DECREF(self);
		return NULL;
	}
	return self;
}

static PyObject *layout_table(PyObject *self, void *Py_UNUSED(ignored))
{
	Py_INCREF(CAST(layout, self)->table);
	return CAST(layout, self)->table;
}

static PyObject *layout_format(PyObject *self, void *Py_UNUSED(ignored))
{
	return PyUnicode_DecodeASCII(PyBytes_AsString(CAST(layout, self)->format),
				     PyBytes_Size(CAST(layout, self)->format), NULL);
}

static PyObject *layout_record_len(PyObject *self, void *Py_UNUSED(ignored))
{
	return PyLong_FromUnsignedLong(CAST(layout, self)->record_len);
}

static PyObject *layout_names(PyObject *self, void *Py_UNUSED(ignored))
{
	struct layout *layout = CAST(layout, self);
	PyObject *names = PyTuple_New(layout->n_fields);

	for (uint32_t i = 0; names && i < layout->n_fields; i++) {
		Py_INCREF(layout->fields[i].name);
		PyTuple_SetItem(names, i, layout->fields[i].name);
	}
	return names;
}

static PyGetSetDef layout_getset[] = {
	{ "table", layout_table, NULL, "The schema's bytes.", NULL },
	{ "format", layout_format, NULL, "The record as in PEP 3118.", NULL },
	{ "record_len", layout_record_len, NULL, "Bytes of a record.", NULL },
	{ "names", layout_names, NULL, "Names of the fields.", NULL },
	{ NULL, NULL, NULL, NULL, NULL },
};

static PyType_Slot layout_slots[] = {
	{ Py_tp_new, layout_new },
	{ Py_tp_dealloc, layout_dealloc },
	{ Py_tp_traverse, layout_traverse },
	{ Py_tp_getset, layout_getset },
	{ Py_tp_doc, "Layout(table, classes, format): where the fields of a record are." },
	{ 0, NULL },
};

static PyType_Spec layout_spec = {
	.name = "shmbroker._core.Layout",
	.basicsize = sizeof(struct layout),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
	.slots = layout_slots,
};

/* ---- records: allocation ----------------------------------------------------------------------------- */

struct layout *record_layout(PyObject *type)
{
	PyObject *layout = NULL;

	if (PyType_Check(type) && PyType_IsSubtype((PyTypeObject *)(void *)type, record_type))
		layout = PyObject_GetAttr(type, layout_attribute);
	if (layout && Py_TYPE(layout) == layout_type)
		return CAST(layout, layout);
	Py_XDECREF(layout);
	PyErr_Format(PyExc_TypeError, "%R is no Record class with fields", type);
	return NULL;
}

struct record *record_new(PyTypeObject *type, struct layout *layout)
{
	struct record *record = CAST(record, PyType_GenericAlloc(type, layout->record_len));

	if (!record)
		return NULL;
	Py_INCREF((PyObject *)layout);
	record->layout = layout;
	return record;
}

PyObject *record_view(PyTypeObject *type, struct layout *layout, PyObject *owner, uint64_t offset)
{
	struct record *record = CAST(record, PyType_GenericAlloc(type, 0));

	if (!record)
		return NULL;
	Py_INCREF((PyObject *)layout);
	record->layout = layout;
	Py_INCREF(owner);
	record->owner = owner;
	record->offset = offset;
	return (PyObject *)record;
}

char *record_bytes(struct record *record, bool write)
{
	uint64_t offset = 0;
	struct lease *lease;

	while (record->owner && !lease_is(record->owner)) {
		offset += record->offset;
		record = CAST(record, record->owner);
	}
	if (!record->owner)
		return record->data + offset;
	lease = CAST(lease, record->owner);
	if (!lease->live) {
		core_fail_buffer("this record's memory has been given back");
		return NULL;
	}
	if (write && !lease->write) {
		PyErr_SetString(PyExc_TypeError, "a record that is peeked at is read-only");
		return NULL;
	}
	return lease->data + record->offset + offset;
}

/* The lease that a record lies in, or NULL: it has bytes of its own. */
static struct lease *lease_of(struct record *record)
{
	while (record->owner && !lease_is(record->owner))
		record = CAST(record, record->owner);
	return CAST(lease, record->owner);
}

static PyObject *record_tp_new(PyTypeObject *type, PyObject *Py_UNUSED(args),
			       PyObject *Py_UNUSED(kwargs))
{
	struct layout *layout = record_layout((PyObject *)type);
	struct record *record;

	if (!layout)
		return NULL;
	record = record_new(type, layout);
	Py_DECREF((PyObject *)layout);
	return (PyObject *)record;
}

static void record_dealloc(PyObject *self)
{
	struct record *record = CAST(record, self);

	Py_XDECREF((PyObject *)record->layout);
	Py_XDECREF(record->owner);
	core_free(self);
}

/* ---- fields: from bytes to objects ------------------------------------------------------------------- */

#define LOAD(type, at)                                 \
	({                                             \
		type value_;                           \
		memcpy(&value_, (at), sizeof(value_)); \
		value_;                                \
	})
#define STORE(type, at, value)                         \
	do {                                           \
		type value_ = (type)(value);           \
		memcpy((at), &value_, sizeof(value_)); \
	} while (0)

static PyObject *get_scalar(uint8_t kind, const char *at)
{
	switch (kind) {
	case SHMB_KIND_U8:
		return PyLong_FromLong(LOAD(uint8_t, at));
	case SHMB_KIND_I8:
		return PyLong_FromLong(LOAD(int8_t, at));
	case SHMB_KIND_U16:
		return PyLong_FromLong(LOAD(uint16_t, at));
	case SHMB_KIND_I16:
		return PyLong_FromLong(LOAD(int16_t, at));
	case SHMB_KIND_U32:
		return PyLong_FromUnsignedLong(LOAD(uint32_t, at));
	case SHMB_KIND_I32:
		return PyLong_FromLong(LOAD(int32_t, at));
	case SHMB_KIND_U64:
		return PyLong_FromUnsignedLongLong(LOAD(uint64_t, at));
	case SHMB_KIND_I64:
		return PyLong_FromLongLong(LOAD(int64_t, at));
	case SHMB_KIND_F32:
		return PyFloat_FromDouble(LOAD(float, at));
	case SHMB_KIND_F64:
		return PyFloat_FromDouble(LOAD(double, at));
	default:
		/* A hostile peer may write 2 into a bool. */
		return PyBool_FromLong(LOAD(uint8_t, at) != 0);
	}
}

static PyObject *get_field(struct record *record, const struct field *field)
{
	struct layout *layout;
	struct lease *lease;
	PyObject *values, *value;
	const char *at = record_bytes(record, false);

	if (!at)
		return NULL;
	at += field->offset;
	if (field->kind == SHMB_KIND_CHAR)
		return PyUnicode_DecodeUTF8(at, (Py_ssize_t)strnlen(at, field->count),
					    "surrogateescape");
	if (field->count == 1 && field->kind != SHMB_KIND_STRUCT)
		return get_scalar(field->kind, at);
	layout = NULL;
	if (field->kind == SHMB_KIND_STRUCT) {
		layout = record_layout((PyObject *)field->record);
		if (!layout)
			return NULL;
		if (field->count == 1) {
			value = record_view(field->record, layout, (PyObject *)record,
					    field->offset);
			Py_DECREF((PyObject *)layout);
			return value;
		}
	}
	/* An allocation may run finalizers, which must not give the memory back. */
	lease = lease_of(record);
	if (lease)
		lease->exports++;
	values = PyTuple_New(field->count);
	for (uint32_t i = 0; values && i < field->count; i++) {
		uint64_t offset = (uint64_t)i * field->size;

		if (layout)
			value = record_view(field->record, layout, (PyObject *)record,
					    field->offset + offset);
		else
			value = get_scalar(field->kind, at + offset);
		if (!value)
			Py_CLEAR(values);
		else
			PyTuple_SetItem(values, i, value);
	}
	if (lease)
		lease->exports--;
	Py_XDECREF((PyObject *)layout);
	return values;
}

/* ---- fields: from objects to bytes ------------------------------------------------------------------- */

static const struct {
	const char *name;
	int64_t min;
	uint64_t max;
} integers[] = {
	[SHMB_KIND_U8] = { "u8", 0, UINT8_MAX },
	[SHMB_KIND_I8] = { "i8", INT8_MIN, INT8_MAX },
	[SHMB_KIND_U16] = { "u16", 0, UINT16_MAX },
	[SHMB_KIND_I16] = { "i16", INT16_MIN, INT16_MAX },
	[SHMB_KIND_U32] = { "u32", 0, UINT32_MAX },
	[SHMB_KIND_I32] = { "i32", INT32_MIN, INT32_MAX },
	[SHMB_KIND_U64] = { "u64", 0, UINT64_MAX },
	[SHMB_KIND_I64] = { "i64", INT64_MIN, INT64_MAX },
};

static int fail_range(const struct field *field, const char *kind, PyObject *value)
{
	PyErr_Clear();
	PyErr_Format(PyExc_OverflowError, "field '%U' is %s: %R does not fit", field->name, kind,
		     value);
	return -1;
}

static int set_integer(const struct field *field, char *at, PyObject *value)
{
	const bool is_signed = integers[field->kind].min < 0;
	PyObject *index = PyNumber_Index(value);
	uint64_t number;
	bool fits;

	if (!index)
		return -1;
	if (is_signed) {
		int64_t n = PyLong_AsLongLong(index);

		fits = n >= integers[field->kind].min && n <= (int64_t)integers[field->kind].max;
		number = (uint64_t)n;
	} else {
		number = PyLong_AsUnsignedLongLong(index);
		fits = number <= integers[field->kind].max;
	}
	Py_DECREF(index);
	if (!fits || (number == UINT64_MAX && PyErr_Occurred()))
		return fail_range(field, integers[field->kind].name, value);
	/* Little-endian: the low bytes of the number are the number. */
	memcpy(at, &number, field->size);
	return 0;
}

static int set_scalar(const struct field *field, char *at, PyObject *value)
{
	double number;
	int truth;

	switch (field->kind) {
	case SHMB_KIND_F32:
		number = PyFloat_AsDouble(value);
		if (number == -1.0 && PyErr_Occurred())
			return -1;
		if (isinf((float)number) && !isinf(number))
			return fail_range(field, "f32", value);
		STORE(float, at, number);
		return 0;
	case SHMB_KIND_F64:
		number = PyFloat_AsDouble(value);
		if (number == -1.0 && PyErr_Occurred())
			return -1;
		STORE(double, at, number);
		return 0;
	case SHMB_KIND_BOOL:
		truth = PyObject_IsTrue(value);
		if (truth < 0)
			return -1;
		*at = (char)truth;
		return 0;
	default:
		return set_integer(field, at, value);
	}
}

static int set_text(const struct field *field, char *at, PyObject *value)
{
	PyObject *encoded = NULL;
	char *text;
	Py_ssize_t len;
	int r = -1;

	if (PyUnicode_Check(value)) {
		encoded = PyUnicode_AsEncodedString(value, "utf-8", "surrogateescape");
	} else if (PyBytes_Check(value)) {
		Py_INCREF(value);
		encoded = value;
	} else {
		PyErr_Format(PyExc_TypeError, "field '%U' is text, not %R", field->name, value);
	}
	if (!encoded || PyBytes_AsStringAndSize(encoded, &text, &len) < 0)
		goto out;
	if (len > field->count) {
		PyErr_Format(PyExc_ValueError, "field '%U' has room for %u bytes, %R has %zd",
			     field->name, (unsigned int)field->count, value, len);
		goto out;
	}
	memcpy(at, text, (size_t)len);
	memset(at + len, 0, field->count - (size_t)len);
	r = 0;
out:
	Py_XDECREF(encoded);
	return r;
}

static int set_struct(const struct field *field, char *at, PyObject *value)
{
	const char *from;

	if (!PyObject_TypeCheck(value, field->record)) {
		PyErr_Format(PyExc_TypeError, "field '%U' is a %R, not %R", field->name,
			     field->record, value);
		return -1;
	}
	from = record_bytes(CAST(record, value), false);
	if (!from)
		return -1;
	memmove(at, from, field->size);
	return 0;
}

static int set_field(struct record *record, const struct field *field, PyObject *value)
{
	PyObject *values;
	char *at;
	int r = 0;

	/* Conversions run Python code, which may give the memory back: look each time. */
	if (field->kind == SHMB_KIND_CHAR || field->count == 1) {
		char room[8];

		if (field->kind == SHMB_KIND_CHAR || field->kind == SHMB_KIND_STRUCT) {
			at = record_bytes(record, true);
			if (!at)
				return -1;
			at += field->offset;
			return field->kind == SHMB_KIND_CHAR ? set_text(field, at, value)
							     : set_struct(field, at, value);
		}
		if (set_scalar(field, room, value) < 0)
			return -1;
		at = record_bytes(record, true);
		if (!at)
			return -1;
		memcpy(at + field->offset, room, field->size);
		return 0;
	}
	values = PySequence_Tuple(value);
	if (!values)
		return -1;
	if (PyTuple_Size(values) != field->count) {
		PyErr_Format(PyExc_ValueError, "field '%U' has %u elements, not %zd", field->name,
			     (unsigned int)field->count, PyTuple_Size(values));
		Py_DECREF(values);
		return -1;
	}
	for (uint32_t i = 0; r == 0 && i < field->count; i++) {
		struct field element = *field;

		element.offset += i * field->size;
		element.count = 1;
		r = set_field(record, &element, PyTuple_GetItem(values, i));
	}
	Py_DECREF(values);
	return r;
}

/* ---- the descriptors in a Record class ------------------------------------------------------------------ */

struct field_object {
	PyObject_HEAD struct layout *layout;
	uint32_t index;
};

static PyObject *field_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
	PyObject *layout, *self;
	unsigned int index;

	if (!PyArg_ParseTuple(args, "O!I:Field", layout_type, &layout, &index))
		return NULL;
	if (index >= CAST(layout, layout)->n_fields) {
		PyErr_SetString(PyExc_IndexError, "no such field");
		return NULL;
	}
	self = PyType_GenericAlloc(type, 0);
	if (!self)
		return NULL;
	Py_INCREF(layout);
	CAST(field_object, self)->layout = CAST(layout, layout);
	CAST(field_object, self)->index = index;
	return self;
}

static int field_traverse(PyObject *self, visitproc visit, void *arg)
{
	Py_VISIT((PyObject *)Py_TYPE(self));
	Py_VISIT((PyObject *)CAST(field_object, self)->layout);
	return 0;
}

static void field_dealloc(PyObject *self)
{
	PyObject_GC_UnTrack(self);
	Py_XDECREF((PyObject *)CAST(field_object, self)->layout);
	core_free(self);
}

/* Is the object a record of this field's layout? */
static bool field_fits(PyObject *self, PyObject *object)
{
	if (PyObject_TypeCheck(object, record_type) &&
	    CAST(record, object)->layout == CAST(field_object, self)->layout)
		return true;
	PyErr_SetString(PyExc_TypeError, "this field belongs to another Record class");
	return false;
}

static PyObject *field_get(PyObject *self, PyObject *object, PyObject *Py_UNUSED(type))
{
	struct field_object *field = CAST(field_object, self);

	if (!object || object == Py_None) {
		Py_INCREF(self);
		return self;
	}
	if (!field_fits(self, object))
		return NULL;
	return get_field(CAST(record, object), &field->layout->fields[field->index]);
}

static int field_set(PyObject *self, PyObject *object, PyObject *value)
{
	struct field_object *field = CAST(field_object, self);

	if (!value) {
		PyErr_SetString(PyExc_AttributeError, "a field cannot be deleted");
		return -1;
	}
	if (!field_fits(self, object))
		return -1;
	return set_field(CAST(record, object), &field->layout->fields[field->index], value);
}

static PyObject *field_repr(PyObject *self)
{
	struct field_object *object = CAST(field_object, self);
	struct field *field = &object->layout->fields[object->index];

	return PyUnicode_FromFormat("<field '%U' at %u>", field->name, (unsigned int)field->offset);
}

static PyType_Slot field_slots[] = {
	{ Py_tp_new, field_new },
	{ Py_tp_dealloc, field_dealloc },
	{ Py_tp_traverse, field_traverse },
	{ Py_tp_descr_get, field_get },
	{ Py_tp_descr_set, field_set },
	{ Py_tp_repr, field_repr },
	{ Py_tp_doc, "One field of a Record class." },
	{ 0, NULL },
};

static PyType_Spec field_spec = {
	.name = "shmbroker._core.Field",
	.basicsize = sizeof(struct field_object),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
	.slots = field_slots,
};

/* ---- records: protocols -------------------------------------------------------------------------------- */

static struct field *find_field(struct layout *layout, PyObject *name)
{
	for (uint32_t i = 0; i < layout->n_fields; i++) {
		if (layout->fields[i].name == name)
			return &layout->fields[i];
	}
	/* Not interned: compare the characters. */
	for (uint32_t i = 0; PyUnicode_Check(name) && i < layout->n_fields; i++) {
		if (PyUnicode_Compare(layout->fields[i].name, name) == 0)
			return &layout->fields[i];
	}
	return NULL;
}

static int record_init(PyObject *self, PyObject *args, PyObject *kwargs)
{
	struct record *record = CAST(record, self);
	struct layout *layout = record->layout;
	Py_ssize_t n = PyTuple_Size(args), at = 0;
	PyObject *name, *value;

	if (n > layout->n_fields) {
		PyErr_Format(PyExc_TypeError, "%zd values for %u fields", n,
			     (unsigned int)layout->n_fields);
		return -1;
	}
	for (Py_ssize_t i = 0; i < n; i++) {
		if (set_field(record, &layout->fields[i], PyTuple_GetItem(args, i)) < 0)
			return -1;
	}
	while (kwargs && PyDict_Next(kwargs, &at, &name, &value)) {
		struct field *field = find_field(layout, name);

		if (!field || field < layout->fields + n) {
			PyErr_Format(PyExc_TypeError,
				     field ? "two values for field '%U'" : "no field '%U'", name);
			return -1;
		}
		if (set_field(record, field, value) < 0)
			return -1;
	}
	return 0;
}

static PyObject *record_astuple(PyObject *self, PyObject *Py_UNUSED(ignored))
{
	struct record *record = CAST(record, self);
	PyObject *values = PyTuple_New(record->layout->n_fields);

	for (uint32_t i = 0; values && i < record->layout->n_fields; i++) {
		PyObject *value = get_field(record, &record->layout->fields[i]);

		if (!value)
			Py_CLEAR(values);
		else
			PyTuple_SetItem(values, i, value);
	}
	return values;
}

static PyObject *record_asdict(PyObject *self, PyObject *Py_UNUSED(ignored))
{
	struct record *record = CAST(record, self);
	PyObject *values = PyDict_New();

	for (uint32_t i = 0; values && i < record->layout->n_fields; i++) {
		PyObject *value = get_field(record, &record->layout->fields[i]);

		if (!value || PyDict_SetItem(values, record->layout->fields[i].name, value) < 0)
			Py_CLEAR(values);
		Py_XDECREF(value);
	}
	return values;
}

static PyObject *record_repr(PyObject *self)
{
	struct record *record = CAST(record, self);
	PyObject *name = PyObject_GetAttrString((PyObject *)Py_TYPE(self), "__name__");
	PyObject *parts = PyList_New(0), *comma = PyUnicode_FromString(", "), *joined = NULL;
	PyObject *text = NULL;

	for (uint32_t i = 0; parts && i < record->layout->n_fields; i++) {
		PyObject *value = get_field(record, &record->layout->fields[i]);
		PyObject *part = NULL;

		if (value)
			part = PyUnicode_FromFormat("%U=%R", record->layout->fields[i].name, value);
		if (!part || PyList_Append(parts, part) < 0)
			Py_CLEAR(parts);
		Py_XDECREF(part);
		Py_XDECREF(value);
	}
	if (name && parts && comma)
		joined = PyUnicode_Join(comma, parts);
	if (joined)
		text = PyUnicode_FromFormat("%U(%U)", name, joined);
	Py_XDECREF(joined);
	Py_XDECREF(comma);
	Py_XDECREF(parts);
	Py_XDECREF(name);
	return text;
}

/* Whatever the types are called: a nested type's name travels in no schema. */
static bool same_layout(struct layout *a, struct layout *b)
{
	const char *a_table = PyBytes_AsString(a->table), *b_table = PyBytes_AsString(b->table);
	const size_t len = (size_t)PyBytes_Size(a->table), head_len = sizeof(struct shmb_schema);

	return a == b || (len == (size_t)PyBytes_Size(b->table) &&
			  memcmp(a_table, b_table, offsetof(struct shmb_schema, name)) == 0 &&
			  memcmp(a_table + head_len, b_table + head_len, len - head_len) == 0);
}

/* Field by field: padding says nothing, and a NaN equals nothing. */
static PyObject *record_compare(PyObject *self, PyObject *other, int op)
{
	PyObject *a, *b, *result = NULL;

	if ((op != Py_EQ && op != Py_NE) || !PyObject_TypeCheck(other, record_type) ||
	    !same_layout(CAST(record, self)->layout, CAST(record, other)->layout)) {
		Py_INCREF(Py_NotImplemented);
		return Py_NotImplemented;
	}
	a = record_astuple(self, NULL);
	b = record_astuple(other, NULL);
	if (a && b)
		result = PyObject_RichCompare(a, b, op);
	Py_XDECREF(a);
	Py_XDECREF(b);
	return result;
}

static struct field *field_of_item(PyObject *self, PyObject *name)
{
	struct field *field = find_field(CAST(record, self)->layout, name);

	if (!field)
		PyErr_SetObject(PyExc_KeyError, name);
	return field;
}

static PyObject *record_getitem(PyObject *self, PyObject *name)
{
	struct field *field = field_of_item(self, name);

	return field ? get_field(CAST(record, self), field) : NULL;
}

static int record_setitem(PyObject *self, PyObject *name, PyObject *value)
{
	struct field *field = field_of_item(self, name);

	if (!field)
		return -1;
	if (!value) {
		PyErr_SetString(PyExc_TypeError, "a field cannot be deleted");
		return -1;
	}
	return set_field(CAST(record, self), field, value);
}

static int record_getbuffer(PyObject *self, Py_buffer *view, int flags)
{
	struct record *record = CAST(record, self);
	struct lease *lease = lease_of(record);
	char *bytes = record_bytes(record, false);

	view->obj = NULL;
	if (!bytes)
		return -1;
	if (PyBuffer_FillInfo(view, self, bytes, record->layout->record_len, lease && !lease->write,
			      flags) < 0)
		return -1;
	if (lease)
		lease->exports++;
	return 0;
}

static void record_releasebuffer(PyObject *self, Py_buffer *Py_UNUSED(view))
{
	struct lease *lease = lease_of(CAST(record, self));

	if (lease)
		lease->exports--;
}

static PyObject *record_from_buffer(PyObject *type, PyObject *args)
{
	struct layout *layout = record_layout(type);
	struct record *record = NULL;
	Py_buffer buffer;
	Py_ssize_t offset = 0;

	if (!layout)
		return NULL;
	if (!PyArg_ParseTuple(args, "y*|n:from_buffer", &buffer, &offset))
		goto out;
	if (offset < 0 || offset > buffer.len || buffer.len - offset < layout->record_len)
		PyErr_Format(PyExc_ValueError, "%zd bytes from offset %zd are not the record's %u",
			     buffer.len, offset, (unsigned int)layout->record_len);
	else
		record = record_new((PyTypeObject *)(void *)type, layout);
	if (record)
		memcpy(record->data, (char *)buffer.buf + offset, layout->record_len);
	PyBuffer_Release(&buffer);
out:
	Py_DECREF((PyObject *)layout);
	return (PyObject *)record;
}

static PyObject *record_reduce(PyObject *self, PyObject *Py_UNUSED(ignored))
{
	PyObject *bytes = PyBytes_FromObject(self), *make, *result = NULL;

	make = PyObject_GetAttrString((PyObject *)Py_TYPE(self), "from_buffer");
	if (bytes && make)
		result = Py_BuildValue("O(O)", make, bytes);
	Py_XDECREF(make);
	Py_XDECREF(bytes);
	return result;
}

static PyMethodDef record_methods[] = {
	{ "astuple", record_astuple, METH_NOARGS, "The fields' values as a tuple." },
	{ "asdict", record_asdict, METH_NOARGS, "The fields' values by name." },
	{ "from_buffer", record_from_buffer, METH_VARARGS | METH_CLASS,
	  "from_buffer(buffer, offset=0): a record with a copy of these bytes." },
	{ "__reduce__", record_reduce, METH_NOARGS, "For pickle and copy." },
	{ NULL, NULL, 0, NULL },
};

static PyType_Slot record_slots[] = {
	{ Py_tp_new, record_tp_new },
	{ Py_tp_init, record_init },
	{ Py_tp_dealloc, record_dealloc },
	{ Py_tp_repr, record_repr },
	{ Py_tp_richcompare, record_compare },
	{ Py_tp_hash, PyObject_HashNotImplemented },
	{ Py_tp_methods, record_methods },
	{ Py_mp_subscript, record_getitem },
	{ Py_mp_ass_subscript, record_setitem },
	{ Py_bf_getbuffer, record_getbuffer },
	{ Py_bf_releasebuffer, record_releasebuffer },
	{ Py_tp_doc, "Bytes with named fields." },
	{ 0, NULL },
};

static PyType_Spec record_spec = {
	.name = "shmbroker._core.Record",
	.basicsize = offsetof(struct record, data),
	.itemsize = 1,
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
	.slots = record_slots,
};

int record_init_module(PyObject *module)
{
	layout_attribute = PyUnicode_InternFromString("__layout__");
	layout_type = core_add_type(module, &layout_spec, NULL);
	field_type = core_add_type(module, &field_spec, NULL);
	record_type = core_add_type(module, &record_spec, NULL);
	return layout_attribute && layout_type && field_type && record_type ? 0 : -1;
}
