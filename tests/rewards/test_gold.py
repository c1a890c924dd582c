import pytest
import torch

from sfumato.judge import Judge
from sfumato.rewards import JudgeGold, score

ANSWERS = {"apple": ["fruit"], "food": ["fruit", "meal"]}


@pytest.fixture
def judge():
    torch.manual_seed(0)
    return Judge(["face", "fruit", "meal"], ["noto", "fluent"], width=8).eval()


def test_gold_is_style_times_all_right_subcategories(judge):
    images = torch.rand(2, 3, 64, 64)
    gold = JudgeGold(judge, ANSWERS.__getitem__, "fluent")
    output = judge(images)
    style, subcategory = output.style.softmax(-1), output.subcategory.softmax(-1)
    expected = style[:, 1] * torch.stack([subcategory[0, 1], subcategory[1, 1] + subcategory[1, 2]])
    torch.testing.assert_close(score(gold, images, ["apple", "food"]), expected.detach())


def test_gold_is_never_differentiable(judge):
    images = torch.rand(1, 3, 64, 64, requires_grad=True)
    gold = JudgeGold(judge, ANSWERS.__getitem__, "fluent")
    assert not gold.differentiable and not score(gold, images, ["food"]).requires_grad


def test_gold_judges_the_images_of_a_pipeline_in_half_precision(judge):
    images = torch.rand(1, 3, 64, 64).bfloat16()
    gold = JudgeGold(judge, ANSWERS.__getitem__, "fluent")
    torch.testing.assert_close(score(gold, images, ["food"]), score(gold, images.float(), ["food"]))
