# SPDX-License-Identifier: Apache-2.0
"""Records: fields, conversions, views of parts, buffers, copies."""

import copy
import gc
import math
import pickle
import sys
import unittest
from typing import Tuple

import shmbroker
from support import Everything, Leg, Tick

try:
    from typing import Annotated
except ImportError:
    Annotated = None


class Scalars(unittest.TestCase):
    def test_values_and_keywords(self):
        tick = Tick(1, price=2.5)
        self.assertEqual((tick.time_ns, tick.price), (1, 2.5))
        self.assertEqual(tick.astuple(), (1, 2.5))
        self.assertEqual(tick.asdict(), {"time_ns": 1, "price": 2.5})
        self.assertEqual(tick["price"], 2.5)
        tick["price"] = 3
        self.assertEqual(tick.price, 3.0)

    def test_starts_with_zeroes(self):
        self.assertEqual(bytes(Everything()), bytes(Everything.__size__))

    def test_bad_arguments(self):
        for arguments, keywords in (((1, 2, 3), {}), ((1,), {"time_ns": 1}), ((), {"x": 1})):
            with self.assertRaises(TypeError):
                Tick(*arguments, **keywords)
        with self.assertRaises(KeyError):
            Tick()["x"]
        with self.assertRaises(KeyError):
            Tick()["x"] = 1
        with self.assertRaises(AttributeError):
            Tick().x = 1
        with self.assertRaises(AttributeError):
            del Tick().price
        with self.assertRaises(TypeError):
            del Tick()["price"]

    def test_limits(self):
        limits = {
            "a": (0, 2**8 - 1),
            "b": (-(2**7), 2**7 - 1),
            "c": (0, 2**16 - 1),
            "d": (-(2**15), 2**15 - 1),
            "e": (0, 2**32 - 1),
            "f": (-(2**31), 2**31 - 1),
            "g": (0, 2**64 - 1),
            "h": (-(2**63), 2**63 - 1),
        }
        record = Everything()
        for name, (low, high) in limits.items():
            for good in (low, high, 1):
                record[name] = good
                self.assertEqual(record[name], good)
            for bad in (low - 1, high + 1, 2**70, -(2**70)):
                with self.assertRaisesRegex(OverflowError, f"field '{name}' is .*{bad}"):
                    record[name] = bad
                self.assertEqual(record[name], 1)
            for bad in (1.5, "1", None):
                with self.assertRaises(TypeError):
                    record[name] = bad

    def test_index_objects(self):
        class Three:
            def __index__(self):
                return 3

        self.assertEqual(Tick(Three()).time_ns, 3)

    def test_floats(self):
        record = Everything(i=0.1, j=0.1)
        self.assertEqual(record.j, 0.1)
        self.assertNotEqual(record.i, 0.1)
        self.assertAlmostEqual(record.i, 0.1, 6)
        with self.assertRaisesRegex(OverflowError, "field 'i' is f32"):
            record.i = 1e39
        record.i = math.inf
        self.assertEqual(record.i, math.inf)
        record.j = 3
        self.assertEqual(record.j, 3.0)
        with self.assertRaises(TypeError):
            record.j = "3"

    def test_bool(self):
        record = Everything(k=[1])
        self.assertIs(record.k, True)
        record.k = 0
        self.assertIs(record.k, False)
        raw = bytearray(bytes(record))
        raw[next(f.offset for f in Everything.__fields__ if f.name == "k")] = 77
        self.assertIs(Everything.from_buffer(raw).k, True)


class Text(unittest.TestCase):
    def test_text(self):
        record = Everything(m="x", text="a\u20acb")
        self.assertEqual((record.m, record.text), ("x", "a\u20acb"))
        record.text = b"bytes"
        self.assertEqual(record.text, "bytes")
        record.text = "twelve bytes"
        self.assertEqual(record.text, "twelve bytes")
        record.text = ""
        self.assertEqual(record.text, "")

    def test_not_utf8(self):
        record = Everything(text=b"\xff\xfe")
        self.assertEqual(record.text.encode("utf-8", "surrogateescape"), b"\xff\xfe")
        self.assertEqual(Everything(text=record.text), record)

    def test_too_long(self):
        with self.assertRaisesRegex(ValueError, "'text' has room for 12 bytes"):
            Everything(text="thirteen byte")
        with self.assertRaisesRegex(TypeError, "'text' is text"):
            Everything(text=5)


class Parts(unittest.TestCase):
    def test_arrays(self):
        record = Everything(levels=[1, 2, 3, 4])
        self.assertEqual(record.levels, (1, 2, 3, 4))
        record.levels = range(4)
        self.assertEqual(record.levels, (0, 1, 2, 3))
        with self.assertRaisesRegex(ValueError, "'levels' has 4 elements, not 3"):
            record.levels = (1, 2, 3)
        with self.assertRaises(OverflowError):
            record.levels = (1, 2, 3, -1)
        with self.assertRaises(TypeError):
            record.levels = 4

    def test_nested(self):
        record = Everything(leg=Leg(1, 2.0, 3))
        leg = record.leg
        self.assertEqual(leg, Leg(1, 2.0, 3))
        leg.ratio = 4.0
        self.assertEqual(record.leg.ratio, 4.0)
        self.assertEqual(bytes(leg), bytes(Leg(1, 4.0, 3)))
        with self.assertRaises(TypeError):
            record.leg = Tick()
        record.legs = (Leg(1), Leg(2))
        record.legs[1].side = 9
        self.assertEqual(record.legs, (Leg(1), Leg(2, side=9)))
        record.legs = reversed(record.legs)
        self.assertEqual(record.legs[0].id, 2)

    def test_a_part_keeps_the_whole(self):
        leg = Everything(leg=Leg(1, 2.0, 3)).leg
        gc.collect()
        self.assertEqual(leg, Leg(1, 2.0, 3))

    def test_a_field_of_another_class(self):
        field = vars(Everything)["g"]
        with self.assertRaisesRegex(TypeError, "another Record class"):
            field.__get__(Tick(), Tick)
        with self.assertRaises(TypeError):
            field.__set__(Leg(), 1)
        with self.assertRaises(TypeError):
            field.__get__(5, int)


class Protocols(unittest.TestCase):
    def test_repr(self):
        self.assertEqual(repr(Tick(1, 2.0)), "Tick(time_ns=1, price=2.0)")
        self.assertIn("leg=Leg(id=0, ratio=0.0, side=0)", repr(Everything()))

    def test_equality(self):
        self.assertEqual(Tick(1, 2.0), Tick(1, 2.0))
        self.assertNotEqual(Tick(1, 2.0), Tick(1, 3.0))
        self.assertNotEqual(Tick(0, math.nan), Tick(0, math.nan))
        self.assertEqual(Tick(0, 0.0), Tick(0, -0.0))
        self.assertNotEqual(Tick(), Leg())
        self.assertNotEqual(Tick(), 5)
        with self.assertRaises(TypeError):
            hash(Tick())
        with self.assertRaises(TypeError):
            Tick() < Tick()

    def test_padding_does_not_count(self):
        raw = bytearray(bytes(Leg(1)))
        raw[-1] = 255
        self.assertEqual(Leg.from_buffer(raw), Leg(1))

    def test_copies(self):
        record = Everything(1, leg=Leg(2), text="abc")
        for twin in (
            copy.copy(record),
            copy.deepcopy(record),
            pickle.loads(pickle.dumps(record)),
            Everything.from_buffer(bytes(record)),
            Everything.from_buffer(b"12" + bytes(record) + b"3", 2),
        ):
            self.assertEqual(twin, record)
            self.assertIsNot(twin, record)
            twin.a = 9
            self.assertEqual(record.a, 1)
        self.assertEqual(copy.copy(record.leg), Leg(2))

    def test_from_buffer_bounds(self):
        for size, offset in ((0, 0), (15, 0), (16, 1), (16, -1), (16, 17), (16, 2**62)):
            with self.assertRaises(ValueError):
                Tick.from_buffer(bytes(size), offset)
        with self.assertRaises(TypeError):
            Tick.from_buffer(5)

    def test_buffer(self):
        tick = Tick(1, 2.0)
        view = memoryview(tick)
        self.assertEqual(len(view), 16)
        view[0] = 7
        self.assertEqual(tick.time_ns, 7)

    def test_instances_are_bare(self):
        self.assertFalse(hasattr(Tick(), "__dict__"))
        self.assertLessEqual(sys.getsizeof(Tick()), 80)

    def test_methods_and_subclasses(self):
        class Trade(shmbroker.Record):
            price: shmbroker.f64
            count: shmbroker.u32

            def value(self):
                return self.price * self.count

        class Sale(Trade):
            def value(self):
                return -super().value()

        self.assertEqual(Trade(2.0, 3).value(), 6.0)
        self.assertEqual(Sale(2.0, 3).value(), -6.0)
        self.assertEqual(Sale.schema, Trade.schema)
        self.assertEqual(Sale(2.0, 3), Trade(2.0, 3))


class Classes(unittest.TestCase):
    def test_no_fields(self):
        for cls in (shmbroker.Record, type("Bare", (shmbroker.Record,), {})):
            with self.assertRaisesRegex(TypeError, "no Record class with fields"):
                cls()

    def refused(self, annotations, why, **namespace):
        namespace = dict(namespace, __annotations__=annotations, __module__=__name__)
        with self.assertRaisesRegex(TypeError, why):
            type(shmbroker.Record)("Bad", (shmbroker.Record,), namespace)

    def test_bad_classes(self):
        u32 = shmbroker.u32
        self.refused({"a": int}, "is no type of a field")
        self.refused({"a": shmbroker.Record}, "is no type of a field")
        self.refused({"a": u32}, "cannot have a default", a=1)
        self.refused({"astuple": u32}, "cannot be called 'astuple'")
        self.refused({"__class__": u32}, "cannot be called '__class__'")
        self.refused({"a": "nothing.at.all"}, "Bad.a: name 'nothing' is not defined")
        for count in (0, -1, 1.5, "4"):
            with self.assertRaises(TypeError):
                u32[count]
        with self.assertRaisesRegex(TypeError, "Tick has fields already"):

            class More(Tick):
                more: shmbroker.u8

    def test_strings_and_annotated(self):
        class Words(shmbroker.Record):
            a: "shmbroker.u16"
            b: "Leg[2]"
            c: Annotated[Tuple[int, ...], shmbroker.u32[3]]

        self.assertEqual([f.offset for f in Words.__fields__], [0, 4, 28])
        self.assertEqual(Words(c=(1, 2, 3)).c, (1, 2, 3))


if __name__ == "__main__":
    unittest.main()
