"""Pairs in Parquet, in Pick-a-Pic's schema, in folders of files; and rows that are no pairs."""

import io
import json

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
import torch
from PIL import Image

from sfumato.images import load_image, to_pil
from sfumato.preferences import Pair, load_captioned, load_pairs
from tests.preferences.world import red_pictures

PICTURES, _ = red_pictures(3)


def encoded(number, kind="PNG"):
    buffer = io.BytesIO()
    to_pil(PICTURES[number]).save(buffer, kind, quality=95)
    return buffer.getvalue()


def write(path, *rows):
    parquet.write_table(arrow.Table.from_pylist(list(rows)), path)
    return path


def row(**changes):
    images = {"jpg_0": encoded(0), "jpg_1": encoded(1)}
    return {"caption": "cat", **images, "label_0": 1.0, "label_1": 0.0, "has_label": True, "user_id": 7} | changes


def test_pick_a_pic_as_it_is_published(tmp_path):
    rows = [
        row(),
        row(caption="dog", label_0=0.5, label_1=0.5, jpg_1=encoded(0)),
        row(has_label=False, label_0=-1.0, label_1=-1.0),
        row(caption="emu", label_0=0.0, label_1=1.0, jpg_0=encoded(2, "JPEG")),
    ]
    first, tie, last = load_pairs(write(tmp_path / "train.parquet", *rows))
    assert [(p.prompt, p.label) for p in (first, tie, last)] == [("cat", 1.0), ("dog", 0.5), ("emu", 0.0)]
    for path, number in ((first.image_0, 0), (first.image_1, 1)):
        torch.testing.assert_close(load_image(path), PICTURES[number], atol=0.5 / 255 + 1e-6, rtol=0)
    assert tie.image_0 == tie.image_1 == first.image_0, "the same picture is the same file"
    assert last.image_0.endswith(".jpg") and first.image_0.startswith(f"{tmp_path}/train.images/")
    assert len(list((tmp_path / "train.images").rglob("*.*g"))) == 3


def test_images_that_were_cut_short_are_written_again(tmp_path):
    file = write(tmp_path / "train.parquet", row())
    path = load_pairs(file)[0].image_0
    with open(path, "wb") as half:
        half.write(encoded(0)[:9])
    assert load_image(load_pairs(file)[0].image_0).shape == (3, 16, 16)


def test_images_may_go_elsewhere(tmp_path):
    pair = load_pairs(write(tmp_path / "train.parquet", row()), tmp_path / "there")[0]
    assert pair.image_0.startswith(f"{tmp_path}/there/") and not (tmp_path / "train.images").exists()
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"cannot write the images out to .*file.*name another folder"):
        load_pairs(tmp_path / "train.parquet", tmp_path / "file")


def test_parquet_with_paths_and_as_hugging_face_writes_images(tmp_path):
    names = {"prompt": "cat", "image_0": "images/a.png", "image_1": "b.png", "label": 0}
    there = [Pair("cat", f"{tmp_path}/images/a.png", f"{tmp_path}/b.png", 0)]
    assert load_pairs(write(tmp_path / "paths.parquet", names)) == there
    both = {"image_0": {"bytes": None, "path": "images/a.png"}, "image_1": {"bytes": encoded(1), "path": "x.png"}}
    pair = load_pairs(write(tmp_path / "structs.parquet", names | both))[0]
    assert pair.image_0 == there[0].image_0 and load_image(pair.image_1).shape == (3, 16, 16)
    pair = load_captioned(write(tmp_path / "images.parquet", {"caption": "cat", "image": both["image_1"]}))[0]
    assert pair.prompt == "cat" and Image.open(pair.image).size == (16, 16)


def test_json_lines_in_pick_a_pics_schema(tmp_path):
    line = {"caption": "cat", "jpg_0": "a.jpg", "jpg_1": "b.jpg", "label_0": 0, "label_1": 1}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(line))
    assert load_pairs(tmp_path / "pairs.jsonl") == [Pair("cat", f"{tmp_path}/a.jpg", f"{tmp_path}/b.jpg", 0)]


def test_a_folder_of_shards_is_read_in_the_order_of_names(tmp_path):
    for name in ("b", "a", "c"):
        write(tmp_path / f"{name}.parquet", row(caption=name))
    (tmp_path / "README.md").touch()
    assert [pair.prompt for pair in load_pairs(tmp_path)] == ["a", "b", "c"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"empty has no file that ends in \.jsonl or \.parquet"):
        load_pairs(tmp_path / "empty")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label_0": 0.7, "label_1": 0.3}, r"row 2: label must be 1 .* not 0\.7"),
        ({"label_0": 1.0, "label_1": 1.0}, r"row 2: label_0 is 1\.0 and label_1 is 1\.0: they must add up to 1"),
        ({"label_0": None}, "row 2: label must be .* not None"),
        ({"jpg_1": None}, "row 2: None is no image"),
        ({"jpg_1": b""}, "row 2: b'' is no image"),
        ({"caption": None}, "row 2: the prompt None is no text; a pair has prompt"),
    ],
)
def test_a_bad_row_is_named(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        load_pairs(write(tmp_path / "train.parquet", row(), row(**changes)))


def test_a_missing_column_is_named_with_those_that_are_there(tmp_path):
    bad = {key: value for key, value in row().items() if key != "jpg_1"}
    with pytest.raises(ValueError, match="row 1: there is no image_1 or jpg_1, only caption, jpg_0, label_0, label_1"):
        load_pairs(write(tmp_path / "train.parquet", bad))


def test_files_of_other_kinds_are_refused(tmp_path):
    for name, content, message in (
        ("a.parquet", b"no", "is not a Parquet file"),
        ("a.jsonl", b'{"prompt": "\xff"}', "is not text in UTF-8"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=message):
            load_pairs(tmp_path / name)
