"""What trackers get of a look: numbers, and the contact sheet in the form that each of them takes."""

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image

from sfumato.images import save_png
from sfumato.training.trackers import track

SHEET = torch.linspace(0, 1, 3 * 4 * 6).reshape(3, 4, 6)


class Gallery:
    """A tracker that takes pictures."""

    def __init__(self, name):
        self.name, self.numbers, self.pictures = name, [], []

    def log(self, values, step, **_):
        self.numbers.append((step, values))

    def log_images(self, values, step):
        self.pictures.append((step, values))


class Notes:
    """A tracker that does not."""

    name = "notes"

    def __init__(self):
        self.numbers = []

    def log(self, values, step, **_):
        self.numbers.append((step, values))


def tracked(folder, record, *trackers):
    accelerator = Accelerator(cpu=True)
    accelerator.trackers = list(trackers)
    track(accelerator, record, folder)


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "aim"])
def test_the_sheet_arrives_in_the_form_of_the_tracker(name, tmp_path):
    save_png(SHEET, tmp_path / "monitor" / "000002.png")
    gallery, notes = Gallery(name), Notes()
    record = {
        "update": 2,
        "eval/gold": 0.5,
        "eval/image": "monitor/000002.png",
        "eval/scores": {"gold": {"red": [0.5]}},
    }
    tracked(tmp_path, record, gallery, notes)
    assert gallery.numbers == notes.numbers == [(2, {"update": 2, "eval/gold": 0.5})]
    ((step, values),) = gallery.pictures
    found = values["eval/image"]
    pixels = (SHEET * 255).round().to(torch.uint8).numpy()
    assert step == 2
    if name == "tensorboard":
        assert np.array_equal(found, pixels[None])
    else:
        (picture,) = [found] if name == "aim" else found
        assert isinstance(picture, Image.Image)
        assert np.array_equal(np.asarray(picture), pixels.transpose(1, 2, 0))


def test_an_update_without_a_look_has_no_sheet(tmp_path):
    gallery = Gallery("wandb")
    tracked(tmp_path, {"update": 1, "loss": 2.0}, gallery)
    assert gallery.numbers == [(1, {"update": 1, "loss": 2.0})] and gallery.pictures == []
