"""SQLite as the project uses it: WAL, one writer, and errors that a user can act on."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adhere.errors import BadInput, DiskFull

SCHEMA_VERSION = 1

_FULL = ("full", "disk i/o error")


@contextmanager
def writing(path: Path | str) -> Iterator[None]:
    """Turn SQLite's errors about the disk or the file into the project's."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if any(word in str(error).lower() for word in _FULL):
            raise DiskFull(
                f"{path}: could not write ({error})",
                hint="Free some space (or raise the file size limit) and run the same command "
                "again; what was finished is kept.",
            ) from None
        raise BadInput(f"{path}: cannot be used ({error})") from None
    except sqlite3.DatabaseError as error:
        raise BadInput(
            f"{path}: found a file that is no journal ({error}); expected one made by adhere",
            hint="Choose another folder with --out, or move this file away.",
        ) from None


# Pages of 4 KiB that the log may grow to before it is written back, which waits for the disk.
_CHECKPOINT = 8000


def open_database(path: Path | str) -> sqlite3.Connection:
    """Open or make a database. Each statement commits by itself (autocommit)."""
    with writing(path):
        db = sqlite3.connect(path, isolation_level=None)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        db.execute(f"PRAGMA wal_autocheckpoint={_CHECKPOINT}")
        _check_version(db, path)
        db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        return db


def add_tables(db: sqlite3.Connection, path: Path | str, schema: str) -> None:
    """Make the tables of a schema that are not there yet."""
    with writing(path):
        db.executescript(schema)


def open_earlier(path: Path, table: str) -> sqlite3.Connection | None:
    """Open another run's database for reading; None when it lacks the table. Raises BadInput."""
    if not path.is_file():
        raise BadInput(
            f"{path}: no such journal; expected the folder of a run",
            hint="Give --reuse a folder that `adhere eval` or `adhere judge` wrote.",
        )
    with writing(path):
        db = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None)
        _check_version(db, path)
        query = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
        if db.execute(query, (table,)).fetchone():
            return db
        db.close()
        return None


def _check_version(db: sqlite3.Connection, path: Path | str) -> None:
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version not in (0, SCHEMA_VERSION):
        db.close()
        raise BadInput(
            f"{path}: was written by another version of adhere (schema {version}, "
            f"this is {SCHEMA_VERSION})",
            hint="Choose another folder with --out.",
        )
