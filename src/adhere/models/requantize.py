"""Writing Q4_1 weights again as Q8_0, which the embedded engine reads prompts with much faster.

llama.cpp has fast matrix code for Q8_0 on plain AVX2 and none for Q4_1: SmolLM2-135M reads 1.8
times as many prompt tokens a second (`docs/models.md`). Both formats hold 32 weights a block.

    Q4_1: fp16 scale d, fp16 offset m, 32 codes of 4 bits;  weight = d * code + m
    Q8_0: fp16 scale s, 32 signed bytes;                    weight = s * byte

A block has at most 16 different weights, so it is converted by a table of 16 bytes. The scale is
the largest of them over 127, so a weight moves by little more than half of that scale. Over all
of SmolLM2-135M that is a fiftieth of a Q4_1 step (root mean square), a twentieth at worst.
Standard library only, and the same bytes come out on every machine, so the result has a pinned
hash too.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import IO

from adhere.errors import BadInput
from adhere.models.gguf_header import GGUFHeader, TensorInfo, read_header

F32, F16, Q4_1, Q8_0 = 0, 1, 3, 8
_BLOCK = 32
_BYTES = {F32: 4 * _BLOCK, F16: 2 * _BLOCK, Q4_1: 20, Q8_0: 34}  # of 32 weights
_FILE_TYPE_Q8_0 = 7

_LOW = bytes(byte & 15 for byte in range(256))
_HIGH = bytes(byte >> 4 for byte in range(256))
_SIGNED = bytes(byte ^ 128 for byte in range(256))  # from code + 128 to a signed byte
_REST = bytes(240)

# Sixteen sums at once, in 16 lanes of 32 bits of one integer: lane c holds offset + scale * c.
_LANES = sum(1 << 32 * code for code in range(16))
_RAMP = sum(code << 32 * code for code in range(16))
_ONE = 1 << 24  # fixed point: the top byte of a lane is its whole part

Progress = Callable[[int, int], None]  # bytes written, bytes in all


def to_q8_0(source: Path, target: Path, *, progress: Progress = lambda done, total: None) -> None:
    """Write `source` to `target` with every Q4_1 tensor as Q8_0; others are copied as they are.

    `target` is whole only when this returns. Raises BadInput for a file that is no GGUF or has
    other kinds of tensors, OSError when the disk refuses.
    """
    header = read_header(source)
    alignment = int(header.fields.get("general.alignment", 32))
    tensors, offset = [], 0
    for tensor in header.tensors:
        if tensor.kind not in _BYTES or (tensor.kind in (Q4_1, Q8_0) and tensor.count % _BLOCK):
            raise BadInput(f"{source}: tensor {tensor.name} has type {tensor.kind}, not handled")
        new = replace(tensor, kind=Q8_0 if tensor.kind == Q4_1 else tensor.kind, offset=offset)
        tensors.append(new)
        offset += _up(_size(new), alignment)
    with source.open("rb") as old, target.open("wb") as out:
        head = _head(old, header, tensors)
        data = _up(len(head), alignment)
        out.write(head.ljust(data, b"\0"))
        for before, after in zip(header.tensors, tensors, strict=True):
            old.seek(header.data_start + before.offset)
            raw = old.read(_size(before))
            if len(raw) != _size(before):
                raise BadInput(f"{source}: ends in the middle of tensor {before.name}")
            try:
                new_bytes = _convert(raw) if before.kind == Q4_1 else raw
            except (ValueError, OverflowError):  # a scale that is infinite or no number
                raise BadInput(f"{source}: tensor {before.name} holds no numbers") from None
            out.write(new_bytes.ljust(_up(_size(after), alignment), b"\0"))
            progress(out.tell(), data + offset)
        out.flush()
        os.fsync(out.fileno())


def _convert(raw: bytes) -> bytes:
    """Q4_1 blocks to Q8_0 blocks."""
    count = len(raw) // 20
    words = memoryview(raw).cast("H")
    steps = struct.unpack(f"<{count}e", words[0::10].tobytes())
    offsets = struct.unpack(f"<{count}e", words[1::10].tobytes())
    tops = [max(abs(m), abs(m + 15 * d)) / 127 for d, m in zip(steps, offsets, strict=True)]
    packed = struct.pack(f"<{count}e", *tops)
    scales = struct.unpack(f"<{count}e", packed)
    low, high = raw.translate(_LOW), raw.translate(_HIGH)
    out = []
    blocks = zip(steps, offsets, scales, tops, strict=True)
    for block, (step, offset, scale, top) in enumerate(blocks):
        out.append(packed[2 * block : 2 * block + 2])
        if not scale:
            out.append(bytes(_BLOCK))
            continue
        start = 20 * block + 4
        if scale < 0.999 * top:  # a scale too small for fp16 to hold well: a lane could overflow
            table = _exact_table(step, offset, scale)
        else:
            # Whole part of (offset + step * code) / scale + 128.5: rounded, then 128 up.
            base = int((offset / scale + 128.5) * _ONE)
            ramp = int(step / scale * _ONE)
            table = (base * _LANES + ramp * _RAMP).to_bytes(64, "little")[3::4].translate(_SIGNED)
        codes = low[start : start + 16] + high[start : start + 16]
        out.append(codes.translate(table + _REST))
    return b"".join(out)


def _exact_table(step: float, offset: float, scale: float) -> bytes:
    """The 16 bytes of a block, held within the signed range."""
    wanted = (math.floor((offset + step * code) / scale + 0.5) for code in range(16))
    return bytes(max(-127, min(127, value)) & 255 for value in wanted)


def _head(old: IO[bytes], header: GGUFHeader, tensors: list[TensorInfo]) -> bytes:
    """Magic, metadata as it was but for the file type, and the new table of tensors."""
    old.seek(0)
    fields = old.read(header.fields_end)
    key = b"general.file_type"
    field = struct.pack("<Q", len(key)) + key + struct.pack("<I", 4)
    at = fields.find(field)
    if at >= 0:
        value = at + len(field)
        fields = fields[:value] + struct.pack("<I", _FILE_TYPE_Q8_0) + fields[value + 4 :]
    table = [fields]
    for tensor in tensors:
        name = tensor.name.encode()
        table.append(struct.pack("<Q", len(name)) + name)
        table.append(struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *tensor.shape))
        table.append(struct.pack("<IQ", tensor.kind, tensor.offset))
    return b"".join(table)


def _size(tensor: TensorInfo) -> int:
    return tensor.count * _BYTES[tensor.kind] // _BLOCK


def _up(size: int, step: int) -> int:
    return -(-size // step) * step
