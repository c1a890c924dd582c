"""The command line: a file per group of commands, all of them registered on the application in `shared`."""

from sfumato.cli import runs, schedules, frontier, diagnose, power, pictures, convert  # noqa: I001  their order is that of the help
from sfumato.cli.shared import main

__all__ = ["convert", "diagnose", "frontier", "main", "pictures", "power", "runs", "schedules"]
