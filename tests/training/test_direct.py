"""DRaFT-LV, AlignProp and ReFL on tiny pipelines; their closed forms are in tests/analytic/test_direct.py."""

from collections import Counter

import numpy as np
import pytest
import torch
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from sfumato.pipelines.adapters import AdapterSwitch, denoiser, trainable
from sfumato.pipelines.predictions import noise_like, noised
from sfumato.pipelines.rollout import continued
from sfumato.rewards import as_reward
from sfumato.rewards.jpeg import JPEGCompressibility
from sfumato.training import AlignProp, Batch, Draft, DraftLV, ReFL
from tests import tiny
from tests.training.common import brightness, make_trainer, sample

STEPS = 4
METHODS = {"draft_lv": DraftLV(), "align_prop": AlignProp(), "refl": ReFL((0.0, 1.0))}
EVERY_METHOD = pytest.mark.parametrize("objective", METHODS.values(), ids=METHODS)
DOUBLE, SINGLE = (2e-5, 1e-4), (1e-3, 1e-2)
"""Size of the difference and relative tolerance. Models are float64, but flow schedulers round samples to float32."""


def tiny_batch(family):
    pipe = tiny.pipeline(family, lora=True).to(torch.float64)
    call = tiny.call(family, steps=STEPS)
    prompts, reward = call.pop("prompt"), as_reward(lambda images, prompts: images.square().mean((1, 2, 3)))
    return Batch(pipe, prompts, [1, 2], call, reward, AdapterSwitch(denoiser(pipe), "default").off)


def last_steps_again(batch, sampled, noisings):
    """The images of DRaFT-LV."""
    yield continued(batch.pipe, sampled, -1).images
    last = sampled.steps[-1]
    for number in range(noisings):
        noise = noise_like(last.next_sample, [DraftLV.seed(seed, number) for seed in batch.seeds])
        point = noised(batch.pipe.scheduler, last, last.next_sample, noise)
        yield continued(batch.pipe, sampled, -1, sample=point).images


CASES = {
    "DRaFT-LV": (lambda batch: DraftLV(2).outcomes(batch), lambda batch, sampled: last_steps_again(batch, sampled, 2)),
    "AlignProp": (
        lambda batch: AlignProp().outcomes(batch, 3),
        lambda batch, sampled: [continued(batch.pipe, sampled, STEPS - 3).images],
    ),
    "ReFL": (
        lambda batch: ReFL().outcomes(batch, 2),
        lambda batch, sampled: [continued(batch.pipe, sampled, 2, stop_at=2).images],
    ),
}
"""Method -> its outcomes, and the images of the current weights in the steps that carry its gradient alone."""


@pytest.mark.parametrize(("family", "precision"), [("sd", DOUBLE), ("sd3", SINGLE)])
@pytest.mark.parametrize("method", CASES)
def test_the_gradient_is_that_of_finite_differences(method, family, precision):
    (size, tolerance), (outcomes, images) = precision, CASES[method]
    batch = tiny_batch(family)
    parameters, sampled = trainable(denoiser(batch.pipe)), batch.sample(record=True)
    found = [outcome.loss.item() for outcome in outcomes(batch) if outcome.loss.backward() is None]
    gradient = torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in parameters])
    noise = torch.randn(gradient.shape, generator=torch.Generator().manual_seed(3), dtype=gradient.dtype)
    direction = gradient / gradient.norm() + noise / noise.norm()

    def loss(shift):
        vector_to_parameters(start + shift * direction, parameters)
        return -torch.stack([batch.score(each) for each in images(batch, sampled)]).mean().item()

    start = parameters_to_vector(parameters).detach()
    assert loss(0.0) == pytest.approx(sum(found), rel=1e-6)
    assert (loss(size) - loss(-size)) / (2 * size) == pytest.approx(float(gradient @ direction), rel=tolerance)


def signed(images, prompts):
    """Raises one image of each update and lowers the other: nothing to gain on the whole."""
    return brightness(images, prompts) * torch.tensor([1.0, -1.0])


@pytest.mark.parametrize(("method", "family"), [("draft_lv", "sd"), ("align_prop", "sd3"), ("refl", "sd3")])
def test_it_raises_an_easy_reward_and_nothing_without_one(method, family, tmp_path, monkeypatch):
    monkeypatch.setattr("sfumato.training.trainer.try_on_base", lambda *_: None)  # which refuses `signed`
    rises = {}
    for reward in (brightness, signed):
        pipe = tiny.pipeline(family)
        before = sample(pipe, family).mean()
        make_trainer(tmp_path / reward.__name__, family, METHODS[method], reward, pipe, steps=10, lr=3e-2).run()
        rises[reward] = float(sample(pipe, family).mean() - before)
    assert rises[brightness] > 0.005
    assert rises[signed] < 0.5 * rises[brightness]


@EVERY_METHOD
def test_a_reward_without_gradient_is_refused(objective, tmp_path):
    with pytest.raises(ValueError, match="jpeg_compressibility' is not differentiable"):
        make_trainer(tmp_path, objective=objective, reward=JPEGCompressibility())


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (AlignProp(high=3), "through the last 3 steps, but DDIMScheduler takes only 2: lower training.objective.high"),
        (AlignProp(low=3), "through the last 3 steps, but DDIMScheduler takes only 2: lower training.objective.low"),
        (Draft(0), "training.objective.last_steps is 0, but one step at least has to carry gradient"),
        (AlignProp(low=2, high=1), "training.objective.high is 1, less than low, which is 2"),
        (ReFL((0.2, 0.8)), r"none of the 2 steps has a progress within training.objective.span, which is \[0.2, 0.8\]"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_sampled(objective, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        make_trainer(tmp_path, objective=objective)
    assert not list(tmp_path.iterdir())


def test_the_steps_of_align_prop_are_uniform():
    random, objective = np.random.default_rng(0), AlignProp(low=2, high=4)
    counts = Counter(objective.draw(random, 50) for _ in range(3000))
    assert sorted(counts) == [2, 3, 4]
    assert all(abs(count - 1000) < 5 * 26 for count in counts.values())  # 26 is the standard deviation of each
    assert {AlignProp().draw(random, 3) for _ in range(50)} == {1, 2, 3}


def test_the_steps_of_align_prop_are_gaussian_and_clipped():
    random = np.random.default_rng(0)
    free = np.array([AlignProp("gaussian", mean=25, std=4).draw(random, 50) for _ in range(3000)])
    assert abs(free.mean() - 25) < 5 * 4 / 3000**0.5
    assert abs(free.std() - 4) < 0.3
    clipped = [AlignProp("gaussian", low=2, high=9).draw(random, 50) for _ in range(500)]
    assert (min(clipped), max(clipped)) == (2, 9)


def test_align_prop_draws_once_for_each_update(tmp_path):
    trainer = make_trainer(tmp_path, objective=AlignProp(), micro_batch_size=1, steps=6, seed=1)
    assert {record["last_steps"] for record in trainer} == {1.0, 2.0}  # where the two micro-batches agree


def test_refl_draws_for_each_micro_batch_and_runs_no_step_after_it(tmp_path, monkeypatch):
    monkeypatch.setattr("sfumato.training.trainer.try_on_base", lambda *_: None)
    pipe, found = tiny.pipeline("sd"), set()
    trainer = make_trainer(tmp_path, objective=ReFL((0.0, 1.0)), pipe=pipe, micro_batch_size=1, steps=8)
    forwards = tiny.counted(denoiser(pipe))
    for _ in trainer:
        found.add(len(forwards))
        forwards.clear()
    assert found == {2, 3, 4}  # one or two steps for each of two images
