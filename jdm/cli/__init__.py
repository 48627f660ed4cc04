"""Commands: each parses, calls, and prints. Failures the user can mend are one line and exit status 2."""

import sys
from collections.abc import Callable
from pathlib import Path


def run_command(command: Callable[[], None]) -> None:
    """Run `command`; turn what the user can mend into one line on stderr and exit status 2, Ctrl-C into 130."""
    from jdm.errors import JdmError

    try:
        command()
    except JdmError as error:
        print(f"{Path(sys.argv[0]).name}: error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
