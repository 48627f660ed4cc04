"""The house as drawn: what imports what, what is never written, and commands that answer at once."""

import ast
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("jdm", "nnunet_integration", "dataset_conversion")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]


def floor(module: str) -> int:
    """Height of a module in the house; imports point down only."""
    if module == "jdm":
        return 0
    for prefix, height in (
        ("jdm.cli", 7), ("nnunet_integration", 6), ("dataset_conversion", 6), ("jdm.training", 5), ("jdm.export", 5),
        ("jdm.run_log", 5), ("jdm.evaluation", 4), ("jdm.checkpoint", 3), ("jdm.import_weights", 2), ("jdm.data", 2),
        ("jdm.objective", 3), ("jdm.processes", 1), ("jdm.diffusion", 2), ("jdm.config", 1), ("jdm.errors", 0),
        ("jdm.demo", 5), ("jdm.sample", 5), ("jdm.doctor", 6), ("jdm.config_bounds", 1), ("jdm.parallel", 2),
    ):  # fmt: skip
        if module == prefix or module.startswith(prefix + ("_" if prefix in ("jdm.export", "jdm.sample") else ".")):
            return height
    raise AssertionError(f"{module} has no place in the house; give it one here and in the design")


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> list[tuple[str, bool]]:
    """Imported modules, and whether the import is only for type checkers."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, id(node) in typing_only) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.append((node.module or "", id(node) in typing_only))
    return found


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_imports_point_down(path):
    here = module_of(path)
    for imported, typing_only in imports(path):
        if imported.split(".")[0] not in PACKAGES or imported == "jdm" or typing_only:
            continue
        assert floor(imported) <= floor(here), f"{here} imports {imported}, which lies above it"
        if here.startswith("jdm.diffusion"):
            assert not imported.startswith("jdm.data"), f"{here}: diffusion/ knows no data"
        if here.startswith("jdm.data"):
            assert not imported.startswith("jdm.diffusion"), f"{here}: data/ knows no noise"
        if here == "jdm.diffusion.sampling":
            assert not imported.endswith(".unet")
        if here.startswith("dataset_conversion") and imported.startswith("jdm"):
            # converters end in the raw dataset, and know no network
            assert imported.startswith(("jdm.data", "jdm.errors")), f"{here} imports {imported}"


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_the_host_and_the_disk_stay_where_they_belong(path):
    here = module_of(path)
    names = {name.split(".")[0] for name, _ in imports(path)}
    if not here.startswith(("nnunet_integration", "jdm.cli")):
        assert "nnunetv2" not in names
    if here.startswith("jdm.diffusion"):
        assert not names & {"pathlib", "os", "json", "PIL", "SimpleITK", "nibabel"}
    if here == "jdm.config":
        assert not names & {"torch", "numpy"}


def called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


@pytest.mark.parametrize("path", [*FILES, *sorted((ROOT / "scripts").glob("*.py"))], ids=lambda path: path.stem)
def test_what_is_never_written(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        where = f"{path}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            assert not {m.split(".")[0] for m in modules} & {"pickle", "dill", "cloudpickle", "marshal"}, where
        if isinstance(node, ast.Name):
            assert node.id != "NotImplementedError", where
        if isinstance(node, ast.Call):
            plain = isinstance(node.func, ast.Name)
            assert not (plain and called(node) in {"eval", "exec", "__import__"}), where
            assert called(node) not in {"system", "popen"} or plain, where
            for keyword in node.keywords:
                value = getattr(keyword.value, "value", None)
                assert not (keyword.arg == "weights_only" and value is not True), where
                assert not (keyword.arg in {"shell", "allow_pickle"} and value is not False), where
            if called(node) == "load" and isinstance(node.func, ast.Attribute):
                owner = getattr(node.func.value, "id", "")
                if owner == "torch":
                    assert any(keyword.arg == "weights_only" for keyword in node.keywords), where


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_files_and_functions_stay_readable(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 360, f"{path} has {len(lines)} lines; the aim is 300"
    assert not [line for line in lines if "TODO" in line or "FIXME" in line]
    for node in ast.walk(ast.parse("\n".join(lines))):
        if not isinstance(node, ast.FunctionDef):
            continue
        length = (node.end_lineno or node.lineno) - node.lineno + 1
        assert length <= 60, f"{path}: {node.name} has {length} lines; the aim is 40"
        if not node.name.startswith("_"):
            assert node.args.kwarg is None, f"{path}: {node.name} takes **{node.args.kwarg}"


HELP = """
import sys, time
sys.argv = ["{command}", "--help"]
from {module} import main
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
heavy = sorted({{name.split(".")[0] for name in sys.modules}} & {{"torch", "nnunetv2", "matplotlib", "scipy"}})
assert not heavy, heavy
"""


@pytest.mark.parametrize("command", sorted(SCRIPTS))
def test_help_answers_without_the_heavy_libraries(command):
    module, function = SCRIPTS[command].split(":")
    assert function == "main"
    started = time.monotonic()
    code = HELP.format(command=command, module=module)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert command in done.stdout and len(done.stdout.splitlines()) > 5
    assert time.monotonic() - started < 5  # half a second on an idle machine


def test_every_command_is_documented():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [command for command in SCRIPTS if command not in readme] == []
