"""What the clocks read off schedulers and pipelines, against the noise schedules written out in numpy."""

import copy
import math

import diffusers
import numpy as np
import pytest

from sfumato.pipelines.adapters import denoiser
from sfumato.pipelines.clocks import read_grid
from sfumato.pipelines.guidance import annealed_guidance
from tests import tiny
from tests.pipelines.variants import like, mask, picture

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
ALPHAS = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
SIGMAS = np.sqrt((1 - ALPHAS) / ALPHAS)
"""Noise to signal at each timestep of Stable Diffusion's training."""
FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0}
VP = [
    ("DDIMScheduler", {}),
    ("DDIMScheduler", {"timestep_spacing": "trailing"}),
    ("DDPMScheduler", {}),
    ("PNDMScheduler", {"skip_prk_steps": True}),
    ("LCMScheduler", {}),
    ("EulerDiscreteScheduler", {}),
    ("EulerDiscreteScheduler", {"use_karras_sigmas": True}),
    ("EulerAncestralDiscreteScheduler", {}),
    ("DPMSolverMultistepScheduler", {}),
    ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    ("HeunDiscreteScheduler", {}),
    ("UniPCMultistepScheduler", {}),
    ("KDPM2DiscreteScheduler", {}),
]
SHARES = [
    ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}),
    ("FlowMatchEulerDiscreteScheduler", {"use_dynamic_shifting": True}),
    ("FlowMatchHeunDiscreteScheduler", {"shift": 3.0}),
    ("DPMSolverMultistepScheduler", {**BETAS, **FLOW}),
    ("UniPCMultistepScheduler", {**BETAS, **FLOW}),
]


def made(name, steps=7, **config):
    scheduler = getattr(diffusers, name)(**config)
    more = {"mu": 0.7} if config.get("use_dynamic_shifting") else {}
    scheduler.set_timesteps(steps, **more)
    return scheduler


def own_sigmas(scheduler):
    """The noise at each distinct timestep as the scheduler itself steps: its sigmas, or the table of its alphas."""
    found = {}
    for place, t in enumerate(scheduler.timesteps.tolist()):
        between = getattr(scheduler, "sigmas_interpol", None)
        if between is not None and place % 2:
            found[t] = float(between[place])
        elif getattr(scheduler, "sigmas", None) is not None:
            found[t] = float(scheduler.sigmas[place])
        else:
            found[t] = SIGMAS[int(t)]
    return found


def clamped(u):
    return [*np.clip(u, 0, 1)[:-1], 1.0]


@pytest.mark.parametrize(("name", "config"), VP)
def test_noise_levels_and_progress_of_diffusion(name, config):
    scheduler = made(name, **BETAS, **config)
    levels = own_sigmas(scheduler)
    times, sigmas = np.array(list(levels)), np.array(list(levels.values()))
    expected = {
        "timestep": (times, 1 - times / 999),
        "sigma": (sigmas, 1 - sigmas / SIGMAS[-1]),
        "logsnr": (-2 * np.log(sigmas), np.log(SIGMAS[-1] / sigmas) / np.log(SIGMAS[-1] / SIGMAS[0])),
    }
    for clock, (values, u) in expected.items():
        grid = read_grid(scheduler, clock)
        assert grid.count == len(levels)
        assert grid.measures[clock].values == pytest.approx(values.tolist(), rel=2e-4, abs=1e-5), clock
        assert grid.progress(clock) == pytest.approx(clamped(u), abs=2e-4), clock
        assert grid.progress(clock) == sorted(grid.progress(clock))
    assert read_grid(scheduler).progress("index") == pytest.approx(np.linspace(0, 1, len(levels)).tolist())


@pytest.mark.parametrize(("name", "config"), SHARES)
def test_noise_levels_and_progress_of_flow_matching(name, config):
    scheduler = made(name, **config)
    levels = own_sigmas(scheduler)
    times, sigmas = np.array(list(levels)), np.array(list(levels.values()))
    with np.errstate(divide="ignore"):
        logsnr = 2 * np.log((1 - sigmas) / sigmas)
    most = max(times[0], 999.0)
    expected = {"timestep": 1 - times / most, "sigma": 1 - sigmas, "logsnr": (logsnr + 5.4) / 12.5}
    for clock, u in expected.items():
        assert read_grid(scheduler, clock).progress(clock) == pytest.approx(clamped(u), abs=1e-5), clock
    assert read_grid(scheduler, "sigma").measures["sigma"].values == pytest.approx(sigmas.tolist(), abs=1e-6)


def test_by_hand():
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=[1.0, 0.75, 0.5, 0.25])
    for clock in ("timestep", "sigma"):
        assert read_grid(scheduler, clock).progress(clock) == pytest.approx([0, 0.25, 0.5, 1])
    u = read_grid(scheduler, "logsnr").progress("logsnr")
    assert u == pytest.approx([0, (5.4 - 2 * math.log(3)) / 12.5, 0.432, 1])


@pytest.mark.parametrize(("name", "config"), [*((n, {**BETAS, **c}) for n, c in VP), *SHARES])
def test_the_scheduler_is_left_exactly_as_it_was_and_may_stand_anywhere(name, config):
    scheduler = made(name, **config)
    grids = [read_grid(scheduler, clock) for clock in ("timestep", "sigma", "logsnr")]
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(2)
        scheduler._step_index = 3
    before, parts = copy.deepcopy(vars(scheduler)), dict(vars(scheduler))
    assert [read_grid(scheduler, clock) for clock in ("timestep", "sigma", "logsnr")] == grids
    assert vars(scheduler).keys() == before.keys()
    for key, value in vars(scheduler).items():
        assert value is parts[key]
        np.testing.assert_array_equal(value, before[key])


@pytest.mark.parametrize("clock", ["timestep", "sigma", "logsnr"])
def test_a_level_means_the_same_in_10_and_in_50_steps_and_for_all_samplers(clock):
    def known(name, steps):
        prk = {"skip_prk_steps": True} if name == "PNDMScheduler" else {}
        scheduler = made(name, steps, **BETAS, **prk, timestep_spacing="trailing")
        times = dict.fromkeys(int(t) for t in scheduler.timesteps.tolist())
        return dict(list(zip(times, read_grid(scheduler, clock).progress(clock), strict=True))[:-1])

    reference = known("DDIMScheduler", 50)
    for name in ("DDIMScheduler", "EulerDiscreteScheduler", "HeunDiscreteScheduler", "PNDMScheduler"):
        few = known(name, 10)
        assert len(few) == 9 and few == pytest.approx({t: reference[t] for t in few}, abs=1e-6)


def test_pure_noise_counts_alike_in_all_samplers():
    """With zero terminal signal to noise, DDIM's table ends at 0 and Euler's at 2^-24."""
    config = {**BETAS, "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    for clock in ("sigma", "logsnr"):
        ddim, euler = (read_grid(made(f"{n}Scheduler", **config), clock) for n in ("DDIM", "EulerDiscrete"))
        u = ddim.progress(clock)
        assert u[0] == 0 and u == sorted(set(u)) and all(map(math.isfinite, ddim.measures[clock].values))
        assert u == pytest.approx(euler.progress(clock), abs=1e-4)
    assert 0.4 < u[1] < 0.6


def test_schedulers_whose_timesteps_are_no_time():
    for name in ("EDMEulerScheduler", "IPNDMScheduler", "SCMScheduler"):
        with pytest.raises(ValueError, match="does not tell the timestep"):
            read_grid(made(name, 2), "timestep").progress("timestep")
    for name in ("IPNDMScheduler", "SCMScheduler"):
        for clock in ("sigma", "logsnr"):
            with pytest.raises(ValueError, match=f"does not tell the {clock}"):
                read_grid(made(name, 2), clock).progress(clock)
    edm = made("EDMEulerScheduler", 5, sigma_max=80.0, sigma_min=0.002)
    span = math.log(80.0 / 0.002)
    by_hand = [math.log(80.0 / s) / span for s in edm.sigmas[:-1].tolist()]
    assert read_grid(edm, "logsnr").progress("logsnr") == pytest.approx(by_hand, abs=1e-6)
    assert [read_grid(made("EDMEulerScheduler", 1), c).progress(c) for c in ("sigma", "logsnr")] == [[1.0], [1.0]]


def test_a_level_at_which_no_denoiser_runs_does_not_count():
    """SCM lists N + 1 timesteps, of which the last, 0, is where the last step ends."""
    assert read_grid(made("SCMScheduler", 2)).progress("index") == [0.0, 1.0]
    assert made("DDIMScheduler", 3).timesteps[-1] == 0 and read_grid(made("DDIMScheduler", 3)).count == 3
    seen, times = watched(tiny.shared("sana-sprint", lora=True), "index", **tiny.call("sana-sprint", 1, steps=2))
    assert seen == [0.0, 1.0] and len(times) == 2


def watched(pipe, clock, **arguments):
    """u and the timestep at every denoiser call of one pipeline call."""
    seen, times = [], []

    def note(_, args, kwargs):
        t = kwargs["timestep"] if "timestep" in kwargs else args[1]
        times.append(float(t.flatten()[0]))

    handle = denoiser(pipe).register_forward_pre_hook(note, with_kwargs=True)
    try:
        with annealed_guidance(pipe, lambda u: seen.append(u) or 0.0, clock=clock):
            tiny.images(pipe, [1], **arguments)
    finally:
        handle.remove()
    return seen, times


def by_hand(clock, times):
    """u of Stable Diffusion's noise levels, all but the last, which is 1; Euler's lie between two of training."""
    sigmas = np.interp(times, np.arange(1000), SIGMAS)
    u = {
        "timestep": 1 - np.array(times) / 999,
        "sigma": 1 - sigmas / SIGMAS[-1],
        "logsnr": np.log(SIGMAS[-1] / sigmas) / np.log(SIGMAS[-1] / SIGMAS[0]),
    }[clock]
    last = times[-1]
    return [1.0 if t == last else value for t, value in zip(times, u, strict=True)]


@pytest.mark.parametrize("scheduler", ["ddim", "pndm", "euler", "dpm++2m", "heun", "unipc"])
def test_the_schedule_sees_the_noise_at_which_the_denoiser_is_run(scheduler):
    pipe = tiny.shared("sd", lora=True, scheduler=scheduler)
    for clock in ("timestep", "sigma", "logsnr") if scheduler == "heun" else ("sigma",):
        seen, times = watched(pipe, clock, **tiny.call("sd", 1, steps=4))
        assert len(seen) == {"heun": 7, "pndm": 5}.get(scheduler, 4)
        assert seen == pytest.approx(by_hand(clock, times), abs=2e-3), clock
        assert seen[-1] == 1 and seen == sorted(seen) and seen[0] < 0.8


@pytest.mark.parametrize(("family", "unit"), [("sd3", 1000), ("flux", 1)])
def test_the_schedule_sees_the_share_of_noise_in_flow_matching(family, unit):
    for clock in ("timestep", "sigma"):
        seen, times = watched(tiny.shared(family, lora=True), clock, **tiny.call(family, 1, steps=4))
        assert len(seen) == 4
        assert seen == pytest.approx([*(1 - t / unit for t in times[:-1]), 1.0], abs=1e-5)


EDITED = {
    "StableDiffusionImg2ImgPipeline": {"image": picture()},
    "StableDiffusionInpaintPipeline": {"image": picture(), "mask_image": mask(), "height": 16, "width": 16},
}


@pytest.mark.parametrize("name", EDITED)
@pytest.mark.parametrize("scheduler", ["ddim", "pndm", "euler"])
def test_an_edit_begins_at_its_own_noise_and_its_index_clock_at_0(name, scheduler):
    pipe = like(getattr(diffusers, name), tiny.pipeline("sd", lora=True, scheduler=scheduler))
    for clock in ("index", "sigma"):
        arguments = {"prompt": "red", "num_inference_steps": 6, "strength": 0.5, **EDITED[name]}
        seen, times = watched(pipe, clock, **arguments)
        ranks = [sorted(set(times), reverse=True).index(t) for t in times]
        expected = [rank / max(ranks) for rank in ranks] if clock == "index" else by_hand(clock, times)
        assert len(set(times)) == {"pndm": 4}.get(scheduler, 3) and times[0] < 600
        assert seen == pytest.approx(expected, abs=2e-3)
        assert seen[-1] == 1 and (seen[0] == 0) == (clock == "index")


@pytest.mark.parametrize("strength", [0.34, 0.5, 0.67, 0.9, 1.0])
def test_pndm_counts_its_levels_wherever_a_run_begins(strength):
    """It lists the second timestep twice, and at strength 0.67 the run begins at the second of the two."""
    pipe = like(diffusers.StableDiffusionImg2ImgPipeline, tiny.pipeline("sd", lora=True, scheduler="pndm"))
    seen, times = watched(pipe, "index", prompt="red", num_inference_steps=6, strength=strength, image=picture())
    levels = sorted(set(times), reverse=True)
    assert seen == [levels.index(t) / (len(levels) - 1) for t in times]


def test_flow_matching_edits_begin_at_their_own_noise():
    pipe = like(diffusers.StableDiffusion3Img2ImgPipeline, tiny.pipeline("sd3", lora=True))
    arguments = {**tiny.call("sd3", 1, steps=6), "image": picture(), "strength": 0.5}
    assert watched(pipe, "index", **arguments)[0] == [0, 0.5, 1]
    seen, times = watched(pipe, "sigma", **arguments)
    assert seen == pytest.approx([*(1 - t / 1000 for t in times[:-1]), 1.0], abs=1e-5) and 0.1 < seen[0] < 0.9


def test_a_scheduler_that_cannot_add_noise_knows_the_index_only():
    pipe = tiny.pipeline("sd", lora=True)
    pipe.scheduler = diffusers.IPNDMScheduler()
    before = tiny.footprint(pipe)
    for clock in ("sigma", "logsnr", "timestep"):
        with pytest.raises(ValueError, match=f"does not tell the {clock} of its steps: use the clock 'index'"):
            watched(pipe, clock, **tiny.call("sd", 1))
    assert watched(pipe, "index", **tiny.call("sd", 1))[0] == [0, 0.5, 1]
    assert tiny.footprint(pipe)["denoiser"] == before["denoiser"]


def test_every_adapter_may_follow_a_clock_of_its_own():
    from sfumato.schedules import schedule

    pipe = tiny.pipeline("sd", lora=True)
    tiny.perturbed_lora(pipe, "second", seed=1)
    seen = {"index": [], "sigma": []}
    adapters = {
        name: schedule(lambda u, clock=clock: seen[clock].append(u) or 0.3, clock=clock)
        for name, clock in [("default", "index"), ("second", "sigma")]
    }
    with annealed_guidance(pipe, "linear", adapter=adapters):
        tiny.images(pipe, [1], **tiny.call("sd", 1))
    times = pipe.scheduler.timesteps.tolist()
    assert seen["index"] == [0, 0.5, 1] and seen["sigma"] == pytest.approx(by_hand("sigma", times), abs=1e-5)
