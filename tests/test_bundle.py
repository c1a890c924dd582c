"""Guided pipelines as files: what is saved draws the same images when it is loaded, and what is broken is refused."""

import shutil

import pytest
import torch
import yaml

import sfumato
from sfumato.bundle import push_to_hub, read_saved
from sfumato.config import Recipe
from sfumato.export import save_run
from sfumato.frontier.points import applied, operating_points
from sfumato.pipelines.adapters import denoiser
from sfumato.runs import Run
from tests import tiny

POWER = {"schedule": "power", "p": 2}


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """Family -> a folder with its pipeline."""
    folder = tmp_path_factory.mktemp("bases")
    for family in ("sd", "pixart"):
        tiny.pipeline(family).save_pretrained(folder / family)
    return {family: str(folder / family) for family in ("sd", "pixart")}


@pytest.fixture(scope="module")
def saved(bases, tmp_path_factory):
    """A folder that `save` wrote, not to be changed."""
    return sfumato.save(enabled(), tmp_path_factory.mktemp("saved") / "saved", base=bases["sd"])


def drawn(pipe, family="sd", **options):
    return tiny.images(pipe, [1], **tiny.call(family, count=1, steps=2, **options))


def enabled(family="sd", scheduler=None, **guidance):
    """A fresh pipeline with a LoRA and guidance on."""
    pipe = tiny.pipeline(family, lora=True, scheduler=scheduler)
    sfumato.enable_annealed_guidance(pipe, **(guidance if "schedule" in guidance else {**POWER, **guidance}))
    return pipe


def guided(family="sd", scheduler=None, **guidance):
    """A fresh pipeline with a LoRA and guidance on, its images, and those of the tuned model alone."""
    tuned = drawn(tiny.pipeline(family, lora=True, scheduler=scheduler), family)
    pipe = enabled(family, scheduler, **guidance)
    images = drawn(pipe, family)
    assert not torch.equal(images, tuned)
    return pipe, images, tuned


@pytest.mark.parametrize("family", ["sd", "pixart"])
def test_what_is_saved_draws_the_same_images(family, bases, tmp_path):
    pipe, images, tuned = guided(family, savings={"reuse": 2}, cap=0.8)
    assert sfumato.save(pipe, tmp_path / "saved", base=bases[family]) == tmp_path / "saved"
    again = sfumato.load(tmp_path / "saved")
    assert torch.equal(drawn(again, family), images)
    sfumato.disable_annealed_guidance(again)
    assert torch.equal(drawn(again, family), tuned)


def test_the_base_is_remembered_and_saving_again_changes_no_byte(saved, tmp_path):
    sfumato.save(sfumato.load(saved), tmp_path)
    files = sorted(p.name for p in saved.iterdir())
    assert files == ["README.md", "pytorch_lora_weights.safetensors", "sfumato.json"]
    for name in files:
        assert (saved / name).read_bytes() == (tmp_path / name).read_bytes()


def test_the_scheduler_is_saved(bases, tmp_path):
    pipe, images, _ = guided(scheduler="dpm++2m", clock="sigma", schedule="table", points=[[0, 0], [1, 0.5]])
    sfumato.save(pipe, tmp_path, base=bases["sd"])
    assert torch.equal(drawn(sfumato.load(tmp_path)), images)


def test_loras_beside_the_tuned_ones_are_saved_with_their_weights(bases, tmp_path):
    pipe = tiny.pipeline("sd")
    for seed, name in enumerate(["style", "good", "fine"]):
        tiny.perturbed_lora(pipe, name, seed)
    pipe.set_adapters(["style", "good", "fine"], [0.7, 1.0, 1.0])
    sfumato.enable_annealed_guidance(pipe, "linear", adapter={"good": 0.6, "fine": 0.3})
    images = drawn(pipe)
    sfumato.save(pipe, tmp_path, base=bases["sd"])
    assert read_saved(tmp_path).weights == {"style": 0.7}
    again = sfumato.load(tmp_path)
    assert torch.equal(drawn(again), images)
    again.set_adapters(["style", "good", "fine"], [0.0, 1.0, 1.0])
    assert not torch.equal(drawn(again), images)
    pipe.set_adapters(["good", "fine"], [{"unet": {"mid": 0.5}}, 1.0])
    sfumato.disable_annealed_guidance(pipe)
    sfumato.enable_annealed_guidance(pipe, "linear", adapter="good")
    with pytest.raises(ValueError, match="adapter good has several weights"):
        sfumato.save(pipe, tmp_path, base=bases["sd"])


def test_a_saved_pipeline_is_loaded_onto_one_that_is_there(bases, tmp_path):
    pipe, images, _ = guided(blend="weights")
    sfumato.save(pipe, tmp_path, base=bases["sd"])
    mine = tiny.pipeline("sd")
    base = drawn(mine)
    assert sfumato.load(tmp_path, pipe=mine) is mine
    assert torch.equal(drawn(mine), images)
    other = sfumato.load(tmp_path, pipe=tiny.pipeline("sd"), schedule="base")
    assert torch.equal(drawn(other), base)
    capped = sfumato.load(tmp_path, pipe=tiny.pipeline("sd"), cap=0.5)
    described = capped._sfumato_guidance.to_dict()
    assert (described["p"], described["cap"], described["blend"]) == (2, 0.5, "weights")
    with pytest.raises(ValueError, match="pipe= is loaded already"):
        sfumato.load(tmp_path, pipe=mine, dtype="float16")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a tuned UNet, and the tuned pipeline."""
    pipe = tiny.pipeline("sd", lora=True)
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    folder = tmp_path_factory.mktemp("whole")
    pipe.unet.save_pretrained(folder / "unet")
    return folder, pipe


@pytest.mark.parametrize("blend", ["predictions", "weights"])
def test_a_whole_denoiser_is_guided_by_one_line_and_saved(blend, bases, whole, tmp_path):
    tuned = tiny.pipeline("sd")
    tuned.unet = whole[1].unet
    with sfumato.annealed_guidance(tuned, "power", p=3, base=tiny.shared("sd"), blend=blend):
        images = drawn(tuned)
    pipe = sfumato.load(whole[0], base=bases["sd"], p=3, blend=blend)
    assert torch.equal(drawn(pipe), images)
    with pytest.raises(ValueError, match="say where the base pipeline is"):
        sfumato.save(pipe, tmp_path)
    sfumato.save(pipe, tmp_path, base=bases["sd"])
    assert torch.equal(drawn(sfumato.load(tmp_path)), images)
    assert (
        yaml.safe_load(card(sfumato.save(pipe, tmp_path, "owner/base")).split("---")[1])["base_model"] == "owner/base"
    )
    sfumato.disable_annealed_guidance(pipe)
    assert torch.equal(drawn(pipe), drawn(tuned))


def test_a_checkpoint_of_someone_else_is_power_2_unless_told(bases, whole):
    tuned = tiny.pipeline("sd")
    tuned.unet = whole[1].unet
    with sfumato.annealed_guidance(tuned, "power", p=2, base=tiny.shared("sd")):
        images = drawn(tuned)
    assert torch.equal(drawn(sfumato.load(whole[0], bases["sd"], dtype=torch.float32)), images)
    half = sfumato.load(whole[0], bases["sd"], dtype=torch.bfloat16)
    assert half.unet.dtype == half._sfumato_guidance.models.base.dtype == torch.bfloat16


def test_what_fails_leaves_the_pipeline_as_it_was(whole, saved):
    pipe = tiny.pipeline("sd")
    images, unet = drawn(pipe), pipe.unet
    before = tiny.footprint(pipe)
    for options, error, message in (
        ({"schedule": "powr"}, ValueError, "unknown schedule 'powr'"),
        ({"savings": {"reuse": 0}}, ValueError, "reuse"),
        ({"blend": "weigths"}, ValueError, "blend is"),
        ({"p": -1}, ValueError, "p > 0"),
    ):
        with pytest.raises(error, match=message):
            sfumato.load(whole[0], pipe=pipe, **options)
        assert pipe.unet is unet and tiny.footprint(pipe) == before
    with pytest.raises(ValueError, match="blend is"):
        sfumato.load(saved, pipe=pipe, blend="weigths")
    assert torch.equal(drawn(pipe), images)
    assert getattr(denoiser(pipe), "peft_config", {}) == {}


BROKEN = {
    "truncated": (lambda text: text[:-20], "sfumato.json is damaged"),
    "no object": (lambda text: "[]", "cannot read .*sfumato.json"),
    "newer": (lambda text: text.replace('"format": 1', '"format": 2'), "which is newer: upgrade sfumato"),
    "a key too much": (lambda text: text.replace('"format": 1', '"format": 1, "x": 1'), "cannot read .* x: "),
    "another schedule": (lambda text: text.replace('"power"', '"powr"'), "unknown schedule 'powr'"),
    "no schedule": (lambda text: text.replace('"schedule"', '"shedule"'), "guidance names no schedule"),
    "a file elsewhere": (lambda text: text.replace('"pytorch_lora', '"../pytorch_lora'), "lies outside of the folder"),
    "a file that is gone": (lambda text: text.replace('"pytorch_lora', '"torch_lora'), "no checkpoint at"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_description_is_refused(case, saved, tmp_path):
    change, message = BROKEN[case]
    shutil.copytree(saved, tmp_path / "broken")
    path = tmp_path / "broken" / "sfumato.json"
    path.write_text(change(path.read_text()))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        sfumato.load(path.parent, pipe=tiny.shared("sd"))


def test_what_cannot_be_saved_is_refused_before_anything_is_written(bases, tmp_path):
    pipe = tiny.pipeline("sd", lora=True)
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="guidance is off: turn it on"):
        sfumato.save(pipe, out, base=bases["sd"])
    with sfumato.annealed_guidance(pipe, lambda u: u), pytest.raises(ValueError, match="Python callable cannot"):
        sfumato.save(pipe, out, base=bases["sd"])
    with sfumato.annealed_guidance(pipe, "linear"), pytest.raises(ValueError, match="say where the base pipeline is"):
        sfumato.save(pipe, out)
    assert not out.exists()
    with pytest.raises(ValueError, match=r"say which pipeline .* was tuned from: base="):
        sfumato.load(bases["sd"])


def card(folder):
    return (folder / "README.md").read_text()


def test_the_card_is_a_model_card(tmp_path):
    sfumato.save(enabled(cap=0.5, clock="logsnr", savings={"reuse": 3}), tmp_path, base="owner/base")
    _, header, text = card(tmp_path).split("---", 2)
    values = yaml.safe_load(header)
    assert values["library_name"] == "diffusers"
    assert (values["base_model"], values["base_model_relation"]) == ("owner/base", "adapter")
    assert {"text-to-image", "lora", "sfumato"} <= set(values["tags"])
    assert "g = u^p (p = 2), times 0.5" in text and "logsnr clock" in text and "reuse 3" in text
    assert "| g | 0 | 0.0312 | 0.125 | 0.281 | 0.5 |" in text


def test_a_base_on_this_machine_alone_is_not_named_in_public(bases, saved):
    assert bases["sd"] not in card(saved)
    assert "base_model" not in yaml.safe_load(card(saved).split("---")[1])
    with pytest.raises(ValueError, match="others do not have the base pipeline"):
        push_to_hub(saved, "me/mine")


def test_pushing_makes_the_repository_and_uploads_the_folder(tmp_path, monkeypatch):
    calls = []

    def create(self, repository, private=None, exist_ok=False):
        calls.append(("create", self.token, repository, private, exist_ok))
        return f"https://huggingface.co/{repository}"

    def upload(self, repo_id, folder_path, allow_patterns, commit_message):
        calls.append(("upload", repo_id, folder_path, allow_patterns))

    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", create)
    monkeypatch.setattr("huggingface_hub.HfApi.upload_folder", upload)
    with pytest.raises(ValueError, match="holds no saved pipeline"):
        push_to_hub(tmp_path, "me/mine")
    assert calls == []
    sfumato.save(enabled(), tmp_path, base="owner/base")
    assert push_to_hub(tmp_path, "me/mine", private=True, token="secret") == "https://huggingface.co/me/mine"
    assert [call[0] for call in calls] == ["create", "upload"]
    assert calls[0][1:] == ("secret", "me/mine", True, True)
    assert calls[1][1:] == ("me/mine", tmp_path, ["README.md", "*.json", "*.safetensors"])


@pytest.fixture(scope="module")
def run(bases, tmp_path_factory):
    """A run folder as training and evaluation leave it."""
    from sfumato.pipelines.adapters import save_lora
    from sfumato.runs import write_json
    from tests.tiny_run import RECIPE

    points = [{"kind": "base"}, {"kind": "tuned"}, {"kind": "lora_scale", "scale": 0.5}]
    points += [{"kind": "guidance", "schedule": "power", "parameters": {"p": 2}, "savings": {"reuse": 2}}]
    points += [{"kind": "tuned", "guidance_scale": 1.5}, {"kind": "guidance", "schedule": "linear", "blend": "weights"}]
    evaluation = {"prompts": ["a", "b", "d"], "images_per_prompt": 4, "points": points}
    recipe = Recipe.model_validate({**RECIPE, "pipeline": {"path": bases["sd"]}, "evaluation": evaluation})
    run = Run.create(tmp_path_factory.mktemp("run") / "run", recipe.resolved(), "tiny")
    save_lora(tiny.pipeline("sd", lora=True), run.training())
    metrics = {"reward": {"mean": 1.25}, "vendi": {"mean": 2.5}}
    names = [point.name for point in operating_points(recipe)]
    write_json(run.evaluation / "frontier.json", {"points": [{"name": n, "metrics": metrics} for n in names]})
    return run, recipe


@pytest.mark.parametrize("name", ["tuned", "lora-0.5", "aig-power-2-reuse-2", "aw-linear", "tuned-cfg-1.5"])
def test_an_operating_point_of_a_run_draws_what_was_measured(name, run, tmp_path):
    run, recipe = run
    point = next(point for point in operating_points(recipe) if point.name == name)
    pipe = tiny.pipeline("sd")
    with applied(pipe, point, run) as changes:
        images = drawn(pipe, **changes)
    save_run(run.path, name, tmp_path)
    assert torch.equal(drawn(sfumato.load(tmp_path), **changes), images)
    text = card(tmp_path)
    assert "colourfulness" in text and "| base | 1.25 | 2.5 |" in text
    assert f"guidance_scale={1.5 if name == 'tuned-cfg-1.5' else 2.0}" in text


def test_a_chosen_point_need_not_be_in_the_recipe(run, tmp_path):
    chosen = {"kind": "guidance", "schedule": "power", "parameters": {"p": 0.5}, "cap": 0.3}
    (tmp_path / "point.yaml").write_text(yaml.safe_dump(chosen))
    for point in (chosen, yaml.safe_dump(chosen, default_flow_style=True), str(tmp_path / "point.yaml")):
        save_run(run[0], point, tmp_path / "out")
        assert read_saved(tmp_path / "out").guidance == {
            "schedule": "power",
            "p": 0.5,
            "cap": 0.3,
            "clock": "index",
            "blend": "predictions",
            "adapter": "tuned",
        }
        shutil.rmtree(tmp_path / "out")


def test_a_point_that_is_not_there_is_refused(run, tmp_path):
    for point, message in (
        ("aig-power-3", "no operating point 'aig-power-3': did you mean 'aig-power-2-reuse-2'"),
        ("base", "is the base model"),
        ({"kind": "guidance", "p": 2}, "is no operating point: guidance.p: "),
    ):
        with pytest.raises(ValueError, match=message):
            save_run(run[0], point, tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="is not there yet"):
        save_run(run[0], {"kind": "tuned", "checkpoint": 2}, tmp_path / "out")
    with pytest.raises(ValueError, match="is a run folder: make a guided pipeline of it"):
        sfumato.load(run[0].path)
    assert not (tmp_path / "out").exists()


def test_the_command_line_exports_a_point_and_draws_it(run, tmp_path, sfumato, monkeypatch):
    pushed = []
    monkeypatch.setattr("sfumato.bundle.push_to_hub", lambda *a, **k: pushed.append((a, k)) or "https://hub/me/mine")
    out = tmp_path / "guided"
    done = sfumato("export", run[0].path, "aw-linear", "--out", out, "--push", "me/mine")
    assert done.out == f"{out}\nhttps://hub/me/mine\n"
    assert pushed == [((out, "me/mine"), {"private": None})]
    pictures = {}
    for name, options in {
        "saved": ["--pipeline", out],
        "schedule": ["--pipeline", out, "--schedule", "base"],
        "base": ["--pipeline", run[1].pipeline.path],
        "tuned": ["--pipeline", run[1].pipeline.path, "--lora", out],
    }.items():
        path = tmp_path / f"{name}.png"
        assert sfumato("sample", "a", *options, "--images", 2, "--steps", 2, "--out", path).out == f"{path}\n"
        pictures[name] = path.read_bytes()
    assert pictures["schedule"] == pictures["base"]
    assert len(set(pictures.values())) == 3
    refused = sfumato("sample", "a", "--pipeline", out, "--lora", out)
    assert refused.code == 1 and "has a tuned model already" in refused.err
    assert "did you mean 'aw-linear'" in sfumato("export", run[0].path, "aw-liner", "--out", out).err
