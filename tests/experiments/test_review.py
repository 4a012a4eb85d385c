"""Ways in which a run could say something untrue, each found once and kept out since."""

from __future__ import annotations

import asyncio
import json

import pytest

from adhere.errors import BadInput
from adhere.experiments.comparison import compare_runs
from adhere.experiments.plan_file import read_plan
from adhere.experiments.run import run_experiment
from support.fake_server import FakeServer, Fault, Reply

SPEC = """\
# Test assistant

## Safety
- [no-bomb] Never say bomb.
  check: absent("bomb")

## Behavioral
- [short] At most five words.
  check: words(max=5)
"""


@pytest.fixture
def files(tmp_path):
    (tmp_path / "spec.md").write_text(SPEC)
    write_prompts(tmp_path, [f"Question {i}?" for i in range(4)])
    return tmp_path


def write_prompts(folder, texts):
    lines = [json.dumps({"id": f"p{i}", "prompt": text}) + "\n" for i, text in enumerate(texts)]
    (folder / "prompts.jsonl").write_text("".join(lines))


def run(files, server, methods=("vanilla",), out="run", **more):
    plan = {
        "spec": files / "spec.md",
        "order": "spec_first",
        "prompts": [files / "prompts.jsonl"],
        "models": [{"model": "openai:m", "base_url": server.url, "prefill": "none"}],
        "methods": list(methods),
        "out": files / out,
        "limits": {"attempts": 1, "timeout": 5},
        **more,
    }
    return asyncio.run(run_experiment(read_plan(None, plan)))


def table(result, method="vanilla"):
    return next(r for r in result.summary["rows"] if r["method"] == method)


def test_models_that_look_the_same_are_refused_and_a_name_tells_them_apart(files):
    with FakeServer(lambda p, b: Reply("one")) as a, FakeServer(lambda p, b: Reply("two")) as b:
        twins = [
            {"model": "openai:m", "name": name, "base_url": s.url, "prefill": "none"}
            for name, s in (("left", a), ("right", b))
        ]
        run(files, a, models=twins)
        rows = [json.loads(line) for line in (files / "run" / "results.jsonl").open()]
        assert {(r["model"], r["text"]) for r in rows} == {("left", "one"), ("right", "two")}


def test_what_the_request_carries_is_part_of_the_models_identity(files):
    with FakeServer() as server:
        run(files, server)
        changed = {"model": "openai:m", "base_url": server.url, "prefill": "none"}
        with pytest.raises(BadInput, match="identity"):
            run(files, server, models=[{**changed, "extra_body": {"think": False}}])
        record = (files / "run" / "run.yaml").read_text()
        with pytest.raises(BadInput, match="identity"):
            run(files, server, ["vanilla", "raw"], models=[{**changed, "thinks": False}])
        assert (files / "run" / "run.yaml").read_text() == record


@pytest.mark.parametrize("change", [{"sampling": {"top_p": 0.5}}, {"budget": {"tokens": 9}}])
def test_settings_cannot_be_added_to_a_run(files, change):
    with FakeServer() as server:
        run(files, server)
        with pytest.raises(BadInput, match="another identity"):
            run(files, server, **change)


@pytest.mark.parametrize(
    ("gone", "kind"),
    [('  check: absent("bomb")\n', "safety"), ("  check: words(max=5)\n", "behavioral")],
)
def test_a_kind_that_nobody_decides_has_no_number(files, gone, kind):
    (files / "spec.md").write_text(SPEC.replace(gone, ""))
    with FakeServer() as server:
        result = run(files, server)
    row = table(result)
    assert row[kind] is None
    assert row["sar"] is None
    assert "not measured" in result.summary["headline"]
    assert kind in result.summary["headline"]


def test_the_same_prompt_twice_is_refused(files):
    write_prompts(files, ["Same?", "Other?", "Same?"])
    with FakeServer() as server, pytest.raises(BadInput, match=r"jsonl:3.*line 1"):
        run(files, server)


def test_what_came_to_nothing_still_had_its_price(files):
    def reply(path, body):
        if "Question 0?" in body["messages"][-1]["content"]:
            return Reply("<think>\non and on", finish="length", completion_tokens=500)
        return Reply(completion_tokens=4)

    with FakeServer(reply) as server:
        result = run(files, server)
    row = table(result)
    assert row["completion_tokens"] == pytest.approx((500 + 3 * 4) / 4)
    assert row["n_truncated"] == 1
    lost = json.loads((files / "run" / "results.jsonl").open().readline())
    assert lost["steps"][0]["text"].startswith("<think>")


def test_a_row_that_the_server_refused_is_tried_again_after_mending(files):
    broken = [True]

    def reply(path, body):
        return Fault(400) if broken[0] else Reply()

    with FakeServer(reply) as server:
        assert run(files, server).exit_code == 3
        broken[0] = False
        result = run(files, server)
    assert result.exit_code == 0
    assert table(result)["n_scored"] == 4


def test_a_second_start_keeps_models_and_baseline_of_the_folder(files):
    with FakeServer() as server:
        first = run(files, server, ["vanilla", "raw"])
        again = run(files, server, ["raw"])
    assert again.did_nothing
    assert again.summary["models"] == first.summary["models"] != []
    assert again.summary["settings"]["baseline"] == "vanilla"
    assert again.summary["finished"]


def test_a_half_done_method_keeps_the_folder_unfinished(files):
    def reply(path, body):
        return Fault(500) if len(body["messages"]) == 1 else Reply()

    with FakeServer(reply) as server:
        run(files, server, ["vanilla", "raw"])
        result = run(files, server, ["vanilla"])
    assert result.exit_code == 0  # this start's own rows are all there
    assert not result.summary["finished"]


def test_repeats_share_draws_between_methods_and_do_not_overlap(files):
    with FakeServer() as server:
        run(files, server, ["vanilla", "best_of_n:selector=checks,n=3"], repeats=2)
        # 4 prompts, 2 repeats, 3 candidates; the vanilla answer is the first of them.
        assert len(server.calls) == 24


def test_one_withheld_candidate_does_not_lose_the_row(files):
    withheld = iter([True])

    def reply(path, body):
        return Reply("x", finish="content_filter") if next(withheld, False) else Reply("fine")

    with FakeServer(reply) as server:
        result = run(
            files,
            server,
            ["best_of_n:selector=checks,n=3"],
            limits={"concurrency": 1, "attempts": 1},
        )
    assert table(result, "best_of_n")["n_scored"] == 4


def test_repair_keeps_its_answer_when_a_round_comes_to_nothing(files):
    def reply(path, body):
        if len(body["messages"]) > 2:
            return Reply("<think>\nno end", finish="length")
        return Reply("far too many words for this short rule")

    with FakeServer(reply) as server:
        result = run(files, server, ["repair"])
    assert table(result, "repair")["n_scored"] == 4


def test_a_thought_that_was_never_closed_is_named_in_the_table(files):
    with FakeServer(lambda p, b: Reply("just talk"), template=True) as server:
        model = {"model": "openai:m", "base_url": server.url}
        result = run(files, server, ["align3"], models=[model])
    assert table(result, "align3")["variant"] == "4 of 4 thoughts never closed"


def test_prompts_with_the_same_id_but_another_text_are_not_paired(files):
    with FakeServer() as server:
        run(files, server, out="a")
        write_prompts(files, ["Question 0?", "Something else?", "Question 2?", "Question 3?"])
        run(files, server, out="b")
    found = compare_runs(files / "a", files / "b")
    assert found.differences[0].n_paired == 3
    assert any("another text" in note for note in found.notes)


def test_a_rule_whose_check_changed_is_not_compared(files):
    with FakeServer() as server:
        run(files, server, out="a")
        (files / "spec.md").write_text(SPEC.replace("words(max=5)", "words(max=9)"))
        run(files, server, out="b")
    found = compare_runs(files / "a", files / "b")
    assert set(found.differences[0].rules) == {"no-bomb"}


def test_the_headline_pairs_its_two_means(files):
    def reply(path, body):
        vanilla = len(body["messages"]) == 2
        if not vanilla and "Question 0?" in body["messages"][-1]["content"]:
            return Fault(400)
        return Reply("a bomb" if vanilla and "0?" in body["messages"][-1]["content"] else "fine")

    with FakeServer(reply) as server:
        result = run(files, server, ["vanilla", "raw"], max_unscored=1.0)
    assert "SAR 1.00 to 1.00 (+0.00" in result.summary["headline"]
    assert "3 paired prompts" in result.summary["headline"]
