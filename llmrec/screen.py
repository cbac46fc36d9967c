"""Where tables and sentences for people are printed."""

from __future__ import annotations

import os
from typing import Any

from rich.console import Console, ConsoleDimensions

ENDLESS = 10_000  # columns


def screen(**how: Any) -> Console:
    """Standard output.  A pipe or file has no width, so nothing is cut there unless COLUMNS names one; FORCE_COLOR
    brings colours there, and no width either."""
    console = Console(**how)
    if not console.file.isatty() and not os.environ.get("COLUMNS", "").isdigit():
        console.size = ConsoleDimensions(ENDLESS, console.height)  # of the width alone a dumb terminal takes no notice
    return console
