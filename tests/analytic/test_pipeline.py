import pytest
import torch

from sfumato.analytic import AnalyticPipeline, analytic_pipeline, double_precision, gaussian, mixture, tune
from sfumato.pipelines.adapters import base_weights, load_lora, lora_scale, save_lora
from sfumato.pipelines.guidance import annealed_guidance
from sfumato.pipelines.rollout import replay, rollout
from tests.analytic.bed import MEAN_B, MEAN_R, VAR_B, VAR_R, run, scheduler, tuned_pipeline

WORLD = mixture([0.3, 0.7], [[-2.0, 0.0], [2.0, 1.0]], [[0.05, 1.0], [0.1, 0.2]])
OTHER = mixture([0.9, 0.1], [[-1.0, 3.0], [0.0, 0.0]], [[1.0, 0.5], [0.3, 2.0]])


def test_the_rollout_is_the_pipeline_itself():
    pipe = analytic_pipeline(WORLD, scheduler("DDIMScheduler"))
    seeds = [5, 6]
    images = rollout(pipe, prompt="", seeds=seeds, num_inference_steps=6, eta=1.0).images
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    assert torch.equal(images, pipe(["", ""], 6, eta=1.0, generator=generators).images)
    assert images.shape == (2, 2, 1, 1) and images.dtype == torch.float64


def test_all_prediction_types_sample_the_same_images():
    images = []
    for kind in ("epsilon", "v_prediction", "sample"):
        pipe = analytic_pipeline(WORLD, scheduler("DDIMScheduler", prediction_type=kind))
        with double_precision(pipe.scheduler):
            images.append(rollout(pipe, prompt="", seeds=range(4), num_inference_steps=10).images)
    assert torch.allclose(images[0], images[1], rtol=0, atol=1e-10)
    assert torch.allclose(images[0], images[2], rtol=0, atol=1e-10)


def test_samples_follow_the_mixture():
    pipe = analytic_pipeline(WORLD, scheduler("DDPMScheduler"))
    generator = torch.Generator().manual_seed(0)
    images = pipe([""] * 2000, 250, generator=generator).images.flatten(1)
    left = images[:, 0] < 0
    assert left.double().mean().item() == pytest.approx(0.3, abs=0.04)
    assert torch.allclose(images.mean(0), WORLD.mean, atol=0.15)
    assert torch.allclose(images.var(0), WORLD.variance, rtol=0.1)
    assert images[left, 1].var().item() == pytest.approx(1.0, rel=0.15)


def test_every_prompt_has_its_own_world_and_the_lora_tunes_each():
    pipe = analytic_pipeline({"a": WORLD, "b": OTHER}, scheduler("DDIMScheduler"))
    alone = analytic_pipeline(OTHER, scheduler("DDIMScheduler"))
    b = rollout(alone, prompt="", seeds=[2], num_inference_steps=5).images
    both = rollout(pipe, prompt=["a", "b"], seeds=[1, 2], num_inference_steps=5).images
    assert torch.allclose(both[1], b[0], rtol=0, atol=1e-12)
    tune(pipe, {"b": WORLD, "a": OTHER})
    with base_weights(pipe):
        assert same(pipe.world("a"), WORLD)
    assert same(pipe.world("a"), OTHER) and same(pipe.world("b"), WORLD)


def test_classifier_free_guidance_moves_away_from_the_mean_of_the_prompts():
    """Equal variances: guidance by s acts like the world with mean m_uncond + s (m - m_uncond)."""
    near, far = gaussian([0.0, 1.0], 0.5), gaussian([2.0, -1.0], 0.5)
    pipe = analytic_pipeline({"near": near, "far": far}, scheduler("DDIMScheduler"))
    pushed = analytic_pipeline(gaussian([1.0 + 3 * 1.0, 0.0 - 3 * 1.0], 0.5), scheduler("DDIMScheduler"))
    images = rollout(pipe, prompt="far", seeds=[1, 2], num_inference_steps=6, guidance_scale=3.0).images
    expected = rollout(pushed, prompt="", seeds=[1, 2], num_inference_steps=6).images
    assert torch.allclose(images, expected, rtol=0, atol=1e-10)


def test_a_scaled_lora_is_a_world_between():
    pipe = tuned_pipeline("DDIMScheduler")
    with lora_scale(pipe, 0.25):
        world = pipe.world()
    assert same(world, gaussian(0.75 * MEAN_B + 0.25 * MEAN_R, VAR_B**0.75 * VAR_R**0.25))


def test_every_step_replays_and_the_base_is_seen_at_the_same_point():
    pipe = tuned_pipeline("EulerDiscreteScheduler")
    with annealed_guidance(pipe, "linear"):
        recorded = rollout(pipe, prompt="", seeds=[1, 2], num_inference_steps=5, record=True)
        for index, step in enumerate(recorded.steps):
            again = replay(pipe, recorded, index)
            assert torch.equal(again.prediction, step.prediction)
            assert torch.equal(again.next_sample, step.next_sample)


def test_guidance_at_its_ends_is_base_and_tuned_bit_for_bit():
    pipe = tuned_pipeline("FlowMatchEulerDiscreteScheduler")
    tuned = run(pipe, [0.3, -1.2], 6)
    with base_weights(pipe):
        base = run(pipe, [0.3, -1.2], 6)
    for name, images in (("base", base), ("tuned", tuned)):
        with annealed_guidance(pipe, name):
            assert torch.equal(run(pipe, [0.3, -1.2], 6), images)


def test_the_lora_is_saved_and_loaded_as_any_other(tmp_path):
    pipe = tuned_pipeline("DDIMScheduler")
    save_lora(pipe, tmp_path)
    other = analytic_pipeline(gaussian(MEAN_B, VAR_B), scheduler("DDIMScheduler"))
    load_lora(other, tmp_path)
    assert torch.equal(run(other, [0.3, -1.2], 6), run(pipe, [0.3, -1.2], 6))


def test_the_pipeline_is_saved_and_loaded_as_any_other(tmp_path):
    pipe = analytic_pipeline({"a": WORLD, "b": OTHER}, scheduler("DDIMScheduler"))
    pipe.save_pretrained(tmp_path)
    loaded = AnalyticPipeline.from_pretrained(tmp_path, torch_dtype=torch.float64)
    assert same(loaded.world("b"), OTHER)
    arguments = {"prompt": ["a", "b"], "seeds": [1, 2], "num_inference_steps": 5}
    assert torch.equal(rollout(loaded, **arguments).images, rollout(pipe, **arguments).images)


def test_the_denoiser_alone_takes_a_batch_of_timesteps():
    pipe = analytic_pipeline(WORLD, scheduler("DDIMScheduler"))
    x = torch.randn(2, 2, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    embeddings, _ = pipe.encode_prompt(["", ""])
    with torch.no_grad():
        both = pipe.unet(x, torch.tensor([10, 900]), embeddings).sample
        for row, t in enumerate((10, 900)):
            alpha = pipe.scheduler.alphas_cumprod[t].double().sqrt()
            one = WORLD.predict(x[row].flatten(), alpha, (1 - alpha**2).sqrt(), "epsilon")
            assert torch.allclose(both[row].flatten(), one, rtol=1e-10)


def test_double_precision_leaves_nothing_behind():
    pipe = tuned_pipeline("EulerDiscreteScheduler")
    before = run(pipe, [0.5], 6)
    with pytest.raises(RuntimeError, match="stop"), double_precision(pipe.scheduler):
        double = run(pipe, [0.5], 6)
        raise RuntimeError("stop")
    assert torch.equal(run(pipe, [0.5], 6), before)
    assert 0 < (double - before).abs().max() < 1e-5
    assert pipe.scheduler.alphas_cumprod.dtype == torch.float32


def test_bad_input_is_refused():
    pipe = analytic_pipeline({"a": WORLD}, scheduler("DDIMScheduler"))
    with pytest.raises(ValueError, match="no world for prompt 'cat'"):
        pipe("cat")
    with pytest.raises(ValueError, match="output_type"):
        pipe("a", output_type="pil")
    with pytest.raises(ValueError, match="latents are"):
        pipe("a", latents=torch.zeros(1, 3, 1, 1))
    with pytest.raises(ValueError, match="tuned ones"):
        tune(pipe, {"b": WORLD})
    with pytest.raises(ValueError, match="all worlds have"):
        analytic_pipeline({"a": WORLD, "b": gaussian(0.0, 1.0)}, scheduler("DDIMScheduler"))
    with pytest.raises(ValueError, match="dimensions"):
        analytic_pipeline(WORLD, scheduler("DDIMScheduler"), shape=(3, 1, 1))


def same(world, other):
    pairs = (
        (world.log_weights, other.log_weights),
        (world.means, other.means),
        (world.variances, other.variances),
    )
    return all(torch.allclose(a, b, rtol=1e-10, atol=1e-12) for a, b in pairs)
