# SPDX-License-Identifier: Apache-2.0
"""Makes wheels (PEP 517) from what setup.py builds.

setuptools' own backend wants the package wheel, which neither a new venv nor a plain Debian has;
this one wants nothing, so that installing works without a network.
"""

import base64
import hashlib
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
import zipfile

HERE = os.path.dirname(os.path.abspath(__file__))


def _read(*path):
    with open(os.path.join(HERE, *path), encoding="utf-8") as file:
        return file.read()


def _tag(files):
    platform = re.sub(r"[-.]", "_", sysconfig.get_platform())
    if any(name.endswith(".abi3.so") for name in files):
        return f"cp311-abi3-{platform}"
    version = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    return f"{version}-{version}{sys.abiflags}-{platform}"


def _metadata(version):
    return (
        f"Metadata-Version: 2.1\nName: shmbroker\nVersion: {version}\n"
        "Summary: Shared-memory channels between processes of any language\n"
        "License: Apache-2.0\nRequires-Python: >=3.9\n"
        "Description-Content-Type: text/markdown\n\n" + _read("README.md")
    )


def _record(contents, info):
    lines = []
    for name, data in contents.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(data)}\n")
    return "".join(lines) + f"{info}/RECORD,,\n"


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    """Build the package into a wheel. Returns its file name."""
    version = re.search(r'__version__ = "(.*)"', _read("src", "shmbroker", "__init__.py")).group(1)
    info = f"shmbroker-{version}.dist-info"
    contents = {}
    with tempfile.TemporaryDirectory() as directory:
        lib = os.path.join(directory, "lib")
        base = os.path.join(directory, "base")
        command = ["setup.py", "-q", "build", "--build-base", base, "--build-lib", lib]
        subprocess.run([sys.executable, *command], cwd=HERE, check=True)
        package = os.path.join(lib, "shmbroker")
        for name in sorted(os.listdir(package)):
            if os.path.isfile(os.path.join(package, name)):
                with open(os.path.join(package, name), "rb") as file:
                    contents[f"shmbroker/{name}"] = file.read()
    tag = _tag(contents)
    wheel = f"Wheel-Version: 1.0\nGenerator: shmbroker\nRoot-Is-Purelib: false\nTag: {tag}\n"
    contents[f"{info}/METADATA"] = _metadata(version).encode()
    contents[f"{info}/WHEEL"] = wheel.encode()
    contents[f"{info}/RECORD"] = _record(contents, info).encode()
    file_name = f"shmbroker-{version}-{tag}.whl"
    path = os.path.join(wheel_directory, file_name)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    return file_name


def build_sdist(sdist_directory, config_settings=None):
    """Source distributions are left to setuptools."""
    from setuptools import build_meta

    return build_meta.build_sdist(sdist_directory, config_settings)
