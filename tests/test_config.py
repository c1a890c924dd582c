"""Recipes: read, overridden, checked before any work, and written back."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tools.recipe_table import BEGIN, END, PAGE, tables

from sfumato.config import Recipe, RecipeError, TrainingConfig, load_recipe, parse_recipe, read_prompts, shipped_recipes

SMALL = {"name": "mine", "reward": "colourfulness", "prompts": ["a", "b"]}
POINTS = [{"kind": "base"}, {"kind": "tuned"}]


def evaluated(**changes):
    return {**SMALL, "evaluation": {"prompts": ["a", "b", "c"], "points": POINTS, **changes}}


def refusal(values):
    with pytest.raises(RecipeError) as caught:
        parse_recipe(values)
    return str(caught.value)


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes_load_and_explain_themselves(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert len(recipe.description) > 20
    assert Recipe.model_validate(yaml.safe_load(yaml.safe_dump(recipe.resolved()))) == recipe


def test_overrides_are_typed_dotted_and_later_ones_win():
    recipe = load_recipe(
        "emoji64-draft",
        ["training.lr=1e-4", "training.regularizers.kl.coefficient=0.5", "run=2026", "training.steps=3", "name=a"],
    )
    assert (recipe.training.lr, recipe.training.regularizers.kl.coefficient, recipe.training.steps) == (1e-4, 0.5, 3)
    assert (recipe.run, str(recipe.folder)) == ("2026", "2026")
    assert load_recipe("emoji64-draft", ["name=a", "name=b"]).folder.name == "b"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.lr", "overrides are written key=value"),
        ("=3", "overrides are written key=value"),
        ("training.lr=[1", "cannot read 'training.lr=[1': while parsing"),
        ("training.lr.x=1", "'lr' is a value, not a group"),
        ("training.learning_rate=1", "unknown key 'training.learning_rate'"),
        ("training.lrr=1", "did you mean 'training.lr'"),
        ("trainnig.lr=1", "did you mean 'training'"),
        ("training.objective.last_step=1", "did you mean 'training.objective.last_steps'"),
        ("training.objective.name=ddpo", "'training.objective.last_steps' is no key of 'ddpo': to change from one to"),
        ("training.objective={name: refle}", "training.objective: no name is 'refle': did you mean 'refl'? There are"),
        ("evaluation.points=[{kind: 3}]", "evaluation.points.0: no kind is '3': there are 'base', 'tuned'"),
        ("sampling.num_inference_step=1", "did you mean 'sampling.num_inference_steps'"),
        ("training.steps=many", "training.steps: Input should be a valid integer"),
        ("training.steps=0", "training.steps: Input should be greater than or equal to 1"),
        ("training.lr=-1", "training.lr: Input should be greater than 0"),
        ("training.lr_schedule=step", "training.lr_schedule: Input should be 'constant', 'linear' or 'cosine'"),
        ("pipeline.dtype=int8", "pipeline.dtype: Input should be 'float32'"),
        ("reward=[1]", "reward: a reward is a name, a name with options, or a list of these, not [1]"),
        ("reward=[]", "reward: a reward is a name"),
        ("prompts=nowhere.txt", "there is no prompt file 'nowhere.txt'"),
        ("prompts=[]", "prompts: the list of prompts is empty"),
        ("prompts=[1984]", "1984 in the list of prompts is not text: put it in quotes"),
        ("prompts=true", "prompts are a list of texts, a file, or the name of a set, not True"),
    ],
)
def test_a_wrong_override_is_explained(override, message):
    with pytest.raises(RecipeError) as caught:
        load_recipe("emoji64-draft", [override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_recipe_names_the_nearest(tmp_path):
    with pytest.raises(RecipeError, match="did you mean 'emoji64-draft'"):
        load_recipe("emoji64-drfat")
    with pytest.raises(RecipeError, match="Give the path of a YAML file, a run folder, or one of the shipped"):
        load_recipe(tmp_path)


@pytest.mark.parametrize("text", ["", "- a\n- b", "just words", "a: [1"])
def test_a_file_that_is_no_recipe_is_refused(text, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=str(path)):
        load_recipe(path)


def test_a_missing_key_is_named():
    assert "'prompts' is missing" in refusal({"name": "mine", "reward": "gold"})


def test_a_reward_is_a_name_or_options_or_a_list_of_these():
    gold = {"name": "gold", "weight": 0.5}
    for section, wanted in (("gold", "gold"), (gold, gold), (["gold", gold], [{"name": "gold"}, gold])):
        assert parse_recipe({**SMALL, "reward": section}).reward == wanted


def test_prompts_come_from_a_list_a_file_or_the_package(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("a cat\n\n  a dög  \n", encoding="utf-8")
    assert read_prompts(str(path)) == ["a cat", "a dög"]
    assert read_prompts(["  a cat", " "]) == ["a cat"]
    path.write_text("\n \n")
    with pytest.raises(ValueError, match=r"prompts\.txt is empty: give at least one prompt"):
        read_prompts(str(path))


def test_numbers_that_yaml_takes_for_text(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("name: mine\nreward: gold\nprompts: [e4, -e]\ntraining: {lr: 1e-4, weight_decay: 5e-4}\n")
    recipe = load_recipe(path)
    assert (recipe.training.lr, recipe.training.weight_decay) == (1e-4, 5e-4)
    assert recipe.prompts == ["e4", "-e"]


def test_variants_change_the_training():
    recipe = parse_recipe({**SMALL, "variants": {"kl": {"regularizers.kl.coefficient": 0.5, "lora": {"rank": 2}}}})
    assert list(recipe.trainings) == ["tuned", "kl"]
    assert recipe.trainings["kl"].regularizers.kl.coefficient == 0.5
    assert recipe.trainings["kl"].lora.rank == 2
    assert recipe.trainings["tuned"] == TrainingConfig()


@pytest.mark.parametrize("name", ["tuned", "base", "reference", "a/b", "../up", ".hidden", ""])
def test_a_variant_is_named_like_a_folder_of_its_own(name):
    assert f"a variant cannot be named {name!r}" in refusal({**SMALL, "variants": {name: {}}})


def test_an_unknown_key_in_a_variant_is_named():
    message = refusal({**SMALL, "variants": {"kl": {"regularizers.kll": 1}}})
    assert "variant 'kl': unknown key 'regularizers.kll': did you mean 'regularizers.kl'" in message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompts": ["a", "b"]}, "at least 3 prompts"),
        ({"prompts": ["a", "b", "a"]}, "listed twice: a"),
        ({"images_per_prompt": 3}, "images_per_prompt is 3, but recall with neighbours: 3 needs more"),
        ({"diversity": "vendy"}, "evaluation: diversity: 'vendy' is none of vendi"),
        ({"diversity": "style_entropy", "features": "some/model"}, "set features: judge"),
        ({"diversity": "vendi_clip"}, "'vendi_clip' is none of"),
        ({"diversity": "vendi_corrected", "images_per_prompt": 65}, "up to 64 images per prompt: set diversity: vendi"),
        ({"unrelated": ["x"]}, "unrelated: intervals over prompts need at least 2"),
        ({"unrelated": ["x", "a"]}, "listed twice: a"),
        ({"rewards": {"gold": "colourfulness"}}, "'gold' cannot be a name here"),
        ({"rewards": {"vendi": "colourfulness"}}, "'vendi' cannot be a name here"),
        ({"rewards": {"style_entropy": "colourfulness"}}, "'style_entropy' cannot be a name here"),
        ({"further_features": {"two words": "judge"}}, "'two words' cannot be a name here"),
        ({"further_features": {"corrected": "judge"}}, "'corrected' cannot be a name here"),
        ({"seed": 1_999_980}, "the monitor's or a search's"),
        ({"seed": 2**32}, "less than or equal to 2147483648"),
        ({"points": [{"kind": "base"}]}, "evaluation.points"),
        ({"points": [*POINTS, {"kind": "lora"}]}, "'lora_scale'"),
        ({"points": [*POINTS, {"kind": "lora_scale"}]}, "scale' is missing"),
        ({"points": [*POINTS, {"kind": "tuned", "chekpoint": 20}]}, "checkpoint'"),
        ({"points": [*POINTS, {"kind": "tuned", "training": "kl"}]}, "names training 'kl'; there are: tuned"),
        ({"points": [*POINTS, {"kind": "tuned", "checkpoint": 30}]}, "saved every 20 updates up to 100"),
        ({"points": [*POINTS, {"kind": "tuned", "checkpoint": 120}]}, "saved every 20 updates up to 100"),
        ({"points": [*POINTS, {"kind": "tuned", "checkpoint": 0}]}, "saved every 20 updates up to 100"),
        ({"points": [*POINTS, {"kind": "guidance", "schedule": "powr"}]}, "unknown schedule 'powr'"),
        ({"points": [*POINTS, {"kind": "guidance", "schedule": "power"}]}, "takes p; given: none"),
    ],
)
def test_an_evaluation_that_would_fail_after_sampling_is_refused_at_once(changes, message):
    found = refusal(evaluated(**changes))
    assert message in found
    assert "\n" not in found


def test_checkpoints_that_will_be_there_can_be_points():
    points = [*POINTS, {"kind": "tuned", "checkpoint": 20}, {"kind": "tuned", "checkpoint": 50}]
    recipe = parse_recipe({**evaluated(points=points), "training": {"steps": 50}})
    assert [point.checkpoint for point in recipe.evaluation.points[2:]] == [20, 50]


@given(steps=st.integers(1, 200), every=st.integers(1, 50), update=st.integers(-5, 250))
def test_saves_is_true_at_every_nth_update_and_the_last(steps, every, update):
    saved = {number for number in range(1, steps + 1) if number % every == 0} | {steps}
    assert TrainingConfig(steps=steps, checkpoint_every=every).saves(update) == (update in saved)


def test_a_section_that_is_null_can_be_filled_by_dotted_keys():
    overrides = ["evaluation.prompts=[a, b, c]", "evaluation.points=[{kind: base}, {kind: tuned}]"]
    recipe = load_recipe("emoji64-draft", ["evaluation=null", *overrides])
    assert recipe.evaluation.prompts == ["a", "b", "c"]


def test_drift_is_not_looked_for_where_the_model_was_tuned():
    assert "'a' is a training prompt" in refusal(
        {**evaluated(unrelated=["a", "x"], prompts=["b", "c", "d"]), "prompts": ["a"]}
    )


def test_the_documentation_has_every_key():
    assert f"{BEGIN}{tables()}{END}" in PAGE.read_text(encoding="utf-8"), "run python -m tools.recipe_table"
    assert "None |" not in tables(), "a key without a description"


def test_kinds_of_points_are_no_part_of_a_key():
    point = {"kind": "guidance", "schedul": "power"}
    message = refusal({**SMALL, "evaluation": {"prompts": ["a"], "points": [{"kind": "base"}, point]}})
    assert "unknown key 'evaluation.points.1.schedul': did you mean 'evaluation.points.1.schedule'?" in message
