"""jdm-doctor's checks of this machine and of nnU-Net's folders, with a fix for each finding."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shlex
import shutil
import tempfile
from pathlib import Path

from packaging.requirements import Requirement

from jdm.data.checks import Finding
from jdm.data.raw_dataset import nnunet_folder, used_ids
from jdm.data.raw_layout import VARIABLES, environment_folder, few, results_folder
from jdm.system.machine import cores, jdm_version
from nnunet_integration.doctor_dataset import examine_dataset
from nnunet_integration.doctor_page import FOUR, Report
from nnunet_integration.settings import ext_folder

_LEAST_FREE = 2 * 2**30
_GIB = 2**30
NEEDS = {
    "nnUNet_raw": FOUR, "nnUNet_preprocessed": "jdm-experiment, jdm-register", "nnUNet_results": "nnUNetv2_train",
    "jdm_results": "jdm-train, jdm-experiment",
}  # fmt: skip
"""Commands that write to each folder; no jdm command writes to nnUNet_results."""


def examine(dataset: str | None = None) -> Report:
    """Check the environment and, if named, a dataset; changes nothing.

    Raises: ConfigError if there is no such dataset.
    """
    report = Report()
    _software(report)
    _machine(report)
    _folders(report)
    _trainers(report)
    if dataset is not None:
        examine_dataset(report, dataset)
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
            report.must(
                FOUR,
                f"{requirement.name} is {found}; expected {requirement.specifier}; type: pip install '{requirement}'",
            )
    main = [v for v in versions if v.startswith(("torch ", "nnunetv2 "))]
    report.fact("main packages", ", ".join(main))
    report.fact("other packages", ", ".join(v for v in versions if v not in main))


def _requirements() -> list[str]:
    """jdm's required packages, from its distribution; empty if it is not installed."""
    try:
        lines = importlib.metadata.requires("jdm") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    return [line for line in lines if "extra ==" not in line]


def _machine(report: Report) -> None:
    report.section("Machine")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GIB
    report.fact("cores, memory", f"{cores()} of {os.cpu_count()}, {memory:.1f} GiB")
    gpus = _gpus(report)
    report.fact("GPU", ", ".join(gpus) or "none that torch sees")
    if not gpus and shutil.which("nvidia-smi"):
        report.note(
            "jdm-train, jdm-export, jdm-experiment",
            "nvidia-smi is installed but torch sees no GPU, so everything runs on the CPU; install the torch build for "
            "your driver's CUDA version, or check whether CUDA_VISIBLE_DEVICES hides the GPU",
        )
    names = ("OMP_WAIT_POLICY", "OMP_NUM_THREADS", "OMP_THREAD_LIMIT", "nnUNet_n_proc_DA", "CUDA_VISIBLE_DEVICES")
    report.fact("threads", ", ".join(f"{name}={os.environ[name]}" for name in names if name in os.environ) or "unset")
    if not gpus and os.environ.get("OMP_WAIT_POLICY", "").lower() != "passive":
        report.note(
            "nnUNetv2_train, nnUNetv2_predict",
            "OMP_WAIT_POLICY is not passive; on a CPU, spinning threads make nnU-Net many times slower; type: export "
            "OMP_WAIT_POLICY=passive",
        )
    if os.environ.get("OMP_THREAD_LIMIT") == "1":
        report.note("nnUNetv2_train", "OMP_THREAD_LIMIT is 1, at which nnU-Net hangs; type: unset OMP_THREAD_LIMIT")
    if os.environ.get("nnUNet_n_proc_DA") == "0":  # noqa: SIM112
        report.note(
            "nnUNetv2_plan_experiment",
            "nnUNet_n_proc_DA is 0, at which nnU-Net's planner stops; type: export nnUNet_n_proc_DA=1",
        )


def _gpus(report: Report) -> list[str]:
    if importlib.util.find_spec("torch") is None:  # already reported
        return []
    try:
        import torch

        from jdm.system.processes import launch
    except (ImportError, OSError) as error:
        report.must(FOUR, f"torch cannot be imported ({str(error).splitlines()[0]}); type: pip install -U torch")
        return []
    with report.checked("jdm-train, jdm-export"):
        launch()
    found = []
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        found.append(f"{device.name} {device.total_memory / _GIB:.0f} GiB (CUDA {torch.version.cuda})")
    return found


def _folders(report: Report) -> None:
    report.section("Folders")
    for variable in VARIABLES:
        must = variable != "nnUNet_results"
        with report.checked(NEEDS[variable], must):
            _writable(report, variable, nnunet_folder(variable), must)
    results = results_folder().absolute()
    there = next(folder for folder in (results, *results.parents) if folder.exists())
    _writable(report, "jdm_results", there, shown=results)
    if any(os.environ.get(variable, "").startswith("~") for variable in VARIABLES):
        return  # reported above
    for number, folders in used_ids().items():
        names = sorted({folder.name for folder in folders})
        if len(names) > 1:
            report.must(
                FOUR,
                f"dataset id {number} belongs to {' and to '.join(names)} in nnU-Net's folders, which nnU-Net refuses; "
                "rename or remove all but one",
            )
    raw = environment_folder("nnUNet_raw")
    for left in sorted([*raw.glob(".jdm-partial-*"), *raw.glob(".Dataset*.partial-*")]) if raw else []:
        if left.is_dir():
            command = "jdm-export" if left.name.startswith(".jdm") else "jdm-convert"
            report.note(
                command,
                f"{left} is an unfinished {'export' if command == 'jdm-export' else 'conversion'}; repeat its command, "
                f"or type: rm -r {shlex.quote(str(left))}",
            )


def _writable(report: Report, name: str, folder: Path, must: bool = True, shown: Path | None = None) -> None:
    """Check that a folder is writable, with an unnamed temporary file, and report its free space."""
    free = shutil.disk_usage(folder).free
    report.fact(name, f"{shown or folder}, {free / _GIB:.1f} GiB free")
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(4096))
            file.flush()
    except OSError as error:
        text = (
            f"{name}: cannot write in {folder} ({error.strerror}); expected a writable folder; choose another: "
            f"export {name}=/path/to/{name}"
        )
        report.findings.append(Finding(text, NEEDS[name], must))
        return
    if free < _LEAST_FREE:
        report.note(
            NEEDS[name],
            f"{name}: the disk of {folder} has {free // 2**20} MiB free; expected at least {_LEAST_FREE // 2**20}; "
            "free space, or choose another folder",
        )


def _trainers(report: Report) -> None:
    """Check nnUNet_extTrainer, through which nnU-Net's own commands find jdm's trainers."""
    needs = "nnUNetv2_train, nnUNetv2_predict with jdm's trainers"
    value = os.environ.get("nnUNet_extTrainer", "")  # noqa: SIM112
    report.fact("nnUNet_extTrainer", value or "unset")
    folders = [Path(part) for part in value.split(os.pathsep) if part]
    gone = [str(folder) for folder in folders if not folder.is_dir()]
    if gone:
        report.note(
            needs, f"nnUNet_extTrainer names {few(gone)}, which nnU-Net silently skips; expected folders; correct it"
        )
    if ext_folder() not in [folder.resolve() for folder in folders]:
        value = os.pathsep.join(map(str, [ext_folder(), *folders]))
        report.note(
            needs, f"nnUNet_extTrainer lacks the folder of jdm's trainers; type: export nnUNet_extTrainer={value}"
        )
