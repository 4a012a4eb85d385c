"""What a run showed: plain-text tables and one self-contained HTML page.

Names are loaded on first use, so that importing this package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adhere.reporting.changes import changes_table
    from adhere.reporting.report import render_report, write_report
    from adhere.reporting.table_texts import to_markdown, to_rich
    from adhere.reporting.tables import Table, summary_table
    from adhere.reporting.withheld import headline

_HOMES = {
    "headline": "withheld",
    "Table": "tables",
    "changes_table": "changes",
    "summary_table": "tables",
    "to_markdown": "table_texts",
    "to_rich": "table_texts",
    "render_report": "report",
    "write_report": "report",
}

__all__ = [
    "Table",
    "changes_table",
    "headline",
    "render_report",
    "summary_table",
    "to_markdown",
    "to_rich",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"adhere.reporting.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
