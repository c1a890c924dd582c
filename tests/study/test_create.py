"""From a configuration to a study folder: what is asked, and that nothing in it tells the method."""

import os
import random
import re
from collections import Counter
from itertools import combinations

import pytest
import yaml
from PIL import Image

from sfumato.config import RecipeError
from sfumato.study import Study, load_study_config
from sfumato.study.language import languages, load_strings
from sfumato.study.pictures import scramble
from tests.report.synthetic import make_run
from tests.study.bed import POINTS, PROMPTS, make_pictures, make_study

PLACES = re.compile(r"{\w+}")


def real_items(study, question):
    return [item for item in study.items.values() if item.question == question and item.check is None]


def test_every_pair_of_points_meets_equally_often_in_every_question(tmp_path):
    study = make_study(tmp_path)
    for question in study.config.questions:
        items = real_items(study, question.label)
        shown = Counter(option.point for item in items for option in item.options)
        assert set(shown) == set(POINTS) and len(set(shown.values())) == 1
        met = Counter(frozenset(two) for item in items for two in combinations([o.point for o in item.options], 2))
        assert len(met) == (0 if question.kind == "rating" else 6) and len(set(met.values())) <= 1
        assert {item.prompt for item in items} == set(PROMPTS)
        assert {len(option.images) for item in items for option in item.options} == {question.pictures}


def test_options_of_an_item_are_of_one_prompt_and_seed(tmp_path):
    study = make_study(tmp_path, questions=[{"kind": "pair", "repeats": 4}], check_every=None)
    colours = {}
    for point in POINTS:
        for index in range(3):
            for seed in range(4):
                with Image.open(tmp_path / f"pictures/{point}/prompt-{index}/{seed}.png") as image:
                    colours[point, image.getpixel((0, 0))] = (PROMPTS[index], seed)
    for item in study.items.values():
        found = set()
        for option in item.options:
            with Image.open(study.images / option.images[0]) as image:
                found.add(colours[option.point, image.getpixel((0, 0))])
        assert len(found) == 1 and found.pop()[0] == item.prompt
    names = Counter(item.options[0].images for item in study.items.values())
    assert max(names.values()) <= 3  # each picture meets the three other points once


def test_nothing_about_an_image_file_tells_its_method(tmp_path):
    study = make_study(tmp_path)
    used = {name for item in study.items.values() for option in item.options for name in option.images}
    files = sorted(study.images.iterdir())
    assert {file.name for file in files} == used
    for file in files:
        stem = file.name.removesuffix(".webp")
        assert len(stem) == 32 and int(stem, 16) >= 0
        assert not any(point.encode() in file.read_bytes() for point in POINTS)
        assert os.stat(file).st_mtime == 0
        with Image.open(file) as image:
            assert not image.getexif() and not {"comment", "exif", "xmp", "icc_profile"} & image.info.keys()


def test_pixels_are_kept(tmp_path):
    study = make_study(tmp_path, check_every=None, questions=[{"kind": "rating"}])
    before = {Image.open(path).getpixel((5, 5)) for path in (tmp_path / "pictures").rglob("*.png")}
    assert {Image.open(path).getpixel((5, 5)) for path in study.images.iterdir()} <= before


def test_attention_checks_have_one_option_that_is_plainly_wrong(tmp_path):
    study = make_study(tmp_path, check_every=5, items_per_rater=None)
    assert Counter(item.question for item in study.checks).keys() == {q.label for q in study.config.questions}
    for item in study.checks:
        assert all(option.point is None for option in item.options)
        if item.question == "variety":
            assert len(set(item.options[item.check].images)) == 1 < len(set(item.options[1 - item.check].images))


def test_a_scrambled_picture_has_the_same_pixels_elsewhere():
    image = Image.linear_gradient("L").convert("RGB")
    broken = scramble(image, random.Random(0))
    assert broken.tobytes() != image.tobytes() and broken.histogram() == image.histogram()


def test_points_of_a_run(tmp_path):
    run = make_run(tmp_path / "run", ["fruit", "a bird"], [1, 2, 3])
    points = {name: {"run": str(run.path)} for name in ("base", "tuned")} | {
        "guided": {"run": str(run.path), "point": "aig-power-2"}
    }
    study = make_study(tmp_path, points=points, questions=[{"kind": "pair"}], check_every=None)
    assert {option.point for item in study.items.values() for option in item.options} == set(points)
    assert {item.prompt for item in study.items.values()} == {"fruit", "a bird"}
    with pytest.raises(ValueError, match="has no point 'nothing', only aig-power-1"):
        make_study(tmp_path / "other", points={**points, "nothing": {"run": str(run.path)}})


def test_a_folder_for_each_prompt_will_do(tmp_path):
    points = make_pictures(tmp_path / "pictures")
    for point in POINTS:
        (tmp_path / "pictures" / point / "images.jsonl").unlink()
    study = make_study(tmp_path, points=points, prompts=2)
    assert {item.prompt for item in study.items.values()} < {"prompt-0", "prompt-1", "prompt-2"}


def test_a_folder_loads_as_it_was_made(tmp_path):
    study = make_study(tmp_path)
    again = Study.load(study.path)
    assert again.config.resolved() == study.config.resolved() and again.items == study.items
    with pytest.raises(FileExistsError, match="not empty"):
        make_study(tmp_path, points=study.config.model_dump()["points"])
    with pytest.raises(FileNotFoundError, match="is not a study folder"):
        Study.load(tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["points.a.folder=x", "vote_per_item=2"], "unknown key 'vote_per_item': did you mean 'votes_per_item'"),
        (["points.a.folder=x"], "question 'pair' compares 2 points, and there are 1"),
        (["points={a: {folder: x}, b: {run: x, folder: y}}"], "points.b: give either a run"),
        (["points={a: {folder: x}, b: {folder: y}}", "questions=[{kind: pair, tie: 1}]"], "did you mean .*ties"),
        (["points={a: {folder: x}, b: {folder: y}}", "questions=[{kind: pair}, {kind: pair}]"], "another name"),
        (["points={'a/b': {folder: x}, b: {folder: y}}"], "'a/b' is no name"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(RecipeError, match=message):
        load_study_config(["name=x", *settings])


def test_too_few_images_are_named(tmp_path):
    with pytest.raises(ValueError, match="'base' has 4 images for 'a cat', and 5 are shown"):
        make_study(tmp_path, questions=[{"kind": "pair", "repeats": 5}])


def test_all_languages_have_the_same_words_and_places():
    assert {"en", "zh"} <= set(languages())
    english = load_strings("en")
    for language in languages():
        own = load_strings(language)
        assert own.keys() == english.keys()
        for key, text in own.items():
            assert set(PLACES.findall(text)) == set(PLACES.findall(english[key])), (language, key)


def test_another_language_is_a_file_with_the_same_keys(tmp_path):
    own = {**load_strings("en"), "title": "Eine Bilderstudie"}
    (tmp_path / "de.yaml").write_text(yaml.safe_dump(own), encoding="utf-8")
    study = make_study(tmp_path, language=str(tmp_path / "de.yaml"))
    assert study.strings["title"] == "Eine Bilderstudie"
    del own["title"]
    (tmp_path / "de.yaml").write_text(yaml.safe_dump(own), encoding="utf-8")
    with pytest.raises(ValueError, match="see title"):
        load_strings(str(tmp_path / "de.yaml"))
