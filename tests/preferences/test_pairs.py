import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.preferences import Captioned, Pair, load_captioned, load_pairs, save_pairs


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=8), st.sampled_from([0, 0.5, 1])), max_size=4))
def test_pairs_survive_the_file_and_its_folder_moving(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("pairs")
    pairs = [Pair(prompt, f"{folder}/images/a{i}.png", f"{folder}/b.png", y) for i, (prompt, y) in enumerate(rows)]
    save_pairs(folder / "pairs.jsonl", pairs)
    assert load_pairs(folder / "pairs.jsonl") == pairs
    assert str(folder) not in (folder / "pairs.jsonl").read_text()
    moved = folder.rename(folder.with_name(folder.name + "-moved"))
    assert [pair.image_1 for pair in load_pairs(moved / "pairs.jsonl")] == [f"{moved}/b.png"] * len(pairs)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"prompt": "x", "image_0": "a", "label": 1},
            "line 2: there is no image_1 or jpg_1, only prompt, image_0, label; a pair has",
        ),
        ({"prompt": "x", "image_0": "a", "image_1": "b", "label": 2}, r"line 2: label must be 1 \(image_0"),
        ({"prompt": "x", "image_0": "a", "image_1": 3, "label": 1}, "line 2: 3 is no image: give the path"),
        ({"prompt": None, "image_0": "a", "image_1": "b", "label": 1}, "line 2: the prompt None is no text"),
        ([1], r"line 2: \[1\] is no JSON object"),
    ],
)
def test_a_bad_line_is_named(tmp_path, row, message):
    good = {"prompt": "x", "image_0": "a", "image_1": "b", "label": 1}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(good) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(ValueError, match=message):
        load_pairs(tmp_path / "pairs.jsonl")


def test_images_with_prompts_are_read_from_beside_their_file(tmp_path):
    file = tmp_path / "images.jsonl"
    file.write_text('{"prompt": "ein Häuschen", "image": "images/0.png"}\n\n{"prompt": "y", "image": "../1.png"}\n')
    wanted = [Captioned("ein Häuschen", f"{tmp_path}/images/0.png"), Captioned("y", f"{tmp_path.parent}/1.png")]
    assert load_captioned(file) == wanted
    file.write_text('{"prompt": "y"}')
    with pytest.raises(ValueError, match="line 1: there is no image, only prompt; an image has prompt and image"):
        load_captioned(file)
