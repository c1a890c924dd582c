"""Every fault is planted once and found once; sound data have none."""

import json
import shutil

import pytest
import torch
from PIL import Image

from sfumato.images import load_image, save_png, to_pil
from sfumato.preferences import Split, check_preferences
from sfumato.preferences.looks import look_at, near_duplicates
from tests.preferences.world import write_pairs


@pytest.fixture
def files(tmp_path):
    """Two sound files with different prompts and pictures."""
    return [
        write_pairs(tmp_path, 8, seed=0, prompts=["ab", "cd"], name="train"),
        write_pairs(tmp_path, 4, seed=1, prompts=["ef"], name="held"),
    ]


def check(files, ordered=False):
    return check_preferences([Split.read(file) for file in files], ordered)


def kinds(files):
    return [(finding.level, finding.kind, finding.count) for finding in check(files)]


def rows(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def change(file, number, **values):
    """Change one line; `number` one past the last adds a copy of the last."""
    found = rows(file)
    found += [dict(found[-1])] if number == len(found) else []
    found[number] |= values
    file.write_text("".join(json.dumps(row) + "\n" for row in found))


def test_sound_data_have_no_findings(files):
    assert check(files) == []
    assert Split.read(files[0]).summary() == {
        "name": str(files[0]),
        "pairs": 8,
        "prompts": 2,
        "images": 16,
        "image_0_preferred": 3,
        "image_1_preferred": 3,
        "ties": 2,
        "unlabelled": 0,
    }


def test_rows_that_are_no_pairs(files):
    change(files[0], 3, label=0.3)
    with files[0].open("a") as file:
        file.write("{\n")
    (found,) = check(files)
    assert (found.level, found.kind, found.count) == ("error", "no pair", 2)
    assert "line 4: label must be 1" in found.examples[0] and "line 9" in found.examples[1]


def test_missing_and_broken_images(files):
    paths = [files[0].parent / row["image_0"] for row in rows(files[0])]
    paths[0].unlink()
    paths[1].write_bytes(paths[1].read_bytes()[:200])
    paths[2].write_text("no image")
    assert kinds(files) == [("error", "missing images", 1), ("error", "broken images", 2)]
    assert check(files)[0].examples == (str(paths[0]),)


def test_a_picture_that_is_preferred_to_itself(files):
    row = rows(files[0])[3]
    shutil.copy(files[0].parent / row["image_0"], files[0].parent / row["image_1"])
    assert kinds(files) == [("error", "same image twice", 1)]
    change(files[0], 3, label=0.5)
    assert kinds(files) == []


@pytest.mark.parametrize("turned", [False, True])
def test_duplicated_and_contradictory_pairs(files, turned):
    last = rows(files[0])[-1]
    swap = {"image_0": last["image_1"], "image_1": last["image_0"]} if turned else {}
    change(files[0], 8, prompt=f" {last['prompt'].upper()}", **swap)
    agrees = kinds(files)
    assert agrees == [("warning", "contradictions" if turned else "duplicates", 1)]
    change(files[0], 8, label=1 - last["label"])
    assert kinds(files) == [("warning", "duplicates" if turned else "contradictions", 1)]


def test_labels_that_teach_nothing(files):
    for number in range(8):
        change(files[0], number, label=0.5)
    assert "all labels are ties" in check(files)[0].text
    for number in range(8):
        change(files[0], number, label=1)
    (found,) = check(files)
    assert found.level == "error" and "no label but 1 among those that are no ties" in found.text
    assert "image_0 is always the preferred one" in found.text
    assert check(files, ordered=True) == []


def test_an_empty_file_and_empty_prompts(files):
    change(files[0], 0, prompt="  ")
    files[1].write_text("\n")
    assert kinds(files) == [("warning", "no prompt", 1), ("error", "empty", 0)]


def test_leaks_of_files_of_prompts_and_of_pictures_made_anew(files):
    held = [files[1].parent / row["image_0"] for row in rows(files[1])]
    train = [files[0].parent / row["image_0"] for row in rows(files[0])]
    shutil.copy(train[0], held[0])
    smooth = torch.nn.functional.interpolate(load_image(train[1])[None, :, :4, :4], 64, mode="bilinear")[0]
    save_png(smooth, train[1])
    picture = to_pil(smooth).resize((40, 40), Image.Resampling.BICUBIC)
    picture.save(held[1].with_suffix(".jpg"), quality=80)
    change(files[1], 1, image_0=str(held[1].with_suffix(".jpg")))
    change(files[1], 2, prompt="AB")
    assert kinds(files) == [
        ("error", "same image in two splits", 1),
        ("warning", "near-duplicates in two splits", 1),
        ("warning", "same prompt in two splits", 1),
    ]
    same, near, prompt = (finding.examples[0] for finding in check(files))
    assert same == f"{train[0]} = {held[0]}"
    assert near == f"{train[1]} ~ {held[1].with_suffix('.jpg')}" and prompt == "'ab'"


def test_flat_pictures_of_other_colours_are_no_duplicates(tmp_path):
    colours = {"white": 1.0, "nearly white": 0.995, "grey": 0.5}
    for name, level in colours.items():
        save_png(torch.full((3, 32, 32), level), tmp_path / name / "a.png")
    looks = [look_at(tmp_path / name / "a.png") for name in colours]
    assert {look.bits for look in looks} == {0}
    assert list(near_duplicates(looks, looks)) == [(0, 1), (1, 0)]
    assert list(near_duplicates(looks, [])) == []


def test_other_pictures_are_no_duplicates(tmp_path):
    generator = torch.Generator().manual_seed(0)
    for i in range(60):  # smooth, so that resizing leaves something to see
        rough = torch.rand(1, 3, 6, 6, generator=generator)
        save_png(torch.nn.functional.interpolate(rough, 32, mode="bilinear")[0], tmp_path / f"{i}.png")
    looks = [look_at(tmp_path / f"{i}.png") for i in range(60)]
    assert list(near_duplicates(looks[:30], looks[30:])) == []
