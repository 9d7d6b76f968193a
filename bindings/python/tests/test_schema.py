# SPDX-License-Identifier: Apache-2.0
"""Schemas: the C macros' bytes, classes from tables, numpy's dtypes."""

import os
import struct
import subprocess
import tempfile
import unittest

import shmbroker
from support import HERE, Everything, Leg, Tick, numpy


def everything():
    return Everything(
        200, -100, 60000, -30000, 4000000000, -2000000000, 18 * 10**18, -9 * 10**18, 1.5, 0.1, True,
        "x", "twelve bytes", (1, 2, 3, 4), Leg(5, 2.5, 6), (Leg(7, 3.5, 8), Leg(9, 4.5, 10)),
    )  # fmt: skip


class Golden(unittest.TestCase):
    """The bytes are those of a C compiler."""

    @classmethod
    def setUpClass(cls):
        with tempfile.TemporaryDirectory() as directory:
            program = os.path.join(directory, "golden")
            compiler = os.environ.get("CC", "cc").split()
            flags = os.environ.get("SHMBROKER_CFLAGS", "").split()
            source = os.path.join(HERE, "golden.c")
            subprocess.run([*compiler, "-std=gnu11", *flags, source, "-o", program], check=True)
            cls.golden = subprocess.run([program], check=True, stdout=subprocess.PIPE).stdout

    def test_tables_and_record(self):
        at = 0
        for part in (Leg.schema, Tick.schema, Everything.schema, bytes(everything())):
            self.assertEqual(self.golden[at : at + len(part)], part)
            at += len(part)
        self.assertEqual(at, len(self.golden))

    def test_reads_what_c_wrote(self):
        self.assertEqual(Everything.from_buffer(self.golden[-Everything.__size__ :]), everything())


class FromTable(unittest.TestCase):
    def test_round_trip(self):
        for cls in (Leg, Tick, Everything):
            made = shmbroker.record_from_schema(cls.schema)
            self.assertEqual(made.schema, cls.schema)
            self.assertEqual(made.__layout__.format, cls.__layout__.format)
        record = made.from_buffer(everything())
        self.assertEqual(record.leg.ratio, 2.5)
        self.assertEqual(record, everything())
        self.assertEqual(made.__name__, "Everything")

    def test_bad_tables(self):
        good = Tick.schema
        for bad in (b"", good[:-1], good + b"x", b"x" + good[1:], bytes(len(good))):
            with self.assertRaises(shmbroker.Invalid):
                shmbroker.record_from_schema(bad)
        with self.assertRaisesRegex(shmbroker.Invalid, "field 'price' at 0 overlaps 'time_ns'"):
            shmbroker.record_from_schema(good[:168] + struct.pack("<I", 0) + good[172:])

    def table(self, name, *fields):
        head = struct.pack("<IHHII48s", 0x31544853, 1, len(fields), len(fields), 1, name)
        return head + b"".join(
            struct.pack("<40sIIIHBB8x", field, i, 1, 1, 0xFFFF, 1, 1)
            for i, field in enumerate(fields)
        )

    def test_any_name(self):
        # A stranger's channel may have any of these; none may change what a record does.
        names = (b"__class__", b"__init__", b"astuple", b"class", b"0", b"_", b"plain")
        made = shmbroker.record_from_schema(self.table(b"9:import/-", *names))
        record = made.from_buffer(bytes(range(1, 8)))
        self.assertIs(type(record), made)
        self.assertEqual(record.astuple(), tuple(range(1, 8)))
        for i, name in enumerate(names):
            self.assertEqual(record[name.decode()], i + 1)
        self.assertEqual(record.plain, 7)
        self.assertTrue(made.__name__.isidentifier())

    def test_too_many_fields(self):
        annotations = {f"f{i}": shmbroker.u8 for i in range(201)}
        with self.assertRaisesRegex(ValueError, "201 fields"):
            type(shmbroker.Record)("Big", (shmbroker.Record,), {"__annotations__": annotations})

    def test_names(self):
        with self.assertRaisesRegex(ValueError, "more than 47"):

            class Long(shmbroker.Record, name="x" * 48):
                a: shmbroker.u8

        with self.assertRaisesRegex(shmbroker.Invalid, "schema's name"):

            class Odd(shmbroker.Record, name="a b"):
                a: shmbroker.u8

        with self.assertRaisesRegex(shmbroker.Invalid, "name of field 0"):

            class Umlaut(shmbroker.Record):
                ä: shmbroker.u8


@unittest.skipUnless(numpy, "numpy is not installed")
class Numpy(unittest.TestCase):
    def test_dtype(self):
        dtype = Everything.dtype
        self.assertEqual(dtype.itemsize, Everything.__size__)
        row = numpy.frombuffer(everything(), dtype)[0]
        self.assertEqual(row["g"], 18 * 10**18)
        self.assertEqual(row["text"], b"twelve bytes")
        self.assertEqual(row["legs"]["ratio"].tolist(), [3.5, 4.5])
        self.assertEqual(row["levels"].tolist(), [1, 2, 3, 4])

    def test_round_trip(self):
        for cls in (Leg, Tick, Everything):
            made = shmbroker.record_from_dtype(cls.dtype, cls.__schema_name__)
            self.assertEqual(made.schema, cls.schema)
            self.assertEqual(made.dtype, cls.dtype)

    def test_aligned_dtype(self):
        dtype = numpy.dtype([("a", "u1"), ("b", "f8"), ("c", "i2", (3,))], align=True)
        made = shmbroker.record_from_dtype(dtype, "x")
        self.assertEqual([f.offset for f in made.__fields__], [0, 8, 16])
        self.assertEqual(made.__size__, 24)

    def test_bad_dtypes(self):
        for dtype, why in (
            (numpy.dtype("f8"), "has no fields"),
            (numpy.dtype([("a", "u1"), ("b", "f8")]), "'b' at 1 is not aligned to 8"),
            (numpy.dtype([("a", ">u4")]), "no type of a field"),
            (numpy.dtype([("a", "f2")]), "no type of a field"),
            (numpy.dtype([("a", "U4")]), "no type of a field"),
            (numpy.dtype([("a", "O")]), "no type of a field"),
            (numpy.dtype([("a", "c16")]), "no type of a field"),
            (numpy.dtype([("a", "M8[s]")]), "no type of a field"),
            (numpy.dtype([("a", "u4", (2, 2))]), "array of arrays"),
            (numpy.dtype([("a", "S4", (2,))]), "array of arrays"),
        ):
            with self.assertRaisesRegex(ValueError, why):
                shmbroker.record_from_dtype(dtype, "x")


if __name__ == "__main__":
    unittest.main()
