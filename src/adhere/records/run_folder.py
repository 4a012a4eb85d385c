"""A run is its folder: who may write it, what it may hold, and its files.

    run.yaml          the resolved configuration and identity
    journal.sqlite    every draw and every row; the truth
    results.jsonl     the rows, for reading; made anew from the journal when a run ends
    summary.json      the numbers
    report.html       the report

One process writes at a time (a lock on `.lock`, freed by the system when the process dies). A
row is committed to the journal first, then appended to results.jsonl; a line that a kill tore is
replaced at the next start.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

import yaml
from filelock import FileLock
from filelock import Timeout as LockTaken

from adhere.errors import BadInput, disk_error
from adhere.records.database import SCHEMA_VERSION, add_tables, open_database, writing
from adhere.records.journal import DrawStore
from adhere.records.marks import MarkTable

RUN_FILE = "run.yaml"
JOURNAL_FILE = "journal.sqlite"
RESULTS_FILE = "results.jsonl"
SUMMARY_FILE = "summary.json"

ROWS_SCHEMA = """
CREATE TABLE IF NOT EXISTS rows (key TEXT PRIMARY KEY, row TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""

GROWING = (
    "suites",
    "models",
    "model_settings",
    "methods",
)  # parts of the identity to which a run may add

# Models of a run besides its policies, by their place in its record.
MODEL_ROLES = (
    "judge", "reward", "probe", "base", "reviser", "attacker", "rater", "oracle",
)  # fmt: skip

Key = tuple[str, str, str, str, int]  # suite, case, model, method, repeat


def row_key(row: Mapping[str, Any]) -> Key:
    """The key of a row."""
    return row["suite"], row["case"], row["model"], row["method"], row["repeat"]


def write_atomic(path: Path, text: str) -> None:
    """Write a whole file or nothing. Raises DiskFull or BadInput."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise disk_error(error, path) from None


def dump_json(value: Any) -> str:
    """JSON for people and other tools: ASCII only, so that no text can break a line or a file."""
    return json.dumps(value, ensure_ascii=True, allow_nan=False)


class RunFolder:
    """A run folder opened for writing. Use as a context manager."""

    def __init__(self, path: Path, earlier: Path | None = None) -> None:
        """Make the folder if need be and lock it. Raises BadInput, DiskFull.

        `earlier`: the folder of a run whose draws and marks are taken over where they fit.
        """
        self.path = path
        self._earlier = earlier / JOURNAL_FILE if earlier is not None else None
        try:
            existed = path.exists()
            self._made = _missing(path)
            path.mkdir(parents=True, exist_ok=True)
        except ValueError:
            raise BadInput(f"--out: {str(path)!r} is no path") from None
        except (FileExistsError, NotADirectoryError):
            raise BadInput(
                f"--out: {path} is, or lies under, a regular file; expected a folder",
                hint="Choose another folder with --out.",
            ) from None
        except OSError as error:
            raise disk_error(error, path) from None
        if existed and not (path / RUN_FILE).exists() and is_foreign(path):
            raise BadInput(
                f"--out: {path} holds other files and is no run folder",
                hint="Choose a new or an empty folder with --out.",
            )
        self._lock = FileLock(path / ".lock", timeout=0)
        try:
            self._lock.acquire()
        except LockTaken:
            raise BadInput(
                f"{path}: another adhere process is writing this run",
                hint="Wait for it to end, or choose another folder with --out.",
            ) from None
        except OSError as error:
            raise disk_error(error, path) from None
        try:
            self._open()
        except BaseException:
            self._lock.release()
            raise

    def _open(self) -> None:
        journal = self.path / JOURNAL_FILE
        self._db = open_database(journal)
        add_tables(self._db, journal, ROWS_SCHEMA)
        self.draws = DrawStore(journal, self._earlier, db=self._db)
        self.marks = MarkTable(journal, self._earlier, db=self._db)
        self._results: TextIO | None = None

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all files and free the lock."""
        if self._results is not None:
            self._results.close()
            self._results = None
        self.draws.close()
        self.marks.close()
        self._db.close()
        self._lock.release()

    def discard(self) -> None:
        """Undo the making of a folder in which nothing was recorded: leave nothing half-made."""
        self.close()
        for name in _OWN:
            (self.path / name).unlink(missing_ok=True)
        for folder in self._made:
            if any(folder.iterdir()):
                break
            folder.rmdir()

    # ------------------------------------------------------------ identity

    def check(self, identity: Mapping[str, Any]) -> dict[str, Any]:
        """Check a run's identity against the folder's; return both merged. Writes nothing.

        `identity` maps field to value. All must be equal, except that suites, models and methods
        must agree where both have a name, and grow by what is new. Raises BadInput that names
        every field that differs.
        """
        identity = dict(identity)
        old = self.read_record()
        if old is not None:
            if old.get("schema_version") != SCHEMA_VERSION:
                raise BadInput(
                    f"{self.path / RUN_FILE}: found schema version {old.get('schema_version')!r}; "
                    f"expected {SCHEMA_VERSION}",
                    hint="It was made by another version of adhere; choose another --out.",
                )
            before = old["identity"]
            if differing := list(_differences(before, identity)):
                raise BadInput(
                    f"{self.path} is a run with another identity:\n  " + "\n  ".join(differing),
                    hint=_hint(self.path, differing),
                )
            identity = {**before, **identity}
            for field in GROWING:
                identity[field] = {**before.get(field, {}), **identity.get(field, {})}
        return identity

    def claim(self, record: Mapping[str, Any]) -> None:
        """Check a run's identity as `check` does, and write run.yaml."""
        identity = self.check(record["identity"])
        old = self.read_record()
        whole = {"schema_version": SCHEMA_VERSION, **record, "identity": identity}
        if old is not None:
            whole["created"] = old.get("created", whole.get("created"))
            whole["models"] = {**old.get("models", {}), **record.get("models", {})}
            for role in MODEL_ROLES:
                if role in old:
                    whole.setdefault(role, old[role])
        if whole != old:
            write_atomic(self.path / RUN_FILE, yaml.safe_dump(whole, sort_keys=False))

    def read_record(self) -> dict[str, Any] | None:
        """What run.yaml says, or None for a new run."""
        return read_run_record(self.path)

    # ------------------------------------------------------------ rows

    def rows(self) -> dict[Key, dict[str, Any]]:
        """All committed rows."""
        found = (json.loads(text) for (text,) in self._db.execute("SELECT row FROM rows"))
        return {row_key(row): row for row in found}

    @property
    def is_appending(self) -> bool:
        """Whether results.jsonl is open, in line with the journal."""
        return self._results is not None

    def start_rows(self, order: Iterable[Key]) -> None:
        """Bring results.jsonl in line with the journal and open it for appending."""
        self.export_rows(order)
        try:
            self._results = (self.path / RESULTS_FILE).open("a", encoding="utf-8")
        except OSError as error:
            raise disk_error(error, self.path / RESULTS_FILE) from None

    def put_row(self, row: Mapping[str, Any], *, whole: bool = True) -> None:
        """Commit one row; an earlier try of the same key is replaced.

        A row that is not `whole` yet (it waits for its judge) is not appended to results.jsonl.
        """
        text = dump_json(row)
        with writing(self.path / JOURNAL_FILE):
            self._db.execute(
                "INSERT INTO rows (key, row) VALUES (?, ?) "
                "ON CONFLICT (key) DO UPDATE SET row = excluded.row",
                (json.dumps(row_key(row)), text),
            )
        if self._results is not None and whole:
            try:
                self._results.write(text + "\n")
                self._results.flush()
            except OSError as error:
                raise disk_error(error, self.path / RESULTS_FILE) from None

    def drop_rows(self, keys: Iterable[Key]) -> None:
        """Forget rows: answers that were given once and are not any more."""
        with writing(self.path / JOURNAL_FILE):
            self._db.executemany("DELETE FROM rows WHERE key = ?", [(json.dumps(k),) for k in keys])

    def put_fact(self, name: str, value: Any) -> None:
        """Commit something that the summary needs and no row holds, as JSON."""
        with writing(self.path / JOURNAL_FILE):
            self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, dump_json(value)))

    def get_fact(self, name: str) -> Any:
        """What was put under a name, or None."""
        row = self._db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return json.loads(row[0]) if row else None

    def facts(self, beginning: str) -> dict[str, Any]:
        """Everything that was put under names of this beginning."""
        found = self._db.execute("SELECT name, value FROM facts ORDER BY name")
        return {name: json.loads(value) for name, value in found if name.startswith(beginning)}

    def export_rows(
        self,
        order: Iterable[Key],
        change: Callable[[dict[str, Any]], dict[str, Any]] = lambda row: row,
    ) -> list[dict[str, Any]]:
        """Write results.jsonl whole: rows in the order given, then any others by key.

        `change` is what becomes of each row on its way out.
        """
        if self._results is not None:
            self._results.close()
            self._results = None
        rows = self.rows()
        known = [rows.pop(key) for key in order if key in rows]
        known = [change(row) for row in (*known, *(rows[key] for key in sorted(rows)))]
        write_atomic(self.path / RESULTS_FILE, "".join(dump_json(row) + "\n" for row in known))
        return known


def read_run_record(path: Path) -> dict[str, Any] | None:
    """What a run folder's run.yaml says. Raises BadInput when it cannot be read."""
    file = path / RUN_FILE
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{file}: cannot be read ({error})") from None
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError:
        data = None
    if not isinstance(data, dict) or not isinstance(data.get("identity"), dict):
        raise BadInput(f"{file}: is damaged; expected a record written by adhere")
    return data


def _hint(path: Path, differing: list[str]) -> str:
    if all(line.startswith("spec:") for line in differing):
        return (
            f"The spec was edited. Give --reuse {path} and a new --out: only what the edit "
            "changed is sampled and judged again."
        )
    return (
        "Choose another folder with --out to run the new configuration, or restore the old one "
        "to go on."
    )


def _missing(path: Path) -> list[Path]:
    """The folders that making this one will make, the innermost first."""
    return [folder for folder in (path, *path.parents) if not folder.exists()]


# What a new folder holds before its first record; a start that was killed there may be repeated.
_OWN = (".lock", JOURNAL_FILE, f"{JOURNAL_FILE}-wal", f"{JOURNAL_FILE}-shm", f".{RUN_FILE}.tmp")


def is_foreign(path: Path) -> bool:
    """Whether a folder holds anything that a start which was killed at once does not leave."""
    return any(entry.name not in _OWN for entry in path.iterdir())


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for field, value in now.items():
        old = before.get(field)
        if field in GROWING and isinstance(value, dict) and isinstance(old, dict):
            for name in value.keys() & old.keys():
                if value[name] != old[name]:
                    yield f"{field}.{name}: the run has {old[name]!r}, this is {value[name]!r}"
        elif field in before and value != old:
            yield f"{field}: the run has {old!r}, this is {value!r}"
