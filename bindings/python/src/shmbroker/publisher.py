# SPDX-License-Identifier: Apache-2.0
"""Publishers write records; see _core.pyi for the methods, which are all in C."""

from shmbroker import _core


class Publisher(_core.Publisher):
    """Writes records into a lane of its own. Made by Channel.publisher().

    For one thread at a time; close it, or use it with `with`.
    """

    __slots__ = ()
