"""The command line: a file per group of commands, all of them registered on the application in `shared`.

The order of the imports is that of the help.
"""

# isort: off
from sfumato.cli import runs
from sfumato.cli import schedules
from sfumato.cli import frontier
from sfumato.cli import diagnose
from sfumato.cli import power
from sfumato.cli import pictures
from sfumato.cli import prompts
from sfumato.cli import rewards
from sfumato.cli import preference
from sfumato.cli import study
from sfumato.cli import study_analysis
from sfumato.cli import convert
from sfumato.cli.shared import main

__all__ = [
    "convert",
    "diagnose",
    "frontier",
    "main",
    "pictures",
    "power",
    "preference",
    "prompts",
    "rewards",
    "runs",
    "schedules",
    "study",
    "study_analysis",
]
