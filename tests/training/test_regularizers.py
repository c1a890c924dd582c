"""Penalties, the bonus for diversity and the shaping of rewards; closed forms are in tests/analytic/test_direct.py."""

import pytest
import torch
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from sfumato.config import TrainingConfig
from sfumato.metrics import mean_pairwise_distance
from sfumato.pipelines.adapters import AdapterSwitch, denoiser, trainable
from sfumato.pipelines.rollout import replay
from sfumato.rewards import as_reward
from sfumato.training import DDPO, AdjointMatching, AlignProp, Batch, Draft, DraftLV, FlowGRPO, ReFL
from sfumato.training.diversity import DiversityBonus
from sfumato.training.regularizers import KL, Distillation, GaussianKL
from sfumato.training.terms import Shaping, Terms, Trajectory
from tests import tiny
from tests.training.common import brightness, make_trainer, sample

PENALTIES = {"kl": KL, "gaussian": GaussianKL, "distillation": Distillation}
EVERY_PENALTY = pytest.mark.parametrize("penalty", PENALTIES.values(), ids=PENALTIES)
SECTIONS = {
    "kl": {"kl": {"coefficient": 0.1}},
    "early": {"kl": {"coefficient": 0.1, "span": [0.0, 0.5]}},
    "gaussian": {"kl": {"coefficient": 0.1, "form": "gaussian", "span": [0.0, 1.0]}},
    "distillation": {"distillation": {"coefficient": 0.1, "span": [0.0, 1.0]}},
}


def noisy_batch(terms=None, steps=4):
    """Two images of an SD in float64, with noise in all steps but the last."""
    pipe = tiny.pipeline("sd", lora=True).to(torch.float64)
    call = {"num_inference_steps": steps, "guidance_scale": 2.0, "eta": 1.0}
    off = AdapterSwitch(denoiser(pipe), "default").off
    return Batch(pipe, ["red", "blue"], [1, 2], call, as_reward(brightness), off, terms or Terms())


@EVERY_PENALTY
def test_the_gradient_at_a_step_is_that_of_finite_differences(penalty):
    batch, size = noisy_batch(), 2e-5
    parameters = trainable(denoiser(batch.pipe))
    trajectory = Trajectory(batch, batch.sample(record=True))
    found = penalty(1.0)(trajectory, replay(batch.pipe, trajectory.sampled, 1, grad=True))
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(found, parameters)])
    direction, start = gradient / gradient.norm(), parameters_to_vector(parameters).detach()
    ends = []
    for shift in (size, -size):
        vector_to_parameters(start + shift * direction, parameters)
        ends.append(penalty(1.0)(trajectory, replay(batch.pipe, trajectory.sampled, 1)).item())
    assert (ends[0] - ends[1]) / (2 * size) == pytest.approx(float(gradient.norm()), rel=1e-4)


@EVERY_PENALTY
@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointed"])
def test_the_gradient_along_a_trajectory_is_that_of_finite_differences(penalty, checkpointing):
    """All steps carry gradient, so that a step's penalty depends on earlier ones by way of x_t."""
    batch, size = noisy_batch(Terms({"it": penalty(1.0)}), steps=3), 2e-6
    if checkpointing:
        denoiser(batch.pipe).enable_gradient_checkpointing()
        denoiser(batch.pipe).train()
    parameters = trainable(denoiser(batch.pipe))

    (outcome,) = Draft(3).outcomes(batch)
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(outcome.loss, parameters)])
    start = parameters_to_vector(parameters).detach()
    direction, ends = gradient / gradient.norm(), []
    for shift in (size, -size):
        vector_to_parameters(start + shift * direction, parameters)
        (outcome,) = Draft(3).outcomes(batch)
        ends.append(outcome.loss.item())
    assert (ends[0] - ends[1]) / (2 * size) == pytest.approx(float(gradient.norm()), rel=1e-4)


@EVERY_PENALTY
@pytest.mark.parametrize("span", [(0.0, 1.0), (0.0, 0.4), (0.5, 1.0), None])
def test_an_objective_and_its_penalties_look_at_each_step_once(penalty, span):
    """Of four steps the last two carry the reward's gradient; what they do not look at is run again."""
    batch = noisy_batch(Terms({"it": penalty(1.0, span)}))
    outcomes = list(Draft(2).outcomes(batch))
    trajectory = Trajectory(batch, batch.sample(record=True))
    chosen = {(0.0, 0.4): [0, 1], (0.5, 1.0): [2, 3], None: [2, 3]}.get(span, [0, 1, 2, 3])
    values = [penalty(1.0)(trajectory, replay(batch.pipe, trajectory.sampled, index)) for index in chosen]
    expected = sum(values) / (1 if penalty is GaussianKL else len(chosen))
    assert len(outcomes) == 1 + len(set(chosen) - {2, 3})
    assert torch.allclose(sum(outcome.logs["it"] for outcome in outcomes), expected, rtol=1e-6)
    total = sum(outcome.loss.detach() for outcome in outcomes)
    assert torch.allclose(total, expected - outcomes[0].rewards.mean(), rtol=1e-6)


def test_steps_that_were_not_sampled_are_not_looked_at():
    batch = noisy_batch(Terms({"it": Distillation(1.0, (0.0, 1.0))}))
    outcomes = list(ReFL().outcomes(batch, 2))
    trajectory = Trajectory(batch, batch.sample(record=True))
    values = [Distillation(1.0)(trajectory, replay(batch.pipe, trajectory.sampled, index)) for index in range(3)]
    assert torch.allclose(sum(outcome.logs["it"] for outcome in outcomes), sum(values) / 3, rtol=1e-6)


def test_draft_lv_is_penalised_where_its_gradient_is():
    batch = noisy_batch(Terms({"it": KL(1.0)}))
    outcomes = list(DraftLV(2).outcomes(batch))
    trajectory = Trajectory(batch, batch.sample(record=True))
    first = KL(1.0)(trajectory, replay(batch.pipe, trajectory.sampled, -1))
    found = [float(outcome.logs["it"]) * 3 for outcome in outcomes]
    assert found[0] == pytest.approx(first.item())
    assert len(set(found)) == len(found) == 3


@pytest.mark.parametrize("objective", [Draft(), DraftLV(1), ReFL((0.0, 1.0))], ids=["draft", "draft_lv", "refl"])
@pytest.mark.parametrize("section", SECTIONS.values(), ids=SECTIONS)
def test_a_penalty_is_nothing_before_the_first_update(section, objective, tmp_path):
    pipe, (name,) = tiny.pipeline("sd", scheduler="euler-ancestral"), section
    first, second = make_trainer(tmp_path, pipe=pipe, objective=objective, regularizers=section, steps=2)
    assert first[name] == 0.0
    assert second[name] > 0.0


@pytest.mark.parametrize("section", SECTIONS.values(), ids=SECTIONS)
def test_a_penalty_holds_the_model_near_its_base(section, tmp_path):
    changes = []
    for strong in (False, True):
        pipe = tiny.pipeline("sd", scheduler="euler-ancestral")
        before, ((name, options),) = sample(pipe), section.items()
        regularizers = {name: {**options, "coefficient": 100.0}} if strong else {}
        make_trainer(tmp_path / str(strong), pipe=pipe, regularizers=regularizers, steps=5).run()
        changes.append(float((sample(pipe) - before).square().mean().sqrt()))
    assert changes[1] < 0.5 * changes[0]


@pytest.mark.parametrize(
    ("scheduler", "section", "message"),
    [
        ("ddim", SECTIONS["gaussian"], r"draws no noise here, so .*: pass eta=1.0 \(in a recipe: sampling.arguments"),
        ("euler-ancestral", {"kl": {"coefficient": 1.0, "form": "gaussian"}}, r"set its span, say to \[0, 1\]"),
        ("euler-ancestral", {"kl": {"coefficient": 1.0, "form": "gaussian", "span": [1, 1]}}, "draws no noise in the"),
        (
            "ddim",
            {"kl": {"coefficient": 1.0, "span": [0.2, 0.8]}},
            "none of the 2 steps .*training.regularizers.kl.span",
        ),
        (
            "ddim",
            {"distillation": {"coefficient": 1.0, "span": [0.2, 0.8]}},
            "none of .*training.regularizers.distillation.span",
        ),
    ],
)
def test_what_has_no_penalty_is_refused_before_anything_is_sampled(scheduler, section, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        make_trainer(tmp_path, pipe=tiny.pipeline("sd", scheduler=scheduler), regularizers=section)
    assert not list(tmp_path.iterdir())


class Pixels:
    """Features that are the pixels themselves."""

    fingerprint = "pixels"

    def __init__(self, distance):
        self.distance = distance

    def __call__(self, images):
        return images.flatten(1)


def random_images(count, size=4):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("distance", ["cosine", "squared"])
def test_the_bonus_is_the_mean_distance_to_the_others_of_the_prompt(distance):
    images, prompts = random_images(6), ["a", "a", "b", "b", "b", "a"]
    bonus = DiversityBonus(1.0, Pixels(distance))(images, prompts)
    for rows in ([0, 1, 5], [2, 3, 4]):
        expected = mean_pairwise_distance(images[rows].flatten(1), distance)
        assert bonus[rows].mean().item() == pytest.approx(expected)
    pair = DiversityBonus(1.0, Pixels(distance))(images[:2], ["a", "a"])
    assert pair[0] == pair[1]


@pytest.mark.parametrize("distance", ["cosine", "squared"])
def test_the_gradient_of_the_bonus(distance):
    bonus = DiversityBonus(1.0, Pixels(distance))
    images = random_images(4, size=2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: bonus(x, ["a", "b", "a", "b"]), images)
    alike = random_images(1).repeat(2, 1, 1, 1).requires_grad_()
    (gradient,) = torch.autograd.grad(bonus(alike, ["a", "a"]).sum(), alike)
    assert not gradient.any()  # and not NaN


def test_the_bonus_stands_beside_the_shaped_reward():
    bonus, images = DiversityBonus(0.5, Pixels("squared")), random_images(2)
    terms = Terms(shaping=Shaping(clip=(None, 1.0)), strength=3.0, bonus=bonus)
    values, logs = terms.values(images, ["a", "a"], torch.tensor([5.0, -2.0]))
    plain = bonus(images, ["a", "a"])
    assert torch.allclose(values, torch.tensor([1.0, -2.0]) + 1.5 * plain)
    assert logs["diversity_bonus"] == plain.mean()


def test_the_bonus_keeps_images_of_a_prompt_apart(tmp_path, monkeypatch):
    monkeypatch.setattr("sfumato.training.terms.build_extractor", lambda name, device: Pixels("squared"))
    groups = {"images_per_prompt": 2, "batch_size": 4, "micro_batch_size": 2, "steps": 10, "lr": 3e-2}
    distances = {"base": mean_pairwise_distance(sample(tiny.pipeline("sd")).flatten(1), "squared")}
    for name, diversity in {"without": None, "with": {"coefficient": 1.0}}.items():
        pipe = tiny.pipeline("sd")
        records = make_trainer(tmp_path / name, pipe=pipe, regularizers={"diversity": diversity}, **groups).run()
        distances[name] = mean_pairwise_distance(sample(pipe).flatten(1), "squared")
    assert distances["without"] < 0.9 * distances["base"] < distances["base"] < 0.9 * distances["with"]
    assert records[0]["diversity_bonus"] > 1.0 > records[0]["reward"]  # which is as it was


THAT_SAMPLE = {
    "draft": (Draft(), "sd"),
    "draft_lv": (DraftLV(1), "sd"),
    "align_prop": (AlignProp(), "sd"),
    "refl": (ReFL(), "sd"),
    "adjoint": (AdjointMatching(1.0), "sd"),
    "adjoint of a flow model": (AdjointMatching(1.0, noise_level=0.7), "sd3"),
    "ddpo": (DDPO(), "sd"),
    "flow_grpo": (FlowGRPO(), "sd3"),
}


@pytest.mark.parametrize(("objective", "family"), THAT_SAMPLE.values(), ids=THAT_SAMPLE)
def test_every_objective_that_samples_takes_penalties_and_the_bonus(objective, family, tmp_path):
    pipe = tiny.pipeline(family, scheduler="euler-ancestral" if family == "sd" else None)
    regularizers = {**SECTIONS["gaussian"], **SECTIONS["distillation"], "diversity": {"coefficient": 1.0}}
    groups = {"images_per_prompt": 2, "steps": 2}
    first, second = make_trainer(tmp_path, family, objective, pipe=pipe, regularizers=regularizers, **groups)
    for name in ("kl", "distillation"):
        assert first[name] == 0.0 and second[name] > 0.0
    assert first["diversity_bonus"] > 0.0


def test_features_without_gradient_are_refused(tmp_path):
    bonus = DiversityBonus(1.0, lambda images: images.detach().flatten(1))
    images = random_images(2)
    bonus.features.distance = "cosine"
    assert bonus(images, ["a", "a"]).all()  # an objective that needs none
    with pytest.raises(ValueError, match="function has no gradient, which this objective needs: choose other features"):
        bonus(images.requires_grad_(), ["a", "a"])


def test_groups_that_a_micro_batch_cuts_are_refused(tmp_path):
    diversity = {"diversity": {"coefficient": 1.0}}
    with pytest.raises(ValueError, match="compares images of one prompt: set images_per_prompt to 2 or more"):
        TrainingConfig.model_validate({"regularizers": diversity})
    with pytest.raises(ValueError, match="micro-batches of 3 cut the groups of 2 images"):
        make_trainer(tmp_path, regularizers=diversity, batch_size=6, images_per_prompt=2, micro_batch_size=3)


def test_shaping_normalises_clips_and_passes_no_gradient_beyond():
    rewards = torch.tensor([-4.0, 1.0, 3.0, 8.0], requires_grad=True)
    shaped = Shaping(clip=(-1.0, 2.0), mean=2.0, std=2.0)(rewards)
    assert shaped.tolist() == [-1.0, -0.5, 0.5, 2.0]
    shaped.sum().backward()
    assert rewards.grad.tolist() == [0.0, 0.5, 0.5, 0.0]
    assert Shaping()(rewards) is not rewards and torch.equal(Shaping()(rewards), rewards)


def test_rewards_beyond_the_clip_train_nothing_and_are_logged_as_they_are(tmp_path):
    pipe = tiny.pipeline("sd")
    before = sample(pipe)
    clipped = make_trainer(tmp_path, pipe=pipe, shaping={"clip": [None, 0.01]}).run()
    assert torch.equal(sample(pipe), before)
    assert all(record["grad_norm"] == 0.0 and record["loss"] == pytest.approx(-0.01) for record in clipped)
    assert all(record["reward"] > 0.1 for record in clipped)


def test_rewards_are_normalised_by_all_that_came_before(tmp_path):
    records = make_trainer(tmp_path, shaping={"normalize": True}, steps=3, batch_size=3).run()
    assert records[0]["loss"] == pytest.approx(-records[0]["reward"])
    mean, std = records[0]["reward"], records[0]["reward_std"]
    assert records[1]["loss"] == pytest.approx(-(records[1]["reward"] - mean) / std, rel=1e-3)
    squares = [record["reward_std"] ** 2 + record["reward"] ** 2 for record in records[:2]]
    mean = (records[0]["reward"] + records[1]["reward"]) / 2
    std = (sum(squares) / 2 - mean**2) ** 0.5
    assert records[2]["loss"] == pytest.approx(-(records[2]["reward"] - mean) / std, rel=1e-3)
