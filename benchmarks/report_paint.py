"""How soon the report of a large evaluation can be seen and used, opened from disk in a headless Chromium.

    .venv/bin/python benchmarks/report_paint.py                       # both sizes, about two minutes
    .venv/bin/python benchmarks/report_paint.py --sizes 13x12x12      # points x prompts x images

The run is made up, with pictures about as detailed as emoji-64's. Every opening is in a new browser. Times count from
the start of navigation: the first paint, the frontier drawn and ready to be clicked, every part built; and the longest
stretch in which the page could not answer. Needs chromium and chromedriver: `.ci/install-packages`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.report import synthetic
from tests.report.conftest import find_browser, start_browser

from sfumato.report import write_report
from sfumato.runs import Run

SIZES = ("14x12x32", "23x24x32")
WATCH = """
const seen = (name) => { window.times = { [name]: performance.now(), ...window.times }; };
const look = () => {
  if (document.querySelector("#frontier .mark") && !window.times?.frontier) seen("frontier");
  const main = document.querySelector("main");
  if (window.times?.frontier && !main.hasAttribute("aria-busy") && !window.times.complete) seen("complete");
};
new MutationObserver(look).observe(document, { childList: true, subtree: true, attributes: true });
window.longest = 0;
new PerformanceObserver((list) => {
  for (const { duration } of list.getEntries()) window.longest = Math.max(window.longest, duration);
}).observe({ type: "longtask", buffered: true });
"""
READ = """
const paint = performance.getEntriesByName("first-contentful-paint")[0]?.startTime;
return paint && window.times?.complete ? [paint, window.times.frontier, window.times.complete, window.longest] : null;
"""
NAMES = ("first contentful paint", "frontier interactive", "all parts built", "longest task")


def picture(point: str, prompt: str, seed: int) -> tuple[Image.Image, str]:
    """A disc on white with smooth detail, which packs to about what emoji-64's pictures do."""
    dice = np.random.default_rng([seed, *point.encode(), *prompt.encode()])
    detail = Image.fromarray(dice.integers(0, 255, (12, 12, 3), dtype=np.uint8)).resize(
        (64, 64), Image.Resampling.BICUBIC
    )
    return Image.composite(detail, Image.new("RGB", (64, 64), "white"), _disc()), synthetic.STYLES[seed % 3]


def _disc() -> Image.Image:
    y, x = np.mgrid[:64, :64] - 31.5
    return Image.fromarray(np.uint8(255 * (x**2 + y**2 < 28**2)))


def points(count: int) -> list[tuple]:
    """Base, tuned and `count` - 2 between them, of the methods in turn."""
    between = [
        (
            f"point-{i}",
            f"point {i}",
            synthetic.METHODS[i % 6],
            -3 + 9 * i / count,
            4.5 - 3 * (i / count) ** 2,
            20 + i % 5,
            {},
        )
        for i in range(1, count - 1)
    ]
    return [*synthetic.POINTS[:2], *between]


def open_page(page: Path) -> list[float]:
    """Milliseconds of `NAMES`, in a browser of its own."""
    with tempfile.TemporaryDirectory() as profile:
        browser = start_browser(Path(profile))
        try:
            browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": WATCH})
            browser.get(page.as_uri())
            while (times := browser.execute_script(READ)) is None:
                time.sleep(0.1)
            return times
        finally:
            browser.quit()


def measure(size: str, folder: Path, repeats: int) -> None:
    """Make the run, write its report, open it and print what was seen."""
    count, prompts, images = map(int, size.split("x"))
    names = [f"prompt number {i}" for i in range(prompts)]
    run = synthetic.make_run(folder / size, names, list(range(1000, 1000 + images)), picture, points(count))
    start = time.perf_counter()
    page = write_report(Run.load(run.path))
    seconds = time.perf_counter() - start
    total = count * prompts * images
    print(f"{size}: {total:,} images, written in {seconds:.1f} s, {page.stat().st_size / 1e6:.1f} MB")
    times = zip(*(open_page(page) for _ in range(repeats)), strict=True)
    for name, values in zip(NAMES, times, strict=True):
        print(f"  {name}: median {median(values):.0f} ms, worst of {repeats} {max(values):.0f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=SIZES, help="points x prompts x images")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    find_browser({"CI": "true"})
    with tempfile.TemporaryDirectory() as folder:
        for size in arguments.sizes:
            measure(size, Path(folder), arguments.repeats)


if __name__ == "__main__":
    main()
