"""Reading the header of a GGUF file: metadata and the table of tensors, not the weights.

Pure Python and bounded: a broken or hostile file ends in BadInput, never in a huge allocation.
Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (versions 2 and 3, little endian).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from adhere.errors import BadInput

_SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_STRING, _ARRAY = 8, 9
_LONGEST_TEXT = 16 << 20  # bytes; chat templates are some kilobytes
_MOST_ITEMS = 4 << 20  # entries of an array, metadata fields or tensors; vocabularies are 10^5


@dataclass(frozen=True)
class TensorInfo:
    """One tensor: `shape` innermost first, `kind` the ggml type number, `offset` from the data."""

    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int

    @property
    def count(self) -> int:
        """How many weights it holds."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class GGUFHeader:
    """A file's metadata and tensors. `fields_end` and `data_start` are byte offsets."""

    version: int
    fields: Mapping[str, Any]
    tensors: tuple[TensorInfo, ...]
    fields_start: int
    fields_end: int
    data_start: int

    @property
    def architecture(self) -> str:
        """Such as `llama` or `qwen2`; empty when the file does not say."""
        return str(self.fields.get("general.architecture", ""))

    @property
    def context(self) -> int | None:
        """Tokens the model was trained for."""
        found = self.fields.get(f"{self.architecture}.context_length")
        return found if isinstance(found, int) else None

    @property
    def chat_template(self) -> str:
        """The Jinja chat template; empty when there is none."""
        return str(self.fields.get("tokenizer.chat_template", ""))

    @property
    def parameters(self) -> int:
        """How many weights the file holds in all."""
        return sum(tensor.count for tensor in self.tensors)


def read_header(path: Path) -> GGUFHeader:
    """The header of a GGUF file. Raises BadInput for a file that is not one, or is cut off."""
    try:
        with path.open("rb") as file:
            return _read(file)
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, struct.error) as error:
        raise BadInput(
            f"{path}: not a whole GGUF file ({error})", hint="Download or convert it again."
        ) from None


def _read(file: IO[bytes]) -> GGUFHeader:
    if file.read(4) != b"GGUF":
        raise ValueError("it does not begin with GGUF")
    version, n_tensors, n_fields = struct.unpack("<IQQ", _take(file, 20))
    if version not in (2, 3):
        raise ValueError(f"version {version}; versions 2 and 3 are known")
    start = file.tell()
    fields = {}
    for _ in range(_bounded(n_fields)):
        key = _text(file)
        fields[key] = _value(file, _number(file, "I"))
    end = file.tell()
    tensors = []
    for _ in range(_bounded(n_tensors)):
        name = _text(file)
        rank = _number(file, "I")
        if rank > 8:
            raise ValueError(f"a tensor of {rank} dimensions")
        shape = tuple(_number(file, "Q") for _ in range(rank))
        tensors.append(TensorInfo(name, shape, _number(file, "I"), _number(file, "Q")))
    step = fields.get("general.alignment", 32)
    if not isinstance(step, int) or not 0 < step <= 1 << 20:
        raise ValueError(f"an alignment of {step!r}")
    data = -(-file.tell() // step) * step
    return GGUFHeader(version, fields, tuple(tensors), start, end, data)


def _take(file: IO[bytes], size: int) -> bytes:
    found = file.read(size)
    if len(found) != size:
        raise ValueError("it ends in the middle of its header")
    return found


def _number(file: IO[bytes], code: str) -> int:
    return int(struct.unpack(f"<{code}", _take(file, struct.calcsize(f"<{code}")))[0])


def _bounded(count: int, most: int = _MOST_ITEMS) -> int:
    if count > most:
        raise ValueError(f"a length of {count}")
    return count


def _text(file: IO[bytes]) -> str:
    size = _bounded(_number(file, "Q"), _LONGEST_TEXT)
    return _take(file, size).decode("utf-8", "replace")


def _value(file: IO[bytes], kind: int) -> Any:
    if kind == _STRING:
        return _text(file)
    if kind == _ARRAY:
        item = _number(file, "I")
        count = _bounded(_number(file, "Q"))
        if item == _STRING:
            return [_text(file) for _ in range(count)]
        if item not in _SCALARS:
            raise ValueError(f"an array of type {item}")
        code = f"<{count}{_SCALARS[item]}"
        return list(struct.unpack(code, _take(file, struct.calcsize(code))))
    if kind not in _SCALARS:
        raise ValueError(f"a field of type {kind}")
    code = f"<{_SCALARS[kind]}"
    return struct.unpack(code, _take(file, struct.calcsize(code)))[0]
