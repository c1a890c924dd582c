"""The command line: a file per group of commands, all of them registered on the application in `shared`."""

from sfumato.cli import runs, schedules, pictures, convert  # noqa: I001  their order is that of the help
from sfumato.cli.shared import main

__all__ = ["convert", "main", "pictures", "runs", "schedules"]
