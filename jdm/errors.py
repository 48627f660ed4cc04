"""The few kinds of error that a user can fix.

Their message is one line: what was wrong, what was found, what was expected, what to do.
Commands print it and exit with status 2. Any other error is a bug and keeps its traceback.
"""

_MOST, _ENDS = 1500, 700  # characters: longest message, and how much of each end of a longer one is kept


class JdmError(Exception):
    """Base class of all errors that the user can fix."""

    def __str__(self) -> str:
        """The message as one line: unprintable characters are escaped and a long middle is left out."""
        line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in super().__str__())
        return line if len(line) <= _MOST else f"{line[:_ENDS]} ... {line[-_ENDS:]}"


class ConfigError(JdmError):
    """A setting, a command-line value or an environment variable is unusable."""


class DataError(JdmError):
    """A dataset, image, mask or split is not what it claims to be."""


class CheckpointError(JdmError):
    """A checkpoint is damaged, unsafe or of another run or dataset."""


class ExistsError(JdmError):
    """A target already exists, or is locked by another process."""


class TrainingError(JdmError):
    """Training cannot continue: loss not finite, out of memory, or nothing to train on."""
