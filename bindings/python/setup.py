# SPDX-License-Identifier: Apache-2.0
"""Builds the package against libshmbroker.

The library is found in the build tree $SHMBROKER_BUILDDIR, else under $SHMBROKER_PREFIX, else by
pkg-config. Needs setuptools, a C compiler and Python's headers, nothing from the network.
"""

import os
import re
import shlex
import subprocess
import sys
import sysconfig

from setuptools import Extension, setup

HERE = os.path.dirname(os.path.abspath(__file__))
# From 3.11 the limited API has the buffer protocol: one binary for all versions from there on.
LIMITED = sys.version_info >= (3, 11) and not sysconfig.get_config_var("Py_GIL_DISABLED")


def version():
    with open(os.path.join(HERE, "src", "shmbroker", "__init__.py"), encoding="utf-8") as file:
        return re.search(r'__version__ = "(.*)"', file.read()).group(1)


def pkg_config(*arguments):
    command = [os.environ.get("PKG_CONFIG", "pkg-config"), *arguments, "libshmbroker"]
    return shlex.split(
        subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    )


def library():
    """How to find libshmbroker: arguments for Extension."""
    builddir = os.environ.get("SHMBROKER_BUILDDIR")
    prefix = os.environ.get("SHMBROKER_PREFIX")
    if builddir:
        libs = os.path.join(builddir, "lib", ".libs")
        source = os.path.join(HERE, "..", "..", "include")
        return {
            "include_dirs": [os.path.normpath(source), os.path.join(builddir, "include")],
            "library_dirs": [libs],
            "runtime_library_dirs": [libs],
            "libraries": ["shmbroker"],
        }
    if prefix:
        libs = os.path.join(prefix, "lib")
        return {
            "include_dirs": [os.path.join(prefix, "include")],
            "library_dirs": [libs],
            "runtime_library_dirs": [libs],
            "libraries": ["shmbroker"],
        }
    return {
        "extra_compile_args": pkg_config("--cflags"),
        "extra_link_args": pkg_config("--libs"),
    }


def extension():
    arguments = library()
    warnings = ["-std=gnu11", "-Wall", "-Wextra", "-fvisibility=hidden"]
    arguments["extra_compile_args"] = arguments.get("extra_compile_args", []) + warnings
    sources = ["call", "client", "lease", "module", "publisher", "queue", "record", "state"]
    sources += ["subscriber"]
    sources += ["waitset"]
    return Extension(
        "shmbroker._core",
        [f"src/_core/{name}.c" for name in sources],
        depends=["src/_core/core.h"],
        py_limited_api=LIMITED,
        define_macros=[("Py_LIMITED_API", "0x030B0000")] if LIMITED else [],
        **arguments,
    )


setup(
    name="shmbroker",
    version=version(),
    description="Shared-memory channels between processes of any language",
    license="Apache-2.0",
    python_requires=">=3.9",
    package_dir={"": "src"},
    packages=["shmbroker"],
    package_data={"shmbroker": ["py.typed", "*.pyi"]},
    ext_modules=[extension()],
    zip_safe=False,
)
