"""The cache of features: content, concurrency, damage, many shards."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import sfumato.metrics.cache
from sfumato.metrics import FeatureCache, extract
from tests import forked
from tests.metrics.test_features import Counting, images

MANY = 8


@pytest.fixture(autouse=True)
def few_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sfumato.metrics.cache.MANY", MANY)


def test_the_cache_spares_known_images(tmp_path: Path) -> None:
    cache, batch = FeatureCache(tmp_path), images(6)
    first, second, other = Counting(), Counting(), Counting("another")
    expected = extract(first, batch[[0, 1, 1, 0, 2]], batch_size=2, cache=cache)
    assert first.seen == 3
    found = extract(second, batch[[5, 2, 1, 0]], batch_size=3, cache=cache)
    assert second.seen == 1
    assert torch.equal(found[1:], expected[[4, 1, 0]])
    extract(other, batch[:3], cache=cache)
    assert other.seen == 3
    again = Counting()
    assert torch.equal(extract(again, batch[[5, 2, 1, 0]], cache=FeatureCache(tmp_path)), found)  # from the disk
    assert again.seen == 0


def test_a_cache_sees_what_another_process_adds(tmp_path: Path) -> None:
    ours, theirs, extractor = FeatureCache(tmp_path), FeatureCache(tmp_path), Counting()
    extract(extractor, images(2), cache=ours)
    extract(extractor, images(4), cache=theirs)
    extract(extractor, images(4), cache=ours)
    assert extractor.seen == 4


def test_a_damaged_shard_is_measured_again(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    expected = extract(Counting(), images(4), batch_size=2, cache=cache)
    shard = next(tmp_path.rglob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-5])
    extractor = Counting()
    assert torch.equal(extract(extractor, images(4), batch_size=2, cache=FeatureCache(tmp_path)), expected)
    assert extractor.seen == 2
    extract(extractor, images(4), cache=FeatureCache(tmp_path))
    assert extractor.seen == 2


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    expected = extract(Counting(), images(4), cache=FeatureCache(tmp_path))
    shard = next(tmp_path.rglob("*.safetensors"))
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    extractor = Counting()
    assert torch.equal(extract(extractor, images(4), cache=FeatureCache(tmp_path)), expected)
    assert extractor.seen == 1


def test_a_shard_of_another_make_counts_as_absent(tmp_path: Path) -> None:
    folder = tmp_path / Counting().fingerprint
    folder.mkdir()
    save_file({"key": torch.ones(3)}, folder / "old.safetensors")
    (folder / "text.safetensors").write_text("not a shard")
    assert FeatureCache(tmp_path).find(folder.name, {"key"}) == {}


def test_many_small_shards_become_one_and_nothing_is_lost(tmp_path: Path) -> None:
    many = images(2 * MANY, 4)
    cache, extractor = FeatureCache(tmp_path), Counting()
    expected = extract(extractor, many, batch_size=1, cache=cache)
    other = FeatureCache(tmp_path)
    assert torch.equal(extract(extractor, many, cache=other), expected)
    assert torch.equal(extract(extractor, many, cache=cache), expected)  # what it knew of has been merged away
    assert extractor.seen == len(many)
    assert len(list(tmp_path.rglob("*.safetensors"))) <= MANY


def test_merging_keeps_what_it_could_not_read(tmp_path: Path) -> None:
    many = images(MANY + 1, 4)
    extract(Counting(), many, batch_size=1, cache=FeatureCache(tmp_path))
    shard = next(tmp_path.rglob("*.safetensors"))
    key = next(iter(load_file(shard)))
    content = shard.read_bytes()
    shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert len(FeatureCache(tmp_path).find(Counting().fingerprint, set())) == 0
    left = list(tmp_path.rglob("*.safetensors"))
    assert len(left) == 2
    assert shard in left
    shard.write_bytes(content)
    assert key in FeatureCache(tmp_path).find(Counting().fingerprint, {key})


def fill(folder: str, start: int) -> None:
    """One process: rows that the other writes too, in shards of its own, read back all the time."""
    sfumato.metrics.cache.MANY = MANY
    some = images(8 * MANY, 4)[start:].flip(0) if start else images(8 * MANY, 4)
    found = extract(Counting(), some, batch_size=2 + start, cache=FeatureCache(folder))
    assert torch.equal(found, some.mean(dim=(2, 3)))


def test_two_processes_write_and_merge_at_once(tmp_path: Path) -> None:
    log, folder = tmp_path / "log", tmp_path / "cache"
    forked.finish(*(forked.start(fill, str(folder), start, log=log) for start in (0, 1)), log=log)
    extractor, every = Counting(), images(8 * MANY, 4)
    assert torch.equal(extract(extractor, every, cache=FeatureCache(folder)), every.mean(dim=(2, 3)))
    assert extractor.seen == 0
    assert not list(folder.rglob(".*"))


class Broken(Counting):
    """Features that are not finite for dark images."""

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        return (batch.mean(dim=(2, 3)) - 0.1).log()


def test_features_that_are_not_finite_are_refused_and_not_cached(tmp_path: Path) -> None:
    batch = torch.cat([images(3), torch.zeros(1, 3, 40, 40)])
    with pytest.raises(ValueError, match="Broken gives features that are not finite in the batch from image 2 on"):
        extract(Broken(), batch, batch_size=2, cache=FeatureCache(tmp_path))
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1  # the first, sound batch
    with pytest.raises(ValueError, match="the images are not finite"):
        extract(Counting(), batch * torch.nan)
    with pytest.raises(ValueError, match="not one finite vector: they are not cached"):
        FeatureCache(tmp_path).write("other", {"key": torch.tensor([torch.inf])})
    with pytest.raises(ValueError, match="not one finite vector"):
        FeatureCache(tmp_path).write("other", {"key": torch.zeros(2, 2)})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_images_and_features_of_any_float_dtype(tmp_path: Path, dtype: torch.dtype) -> None:
    cache, extractor = FeatureCache(tmp_path), Counting()
    first = extract(extractor, images(2).to(dtype), cache=cache)
    assert first.dtype == torch.float32
    assert torch.equal(extract(extractor, images(2).to(dtype), cache=FeatureCache(tmp_path)), first)
    assert extractor.seen == 2
    extract(extractor, images(2), cache=cache)
    assert extractor.seen == 4  # other values, other images
