"""Parses shmbroker.cdef with cffi and compares it with abi.json."""

import json
import sys

import cffi

ffi = cffi.FFI()
with open(sys.argv[1]) as file:
    ffi.cdef(file.read())
with open(sys.argv[2]) as file:
    abi = json.load(file)

assert ffi.sizeof("void *") == abi["pointer"]
seen = 0
for name, struct in abi["structs"].items():
    try:
        size = ffi.sizeof("struct " + name)
    except ValueError:
        continue  # a struct of protocol.h: not in the cdef
    seen += 1
    assert size == struct["size"], name
    for field, (offset, length) in struct["fields"].items():
        assert ffi.offsetof("struct " + name, field) == offset, (name, field)
lib = ffi.dlopen(None)
constants = 0
for name, value in abi["constants"].items():
    if hasattr(lib, name):
        constants += 1
        assert getattr(lib, name) == value, name
assert seen >= 20 and constants >= 50, (seen, constants)
print(f"{seen} structs and {constants} constants are the same")
