"""A small hub of data sets on loopback: as much of it as the library `datasets` asks for."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

from suites.specbench_data import KEYS, table, write_parquet

NAME = "zzzhr97/SpecBench"


class FakeHub:
    """Serves one data set: the made-up SpecBench, as the published card lays it out."""

    COMMIT: ClassVar[str] = "0123456789" * 4

    def __init__(self, folder: Path) -> None:
        card = "---\nconfigs:\n- config_name: default\n  data_files:\n"
        for key in KEYS:
            write_parquet(folder / "data" / f"{key}-00000-of-00001.parquet", table(key))
            card += f"  - split: {key}\n    path: data/{key}-*\n"
        (folder / "README.md").write_text(card + "---\n")
        self.files = {
            str(file.relative_to(folder)): file.read_bytes()
            for file in folder.rglob("*")
            if file.is_file()
        }
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: Any) -> None:
                pass

            def do_GET(self) -> None:
                code, body, headers = hub.reply(self.path.split("?")[0])
                self.send_response(code)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_HEAD = do_GET  # noqa: N815

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> FakeHub:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *args: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def reply(self, path: str) -> tuple[int, bytes, dict[str, str]]:
        api, files = f"/api/datasets/{NAME}", f"/datasets/{NAME}/resolve/"
        commit = {"X-Repo-Commit": self.COMMIT}
        if path.startswith(files):
            name = path.removeprefix(files).partition("/")[2]
            if name not in self.files:
                return 404, b"", {**commit, "X-Error-Code": "EntryNotFound"}
            return 200, self.files[name], {**commit, "ETag": f'"{self.oid(name)}"'}
        if path.startswith(f"{api}/tree/"):
            under = path.removeprefix(f"{api}/tree/").partition("/")[2]
            names = [name for name in self.files if str(Path(name).parent) == (under or ".")]
            folder = {"type": "directory", "oid": "0" * 40, "size": 0, "path": "data"}
            return self.json([*map(self.entry, names), *([] if under else [folder])])
        if path == api or path.startswith(f"{api}/revision/"):
            siblings = [{"rfilename": name} for name in self.files]
            return self.json({"id": NAME, "sha": self.COMMIT, "siblings": siblings, "tags": []})
        return 404, b"{}", {"X-Error-Code": "RepoNotFound"}

    def oid(self, name: str) -> str:
        return hashlib.sha256(self.files[name]).hexdigest()

    def entry(self, name: str) -> dict[str, Any]:
        size = len(self.files[name])
        return {"type": "file", "oid": self.oid(name), "size": size, "path": name}

    def json(self, value: Any) -> tuple[int, bytes, dict[str, str]]:
        return 200, json.dumps(value).encode(), {"Content-Type": "application/json"}
