"""Where tables go."""

from __future__ import annotations

from rich.console import Console


def wide_console() -> Console:
    """Standard output; as wide as a table needs where it is no terminal (a file, a log)."""
    out = Console()
    return out if out.is_terminal else Console(width=100)
