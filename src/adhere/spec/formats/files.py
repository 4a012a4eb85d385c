"""Finding, opening and recognizing spec files.

`load_spec` takes a path; `read_spec` takes a text. The name's ending says which format a file
has; where it says nothing, the content does. At most 1 MB of a file is ever read.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from adhere.errors import BadInput
from adhere.spec.formats.markdown import read_markdown
from adhere.spec.formats.specbench import read_specbench
from adhere.spec.formats.yaml import read_yaml
from adhere.spec.model import Specification

Format: TypeAlias = Literal["markdown", "yaml", "specbench"]
FORMATS: tuple[Format, ...] = get_args(Format)

MAX_FILE = 1 << 20
MAX_LINE = 1 << 16

SPECBENCH_FILE = "specifications.json"
SCENARIO_FILE = "scenario.json"

_ENDINGS: dict[str, Format] = {
    ".md": "markdown",
    ".markdown": "markdown",
    ".yaml": "yaml",
    ".yml": "yaml",
    ".json": "specbench",
}
_YAML_KEY = re.compile(r"(?m)^(?:safety|behaviou?ral)[ \t]*:")


def load_spec(path: str | Path) -> Specification:
    """Read a spec file, or a folder with SpecBench's files.

    `.md` and `.markdown` are Markdown, `.yaml` and `.yml` YAML, `.json` SpecBench; a file with
    another ending is recognized by its content. Raises BadInput, which names the file, the line
    and what to do.
    """
    path = Path(path)
    if _is(path, stat.S_ISDIR):
        return _load_specbench(path / SPECBENCH_FILE, folder=path)
    if path.name == SPECBENCH_FILE:
        return _load_specbench(path)
    text = read_text(path)
    return read_spec(text, str(path), _ENDINGS.get(path.suffix.lower()) or _recognize(text))


def read_spec(text: str, file: str, format: Format) -> Specification:
    """Read a spec from a text. `file` is its name for error messages. Raises BadInput."""
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip():
        raise BadInput.at(
            file,
            None,
            "an empty file",
            "a specification",
            hint="`adhere init` writes a spec to start from.",
        )
    if format == "markdown":
        return read_markdown(text, file)
    if format == "yaml":
        return read_yaml(text, file)
    if format == "specbench":
        return read_specbench(text, file)
    raise BadInput(f'unknown spec format "{format}"', hint=f"The formats are {', '.join(FORMATS)}.")


def read_text(path: str | Path) -> str:
    """The text of a file within the limits of spec files: UTF-8, 1 MB, lines of 64 KB.

    Reads no more than the limit, whatever the file's size. Raises BadInput.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            data = b"" if size > MAX_FILE else file.read(MAX_FILE + 1)
    except FileNotFoundError:
        raise BadInput.at(
            path, None, "no such file", "a spec file", hint="Check the path."
        ) from None
    except IsADirectoryError:
        raise BadInput.at(path, None, "a folder", "a file") from None
    except NotADirectoryError:
        raise BadInput.at(
            path,
            None,
            "a path that leads through a file as if it were a folder",
            "a spec file",
            hint="Check the path.",
        ) from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise BadInput.at(
            path, None, f"a file that cannot be read ({reason})", "a spec file"
        ) from None
    if size > MAX_FILE or len(data) > MAX_FILE:
        raise BadInput.at(
            path,
            None,
            f"a file of {size / 1e6:,.1f} MB" if size > MAX_FILE else "a file of more than 1 MB",
            "at most 1 MB",
            hint="A spec is a list of rules in words; is this the right file?",
        )
    return _decode(data, path)


def _decode(data: bytes, path: Path) -> str:
    """UTF-8 (with or without a byte order mark) in lines of at most 64 KB."""
    for number, line in enumerate(data.split(b"\n"), start=1):
        if len(line) > MAX_LINE:
            raise BadInput.at(
                path, number, f"a line of {len(line):,} bytes", f"at most {MAX_LINE:,}"
            )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The decoder counts from behind the byte order mark.
        mark = 3 if data.startswith(b"\xef\xbb\xbf") else 0
        offset = error.start + mark
        raise BadInput.at(
            path,
            data.count(b"\n", 0, offset) + 1,
            f"the byte 0x{data[offset]:02X} at offset {offset:,}, which is not UTF-8",
            "a text file in UTF-8",
            hint='Save it again with the encoding "UTF-8".',
        ) from None


def _load_specbench(path: Path, folder: Path | None = None) -> Specification:
    """SpecBench's list of rules, with the name and description beside it where there are any."""
    if folder is not None and not _is(path, stat.S_ISREG):
        raise BadInput.at(
            folder,
            None,
            "a folder without specifications.json",
            "a spec file, or the folder of a SpecBench scenario",
            hint="Give the path of the spec file itself.",
        )
    text = read_text(path)
    beside = path.with_name(SCENARIO_FILE)
    return read_specbench(
        text,
        str(path),
        read_text(beside) if _is(beside, stat.S_ISREG) else None,
        str(beside),
        # The folder is the scenario; resolved, so that the name is the same from any folder.
        default_name=path.resolve().parent.name,
    )


def _is(path: Path, kind: Callable[[int], bool]) -> bool:
    """Whether a path leads to a file of a kind; False where it leads nowhere at all."""
    try:
        return kind(path.stat().st_mode)
    except (OSError, ValueError):
        return False  # opening it says what is wrong


def _recognize(text: str) -> Format:
    """The format of a text whose file name says nothing."""
    if text.lstrip("\ufeff \t\r\n").startswith("{"):
        return "specbench"
    return "yaml" if _YAML_KEY.search(text) else "markdown"
