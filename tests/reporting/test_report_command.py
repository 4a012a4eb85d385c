"""`adhere report`: what it writes and what it says."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from reporting import judged_samples, report_samples
from support.command import run_here


def adhere(*args):
    return run_here("report", *args)


def test_it_writes_the_page_and_says_how_large_it_is(tmp_path):
    run = report_samples.write_run(tmp_path / "run")
    done = adhere(run)
    assert done.returncode == 0, done.stderr
    size = round((run / "report.html").stat().st_size / 1000)
    assert f"report.html ({size} kB)" in done.stdout
    assert report_samples.summary()["headline"].split(",")[0] in " ".join(done.stdout.split())


def test_all_rows_may_be_larger_than_the_limit(tmp_path):
    run = report_samples.write_run(tmp_path / "run")
    row = (run / "results.jsonl").read_text("utf-8").splitlines()[0]
    long = row.replace("Most of them pass", "Most of them pass " * 20_000)
    with (run / "results.jsonl").open("a", encoding="utf-8") as out:
        out.writelines(long.replace('"c01"', f'"extra {i}"') + "\n" for i in range(8))
    assert adhere(run).returncode == 0
    assert (run / "report.html").stat().st_size <= 2_000_000
    done = adhere(run, "--all-rows")
    assert done.returncode == 0, done.stderr
    size = (run / "report.html").stat().st_size
    assert size > 2_500_000
    assert f"report.html ({size / 1e6:.1f} MB)" in done.stdout
    assert "Showing 44 of 44 rows" in (run / "report.html").read_text("utf-8")


@pytest.mark.parametrize("form", ["table", "markdown"])
def test_withheld_numbers_are_not_printed(tmp_path, form):
    run = judged_samples.write_run(tmp_path / "run", withheld=True)
    done = adhere(run, "--format", form)
    assert done.returncode == 0, done.stderr
    assert "withheld" in done.stdout
    assert "0.750" not in done.stdout
    assert judged_samples.summary()["headline"] not in " ".join(done.stdout.split())


@pytest.mark.parametrize(("option", "name"), [("--parquet", "rows.parquet"), ("--inspect", "log.json")])  # fmt: skip
def test_other_forms_are_written_beside_it(tmp_path, option, name):
    needed = {"--parquet": "pyarrow", "--inspect": "inspect_ai"}[option]
    if find_spec(needed) is None:
        pytest.skip(f"{needed} is not installed")
    run = judged_samples.write_run(tmp_path / "run")
    done = adhere(run, option, tmp_path / name)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / name).stat().st_size > 100
    assert f"{name} (" in "".join(done.stdout.split("\n"))
