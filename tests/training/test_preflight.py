"""A reward that cannot be trained on is refused on images of the base model, before the first update."""

import warnings

import pytest
import torch

from sfumato.rewards import RewardError
from sfumato.training import DDPO, Draft
from sfumato.training.preflight import FEW, MANY, base_images, needs_gradient
from tests import tiny
from tests.training.common import NOISY, PROMPTS, SAMPLING, brightness, make_trainer, sample


def nan(images, prompts):
    return brightness(images, prompts) * torch.nan


def relative(images, prompts):
    return brightness(images, prompts) - images.mean()


def rounded(images, prompts):
    return brightness((images * 255).round(), prompts)


def too_bright(images, prompts):
    return 2 + brightness(images, prompts)


too_bright.range = (0.0, 1.0)


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (nan, "'nan' returned nan"),
        (relative, "'relative' gives .* for an image alone"),
        (rounded, "gradient of reward 'rounded' is zero"),
        (too_bright, "'too_bright' returned .* outside its declared range"),
    ],
)
def test_a_reward_that_cannot_be_trained_on_is_refused_before_anything_is_done(tmp_path, reward, message):
    trainer = make_trainer(tmp_path, reward=reward)
    with pytest.raises(RewardError, match=message):
        trainer.run()
    assert not list(tmp_path.iterdir())


def test_no_gradient_is_asked_for_where_none_is_needed(tmp_path):
    objective, changes = DDPO(), {"batch_size": 4, "images_per_prompt": 2, "steps": 1}
    assert make_trainer(tmp_path, objective=objective, reward=rounded, sampling=NOISY["sd"], **changes).run()
    assert needs_gradient(Draft()) and not needs_gradient(objective)


def test_it_is_done_once_on_few_images(tmp_path):
    seen = []

    def watching(images, prompts):
        seen.append((len(images), images.requires_grad))
        return brightness(images, prompts)

    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        make_trainer(tmp_path, reward=watching, steps=2, checkpoint_every=1).run()
    tried = [(FEW, False), (FEW, False), (1, False), (FEW, True)]
    assert seen == [*tried, (2, True), (2, True)]
    seen.clear()
    make_trainer(tmp_path, reward=watching, steps=3, checkpoint_every=1).run()
    assert seen == [(2, True)]


def test_it_leaves_no_trace_in_the_training(tmp_path, monkeypatch):
    with_it, without = tiny.pipeline("sd"), tiny.pipeline("sd")
    records = make_trainer(tmp_path / "with", pipe=with_it).run()
    monkeypatch.setattr("sfumato.training.trainer.try_on_base", lambda *_: None)
    assert [record["loss"] for record in make_trainer(tmp_path / "without", pipe=without).run()] == [
        record["loss"] for record in records
    ]
    assert torch.equal(sample(with_it), sample(without))


def test_base_images_are_spread_over_the_prompts_and_independent_of_the_batch():
    pipe, call = tiny.pipeline("sd"), SAMPLING["sd"].call()
    few = list(base_images(pipe, PROMPTS, 4, 4, call))
    assert few[0][1] == ["red", "green", "blue", "red"]
    one_by_one = list(base_images(pipe, PROMPTS, 4, 1, call))
    torch.testing.assert_close(torch.cat([images for images, _ in one_by_one]), few[0][0], atol=1 / 255 + 1e-6, rtol=0)
    many = [str(i) for i in range(2 * MANY)]
    assert [prompt for _, batch in base_images(pipe, many, 4, 3, call) for prompt in batch] == ["0", "32", "64", "96"]
