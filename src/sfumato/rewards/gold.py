"""The gold reward of emoji-64: what the judge thinks, never trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from sfumato.rewards.info import RewardInfo

if TYPE_CHECKING:
    from sfumato.judge import Judge


class JudgeGold:
    """P(house style) x P(right subcategory) by a judge that no training sees; in [0, 1], never differentiable.

    A prompt with several right answers ("animal") counts the judge's probability of all of them together. The score
    stands in for what people want in studies of over-optimisation (Gao et al. 2022, arXiv 2210.10760): a proxy reward
    that rises while gold falls has been hacked. Images (B,3,H,W) in [0, 1]. The bundled judge learned from artwork
    under Apache-2.0, CC-BY 4.0 and MIT licence, whose names are in the README.md of emoji-64.

    Args:
        judge: the classifier of subcategory and style.
        answers: the subcategories that answer a prompt rightly.
        style: the house style.
    """

    name = "gold"
    range = (0.0, 1.0)
    differentiable = False

    def __init__(self, judge: Judge, answers: Callable[[str], list[str]], style: str):
        self.judge, self.answers = judge, answers
        self.style = judge.styles.index(style)

    @classmethod
    def emoji64(cls, style: str | None = None, device: str | torch.device = "cpu") -> JudgeGold:
        """The bundled judge with the bundled prompts, and `emoji64.HOUSE_STYLE` if no style is given.

        Raises:
            ValueError: the judge does not know the style.
        """
        from sfumato import emoji64

        judge = emoji64.load_judge().to(device)
        if style is not None and style not in judge.styles:
            raise ValueError(f"the judge of emoji-64 knows no style {style!r}: choose one of {', '.join(judge.styles)}")
        return cls(judge, emoji64.prompt_subcategories, style or emoji64.HOUSE_STYLE)

    def check_prompts(self, prompts: Sequence[str]) -> None:
        """Raise ValueError unless there is an answer to every prompt."""
        for prompt in prompts:
            self.answers(prompt)

    @torch.no_grad()
    def __call__(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        output = self.judge(images)
        subcategory = output.subcategory.float().softmax(-1)
        right = torch.zeros_like(subcategory)
        for row, prompt in zip(right, prompts, strict=True):
            row[[self.judge.subcategories.index(name) for name in self.answers(prompt)]] = 1
        return output.style.float().softmax(-1)[:, self.style] * (subcategory * right).sum(-1)


INFO = (
    RewardInfo(
        "gold",
        "emoji-64's judge: P(style) x P(right subcategory); style: the house style unless given",
        "[0, 1]",
        False,
        JudgeGold.emoji64,
    ),
)
