"""The GGUF header reader and the re-encoding, on small files made here byte by byte."""

from __future__ import annotations

import math
import random
import struct
from pathlib import Path

import pytest

from adhere.errors import BadInput
from adhere.models.gguf_header import read_header
from adhere.models.requantize import F32, Q4_1, Q8_0, to_q8_0


def text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def gguf(fields: list[bytes], tensors: list[tuple[str, tuple[int, ...], int, bytes]]) -> bytes:
    out = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(fields)) + b"".join(fields)
    data = b""
    for name, shape, kind, raw in tensors:
        out += text(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
        out += struct.pack("<IQ", kind, len(data))
        data += raw.ljust(math.ceil(len(raw) / 32) * 32, b"\0")
    return out.ljust(math.ceil(len(out) / 32) * 32, b"\0") + data


def string_field(key: str, value: str) -> bytes:
    return text(key) + struct.pack("<I", 8) + text(value)


def number_field(key: str, value: int) -> bytes:
    return text(key) + struct.pack("<II", 4, value)


FIELDS = [
    string_field("general.architecture", "llama"),
    number_field("llama.context_length", 2048),
    number_field("general.file_type", 3),
    text("tokens") + struct.pack("<IIQ", 9, 8, 2) + text("a") + text("bé"),
    text("sizes") + struct.pack("<IIQ2f", 9, 6, 2, 0.5, 2.0),
    string_field("tokenizer.chat_template", "{{ messages }}"),
]


def q4_1_blocks(values: list[tuple[float, float, list[int]]]) -> bytes:
    """Blocks of (scale, offset, 32 codes), as ggml packs them: low halves first."""
    return b"".join(
        struct.pack("<ee", step, offset) + bytes(codes[i] | codes[i + 16] << 4 for i in range(16))
        for step, offset, codes in values
    )


def half(value: float) -> float:
    return float(struct.unpack("<e", struct.pack("<e", value))[0])


def test_the_header_is_read(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf(FIELDS, [("w", (64, 2), F32, bytes(512)), ("b", (3,), F32, bytes(12))]))
    header = read_header(path)
    assert header.architecture == "llama"
    assert header.context == 2048
    assert header.chat_template == "{{ messages }}"
    assert header.fields["tokens"] == ["a", "bé"]
    assert header.fields["sizes"] == [0.5, 2.0]
    assert header.parameters == 64 * 2 + 3
    assert [tensor.offset for tensor in header.tensors] == [0, 512]


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "begin"),
        (b"PK\3\4" + bytes(40), "begin"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version 1"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**60), "length"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 2**40), "length"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k") + struct.pack("<I", 77), "type 77"),
    ],
)
def test_a_file_that_is_none_says_why(tmp_path: Path, raw: bytes, said: str) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(raw)
    with pytest.raises(BadInput, match=said):
        read_header(path)


def test_every_cut_in_the_header_is_seen(tmp_path: Path) -> None:
    whole = gguf(FIELDS, [("w", (32,), F32, bytes(128))])
    end = whole.index(b"w" + struct.pack("<I", 1)) + 25
    path = tmp_path / "m.gguf"
    for cut in range(0, end):
        path.write_bytes(whole[:cut])
        with pytest.raises(BadInput):
            read_header(path)


def test_q8_0_keeps_the_weights(tmp_path: Path) -> None:
    rng = random.Random(7)
    blocks = [
        (half(rng.uniform(1e-4, 0.2)), half(rng.uniform(-1.5, 0.3)), rng.choices(range(16), k=32))
        for _ in range(400)
    ]
    blocks += [
        (0.0, 0.0, [0] * 32),
        (0.0, half(-0.25), [3] * 32),
        (half(-0.01), half(0.1), list(range(16)) * 2),  # a falling ramp
        (half(4e-7), half(-2e-6), list(range(16)) * 2),  # scales at the end of fp16's range
        (12 * 2**-24, 0.0, list(range(16)) * 2),  # rounds down to a scale that cannot reach
        (half(7e-5), half(-5e-4), list(range(16)) * 2),
    ]
    source, target = tmp_path / "a.gguf", tmp_path / "b.gguf"
    norm = struct.pack("<8f", *range(8))
    source.write_bytes(
        gguf(FIELDS, [("n", (8,), F32, norm), ("w", (32, 406), Q4_1, q4_1_blocks(blocks))])
    )
    to_q8_0(source, target)

    old, new = read_header(source), read_header(target)
    assert [tensor.kind for tensor in new.tensors] == [F32, Q8_0]
    assert new.fields == {**old.fields, "general.file_type": 7}
    raw = target.read_bytes()
    at = new.data_start
    assert raw[at : at + 32] == norm
    at += new.tensors[1].offset
    for step, offset, codes in blocks:
        scale, *values = struct.unpack("<e32b", raw[at : at + 34])
        at += 34
        wanted = [offset + step * code for code in codes]
        # Half a step of the new scale; a scale below fp16's normal range is coarser itself.
        allowed = 0.55 * scale if scale > 6.2e-5 else 127 * 2**-24
        worst = max(abs(scale * v - w) for v, w in zip(values, wanted, strict=True))
        assert worst <= allowed + 1e-12, (step, offset, scale)


def test_other_types_and_cut_files_are_refused(tmp_path: Path) -> None:
    source, target = tmp_path / "a.gguf", tmp_path / "b.gguf"
    source.write_bytes(gguf([], [("w", (256,), 12, bytes(144))]))
    with pytest.raises(BadInput, match="type 12"):
        to_q8_0(source, target)
    source.write_bytes(gguf([], [("w", (64,), Q4_1, bytes(40))])[:-40])
    with pytest.raises(BadInput, match="middle of tensor w"):
        to_q8_0(source, target)
