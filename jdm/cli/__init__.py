"""Commands: each parses, calls, and prints. Failures the user can mend are one line and exit status 2."""

import errno
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM}


def run_command(command: Callable[[], None]) -> None:
    """Run `command`; turn what the user can mend into one line on stderr and exit status 2, Ctrl-C into 130."""
    from jdm.errors import JdmError

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


def _refuse(reason: object) -> NoReturn:
    print(f"{Path(sys.argv[0]).name}: error: {reason}", file=sys.stderr)
    sys.exit(2)
