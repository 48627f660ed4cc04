"""Commands: each parses, calls, and prints. Errors that the user can fix are one line with exit status 2."""

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
    "glibc.malloc.hugetlb=1",  # large pages, if the system provides them on request
    "glibc.malloc.trim_threshold=4294967296",
    "glibc.malloc.top_pad=67108864",
    "glibc.malloc.mmap_threshold=33554432",  # glibc's maximum
)


def run_command(command: Callable[[], None], *, tuned_memory: bool = False) -> None:
    """Run `command`; an error that the user can fix is one line on stderr and exit status 2, Ctrl-C is 130.

    Characters that the terminal cannot encode are printed as \\xe9. If the reader closes the pipe (such as head), the
    command ends quietly.

    Args: tuned_memory: see `_with_tuned_memory`; for commands that run the network for long.
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
            sys.stdout.flush()  # otherwise a closed pipe is noticed only when the interpreter exits
    except JdmError as error:
        _refuse(error)
    except BrokenPipeError:
        if not _reader_has_gone():  # a pipe other than stdout and stderr
            raise
        sys.exit(128 + 13)  # the exit status after SIGPIPE
    except OSError as error:
        if error.errno not in _DISK:
            raise
        _refuse(
            f"cannot use {error.filename or 'the disk'}: {error.strerror}; expected free space and write permission; "
            "free space or choose another folder, and repeat the command; existing files are intact"
        )
    except MemoryError as error:
        _refuse(
            f"memory ran out ({error or 'MemoryError'}); expected enough for this data; close other programs, or use "
            "smaller images or batches"
        )
    except KeyboardInterrupt:
        sys.exit(130)


def _reader_has_gone() -> bool:
    """Whether stdout or stderr is a closed pipe; redirects it to os.devnull, so that Python can exit."""
    gone = False
    for stream in (sys.stdout, sys.stderr):
        poll = select.poll()
        poll.register(stream.fileno(), 0)
        if poll.poll(0):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            gone = True
    return gone


def _with_tuned_memory() -> None:
    """Restart this process with `_TUNABLES`, which glibc reads only at startup.

    On a CPU, each training step frees and allocates some 100 MB. Returning them to the system each time caused 25,000
    page faults per step, and 4 kB pages caused a page lookup every few operations: half of the time was spent on both.
    Other C libraries ignore the variable. Commands called from another program are not restarted.
    """
    found = os.environ.get("GLIBC_TUNABLES", "")
    if sys.platform != "linux" or sys.orig_argv[-len(sys.argv) :] != sys.argv:
        return
    if found.startswith(_TUNABLES[0]):  # already restarted
        os.environ["GLIBC_TUNABLES"] = ":".join(_TUNABLES)  # for children: glibc 2.36 truncates it at the first colon
    elif "glibc.malloc." not in found:
        environment = {**os.environ, "GLIBC_TUNABLES": ":".join(filter(None, (*_TUNABLES, found)))}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def _refuse(reason: object) -> NoReturn:
    print(f"{Path(sys.argv[0]).name}: error: {reason}", file=sys.stderr)
    sys.exit(2)


def with_fold(words: list[str]) -> list[str]:
    """Arguments that begin with DATASET FOLD; if they begin with a run's folder, an empty FOLD is inserted."""
    if words and (Path(words[0]) / "checkpoint.safetensors").is_file():
        return [words[0], "", *words[1:]]
    return words
