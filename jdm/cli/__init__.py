"""Commands: each parses, calls, and prints. Failures the user can mend are one line and exit status 2."""

import ctypes
import errno
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM}


def run_command(command: Callable[[], None]) -> None:
    """Run `command`; turn what the user can mend into one line on stderr and exit status 2, Ctrl-C into 130."""
    from jdm.errors import JdmError

    _keep_freed_memory()
    try:
        command()
    except JdmError as error:
        _refuse(error)
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


def _keep_freed_memory() -> None:
    """Keep freed memory for the next allocation instead of handing it back, where the C library is glibc.

    A training step on a CPU frees and asks for some 100 MB; 25,000 page faults a step took about a tenth of its time.
    """
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # malloc.h
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    for option, value in ((trim_threshold, 2**31 - 1), (top_pad, 2**26), (mmap_threshold, 2**25)):
        set_option(option, value)


def _refuse(reason: object) -> NoReturn:
    print(f"{Path(sys.argv[0]).name}: error: {reason}", file=sys.stderr)
    sys.exit(2)
