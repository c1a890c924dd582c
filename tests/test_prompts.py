"""Prompt sets: every kind of file, sets by name, data sets of the hub, and what is said of bad ones."""

import json
import subprocess
import sys

import huggingface_hub
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfumato.config import load_recipe, read_prompts
from sfumato.config.prompt_sets import PARQUET, SETS
from sfumato.config.prompts import Source

WANTED = ["a cat", "a dög, red", "a bus"]


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return str(path)


def parquet(path, **columns):
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(arrow.table(columns), path)
    return str(path)


def files(folder):
    lines = [{"id": i, "Prompt": prompt} for i, prompt in enumerate(WANTED)]
    return {
        "text": write(folder / "a.txt", "a cat\n\n  a dög, red \na bus\n"),
        "JSON lines": write(folder / "a.jsonl", "".join(json.dumps(line) + "\n" for line in lines)),
        "JSON lines of texts": write(folder / "b.jsonl", "".join(json.dumps(prompt) + "\n" for prompt in WANTED)),
        "JSON": write(folder / "a.json", json.dumps(WANTED)),
        "JSON objects": write(folder / "b.JSON", json.dumps(lines)),
        "commas": write(folder / "a.csv", '\ufeffid,Caption,other\n1,a cat,x\n2,"a dög, red",\n3,a bus,y\n'),
        "tabs": write(folder / "a.tsv", "Prompt\tCategory\na cat\tAnimals\na dög, red\tAnimals\na bus\tVehicles\n"),
        "Parquet": parquet(folder / "a.parquet", image=[1, 2, 3], text=WANTED),
    }


def test_every_kind_of_file_gives_the_same_prompts(tmp_path):
    for kind, path in files(tmp_path).items():
        assert read_prompts(path) == WANTED, kind
        assert read_prompts({"dataset": path}) == WANTED, kind


def test_a_column_is_named_after_the_file(tmp_path):
    path = write(tmp_path / "a.csv", "prompt,negative\na cat,blurry\na bus,dark\n")
    assert read_prompts(path) == ["a cat", "a bus"]
    assert (
        read_prompts(f"{path}:negative") == read_prompts({"dataset": path, "column": "negative"}) == ["blurry", "dark"]
    )
    odd = write(tmp_path / "odd:name.txt", "a cat\n")
    assert read_prompts(odd) == ["a cat"]


def test_repeated_prompts_are_left_out_and_said_and_the_order_stays(tmp_path, caplog):
    path = write(tmp_path / "a.txt", "b\na\n b\n\nc\na\n")
    assert read_prompts(path) == ["b", "a", "c"]
    assert caplog.messages == [f"{path}: left out 2 repeated of 5 prompts"]
    assert read_prompts(["b", "a", "b"]) == ["b", "a", "b"]  # a list by hand means what it says


def test_missing_values_are_blank(tmp_path):
    assert read_prompts(parquet(tmp_path / "a.parquet", prompt=["a", None, " ", "b"])) == ["a", "b"]
    assert read_prompts(write(tmp_path / "a.jsonl", '{"prompt": "a"}\n{"other": 1}\n\n{"prompt": "b"}\n')) == ["a", "b"]


@given(limit=st.integers(1, 40), seed=st.integers(0, 5))
def test_a_limit_takes_the_first_or_a_seeded_draw_in_order(limit, seed):
    every = read_prompts("general-train")
    first, drawn, again = (
        read_prompts({"dataset": "general-train", "limit": limit, **more})
        for more in ({}, {"seed": seed}, {"seed": seed})
    )
    assert first == every[:limit]
    assert drawn == again == [prompt for prompt in every if prompt in drawn] and len(drawn) == limit


def test_draws_differ_by_seed():
    drawn = {tuple(read_prompts({"dataset": "general", "limit": 10, "seed": seed})) for seed in range(5)}
    assert len(drawn) == 5


def test_bundled_sets_are_clean_and_apart():
    sets = {name: read_prompts(name) for name, entry in SETS.items() if entry.dataset is None}
    assert {name: len(prompts) for name, prompts in sets.items()} == {
        "general": 100, "general-train": 48, "general-test": 16, "unrelated": 24,
    }  # fmt: skip
    every = [prompt for prompts in sets.values() for prompt in prompts]
    assert len(set(every)) == len(every)
    assert read_prompts("general-train.txt") == sets["general-train"]


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub that holds three sets by name and one data set in Parquet, and counts what is asked of it."""
    root, asked = tmp_path / "hub", []
    write_set = {
        "nateraw/parti-prompts": {"PartiPrompts.tsv": "Prompt\tCategory\nbond\tAbstract\na bench\tWorld\n"},
        "zhwang/HPDv2": {
            f"benchmark/{s}.json": json.dumps([f"a {s}"]) for s in ("anime", "concept-art", "paintings", "photo")
        },
    }
    for dataset, own in write_set.items():
        for name, text in own.items():
            (root / dataset / name).parent.mkdir(parents=True, exist_ok=True)
            write(root / dataset / name, text)
    pick = SETS["pick-a-pic"]
    parquet(root / pick.dataset / pick.paths[0], caption=["a fox", "a fox", "a sea"], url=["x", "y", "z"])
    for place, prompts in {
        "default/train/0000": ["a", "b"],
        "default/train/0001": ["c"],
        "default/test/0000": ["d"],
        "other/train/0000": ["e"],
    }.items():
        parquet(root / "me" / "mine" / f"{place}.parquet", words=prompts, text=prompts)

    def download(dataset, name, repo_type, revision):
        asked.append((dataset, name, revision))
        assert repo_type == "dataset"
        return str(root / dataset / name)

    def list_files(self, dataset, repo_type, revision):
        if not (root / dataset).is_dir():
            raise ConnectionError(f"404: no data set {dataset}\nmore")
        return [path.relative_to(root / dataset).as_posix() for path in (root / dataset).rglob("*.*")]

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", list_files)
    return asked


def test_benchmarks_are_known_by_name(hub):
    assert read_prompts("parti-prompts") == ["bond", "a bench"]
    assert read_prompts({"dataset": "parti-prompts", "column": "Category"}) == ["Abstract", "World"]
    assert read_prompts("hpdv2") == ["a anime", "a concept-art", "a paintings", "a photo"]
    assert read_prompts("pick-a-pic") == ["a fox", "a sea"]
    assert {revision for *_, revision in hub} == {None}


def test_any_data_set_of_the_hub_by_split_and_column(hub):
    assert read_prompts({"dataset": "me/mine", "split": "train"}) == ["a", "b", "c"]
    assert hub == [("me/mine", f"default/train/{n}.parquet", PARQUET) for n in ("0000", "0001")]
    assert read_prompts({"dataset": "hub:me/mine", "split": "test", "column": "words"}) == ["d"]
    assert read_prompts({"dataset": "me/mine", "config": "other"}) == ["e"]
    assert Source.parse("hub:me/mine:words") == Source("hub:me/mine", column="words")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"dataset": "me/mine"}, "me/mine has several splits: say which one of test, train"),
        ({"dataset": "me/mine", "config": "x"}, "has no configuration 'x': choose one of default, other"),
        ({"dataset": "me/mine", "split": "x"}, "has no split 'x': choose one of test, train"),
        ({"dataset": "me/mine", "split": "test", "column": "x"}, "no column 'x'; its columns are 'words', 'text'"),
        ("hub:me/none", r"cannot read data set me/none from the hub \(404: no data set me/none\): check its name"),
        ("hub:nateraw/parti-prompts", "has no files in Parquet on the hub: download it"),
    ],
)
def test_what_the_hub_has_not_is_said(hub, value, message):
    with pytest.raises(ValueError, match=message):
        read_prompts(value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", " \n\n", "a.txt is empty: give at least one prompt"),
        ("a.jsonl", "", "a.jsonl is empty"),
        ("a.csv", "", r"a.csv has no column named prompt, caption, text: say .*; its columns are \(none\)"),
        ("a.csv", "a,b\n1,2\n", "no column named prompt, caption, text: say which one with FILE:COLUMN; .* 'a', 'b'"),
        ("a.csv", "prompt\n", "a.csv is empty"),
        ("a.jsonl", '{"prompt": "a"}\n\n{"prompt": b}\n', "line 3 of .*a.jsonl is not JSON: Expecting value"),
        ("a.jsonl", '{"prompt": "a"}\n{"prompt": 5}\n', "line 2 of .*a.jsonl holds 5, which is not text"),
        ("a.jsonl", '"a"\n["b"]\n', r"line 2 of .*a.jsonl holds \['b'\], which is not text"),
        ("a.json", '{"prompt": "a"}', "a.json must hold a list of texts or of objects, not dict"),
        ("a.json", '["a",\n"b"', "line 2 of .*a.json is not JSON"),
        ("a.parquet", "no table", "a.parquet is not a Parquet file"),
    ],
)
def test_bad_files_are_refused_in_one_message(tmp_path, name, text, message):
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow")
    with pytest.raises(ValueError, match=message):
        read_prompts(write(tmp_path / name, text))


def test_other_bad_values_are_refused(tmp_path):
    (tmp_path / "latin.txt").write_bytes("café".encode("latin-1"))
    text = write(tmp_path / "a.txt", "a\n")
    for value, message in [
        (str(tmp_path / "latin.txt"), "latin.txt is not text in UTF-8"),
        ({"dataset": text, "column": "x"}, "is plain text, which has no column 'x'"),
        ({"dataset": text, "split": "train"}, "config and split belong to data sets of the hub"),
        ({"dataset": text, "limits": 3}, "unknown key 'limits' of a prompt set: known are dataset, config"),
        ({"dataset": text, "limit": "3"}, "limit of a prompt set must be a whole number, not '3'"),
        ({"dataset": text, "limit": True}, "limit of a prompt set must be a whole number, not True"),
        ({"dataset": text, "limit": 0}, "at least 1, not 0"),
        ({"limit": 3}, "needs the key dataset"),
        ("nothing.csv", "there is no prompt file 'nothing.csv': give a file .* or one of general"),
        (5, "prompts are a list of texts, a file, or the name of a set, not 5"),
    ]:
        with pytest.raises(ValueError, match=message):
            read_prompts(value)


def test_a_missing_parquet_reader_is_named_with_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"pip install 'sfumato\[data\]'"):
        read_prompts(write(tmp_path / "a.parquet", "x"))


def test_a_recipe_takes_any_set_and_holds_the_prompts_themselves(tmp_path):
    recipe = load_recipe("emoji64-draft", ["prompts={dataset: general, limit: 3, seed: 1}"])
    assert recipe.resolved()["prompts"] == recipe.prompts == read_prompts({"dataset": "general", "limit": 3, "seed": 1})


def test_sets_are_listed_and_shown(sfumato, tmp_path):
    outcome = sfumato("prompts", "list")
    assert outcome.code == 0 and all(name in outcome.out for name in SETS) and "licence: Apache-2.0" in outcome.out
    shown = sfumato("prompts", "show", "general", "--limit", 3, "--seed", 2)
    assert shown.out.splitlines() == read_prompts({"dataset": "general", "limit": 3, "seed": 2})
    assert "at least 1, not 0" in sfumato("prompts", "show", "general", "--limit", 0).err
    assert sfumato("prompts", "show", "nothing").code == 1


def test_reading_prompts_loads_nothing_heavy():
    program = "import sys, sfumato.config; print({'pyarrow', 'huggingface_hub', 'torch'} & sys.modules.keys())"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "set()\n"
