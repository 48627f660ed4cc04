"""Every sampler of --sampler through the drawers that the commands use, on a tiny network."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from closed_forms import SIGMAS, STD, gaussian, mixture, moments, normal, source
from jdm.draw.export_drawer import PairDrawer
from small_runs import changed, tiny_plan, write_pictures

from jdm.config.samplers import SAMPLERS, SamplerSettings, check_sampler, default_steps, evaluations, is_deterministic
from jdm.data.pairs import condition_features
from jdm.diffusion.model import build_denoiser
from jdm.diffusion.named import named_sampler
from jdm.diffusion.ode import Solver, sample_ode
from jdm.diffusion.sampling import (
    CaseNoise,
    Churn,
    karras_sigmas,
    sample_ddim,
    sample_heun,
    sample_heun_stochastic,
)
from jdm.diffusion.sde import Langevin, sample_euler_maruyama, sample_predictor_corrector
from jdm.draw.drawer import Drawer, Job
from jdm.errors import ConfigError
from jdm.export.request import ExportRequest, check_request
from jdm.sample.request import SampleRequest
from jdm.sample.request import check_request as check_sample
from jdm.train.checkpoint import Checkpoint

THESIS = {"preset": "thesis", "augment": {"probability": 0.0}}
EXPORT = ExportRequest(1, "x", 4, (16, 24), steps=4, batch_size=2)
GIVEN = SampleRequest("given-masks", steps=4, jump_length=1, repetitions=2, batch_size=4)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A network of each preset, of random weights, in the wrapping that the drawers take."""
    real = write_pictures(tmp_path_factory.mktemp("raw"), "Dataset041_Samplers")
    plan = tiny_plan(real, list(real.cases))
    found = {}
    for name, changes in (("default", {}), ("thesis", THESIS)):
        config = changed(plan, changes)
        torch.manual_seed(5)
        denoiser = build_denoiser(config, condition_features(2))
        weights = {k: v + 0.003 * torch.randn(v.shape) for k, v in denoiser.state_dict().items()}
        found[name] = Checkpoint(config, weights, {"sha256": "0"})
    return found


@pytest.fixture(params=["default", "thesis"])
def checkpoint(request, checkpoints):
    return checkpoints[request.param]


def asked(request, name: str, **changes):
    """The request with a sampler; the solver of a random network is kept short."""
    sampling = SamplerSettings(tolerance=0.1 if name == "ode" else None)
    return dataclasses.replace(request, sampler=name, sampling=sampling, **changes)


def mask(*cases: int) -> np.ndarray:
    return np.stack([np.where(np.random.default_rng(c).random((1, 16, 24)) < 0.5, 0.5, -0.5) for c in cases])


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_pair_is_a_function_of_its_seed_and_its_place_in_a_batch_of_one_size(checkpoint, name):
    """What shards and resumed exports rest on: other cases of the batch, and earlier batches, leave no trace."""
    request = asked(EXPORT, name)
    check_request(checkpoint.config, request)
    drawer = PairDrawer(checkpoint, request, "cpu")
    first = drawer.samples([11, 12])
    assert np.isfinite(first).all() and first.shape == (2, 2, 16, 24) and not np.array_equal(first[0], first[1])
    drawer.samples([13, 14])
    beside = PairDrawer(checkpoint, request, "cpu").samples([11, 15])
    assert np.array_equal(drawer.samples([11, 12]), first) and np.array_equal(beside[0], first[0])


@pytest.mark.parametrize("name", SAMPLERS)
def test_given_masks_stay_and_ode_is_refused_where_they_cannot(checkpoint, name):
    request = asked(EXPORT, name, given_masks="real")
    if name == "ode" and checkpoint.config.preset == "thesis":
        with pytest.raises(ConfigError, match=r"--sampler is ode.*preset thesis.*heun"):
            check_request(checkpoint.config, request)
        return
    check_request(checkpoint.config, request)
    x = PairDrawer(checkpoint, request, "cpu").samples([11, 12], mask(1, 2))
    np.testing.assert_allclose(x[:, 1:], mask(1, 2), atol=1e-6)
    assert np.isfinite(x).all() and not np.array_equal(x[0, 0], x[1, 0])


@pytest.mark.parametrize("name", SAMPLERS)
def test_everything_known_comes_back_and_nothing_known_changes_nothing(checkpoints, name):
    drawer = Drawer(checkpoints["default"], asked(GIVEN, name), "cpu")
    x = np.random.default_rng(0).uniform(-1, 1, (2, 16, 24)).astype(np.float32)
    whole, nothing = (np.full((2, 1, 1), flag) for flag in (True, False))
    (returned,) = drawer.conditional([Job(x, whole, 7)])
    assert np.array_equal(returned, x)
    (free,) = drawer.conditional([Job(x, nothing, 7)])
    fresh = CaseNoise([7], x.shape)
    sample = named_sampler(name, drawer.request.sampling, fresh)
    assert np.array_equal(free, sample(drawer.denoise, fresh(), drawer.sigmas, None).numpy()[0])


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "ode"])
def test_a_region_is_kept_by_replacement(checkpoint, name):
    drawer = Drawer(checkpoint, asked(GIVEN, name), "cpu")
    x = np.random.default_rng(0).uniform(-1, 1, (2, 16, 24)).astype(np.float32)
    where = np.ones((2, 16, 24), dtype=bool)
    where[:, 4:10, 5:20] = False
    made = drawer.conditional([Job(x, where, 7), Job(x, where, 8)])
    for one in made:
        np.testing.assert_allclose(one[where], x[where], atol=1e-6)
        assert np.isfinite(one).all() and not np.array_equal(one[~where], x[~where])


@pytest.mark.parametrize("preset", ["default", "thesis"])
def test_names_and_settings_mean_the_functions(preset):
    noise, sde = normal(2, 2, 5), "vp" if preset == "thesis" else "ve"

    def named(name, **settings):
        check_sampler(name, SamplerSettings(**settings))
        return named_sampler(name, SamplerSettings(**settings), source(2, 2, 5), sde)(mixture, noise, SIGMAS, None)

    def fresh():
        return source(2, 2, 5)

    churned = sample_heun_stochastic(mixture, noise, SIGMAS, fresh(), Churn(s_churn=3.0))
    assert torch.equal(named("heun-stochastic", churn=3.0), churned)
    assert torch.equal(named("heun-stochastic"), sample_heun_stochastic(mixture, noise, SIGMAS, fresh()))
    assert torch.equal(named("heun-stochastic", churn=0.0), sample_heun(mixture, noise, SIGMAS))
    assert torch.equal(named("ddim", eta=0.7), sample_ddim(mixture, noise, SIGMAS, 0.7, fresh()))
    assert torch.equal(named("ddim"), sample_ddim(mixture, noise, SIGMAS))
    assert torch.equal(named("euler-maruyama"), sample_euler_maruyama(mixture, noise, SIGMAS, fresh(), sde))
    for settings, snr in (({}, 0.01 if preset == "thesis" else 0.16), ({"snr": 0.3}, 0.3)):
        expected = sample_predictor_corrector(mixture, noise, SIGMAS, fresh(), Langevin(snr, sde=sde))
        assert torch.equal(named("predictor-corrector", **settings), expected)
    for settings, tolerance in (({}, 1e-3), ({"tolerance": 1e-6}, 1e-6)):
        solved = sample_ode(mixture, noise, SIGMAS, Solver(rtol=tolerance, atol=tolerance))
        assert torch.equal(named("ode", **settings), solved)


@pytest.mark.parametrize(
    ("sampler", "settings", "named"),
    [
        ("heun", {"churn": 5.0}, ("--churn is 5.0", "heun-stochastic")),
        ("ddim", {"snr": 0.2}, ("--snr is 0.2", "predictor-corrector")),
        ("unipc", {"tolerance": 1e-3}, ("--tolerance is 0.001", "ode")),
        ("heun", {"eta": 0.0}, ("--eta is 0.0", "ddim")),
        ("heun-stochastic", {"churn": -1.0}, ("--churn is -1.0", "0 to 1000")),
        ("heun-stochastic", {"churn": float("nan")}, ("--churn is nan", "0 to 1000")),
        ("predictor-corrector", {"snr": 0.0}, ("--snr is 0.0", "0.0001 to 1")),
        ("ode", {"tolerance": 0.0}, ("--tolerance is 0.0", "1e-07 to 0.1")),
        ("ode", {"tolerance": float("inf")}, ("--tolerance is inf", "1e-07 to 0.1")),
        ("ddim", {"eta": 1.5}, ("--eta is 1.5", "0 to 1")),
        ("plms", {}, ("--sampler is plms", "heun, heun-stochastic")),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_its_flag(checkpoints, sampler, settings, named):
    config = checkpoints["default"].config
    for check, request in ((check_request, EXPORT), (check_sample, GIVEN)):
        asked = dataclasses.replace(request, sampler=sampler, sampling=SamplerSettings(**settings))
        with pytest.raises(ConfigError) as caught:
            check(config, asked)
        assert all(part in str(caught.value) for part in named) and "\n" not in str(caught.value)


def test_what_a_sampler_cannot_do_is_refused_before_sampling(checkpoints):
    config, thesis = checkpoints["default"].config, checkpoints["thesis"].config
    for request, plan in (
        (dataclasses.replace(GIVEN, sampler="ode", mode="inpaint", box=(0, 0, 4, 4)), config),
        (dataclasses.replace(GIVEN, sampler="ode"), thesis),
    ):
        with pytest.raises(ConfigError, match=r"--sampler is ode.*thesis.*heun"):
            check_sample(plan, request)
    check_sample(config, dataclasses.replace(GIVEN, sampler="ode"))
    check_sample(thesis, dataclasses.replace(GIVEN, sampler="ode", mode="vary", level=0.5))
    for sampler, settings in (("euler-maruyama", {}), ("ddim", {"eta": 0.5}), ("heun-stochastic", {})):
        request = dataclasses.replace(GIVEN, sampler=sampler, sampling=SamplerSettings(**settings), mode="interpolate")
        with pytest.raises(ConfigError, match=rf"--sampler is {sampler}.*--interpolate.*heun"):
            check_sample(config, request)


@pytest.mark.parametrize("name", SAMPLERS)
def test_determinism_and_cost_are_as_said(name):
    calls = []

    def counted(x, sigma):
        calls.append(len(x))
        return gaussian(x, sigma)

    settings = SamplerSettings()
    x, again = (
        named_sampler(name, settings, source(1, 2, 6, seed=seed))(counted, normal(1, 2, 6), SIGMAS, None)
        for seed in (1, 2)
    )
    assert is_deterministic(name, settings) == torch.equal(x, again)
    if name != "ode":
        assert len(calls) == 2 * evaluations(name, 18)
    assert not is_deterministic("ddim", SamplerSettings(eta=0.1)) and is_deterministic("ddim", SamplerSettings(eta=0.0))
    assert default_steps("heun") == 18 and default_steps("ancestral") == default_steps("euler-maruyama") == 250


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_case_does_not_depend_on_its_batch(name):
    def run(*seeds: int) -> torch.Tensor:
        noise = CaseNoise(seeds, (2, 6))
        return named_sampler(name, SamplerSettings(), noise)(gaussian, noise(), SIGMAS, None)

    together = run(5, 6, 7)
    assert torch.equal(together[1:2], run(6)) and torch.equal(together[[2, 0]], run(7, 5))


@pytest.mark.parametrize(
    ("name", "sde", "share"),
    [
        ("heun", "ve", 1.11), ("heun-stochastic", "ve", 1.16), ("dpmpp-2m", "ve", 1.13), ("unipc", "ve", 0.89),
        ("ddim", "ve", 0.72), ("euler-maruyama", "ve", 1.04), ("euler-maruyama", "vp", 1.03),
        ("predictor-corrector", "ve", 1.03), ("predictor-corrector", "vp", 1.03),
    ],
)  # fmt: skip
def test_gaussian_data_keep_the_share_of_their_variance_that_the_docstring_says(name, sde, share):
    def sample(draw):
        sampler = named_sampler(name, SamplerSettings(), draw, sde)
        return sampler(gaussian, draw(), karras_sigmas(default_steps(name), 0.002, 80.0), None)

    if name == "predictor-corrector":  # its step size depends on the noise, and needs cases of many entries
        x = sample(source(1, 1, 200, 200))
        assert x.var().item() / STD**2 == pytest.approx(share, abs=4 * math.sqrt(2 / x.numel()))
    else:
        assert moments(sample, 1)[1].item() / STD**2 == pytest.approx(share, abs=0.006)


@pytest.mark.parametrize(("steps", "eta", "share"), [(18, 0, 0.72), (100, 0, 0.94), (18, 1, 0.54), (100, 1, 0.89)])
def test_ddim_keeps_the_share_of_the_variance_that_its_docstring_says(steps, eta, share):
    sigmas = karras_sigmas(steps, 0.002, 80.0)
    _, variance = moments(lambda draw: sample_ddim(gaussian, draw(), sigmas, eta, draw), 1)
    assert variance.item() / STD**2 == pytest.approx(share, abs=0.006)
