import base64
import io
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sfumato.report import images


def decode(strip: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(strip)))


def record(folder, point, prompt, seed, colour, size=(64, 64)):
    file = f"{point}-{prompt}-{seed}.png"
    Image.new("RGB", size, colour).save(folder / file)
    return {"point": point, "prompt": prompt, "seed": seed, "file": file}


def near(pixel, colour):
    return all(abs(a - b) < 12 for a, b in zip(pixel, colour, strict=False))


def test_a_tile_is_the_same_seed_at_every_point(tmp_path):
    red, blue, green = (220, 30, 30), (30, 30, 220), (30, 200, 30)
    records = [
        record(tmp_path, "a", "p", 2, blue),
        record(tmp_path, "a", "p", 1, red),
        record(tmp_path, "b", "p", 2, green),
    ]
    found = images.strips(records, tmp_path, ["p"], [])
    assert found.seeds == {"p": [1, 2]} and found.shown == 2 and found.total == (1, 2)
    first, second = decode(found.strips["a", "p"]), decode(found.strips["b", "p"]).convert("RGBA")
    assert first.size == (128, 64)
    assert near(first.getpixel((32, 32)), red) and near(first.getpixel((96, 32)), blue)
    assert second.getpixel((32, 32))[3] == 0 and near(second.getpixel((96, 32)), green)
    assert found.records["b", "p"] == [None, records[2]]


def test_a_deleted_image_leaves_its_place_empty(tmp_path):
    records = [record(tmp_path, "a", "p", seed, (9, 9, 9)) for seed in (1, 2)]
    (tmp_path / records[1]["file"]).unlink()
    strip = decode(images.strips(records, tmp_path, [], []).strips["a", "p"]).convert("RGBA")
    assert [strip.getpixel((x, 32))[3] for x in (32, 96)] == [255, 0]


@pytest.mark.parametrize("damage", [lambda data: data[:-30], lambda data: b"", lambda data: b"no picture"])
def test_a_damaged_image_is_named_with_what_to_do(damage, tmp_path):
    records = [record(tmp_path, "a", "p", seed, (seed, 9, 9), (128, 128)) for seed in (1, 2)]
    file = tmp_path / records[1]["file"]
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ValueError, match=rf"cannot read the image {file} .*delete it; `sfumato evaluate`"):
        images.strips(records, tmp_path, ["p"], [])
    with pytest.raises(ValueError, match="cannot read the image"):
        images.sheet(file)


def test_large_images_become_small_tiles_of_their_shape(tmp_path):
    found = images.strips([record(tmp_path, "a", "p", 1, (9, 9, 9), (1024, 512))], tmp_path, ["p"], [])
    assert found.tile == (128, 64) and decode(found.strips["a", "p"]).size == (128, 64)


def test_only_wanted_points_and_prompts_in_their_order(tmp_path):
    records = [record(tmp_path, point, prompt, 1, (9, 9, 9)) for point in "ab" for prompt in "pq"]
    found = images.strips(records, tmp_path, ["q"], ["a"])
    assert found.prompts == ["q", "p"] and set(found.strips) == {("a", "p"), ("a", "q")}


def test_no_images():
    assert images.strips([], None, ["p"], []).strips == {}


@given(st.integers(1, 60), st.integers(1, 500), st.integers(1, 200), st.sampled_from([(64, 64), (128, 128), (128, 72)]))
def test_the_budget_holds(points, prompts, count, tile):
    shown_prompts, shown = images.fit(points, prompts, count, tile)
    assert 1 <= shown_prompts <= prompts and 1 <= shown <= min(count, images.MOST)
    assert points * shown_prompts * shown * tile[0] * tile[1] <= images.PIXEL_BUDGET
    if shown_prompts < prompts:
        assert shown <= images.FEWEST


def test_the_demo_is_shown_whole():
    assert images.fit(13, 12, 12, (64, 64)) == (12, 12)


def test_contact_sheets_are_thinned_evenly(tmp_path):
    Image.new("RGB", (40, 10)).save(tmp_path / "sheet.png")
    records = [{"update": update, "eval/image": "sheet.png"} for update in range(1, 101)]
    records += [{"update": 101, "eval/image": "missing.png"}, {"update": 102, "reward": 1.0}]
    updates = [update for update, _ in images.contact_sheets(records, tmp_path)]
    assert len(updates) == images.SHEETS and (updates[0], updates[-1]) == (1, 100)
    assert max(b - a for a, b in pairwise(updates)) <= 10


def test_large_contact_sheets_are_downsized(tmp_path):
    Image.new("RGB", (1600, 400)).save(tmp_path / "sheet.png")
    ((update, sheet),) = images.contact_sheets([{"update": 7, "eval/image": "sheet.png"}], tmp_path)
    assert update == 7 and decode(sheet).size == (768, 192)
