"""Commands: each parses, calls, and prints. Failures the user can mend are one line and exit status 2."""

import errno
import io
import os
import select
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM}

_TUNABLES = (
    "glibc.malloc.hugetlb=1",  # large pages where the system gives them on request
    "glibc.malloc.trim_threshold=4294967296",
    "glibc.malloc.top_pad=67108864",
    "glibc.malloc.mmap_threshold=33554432",  # the most it takes
)


def run_command(command: Callable[[], None], *, tuned_memory: bool = False) -> None:
    """Run `command`; turn what the user can mend into one line on stderr and exit status 2, Ctrl-C into 130.

    What a terminal's encoding lacks is written as \\xe9. A reader that closes its pipe, such as head, ends the command
    quietly.

    Args: tuned_memory: see `_with_tuned_memory`; for commands that call the network for long.
    """
    if tuned_memory:
        _with_tuned_memory()
    from jdm.errors import JdmError

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            command()
        finally:
            sys.stdout.flush()  # a reader that has gone is noticed here, or at the interpreter's end
    except JdmError as error:
        _refuse(error)
    except BrokenPipeError:
        if not _reader_has_gone():  # some other pipe
            raise
        sys.exit(128 + 13)  # as SIGPIPE ends a program
    except OSError as error:
        if error.errno not in _DISK:
            raise
        _refuse(
            f"cannot use {error.filename or 'the disk'}: {error.strerror}; expected room and the right to write; free "
            "space or choose another folder, and give the same command again; what is there is whole"
        )
    except MemoryError as error:
        _refuse(
            f"memory ran out ({error or 'MemoryError'}); expected enough for this data; end other programs, or work "
            "on smaller images or batches"
        )
    except KeyboardInterrupt:
        sys.exit(130)


def _reader_has_gone() -> bool:
    """Whether stdout or stderr goes to a closed pipe; such a one leads nowhere from now on, so that Python can end."""
    gone = False
    for stream in (sys.stdout, sys.stderr):
        poll = select.poll()
        poll.register(stream.fileno(), 0)
        if poll.poll(0):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            gone = True
    return gone


def _with_tuned_memory() -> None:
    """Start this command's process again with `_TUNABLES`, which glibc reads at the start only.

    On a CPU a training step frees and asks for some 100 MB. Handed back to the system each time, that was 25,000 page
    faults a step, and in pages of 4 kB a lookup for every few operations: half of the time went there.
    Other C libraries do not know the variable. Commands that are called inside another program are left alone.
    """
    found = os.environ.get("GLIBC_TUNABLES", "")
    if sys.platform != "linux" or sys.orig_argv[-len(sys.argv) :] != sys.argv:
        return
    if found.startswith(_TUNABLES[0]):  # started again already
        os.environ["GLIBC_TUNABLES"] = ":".join(_TUNABLES)  # for children: glibc 2.36 cuts what it read at the colon
    elif "glibc.malloc." not in found:
        environment = {**os.environ, "GLIBC_TUNABLES": ":".join(filter(None, (*_TUNABLES, found)))}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def _refuse(reason: object) -> NoReturn:
    print(f"{Path(sys.argv[0]).name}: error: {reason}", file=sys.stderr)
    sys.exit(2)


def with_fold(words: list[str]) -> list[str]:
    """Words of a command whose first ones are DATASET FOLD, or the path of a run's folder: then an empty FOLD."""
    if words and (Path(words[0]) / "checkpoint.safetensors").is_file():
        return [words[0], "", *words[1:]]
    return words
