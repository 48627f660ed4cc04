"""v-prediction and a last step without signal, against closed forms of Gaussian data."""

import math

import pytest
import torch
from closed_forms import MEAN, STD, GaussianNetwork, levels_of, normal, source
from hypothesis import given
from hypothesis import strategies as st
from small_runs import config_of

from jdm.diffusion.conditioning import Known
from jdm.diffusion.sampling import karras_sigmas, sample_ancestral, sample_ddim, sample_heun
from jdm.diffusion.vp import VPDenoiser, VPProcess
from jdm.errors import ConfigError

ZERO = {name: VPProcess(1000, name, prediction="v", zero_snr=True) for name in ("linear", "cosine")}


@pytest.mark.parametrize("process", ZERO.values(), ids=ZERO)
def test_the_last_step_has_no_signal_and_its_tables_are_whole(process):
    assert process.alpha_bar[-1] == 0 and process.beta[-1] == 1
    # Lin et al., Algorithm 1: sqrt(alpha_bar) shifted to end in zero, and scaled to begin as it did.
    root = VPProcess(1000, process.schedule).alpha_bar.sqrt()
    torch.testing.assert_close(process.alpha_bar.sqrt(), (root - root[-1]) * root[0] / (root[0] - root[-1]))
    torch.testing.assert_close(torch.cumprod(1 - process.beta, 0), process.alpha_bar, rtol=1e-9, atol=1e-15)
    for table in (process.posterior_x0, process.posterior_xt, process.posterior_log_variance, process.log_beta):
        assert table.isfinite().all()
    # From x_T, which knows nothing, x_{T-1} is x0 forward-noised.
    assert process.posterior_xt[-1] == 0 and process.posterior_x0[-1] == process.alpha_bar[-2].sqrt()
    assert process.posterior_variance[-1] == 1 - process.alpha_bar[-2]
    noise = normal(1, 1, 4)
    assert torch.equal(process.q_sample(normal(1, 1, 4, seed=1), 999, noise), noise)
    respaced = process.respaced(10)
    assert respaced.alpha_bar[-1] == 0 and respaced.beta[-1] == 1 and respaced.sigma(9) == process.sigma(999)
    assert respaced.prediction == "v" and levels_of(respaced).diff().lt(0).all()


def test_the_rescaled_schedule_is_diffusers():
    scheduling = pytest.importorskip("diffusers.schedulers.scheduling_ddim")
    theirs = torch.cumprod(1 - scheduling.rescale_zero_terminal_snr(VPProcess().beta), 0)
    torch.testing.assert_close(ZERO["linear"].alpha_bar, theirs, rtol=1e-9, atol=1e-15)


@given(st.integers(0, 999), st.sampled_from(["linear", "cosine"]), st.booleans())
def test_x0_comes_back_from_v_at_every_step(t, schedule, zero_snr):
    process = ZERO[schedule] if zero_snr else VPProcess(1000, schedule, prediction="v")
    x0, noise = normal(2, 2, 3), normal(2, 2, 3, seed=1)
    x_t, v = process.q_sample(x0, t, noise), process.target(x0, t, noise)
    torch.testing.assert_close(process.predict_x0(x_t, t, v), x0)
    # v is at a right angle to x_t in the plane of x0 and noise, and as long.
    torch.testing.assert_close(x_t.square() + v.square(), x0.square() + noise.square())


@pytest.mark.parametrize("count", [250, 4])
def test_ancestral_sampling_is_exact_in_its_mean_from_pure_noise(count):
    """The mean is exact with any number of steps; without zero SNR it is lost where few steps see no signal."""
    n, process = 20_000, ZERO["linear"].respaced(count)
    predict = VPDenoiser(GaussianNetwork(process=ZERO["linear"]), process, 1, 0).predict
    with torch.no_grad():
        x = sample_ancestral(predict, process, normal(n, 1, 1), source(n, 1, 1)).flatten()
    assert x.mean().item() == pytest.approx(MEAN, abs=4 * STD / math.sqrt(n) + MEAN * 0.007)
    if count == 250:
        assert x.std().item() == pytest.approx(STD, rel=0.03)


@pytest.mark.parametrize("sample", [sample_heun, sample_ddim])
def test_samplers_start_after_a_step_from_no_signal(sample):
    """From the same noise the exact solution is MEAN + STD * noise."""
    process, noise = ZERO["linear"], normal(3, 2, 5)
    denoise, sigmas = VPDenoiser(GaussianNetwork(process=process), process, 1, 1), karras_sigmas(800, *process.span())
    with torch.no_grad():
        begun = process.begun(denoise, noise, sigmas[0].item())
        x, plain = sample(denoise, begun, sigmas), sample(denoise, noise, sigmas)
    exact = MEAN + STD * noise
    tolerance = 2e-3 if sample is sample_heun else 2e-2
    torch.testing.assert_close(x, exact, rtol=0, atol=tolerance)
    if sample is sample_heun:  # the step is what brings the mean
        assert (plain - exact).abs().mean() > 1.5 * (x - exact).abs().mean()


def test_known_entries_and_other_processes_start_as_before():
    process, noise = ZERO["linear"], normal(1, 2, 5)
    denoise = VPDenoiser(GaussianNetwork(process=process), process, 1, 1)
    known = Known(torch.tensor([True, False]).reshape(1, 2, 1), torch.zeros(1, 2, 5), 1, "replacement", lambda: noise)
    with torch.no_grad():
        begun = process.begun(denoise, noise, 80.0, known)
    assert torch.equal(begun[:, 0], noise[:, 0])
    torch.testing.assert_close(begun[:, 1], noise[:, 1] + MEAN / 80)
    plain = VPProcess()
    assert plain.begun(denoise, noise, 80.0) is noise
    assert plain.span() == (plain.sigma(0), plain.sigma(999)) and process.span() == (process.sigma(0), 80.0)


def test_the_noise_cannot_be_predicted_without_signal():
    with pytest.raises(ConfigError, match=r"'epsilon'.*'v'"):
        VPProcess(zero_snr=True)
    with pytest.raises(ConfigError, match=r"diffusion\.prediction.*epsilon.*v"):
        config_of(diffusion={"zero_terminal_snr": True})
    thesis = {"preset": "thesis", "augment": {"probability": 0.0}}
    config_of(**thesis, diffusion={"zero_terminal_snr": True, "prediction": "v"})
