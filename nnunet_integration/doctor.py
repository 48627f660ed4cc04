"""What a bug report needs to know: this machine, nnU-Net's folders, a dataset's health; each finding with its fix."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import tempfile
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from packaging.requirements import Requirement

from jdm.data.raw_dataset import (
    RawDataset,
    check_dataset,
    nnunet_folder,
    open_dataset,
    read_case,
    used_ids,
)
from jdm.data.raw_layout import VARIABLES, environment_folder, few
from jdm.data.splits import FOLDS, fold_count, fold_split, splits_file
from jdm.errors import ConfigError, DataError, JdmError
from jdm.system.machine import jdm_version
from nnunet_integration.provenance import read_generator
from nnunet_integration.settings import ext_folder

_LEAST_FREE = 2 * 2**30
_GIB = 2**30


@dataclass
class Report:
    """A page of facts by section, and findings."""

    facts: list[tuple[str, str]] = field(default_factory=list)
    """Name and value; a section's heading has no value."""
    findings: list[str] = field(default_factory=list)
    """One line each: what was found, what was expected, what to do."""

    def section(self, title: str) -> None:
        self.facts.append((title, ""))

    def fact(self, name: str, value: object) -> None:
        self.facts.append((name, str(value)))

    @contextmanager
    def checked(self) -> Iterator[None]:
        """Note what the block refuses as a finding and go on."""
        try:
            yield
        except JdmError as error:
            self.findings.append(str(error))

    def text(self, most: int | None = 20) -> str:
        """The page, at most `most` findings on it; the home folder is written ~."""
        lines = [_indented(name, value) if value else f"\n{name}" for name, value in self.facts]
        shown = self.findings if most is None else self.findings[:most]
        lines.append(f"\nFindings: {len(self.findings) or 'none'}")
        lines += [f"  {number}. {finding}" for number, finding in enumerate(shown, 1)]
        if len(shown) < len(self.findings):
            lines.append(f"  and {len(self.findings) - len(shown)} more; add --all to see them")
        text = "\n".join(lines).lstrip("\n") + "\n"
        home = str(Path.home())
        return text if home == "/" else text.replace(home + "/", "~/")


def _indented(name: str, value: str) -> str:
    return textwrap.fill(value, 118, initial_indent=f"  {name:<20}", subsequent_indent=" " * 22, break_long_words=False)


def examine(dataset: str | None = None) -> Report:
    """Look at the environment and, where one is named, at a dataset; nothing is changed.

    Raises: ConfigError if there is no such dataset.
    """
    report = Report()
    _software(report)
    _machine(report)
    _folders(report)
    _trainers(report)
    if dataset is not None:
        _dataset(report, dataset)
    return report


def _software(report: Report) -> None:
    report.section("Software")
    report.fact("jdm", f"{jdm_version()}, {Path(__file__).parent}")
    report.fact("Python", f"{platform.python_version()}, {platform.platform()}")
    versions = []
    for requirement in map(Requirement, _requirements()):
        try:
            found = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            found = "missing"
        versions.append(f"{requirement.name} {found}")
        if found == "missing" or not requirement.specifier.contains(found, prereleases=True):
            report.findings.append(
                f"{requirement.name} is {found}; expected {requirement.specifier}; type: pip install '{requirement}'"
            )
    main = [v for v in versions if v.startswith(("torch ", "nnunetv2 "))]
    report.fact("main packages", ", ".join(main))
    report.fact("other packages", ", ".join(v for v in versions if v not in main))


def _requirements() -> list[str]:
    """What jdm needs in any case, as its distribution says; nothing where it is not installed."""
    try:
        lines = importlib.metadata.requires("jdm") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    return [line for line in lines if "extra ==" not in line]


def _machine(report: Report) -> None:
    report.section("Machine")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GIB
    report.fact("cores, memory", f"{cores} of {os.cpu_count()}, {memory:.1f} GiB")
    gpus = _gpus(report)
    report.fact("GPU", ", ".join(gpus) or "none that torch sees")
    if not gpus and shutil.which("nvidia-smi"):
        report.findings.append(
            "nvidia-smi is here but torch sees no GPU; expected one; install the torch build of your driver's CUDA "
            "version, or look whether CUDA_VISIBLE_DEVICES hides it"
        )
    names = ("OMP_WAIT_POLICY", "OMP_NUM_THREADS", "OMP_THREAD_LIMIT", "nnUNet_n_proc_DA", "CUDA_VISIBLE_DEVICES")
    report.fact("threads", ", ".join(f"{name}={os.environ[name]}" for name in names if name in os.environ) or "unset")
    if not gpus and os.environ.get("OMP_WAIT_POLICY", "").lower() != "passive":
        report.findings.append(
            "OMP_WAIT_POLICY is not passive; on a CPU, threads that spin make nnU-Net many times slower; type: export "
            "OMP_WAIT_POLICY=passive"
        )
    if os.environ.get("OMP_THREAD_LIMIT") == "1":
        report.findings.append("OMP_THREAD_LIMIT is 1; nnU-Net hangs at that; type: unset OMP_THREAD_LIMIT")
    if os.environ.get("nnUNet_n_proc_DA") == "0":  # noqa: SIM112
        report.findings.append(
            "nnUNet_n_proc_DA is 0; nnU-Net's planner stops at that; expected 1 or more; type: export "
            "nnUNet_n_proc_DA=1"
        )


def _gpus(report: Report) -> list[str]:
    if importlib.util.find_spec("torch") is None:  # among the findings already
        return []
    try:
        import torch
    except (ImportError, OSError) as error:
        report.findings.append(f"torch cannot be imported ({str(error).splitlines()[0]}); type: pip install -U torch")
        return []
    found = []
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        found.append(f"{device.name} {device.total_memory / _GIB:.0f} GiB (CUDA {torch.version.cuda})")
    return found


def _folders(report: Report) -> None:
    report.section("Folders")
    for variable in VARIABLES:
        with report.checked():
            _writable(report, variable, nnunet_folder(variable))
    results = Path(os.environ.get("jdm_results", "jdm_results")).absolute()  # noqa: SIM112
    _writable(report, "jdm_results", next(f for f in (results, *results.parents) if f.exists()), results)
    for number, folders in used_ids().items():
        names = sorted({folder.name for folder in folders})
        if len(names) > 1:
            report.findings.append(
                f"dataset id {number} belongs to {' and to '.join(names)} in nnU-Net's folders; nnU-Net stops at that; "
                "rename or remove all but one"
            )
    raw = environment_folder("nnUNet_raw")
    for left in sorted([*raw.glob(".jdm-partial-*"), *raw.glob(".Dataset*.partial-*")]) if raw else []:
        if left.is_dir():
            report.findings.append(
                f"{left} is an unfinished export or conversion; give its command again to finish it, or type: "
                f"rm -r '{left}'"
            )


def _writable(report: Report, name: str, folder: Path, wanted: Path | None = None) -> None:
    """Write a nameless file into a folder, and see what is free there."""
    free = shutil.disk_usage(folder).free
    report.fact(name, f"{wanted or folder}, {free / _GIB:.1f} GiB free")
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(4096))
            file.flush()
    except OSError as error:
        report.findings.append(
            f"{name}: cannot write in {folder} ({error.strerror}); expected a folder of yours; choose another: "
            f"export {name}=/path/to/{name}"
        )
        return
    if free < _LEAST_FREE:
        report.findings.append(
            f"{name}: the disk of {folder} has {free // 2**20} MiB free; expected at least {_LEAST_FREE // 2**20}; "
            "free space, or choose another folder"
        )


def _trainers(report: Report) -> None:
    value = os.environ.get("nnUNet_extTrainer", "")  # noqa: SIM112
    report.fact("nnUNet_extTrainer", value or "unset")
    folders = [Path(part) for part in value.split(os.pathsep) if part]
    gone = [str(folder) for folder in folders if not folder.is_dir()]
    if gone:
        report.findings.append(
            f"nnUNet_extTrainer names {few(gone)}, which nnU-Net skips without a word; expected folders; correct it"
        )
    if ext_folder() not in [folder.resolve() for folder in folders]:
        value = os.pathsep.join(map(str, [ext_folder(), *folders]))
        report.findings.append(
            "nnUNet_extTrainer does not name the folder of jdm's trainers, so that nnUNetv2_train and nnUNetv2_predict "
            f"do not find them; type: export nnUNet_extTrainer={value}"
        )


def _dataset(report: Report, name: str) -> None:
    """Facts and findings of one dataset. Raises: ConfigError if there is none of this id or name."""
    report.section(f"Dataset {name}")
    if environment_folder("nnUNet_raw") is None:
        report.fact("folder", "not looked for: nnUNet_raw is unusable")
        return
    try:
        dataset = open_dataset(name)
    except ConfigError:
        if not any(len({folder.name for folder in folders}) > 1 for folders in used_ids().values()):
            raise
        report.fact("folder", "not opened: an id has two names")
        return
    except DataError as error:
        report.fact("folder", "not opened, see the findings")
        report.findings.append(str(error))
        return
    report.fact("folder", dataset.folder)
    report.fact("cases", f"{len(dataset.cases)} training, {len(dataset.test_cases)} test, as {dataset.file_ending}")
    report.fact("channels", ", ".join(dataset.channel_names))
    report.fact("labels", ", ".join(f"{value} {label}" for label, value in dataset.labels.items()))
    if not dataset.cases:
        report.findings.append(
            f"{dataset.folder} has no training case; expected at least one; make it with jdm-convert"
        )
        return
    with report.checked():
        pair = read_case(dataset, dataset.cases[0])
        report.fact("first case", f"{pair.image.shape} of {pair.image.dtype}, spacing {pair.spacing}")
    report.findings += check_dataset(dataset)
    _folds(report, dataset)
    _origin(report, dataset)
    _runs(report, dataset)


def _folds(report: Report, dataset: RawDataset) -> None:
    path = splits_file(dataset)
    report.fact("folds", path or f"nnU-Net's {FOLDS} random ones")
    if path is None and len(dataset.cases) < FOLDS:
        report.facts[-1] = ("folds", f"'all' only, of {len(dataset.cases)} cases")
        return
    problems = []
    try:
        count = fold_count(dataset)
    except DataError as error:
        report.findings.append(str(error))
        return
    for fold in range(count):
        try:
            fold_split(dataset, fold)
        except DataError as error:
            problems.append(str(error))
    report.findings += dict.fromkeys(problems)


def _origin(report: Report, dataset: RawDataset) -> None:
    """Of a synthetic set: its generator, and whether its manifest is of these cases."""
    if not (dataset.folder / "provenance.json").is_file():
        return
    from jdm.export.folder import read_manifest

    with report.checked():
        generator = read_generator(dataset)
        seen = len(generator["training_ids"])
        report.fact("synthetic", f"from {generator.get('dataset')} fold {generator.get('fold')}, {seen} training cases")
        path = dataset.folder / "manifest.jsonl"
        named = [record["case_id"] for record in read_manifest(path)]
        if sorted(named) != list(dataset.cases):
            report.findings.append(
                f"{path} names {len(named)} cases, the folder holds {len(dataset.cases)}; expected the same ones; "
                "export the set again"
            )


def _runs(report: Report, dataset: RawDataset) -> None:
    """Checkpoints of the dataset: whole, and of this dataset."""
    from jdm.draw.run import check_origin
    from jdm.train.checkpoint import load_checkpoint, run_folder

    for folder in sorted(run_folder(dataset.name, "all").parent.glob("fold_*")):
        with report.checked():
            checkpoint = load_checkpoint(folder)
            check_origin(checkpoint, dataset)
            report.fact(
                folder.name, f"weights of step {checkpoint.metadata.get('step')}, sha256 {checkpoint.sha256[:12]}"
            )
