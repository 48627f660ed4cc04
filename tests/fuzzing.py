"""Mutated files; reading one has to end in an error of ours or a correct reading, soon and in little memory."""

from __future__ import annotations

import copy
import functools
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jdm.errors import JdmError

SECONDS = 20
"""That one file may take; the machine may be busy."""
HOLDS = 2 * 2**20
"""Bytes that a file may hold unpacked, with limits lowered to 2**16 pixels: 4 channels of 8 bytes."""
LIBRARIES = 32 * 2**20
"""Bytes for what reading takes besides: buffers of decompressors, parsed text."""

# ---------------------------------------------------------------- mutations

NUMBERS = [
    b"\0" * 2, b"\0" * 4, b"\0" * 8, b"\xff" * 2, b"\xff" * 4, b"\xff" * 8, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f",
    b"\0\0\0\x80", b"\x80\0\0\0", b"\0\0\xc0\x7f", b"\0\0\x80\x7f", b"\x01\0\0\0", b"\0\0\0\x01", b"\0\x10\0\0",
]  # fmt: skip
TOKENS = [
    b"[" * 5000, b'{"a":' * 3000, b"9" * 5000, b"-1", b"1e999", b"NaN", b"Infinity", b"null", b'"', b"\\u0000", b"\0",
    b"\xff\xfe", b"\xef\xbb\xbf", b"../", b"\n", b"\r", b",,", b"=", b"nan", b"inf", b"'''", b"1979-05-27T07:32:00Z",
]  # fmt: skip


def changes(length: int, inserted: list[bytes]) -> st.SearchStrategy:
    """Some edits of a file of this length, most of them near its beginning."""
    place = st.integers(0, min(length, 400)) | st.integers(0, length)
    return st.lists(
        st.one_of(
            st.tuples(st.just("flip"), place, st.integers(0, 7)),
            st.tuples(st.just("set"), place, st.sampled_from(NUMBERS) | st.binary(min_size=1, max_size=4)),
            st.tuples(st.just("insert"), place, st.sampled_from(inserted) | st.binary(min_size=1, max_size=4)),
            st.tuples(st.just("cut"), place, st.integers(1, 40)),
            st.tuples(st.just("repeat"), place, st.integers(1, 40)),
            st.tuples(st.just("end"), place, st.none()),
        ),
        min_size=1, max_size=4,
    )  # fmt: skip


def mutate(content: bytes, edits: list[tuple[str, int, Any]]) -> bytes:
    data = bytearray(content)
    for kind, place, value in edits:
        if kind == "flip" and place < len(data):
            data[place] ^= 1 << value
        elif kind == "set":
            data[place : place + len(value)] = value
        elif kind == "insert":
            data[place:place] = value
        elif kind == "cut":
            del data[place : place + value]
        elif kind == "repeat":
            data[place:place] = data[place : place + value]
        elif kind == "end":
            del data[place:]
    return bytes(data)


def bytes_of(content: bytes, inserted: list[bytes] = NUMBERS) -> st.SearchStrategy[bytes]:
    return changes(len(content), inserted).map(functools.partial(mutate, content))


PLAIN = st.one_of(
    st.none(), st.booleans(), st.integers(), st.sampled_from([0, 1, -1, 2**31, 2**63, 10**400]), st.floats(),
    st.text(max_size=6), st.sampled_from(["../../x", "/etc/hosts", "$HOME/x", "a", "\0", "a/b", "none", ".png"]),
)  # fmt: skip
VALUES = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def altered(draw: st.DrawFn, value: Any) -> Any:
    """A JSON value with some of its parts replaced, left out or added."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 3))):
        if not isinstance(value, dict | list) or not value:
            return draw(VALUES)
        where: Any = value
        while True:
            keys = list(where) if isinstance(where, dict) else list(range(len(where)))
            key = draw(st.sampled_from(keys))
            if isinstance(where[key], dict | list) and where[key] and draw(st.booleans()):
                where = where[key]
                continue
            break
        kind = draw(st.sampled_from(["replace", "replace", "remove", "add", "rename"]))
        if kind == "replace":
            where[key] = draw(VALUES)
        elif kind == "remove":
            del where[key]
        elif isinstance(where, list):
            where.append(draw(VALUES))
        elif kind == "add":
            where[draw(st.text(max_size=4))] = draw(VALUES)
        else:
            where[draw(st.sampled_from(["../a", "a/b", "", "A", "\0", "ignore"]))] = where.pop(key)
    return value


def json_of(value: Any) -> st.SearchStrategy[bytes]:
    """Texts of altered JSON values, and altered texts of the value."""
    text = json.dumps(value).encode()
    whole = altered(value).map(lambda changed: json.dumps(changed).encode())
    return whole | bytes_of(text, TOKENS)


# ---------------------------------------------------------------- judging

_STATUS, _PEAK = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def resident(name: str) -> int:
    """VmRSS or VmHWM of this process in bytes; 0 where Linux does not tell."""
    if not os.access(_PEAK, os.W_OK):
        return 0
    text = _STATUS.read_text()
    return int(text[text.index(name + ":") + len(name) + 1 :].split(maxsplit=1)[0]) * 1024


class Fuzz:
    """Reads mutated files, and counts what came of it."""

    def __init__(self, examples: int) -> None:
        self.examples = examples
        self.read = self.refused = self.most_memory = 0
        self.slowest = 0.0

    def __call__(self, contents: st.SearchStrategy[bytes], read: Callable[[bytes], object], named: str = "") -> None:
        """Try `examples` contents; a test may do so for several kinds.

        Args:
            read: writes the content, reads it, and asserts that what was read is right.
            named: what every error has to name.
        """

        @settings(
            max_examples=self.examples, deadline=1000 * SECONDS, database=None, derandomize=self.examples < 1000,
            print_blob=True, suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(contents)
        def check(content: bytes) -> None:
            before = resident("VmRSS")
            if before:
                _PEAK.write_text("5")  # the peak starts again from here
            started = time.perf_counter()
            try:
                read(content)
            except JdmError as error:
                assert str(error) and "\n" not in str(error) and named in str(error) and len(str(error)) < 2000
                self.refused += 1
            else:
                self.read += 1
            self.slowest = max(self.slowest, time.perf_counter() - started)
            grown = max(0, resident("VmHWM") - before)
            self.most_memory = max(self.most_memory, grown)
            assert grown < 2 * (len(content) + HOLDS) + LIBRARIES, f"{grown} bytes for a file of {len(content)}"

        refused = self.refused
        check()
        assert self.refused > refused, "nothing was refused: the mutations do not reach what is checked"

    def counts(self) -> dict[str, float]:
        """For the report."""
        return {
            "read": self.read, "refused": self.refused, "most_memory_mib": round(self.most_memory / 2**20, 1),
            "slowest_seconds": round(self.slowest, 3),
        }  # fmt: skip
