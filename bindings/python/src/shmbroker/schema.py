# SPDX-License-Identifier: Apache-2.0
"""Records and schemas: named fields at the offsets that a C compiler would give them."""

import keyword
import re
import struct
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Tuple, Type, Union

from shmbroker import _core

if TYPE_CHECKING:
    import numpy
    from typing_extensions import dataclass_transform
else:

    def dataclass_transform():
        """As in typing from 3.11 on: tells type checkers what the constructor takes."""
        return lambda cls: cls


NO_PARENT = 0xFFFF
HEAD = struct.Struct("<IHHII48s")
FIELD = struct.Struct("<40sIIIHBB8x")
MAGIC = 0x31544853
FIELDS_MAX = 200
KIND_CHAR = 12
KIND_STRUCT = 13


@dataclass(frozen=True)
class Array:
    """Several elements of one type, one after the other: `u32[4]`, `char[12]`, `Leg[2]`."""

    element: Any
    count: int


def _array(element: Any, count: int) -> Array:
    if not isinstance(count, int) or count < 1:
        raise TypeError(f"the length of an array is at least 1, not {count!r}")
    return Array(element, count)


class Scalar:
    """A type of field: `u8` to `i64`, `f32`, `f64`, `bool_`, `char`. `u32[4]` is an array."""

    __slots__ = ("name", "kind", "code", "dtype", "__size__", "__align__")

    def __init__(self, name: str, kind: int, size: int, code: str, dtype: str) -> None:
        self.name = name
        self.kind = kind
        self.__size__ = self.__align__ = size
        self.code = code  # as in the module struct and PEP 3118
        self.dtype = dtype  # as in numpy

    def __getitem__(self, count: int) -> Array:
        return _array(self, count)

    def __repr__(self) -> str:
        return f"shmbroker.{self.name}"


_SCALARS = {
    kind: Scalar(name, kind, size, code, dtype)
    for kind, name, size, code, dtype in (
        (1, "u8", 1, "B", "u1"),
        (2, "i8", 1, "b", "i1"),
        (3, "u16", 2, "H", "<u2"),
        (4, "i16", 2, "h", "<i2"),
        (5, "u32", 4, "I", "<u4"),
        (6, "i32", 4, "i", "<i4"),
        (7, "u64", 8, "Q", "<u8"),
        (8, "i64", 8, "q", "<i8"),
        (9, "f32", 4, "f", "<f4"),
        (10, "f64", 8, "d", "<f8"),
        (11, "bool_", 1, "?", "?"),
        (KIND_CHAR, "char", 1, "s", "S"),
    )
}
_BY_DTYPE = {scalar.dtype: scalar for scalar in _SCALARS.values()}

if TYPE_CHECKING:
    # What an annotated field holds, as far as type checkers are concerned.
    u8 = int
    i8 = int
    u16 = int
    i16 = int
    u32 = int
    i32 = int
    u64 = int
    i64 = int
    f32 = float
    f64 = float
    bool_ = bool
    char = str
else:
    u8, i8, u16, i16, u32, i32, u64, i64, f32, f64, bool_, char = _SCALARS.values()


@dataclass(frozen=True)
class Field:
    """One field of a record.

    `type` is a Scalar or a Record class, `count` its elements, `offset` in bytes from the start
    of the record.
    """

    name: str
    type: Any
    offset: int
    count: int

    @property
    def size(self) -> int:
        """Bytes of one element."""
        return int(self.type.__size__)

    @property
    def align(self) -> int:
        """Alignment of one element in bytes."""
        return int(self.type.__align__)


class _Any:
    def __repr__(self) -> str:
        return "shmbroker.ANY"


ANY: Any = _Any()
"""As a channel's schema: whatever the channel has."""


def _encode_name(name: str, cap: int) -> bytes:
    encoded = name.encode("ascii", "replace")
    if len(encoded) >= cap:
        raise ValueError(f"name {name!r} has more than {cap - 1} characters")
    return encoded


def _entries(fields: List[Field], parent: int, first: int) -> List[bytes]:
    """The table's entries for some fields, each struct followed by its own."""
    entries: List[bytes] = []
    for field in fields:
        index = first + len(entries)
        scalar = isinstance(field.type, Scalar)
        entries.append(
            FIELD.pack(
                _encode_name(field.name, 40),
                field.offset,
                field.size,
                field.count,
                parent,
                field.type.kind if scalar else KIND_STRUCT,
                field.align,
            )
        )
        if not scalar:
            entries += _entries(field.type.__fields__, index, index + 1)
    return entries


def _table(name: str, size: int, align: int, fields: List[Field]) -> bytes:
    entries = _entries(fields, NO_PARENT, 0)
    if len(entries) > FIELDS_MAX:
        raise ValueError(f"{name!r} has {len(entries)} fields, at most {FIELDS_MAX} are possible")
    head = HEAD.pack(MAGIC, 1, len(entries), size, align, _encode_name(name, 48))
    return head + b"".join(entries)


def _format(size: int, fields: List[Field]) -> str:
    """The record as in PEP 3118, padding spelt out."""
    parts = ["T{"]
    at = 0
    for field in sorted(fields, key=lambda f: f.offset):
        if field.offset > at:
            parts.append(f"{field.offset - at}x")
        if not isinstance(field.type, Scalar):
            element = field.type.__layout__.format
            code = element if field.count == 1 else f"({field.count}){element}"
        elif field.type.kind == KIND_CHAR:
            code = f"{field.count}s"
        elif field.count == 1:
            code = "<" + field.type.code
        else:
            code = f"({field.count})<{field.type.code}"
        parts.append(f"{code}:{field.name}:")
        at = field.offset + field.size * field.count
    if size > at:
        parts.append(f"{size - at}x")
    return "".join(parts) + "}"


def _is_type(kind: Any) -> bool:
    return isinstance(kind, Scalar) or (isinstance(kind, RecordMeta) and bool(kind.__fields__))


def _round_up(number: int, align: int) -> int:
    return -(-number // align) * align


def _lay_out(annotations: Dict[str, Any]) -> Tuple[List[Field], int, int]:
    """Offsets as a C compiler gives them. Returns fields, size and alignment."""
    fields: List[Field] = []
    at, align = 0, 1
    for name, kind in annotations.items():
        # Annotated[Tuple[int, ...], u32[4]]: what type checkers understand, then what we do.
        for meta in getattr(kind, "__metadata__", ()):
            if isinstance(meta, Array) or _is_type(meta):
                kind = meta
        array = kind if isinstance(kind, Array) else Array(kind, 1)
        if not _is_type(array.element):
            raise TypeError(f"field {name!r}: {kind!r} is no type of a field")
        at = _round_up(at, array.element.__align__)
        fields.append(Field(name, array.element, at, array.count))
        at += array.element.__size__ * array.count
        align = max(align, array.element.__align__)
    return fields, _round_up(at, align), align


def _annotations(name: str, namespace: Dict[str, Any]) -> Dict[str, Any]:
    """A class body's annotations, as objects."""
    found = namespace.get("__annotations__")
    if found is None and sys.version_info >= (3, 14):
        import annotationlib

        annotate = annotationlib.get_annotate_from_class_namespace(namespace)
        found = annotationlib.call_annotate_function(annotate, 1) if annotate else None
    module = sys.modules.get(namespace.get("__module__", ""))
    scope = vars(module) if module else {}
    result = {}
    for field, kind in (found or {}).items():
        if isinstance(kind, str):
            try:
                kind = eval(kind, scope, namespace)  # pylint: disable=eval-used
            except NameError as error:
                raise TypeError(f"{name}.{field}: {error}") from None
        result[field] = kind
    return result


class RecordMeta(type):
    """Class of Record classes: makes the layout."""

    __fields__: Tuple[Field, ...]
    __layout__: _core.Layout
    __schema_name__: str
    __size__: int
    __align__: int

    def __new__(
        mcs,
        class_name: str,
        bases: Tuple[type, ...],
        namespace: Dict[str, Any],
        name: Optional[str] = None,
        **kwargs: Any,
    ) -> "RecordMeta":
        """`name` is what the type is called in every language, by default the class's name."""
        annotations = _annotations(class_name, namespace)
        taken = [base for base in bases if getattr(base, "__fields__", ())]
        if taken and annotations:
            raise TypeError(f"{taken[0].__name__} has fields already: put it into a field instead")
        namespace = dict(namespace, __slots__=())
        if not annotations:
            return super().__new__(mcs, class_name, bases, namespace, **kwargs)
        for field in annotations:
            if field in namespace:
                raise TypeError(f"field {field!r} cannot have a default")
            if field.startswith("__") or hasattr(Record, field):
                raise TypeError(f"a field cannot be called {field!r}")
        return mcs._make(class_name, bases, namespace, name or class_name, *_lay_out(annotations))

    @classmethod
    def _make(
        mcs,
        class_name: str,
        bases: Tuple[type, ...],
        namespace: Dict[str, Any],
        name: str,
        fields: List[Field],
        size: int,
        align: int,
    ) -> "RecordMeta":
        classes = tuple(field.type for field in fields if not isinstance(field.type, Scalar))
        layout = _core.Layout(
            _table(name, size, align, fields), classes, _format(size, fields).encode()
        )
        namespace = dict(namespace)
        for index, field in enumerate(fields):
            # Of a channel's own schema, a name may be anything: record["__class__"] works.
            if not field.name.startswith("__") and not hasattr(Record, field.name):
                namespace[field.name] = _core.Field(layout, index)
        namespace.update(
            __slots__=(),
            __fields__=tuple(fields),
            __layout__=layout,
            __schema_name__=name,
            __size__=size,
            __align__=align,
        )
        return super().__new__(mcs, class_name, bases, namespace)

    def __init__(cls, class_name: str, bases: Any, namespace: Any, **kwargs: Any) -> None:
        super().__init__(class_name, bases, namespace)

    def __getitem__(cls, count: int) -> Array:
        return _array(cls, count)

    @property
    def schema(cls) -> bytes:
        """The schema table, the same bytes in every language."""
        return cls.__layout__.table

    @property
    def dtype(cls) -> "numpy.dtype[Any]":
        """The numpy dtype with the same layout."""
        return dtype_of(cls)


@dataclass_transform()
class Record(_core.Record, metaclass=RecordMeta):
    """Base of record types: bytes laid out as by a C compiler, with named fields.

    ::

        class Tick(shmbroker.Record, name="market.tick"):
            time_ns: shmbroker.u64
            price: shmbroker.f64
            symbol: shmbroker.char[12]
            levels: shmbroker.u32[4]

        tick = Tick(time_ns=1, price=2.0, symbol="ABC")

    Fields that are not given are zero. Arrays read as tuples and are assigned whole; `char[n]` is
    text in UTF-8, padded with NUL; a nested Record is a view of its part. `tick["price"]` works
    for any name. bytes(tick) and memoryview(tick) give the bytes, Tick.from_buffer() a record
    with a copy of some. A number that does not fit raises OverflowError, text too long
    ValueError.
    """

    __fields__ = ()


def _class_name(name: str) -> str:
    word = re.sub(r"\W", "_", name.rpartition("/")[2].rpartition(".")[2])
    if not word.isidentifier() or keyword.iskeyword(word):
        word = "Record_" + word
    return word[:1].upper() + word[1:]


def _subtable(entries: List[Tuple[Any, ...]], parent: int) -> List[Field]:
    fields = []
    for index, (name, offset, size, count, of, kind, align) in enumerate(entries):
        if of != parent:
            continue
        text = name.rstrip(b"\0").decode()
        kind_type: Any = _SCALARS.get(kind)
        if kind == KIND_STRUCT:
            kind_type = RecordMeta._make(
                _class_name(text), (Record,), {}, text, _subtable(entries, index), size, align
            )
        fields.append(Field(text, kind_type, offset, count))
    return fields


def record_from_schema(table: bytes) -> Type[Record]:
    """A Record class for a schema table, as a channel or a file has it.

    Invalid: the bytes are no schema; ValueError: the same, too short to tell.
    """
    _core.schema_check(table)
    _, _, n_fields, size, align, name = HEAD.unpack_from(table)
    entries = [FIELD.unpack_from(table, HEAD.size + i * FIELD.size) for i in range(n_fields)]
    text = name.rstrip(b"\0").decode()
    fields = _subtable(entries, NO_PARENT)
    made = RecordMeta._make(_class_name(text), (Record,), {}, text, fields, size, align)
    return made  # type: ignore[return-value]


def dtype_of(record: RecordMeta) -> "numpy.dtype[Any]":
    """The numpy dtype with the layout of a Record class."""
    import numpy

    formats: List[Any] = []
    for field in record.__fields__:
        if not isinstance(field.type, Scalar):
            element: Any = dtype_of(field.type)
        elif field.type.kind == KIND_CHAR:
            formats.append(f"S{field.count}")
            continue
        else:
            element = field.type.dtype
        formats.append(element if field.count == 1 else (element, (field.count,)))
    return numpy.dtype(
        {
            "names": [field.name for field in record.__fields__],
            "formats": formats,
            "offsets": [field.offset for field in record.__fields__],
            "itemsize": record.__size__,
        }
    )


def record_from_dtype(dtype: "numpy.dtype[Any]", name: str) -> Type[Record]:
    """A Record class with the layout of a structured numpy dtype.

    ValueError: the dtype has no fields, or types, offsets or byte orders that C does not have;
    numpy.dtype(..., align=True) lays out as C does.
    """
    if dtype.names is None:
        raise ValueError(f"{dtype!r} has no fields")
    fields, align = [], 1
    for field_name in dtype.names:
        kind, offset = dtype.fields[field_name][:2]  # type: ignore[index]
        count = 1
        if kind.subdtype is not None:
            kind, shape = kind.subdtype
            if len(shape) != 1 or kind.char == "S":
                raise ValueError(f"field {field_name!r}: an array of arrays is no type of a field")
            count = shape[0]
        if kind.names is not None:
            element: Any = record_from_dtype(kind, field_name)
        elif kind.char == "S":
            element, count = _SCALARS[KIND_CHAR], kind.itemsize
        else:
            element = _BY_DTYPE.get(kind.newbyteorder("<").str.replace("|", "").replace("b1", "?"))
            if element is None or (kind.itemsize > 1 and kind.str[0] != "<"):
                raise ValueError(f"field {field_name!r}: {kind!r} is no type of a field")
        field = Field(field_name, element, offset, count)
        if offset % field.align:
            raise ValueError(
                f"field {field_name!r} at {offset} is not aligned to {field.align}: make the dtype "
                "with align=True"
            )
        fields.append(field)
        align = max(align, field.align)
    made = RecordMeta._make(_class_name(name), (Record,), {}, name, fields, dtype.itemsize, align)
    return made  # type: ignore[return-value]


Schema = Union[None, Type[Record], bytes, "numpy.dtype[Any]"]


def resolve(schema: Any, channel: str) -> Tuple[Optional[Type[Record]], bool]:
    """What a channel's schema argument means: a Record class or None, and is it numpy's?"""
    if schema is None or schema is ANY:
        return None, False
    if isinstance(schema, RecordMeta):
        if not schema.__fields__:
            raise TypeError(f"{schema!r} has no fields")
        return schema, False  # type: ignore[return-value]
    if isinstance(schema, (bytes, bytearray)):
        return record_from_schema(bytes(schema)), False
    if type(schema).__module__.partition(".")[0] == "numpy" or hasattr(schema, "fields"):
        return record_from_dtype(schema, channel), True
    raise TypeError(f"{schema!r} is no Record class, numpy dtype, schema table, ANY or None")
