"""Parts of a batch on several cores: the same numbers as the whole batch on one."""

import os
import platform
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_runs import tiny_plan, write_pictures

from jdm.config.settings import Config
from jdm.data.pairs import condition_features
from jdm.diffusion.model import build_denoiser
from jdm.system.parallel import on_all_cores, parts_of, side_by_side
from jdm.train.objective import loss_and_gradients, sample_losses, step_generator

CPU = torch.device("cpu")


@pytest.fixture
def cores():
    """Sets how many cores torch may use, for one test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(params=["default", "thesis"])
def config(request, nnunet_folders) -> Config:
    dataset = write_pictures(nnunet_folders["nnUNet_raw"])
    quiet = {"preset": request.param, "augment": {"probability": 0.0}}
    if request.param == "thesis":
        quiet["codec"] = {"mask_amplitude": 1.0}
    return tiny_plan(dataset, list(dataset.cases), train={"precision": "fp32"}, **quiet)


def denoiser_of(config):
    """A denoiser whose output is not zero."""
    torch.manual_seed(0)
    denoiser = build_denoiser(config, condition_features(config.data.dims))
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return denoiser


def batch_of(config, count):
    shape = (count, config.image_channels + config.mask_channels, *config.data.patch_size)
    x0 = torch.rand(shape, generator=torch.Generator().manual_seed(1)) - 0.5
    return x0, torch.zeros(count, condition_features(config.data.dims))


@given(st.integers(1, 100), st.integers(1, 9))
def test_parts_cover_the_batch_evenly_and_are_not_too_small(count, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        parts = parts_of(torch.zeros(count, 1))
    finally:
        torch.set_num_threads(before)
    assert [i for part in parts for i in range(part.start, part.stop)] == list(range(count))
    sizes = [part.stop - part.start for part in parts]
    assert len(parts) <= threads and max(sizes) - min(sizes) <= 1 and (len(parts) == 1 or min(sizes) >= 4)


def test_the_gradient_does_not_depend_on_the_number_of_cores(config, cores):
    found = []
    for threads in (1, 3):
        cores(threads)
        denoiser = denoiser_of(config)
        loss = loss_and_gradients(denoiser, *batch_of(config, 13), config, step_generator(0, 0, 0, CPU))
        found.append((loss, [parameter.grad for parameter in denoiser.parameters()]))
        assert torch.get_num_threads() == threads
    (loss_one, one), (loss_three, three) = found
    assert torch.allclose(loss_one, loss_three, rtol=1e-5)
    largest = max(float(g.abs().max()) for g in one)
    for a, b in zip(one, three, strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5 * largest)


def test_gradients_replace_those_of_the_step_before(config, cores):
    cores(2)
    denoiser, batch = denoiser_of(config), batch_of(config, 8)
    norms = []
    for _ in range(2):
        loss_and_gradients(denoiser, *batch, config, step_generator(0, 0, 0, CPU))
        norms.append([float(parameter.grad.norm()) for parameter in denoiser.parameters()])
    assert norms[0] == norms[1]


def test_losses_and_estimates_do_not_depend_on_the_number_of_cores(config, cores):
    denoiser, (x0, condition) = denoiser_of(config).eval(), batch_of(config, 9)
    sigma = torch.rand(9, 1).expand(9, 2) + 0.1
    found = []
    for threads in (1, 2):
        cores(threads)
        with torch.no_grad():
            losses = sample_losses(denoiser, x0, condition, config, step_generator(0, 0, 0, CPU))
            found.append((losses, on_all_cores(denoiser)(x0, sigma)))
    for one, two in zip(*found, strict=True):
        assert torch.allclose(one, two, rtol=1e-4, atol=1e-5)


def test_an_error_in_one_part_is_raised_and_cores_are_given_back(cores):
    cores(2)

    def fails(part):
        if part.start:
            raise ValueError("second part")

    with pytest.raises(ValueError, match="second part"):
        side_by_side(fails, parts_of(torch.zeros(8, 1)))
    assert torch.get_num_threads() == 2


_FAULTS = """
import resource, sys
import numpy as np
from jdm.cli import run_command

def rounds(count):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(count):
        kept = [np.ones(2**17 + 64 * k) for k in range(60)]  # 60 MB, as a step's activations
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print("started", flush=True)
run_command(lambda: print(rounds(3) and rounds(5)), tuned_memory=sys.argv[1] == "long")
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="an option of glibc")
def test_a_command_keeps_the_memory_it_frees(tmp_path):
    script = tmp_path / "command.py"
    script.write_text(_FAULTS)
    for word, tunables, count in (
        ("long", "", 2), ("long", "glibc.rtld.nns=4", 2), ("long", "glibc.malloc.perturb=0", 1), ("short", "", 1),
    ):  # fmt: skip
        done = subprocess.run(
            [sys.executable, str(script), word], env=os.environ | {"GLIBC_TUNABLES": tunables},
            capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
        *starts, faults = done.stdout.split()
        assert len(starts) == count and (int(faults) < 1_000) == (count == 2)  # 5 rounds are 75,000 pages
