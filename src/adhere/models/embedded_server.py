"""The child process of the embedded engine: llama.cpp's own HTTP server on loopback.

Started by `models/embedded.py` as `python -m adhere.models.embedded_server`. It reads one JSON
line from standard input (so the key stands in no argument list and no environment), starts the
server on a free port, prints one JSON line with its URL, and then waits for standard input to
end: when the parent closes it or dies, however it dies, the child ends too.
"""

from __future__ import annotations

import json
import os
import sys
import threading

_WARNINGS = 2  # llama.cpp's level: warnings and errors, no line for every request


def main() -> None:
    """Serve until standard input ends."""
    config = json.loads(sys.stdin.readline())
    # llama.cpp writes to both streams. The protocol keeps the real standard output to itself.
    answer = os.fdopen(os.dup(1), "w")
    log = os.open(config["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    # Loading a large model takes a while, and the parent may die meanwhile.
    watch = threading.Thread(target=_end_with_parent, daemon=True)
    watch.start()

    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = config["model"]
    params.model_alias = {config["name"]}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [config["key"]]
    params.ui = False
    params.verbosity = _WARNINGS
    params.n_parallel = config["slots"]
    params.n_ctx = config["slots"] * config["context"]
    params.cpuparams.n_threads = config["threads"]
    params.cpuparams_batch.n_threads = config["threads"]
    params.n_threads_http = config["slots"] + 4
    # Each slot keeps its own share of the context, and a prompt goes to the slot that holds the
    # most of it: measured in docs/models.md. All the rest is llama.cpp's default.
    params.kv_unified = False
    params.slot_prompt_similarity = 0.1
    params.cache_prompt = config["reuse_prefix"]
    params.cache_ram_mib = config["cache_mib"] if config["reuse_prefix"] else 0
    server = xllamacpp.Server(params)
    answer.write(json.dumps({"url": server.listening_address}) + "\n")
    answer.flush()
    watch.join()


def _end_with_parent() -> None:
    while os.read(0, 65536):
        pass
    os._exit(0)  # the server's threads have nothing that is worth waiting for


if __name__ == "__main__":
    main()
