"""The few kinds of error that a user can mend.

A message of these is one line: what was wrong, what was found, what was expected, what to do.
Commands print it and exit with status 2. Anything else is a fault of ours and keeps its traceback.
"""

_MOST, _ENDS = 1500, 700  # characters of a message, and of its beginning and end where it has more


class JdmError(Exception):
    """Base of every error that the user can mend."""

    def __str__(self) -> str:
        """One line whatever a file held that is quoted in it: the unprintable is escaped, a long middle left out."""
        line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in super().__str__())
        return line if len(line) <= _MOST else f"{line[:_ENDS]} ... {line[-_ENDS:]}"


class ConfigError(JdmError):
    """A setting, a command-line value or an environment variable is unusable."""


class DataError(JdmError):
    """A dataset, image, mask or split is not what it claims to be."""


class CheckpointError(JdmError):
    """A checkpoint is damaged, unsafe or belongs to something else."""


class ExistsError(JdmError):
    """A target is already there, or is held by another process."""


class TrainingError(JdmError):
    """Training cannot go on: not finite, out of memory, or nothing to train on."""
