"""The table of marks: what a judge said of a rule on a response, kept by what decided it.

The key covers the response, the text of the rule and the judge (see `judging/model_judge.py`), so
an edited spec asks only about the rules that changed.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

from adhere.chat import Mark, RuleMark
from adhere.records.database import open_database, open_earlier, writing

SCHEMA = """
CREATE TABLE IF NOT EXISTS marks (
    key TEXT PRIMARY KEY,
    mark TEXT NOT NULL,
    decider TEXT NOT NULL,
    reason TEXT NOT NULL,
    reused INTEGER NOT NULL
) WITHOUT ROWID;
"""


class MarkTable:
    """Marks in a run's journal; those of an earlier run are looked up when this one has none."""

    def __init__(self, path: Path | str, earlier: Path | None = None) -> None:
        self.path = path
        self._db = open_database(path, SCHEMA)
        self._earlier = open_earlier(earlier, "marks") if earlier is not None else None

    def get_marks(self, keys: Sequence[str]) -> dict[str, RuleMark]:
        """The marks that are on record, by key."""
        found = _find(self._db, keys)
        missing = [key for key in keys if key not in found]
        if self._earlier is not None and missing:
            reused = _find(self._earlier, missing)
            self._put(reused, reused=True)
            found.update(reused)
        return found

    def put_marks(self, marks: Mapping[str, RuleMark]) -> None:
        """Commit marks by key. Raises DiskFull."""
        self._put(marks, reused=False)

    def _put(self, marks: Mapping[str, RuleMark], *, reused: bool) -> None:
        if not marks:
            return
        with writing(self.path):
            self._db.execute("BEGIN")
            try:
                self._db.executemany(
                    "INSERT INTO marks VALUES (?, ?, ?, ?, ?) ON CONFLICT (key) DO NOTHING",
                    [
                        (key, m.mark.value, m.decider, _storable(m.reason), int(reused))
                        for key, m in marks.items()
                    ],
                )
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def counts(self) -> tuple[int, int]:
        """How many marks were given in this run, and how many were taken from the earlier one."""
        new, reused = self._db.execute(
            "SELECT coalesce(sum(reused = 0), 0), coalesce(sum(reused = 1), 0) FROM marks"
        ).fetchone()
        return int(new), int(reused)

    def close(self) -> None:
        """Close the files."""
        self._db.close()
        if self._earlier is not None:
            self._earlier.close()


def _find(db: sqlite3.Connection, keys: Sequence[str]) -> dict[str, RuleMark]:
    found = db.execute(
        "SELECT key, mark, decider, reason FROM marks "
        "WHERE key IN (SELECT value FROM json_each(?))",
        (json.dumps(list(keys)),),
    )
    return {key: RuleMark(Mark(mark), decider, reason) for key, mark, decider, reason in found}


def _storable(text: str) -> str:
    """SQLite stores UTF-8; a lone surrogate out of a model's reply is none."""
    return text.encode("utf-8", "replace").decode("utf-8")
