"""UniPC against the exact solution of the ODE: order of convergence, exactness, parity."""

import math

import pytest
import torch
from closed_forms import MEAN, SIGMAS, STD, gaussian, levels_in_ratio, mixture, normal
from torch import Tensor

from jdm.diffusion.multistep import sample_unipc
from jdm.diffusion.ode import Solver, sample_ode
from jdm.diffusion.sampling import sample_ddim, sample_dpmpp_2m
from jdm.errors import ConfigError

LOW, HIGH = 0.05, 20.0


def _slope(order: int, denoise, exact: Tensor, noise: Tensor, steps: tuple[int, ...]) -> float:
    """Fitted power of the step in the largest error."""
    schedules = [levels_in_ratio(n, LOW, HIGH)[:-1] for n in steps]
    errors = [(sample_unipc(denoise, noise, levels, order) - exact).abs().max().item() for levels in schedules]
    x = torch.tensor([math.log(n - 1) for n in steps])
    y = torch.tensor([math.log(e) for e in errors])
    return -(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()).item()


@pytest.mark.parametrize("order", [1, 2, 3])
def test_corrected_steps_converge_with_order_p_plus_one_on_gaussian_data(order):
    noise = normal(16, 1, 8)
    shrink = math.sqrt((STD**2 + LOW**2) / (STD**2 + HIGH**2))
    exact = MEAN + (HIGH * noise - MEAN) * shrink
    assert _slope(order, gaussian, exact, noise, (65, 129, 257)) == pytest.approx(order + 1, abs=0.12)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_corrected_steps_converge_with_order_p_plus_one_on_a_mixture(order):
    noise = normal(4, 1, 8)
    exact = sample_ode(mixture, noise, torch.tensor([HIGH, LOW]), Solver("DOP853", 1e-12, 1e-12))
    assert _slope(order, mixture, exact, noise, (129, 257, 513)) == pytest.approx(order + 1, abs=0.25)


@pytest.mark.parametrize("order", [2, 3])
def test_more_order_is_less_error_at_few_steps(order):
    noise = normal(16, 1, 8)
    exact = MEAN + (80 * noise - MEAN) * STD / math.sqrt(STD**2 + 80**2)
    errors = [
        (sample(gaussian, noise, SIGMAS) - exact).abs().max().item()
        for sample in (lambda d, n, s: sample_unipc(d, n, s, order), sample_dpmpp_2m, sample_ddim)
    ]
    assert errors == sorted(errors), errors


def test_estimates_quadratic_in_lambda_are_integrated_exactly():
    """dx/dlambda = D - x with D = lambda^2 has the solutions lambda^2 - 2 lambda + 2 + c sigma: c must not change."""
    levels = torch.tensor([3.0, 2.0, 1.5, 0.7, 0.4, 0.1], dtype=torch.float64)
    states: list[Tensor] = []

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        states.append(x)
        return sigma[:, :1, None].log().square().expand(x.shape)

    states.append(sample_unipc(denoise, normal(2, 1, 3), levels, 3))
    lam = -levels.log()
    constants = [(x - (at**2 - 2 * at + 2)) / sigma for x, at, sigma in zip(states, lam, levels, strict=True)]
    # From the third step on there are three estimates, and the corrector finds nothing to correct.
    torch.testing.assert_close(constants[4], constants[3])
    torch.testing.assert_close(constants[5], constants[3])
    assert (constants[2] - constants[1]).abs().max() > 1e-3


def test_orders_that_are_not_there_are_refused():
    for order in (0, 4):
        with pytest.raises(ConfigError, match=rf"order.* {order}.*1, 2 or 3"):
            sample_unipc(gaussian, normal(1, 1, 4), SIGMAS, order)


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")
@pytest.mark.parametrize("order", [1, 2, 3])
def test_parity_with_diffusers(order):
    diffusers = pytest.importorskip("diffusers")
    levels, noise = levels_in_ratio(18, 0.02, 20.0)[:-1], normal(2, 2, 4, 4)
    scheduler = diffusers.UniPCMultistepScheduler(
        solver_order=order, prediction_type="sample", solver_type="bh2", lower_order_final=False
    )
    scheduler.set_timesteps(len(levels) - 1)
    scheduler.sigmas = levels
    # Theirs is variance preserving.
    scales = (1 + levels**2).sqrt()
    x = levels[0] * noise / scales[0]
    for i, t in enumerate(scheduler.timesteps):
        x0 = mixture(x * scales[i], levels[i].expand(2, 2))
        x = scheduler.step(x0, t, x).prev_sample
    ours = sample_unipc(mixture, noise, levels, order)
    torch.testing.assert_close(x * scales[-1], ours, rtol=1e-6, atol=1e-7)
