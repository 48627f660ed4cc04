"""The house as drawn: what imports what, and what is never written."""

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("jdm", "nnunet_integration", "dataset_conversion")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]


ROOMS = {
    "jdm.errors": 0, "jdm.system": 1, "jdm.config": 2, "jdm.data": 3, "jdm.diffusion": 3, "dataset_conversion": 4,
    "jdm.evaluation": 4, "jdm.plan": 4, "jdm.review": 5, "jdm.train": 5, "jdm.draw": 6, "jdm.export": 7,
    "jdm.sample": 7, "jdm.classify": 7, "nnunet_integration": 8, "jdm.api": 9, "jdm.report": 9, "jdm": 10,
    "jdm.cli": 11,
}  # fmt: skip
"""Floor of each room: what a room imports from another lies on a floor strictly below."""


def room(module: str) -> str:
    return next((name for name in ROOMS if name != "jdm" and f"{module}.".startswith(f"{name}.")), module)


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
        if imported.split(".")[0] not in PACKAGES or typing_only or room(imported) == room(here):
            continue
        assert ROOMS[room(imported)] < ROOMS[room(here)], f"{here} imports {imported}, which is not below it"
        if here == "jdm.diffusion.sampling":
            assert not imported.endswith(".unet")
        if here.startswith("dataset_conversion"):  # converters end in the raw dataset, and know no network
            assert room(imported) in ("jdm.data", "jdm.system", "jdm.errors"), f"{here} imports {imported}"


def test_no_files_import_each_other_in_a_circle():
    below = {module_of(path): {name for name, _ in imports(path)} for path in FILES}
    done: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, " -> ".join((*above[above.index(module) :], module))
        for imported in sorted(below[module] & {*below} - done):
            visit(imported, (*above, module))
        done.add(module)

    for module in below:
        visit(module, ())


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_the_host_and_the_disk_stay_where_they_belong(path):
    here = module_of(path)
    names = {name.split(".")[0] for name, _ in imports(path)}
    if not here.startswith(("nnunet_integration", "jdm.cli")):
        assert "nnunetv2" not in names
    if here.startswith("jdm.diffusion"):
        assert not names & {"pathlib", "os", "json", "PIL", "SimpleITK", "nibabel"}
    if here.startswith("jdm.config"):
        assert not names & {"torch", "numpy"}


CODE_IN_DATA = {"pickle", "_pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "runpy", "code", "codeop"}
UNSAFE_XML = {"xml", "lxml", "xmltodict"}
RUNS_TEXT = {"eval", "exec", "compile", "__import__", "system", "popen", "getoutput", "getstatusoutput"}


def dotted(node: ast.expr) -> str:
    """The name that an expression spells, such as torch.load."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def unsafe(tree: ast.AST) -> list[str]:
    """What could run code from a file or a string: pickles, eval, shells, XML entities."""
    found = []
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            names = [] if isinstance(node, ast.Import) else [a.name for a in node.names]
            types_only = set(names) and set(names) <= {"Element", "ParseError"}  # which parse nothing
            refused = CODE_IN_DATA | (set() if types_only else UNSAFE_XML)
            found += [f"{line}: {m}" for m in modules if m.split(".")[0] in refused]
            found += [
                f"{line}: {n}" for n in names if n in RUNS_TEXT | {"pickle"} or [*modules, n] == ["torch", "load"]
            ]
        if isinstance(node, ast.Call):
            name = dotted(node.func)
            owner, _, last = name.rpartition(".")
            if last in RUNS_TEXT and owner in ("", "os", "builtins", "subprocess"):
                found.append(f"{line}: {name}")
            if owner == "os" and last.startswith(("exec", "spawn", "posix_spawn")):
                found.append(f"{line}: {name}")
            given = {keyword.arg: getattr(keyword.value, "value", None) for keyword in node.keywords}
            if (name == "torch.load" and "weights_only" not in given) or name in ("torch.jit.load", "yaml.load"):
                found.append(f"{line}: {name}")
            wanted = {"weights_only": True, "shell": False, "allow_pickle": False}
            found += [f"{line}: {key}" for key, value in given.items() if key in wanted and value is not wanted[key]]
    return found


@pytest.mark.parametrize("path", [*FILES, *sorted((ROOT / "scripts").glob("*.py"))], ids=lambda path: path.stem)
def test_what_is_never_written(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = unsafe(tree)
    if path == ROOT / "jdm" / "cli" / "__init__.py":  # a command may start itself again, with its own arguments
        assert [found.pop().partition(": ")[2]] == ["os.execve"]
    assert found == [], path
    assert not [n.lineno for n in ast.walk(tree) if isinstance(n, ast.Name) and n.id == "NotImplementedError"], path


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_files_and_functions_stay_readable(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 320, f"{path} has {len(lines)} lines; the aim is 300"
    assert not [line for line in lines if "TODO" in line or "FIXME" in line]
    for node in ast.walk(ast.parse("\n".join(lines))):
        if not isinstance(node, ast.FunctionDef):
            continue
        length = (node.end_lineno or node.lineno) - node.lineno + 1
        assert length <= 60, f"{path}: {node.name} has {length} lines; the aim is 40"
        positional = [a.arg for a in (*node.args.posonlyargs, *node.args.args) if a.arg not in ("self", "cls")]
        assert len(positional) <= 8, f"{path}: {node.name} has {len(positional)} parameters; the aim is 6"
        if not node.name.startswith("_"):
            assert node.args.kwarg is None, f"{path}: {node.name} takes **{node.args.kwarg}"


def test_every_command_is_documented():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [command for command in SCRIPTS if command not in readme] == []
