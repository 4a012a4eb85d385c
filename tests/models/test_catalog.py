"""The catalog: what is pinned, and what an unknown name gets."""

from __future__ import annotations

import re

import pytest

from adhere.errors import BadInput
from adhere.models.catalog import MODELS, catalog_model


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_everything_is_pinned(model) -> None:
    for digest in (model.sha256, model.served_sha256):
        assert re.fullmatch(r"[0-9a-f]{64}", digest)
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9.]+", part.requirement) for part in model.parts)
    assert model.parts
    assert "/" not in model.file
    assert "/" not in model.served_file
    assert model.license == "Apache-2.0"
    assert not model.thinks


def test_names_and_files_are_different() -> None:
    assert MODELS[0].name == "smollm2-135m", "the default comes first"
    assert len({model.name for model in MODELS}) == len(MODELS)
    files = [name for m in MODELS for name in {m.file, m.served_file}]
    assert len(set(files)) == len(files)


def test_parts_are_in_order() -> None:
    for name, count in (("qwen2.5-coder-0.5b", 6), ("qwen2.5-coder-1.5b", 22)):
        numbers = [
            int(re.search(r"part(\d+)==", part.requirement)[1])
            for part in catalog_model(name).parts
        ]
        assert numbers == list(range(1, count + 1))


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(BadInput, match=r"did you mean 'smollm2-135m'") as caught:
        catalog_model("smolm2-135m")
    assert all(model.name in caught.value.hint for model in MODELS)
