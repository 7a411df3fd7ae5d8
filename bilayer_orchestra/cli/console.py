"""Where tables and progress go."""

from __future__ import annotations

from rich.console import Console

#: Columns of a log, which wraps for itself.
LOG_WIDTH = 240


def output_console() -> Console:
    """Return standard output; tables in a log are not folded to a terminal's 80 columns."""
    console = Console()
    if not console.is_terminal:
        console.width = LOG_WIDTH
    return console
