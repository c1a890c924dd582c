import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from sfumato.rewards import OCRAccuracy, build_reward, score
from sfumato.rewards.ocr import accuracy

GOLDEN = Path(__file__).parents[1] / "golden" / "rewards_ocr.json"
INSTALLED = all(importlib.util.find_spec(name) for name in ("rapidocr", "onnxruntime"))


def picture(text: str, size: int = 32, side: int = 256) -> torch.Tensor:
    """Black letters on white, (3,side,side) in [0, 1]."""
    image = Image.new("RGB", (side, side), "white")
    ImageDraw.Draw(image).text((side // 2, side // 2), text, fill="black", font_size=size, anchor="mm")
    return torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255


def test_the_score_is_flow_grpos_on_what_was_read():
    cases = json.loads(GOLDEN.read_text(encoding="utf-8"))["cases"]
    lines = iter([case["lines"] for case in cases])
    reward = OCRAccuracy(read=lambda image: next(lines))
    scores = score(reward, torch.rand(len(cases), 3, 4, 4), [case["prompt"] for case in cases])
    torch.testing.assert_close(scores, torch.tensor([case["score"] for case in cases]), rtol=1e-6, atol=0)
    assert len(set(scores.tolist())) > 4


def test_every_image_is_read_as_its_own_8_bit_picture():
    seen = []
    images = torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1, 1).expand(3, 3, 5, 7)
    OCRAccuracy(read=lambda image: seen.append(image) or ["a"])(images, ['"a"'] * 3)
    assert [(image.size, image.mode, image.getpixel((0, 0))[0]) for image in seen] == [
        ((7, 5), "RGB", value) for value in (0, 128, 255)
    ]


@pytest.mark.parametrize(
    "prompt", ["a shop sign", 'a shop sign that says "', 'a shop sign that says " "', "the sign's"]
)
def test_a_prompt_without_quoted_text_is_refused(prompt):
    reward = OCRAccuracy(read=lambda image: [])
    reward.check_prompts(['say "yes"', "say “yes”"])
    with pytest.raises(ValueError, match="needs a text in double quotes in every prompt") as refusal:
        reward.check_prompts(['say "yes"', prompt])
    assert repr(prompt) in str(refusal.value)


def test_curly_quotes_are_quotes():
    reward = OCRAccuracy(read=lambda image: ["yes"])
    assert reward(torch.zeros(2, 3, 4, 4), ["say “yes”", 'say "no"']).tolist() == [1, 0]


def test_the_distance_counts_insertions_deletions_and_replacements():
    assert accuracy("abcde", "abXde") == accuracy("abcde", "abde") == pytest.approx(0.8)
    assert accuracy("abcde", "abccde") == pytest.approx(0.8)
    assert accuracy("abcde", "edcba") == pytest.approx(1 - 4 / 5)


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "rapidocr", None)
    with pytest.raises(ImportError, match=r"pip install 'sfumato\[ocr\]'"):
        build_reward("ocr")


@pytest.mark.skipif(not INSTALLED, reason="needs sfumato[ocr]")
def test_drawn_letters_are_read():
    images = torch.stack([picture("Open"), picture("Spring\nSale"), picture("0pem"), torch.ones(3, 256, 256)])
    prompts = ['a sign "Open"', 'a poster "Spring Sale"', 'a sign "Open"', 'a sign "Open"']
    right, poster, misspelt, empty = score(build_reward("ocr"), images, prompts).tolist()
    assert right == poster == 1
    assert empty == 0 < misspelt < 1
