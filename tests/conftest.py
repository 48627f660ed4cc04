"""Fixtures shared by the tests."""

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# Two busy cores spin against each other in OpenMP's default wait policy; must be set before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("MPLBACKEND", "Agg")


COUNTS = {"examples": (200, 10_000), "kills": (5, 50)}
"""What a test that takes such a fixture does in the default run and in the slow run."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--examples", type=int, help="mutated files for each fuzz target, instead of 200 or 10,000")
    parser.addoption("--kills", type=int, help="processes to kill for each such fault, instead of 5 or 50")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for name, (few, many) in COUNTS.items():
        if name not in metafunc.fixturenames:
            continue
        asked = metafunc.config.getoption(f"--{name}")

        def times(count: int, seconds: int, *marks: pytest.MarkDecorator) -> object:
            limit = pytest.mark.timeout(seconds, method="thread")  # a library that hangs sees no signal
            return pytest.param(count, marks=[limit, *marks], id=str(count))

        slow = times(many, 7200, pytest.mark.slow)
        metafunc.parametrize(name, [times(asked, 7200)] if asked else [times(few, 900), slow])


@pytest.fixture
def fuzz(examples: int, record_property: Callable[[str, object], None]) -> Iterator[object]:
    """Tries mutated files; see `fuzzing.Fuzz`. Its counts go to the JUnit report."""
    from fuzzing import Fuzz

    trial = Fuzz(examples)
    yield trial
    for name, value in trial.counts().items():
        record_property(name, value)


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """Forks processes to kill; see `fault_processes.Host`."""
    from fault_processes import Host

    started = Host(tmp_path_factory.mktemp("host"))
    yield started
    started.close()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real data beside the checkout; the test is skipped where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the real data sets in ../shared/data, which are not here")
    return folder


@pytest.fixture
def nnunet_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Empty nnU-Net folders and jdm_results, set in the environment."""
    return _set_folders(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def module_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """The same for all tests of a module, which share what is trained in them."""
    with pytest.MonkeyPatch.context() as patch:
        yield _set_folders(tmp_path_factory.mktemp("nnunet"), patch)


def _set_folders(root: Path, patch: pytest.MonkeyPatch) -> dict[str, Path]:
    folders = {}
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results", "jdm_results"):
        folders[variable] = root / variable
        folders[variable].mkdir()
        patch.setenv(variable, str(folders[variable]))
    return folders


@pytest.fixture(scope="module")
def two_channel_run(module_folders: dict[str, Path]) -> object:
    """A trained run on a dataset of two channels and three classes."""
    from small_runs import tiny_run, write_pictures

    real = write_pictures(module_folders["nnUNet_raw"], channels=2, classes=3)
    return tiny_run(real, train={"steps": 2})


@pytest.fixture
def real(nnunet_folders: dict[str, Path]) -> object:
    """A small dataset of pictures."""
    from small_runs import write_pictures

    return write_pictures(nnunet_folders["nnUNet_raw"])


@pytest.fixture
def run(real: object) -> object:
    """Of two steps on `real`."""
    from small_runs import tiny_run

    return tiny_run(real, train={"steps": 2})


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Types a command in this process: its exit status, what it prints, and its errors."""

    def type_it(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [str(word) for word in words])
        status = 0
        try:
            importlib.import_module(f"jdm.cli.{sys.argv[0].removeprefix('jdm-')}").main()
        except SystemExit as stop:
            status = int(stop.code or 0)
        return status, *capsys.readouterr()

    return type_it
