"""What the votes of a study say: who was preferred, how surely, whom not to believe, and which measure saw it coming.

`votes` turns votes into numbered clusters and comparisons. `proportions` are win rates and tests, `clusters` the errors
of what raters and prompts share, `logit` fits Bradley-Terry, Davidson and Plackett-Luce, `strengths` puts intervals
around them. `agreement` is Krippendorff's alpha; `effects` are raters, prompts and places on the page; `ratings` means.
`automatic` reads the measures of run folders and `predict` sets them beside people. `analyse` does all of it for a
study, `write` writes JSON and CSV, `page` with `charts` the report.

Numbers only: no model is loaded and no database is needed, votes come as rows of `sfumato.study.export`.
"""

from sfumato.study.analysis.analyse import analyse_study
from sfumato.study.analysis.votes import is_simulated
from sfumato.study.analysis.write import write_analysis

__all__ = ["analyse_study", "is_simulated", "write_analysis"]
