"""A pipeline that stays where it is looks its device up once."""

from __future__ import annotations

import pytest
import torch

from sfumato.pipelines.device import staying
from tests import tiny


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_images_are_the_same(family):
    pipe = tiny.pipeline(family)
    wanted = tiny.images(pipe, [1, 2], **tiny.call(family))
    with staying(pipe):
        assert torch.equal(tiny.images(pipe, [1, 2], **tiny.call(family)), wanted)


def test_modules_are_gone_through_once(monkeypatch):
    pipe = tiny.pipeline("sd")
    looks = []
    own = type(pipe)._execution_device.fget
    monkeypatch.setattr(type(pipe), "_execution_device", property(lambda self: looks.append(1) or own(self)))
    with staying(pipe):
        tiny.images(pipe, [1, 2], **tiny.call("sd"))
        tiny.images(pipe, [1, 2], **tiny.call("sd"))
    assert len(looks) == 1
    tiny.images(pipe, [1, 2], **tiny.call("sd"))
    assert len(looks) > 1


def test_a_pipeline_keeps_its_name_and_can_be_saved(tmp_path):
    pipe = tiny.pipeline("sd")
    cls = type(pipe)
    with pytest.raises(KeyboardInterrupt), staying(pipe):
        assert isinstance(pipe, cls) and repr(type(pipe)) == repr(cls)
        assert pipe.device == pipe._execution_device == torch.device("cpu")
        pipe.save_pretrained(tmp_path)
        raise KeyboardInterrupt
    assert type(pipe) is cls
    assert type(cls.from_pretrained(tmp_path, safety_checker=None)) is cls
