"""What is installed is whole, and what the README says can be typed."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest

from jdm.config.files import flat, to_dict
from jdm.config.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = {point.name: point for point in distribution("jdm").entry_points if point.group == "console_scripts"}
CHOOSING = ("jdm-convert", "jdm-sample")
"""Commands whose first word is a kind or a mode, with flags of its own."""
SETTINGS = {name.replace("_", "-") for name in flat(to_dict(Settings()))}
"""Flags of jdm-train that its --help does not list."""
README = (ROOT / "README.md").read_text(encoding="utf-8")
HEAVY = ("torch", "nnunetv2", "matplotlib", "scipy", "sklearn", "numpy")


def run_help(*words: str) -> tuple[str, list[str]]:
    """Help text of a command, and which heavy packages were imported for it."""
    point = COMMANDS[words[0]]
    module, _, function = point.value.partition(":")
    code = (
        f"import sys; sys.argv = {[*words, '--help']!r}\n"
        f"from {module} import {function}\n"
        f"try:\n    {function}()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        f"print('IMPORTED', *[name for name in {HEAVY!r} if name in sys.modules])"
    )
    wide = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=wide, check=True)
    text, _, imported = done.stdout.rpartition("IMPORTED")
    return text, imported.split()


def commands_in(shell: str) -> list[list[str]]:
    """Words of every jdm command in lines of shell, launchers before it and what follows a pipe cut off."""
    found = []
    for line in shell.replace("\\\n", " ").splitlines():
        if match := re.search(r"jdm-[a-z]+ .*", line.replace("'", " ") if "--wrap" in line else line):
            found.append(shlex.split(match[0], comments=True))
    return found


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_is_there_and_imports_nothing_heavy(name: str) -> None:
    started = time.monotonic()
    text, imported = run_help(name)
    assert time.monotonic() - started < 5  # half a second on an idle machine
    assert text.startswith("usage:") and name in text.splitlines()[0] and len(text.splitlines()) > 5
    assert not imported


def test_commands_of_the_readme_and_the_scripts_and_their_flags_exist() -> None:
    blocks = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    commands = commands_in("".join(blocks))
    assert {words[0] for words in commands} == set(COMMANDS) - {"jdm-demo"}
    scripts = [path.read_text(encoding="utf-8") for path in (ROOT / "scripts").glob("*.sh")]
    texts: dict[tuple[str, ...], str] = {}
    for words in [*commands, *commands_in("".join(re.sub(r"(?m)^(#|\s*printf).*", "", text) for text in scripts))]:
        key = tuple(words[: 1 + (words[0] in CHOOSING)])
        if key not in texts:
            texts[key], heavy = run_help(*key)
            assert not heavy
        for flag in [word.split("=")[0] for word in words if word.startswith("--")]:
            known = re.search(rf"{re.escape(flag)}(?![\w-])", texts[key])
            assert known or (key == ("jdm-train",) and flag[2:] in SETTINGS), f"{' '.join(key)} has no {flag}"


def test_settings_in_the_readme_exist() -> None:
    dotted = {flag.rstrip(".").replace(".no-", ".") for flag in re.findall(r"--([a-z-]+\.[a-z-]+)", README)}
    assert dotted and not dotted - SETTINGS  # --data.no-whole unsets data.whole
    from nnunet_integration.settings import VARIABLES

    assert set(re.findall(r"JDM_[A-Z_]+", README)) == set(VARIABLES.values())


def test_trainers_named_in_the_readme_exist() -> None:
    named = set(re.findall(r"nnUNetTrainerJDM\w*?(?=__|\b)", README))
    shim = (ROOT / "nnunet_integration" / "ext" / "jdm_trainers.py").read_text(encoding="utf-8")
    assert named and all(f'"{name}"' in shim for name in named), named


def test_wheel_holds_the_files_that_are_not_modules(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for package in ("jdm", "nnunet_integration", "dataset_conversion"):
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=source, capture_output=True, check=True)
    (wheel,) = tmp_path.glob("jdm-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        str(path.relative_to(source))
        for package in ("jdm", "nnunet_integration", "dataset_conversion")
        for path in (source / package).rglob("*")
        if path.is_file()
    }
    assert expected - names == set()
    assert {"jdm/report/page.html.jinja", "nnunet_integration/ext/jdm_trainers.py"} <= names


def test_version_is_the_distributions() -> None:
    import jdm

    assert distribution("jdm").version == jdm.__version__
