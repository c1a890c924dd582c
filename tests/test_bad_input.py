"""Bad input of every kind: one clear message, a failing exit code, and everything that was there intact."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from sfumato.images import save_png
from sfumato.pipelines.adapters import WEIGHTS_NAME, save_lora
from sfumato.runs import Run
from tests import rewards_of_users, tiny
from tests.tiny_run import RECIPE, write_recipe


@pytest.fixture
def refused(sfumato):
    """Run a command that must fail with one line on stderr."""

    def run(*arguments):
        outcome = sfumato(*arguments)
        assert outcome.code == 1
        assert outcome.out == ""
        lines = outcome.err.strip().split("\n")
        assert lines[-1].startswith("error: ")
        assert not any("Traceback" in line for line in lines)
        return lines[-1]

    return run


def state(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


BAD_RECIPES = {
    "an unknown key": (["training.lrr=1"], "unknown key 'training.lrr': did you mean 'training.lr'?"),
    "a wrong value": (["training.steps=many"], "training.steps: Input should be a valid integer"),
    "an unknown reward": (["reward=colorfulness"], "unknown reward 'colorfulness': did you mean 'colourfulness'?"),
    "a reward's unknown option": (["reward={name: colourfulness, scale: 2}"], "got an unexpected keyword argument"),
    "a reward that cannot be imported": (["reward=nonesuch:reward"], "cannot load the reward 'nonesuch:reward'"),
    "a reward without gradient": (["reward=jpeg_compressibility"], "is not differentiable: choose another reward"),
    "a missing pipeline": (["pipeline.path=/nonexistent/model"], "cannot load the pipeline '/nonexistent/model'"),
    "an unknown scheduler": (["pipeline.scheduler=DDIM"], "diffusers has no scheduler 'DDIM'"),
    "a scheduler's unknown setting": (["pipeline.scheduler_arguments={etta: 1}"], "DDIMScheduler takes no 'etta'"),
    "K > steps": (["training.objective.last_steps=3"], "the last 3 steps, but DDIMScheduler takes only 2"),
    "an unknown sampling argument": (["sampling.arguments={etta: 1}"], "takes no argument 'etta'"),
    "missing LoRA targets": (["training.lora.targets=[nonesuch]"], "no layer named nonesuch"),
    "an unknown tracker": (["training.trackers=[nonesuch]"], "there is no tracker 'nonesuch'"),
    "too few images": (["evaluation.images_per_prompt=2"], "needs more images than that"),
    "a checkpoint that will not be": (
        ["evaluation.points=[{kind: tuned, checkpoint: 3}, {kind: base}]"],
        "checkpoint 3",
    ),
    "the same point twice": (["evaluation.points=[{kind: base}, {kind: tuned}, {kind: base}]"], "listed twice: base"),
    "no base among the points": (["evaluation.points=[{kind: tuned}, {kind: lora_scale, scale: 0.5}]"], "{kind: base}"),
    "missing features": (["evaluation.features=/nonexistent/model"], "/nonexistent/model"),
    "a prompt that gold does not know": (["evaluation.gold=gold"], "emoji-64 does not know the prompt 'a'"),
    "a training prompt that the reward does not know": (
        ["reward=tests.rewards_of_users:OnlyFor", "prompts=[a, z]", "evaluation=null"],
        "no word on 'z'",
    ),
    "a missing file of pairs": (
        ["training.objective={name: diffusion_dpo, pairs: /nonexistent/pairs.jsonl}"],
        "cannot read /nonexistent/pairs.jsonl: No such file or directory",
    ),
    "a data term without data": (["training.regularizers.data={coefficient: 0.1}"], "give either images or pairs"),
    "a missing file of images": (
        ["training.regularizers.data={images: /nonexistent/images.jsonl}"],
        "cannot read /nonexistent/images.jsonl: No such file or directory",
    ),
    "a penalty on samples that are not drawn": (
        ["training.objective={name: sft}", "training.regularizers.kl={coefficient: 1.0}"],
        "training.regularizers.kl looks at images of the tuned model, of which SFT samples none",
    ),
    "a broken variant": (["variants={k: {objective.last_steps: 9}}"], "the last 9 steps"),
}


@pytest.mark.parametrize("case", BAD_RECIPES)
def test_a_recipe_that_cannot_work_is_refused_before_any_work(case, world, tmp_path, refused):
    overrides, message = BAD_RECIPES[case]
    recipe = write_recipe(tmp_path / "recipe.yaml", world)
    error = refused("run", recipe, f"run={tmp_path / 'run'}", *overrides)
    assert message in error
    assert not (tmp_path / "run" / "training").exists()


def test_an_empty_prompt_file_is_refused(world, tmp_path, refused):
    (tmp_path / "prompts.txt").write_text("\n")
    recipe = write_recipe(tmp_path / "recipe.yaml", world, prompts=str(tmp_path / "prompts.txt"))
    assert "prompts.txt is empty: give at least one prompt" in refused("train", recipe)


BAD_PAIRS = {
    "none": ([], "pairs.jsonl is empty: give at least one line"),
    "no JSON": (["{"], "pairs.jsonl, line 1: Expecting property name"),
    "no label": ([{"prompt": "a", "image_0": "x.png", "image_1": "x.png"}], "line 1: there is no label or label_0"),
    "a prompt that is no text": ([{"prompt": 3}], "line 1: the prompt 3 is no text; a pair has prompt"),
    "no image": ([{"prompt": "a", "image_0": "x.png", "image_1": "y.png", "label": 1}], "y.png, which does not exist"),
    "small images": (
        [{"prompt": "a", "image_0": "x.png", "image_1": "x.png", "label": 1}],
        "pairs.jsonl has images of 8 x 8 pixels",
    ),
}


@pytest.mark.parametrize("case", BAD_PAIRS)
def test_pairs_that_cannot_be_trained_on_are_refused(case, world, tmp_path, refused):
    rows, message = BAD_PAIRS[case]
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    size = 8 if case == "small images" else 16
    save_png(torch.full((3, size, size), 0.5), tmp_path / "x.png")
    recipe = write_recipe(tmp_path / "recipe.yaml", world, evaluation=None)
    override = f"training.objective={{name: sft, pairs: {file}}}"
    assert message in refused("train", recipe, f"run={tmp_path / 'run'}", override)
    assert not (tmp_path / "run" / "training").exists()


def test_a_pipeline_with_a_truncated_file_is_refused(world, tmp_path, refused):
    shutil.copytree(world / "pipeline", tmp_path / "pipeline")
    weights = tmp_path / "pipeline" / "text_encoder" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    recipe = write_recipe(tmp_path / "recipe.yaml", world, pipeline={"path": str(tmp_path / "pipeline")})
    assert "cannot load the pipeline" in refused("train", recipe, f"run={tmp_path / 'run'}")


def test_printing_a_recipe_that_is_not_shipped_lists_those_that_are(refused):
    assert "no shipped recipe 'mine.yaml': choose one of emoji64-" in refused("recipes", "mine.yaml")


def test_a_run_of_another_recipe_is_refused_and_kept(run, refused):
    before = state(run.path)
    error = refused("run", run.path, "training.lr=0.5", "training.steps=9")
    assert "holds a run of another recipe (different: training.lr, training.steps). Choose a new folder" in error
    assert state(run.path) == before


def test_an_evaluation_that_has_begun_cannot_be_replaced(run, refused):
    """Taken away first and put back with other settings, its images would keep the scores of the old ones."""
    assert "(different: evaluation)" in refused("train", run.path, "evaluation=null")


def test_steps_on_which_the_learning_rate_depends_cannot_change(world, tmp_path, refused, sfumato):
    training = {**RECIPE["training"], "lr_schedule": "linear", "monitor_every": None}
    recipe = write_recipe(tmp_path / "recipe.yaml", world, training=training, evaluation=None)
    assert sfumato("train", recipe, f"run={tmp_path / 'run'}").code == 0
    assert "(different: training.steps)" in refused("train", tmp_path / "run", "training.steps=6")
    assert sfumato("train", tmp_path / "run").code == 0


def test_evaluating_before_training_says_so(world, tmp_path, refused):
    recipe = write_recipe(tmp_path / "recipe.yaml", world)
    error = refused("evaluate", recipe, f"run={tmp_path / 'run'}")
    assert f"run `sfumato train {tmp_path / 'run'}` first" in error
    assert not (tmp_path / "run" / "evaluation").exists()


def test_what_is_missing_is_said(world, tmp_path, refused):
    assert "is not a run folder" in refused("report", tmp_path)
    without = write_recipe(tmp_path / "without.yaml", world, evaluation=None)
    assert "has no evaluation section" in refused("evaluate", without, f"run={tmp_path / 'without'}")


def test_a_reward_that_breaks_leaves_the_checkpoints_and_the_training_continues(
    world, tmp_path, refused, sfumato, monkeypatch
):
    training = {**RECIPE["training"], "monitor_every": None}
    reward = "tests.rewards_of_users:brittle"
    recipe = write_recipe(tmp_path / "r.yaml", world, training=training, reward=reward, evaluation=None)
    monkeypatch.setattr(rewards_of_users, "broken_from", [7])  # tried four times before two sound updates
    error = refused("train", recipe, f"run={tmp_path / 'run'}")
    assert "reward 'brittle' returned nan for the prompt" in error
    run = Run(tmp_path / "run")
    assert [record["update"] for record in run.training_metrics()] == [1, 2]
    assert [path.name for path in run.training().iterdir() if path.is_dir()] == ["checkpoint-000002"]
    assert not (run.training() / WEIGHTS_NAME).exists()
    monkeypatch.setattr(rewards_of_users, "broken_from", [])
    assert sfumato("train", recipe, f"run={tmp_path / 'run'}").code == 0
    assert sfumato("train", recipe, f"run={tmp_path / 'plain'}").code == 0
    plain = Run(tmp_path / "plain").training() / WEIGHTS_NAME
    assert (run.training() / WEIGHTS_NAME).read_bytes() == plain.read_bytes()


def test_a_truncated_checkpoint_is_named(run, refused):
    (run.training() / WEIGHTS_NAME).unlink()
    newest = run.training() / "checkpoint-000004" / "trainer.safetensors"
    newest.write_bytes(newest.read_bytes()[:-10])
    before = state(run.path)
    assert "checkpoint-000004 is damaged" in refused("train", run.path)
    assert state(run.path) == before


def bad_loras(run, folder):
    """Files that are no LoRA of the tiny pipeline, and what is said of them."""
    good = run.training() / WEIGHTS_NAME
    truncated, wider, other = folder / "truncated.safetensors", folder / "wider.safetensors", folder / "other"
    truncated.write_bytes(good.read_bytes()[:-10])
    weights = load_file(good)
    widest = next(name for name in weights if name.endswith("lora_A.weight"))
    save_file({**weights, widest: torch.zeros(2, 77)}, wider)
    save_lora(tiny.pipeline("sd3", lora=True), other)
    return {
        truncated: "is damaged or not a safetensors file",
        wider: "was made for another model",
        other: "has no weights for the unet of this StableDiffusionPipeline; it has: transformer",
        folder / "nowhere": "there is no LoRA at",
    }


def test_a_lora_that_does_not_fit_is_refused(run, world, tmp_path, refused):
    out = tmp_path / "out.png"
    for path, message in bad_loras(run, tmp_path).items():
        error = refused("sample", "a", "--pipeline", world / "pipeline", "--out", out, "--lora", path)
        assert message in error and str(path) in error
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--schedule", "power:2"], "say where the tuned one is with --lora"),
        (["--lora", "x", "--schedule", "powr:2"], "unknown schedule 'powr'"),
        (["--lora", ".", "--schedule", "power"], "takes p; given: none"),
        (["--lora", ".", "--schedule", "power:two"], "cannot read the schedule 'power:two'"),
        (["--lora", ".", "--schedule", "linear:2"], "takes no parameters"),
        (["--cap", "0.5"], "give one with --schedule"),
        (["--out", "picture.tiff"], "let it end in .png"),
        (["--dtype", "int8"], "dtype is float32, bfloat16 or float16"),
    ],
)
def test_wrong_options_of_sample_are_explained(options, message, refused):
    assert message in refused("sample", "a cat", *options)
    assert "the prompt is empty" in refused("sample", " ")


def test_wrong_options_of_the_quick_demo_are_explained(refused, sfumato):
    assert "let it end in .png" in refused("demo", "--quick", "--out", "strip")
    outcome = sfumato("demo", "--quick", "training.steps=3")
    assert outcome.code == 2 and "takes no overrides" in outcome.err
