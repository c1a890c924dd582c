"""The law of AIG between mixtures against single Gaussians, and against the real pipeline, hook and scheduler."""

import math

import pytest
import torch

from sfumato.analytic import double_precision, gaussian, gaussian_aig, gaussian_entropy, gaussian_kl, mixture_aig
from sfumato.pipelines.adapters import lora_scale
from sfumato.pipelines.guidance import annealed_guidance
from sfumato.pipelines.rollout import rollout
from tests.analytic.bed import scheduler
from tests.analytic.mixture_bed import AIG, BASE, TUNED, VALLEY, modes_pipeline

STEPS = 12
V_PREDICTION = {"prediction_type": "v_prediction"}
DETERMINISTIC = [
    ("DDIMScheduler", {}),
    ("DDIMScheduler", {**V_PREDICTION, "timestep_spacing": "trailing", "rescale_betas_zero_snr": True}),
    ("DDIMScheduler", {"prediction_type": "sample"}),
    ("EulerDiscreteScheduler", V_PREDICTION),
    ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}),
]
STOCHASTIC = [
    ("DDIMScheduler", {}, {"eta": 0.5}),
    ("DDPMScheduler", V_PREDICTION, {}),
    ("DDPMScheduler", {"timestep_spacing": "trailing"}, {}),
    ("EulerAncestralDiscreteScheduler", {}, {}),
]
SCHEDULES = [
    {"schedule": "base"},
    {"schedule": "linear"},
    {"schedule": "power", "p": 4, "cap": 0.5, "clock": "nemo"},
    {"schedule": "step", "f": 0.6},
    {"schedule": "constant", "w": 0.5},
    {"schedule": "falling", "p": 2},
]


@pytest.mark.parametrize(("name", "config", "arguments"), [(*row, {}) for row in DETERMINISTIC] + STOCHASTIC)
def test_with_one_component_it_is_the_discrete_recursion(name, config, arguments):
    numbers, grid = (0.5, 0.7, 1.5, 0.1), scheduler(name, **config)
    options = {**AIG, "num_inference_steps": STEPS, **arguments}
    mean, variance = gaussian_aig(*numbers, grid, **options)
    law = mixture_aig(gaussian(*numbers[:2]), gaussian(*numbers[2:]), grid, **options, accuracy=1e-11)
    assert (law.mean, law.variance) == pytest.approx((mean, variance), abs=1e-10)
    assert law.entropy == pytest.approx(gaussian_entropy(variance).item(), abs=1e-10)
    assert law.kl(gaussian(*numbers[:2])) == pytest.approx(gaussian_kl(mean, variance, 0.5, 0.7).item(), abs=1e-10)


def ends(pipe, noise):
    """Where the real pipeline leads from standard normal noise (B,)."""
    latents = noise.reshape(-1, 1, 1, 1)
    return rollout(pipe, prompt="", seeds=[0] * len(noise), latents=latents, num_inference_steps=STEPS).images.flatten()


def assert_same_quantiles(law, noise):
    """The sampler's map is rising, so it takes the quantiles of the noise to those of the images."""
    levels = torch.special.ndtr(noise)
    shares = torch.tensor([0.0, *levels.tolist(), 1.0], dtype=torch.float64).diff()
    assert [mode.weight for mode in law.modes()] == pytest.approx(shares.tolist(), abs=1e-9)


@pytest.mark.parametrize(("name", "config"), DETERMINISTIC)
def test_the_pipeline_takes_every_point_of_noise_where_the_law_says(name, config):
    """Seven points at which the law's mass below the image must be that below the noise."""
    pipe, noise = modes_pipeline(name, **config), torch.linspace(-2, 2, 7, dtype=torch.float64)
    with double_precision(pipe.scheduler):
        for schedule in SCHEDULES if name == "FlowMatchEulerDiscreteScheduler" else SCHEDULES[1:3]:
            with annealed_guidance(pipe, **schedule):
                images = ends(pipe, noise)
            law = mixture_aig(BASE, TUNED, pipe.scheduler, **schedule, cuts=images.tolist(), accuracy=1e-11)
            assert_same_quantiles(law, noise)


def test_so_it_does_with_scaled_and_annealed_weights():
    pipe, noise = modes_pipeline("EulerDiscreteScheduler"), torch.linspace(-2, 2, 7, dtype=torch.float64)
    with double_precision(pipe.scheduler):
        with lora_scale(pipe, 0.4):
            scaled = ends(pipe, noise)
        with annealed_guidance(pipe, **AIG, blend="weights"):
            annealed = ends(pipe, noise)
        for schedule, images in (({"schedule": "constant", "w": 0.4}, scaled), (AIG, annealed)):
            cuts = images.tolist()
            law = mixture_aig(BASE, TUNED, pipe.scheduler, **schedule, blend="weights", cuts=cuts, accuracy=1e-11)
            assert_same_quantiles(law, noise)


@pytest.mark.parametrize(
    ("name", "config", "arguments"),
    [*STOCHASTIC, ("FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": True, "shift_terminal": 0.05}, {})],
)
def test_stochastic_samples_have_the_law(name, config, arguments):
    """Counts between nine cuts by chi-square, mean and variance by z-tests, all at 4 standard errors or p = 1e-4."""
    pipe, count = modes_pipeline(name, **config), 20_000
    cuts = [-1.6, -1.2, -1.0, -0.8, VALLEY, 1.6, 1.8, 2.0, 2.2]
    with annealed_guidance(pipe, **AIG):
        images = pipe([""] * count, STEPS, generator=torch.Generator().manual_seed(1), **arguments).images.flatten()
    law = mixture_aig(BASE, TUNED, pipe.scheduler, **AIG, cuts=cuts, **arguments)
    found = torch.bincount(torch.bucketize(images, torch.tensor(cuts, dtype=images.dtype)), minlength=10)
    wanted = count * torch.tensor([mode.weight for mode in law.modes()])
    assert ((found - wanted) ** 2 / wanted).sum() < 33.7
    assert images.mean().item() == pytest.approx(law.mean, abs=4 * math.sqrt(law.variance / count))
    fourth = law.expectation(lambda x: (x[:, 0] - law.mean) ** 4)
    assert images.var().item() == pytest.approx(law.variance, abs=4 * math.sqrt((fourth - law.variance**2) / count))


@pytest.mark.parametrize(("name", "arguments"), [("DDIMScheduler", {}), ("DDIMScheduler", {"eta": 1.0})])
def test_the_stated_accuracy_holds_against_a_finer_integration(name, arguments):
    options = {**AIG, "num_inference_steps": 20, "cuts": [VALLEY], **arguments}
    fine = mixture_aig(BASE, TUNED, scheduler(name), **options, accuracy=1e-12)
    for accuracy in (1e-4, 1e-8):
        law = mixture_aig(BASE, TUNED, scheduler(name), **options, accuracy=accuracy)
        for value in (lambda x: x.mean, lambda x: x.variance, lambda x: x.entropy, lambda x: x.modes()[0].weight):
            assert value(law) == pytest.approx(value(fine), abs=10 * accuracy)
        assert law.kl(BASE) == pytest.approx(fine.kl(BASE), abs=10 * accuracy)
        assert float(law.masses.sum()) == pytest.approx(1.0, abs=accuracy)


def test_a_run_cut_short_is_the_law_of_x_t():
    """Ten steps of DDIM with a mixture's own denoiser, many and small ones, lead to its noised marginal."""
    grid = scheduler("DDIMScheduler", timestep_spacing="trailing", set_alpha_to_one=False)
    law = mixture_aig(BASE, TUNED, grid, "base", num_inference_steps=500, until=400, cuts=[0.0])
    alpha = float(grid.alphas_cumprod[199]) ** 0.5
    noised = BASE.noised(alpha, (1 - alpha**2) ** 0.5)
    assert law.mean == pytest.approx(noised.mean.item(), abs=0.01)
    assert law.variance == pytest.approx(noised.variance.item(), rel=0.01)
    assert 0 <= law.kl(noised) < 1e-3


def test_a_map_that_folds_the_line_adds_its_branches():
    """Far extrapolation to the base's side, where images of rising noise turn back; against a histogram of many."""
    pipe, count = modes_pipeline("EulerDiscreteScheduler"), 200_000
    levels = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    with annealed_guidance(pipe, "constant", w=-1.5):
        images = pipe([""] * count, STEPS, latents=torch.special.ndtri(levels).reshape(-1, 1, 1, 1)).images.flatten()
    assert (images.diff() < 0).any() and (images.diff() > 0).any()
    law = mixture_aig(BASE, TUNED, pipe.scheduler, "constant", w=-1.5)
    assert (law.mean, law.variance) == pytest.approx((images.mean().item(), images.var().item()), abs=1e-3)
    heights = torch.histogram(images, 1000).hist / count
    width = float(images.max() - images.min()) / 1000
    entropy = -torch.special.xlogy(heights, heights / width).sum()
    assert law.entropy == pytest.approx(entropy.item(), abs=0.01)


@pytest.mark.parametrize(
    ("base", "tuned", "options", "message"),
    [
        (gaussian([0.0, 1.0], 1.0), gaussian([0.0, 1.0], 1.0), {}, "one dimension"),
        (BASE, TUNED, {"blend": "both"}, "blend"),
        (BASE, gaussian(0.0, 1.0), {"blend": "weights"}, "same number"),
        (BASE, TUNED, {"eta": 1e-4}, "more noise"),
    ],
)
def test_what_cannot_be_integrated_is_refused(base, tuned, options, message):
    with pytest.raises(ValueError, match=message):
        mixture_aig(base, tuned, scheduler("DDIMScheduler"), "linear", num_inference_steps=5, **options)
