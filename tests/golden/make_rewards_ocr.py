"""Make rewards_ocr.json: what Flow-GRPO's own code scores when it reads given lines.

In an environment of its own: `pip install levenshtein==0.27.5 numpy pillow torch`, the source of yifan123/flow_grpo at
commit ac4c86e8cae021841f1fde853d340e0db67690dd on PYTHONPATH, then `python -m tests.golden.make_rewards_ocr`. Its OCR
package is replaced by one that reads what it is told, so that the formula alone is compared.
"""

import hashlib
import importlib.util
import json
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType

import numpy as np

COMMIT = "ac4c86e8cae021841f1fde853d340e0db67690dd"
CASES = [
    ('a sign that says "Open"', ["Open"]),
    ('a sign that says "Open"', ["OPEN DAILY"]),
    ('a sign that says "Open"', ["0pen"]),
    ('a sign that says "Open"', []),
    ('a sign that says "Open"', ["nothing of the kind, but a great many letters"]),
    ('"New York" by night', ["New", "York"]),
    ('"New York" by night', ["N e w", "Yolk!"]),
    ('"Hello World" over "Good bye"', ["Good bye"]),
    ('a cake with "Happy 40th Birthday, Zoë!"', ["Hapy 4Oth", "Birthdey Zoe"]),
    ('a board with "kitten"', ["sitting"]),
]


class Scripted:
    """What the reference takes for PaddleOCR: reads the lines of the case whose number the picture holds."""

    def __init__(self, **options: object):
        pass

    def ocr(self, image: np.ndarray, cls: bool) -> list:
        lines = CASES[int(image[0, 0, 0])][1]
        return [[[None, (line, 0.9)] for line in lines] or None]


def main() -> None:
    paddle = ModuleType("paddleocr")
    paddle.PaddleOCR = Scripted
    sys.modules["paddleocr"] = paddle
    source = Path(importlib.util.find_spec("flow_grpo.ocr").origin)
    from flow_grpo.ocr import OcrScorer

    images = [np.full((1, 1, 3), number, dtype=np.uint8) for number in range(len(CASES))]
    scores = OcrScorer()(images, [prompt for prompt, _ in CASES])
    found = {
        "commit": COMMIT,
        "sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        "levenshtein": metadata.version("levenshtein"),
        "cases": [
            {"prompt": prompt, "lines": lines, "score": score}
            for (prompt, lines), score in zip(CASES, scores, strict=True)
        ],
    }
    text = json.dumps(found, indent=1, ensure_ascii=False) + "\n"
    Path(__file__).with_name("rewards_ocr.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
