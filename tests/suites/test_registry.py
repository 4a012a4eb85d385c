"""Suites by name: the built-in ones and those of other packages."""

from __future__ import annotations

import subprocess
import sys

import pytest

from adhere.chat import Case, user
from adhere.errors import BadInput
from adhere.suites import BUILT_IN, Suite, load_suite, suite_parts
from suites.specbench_data import DATA

PLUGIN = """
from adhere.chat import Case, user
from adhere.suites import Suite, SuiteConfig

class Config(SuiteConfig):
    n: int = 2
    same: bool = False

class Counting:
    name = "counting"
    Config = Config

    def __init__(self, config):
        self.config = config

    def load(self):
        names = ("a", "a" if self.config.same else "b")
        return [
            Suite(f"part{i}", tuple(Case(f"{name}-{k}", (user(f"{i} {k}"),))
                                    for k in range(self.config.n)), source=f"src{i}")
            for i, name in enumerate(names)
        ]
"""


def install(folder, monkeypatch, entry: str, module: str = "counting_plugin") -> None:
    """Make a package with an entry point, as pip would, and put it on the path."""
    folder.mkdir()
    (folder / f"{module}.py").write_text(PLUGIN)
    facts = folder / f"{module}-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(f"[adhere.suites]\n{entry}\n")
    monkeypatch.syspath_prepend(folder)


def test_an_unknown_suite():
    with pytest.raises(BadInput, match="unknown suite 'SpecBnch'; did you mean 'specbench'") as e:
        load_suite("SpecBnch")
    assert "Known suites: " + ", ".join(BUILT_IN) in str(e.value)
    with pytest.raises(BadInput) as caught:
        suite_parts("xyz")
    assert "did you mean" not in str(caught.value)


def test_a_suite_of_another_package(tmp_path, monkeypatch):
    install(tmp_path / "p", monkeypatch, "counting = counting_plugin:Counting")
    suite = load_suite("counting", n=3)
    assert (suite.name, len(suite.cases), suite.source) == ("counting", 6, "src0, src1")
    assert [part.name for part in suite_parts("counting", {})] == ["part0", "part1"]
    with pytest.raises(BadInput, match="suite counting: option 'm'") as caught:
        load_suite("counting", m=1)
    assert "Its options are: n, same" in str(caught.value)
    with pytest.raises(BadInput, match="suite counting: two of its parts have the case 'a-0'"):
        load_suite("counting", same=True)
    with pytest.raises(BadInput, match="suite counting: found no cases"):
        load_suite("counting", n=0)


def test_a_package_must_not_take_a_built_in_name(tmp_path, monkeypatch):
    install(tmp_path / "p", monkeypatch, "specbench = counting_plugin:Counting")
    with pytest.raises(BadInput, match="counting_plugin:Counting has the name of a built-in"):
        load_suite("specbench", path=DATA)


def test_two_packages_with_one_name(tmp_path, monkeypatch):
    install(tmp_path / "p", monkeypatch, "counting = counting_plugin:Counting")
    install(tmp_path / "q", monkeypatch, "counting = other_plugin:Counting", "other_plugin")
    with pytest.raises(BadInput, match=r"offered by .* and "):
        load_suite("counting")


def test_a_suite_is_loaded_only_when_it_is_named():
    script = (
        "import sys, adhere.suites\n"
        "assert not [m for m in sys.modules if 'specbench' in m and m.startswith('adhere.suites')]\n"
        "assert not {'datasets', 'pyarrow', 'numpy'} & set(sys.modules)\n"
        f"adhere.suites.load_suite('specbench', path={str(DATA)!r})\n"
        "assert not {'datasets', 'pyarrow', 'numpy'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_the_digest_holds_what_is_asked_and_judged():
    case = Case("a", (user("Q"),), "safe", "ref", "judged")
    digests = {
        Suite("s", (made,)).digest
        for made in (
            case,
            Case("b", (user("Q"),), "safe", "ref", "judged"),
            Case("a", (user("R"),), "safe", "ref", "judged"),
            Case("a", (user("Q"),), "unsafe", "ref", "judged"),
            Case("a", (user("Q"),), "safe", "other", "judged"),
            Case("a", (user("Q"),), "safe", "ref", "other"),
            Case("a", (user("Q"),), "safe", "ref", "judged", "note"),
        )
    }
    assert len(digests) == 7
    assert Suite("s", (case,)).digest == Suite("t", (case,), source="elsewhere").digest
