"""A run folder as something to look at: one self-contained HTML page, and the frontier as a still picture.

Reads the files of a run only and loads no model, so it works on any machine that the folder was copied to.
`build` makes the page, `data` brings the run into the page's form, `story` finds the sentences, `images` packs the
pictures, `figure` draws the SVG, `vocabulary` names the figures; the page itself is template.html, the style sheets and
the scripts beside it.
"""

from sfumato.report.build import write_report
from sfumato.report.figure import frontier_svg

__all__ = ["frontier_svg", "write_report"]
