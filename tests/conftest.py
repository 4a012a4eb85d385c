"""Each of several test processes keeps to a core of its own.

Otherwise each would use all cores for products of tiny matrices, and they would wait for each
other most of the time.
"""

from __future__ import annotations

import os


def pytest_configure() -> None:
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if worker.startswith("gw") and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker[2:]) % len(cores)]})
