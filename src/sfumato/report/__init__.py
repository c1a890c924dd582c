"""A run folder as something to look at: one self-contained HTML page, and the frontier as a still picture.

Reads the files of a run only and loads no model, so it works on any machine that the folder was copied to.
`build` makes the page: `data` reads the run, `page` brings it into the page's form, `story` finds the sentences,
`choice` the point to use, `collapse` the prompts that suffered, `repeats` the near-duplicates; `images` packs the
pictures, `figure` draws the SVG, `vocabulary` names the figures. The page itself is in web/: template.html, a file of
HTML and one of JavaScript for each part, the style sheets.
"""

from sfumato.report.build import write_report
from sfumato.report.figure import frontier_svg

__all__ = ["frontier_svg", "write_report"]
