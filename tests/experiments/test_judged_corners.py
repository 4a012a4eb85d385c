"""Corners of judged runs: answers that change, faults that stay, probes and limits at bad moments."""

from __future__ import annotations

import json
from typing import Any

import pytest

from adhere.errors import BadInput, Overloaded
from adhere.experiments.calibrating import calibrate_run
from adhere.experiments.plan_file import read_plan
from support.fake_server import FakeServer, Fault, Reply
from support.judging import is_judging, joint_reply, judge_handler
from support.runs import SPEC, judge_given, line, plan, rows, run, write_inputs


def decide(rule: str, answer: str) -> str:
    return "NO" if ("rude" in rule and "fool" in answer) or "mg" in answer else "YES"


HANDLER = judge_handler(decide, lambda body: f"Fine. {body['messages'][-1]['content'][:12]}")


def write_answers(folder, *answers: str, name: str = "answers.jsonl"):
    file = folder / name
    lines = [{"prompt": f"Q{i}?", "response": text} for i, text in enumerate(answers)]
    file.write_text("".join(json.dumps(one) + "\n" for one in lines))
    return file


def test_a_changed_answer_is_judged_anew(tmp_path):
    write_inputs(tmp_path)
    with FakeServer(HANDLER) as server:
        first = judge_given(tmp_path, server, responses=write_answers(tmp_path, "Rest.", "Drink."))
        made = len(server.calls)
        file = write_answers(tmp_path, "Take 400 mg now.", "Drink.")
        second = judge_given(tmp_path, server, responses=file)
        assert len(server.calls) == made + 1
    assert line(first, "given")["safety"] == 1.0
    assert line(second, "given")["safety"] == 0.5
    assert [r["text"] for r in rows(tmp_path / "judged")] == ["Take 400 mg now.", "Drink."]


def test_answers_that_were_taken_out_or_are_empty_are_counted_right(tmp_path):
    write_inputs(tmp_path)
    with FakeServer(HANDLER) as server:
        judge_given(tmp_path, server, responses=write_answers(tmp_path, "Rest.", "Drink.", "Eat."))
        result = judge_given(tmp_path, server, responses=write_answers(tmp_path, "Rest.", ""))
    given = line(result, "given")
    assert (given["n"], given["n_scored"], given["n_unscored"]) == (2, 1, 1)


def test_nothing_but_empty_answers(tmp_path):
    write_inputs(tmp_path)
    with FakeServer(HANDLER) as server:
        file = write_answers(tmp_path, " ", "")
        result = judge_given(tmp_path, server, responses=file, judge=None)
    assert line(result, "given")["n"] == 2
    assert line(result, "given")["n_unscored"] == 2
    assert result.exit_code == 3


def test_another_source_does_not_go_into_the_same_folder(tmp_path):
    write_inputs(tmp_path)
    with FakeServer(HANDLER) as server:
        judge_given(tmp_path, server, responses=write_answers(tmp_path, "Rest."))
        with pytest.raises(BadInput, match="source"):
            file = write_answers(tmp_path, "Rest.", name="other.jsonl")
            judge_given(tmp_path, server, responses=file)


def test_rows_that_the_judge_can_never_decide_do_not_stop_every_start(tmp_path):
    write_inputs(tmp_path, prompts=60)

    def handler(path: str, body: dict[str, Any]) -> Reply | Fault:
        text = json.dumps(body)
        if is_judging(body) and any(f"Fine. Question {i}?" in text for i in range(0, 50, 2)):
            return Fault(503)
        return HANDLER(path, body)

    with FakeServer(handler) as server:
        made = plan(tmp_path, server, methods=["raw"], max_unscored=0.5)
        first = run(made)
        assert first.stopped == ""
        tried = sum(is_judging(b) for b in server.bodies())
        second = run(made)
        # One try a start for each of the 25, and no more.
        assert sum(is_judging(b) for b in server.bodies()) - tried == 25
    assert second.stopped == ""
    assert line(second, "raw")["n_unscored"] == 25
    assert {r["method"] for r in second.summary["rows"] if r["control"]}


def test_a_filter_of_the_judge_is_a_fault_of_the_row_alone(tmp_path):
    write_inputs(tmp_path, prompts=40)

    def handler(path: str, body: dict[str, Any]) -> Reply | Fault:
        if is_judging(body) and "Question" in json.dumps(body):
            return Reply("", "content_filter")
        return HANDLER(path, body)

    with FakeServer(handler) as server:
        result = run(plan(tmp_path, server, methods=["raw"], controls=0))
        calls = len(server.calls)
        run(plan(tmp_path, server, methods=["raw"], controls=0))
        assert len(server.calls) == calls  # asked again it would be filtered again
    assert result.stopped == ""
    assert line(result, "raw")["n_unscored"] == 40
    assert result.exit_code == 3


def test_an_overloaded_server_has_not_said_that_it_knows_no_schemas(tmp_path):
    write_inputs(tmp_path)
    overloaded = True

    def handler(path: str, body: dict[str, Any]) -> Reply | Fault:
        form = body.get("response_format")
        if form and "answer" in form["json_schema"]["schema"]["properties"]:
            return Fault(503) if overloaded else Reply('{"answer": "violet-47"}')
        if is_judging(body):
            return Reply(joint_reply(body, decide))
        return HANDLER(path, body)

    with FakeServer(handler) as server:
        judge = {"model": "openai:judge", "base_url": server.url, "prefill": "none"}
        with pytest.raises(Overloaded):
            run(plan(tmp_path, server, judge=judge))
        overloaded = False
        result = run(plan(tmp_path, server, judge=judge))
    assert "output=json" in result.summary["judges"][0]["identity"]


def test_controls_that_the_judge_failed_on_are_asked_again(tmp_path):
    write_inputs(tmp_path)
    broken = True

    def handler(path: str, body: dict[str, Any]) -> Reply | Fault:
        if is_judging(body) and broken and "I can't help" in json.dumps(body):
            return Fault(503)
        return HANDLER(path, body)

    with FakeServer(handler) as server:
        result = run(plan(tmp_path, server))
        controls = {r["method"]: r for r in result.summary["rows"] if r["control"]}
        assert controls["canned refusal"]["n_scored"] == 0
        broken = False
        result = run(plan(tmp_path, server))
    controls = {r["method"]: r for r in result.summary["rows"] if r["control"]}
    assert controls["canned refusal"]["n_scored"] > 0


def test_a_calibration_of_another_judge_is_refused_before_anything_is_sampled(tmp_path):
    write_inputs(tmp_path)
    label = {"prompt": "Question 1?", "response": "x", "rule": "kind", "mark": "YES"}
    with FakeServer(HANDLER) as server:
        run(plan(tmp_path, server, methods=["raw"]))
        answers = {r["prompt"]: r["text"] for r in rows(tmp_path / "run")}
        labels = [{**label, "prompt": p, "response": a} for p, a in answers.items()]
        (tmp_path / "labels.jsonl").write_text("".join(json.dumps(x) + "\n" for x in labels))
        found = calibrate_run(tmp_path / "labels.jsonl", tmp_path / "run")
        made = len(server.calls)
        other = {"model": "openai:other", "base_url": server.url, "output": "text"}
        fields = {"judge": other, "calibration": found.path, "out": tmp_path / "new"}
        with pytest.raises(BadInput, match="calibration is of the judge"):
            run(plan(tmp_path, server, **fields))
        assert len(server.calls) == made
        assert not (tmp_path / "new").exists()
        # Of the same judge it is taken, and says what it cannot say.
        result = run(plan(tmp_path, server, calibration=found.path, out=tmp_path / "same"))
    corrected = result.summary["judge_trust"]["corrected"]
    assert {c["rule"] for c in corrected} == {"rude", "kind"}
    assert all(c["value"] is None and "unknown" in c["method_name"] for c in corrected)


def test_a_calibration_of_a_rule_does_not_hold_for_the_edited_rule(tmp_path):
    write_inputs(tmp_path)
    with FakeServer(HANDLER) as server:
        run(plan(tmp_path, server, methods=["raw"]))
        answers = {r["prompt"]: r["text"] for r in rows(tmp_path / "run")}
        labels = [
            {"prompt": p, "response": a, "rule": rule, "mark": "YES"}
            for p, a in answers.items()
            for rule in ("kind", "rude")
        ]
        (tmp_path / "labels.jsonl").write_text("".join(json.dumps(x) + "\n" for x in labels))
        found = calibrate_run(tmp_path / "labels.jsonl", tmp_path / "run")
        (tmp_path / "spec.md").write_text(SPEC.replace("Be kind.", "Be very kind."))
        fields = {"calibration": found.path, "reuse": tmp_path / "run", "out": tmp_path / "new"}
        result = run(plan(tmp_path, server, methods=["raw"], **fields))
    used = {c["rule"]: c["calibrated_on"] for c in result.summary["judge_trust"]["corrected"]}
    assert used == {"rude": "rude", "kind": "all rules together"}


def test_a_killed_run_is_not_reused_before_it_has_a_summary(tmp_path):
    write_inputs(tmp_path)
    with FakeServer(HANDLER) as server:
        run(plan(tmp_path, server))
        (tmp_path / "run" / "summary.json").unlink()
        with pytest.raises(BadInput, match=r"summary\.json"):
            run(plan(tmp_path, server, out=tmp_path / "new", reuse=tmp_path / "run"))
    assert not (tmp_path / "new").exists()


def test_another_judge_is_not_reported_as_an_edit(tmp_path):
    write_inputs(tmp_path)
    with FakeServer(HANDLER) as server:
        run(plan(tmp_path, server))
        other = {"model": "openai:other", "base_url": server.url, "output": "text"}
        result = judge_given(tmp_path, server, run=tmp_path / "run", judge=other)
    assert result.summary["edits"] is None


def test_a_run_that_another_model_left_unfinished_is_not_finished(tmp_path):
    write_inputs(tmp_path, prompts=30)
    with FakeServer(lambda path, body: Reply("fine")) as server:
        fields = {"judge": None, "methods": ["raw"], "sampling": {"max_tokens": 5}}
        stopped = run(plan(tmp_path, server, stop={"tokens": 100}, **fields))
        assert stopped.exit_code == 4
        other = [{"model": "openai:second", "base_url": server.url, "prefill": "none"}]
        result = run(plan(tmp_path, server, models=other, **fields))
    assert not result.summary["finished"]


def test_rows_have_the_scores_of_the_alpha_that_the_table_has(tmp_path):
    write_inputs(tmp_path)
    with FakeServer(HANDLER) as server:
        run(plan(tmp_path, server, methods=["raw"], alpha=0.3))
        result = run(plan(tmp_path, server, methods=["raw"], alpha=0.9))
    scores = [r["score"] for r in rows(tmp_path / "run")]
    assert sum(scores) / len(scores) == pytest.approx(line(result, "raw")["sar"])


def test_a_mark_on_refusals_does_not_outlive_a_turn_of_its_rule(tmp_path):
    spec = "# A\n## Behavioral\n- [a] About refusing.\n  category: {}\n- [b] x\n  check: words(max=99)\n"
    write_inputs(tmp_path, spec=spec.format("refusal"))

    def handler(path: str, body: dict[str, Any]) -> Reply:
        return Reply("It does. <REFUSES>") if is_judging(body) else HANDLER(path, body)

    with FakeServer(handler) as server:
        judge = {
            "model": "openai:judge", "base_url": server.url, "mode": "refusal", "output": "text"
        }  # fmt: skip
        made = {"judge": judge, "methods": ["raw"]}
        run(plan(tmp_path, server, **made))
        (tmp_path / "spec.md").write_text(spec.format("compliance"))
        run(plan(tmp_path, server, out=tmp_path / "new", reuse=tmp_path / "run", **made))
    assert {r["marks"]["a"] for r in rows(tmp_path / "run")} == {"YES"}
    assert {r["marks"]["a"] for r in rows(tmp_path / "new")} == {"NO"}


def test_limits_hold_with_a_server_that_counts_no_tokens(tmp_path):
    write_inputs(tmp_path, prompts=40)

    def handler(path: str, body: dict[str, Any]) -> Reply:
        return Reply("fine", prompt_tokens=0, completion_tokens=0, delay=0.02)

    with FakeServer(handler) as server:
        fields = {"judge": None, "methods": ["raw"], "sampling": {"max_tokens": 50}}
        result = run(plan(tmp_path, server, stop={"tokens": 1000}, **fields))
        assert result.exit_code == 4
        assert len(server.calls) <= 20
        assert server.most_in_flight > 1


def test_a_judge_on_the_command_line_replaces_the_one_of_the_file(tmp_path):
    (tmp_path / "adhere.yaml").write_text(
        "spec: s.md\nprompts: p.jsonl\nmodels: openai:m\nmethods: raw\njudge: openai:first\n"
    )
    file = tmp_path / "adhere.yaml"
    assert read_plan(file, {"judge": {"mode": "sequential"}}).judge.mode == "sequential"
    other = read_plan(file, {"judge": {"model": "openai:second"}}).judge
    assert (other.model, other.mode) == ("openai:second", "joint")
    with pytest.raises(BadInput) as caught:
        read_plan(file, {"judge": {"moed": "joint"}})
    assert "reasks" in caught.value.hint


def test_a_model_that_judges_itself_is_pointed_out(tmp_path):
    write_inputs(tmp_path)
    with FakeServer(HANDLER) as server:
        same = {"model": "openai:policy", "base_url": server.url, "output": "text"}
        result = run(plan(tmp_path, server, judge=same))
        other = run(plan(tmp_path, server, out=tmp_path / "other"))
    assert "flatters itself" in result.summary["settings"]["note"]
    assert "note" not in other.summary["settings"]


def test_one_server_has_one_limit_for_all_its_models(tmp_path):
    write_inputs(tmp_path, prompts=30)

    def slow(path: str, body: dict[str, Any]) -> Reply:
        good = HANDLER(path, body)
        return Reply(good.text, delay=0.02)

    with FakeServer(slow) as server:
        run(plan(tmp_path, server, methods=["raw"], limits={"concurrency": 4}))
        assert server.most_in_flight == 4
