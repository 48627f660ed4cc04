"""What must be recorded to reproduce a result: command, version, commit and hardware."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Run:
    """A command, with its version and hardware."""

    command: str
    version: str
    commit: str
    """Empty outside a checkout."""
    hardware: str
    """Processor, cores, Python, PyTorch and GPUs in one line."""
    cpu: str
    cores: int
    """Number of cores that this process may use."""
    gpus: tuple[str, ...]


def describe_run(command: Sequence[str] | None = None) -> Run:
    """The command line (this process's by default), jdm's version and commit, and the hardware."""
    words = [Path(sys.argv[0]).name, *sys.argv[1:]] if command is None else list(command)
    cpu, gpus = _processor(), _gpus()
    parts = [f"{cpu}, {cores()} cores", f"Python {platform.python_version()}"]
    if torch := sys.modules.get("torch"):
        parts.append(f"PyTorch {torch.__version__}")
    return Run(shlex.join(words), jdm_version(), _commit(), "; ".join([*parts, *gpus]), cpu, cores(), gpus)


def jdm_version() -> str:
    """Version of the installed jdm."""
    return version("jdm")


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _commit() -> str:
    """Commit of the checkout that jdm is imported from, marked if it was changed since; empty outside a checkout."""
    if not (_ROOT / ".git").exists():
        return ""
    try:
        commit = _git("rev-parse", "--short=12", "HEAD")
        return commit + (" with changes" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=_ROOT, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()


def _gpus() -> tuple[str, ...]:
    torch = sys.modules.get("torch")  # where it was not loaded, nothing ran on it
    if torch is None or not torch.cuda.is_available():
        return ()
    return tuple(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
