"""Each statistic answers to what it is named after, and pictures are read once."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from sfumato.diagnosis.pixels import STATISTICS, pixel_statistics, read_statistics
from tests.diagnosis import bed

RANDOM = np.random.default_rng(0)


def photo(size=64):
    """Something smooth and coloured."""
    coarse = Image.fromarray(RANDOM.integers(60, 190, (8, 8, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC))


def changed(pixels, change):
    before, after = (
        pixel_statistics(pixels),
        pixel_statistics(change(pixels.astype(float)).clip(0, 255).astype(np.uint8)),
    )
    return {name: after[name] - before[name] for name in STATISTICS}


@pytest.mark.parametrize(
    ("name", "sign", "change"),
    [
        ("saturation", 1, lambda x: x.mean(2, keepdims=True) + 2 * (x - x.mean(2, keepdims=True))),
        ("saturation", -1, lambda x: np.repeat(x.mean(2, keepdims=True), 3, axis=2)),
        ("tint", 1, lambda x: x + np.array([40, 0, 40])),
        ("warmth", 1, lambda x: x + np.array([40, 0, -40])),
        ("brightness", 1, lambda x: x + 40),
        ("contrast", 1, lambda x: 128 + 1.8 * (x - 128)),
        ("high_frequency", 1, lambda x: x + RANDOM.normal(0, 25, x.shape)),
        ("flat", 1, lambda x: np.where(np.indices(x.shape)[0] < 40, 100, x)),
        ("border", 1, lambda x: np.pad(x[2:-2, 2:-2], ((2, 2), (2, 2), (0, 0)), constant_values=255)),
        ("grid", 1, lambda x: x + 60 * (np.indices(x.shape)[:2] % 8 == 0).any(0)),
    ],
)  # fmt: skip
def test_a_statistic_follows_what_it_is_named_after(name, sign, change):
    assert sign * changed(photo(), change)[name] > 0.02


def test_the_values_of_pictures_that_are_known():
    red = pixel_statistics(np.broadcast_to(np.array([255, 0, 0], dtype=np.uint8), (16, 16, 3)))
    expected = {"saturation": 1, "tint": 0.5, "warmth": 1, "brightness": 0.2126, "contrast": 0, "flat": 1}
    assert {name: red[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert red["high_frequency"] == red["grid"] == red["border"] == 0
    x = np.arange(64)
    for cycles, high in ((2, 0.0), (20, 1.0)):  # a sine below and above an eighth of a cycle per pixel
        wave = np.repeat(
            np.broadcast_to(128 + 100 * np.sin(2 * np.pi * cycles * x / 64), (64, 64))[..., None], 3, axis=2
        )
        assert pixel_statistics(wave.astype(np.uint8))["high_frequency"] == pytest.approx(high, abs=0.02)


def test_noise_is_not_a_grid_and_blur_takes_frequencies_away():
    noise = RANDOM.integers(0, 255, (64, 64, 3), dtype=np.uint8)
    assert pixel_statistics(noise)["grid"] < 0.2
    tiled = np.tile(noise[:8, :8], (8, 8, 1))
    assert pixel_statistics(tiled)["grid"] > 0.7
    blurred = np.asarray(Image.fromarray(noise).filter(ImageFilter.GaussianBlur(4)))
    assert pixel_statistics(blurred)["high_frequency"] < pixel_statistics(noise)["high_frequency"] / 2


def test_small_and_odd_sizes():
    assert set(pixel_statistics(photo(9)[:, :8])) == set(STATISTICS)
    with pytest.raises(ValueError, match="8 x 7 pixels is too small"):
        pixel_statistics(photo(8)[:7])


def test_pictures_are_read_once_and_again_when_they_change(tmp_path, monkeypatch):
    run = bed.make_run(tmp_path / "run", prompts=2, images=2)
    rows = run.images()
    first = read_statistics(run.evaluation, rows)
    opened = []
    monkeypatch.setattr(
        "sfumato.diagnosis.pixels.Image.open", lambda path, real=Image.open: opened.append(path) or real(path)
    )
    assert read_statistics(run.evaluation, rows) == first and opened == []
    path = run.evaluation / rows[3]["file"]
    Image.new("L", (30, 30)).save(path)
    second = read_statistics(run.evaluation, rows)
    assert opened == [path] and second[3]["brightness"] == 0 and second[:3] == first[:3]


@pytest.mark.parametrize(
    ("damage", "message"), [("gone", "is gone: run"), ("broken", "cannot read the image .*: delete it")]
)
def test_pictures_that_cannot_be_read_are_named(tmp_path, damage, message):
    run = bed.make_run(tmp_path / "run", prompts=2, images=2)
    path = run.evaluation / run.images()[1]["file"]
    path.unlink() if damage == "gone" else path.write_bytes(b"no picture")
    with pytest.raises(ValueError, match=message):
        read_statistics(run.evaluation, run.images())
