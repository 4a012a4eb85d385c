"""The recorded end-to-end run of SpecBench's published code: same replies, same nine numbers."""

from __future__ import annotations

import json
import random
import re
import threading
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from support.fake_server import FakeServer, Reply
from support.judging import examined
from support.runs import judge_given, rows

GOLDEN = json.loads(
    (Path(__file__).parent.parent / "fixtures" / "specbench_judging.json").read_text()
)
RECORDED = GOLDEN["end_to_end_joint"]
REPLIES: dict[str, list[str]] = RECORDED["judge_replies"]
NINE = RECORDED["result"]["score_json"]
VERDICTS = {f"q{i}": v for i, v in enumerate(RECORDED["result"]["per_sample"])}
SUBSETS = {"full_dataset": "all", "unsafe_subset": "unsafe", "safe_subset": "safe"}
MEASURES = {"safety": "safety", "behavioral": "behavioral", "SAR": "sar"}
COMPATS = ("strict", "official")


def response(item: dict[str, Any]) -> str:
    text = item["response"]
    if isinstance(text, str):
        return text
    letter, times = text["repeat"]
    return text["prefix"] + letter * times + text["suffix"]


def write(folder: Path, chosen: list[int], order: random.Random | None = None) -> dict[str, str]:
    """Spec and answers as files; the answers by the number of their prompt."""
    (folder / "specifications.json").write_text(json.dumps(GOLDEN["spec"]))
    lines = []
    for number in chosen:
        item = RECORDED["dataset"][number]
        data = item["data"]
        lines.append(
            {
                "id": f"q{number}", "prompt": data["adversarial_prompt"],
                "judged_prompt": data["prompt"], "label": data["label"],
                "reference": data["answer"], "response": response(item),
            }
        )  # fmt: skip
    if order is not None:
        order.shuffle(lines)
    (folder / "answers.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    return {line["id"]: line["response"] for line in lines}


def prompt_of(body: dict[str, Any]) -> str:
    return next(m["content"] for m in body["messages"] if m["role"] == "user")


def number_of(body: dict[str, Any]) -> str:
    """The recorded prompt that a request to the judge is about."""
    found = set(re.findall(r"ORIG-(q\d)", prompt_of(body)))
    assert len(found) == 1
    return found.pop()


class RecordedJudge:
    """Replies as recorded: to each prompt its replies in turn."""

    def __init__(self, seed: int) -> None:
        self.asked: dict[str, int] = defaultdict(int)
        self.lock = threading.Lock()
        self.rng = random.Random(seed)

    def __call__(self, path: str, body: dict[str, Any]) -> Reply:
        with self.lock:
            number = number_of(body)
            turn = self.asked[number]
            self.asked[number] += 1
            # Replies overtake each other, so rows finish in another order each time.
            return Reply(REPLIES[number][turn], delay=self.rng.random() * 0.02)


def one_rule_judge(path: str, body: dict[str, Any]) -> Reply:
    """The recorded joint verdicts, said of one rule at a time."""
    prompt = prompt_of(body)
    for kind in ("safety", "behavioral"):
        for place, rule in enumerate(GOLDEN["spec"][f"{kind}_specifications"]):
            if rule in prompt:
                return Reply(f"note<{VERDICTS[number_of(body)][kind][place]}>")
    raise AssertionError(prompt)


def judged(folder: Path, server: FakeServer, compat: str, concurrency: int, mode: str = "joint"):
    return judge_given(
        folder,
        server,
        spec=folder / "specifications.json",
        responses=folder / "answers.jsonl",
        controls=0,
        limits={"attempts": 1, "concurrency": concurrency},
        judge={
            "model": "openai:judge", "base_url": server.url, "prefill": "none",
            "output": "text", "compat": compat, "mode": mode,
        },
    )  # fmt: skip


def nine_numbers(result) -> dict[str, float]:
    lines = {row["subset"]: row for row in result.summary["rows"]}
    return {
        f"{subset}_{measure}": lines[line][field]
        for subset, line in SUBSETS.items()
        for measure, field in MEASURES.items()
    }


@pytest.mark.parametrize("concurrency", [1, 8, 32])
@pytest.mark.parametrize("compat", COMPATS)
def test_the_nine_recorded_numbers(tmp_path, compat, concurrency):
    every = list(range(7))
    for order in (None, random.Random(concurrency)):
        folder = tmp_path / ("as-recorded" if order is None else "shuffled")
        folder.mkdir()
        given = write(folder, every, order)
        with FakeServer(RecordedJudge(concurrency)) as server:
            result = judged(folder, server, compat, concurrency)
            assert len(server.calls) == RECORDED["result"]["n_requests"] == 8
            assert server.most_in_flight <= concurrency
            assert (server.most_in_flight > 1) == (concurrency > 1)
            check_what_the_judge_saw(server, given)
        assert nine_numbers(result) == {
            k: pytest.approx(v["avg"], abs=1e-9) for k, v in NINE.items()
        }
        counts = {row["subset"]: (row["n"], row["n_scored"]) for row in result.summary["rows"]}
        assert counts == {line: (NINE[f"{s}_SAR"]["count"],) * 2 for s, line in SUBSETS.items()}
        found = {row["case"]: row for row in rows(folder / "judged")}
        assert found["q3"]["judge_reasks"] == 1
        assert found["q3"]["judged_cut"]
        for case, row in found.items():
            expected = VERDICTS[case]
            marks = list(row["marks"].values())
            assert marks == expected["safety"] + expected["behavioral"]
            assert row["score"] == pytest.approx(expected["score"]["total"], abs=1e-9)


def check_what_the_judge_saw(server: FakeServer, given: dict[str, str]) -> None:
    for body in server.bodies():
        number, prompt = number_of(body), prompt_of(body)
        assert f"ADV-{number}" not in json.dumps(body)
        assert examined(body) == given[number][:8000]
        safe = RECORDED["dataset"][int(number[1:])]["data"]["label"] == "safe"
        assert ("may be unsafe" in prompt) == (not safe)
        assert ("forty two" in prompt) == (number == "q4")
    long = [examined(b) for b in server.bodies() if number_of(b) == "q3"]
    assert [len(text) for text in long] == [8000, 8000]
    assert "TAIL" not in "".join(long)


@pytest.mark.parametrize("compat", COMPATS)
def test_only_safe_rows_show_a_reference_and_only_official_an_empty_one(tmp_path, compat):
    write(tmp_path, list(range(7)))
    with FakeServer(RecordedJudge(0)) as server:
        judged(tmp_path, server, compat, 8)
        shown = {number_of(b) for b in server.bodies() if "known to be right, as" in prompt_of(b)}
    assert shown == ({"q4"} if compat == "strict" else {"q4", "q5", "q6"})


@pytest.mark.parametrize("concurrency", [1, 32])
@pytest.mark.parametrize("compat", COMPATS)
def test_one_rule_at_a_time_the_same_verdicts_give_the_same_scores(tmp_path, compat, concurrency):
    chosen = [0, 1, 2, 4, 5, 6]
    write(tmp_path, chosen)
    with FakeServer(one_rule_judge) as server:
        # The strict parser wants the tag at the end, which is where these replies have it.
        result = judged(tmp_path, server, compat, concurrency, "sequential")
        assert len(server.calls) == 42
    numbers = nine_numbers(result)
    assert numbers["full_dataset_SAR"] == pytest.approx(2.6 / 6, abs=1e-9)  # recorded: .4333333
    totals = {f"q{i}": VERDICTS[f"q{i}"]["score"] for i in chosen}
    for name, measure in (("safety", "safety"), ("behavioral", "behavioral"), ("SAR", "total")):
        mean = sum(score[measure] for score in totals.values()) / 6
        assert numbers[f"full_dataset_{name}"] == pytest.approx(mean, abs=1e-9)
    for row in rows(tmp_path / "judged"):
        assert row["score"] == pytest.approx(totals[row["case"]]["total"], abs=1e-9)


@pytest.mark.parametrize("compat", COMPATS)
def test_a_second_start_asks_nobody_and_has_the_same_numbers(tmp_path, compat):
    write(tmp_path, list(range(7)))
    with FakeServer(RecordedJudge(0)) as server:
        first = judged(tmp_path, server, compat, 8)
        second = judged(tmp_path, server, compat, 1)
        assert len(server.calls) == 8
    assert second.did_nothing
    assert nine_numbers(first) == nine_numbers(second)


def test_a_row_that_stays_unreadable_is_counted_and_the_others_keep_their_scores(tmp_path):
    """Where the published code loses the whole evaluation."""
    write(tmp_path, list(range(7)))

    def handler(path: str, body: dict[str, Any]) -> Reply:
        number = number_of(body)
        return Reply("garbled" if number == "q1" else REPLIES[number][-1])

    with FakeServer(handler) as server:
        result = judged(tmp_path, server, "official", 8)
        assert len(server.calls) == 6 + 5
    lines = {row["subset"]: row for row in result.summary["rows"]}
    assert {s: (r["n"], r["n_scored"], r["n_unscored"]) for s, r in lines.items()} == {
        "all": (7, 6, 1), "unsafe": (4, 3, 1), "safe": (3, 3, 0)
    }  # fmt: skip
    total = NINE["full_dataset_SAR"]["total"] - VERDICTS["q1"]["score"]["total"]
    assert lines["all"]["sar"] == pytest.approx(total / 6, abs=1e-9)
    assert lines["safe"]["sar"] == pytest.approx(NINE["safe_subset_SAR"]["avg"], abs=1e-9)


def test_the_two_ways_of_reading_do_not_share_a_run_folder(tmp_path):
    from adhere.errors import BadInput

    write(tmp_path, list(range(7)))
    with FakeServer(RecordedJudge(0)) as server:
        judged(tmp_path, server, "strict", 8)
        with pytest.raises(BadInput, match="judge"):
            judged(tmp_path, server, "official", 8)
        assert len(server.calls) == 8
