"""The training loop: what it does to the weights, and that nothing but the settings has a say in it."""

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from sfumato.config import SamplingConfig
from sfumato.pipelines.adapters import WEIGHTS_NAME, denoiser, load_lora
from sfumato.runs import read_jsonl
from sfumato.training import DDPO, Draft, Monitor, TrainingError
from tests import tiny
from tests.training.common import (
    LORA,
    SAMPLING,
    assert_all_close,
    brightness,
    captured_gradients,
    lora_weights,
    make_trainer,
    sample,
)


@pytest.mark.parametrize("family", ["sd", "sd3"])
def test_training_raises_an_easy_reward(family, tmp_path):
    pipe = tiny.pipeline(family)
    before = sample(pipe, family).mean()
    records = make_trainer(tmp_path, family, pipe=pipe, steps=10, lr=3e-2).run()
    assert sample(pipe, family).mean() > before + 0.005
    assert [record["update"] for record in records] == list(range(1, 11))
    assert records == read_jsonl(tmp_path / "metrics.jsonl")
    assert records[0]["loss"] == pytest.approx(-records[0]["reward"])


def test_a_trainer_in_five_lines_of_python(tmp_path):
    from sfumato.config import SamplingConfig, TrainingConfig
    from sfumato.training import Draft, Trainer

    few, steps = TrainingConfig(steps=2, batch_size=2), SamplingConfig(num_inference_steps=2)
    for record in Trainer(tiny.pipeline("sd"), Draft(), brightness, ["a cat"], few, steps, tmp_path):
        print(record["update"], record["reward"])
    assert (tmp_path / WEIGHTS_NAME).exists()


def test_the_file_is_read_back_exactly(tmp_path):
    pipe = tiny.pipeline("sd")
    make_trainer(tmp_path, pipe=pipe, lora={**LORA, "alpha": 5.0}).run()
    for read in (lambda fresh: fresh.load_lora_weights(tmp_path), lambda fresh: load_lora(fresh, tmp_path)):
        fresh = tiny.pipeline("sd")
        read(fresh)
        assert torch.equal(sample(fresh), sample(pipe))
    assert not torch.equal(sample(tiny.pipeline("sd")), sample(pipe))


@pytest.mark.parametrize("size", [1, 2, 3])
def test_micro_batches_add_up_to_the_batch(size, tmp_path):
    found = {}
    for micro in (None, size):
        trainer = make_trainer(
            tmp_path / str(micro),
            regularizers={"kl": {"coefficient": 0.1}},
            batch_size=4,
            micro_batch_size=micro,
            steps=2,
        )
        gradients = captured_gradients(trainer)
        found[micro] = (trainer.run(), gradients)
    (whole, whole_gradients), (parts, part_gradients) = found[None], found[size]
    assert_all_close(part_gradients[0], whole_gradients[0], rtol=1e-4, atol=1e-8)
    for name in ("loss", "reward", "reward_std", "kl"):
        assert parts[1][name] == pytest.approx(whole[1][name], rel=1e-3, abs=1e-7), name


@pytest.mark.parametrize("family", ["sd", "sd3"])
def test_gradient_checkpointing_gives_the_same_gradient(family, tmp_path):
    gradients = {}
    for checkpointing in (False, True):
        trainer = make_trainer(
            tmp_path / str(checkpointing),
            family,
            Draft(2),
            regularizers={"kl": {"coefficient": 0.1}},
            gradient_checkpointing=checkpointing,
            steps=2,
        )
        gradients[checkpointing] = captured_gradients(trainer)
        trainer.run()
    assert any(gradient.any() for gradient in gradients[True][1])
    for found, wanted in zip(gradients[True], gradients[False], strict=True):
        assert_all_close(found, wanted, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(
    ("objective", "steps", "wanted", "on"),
    [
        (Draft(1), 16, None, True),
        (Draft(2), 16, None, False),
        (DDPO(baseline="update", normalize="update"), 32, None, False),
        (Draft(1), 16, False, False),
    ],
)
def test_checkpointing_is_on_by_itself_where_few_steps_carry_gradient(objective, steps, wanted, on, tmp_path):
    sampling = SamplingConfig(num_inference_steps=steps, guidance_scale=2.0, arguments={"eta": 1.0})
    trainer = make_trainer(tmp_path, objective=objective, sampling=sampling, gradient_checkpointing=wanted)
    assert denoiser(trainer.pipe).is_gradient_checkpointing is on


def test_the_gradient_is_clipped_and_logged(tmp_path):
    def bright(images, prompts):
        return 1000 * brightness(images, prompts)

    trainer = make_trainer(tmp_path, reward=bright, max_grad_norm=1e-3, steps=1)
    gradients = captured_gradients(trainer)
    (record,) = trainer.run()
    assert record["grad_norm"] > 1e-3
    assert torch.stack([g.norm() for g in gradients[0]]).norm() == pytest.approx(1e-3, rel=1e-2)


def test_a_gradient_that_is_not_finite_ends_the_training(tmp_path):
    def explosive(images, prompts):
        scores = brightness(images, prompts)
        tried = len(images) != 3  # before the training, on fewer images than those of a batch
        return scores if tried else (scores - scores.detach()).sqrt()

    with pytest.raises(TrainingError, match="gradient of update 1 is not finite"):
        make_trainer(tmp_path, reward=explosive, batch_size=3).run()
    assert not (tmp_path / WEIGHTS_NAME).exists()


def test_the_average_follows_the_weights_and_is_what_is_saved(tmp_path):
    pipe = tiny.pipeline("sd")
    trainer = make_trainer(tmp_path, pipe=pipe, ema_decay=0.6)
    average = lora_weights(pipe)
    for _ in trainer:
        for name, weight in lora_weights(pipe).items():
            average[name] = 0.6 * average[name] + 0.4 * weight
    assert_all_close(trainer.state.average, list(average.values()), rtol=1e-5, atol=1e-7)
    saved = tiny.pipeline("sd")
    load_lora(saved, tmp_path, "tuned")
    assert_all_close(list(lora_weights(saved).values()), trainer.state.average, rtol=0, atol=0)
    assert any(not torch.equal(a, b) for a, b in zip(lora_weights(pipe).values(), trainer.state.average, strict=True))


@pytest.mark.parametrize(
    ("schedule", "wanted"),
    [
        ("constant", [0.25, 0.5, 0.5, 0.5, 0.5, 0.5]),
        ("linear", [0.25, 0.5, 0.5, 0.375, 0.25, 0.125]),
        ("cosine", [0.25, 0.5, 0.5, 0.25 * (1 + 0.5**0.5), 0.25, 0.25 * (1 - 0.5**0.5)]),
    ],
)
def test_the_learning_rate_warms_up_and_decays(schedule, wanted, tmp_path):
    records = make_trainer(tmp_path, lr=0.5, lr_schedule=schedule, warmup_steps=2, steps=6).run()
    assert [record["lr"] for record in records] == pytest.approx(wanted)


def test_a_pipeline_in_bfloat16_is_tuned_by_a_lora_in_float32(tmp_path):
    pipe = tiny.pipeline("sd").to(torch.bfloat16)
    before = sample(pipe).float().mean()
    make_trainer(tmp_path, pipe=pipe, steps=10, lr=3e-2).run()
    assert sample(pipe).float().mean() > before + 0.005
    assert {weight.dtype for weight in lora_weights(pipe).values()} == {torch.float32}
    assert {weight.dtype for weight in load_file(tmp_path / WEIGHTS_NAME).values()} == {torch.float32}
    fresh = tiny.pipeline("sd").to(torch.bfloat16)
    load_lora(fresh, tmp_path)
    assert torch.isfinite(sample(fresh)).all()


def test_every_prompt_is_encoded_once(tmp_path):
    pipe = tiny.pipeline("sd")
    trainer = make_trainer(tmp_path, pipe=pipe, regularizers={"kl": {"coefficient": 0.1}}, batch_size=4)
    encoded = []
    pipe.text_encoder.register_forward_pre_hook(lambda *_: encoded.append(1))
    updates = iter(trainer)
    next(updates)  # four images of three prompts: all prompts were seen
    seen = len(encoded)
    assert seen == 2 * 3  # with and without guidance
    assert len(list(updates)) == 2
    assert len(encoded) == seen


def test_the_monitor_looks_at_the_beginning_now_and_then_and_at_the_end(tmp_path):
    monitor = Monitor(
        prompts=["red", "blue"],
        images=2,
        call=SAMPLING["sd"].call(),
        rewards={"reward": brightness_reward(), "gold": brightness_reward()},
        features=lambda images: images.flatten(1),
        folder=tmp_path,
    )
    pipe = tiny.pipeline("sd")
    records = make_trainer(tmp_path, pipe=pipe, monitor=monitor, monitor_every=2, steps=3, ema_decay=0.5, lr=3e-2).run()
    assert [record["update"] for record in records if "eval/vendi" in record] == [0, 2, 3]
    assert records[-1]["eval/reward"] == records[-1]["eval/gold"] > records[0]["eval/reward"]
    assert 1.0 <= records[0]["eval/vendi"] <= 2.0
    assert records[0]["eval/distance"] > 0
    for record in (records[0], records[2]):
        with Image.open(tmp_path / record["eval/image"]) as sheet:
            assert sheet.size == (2 * 16, 2 * 16)
    saved = tiny.pipeline("sd")
    load_lora(saved, tmp_path)
    assert monitor(saved, 9)["eval/reward"] == records[-1]["eval/reward"]  # it saw what was saved, the average


def brightness_reward():
    from sfumato.rewards import as_reward

    return as_reward(brightness)
