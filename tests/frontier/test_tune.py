"""A schedule for any pipeline: here one whose images follow a known law."""

import pytest
import torch

from sfumato.analytic import analytic_pipeline, gaussian, gaussian_aig, tune
from sfumato.frontier import tune as module
from sfumato.frontier.search_space import guidance
from sfumato.frontier.tune import tune_schedule
from sfumato.metrics import vendi_score
from sfumato.pipelines.guidance import annealed_guidance
from sfumato.runs import read_jsonl
from tests.analytic.bed import scheduler

PROMPTS, HELD_OUT = ["p0", "p1", "p2", "p3"], ["h0", "h1", "h2"]
BASE = {name: (0.35 + 0.02 * i, 0.006) for i, name in enumerate(PROMPTS + HELD_OUT)}
TUNED = {name: (mean + 0.2, 0.0005) for name, (mean, _) in BASE.items()}
CALL = {"num_inference_steps": 4}


def reward(images, prompts):
    return images.mean((1, 2, 3))


def features(images):
    """The images as directions around (0, 0, 0, 1), so that their Vendi score grows with their variance."""
    shifted = 6 * (images.flatten(1) - images.mean())
    return torch.cat([shifted, torch.ones(len(images), 1)], dim=1)


def pipeline():
    worlds = [{name: gaussian([mean] * 3, [var] * 3) for name, (mean, var) in laws.items()} for laws in (BASE, TUNED)]
    pipe = analytic_pipeline(worlds[0], scheduler("DDIMScheduler"))
    tune(pipe, worlds[1])
    return pipe


def tuned(pipe, **changes):
    arguments = {"keep": "diversity", "share": 0.6, "budget": 400, "held_out": HELD_OUT, "call": CALL, **changes}
    return tune_schedule(pipe, reward, features, PROMPTS, **arguments)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """(result, its folder), of a search that was done once."""
    folder = tmp_path_factory.mktemp("search")
    return tuned(pipeline(), folder=folder), folder


def test_what_is_measured_is_what_the_pipeline_gives(found):
    folder = found[1]
    pipe = pipeline()
    rows = read_jsonl(folder / "images.jsonl")
    for row in (rows[0], rows[30], rows[-1]):
        generators = [torch.Generator().manual_seed(seed) for seed in row["seeds"]]
        with annealed_guidance(pipe, **row["schedule"]):
            images = pipe([row["prompt"]] * len(generators), generator=generators, **CALL).images
        images = (images.float() * 255).round() / 255
        assert row["scores"]["reward"] == pytest.approx(reward(images, None).tolist(), abs=1e-6)
        assert row["diversity"] == pytest.approx(vendi_score(features(images)), abs=1e-6)
    assert {tuple(row["seeds"]) for row in rows if row["prompt"] in PROMPTS} == {tuple(rows[0]["seeds"])}
    held_out = {seed for row in rows if row["prompt"] in HELD_OUT for seed in row["seeds"]}
    assert held_out and held_out.isdisjoint(rows[0]["seeds"])


def test_the_found_schedule_is_better_by_the_law_too(found):
    """Search prompts have 8 images of 3 independent pixels each; the held-out ones others."""
    result, _ = found
    assert result.held_out is not None and result.found.estimate > result.fixed.estimate

    def law(point):
        values = torch.tensor([(*BASE[name], *TUNED[name]) for name in HELD_OUT]).T.double()
        return gaussian_aig(*values, scheduler("DDIMScheduler"), num_inference_steps=4, **guidance(point))

    for role, trial in (("found", result.found), ("fixed", result.fixed)):
        mean, var = law(trial.point)
        error = float(var.mean() / (3 * 8 * len(HELD_OUT))) ** 0.5
        measured = result.held_out["points"][role]["reward"]["mean"]
        assert measured == pytest.approx(float(mean.mean()), abs=4 * error + 0.002)
    assert law(result.found.point)[0].mean() > law(result.fixed.point)[0].mean()
    assert result.held_out["difference"]["reward"]["low"] > 0


def test_the_result_is_ready_to_use(found):
    result, folder = found
    assert result.yaml + "\n" == (folder / "diversity-0.6" / "point.yaml").read_text()
    with annealed_guidance(pipeline(), **result.guidance) as active:
        assert active.schedule(0.5) == pytest.approx(
            dict(result.to_dict()["trials"][result.found.number]["curve"])[0.5]
        )


def test_nothing_need_be_kept(found):
    """Without folder and held-out prompts, from the same seeds, the same schedule comes out."""
    result = tuned(pipeline(), held_out=())
    assert result.held_out is None
    assert [trial.point for trial in result.trials] == [trial.point for trial in found[0].trials]


def test_another_model_is_sampled_anew(found, monkeypatch):
    result, folder = found
    sampled = []
    monkeypatch.setattr(module.Sampler, "_sample", lambda self, *_: sampled.append(1) or {"scores": {}, "diversity": 1})
    pipe = pipeline()
    with torch.no_grad():
        pipe.unet.mean.lora_A["default"].weight[0, 0] += 0.01
    with pytest.raises(KeyError):
        tuned(pipe, folder=folder)
    assert sampled == [1]
    same = pipeline()
    same.scheduler = scheduler("DDIMScheduler", beta_start=0.0001)  # its default, spelt out
    assert tuned(same, folder=folder).held_out == result.held_out
    assert sampled == [1]


def test_held_out_prompts_are_not_searched_on():
    pipe = pipeline()
    with pytest.raises(ValueError, match="take 'p1' off one of the lists"):
        tuned(pipe, held_out=["h0", "p1"])
    with pytest.raises(ValueError, match="at least 2 of them"):
        tuned(pipe, held_out=["h0"])
    with pytest.raises(ValueError, match="at least 2 images"):
        tuned(pipe, images_per_prompt=1)
