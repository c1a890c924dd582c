"""`sfumato convert-weights`."""

import torch

from sfumato.metrics import LPIPSFeatures
from tests.golden import seeded


def test_it_writes_what_an_extractor_loads(tmp_path, sfumato):
    trunk, linear = seeded.lpips("alex")
    torch.save(trunk, tmp_path / "trunk.pth")
    torch.save(linear, tmp_path / "linear.pth")
    out = tmp_path / "lpips.safetensors"
    outcome = sfumato("convert-weights", "lpips", tmp_path / "trunk.pth", tmp_path / "linear.pth", out)
    assert outcome.code == 0
    assert outcome.out.split() == [str(out)]
    assert LPIPSFeatures(out)(torch.rand(1, 3, 64, 64)).shape[0] == 1


def test_it_says_what_it_wants(tmp_path, sfumato):
    outcome = sfumato("convert-weights", "clip", tmp_path / "a.pth", tmp_path / "b.safetensors")
    assert outcome.code == 1
    assert "choose one of inception, lpips, dreamsim" in outcome.err
    outcome = sfumato("convert-weights", "inception", tmp_path / "a.pth", tmp_path / "b.safetensors")
    assert outcome.code == 1
    assert "a.pth" in outcome.err
