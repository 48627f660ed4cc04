"""Run the faults, the converters and the fuzz targets, and tell what happened: results/robustness.{json,md}.

Every fuzz target and every fault of killed processes is a run of its own whose result is kept, so that the same command
goes on where it was stopped. What has failed is run again.

  python scripts/robustness.py --out results
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import tyro
from defusedxml.ElementTree import parse
from shared import about

from jdm.cli import run_command
from jdm.cli.convert import KINDS
from jdm.errors import DataError
from jdm.evaluation.tables import Table, table_markdown
from jdm.system.files import write_text

ROOT = Path(__file__).resolve().parents[1]
TESTS = ROOT / "tests"
sys.path.insert(0, str(TESTS))

from fault_list import FAULTS, INPUTS, Fault  # noqa: E402

FUZZED = ("test_fuzz_text.py", "test_fuzz_checkpoints.py", "test_fuzz_images.py", "test_conversion_damage.py")
KILLED = "test_faults_killed.py"
Result = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """Run what is not yet in OUT/robustness.json, and write OUT/robustness.md."""

    out: Path
    """Folder of the two files."""
    examples: int = 10_000
    """Mutated files for each fuzz target."""
    kills: int = 50
    """Processes to kill for each fault of that kind."""
    only: str = ""
    """Run only what has this in its name."""
    render: bool = False
    """Run nothing; write the table of what is there."""


def main(options: Options) -> None:
    """Run, record after each run, and write the table. Raises: DataError if a test fails that did not run before."""
    path = options.out / "robustness.json"
    found: Result = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    options.out.mkdir(parents=True, exist_ok=True)
    for name, selected in () if options.render else _runs(options):
        if options.only not in name or _passed(found.get(name)):
            continue
        print(name, file=sys.stderr, flush=True)
        found[name] = _run(selected, options)
        write_text(path, json.dumps(found, indent=1) + "\n")
    write_text(options.out / "robustness.md", _page(found))
    failed = [f"{name}: {test['name']}" for name, run in found.items() for test in run["tests"] if _bad(test)]
    if failed:
        raise DataError(f"{len(failed)} tests failed, such as {failed[0]}; expected none; run it with pytest")


def _runs(options: Options) -> list[tuple[str, list[str]]]:
    """Names of the runs, and what pytest is to select in each."""
    single = [*FUZZED, KILLED]
    collected = _pytest(["--collect-only", *(f"tests/{file}" for file in single), *_counts(options)])
    tests = re.findall(r"^tests/(\S+::.+)$", collected, re.M)
    mine = [test for test in tests if not test.startswith(KILLED) or test.endswith(f"[{options.kills}]")]
    named = sorted({place for fault in (*FAULTS, *INPUTS) for place in fault.tests})
    rest = [f"tests/{place}" for place in named if f"{place}[{options.kills}]" not in mine]
    converters = [f"tests/{file.name}" for file in sorted(TESTS.glob("test_conversion*.py")) if file.name not in FUZZED]
    return [*((test, [f"tests/{test}"]) for test in mine), ("faults", rest), ("converters", converters)]


def _counts(options: Options) -> list[str]:
    return ["--examples", str(options.examples), "--kills", str(options.kills)]


def _pytest(words: Sequence[str]) -> str:
    """What pytest prints. Raises: DataError if it could not run the tests; those that fail are in its report."""
    options = ["-p", "no:cacheprovider", "-o", "addopts=-q", "--hypothesis-seed=0"]
    command = [sys.executable, "-m", "pytest", *options, *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode > 1:
        raise DataError(f"pytest ended with {done.returncode}; expected 0 or 1: {(done.stdout + done.stderr)[-500:]}")
    return done.stdout


def _run(selected: list[str], options: Options) -> Result:
    """What came of each test, with the commit and the hardware."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        _pytest([*selected, *_counts(options), f"--junitxml={report}"])
        tests = [_test(case) for case in parse(report).iter("testcase")]
    return {**about(), "tests": tests}


def _test(case: Element) -> Result:
    outcome, message = "passed", ""
    for kind in ("failure", "error", "skipped"):
        told = case.find(kind)
        if told is not None:
            outcome, message = kind, told.get("message", "").splitlines()[0][:200]
    counts = {p.get("name", ""): json.loads(p.get("value", "null")) for p in case.iter("property")}
    file = (case.get("file") or "").removeprefix("tests/")
    return {"name": f"{file}::{case.get('name')}", "outcome": outcome, "message": message,
            "seconds": round(float(case.get("time", 0)), 1), **counts}  # fmt: skip


def _passed(run: Result | None) -> bool:
    return run is not None and bool(run["tests"]) and not any(_bad(test) for test in run["tests"])


def _bad(test: Result) -> bool:
    return test["outcome"] in ("failure", "error")


# ---------------------------------------------------------------- the page


def _page(found: Result) -> str:
    tests = {test["name"]: test for run in found.values() for test in run["tests"]}
    origin = {key: sorted({run[key] for run in found.values()}) for key in ("command", "commit", "hardware")}
    lines = ["# Robustness", "", "Written by `scripts/robustness.py` from the reports of the tests it ran.", ""]
    lines += [f"- {key}: {'; '.join(values)}" for key, values in origin.items()]
    for title, text, table in (
        ("Faults", "Each provoked for real by the tests of its row. Nothing that existed is altered; an error is one "
         "line and exit status 2.", _faults(tests, FAULTS)),
        ("Real-world inputs", "Found on inputs after public reports, each mended by its kind: other examples of the "
         "same kind behave alike.", _faults(tests, INPUTS)),
        ("Converters", "Miniatures of each layout with the file types, names and dirt of the published one. `real "
         "data`: tests on data sets that are not part of this repository.", _converters(tests)),
        ("Fuzz targets", "Mutated files. Each has to end in a correct reading or in an error of ours in one line, "
         "within 20 seconds, in less memory than twice what the file may hold and 32 MiB for the libraries. A row "
         "with anything else says so.", _fuzzed(found)),
    ):  # fmt: skip
        lines += ["", f"## {title}", "", text, "", table_markdown(table).rstrip()]
    return "\n".join(lines) + "\n"


def _faults(tests: dict[str, Result], faults: Sequence[Fault]) -> Table:
    rows = []
    for fault in faults:
        mine = [test for name, test in tests.items() if name.split("[")[0] in fault.tests]
        kills = sum(test.get("kills", 0) for test in mine)
        rows.append((f"{fault.number} {fault.name}", fault.gets, _score(mine), str(kills or ""), fault.others))
    return Table("faults", ("fault", "what the user gets", "tests passed", "kills", "recorded of others"), tuple(rows))


def _converters(tests: dict[str, Result]) -> Table:
    rows = []
    sources = {file.name: _functions(file) for file in TESTS.glob("test_conversion*.py")}
    for kind in KINDS:
        call = f"convert_{kind.replace('-', '_')}("
        mine, real = [], []
        for name, test in tests.items():
            file, _, function = name.partition("::")
            text = sources.get(file, {}).get(function.split("[")[0], "")
            if call in text:
                (real if "shared_data" in text else mine).append(test)
        rows.append((f"`{kind}`", _score(mine), _score(real) if real else ""))
    return Table("converters", ("converter", "tests passed", "real data"), tuple(rows))


def _functions(file: Path) -> dict[str, str]:
    """Source of each function of a file."""
    text = file.read_text(encoding="utf-8")
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
    return {node.name: ast.get_source_segment(text, node) or "" for node in nodes}


def _fuzzed(found: Result) -> Table:
    rows = []
    for name, run in found.items():
        for test in run["tests"]:
            if not name.startswith(FUZZED):
                continue
            happened = "nothing else" if test["outcome"] == "passed" else f"{test['outcome']}: {test['message']}"
            n = test["read"] + test["refused"]
            counts = (n, test["read"], test["refused"], test["most_memory_mib"], test["slowest_seconds"])
            rows.append((_target(name), *map(str, counts), happened))
    header = ("target", "files", "correct readings", "errors of ours", "most MiB", "slowest, s", "anything else")
    return Table("fuzz", header, tuple(rows))


def _target(name: str) -> str:
    """test_fuzz_images.py::test_images[10000-.png] -> images .png"""
    function, _, values = name.partition("::test_")[2].rstrip("]").partition("[")
    return " ".join([function.replace("_", " "), *(value for value in values.split("-") if not value.isdigit())])


def _score(tests: Iterable[Result]) -> str:
    outcomes = [test["outcome"] for test in tests]
    skipped = outcomes.count("skipped")
    text = f"{outcomes.count('passed')} of {len(outcomes) - skipped}" if outcomes else "not run"
    return text + (f", {skipped} skipped" if skipped else "")


if __name__ == "__main__":
    run_command(lambda: main(tyro.cli(Options)))
