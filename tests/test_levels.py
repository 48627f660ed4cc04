"""Thick slices: which axes the network halves where, by nnU-Net's rule, and that its parts follow."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from closed_forms import normal
from small_runs import facts

from jdm.config.facts import Foreground
from jdm.config.levels import levels_of, multiples, padded
from jdm.data.pairs import condition_features
from jdm.diffusion.haar import band_stds, haar, inverse_haar
from jdm.diffusion.model import build_denoiser
from jdm.diffusion.unet import Upsample
from jdm.errors import ConfigError
from jdm.plan.rules import Machine, Size, plan
from jdm.train.memory import fitted, step_bytes

SPACINGS = [(1.0, 1.0, 1.0), (5.0, 1.0, 1.0), (2.5, 0.8, 0.8), (1.0, 1.0, 3.0), (10.0, 1.5, 1.5), (1.0, 1.9, 2.1)]


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("patch", [(128, 128, 128), (16, 256, 256), (40, 192, 160), (10, 12, 96)])
def test_axes_are_halved_and_kernels_reach_as_in_nnunet(spacing, patch):
    from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props

    _, strides, kernels, sides, _ = get_pool_and_conv_props(spacing, patch, 4, 999)
    found = levels_of(spacing, patch, len(strides) - 1)
    assert [list(level.stride) for level in found[:-1]] == [list(stride) for stride in strides[1:]]
    assert [list(level.kernel) for level in found] == [list(kernel) for kernel in kernels]
    assert padded(spacing, patch, len(strides) - 1) == tuple(sides)


def thick(side=(16, 96, 80), spacing=(5.0, 1.0, 1.0), size=None, **settings):
    """The plan of thick volumes of one channel and one class."""
    found = facts(
        spacing=spacing, sizes=((side, 1, 30),), file_ending=".nii.gz", image_bands=((0.1,) * 64,),
        image_axes=((1.0,),), foreground=(Foreground(side, (0.1, 0.1), (0.9, 0.9)),),
    )  # fmt: skip
    return plan(found, size or Size(8, 1, 4), Machine("cpu", "fp32"), settings=settings)


def test_a_network_of_thick_slices_leaves_them_apart_until_voxels_are_even():
    deep = thick().config
    assert [level.stride for level in deep.levels] == [(1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 1, 1)]
    assert deep.haar_levels == (0, 2, 2)[:3] and multiples(deep.levels) == (4, 16, 16)
    denoiser = build_denoiser(deep, condition_features(3))
    x, sigma = torch.randn(1, 2, *deep.data.patch_size), torch.ones(1, 2)
    assert denoiser(x, sigma).shape == x.shape
    grids = [side // factor for side, factor in zip(deep.data.patch_size, multiples(deep.levels), strict=True)]
    assert torch.tensor(grids).prod() <= 8**3  # where it attends


def test_wavelets_of_some_axes_are_a_basis_and_their_deviations_follow_from_the_finest():
    x = normal(3, 2, 4, 8, 12, seed=0).cumsum(3).cumsum(4)
    finest = haar(x[:, :1], 2).square().mean((0, 2, 3, 4)).sqrt()
    for levels in itertools.product(range(3), repeat=3):
        bands = haar(x, levels)
        assert bands.shape[2:] == tuple(side >> level for side, level in zip(x.shape[2:], levels, strict=True))
        torch.testing.assert_close(inverse_haar(bands, levels), x, rtol=0, atol=1e-10)
        torch.testing.assert_close(bands.square().sum(), x.square().sum(), rtol=1e-12, atol=0)
        found = haar(x[:, :1], levels).square().mean((0, 2, 3, 4)).sqrt()
        assert band_stds(finest.tolist(), levels, axes=3) == pytest.approx(found.tolist(), rel=1e-6)


def test_upsampling_of_some_axes_is_nearest_neighbours_and_a_convolution():
    upsample, x = Upsample(6, (1, 2, 2)).double(), torch.randn(2, 6, 3, 4, 5, dtype=torch.float64)
    torch.testing.assert_close(upsample(x), upsample.conv(F.interpolate(x, scale_factor=(1, 2, 2), mode="nearest")))


def test_recomputed_activations_give_the_same_gradient():
    found = []
    for recompute in (False, True):
        torch.manual_seed(0)
        denoiser = build_denoiser(thick((8, 16, 16), network={"recompute": recompute}).config, condition_features(3))
        for parameter in denoiser.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        denoiser(torch.randn(2, 2, 8, 16, 16), torch.ones(2, 2)).square().sum().backward()
        found.append([parameter.grad for parameter in denoiser.parameters()])
    for plain, again in zip(*found, strict=True):
        torch.testing.assert_close(plain, again)


def test_a_step_is_made_to_fit_by_a_smaller_batch_then_by_recomputing_then_by_a_smaller_patch():
    side, size = (48, 48, 48), Size(8, 1, 8)

    def planned(size, kept=True, **data):
        return thick(side, (1.0,) * 3, size, data=data if kept else {})

    steps = [size, Size(8, 1, 4), Size(8, 1, 2), Size(8, 1, 2, recompute=True)]
    needed = [step_bytes(planned(one).config) for one in steps]
    assert needed == sorted(needed, reverse=True)
    assert fitted(size, planned, needed[0]) == size and fitted(size, planned, needed[1]) == steps[1]
    assert fitted(size, planned, needed[3]) == steps[3]
    little = needed[3] - 2**20
    smaller = planned(fitted(size, planned, little)).config
    assert step_bytes(smaller) <= little and not smaller.data.whole and smaller.data.canvas_size == side
    with pytest.raises(ConfigError, match=rf"--data.patch-size {' '.join(map(str, smaller.data.patch_size))}"):
        fitted(size, lambda size, kept: planned(size, kept, patch_size=[48, 48, 48]), little)
