"""Every sampler of --sampler by the drawer that the commands use, on tiny networks, and against closed forms."""

import math
from dataclasses import asdict

import numpy as np
import pytest
import torch
from closed_forms import SIGMAS, STD, gaussian, mixture, moments, normal, source
from small_runs import TINY, config_of

from jdm.config.samplers import SAMPLERS, SamplerSettings, check_sampler, default_steps, evaluations, is_deterministic
from jdm.data.pairs import condition_features
from jdm.diffusion.model import build_denoiser
from jdm.diffusion.named import named_sampler
from jdm.diffusion.ode import Solver, sample_ode
from jdm.diffusion.repaint import Resampling
from jdm.diffusion.sampling import CaseNoise, Churn, karras_sigmas, sample_ddim, sample_heun, sample_heun_stochastic
from jdm.diffusion.sde import Langevin, sample_euler_maruyama, sample_predictor_corrector
from jdm.draw.drawer import Drawer, Job
from jdm.draw.request import Sampling, Way
from jdm.errors import ConfigError
from jdm.export.amount import order_of
from jdm.export.request import ExportRequest
from jdm.sample.request import MODES, check_request, way_for
from jdm.train.checkpoint import Checkpoint

SHAPE = (2, 16, 24)
NOTHING, EVERYTHING = np.full((2, 1, 1), False), np.full((2, 1, 1), True)
MASK, OUTSIDE = np.array([False, True]).reshape(2, 1, 1), np.full(SHAPE, True)
OUTSIDE[:, 4:10, 5:20] = False


def checkpoint_of(preset: str) -> Checkpoint:
    """A network of random weights."""
    config = config_of(
        preset=preset, data={"patch_size": SHAPE[1:], "canvas_size": SHAPE[1:]}, augment={"probability": 0.0},
        network=asdict(TINY), train={"precision": "fp32"},
    )  # fmt: skip
    torch.manual_seed(5)
    state = build_denoiser(config, condition_features(2)).state_dict()
    weights = {name: value + 0.003 * torch.randn(value.shape) for name, value in state.items()}
    return Checkpoint(config, weights, {"sha256": "0", "dataset": "Dataset041_Samplers"})


CHECKPOINTS = {preset: checkpoint_of(preset) for preset in ("default", "thesis")}
SERVED = [*((preset, name) for preset in CHECKPOINTS for name in SAMPLERS), ("thesis", "ancestral")]
GIVEN = [
    (preset, name, where)
    for preset, name in SERVED
    for where in (EVERYTHING, MASK, OUTSIDE)
    if name != "ode" or (preset == "default" and where is not OUTSIDE)
]


def drawer_of(preset: str, name: str) -> Drawer:
    """Of a few steps; the solver of a random network is kept short."""
    way = Way(name, 4, SamplerSettings(tolerance=0.1 if name == "ode" else None))
    return Drawer(CHECKPOINTS[preset], Sampling(batch_size=2), way, "cpu", resampling=Resampling(1, 2))


def pair(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, SHAPE).astype(np.float32)


@pytest.mark.parametrize(("preset", "name"), SERVED)
def test_a_pair_is_a_function_of_its_seed_and_its_place_in_a_batch_of_one_size(preset, name):
    """What shards and resumed exports rest on: other cases of the batch, and earlier batches, leave no trace."""

    def drawn(drawer: Drawer, *seeds: int) -> list[np.ndarray]:
        return drawer.samples([Job(np.zeros(SHAPE, np.float32), NOTHING, seed) for seed in seeds])

    drawer = drawer_of(preset, name)
    first, second, *_ = drawn(drawer, 11, 12, 13, 14)
    assert np.isfinite(first).all() and first.shape == SHAPE and not np.array_equal(first, second)
    assert np.array_equal(drawn(drawer, 11, 12), [first, second])
    assert np.array_equal(drawn(drawer_of(preset, name), 11, 15)[0], first)


@pytest.mark.parametrize(("preset", "name", "where"), GIVEN)
def test_what_is_known_stays_and_the_rest_is_drawn(preset, name, where):
    made = drawer_of(preset, name).samples([Job(pair(seed), where, seed) for seed in (7, 8)])
    where = np.broadcast_to(where, SHAPE)
    for sample, seed in zip(made, (7, 8), strict=True):
        assert np.array_equal(sample[where], pair(seed)[where])
        assert np.isfinite(sample).all() and not (sample[~where] == pair(seed)[~where]).any()


@pytest.mark.parametrize(("preset", "name"), SERVED[:-1])
def test_a_job_of_which_nothing_is_known_is_the_plain_sampler(preset, name):
    drawer, fresh = drawer_of(preset, name), CaseNoise([7], SHAPE)
    sample = named_sampler(name, drawer.way.settings, fresh, "vp" if preset == "thesis" else "ve")
    plain = sample(drawer.denoise(""), fresh(), drawer.sigmas, None)
    made, channels = drawer.samples([Job(pair(1), NOTHING, 7)])[0], drawer.config.image_channels
    decided = channels if preset == "default" else None  # whose masks are decided anew
    assert np.array_equal(made[:decided], plain.numpy()[0, :decided])


@pytest.mark.parametrize(("sde", "snr"), [("ve", 0.16), ("vp", 0.01)])
def test_names_and_settings_mean_the_functions(sde, snr):
    at, fresh = (mixture, normal(2, 2, 5), SIGMAS), lambda: source(2, 2, 5)
    for name, given, expected in (
        ("heun-stochastic", {"churn": 3.0}, sample_heun_stochastic(*at, fresh(), Churn(s_churn=3.0))),
        ("heun-stochastic", {"churn": 0.0}, sample_heun(*at)),
        ("heun-stochastic", {}, sample_heun_stochastic(*at, fresh())),
        ("ddim", {"eta": 0.7}, sample_ddim(*at, 0.7, fresh())),
        ("ddim", {}, sample_ddim(*at)),
        ("euler-maruyama", {}, sample_euler_maruyama(*at, fresh(), sde)),
        ("predictor-corrector", {"snr": 0.3}, sample_predictor_corrector(*at, fresh(), Langevin(0.3, sde=sde))),
        ("predictor-corrector", {}, sample_predictor_corrector(*at, fresh(), Langevin(snr, sde=sde))),
        ("ode", {"tolerance": 1e-6}, sample_ode(*at, Solver(rtol=1e-6, atol=1e-6))),
        ("ode", {}, sample_ode(*at, Solver(rtol=1e-3, atol=1e-3))),
    ):
        settings = SamplerSettings(**given)
        check_sampler(name, settings)
        assert torch.equal(named_sampler(name, settings, fresh(), sde)(*at, None), expected), (name, given)


def check(preset: str, mode: str, asked: dict) -> None:
    """What `jdm.export` or `jdm.sample` checks of a request before anything is read."""
    checkpoint, config = CHECKPOINTS[preset], CHECKPOINTS[preset].config
    if mode == "export":
        order_of(checkpoint, ExportRequest("41", id=541, count=1, **asked))
    else:
        needed = {"images": {"masks": "folder"}, "inpaint": {"case": "a", "box": (0, 0, 4, 4)}}.get(mode, {})
        request = MODES[mode]("41", **needed, **asked)
        check_request(config, request, way_for(config, request))


@pytest.mark.parametrize("mode", ["export", "images"])
@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"sampler": "heun", "churn": 5.0}, "--churn is 5.0.*heun-stochastic"),
        ({"sampler": "ddim", "snr": 0.2}, "--snr is 0.2.*predictor-corrector"),
        ({"sampler": "unipc", "tolerance": 1e-3}, "--tolerance is 0.001.*ode"),
        ({"sampler": "heun", "eta": 0.0}, "--eta is 0.0.*ddim"),
        ({"sampler": "heun-stochastic", "churn": -1.0}, "--churn is -1.0.* 0 to 1000"),
        ({"sampler": "heun-stochastic", "churn": math.nan}, "--churn is nan.* 0 to 1000"),
        ({"sampler": "predictor-corrector", "snr": 0.0}, "--snr is 0.0.* 0.0001 to 1"),
        ({"sampler": "ode", "tolerance": 0.0}, "--tolerance is 0.0.* 1e-07 to 0.1"),
        ({"sampler": "ode", "tolerance": math.inf}, "--tolerance is inf.* 1e-07 to 0.1"),
        ({"sampler": "ddim", "eta": 1.5}, "--eta is 1.5.* 0 to 1"),
        ({"sampler": "plms"}, "--sampler is plms.*heun, heun-stochastic"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_its_flag(mode, asked, named):
    with pytest.raises(ConfigError, match=named) as caught:
        check("default", mode, asked)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("preset", "mode", "asked", "instead"),
    [
        ("default", "inpaint", {"sampler": "ode"}, "thesis.*heun"),
        ("thesis", "inpaint", {"sampler": "ode"}, "thesis.*heun"),
        ("default", "images", {"sampler": "ode"}, None),
        ("thesis", "images", {"sampler": "ode"}, "thesis.*heun"),
        ("default", "export", {"sampler": "ode", "given_masks": "real"}, None),
        ("thesis", "export", {"sampler": "ode", "given_masks": "real"}, "thesis.*heun"),
        ("thesis", "export", {"sampler": "ode"}, None),
        ("default", "channels", {"sampler": "ode", "known": ("mask",)}, None),
        ("thesis", "channels", {"sampler": "ode", "known": ("mask",)}, "thesis.*heun"),
        ("thesis", "vary", {"sampler": "ode"}, None),
        ("default", "interpolate", {"sampler": "euler-maruyama"}, "interpolate.*heun"),
        ("default", "interpolate", {"sampler": "ddim", "eta": 0.5}, "interpolate.*heun"),
        ("default", "interpolate", {"sampler": "heun-stochastic"}, "interpolate.*heun"),
        ("default", "export", {"sampler": "ancestral"}, "thesis"),
        ("thesis", "images", {"sampler": "ancestral"}, "exports only"),
    ],
)
def test_what_a_sampler_cannot_do_is_refused_before_sampling(preset, mode, asked, instead):
    if instead is None:
        check(preset, mode, asked)
        return
    with pytest.raises(ConfigError, match=rf"--sampler is .?{asked['sampler']}.*{instead}"):
        check(preset, mode, asked)


@pytest.mark.parametrize(("name", "eta"), [*((name, None) for name in SAMPLERS), ("ddim", 0.0), ("ddim", 0.1)])
def test_determinism_and_cost_are_as_said(name, eta):
    calls, settings = [], SamplerSettings(eta=eta)

    def counted(x, sigma):
        calls.append(len(x))
        return gaussian(x, sigma)

    x, again = (
        named_sampler(name, settings, source(1, 2, 6, seed=seed))(counted, normal(1, 2, 6), SIGMAS, None)
        for seed in (1, 2)
    )
    assert is_deterministic(name, settings) == torch.equal(x, again)
    if name != "ode":
        assert len(calls) == 2 * evaluations(name, 18)


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
