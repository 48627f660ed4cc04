"""The samplers over a `Denoise` by their names of --sampler."""

from __future__ import annotations

from jdm.config.samplers import Sampler, SamplerSettings
from jdm.diffusion.conditioning import Noise
from jdm.diffusion.multistep import sample_unipc
from jdm.diffusion.ode import Solver, sample_ode
from jdm.diffusion.repaint import Sample
from jdm.diffusion.sampling import Churn, sample_ddim, sample_dpmpp_2m, sample_heun, sample_heun_stochastic
from jdm.diffusion.sde import SDE, Langevin, sample_euler_maruyama, sample_predictor_corrector

_SNR: dict[SDE, float] = {"ve": 0.16, "vp": 0.01}


def named_sampler(name: Sampler, settings: SamplerSettings, fresh: Noise, sde: SDE = "ve") -> Sample:
    """The sampler of this name, with its settings and its source of noise bound.

    Each has an error at a finite number of steps. Gaussian data of standard deviation 0.5, sampled at the default steps
    with the exact denoiser over the levels 80 to 0.002, come out with this share of their variance:

        heun (18 steps)             1.11        ddim (18)                   0.72
        heun-stochastic (25)        1.16        euler-maruyama (250)        1.04, VP SDE 1.03
        dpmpp-2m (18)               1.13        predictor-corrector (250)   1.03
        unipc (18)                  0.89

    Args:
        settings: checked by `jdm.config.samplers.check_sampler`.
        fresh: source of the noise that the sampler adds, such as the `CaseNoise` that its start came from.
        sde: process that euler-maruyama and predictor-corrector reverse: the one the network was trained on.
    """
    churn = Churn() if settings.churn is None else Churn(s_churn=settings.churn)
    langevin = Langevin(_SNR[sde] if settings.snr is None else settings.snr, sde=sde)
    tolerance = 1e-3 if settings.tolerance is None else settings.tolerance
    solver, eta = Solver(rtol=tolerance, atol=tolerance), settings.eta or 0.0
    samplers: dict[Sampler, Sample] = {
        "heun": sample_heun,
        "heun-stochastic": lambda d, n, s, known: sample_heun_stochastic(d, n, s, fresh, churn, known),
        "dpmpp-2m": sample_dpmpp_2m,
        "unipc": lambda d, n, s, known: sample_unipc(d, n, s, known=known),
        "ddim": lambda d, n, s, known: sample_ddim(d, n, s, eta, fresh, known),
        "euler-maruyama": lambda d, n, s, known: sample_euler_maruyama(d, n, s, fresh, sde, known),
        "predictor-corrector": lambda d, n, s, known: sample_predictor_corrector(d, n, s, fresh, langevin, known),
        "ode": lambda d, n, s, known: sample_ode(d, n, s, solver, known),
    }
    return samplers[name]
