"""Given images: the denoising loss beside another objective, and how a file of images is read."""

import pytest
import torch
from PIL import Image

from sfumato.config import SamplingConfig
from sfumato.images import save_png
from sfumato.pipelines.adapters import denoiser, trainable
from sfumato.rewards import as_reward
from sfumato.training import SFT, DataTerm, DiffusionDPO
from sfumato.training import examples as examples_module
from sfumato.training.checks import check_training
from sfumato.training.examples import from_images, from_pairs
from tests import tiny
from tests.training.common import PROMPTS, SAMPLING, brightness, captured_gradients, make_trainer, settings
from tests.training.pairs_bed import WORDS, outcomes, picture, single, write_pairs, write_rows
from tests.training.test_resume import OPTIONS, assert_same_training, interrupted


def write_images(folder, count=5):
    """A file of images with prompts, and of pairs in which they were preferred to others; the paths of both."""
    path = write_pairs(folder, [1.0] * count)
    rows = [{"prompt": WORDS[i % 3], "image": f"images/{i}-bright.png"} for i in range(count)]
    return write_rows(folder / "images.jsonl", rows), path


def test_the_gradient_is_that_of_the_objective_and_of_the_term(tmp_path):
    images, _ = write_images(tmp_path)
    found = {}
    for coefficient in (None, 0.5):
        data = {"data": {"coefficient": coefficient, "images": images}} if coefficient else {}
        pipe = tiny.pipeline("sd")
        changes = {"regularizers": data, "batch_size": 4, "steps": 1, "max_grad_norm": 1e9}
        trainer = make_trainer(tmp_path / str(coefficient), pipe=pipe, **changes)
        gradients = captured_gradients(trainer)
        (record,) = trainer.run()
        found[coefficient] = gradients[0], record
    pipe = tiny.pipeline("sd")
    trainer = make_trainer(tmp_path / "term", pipe=pipe, batch_size=4)
    update = trainer._images(1, 1.0)
    losses = [each.loss for each in DataTerm(0.5, images)(update, update.batches[0], 1.0)]
    term = torch.autograd.grad(sum(losses), trainer.state.parameters)
    assert found[0.5][1]["data"] == pytest.approx(2 * sum(losses).item(), rel=1e-5)
    assert found[0.5][1]["loss"] == pytest.approx(found[None][1]["loss"] + sum(losses).item(), rel=1e-5)
    assert found[0.5][1]["reward"] == found[None][1]["reward"]
    for whole, alone, added in zip(found[0.5][0], found[None][0], term, strict=True):
        torch.testing.assert_close(whole, alone + added, rtol=1e-4, atol=1e-7)


def test_images_are_taken_as_preferred_ones_of_pairs(tmp_path):
    images, pairs = write_images(tmp_path)
    update = single(tiny.pipeline("sd", lora=True))
    one, other = (
        list(term(update, update.batches[0], 2.0)) for term in (DataTerm(0.5, images), DataTerm(0.5, None, pairs))
    )
    assert [each.loss for each in one] == [each.loss for each in other]
    weak = list(DataTerm(0.5, images)(update, update.batches[0], 1.0))
    assert [each.loss.item() for each in one] == pytest.approx([2 * each.loss.item() for each in weak])


@pytest.mark.parametrize(("size", "draws"), [(1, 1), (1, 2), (2, 3)])
def test_micro_batches_add_up_to_the_batch(size, draws, tmp_path):
    path, found = write_pairs(tmp_path, [1.0, 0.0, 0.5, 1.0, 0.0]), []
    objective = DiffusionDPO(50.0, path, noise_levels=3, noise_draws=draws)
    for each in (None, size):
        changes = {"batch_size": 4, "micro_batch_size": each, "steps": 2}
        trainer = make_trainer(tmp_path / str(each), objective=objective, **changes)
        gradients = captured_gradients(trainer)
        found.append((trainer.run(), gradients))
    (whole, whole_gradients), (parts, part_gradients) = found
    for a, b in zip(part_gradients[0], whole_gradients[0], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    for name in ("loss", "margin", "implicit_accuracy"):
        assert parts[1][name] == pytest.approx(whole[1][name], rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("kept", [2**30, 0], ids=["remembered", "forgotten"])
def test_training_on_files_continues_bit_for_bit(kept, tmp_path, monkeypatch):
    monkeypatch.setattr(examples_module, "REMEMBERED", kept)
    images, pairs = write_images(tmp_path)
    changes = {**OPTIONS, "regularizers": {"data": {"images": images, "noise_levels": 4}}, "steps": 3}
    make_trainer(tmp_path / "plain", objective=DiffusionDPO(50.0, pairs), **changes).run()
    interrupted(tmp_path / "killed", 2, objective=DiffusionDPO(50.0, pairs), **changes)
    make_trainer(tmp_path / "killed", objective=DiffusionDPO(50.0, pairs), **changes).run()
    assert_same_training(tmp_path / "killed", tmp_path / "plain")


def test_every_row_comes_once_before_any_comes_again(tmp_path, monkeypatch):
    source, pipe, encoded = from_images(write_images(tmp_path)[0]), tiny.pipeline("sd", lora=True), []
    encode = examples_module.encode_images

    def noted(pipe, images, **arguments):
        encoded.append(images)
        return encode(pipe, images, **arguments)

    monkeypatch.setattr(examples_module, "encode_images", noted)
    taken = []
    for number in range(1, 6):
        update = single(pipe, number=number)
        taken += [tuple(row.flatten().tolist()) for row in source(update, update.batches[0], whole=False).latents]
    assert len(set(taken)) == 5
    assert [len(set(taken[start : start + 5])) for start in (0, 5, 10)] == [5, 5, 5]
    assert taken[:5] != taken[5:10]
    assert len(encoded) == 5  # and no more, as they are remembered


def check(pipe=None, objective=None, **changes):
    made = settings(**changes)
    pipe = pipe or tiny.pipeline("sd")
    check_training(pipe, objective or SFT(), as_reward(brightness), PROMPTS, made, SAMPLING["sd"])


def test_sound_files_pass(tmp_path):
    images, pairs = write_images(tmp_path)
    check(objective=DiffusionDPO(pairs=pairs), regularizers={"data": {"images": images}})
    check(objective=DiffusionDPO())


def test_a_pipeline_without_an_encoder_takes_pairs_of_its_own_only(tmp_path):
    pipe = tiny.pipeline("sd")
    pipe.vae.encoder = None
    with pytest.raises(ValueError, match="no VAE with an encoder"):
        check(pipe, DiffusionDPO(pairs=write_pairs(tmp_path, [1.0])))
    check(pipe, DiffusionDPO())


def test_images_that_cannot_be_used_are_named(tmp_path):
    path = write_pairs(tmp_path, [1.0, 0.0])
    file = tmp_path / "images" / "1-dark.png"
    save_png(picture(0.5, 0, size=24), file)
    with pytest.raises(
        ValueError, match=r"1-dark.png has 24 x 24 pixels and .*0-bright.png has 16 x 16: scale and crop"
    ):
        check(objective=SFT(path))
    file.write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"cannot read the image .*1-dark.png"):
        check(objective=SFT(path))
    file.unlink()
    with pytest.raises(ValueError, match=r"pairs.jsonl names .*1-dark.png, which does not exist"):
        check(objective=SFT(path))


def test_images_of_another_size_than_that_of_sampling_are_refused(tmp_path):
    path = write_pairs(tmp_path, [1.0], size=24)
    with pytest.raises(ValueError, match=r"pairs.jsonl has images of 24 x 24 pixels, and sampling makes others: scale"):
        check(objective=SFT(path))
    large = SamplingConfig(num_inference_steps=2, arguments={"height": 24, "width": 24})
    check_training(tiny.pipeline("sd"), SFT(path), as_reward(brightness), PROMPTS, settings(), large)


def test_grey_and_transparent_images_are_taken_as_rgb(tmp_path):
    path = write_pairs(tmp_path, [1.0])
    for name, mode in (("0-bright.png", "L"), ("0-dark.png", "RGBA")):
        with Image.open(tmp_path / "images" / name) as image:
            converted = image.convert(mode)
        converted.save(tmp_path / "images" / name)
    check(objective=SFT(path))
    assert torch.isfinite(outcomes(SFT(path), single(tiny.pipeline("sd", lora=True), prompts=WORDS[:1]))[0])


@pytest.mark.parametrize("name", ["kl", "distillation", "diversity"])
def test_regularizers_of_sampled_images_are_refused(name):
    with pytest.raises(
        ValueError, match=rf"regularizers.{name} looks at images of the tuned model, of which SFT samples"
    ):
        check(regularizers={name: {"coefficient": 1.0}}, images_per_prompt=2)


def test_a_grid_that_the_scheduler_does_not_have_is_refused():
    with pytest.raises(ValueError, match=r"DDIMScheduler has no 2000 noise levels: .*"):
        check(objective=SFT(noise_levels=2000))


def test_files_are_read_when_they_are_needed(tmp_path):
    objective = DiffusionDPO(pairs=str(tmp_path / "later.jsonl"))
    with pytest.raises(ValueError, match=r"cannot read .*later.jsonl: No such file"):
        check(objective=objective)
    (tmp_path / "later.jsonl").write_text("\n")
    with pytest.raises(ValueError, match=r"later.jsonl is empty: give at least one line"):
        from_pairs(str(tmp_path / "later.jsonl"))


def test_the_lora_alone_is_trained(tmp_path):
    """The gradient of given images reaches nothing but the LoRA."""
    pipe = tiny.pipeline("sd", lora=True)
    loss, _ = outcomes(SFT(write_pairs(tmp_path, [1.0] * 3)), single(pipe))
    loss.backward()
    assert all(parameter.grad is not None for parameter in trainable(denoiser(pipe)))
    assert all(parameter.grad is None for parameter in pipe.vae.parameters())
