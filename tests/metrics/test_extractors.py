"""`build_extractor`: an extractor from a text."""

import pytest
import torch

from sfumato.judge import Judge
from sfumato.metrics import JudgeFeatures, build_extractor, extract


def test_the_judge_is_bundled() -> None:
    extractor = build_extractor("judge")
    assert isinstance(extractor, JudgeFeatures)
    assert extractor.distance == "cosine"
    assert extract(extractor, torch.rand(2, 3, 64, 64)).shape[0] == 2


def test_judge_features_feed_its_heads() -> None:
    torch.manual_seed(0)
    images = torch.rand(5, 3, 64, 64)
    judge = Judge(["fruit", "face"], ["noto", "fluent"], width=8).eval()
    features = extract(JudgeFeatures(judge), images, batch_size=2)
    assert features.shape == (5, 64)
    with torch.no_grad():
        torch.testing.assert_close(judge.style_head(features), judge(images).style)


@pytest.mark.parametrize("spec", ["", "dino", "judge:x", "inceptoin:weights.safetensors", "lpips", "inception:"])
def test_a_wrong_text_is_answered_with_what_there_is(spec: str) -> None:
    with pytest.raises(ValueError, match=r"there are no features .*judge.*sfumato\[features\].*inception:FILE, lpips:"):
        build_extractor(spec)
