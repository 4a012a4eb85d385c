"""Exports read back with the tools they are made for. Without those tools: what the user is told."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from adhere.errors import BadInput
from adhere.reporting.exports import BATCH, write_inspect_log, write_parquet
from reporting import report_samples as samples

HAS_ARROW = importlib.util.find_spec("pyarrow") is not None
HAS_INSPECT = importlib.util.find_spec("inspect_ai") is not None
arrow = pytest.mark.skipif(not HAS_ARROW, reason="needs pyarrow (the extra `parquet`)")
inspect = pytest.mark.skipif(not HAS_INSPECT, reason="needs inspect_ai (the extra `inspect`)")

EXTRA = {  # what newer runs record besides
    "judged": True,
    "twins": {"no-dose": "YES"},
    "judge_usage": {"prompt_tokens": 70, "cached_prompt_tokens": 0, "completion_tokens": 7,
                    "calls": 1, "seconds": 0.5},
    "judge_reasks": 1,
}  # fmt: skip


@pytest.fixture
def run(tmp_path):
    return samples.write_run(tmp_path / "run")


def rewrite(run, rows):
    (run / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def read_table(path):
    from pyarrow import parquet

    return parquet.read_table(path).to_pylist()


# ---------------------------------------------------------------- Parquet


@arrow
def test_a_table_holds_every_row_whole(run, tmp_path):
    assert write_parquet(run, tmp_path / "x.parquet") == 36
    back, rows = read_table(tmp_path / "x.parquet"), samples.rows()
    assert len(back) == len(rows)
    for got, row in zip(back, rows, strict=True):
        for key in (
            "suite",
            "case",
            "model",
            "method",
            "repeat",
            "text",
            "outcome",
            "score",
            "cut",
        ):
            assert got[key] == row[key]
        for key in ("marks", "deciders", "messages", "steps", "usage", "facts"):
            assert json.loads(got[key]) == row[key]
        used = row["usage"].get("policy", {})
        assert got["completion_tokens"] == used.get("completion_tokens", 0)
        assert got["judged"] is None
        assert got["judge_calls"] is None
    failed = next(got for got in back if got["outcome"] == "failed")
    assert (failed["error_kind"], failed["score"]) == ("Timeout", None)
    assert "120 s" in failed["error_message"]
    assert not list(tmp_path.glob(".*.tmp"))


@arrow
def test_columns_and_types_are_the_same_for_every_run(run, tmp_path):
    from pyarrow import parquet

    write_parquet(run, tmp_path / "old.parquet")
    rewrite(run, [row | EXTRA for row in samples.rows()][:1])
    write_parquet(run, tmp_path / "new.parquet")
    rewrite(run, [])
    assert write_parquet(run, tmp_path / "none.parquet") == 0
    old, new, none = (
        parquet.read_schema(tmp_path / f"{n}.parquet") for n in ("old", "new", "none")
    )
    assert old.equals(new)
    assert old.equals(none)
    [row] = read_table(tmp_path / "new.parquet")
    assert (row["judged"], row["judge_completion_tokens"], row["judge_reasks"]) == (True, 7, 1)
    assert json.loads(row["twins"]) == {"no-dose": "YES"}


@arrow
def test_rows_are_written_in_batches_and_never_held_whole(run, tmp_path):
    from pyarrow import parquet

    row = samples.rows()[0]
    rewrite(run, [row | {"case": f"c{i}"} for i in range(2 * BATCH + 1)])
    assert write_parquet(run, tmp_path / "x.parquet") == 2 * BATCH + 1
    file = parquet.ParquetFile(tmp_path / "x.parquet")
    assert file.num_row_groups == 3
    assert [r["case"] for r in read_table(tmp_path / "x.parquet")][-1] == f"c{2 * BATCH}"


@arrow
def test_halves_of_characters_and_zeros_survive_as_text(run, tmp_path):
    rewrite(run, [samples.rows()[0] | {"text": "a\ud800b\x00c 🙂", "facts": {"x": "\udfff"}}])
    write_parquet(run, tmp_path / "x.parquet")
    [row] = read_table(tmp_path / "x.parquet")
    assert row["text"] == "a\ufffdb\x00c 🙂"
    assert json.loads(row["facts"]) == {"x": "\udfff"}


@arrow
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"score": "high"}, "'score' as 'high'; expected double"),
        ({"repeat": "first"}, "'repeat' as 'first'; expected int32"),
        ({"text": 3}, "'text' as 3; expected string"),
        ({"usage": {"policy": {"calls": "two"}}}, "expected int64"),
        ({"facts": {"x": float("nan")}}, "expected JSON"),
    ],
)
def test_a_value_of_another_type_is_named_and_nothing_is_left_behind(run, tmp_path, change, said):
    rows = samples.rows()
    rewrite(run, [rows[0], rows[1] | change])
    (tmp_path / "x.parquet").write_text("what was there before")
    with pytest.raises(BadInput) as caught:
        write_parquet(run, tmp_path / "x.parquet")
    assert "results.jsonl: row 2: found" in str(caught.value)
    assert said in str(caught.value)
    assert (tmp_path / "x.parquet").read_text() == "what was there before"
    assert not list(tmp_path.glob(".*.tmp"))


@arrow
def test_a_torn_run_or_a_wrong_path_is_refused(run, tmp_path):
    with pytest.raises(BadInput, match=r"expected \.parquet"):
        write_parquet(run, run / "results.jsonl")
    with pytest.raises(BadInput, match="no_such_folder"):
        write_parquet(run, tmp_path / "no_such_folder" / "x.parquet")
    with pytest.raises(BadInput, match="no such run folder"):
        write_parquet(tmp_path / "nothing", tmp_path / "x.parquet")
    with (run / "results.jsonl").open("a") as file:
        file.write('{"half": ')
    with pytest.raises(BadInput, match="half a row"):
        write_parquet(run, tmp_path / "x.parquet")
    assert not (tmp_path / "x.parquet").exists()


@arrow
def test_duckdb_reads_marks_as_the_documentation_says(run, tmp_path):
    duckdb = pytest.importorskip("duckdb", reason="needs duckdb, which no extra brings")
    write_parquet(run, tmp_path / "x.parquet")
    query = f"""SELECT method, count(*) FILTER (marks->>'no-dose' = 'NO')
                FROM '{tmp_path}/x.parquet' WHERE outcome = 'scored' GROUP BY method"""
    wanted = {}
    for row in samples.rows():
        if row["outcome"] == "scored":
            count = wanted.setdefault(row["method"], 0)
            wanted[row["method"]] = count + (row["marks"].get("no-dose") == "NO")
    assert dict(duckdb.sql(query).fetchall()) == wanted


# ---------------------------------------------------------------- Inspect


@inspect
@pytest.mark.parametrize("format", ["eval", "json"])
def test_a_run_is_one_inspect_log_for_each_method(run, tmp_path, format):
    from inspect_ai.log import list_eval_logs, read_eval_log

    rows = samples.rows()
    paths = write_inspect_log(run, tmp_path / "logs", format=format)
    assert len(paths) == 3
    assert {Path(info.name).name for info in list_eval_logs(str(tmp_path / "logs"))} == {
        path.name for path in paths
    }
    logs = {log.eval.solver: log for log in (read_eval_log(str(path)) for path in paths)}
    assert set(logs) == {"vanilla", "best_of_n", "align3"}
    for method, log in logs.items():
        own = [row for row in rows if row["method"] == method]
        assert (log.status, log.eval.task) == ("success", f"prompts-{method}")
        assert log.eval.model == "local/smollm2-135m"
        assert log.eval.model_generate_config.max_tokens == 512
        assert [sample.id for sample in log.samples] == [row["case"] for row in own]
        for sample, row in zip(log.samples, own, strict=True):
            check_sample(sample, row)
        wanted = {r["method"]: r for r in samples.summary()["rows"] if r["subset"] == "all"}[method]
        scores = {score.name: score.metrics for score in log.results.scores}
        for rate in ("sar", "safety", "behavioral"):
            assert scores[rate]["mean"].value == pytest.approx(wanted[rate])
            assert scores[rate]["low"].value == pytest.approx(wanted[f"{rate}_low"])
        marks = [row["marks"].get("short") for row in own if row["outcome"] == "scored"]
        counts = next(
            r for r in samples.summary()["rules"] if (r["method"], r["rule"]) == (method, "short")
        )
        followed = counts["yes"] / (counts["yes"] + counts["no"])
        assert scores["rule:short"]["followed"].value == pytest.approx(followed)
        assert marks
        total = sum(row["usage"].get("policy", {}).get("completion_tokens", 0) for row in own)
        assert log.stats.model_usage["local/smollm2-135m"].output_tokens == total


def check_sample(sample, row):
    assert sample.epoch == row["repeat"] + 1
    assert [m.role for m in sample.input] == [m["role"] for m in row["messages"]]
    assert sample.input[-1].text == row["messages"][-1]["content"]
    assert sample.metadata["outcome"] == row["outcome"]
    assert sample.metadata["method"] == row["method"]
    if row["outcome"] != "scored":
        assert not sample.scores
        assert sample.metadata["reason"] == row["reason"]
    else:
        assert sample.output.completion == row["text"]
        assert sample.scores["sar"].value == row["score"]
        assert sample.scores["safety"].value == row["safety"]
        letters = {"YES": "C", "NO": "I", "NA": "N"}
        assert {
            name[5:]: score.value for name, score in sample.scores.items() if name[:5] == "rule:"
        } == {rule: letters[mark] for rule, mark in row["marks"].items()}
        assert sample.scores["rule:short"].metadata["decider"] == row["deciders"]["short"]
    if row["outcome"] == "failed":
        assert row["error"]["message"] in sample.error.message
    else:
        assert sample.error is None
    used = row["usage"].get("policy")
    if used:
        usage = sample.model_usage["local/smollm2-135m"]
        assert usage.input_tokens + usage.input_tokens_cache_read == used["prompt_tokens"]
        assert usage.input_tokens_cache_read == used["cached_prompt_tokens"]


@inspect
def test_one_file_holds_one_method_only(run, tmp_path):
    from inspect_ai.log import read_eval_log

    with pytest.raises(BadInput, match="found 3 pairs") as caught:
        write_inspect_log(run, tmp_path / "x.eval")
    assert "folder" in caught.value.hint
    rewrite(run, [row for row in samples.rows() if row["method"] == "align3"])
    for name in ("x.eval", "x.json"):
        assert write_inspect_log(run, tmp_path / name) == [tmp_path / name]
        assert read_eval_log(str(tmp_path / name)).eval.solver == "align3"
    assert not list(tmp_path.glob(".*.tmp"))


@inspect
def test_writing_logs_again_replaces_them(run, tmp_path):
    first = write_inspect_log(run, tmp_path / "logs")
    assert write_inspect_log(run, tmp_path / "logs") == first
    assert len(list((tmp_path / "logs").iterdir())) == 3


@inspect
def test_odd_texts_parts_and_names_reach_the_log(run, tmp_path):
    from inspect_ai.log import read_eval_log

    row = samples.rows()[0] | {
        "text": "a\ud800b", "thought": "first I think", "model": "big/ model:é",
        "case": "id/with odd:chars", "repeat": 2, "finish_reason": "length",
        "messages": [
            {"role": "developer", "content": "D"},
            {"role": "user", "content": [{"type": "text", "text": "T"},
                                         {"type": "image_url", "image_url": {"url": "http://x/i.png"}}]},
            {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "f"}}]},
            {"role": "tool", "content": "R", "tool_call_id": "1"},
            {"role": "user", "content": "Go on"},
        ],
    }  # fmt: skip
    rewrite(run, [row])
    [path] = write_inspect_log(run, tmp_path / "logs")
    log = read_eval_log(str(path))
    [sample] = log.samples
    assert sample.output.completion == "a\ufffdb"
    assert sample.output.choices[0].message.content[0].reasoning == "first I think"
    assert sample.output.stop_reason == "max_tokens"
    assert (sample.id, sample.epoch, log.eval.config.epochs) == ("id/with odd:chars", 3, 3)
    assert log.eval.metadata["model"] == "big/ model:é"
    assert "i.png" in sample.input[1].text
    assert '"name": "f"' in sample.input[2].text


@inspect
def test_a_distrusted_judges_rates_are_no_results(run, tmp_path):
    from inspect_ai.log import read_eval_log

    data = samples.summary()
    for entry in data["rules"]:
        entry["deciders"] = {"the judge" if entry["rule"] == "short" else "check": 12}
    data["judge_trust"] = {"judge": "the judge", "withheld": True, "why": "AUC 0.6"}
    data["finished"] = False
    (run / "summary.json").write_text(json.dumps(data))
    log = read_eval_log(str(write_inspect_log(run, tmp_path / "logs")[0]))
    names = {score.name for score in log.results.scores}
    assert "safety" in names  # by checks alone
    assert "rule:sections" in names
    assert names.isdisjoint({"sar", "behavioral", "rule:short"})
    assert log.eval.metadata["judge_trust"]["why"] == "AUC 0.6"
    assert log.status == "cancelled"


@inspect
def test_a_row_that_is_no_row_is_named(run, tmp_path):
    rewrite(run, [{"suite": "s", "model": "m", "method": "x", "messages": []}])
    with pytest.raises(BadInput, match="row 1: found KeyError"):
        write_inspect_log(run, tmp_path / "logs")
    rewrite(run, [samples.rows()[0] | {"marks": {"short": "MAYBE"}}])
    with pytest.raises(BadInput, match="row 1"):
        write_inspect_log(run, tmp_path / "logs")


# ---------------------------------------------------------------- without the packages


@pytest.mark.parametrize(
    ("write", "package", "extra"),
    [(write_parquet, "pyarrow", "parquet"), (write_inspect_log, "inspect_ai", "inspect")],
)
def test_a_missing_package_is_named_with_its_extra(
    run, tmp_path, monkeypatch, write, package, extra
):
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    with pytest.raises(BadInput, match=package) as caught:
        write(run, tmp_path / "x.parquet")
    assert caught.value.hint == f"pip install 'adhere[{extra}]'"
    assert not (tmp_path / "x.parquet").exists()
