"""Operating points: their names, what family they belong to, and what they do to a pipeline."""

import pytest
import torch

from sfumato.config import parse_recipe
from sfumato.frontier.points import applied, check_trained, operating_points, weights_folder
from sfumato.pipelines.adapters import lora_scale, save_lora
from sfumato.pipelines.guidance import annealed_guidance
from sfumato.pipelines.rollout import rollout
from sfumato.pipelines.trained import save_denoiser
from sfumato.runs import Run
from tests import tiny

KINDS = [
    ({"kind": "base"}, "base", "base", "base"),
    ({"kind": "tuned"}, "tuned", "tuned", "tuned"),
    ({"kind": "tuned", "checkpoint": 20}, "tuned-20", "tuned, update 20", "early checkpoint"),
    ({"kind": "tuned", "guidance_scale": 1.5}, "tuned-cfg-1.5", "tuned, CFG 1.5", "guidance scale"),
    ({"kind": "tuned", "training": "kl"}, "kl", "KL 0.5", "KL"),
    ({"kind": "tuned", "training": "slow"}, "slow", "slow", "slow"),
    ({"kind": "lora_scale", "scale": 0.25}, "lora-0.25", "LoRA 0.25", "LoRA scale"),
    ({"kind": "guidance", "schedule": "power", "parameters": {"p": 2}}, "aig-power-2", "AIG power 2", "AIG"),
    ({"kind": "guidance", "schedule": "linear"}, "aig-linear", "AIG linear", "AIG"),
    ({"kind": "guidance", "schedule": "step", "parameters": {"f": 0.6}}, "aig-step-0.6", "switch 0.6", "switch"),
    (
        {"kind": "guidance", "schedule": "constant", "parameters": {"w": 0.5}},
        "aig-constant-0.5",
        "constant blend 0.5",
        "constant blend",
    ),
    (
        {"kind": "guidance", "schedule": "linear", "cap": 0.5, "blend": "weights"},
        "aw-linear-cap-0.5",
        "annealed weights linear, cap 0.5",
        "annealed weights",
    ),
    (
        {"kind": "guidance", "schedule": "linear", "clock": "nemo"},
        "aig-linear-nemo",
        "AIG linear, nemo clock",
        "AIG",
    ),
]


def recipe(points, **training):
    return parse_recipe(
        {
            "name": "mine",
            "reward": "gold",
            "prompts": ["a"],
            "sampling": {"num_inference_steps": 3},
            "training": training,
            "variants": {"kl": {"regularizers.kl.coefficient": 0.5}, "slow": {"lr": 1e-5}},
            "evaluation": {"prompts": ["a", "b", "c"], "points": points},
        }
    )


def test_every_kind_of_point_has_a_name_a_label_and_a_method():
    points = operating_points(recipe([config for config, *_ in KINDS]))
    assert [(point.name, point.label, point.method) for point in points] == [tuple(rest) for _, *rest in KINDS]
    assert all(set(point.name) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-") for point in points)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([{"kind": "base"}, {"kind": "lora_scale", "scale": 1}], "needs the tuned model: add {kind: tuned}"),
        ([{"kind": "tuned"}, {"kind": "lora_scale", "scale": 1}], "needs the base model: add {kind: base}"),
        ([{"kind": "base"}, {"kind": "tuned"}, {"kind": "tuned"}], "listed twice: tuned"),
    ],
)
def test_points_that_make_no_frontier_are_refused(points, message):
    with pytest.raises(ValueError, match=message):
        operating_points(recipe(points))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder with LoRAs where trainings would have left them."""
    run = Run(tmp_path_factory.mktemp("run"))
    for seed, folder in enumerate((run.training(), run.training("kl"), run.training() / "checkpoint-000020")):
        pipe = tiny.pipeline("sd")
        tiny.perturbed_lora(pipe, seed=seed)
        save_lora(pipe, folder)
    return run


def draw(pipe, **changes):
    arguments = {"prompt": "a cat", "num_inference_steps": 3, "guidance_scale": 4.0, **changes}
    return rollout(pipe, seeds=[1], **arguments).images


def wanted_images(name, config, run, path):
    """The images that a point stands for, made without `applied`."""
    pipe = tiny.pipeline("sd")
    if path is not None:
        pipe.load_lora_weights(path)
    if name == "tuned-cfg-1.5":
        return draw(pipe, guidance_scale=1.5)
    if name == "lora-0.25":
        with lora_scale(pipe, 0.25):
            return draw(pipe)
    if config["kind"] == "guidance":
        options = {key: config[key] for key in ("cap", "clock", "blend") if key in config}
        with annealed_guidance(pipe, config["schedule"], **config.get("parameters", {}), **options):
            return draw(pipe)
    return draw(pipe)


def test_a_pipeline_samples_at_each_point_and_is_the_base_again(run):
    pipe = tiny.pipeline("sd")
    base = draw(pipe)
    found = {}
    for point in operating_points(recipe([config for config, name, *_ in KINDS if name != "slow"])):
        with applied(pipe, point, run) as changes:
            found[point.name] = draw(pipe, **changes)
        assert torch.equal(draw(pipe), base), point.name
        config = point.config.model_dump(exclude_none=True)
        assert torch.equal(found[point.name], wanted_images(point.name, config, run, weights_folder(point, run)))
    different = {name: images for name, images in found.items() if name != "aig-constant-0.5"}
    images = list(different.values())
    assert not any(torch.equal(a, b) for i, a in enumerate(images) for b in images[:i])


def test_points_of_a_training_of_the_whole_denoiser(tmp_path):
    """Guidance between two models, and WiSE-FT (arXiv 2109.01903) in the place of a smaller LoRA."""
    run, tuned = Run(tmp_path), tiny.pipeline("sd")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in tuned.unet.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    save_denoiser(tuned, run.training())
    save_denoiser(tiny.pipeline("sd"), run.training() / "checkpoint-000020")
    kinds = {name: config for config, name, *_ in KINDS}
    names = ["base", "tuned", "tuned-20", "tuned-cfg-1.5", "lora-0.25", "aig-power-2", "aw-linear-cap-0.5"]
    points = operating_points(recipe([kinds[name] for name in names], lora=None))
    assert [(points[4].name, points[4].label, points[4].method)] == [("wise-ft-0.25", "WiSE-FT 0.25", "WiSE-FT")]
    check_trained(points, run)
    between = tiny.pipeline("sd")
    with torch.no_grad():
        for own, other in zip(between.unet.parameters(), tuned.unet.parameters(), strict=True):
            own.lerp_(other, 0.25)
    wanted = {
        "tuned": draw(tuned),
        "tuned-20": draw(tiny.shared("sd")),
        "tuned-cfg-1.5": draw(tuned, guidance_scale=1.5),
    }
    wanted |= {"base": draw(tiny.shared("sd")), "wise-ft-0.25": draw(between)}
    for name, schedule, options in [
        ("aig-power-2", "power", {"p": 2}),
        ("aw-linear-cap-0.5", "linear", {"cap": 0.5, "blend": "weights"}),
    ]:
        with annealed_guidance(tuned, schedule, base=tiny.pipeline("sd"), **options):
            wanted[name] = draw(tuned)
    pipe = tiny.pipeline("sd")
    base = pipe.unet
    for point in points:
        with applied(pipe, point, run) as changes:
            assert torch.equal(draw(pipe, **changes), wanted[point.name]), point.name
        assert pipe.unet is base
    assert len({images.sum().item() for images in wanted.values()}) == len(wanted) - 1


def test_a_point_without_its_training_is_named_with_the_command(run):
    points = operating_points(recipe([config for config, *_ in KINDS]))
    check_trained([point for point in points if point.name != "slow"], run)
    with pytest.raises(FileNotFoundError, match=r"point 'slow' needs .* which is not there yet: run `sfumato train "):
        check_trained(points, run)
