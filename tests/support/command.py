"""A command line in this process: as a process of its own ends, without its second of starting."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from unittest import mock

from adhere.cli.main import main


def run_here(*arguments, cwd=None, env: Mapping[str, str] | None = None):
    """What a process with this command line would end with. `env`: all of its environment."""
    out, err = io.StringIO(), io.StringIO()
    words = [str(argument) for argument in arguments]
    handler = signal.getsignal(signal.SIGTERM)
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.chdir(cwd or "."))
        if env is not None:
            stack.enter_context(mock.patch.dict(os.environ, env, clear=True))
        nothing = stack.enter_context(Path(os.devnull).open())
        stack.enter_context(mock.patch("sys.stdin", nothing))
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(err))
        stack.callback(signal.signal, signal.SIGTERM, handler)
        try:
            main(words)
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return subprocess.CompletedProcess(["adhere", *words], code, out.getvalue(), err.getvalue())
