"""The table of marks: what a judge said of a rule on a response, kept by what decided it.

A row is one response as one judge saw it (`place`), and holds the marks by rule. The key of a rule
covers its text (see `judging/model_judge.py`), so an edited spec asks only about what changed.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adhere.chat import Mark, RuleMark, Usage
from adhere.records.database import add_tables, open_database, open_earlier, writing

SCHEMA = """
CREATE TABLE IF NOT EXISTS marks (
    place TEXT PRIMARY KEY,
    decider TEXT NOT NULL,
    marks TEXT NOT NULL,
    spent TEXT NOT NULL
);
"""

_FIND = "SELECT decider, marks, spent FROM marks WHERE place = ?"
# What is there stays: a mark that was given once is never given again.
_MERGE = (
    "INSERT INTO marks VALUES (?, ?, ?, ?) ON CONFLICT (place) DO UPDATE "
    "SET marks = json_patch(excluded.marks, marks.marks), spent = excluded.spent"
)

Entry = tuple[str, str, bool]  # mark, reason, whether an earlier run gave it


class MarkTable:
    """Marks in a run's journal; those of an earlier run are looked up when this one has none."""

    def __init__(
        self,
        path: Path | str,
        earlier: Path | None = None,
        *,
        db: sqlite3.Connection | None = None,
    ) -> None:
        """`db`: a connection to share. Several to one file would empty each other's caches."""
        self.path = path
        self._db = db or open_database(path)
        add_tables(self._db, path, SCHEMA)
        self._earlier = open_earlier(earlier, "marks") if earlier is not None else None

    def get_marks(self, place: str, keys: Sequence[str]) -> tuple[dict[str, RuleMark], Usage, int]:
        """The marks on record for a response and judge by the rules' keys; what they had cost.

        The cost is tokens and re-asks. It goes with the marks, so that a row that is finished
        after a kill says of its judge what an undisturbed one says.
        """
        decider, found, spent = _read(self._db, place)
        missing = [key for key in keys if key not in found]
        if self._earlier is not None and missing:
            who, before, cost = _read(self._earlier, place)
            decider, spent = decider or who, spent or cost
            reused = {key: before[key] for key in missing if key in before}
            taken = {key: (*entry[:2], True) for key, entry in reused.items()}
            self._put(place, decider, taken, spent)
            found.update(reused)
        marks = {
            key: RuleMark(Mark(found[key][0]), decider, found[key][1])
            for key in keys
            if key in found
        }
        if not marks:
            return {}, Usage(), 0
        return marks, Usage.from_dict(spent.get("usage", {})), int(spent.get("reasks", 0))

    def put_marks(
        self, place: str, decider: str, marks: Mapping[str, RuleMark], usage: Usage, reasks: int
    ) -> None:
        """Commit one judge's marks by the rules' keys, beside those there are. Raises DiskFull.

        `usage` and `reasks`: what all marks of the response have cost by now.
        """
        entries = {k: (m.mark, m.reason, False) for k, m in marks.items()}
        self._put(place, decider, entries, {"usage": usage.to_dict(), "reasks": reasks})

    def _put(
        self, place: str, decider: str, marks: Mapping[str, Entry], spent: Mapping[str, Any]
    ) -> None:
        if marks:
            with writing(self.path):
                values = (place, decider, json.dumps(marks), json.dumps(spent))
                self._db.execute(_MERGE, values)

    def counts(self) -> tuple[int, int]:
        """How many marks were given in this run, and how many were taken from the earlier one."""
        new = reused = 0
        for (text,) in self._db.execute("SELECT marks FROM marks"):
            for *_, taken in json.loads(text).values():
                reused += taken
                new += not taken
        return new, reused

    def close(self) -> None:
        """Close the files."""
        self._db.close()
        if self._earlier is not None:
            self._earlier.close()


def _read(db: sqlite3.Connection, place: str) -> tuple[str, dict[str, Entry], dict[str, Any]]:
    row = db.execute(_FIND, (place,)).fetchone()
    return (row[0], json.loads(row[1]), json.loads(row[2])) if row else ("", {}, {})
