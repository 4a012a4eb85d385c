"""Small multiple-choice data, and a server that chooses by what the test says is right."""

from __future__ import annotations

import asyncio
import csv
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from adhere.experiments.benchmark import evaluate_plan
from adhere.experiments.plan import Plan
from adhere.experiments.starts import RunResult
from support.fake_server import FakeServer, Reply

COLUMNS = ("Type", "Category", "Question", "Best Answer", "Correct Answers", "Incorrect Answers")
OPTION = re.compile(r"Option ([A-Z]):\n<option>\n(.*?)\n</option>", re.DOTALL)
ANSWER = re.compile(r"<answer>\n(.*?)\n</answer>", re.DOTALL)


CHILD = """
import asyncio, sys, json
from adhere.experiments.benchmark import evaluate_plan
from adhere.experiments.plan import Plan
asyncio.run(evaluate_plan(Plan(**json.loads(sys.argv[1]))))
"""


def write_csv(file: Path, rows: int = 4, *, wrong: int = 3, long: bool = False) -> Path:
    """Made-up questions: the right answers say `right`, the others `wrong`.

    `long`: answers of some words, for BLEU, which gives nothing for less than four.
    """
    know, say = (" as we know", " as some say") if long else ("", "")
    with file.open("w", newline="", encoding="utf-8-sig") as out:
        writer = csv.writer(out)
        writer.writerow([*COLUMNS, "Source"])
        for i in range(rows):
            false = "; ".join(f"wrong {i} {k}{say}" for k in range(wrong))
            kind = "Tea" if i % 2 else "Rain"
            best, other = f"right {i}{know}", f"right too {i}{know}"
            writer.writerow(["Plain", kind, f"Question {i}?", best, f"{best}; {other}", false, ""])
    return file


def write_hhh(folder: Path, rows: int = 3) -> Path:
    for part in ("harmless", "honest"):
        (folder / part).mkdir(parents=True)
        examples = [
            {"input": f"{part} {i}?", "target_scores": {f"right {i}": 1, f"wrong {i}": 0}}
            for i in range(rows)
        ]
        (folder / part / "task.json").write_text(json.dumps({"examples": examples}))
    return folder


def write_safetybench(folder: Path, rows: int = 4) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    questions, answers = [], {}
    for i in range(rows):
        options = [f"right {i}" if k == i % 3 else f"wrong {i} {k}" for k in range(3)]
        category = "Mental Health" if i % 2 else "Offensiveness"
        questions.append(
            {"id": i, "category": category, "question": f"Safe {i}?", "options": options}
        )
        answers[str(i)] = {"category": category, "answer": i % 3}
    (folder / "test_en.json").write_text(json.dumps(questions))
    (folder / "test_answers_en.json").write_text(json.dumps(answers))
    return folder


def write_mixeval(folder: Path, rows: int = 4) -> Path:
    """Both files: every other question has a context, and the first two right options."""
    choice, free = {}, {}
    for i in range(rows):
        options = [f"right {i}", f"wrong {i} 1", f"right too {i}", f"wrong {i} 3"]
        choice[str(i)] = {
            "problem_type": "multiple-choice",
            "context": None if i % 2 else "A text on tea.",
            "prompt": f"Question {i}?",
            "options": options if i % 2 == 0 else [options[0], options[1]],
            "target": [0, 2] if i % 2 == 0 else [0],
            "benchmark_name": "BoolQ" if i % 2 else "MMLU",
        }
        free[str(i)] = {
            "problem_type": "free-form",
            "context": None if i % 2 else "A text on rain.",
            "prompt": f"How many {i}?",
            "target": [str(367 + i), f"three hundred {i}", str(367 + i)],
            "benchmark_name": "GSM8k" if i % 2 else "DROP",
        }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "multiple-choice.json").write_text(json.dumps(choice))
    (folder / "free-form.json").write_text(json.dumps(free))
    return folder


def top(**words: float) -> Reply:
    """A reply of one token, with probabilities of words; the rest is spread over others."""
    best = max(words, key=lambda word: words[word])
    rest = (1 - sum(words.values())) / 5
    place = {best: math.log(words[best])}
    place |= {word: math.log(p) for word, p in words.items()}
    place |= {f"w{i}": math.log(max(rest, 1e-9)) for i in range(5)}
    return Reply(best, top_logprobs=[place], completion_tokens=1)


def asked(body: dict[str, Any]) -> str:
    """The text that a request asks by, on either route."""
    return str(body["messages"][-1]["content"] if "messages" in body else body["prompt"])


def chooser(likes: Callable[[str], bool] = lambda text: "right" in text) -> Any:
    """A handler: it names the option that it likes, and calls what it likes true."""

    def reply(path: str, body: dict[str, Any]) -> Reply:
        text = asked(body)
        if options := OPTION.findall(text):
            liked = [letter for letter, option in options if likes(option)]
            share = 0.9 / (len(liked) or 1)
            others = 0.05 / max(1, len(options) - len(liked))
            return top(**{o: share if o in liked else others for o, _ in options})
        if found := ANSWER.search(text):
            return truth(0.8 if likes(found[1]) else 0.1)
        return Reply("right 1")

    return reply


def truth(yes: float) -> Reply:
    place = {"True": math.log(yes), "False": math.log(0.9 - yes)}
    first = max(place, key=lambda word: place[word])
    return Reply(first, top_logprobs=[{first: place[first], **place}], completion_tokens=1)


def plan(server: FakeServer, out: Path, **fields: Any) -> Plan:
    base: dict[str, Any] = {
        "models": [{"model": "openai:policy", "base_url": server.url, "prefill": "none"}],
        "limits": {"attempts": 1},
        "out": out,
    }
    return Plan(**{**base, **fields})


def run(made: Plan) -> RunResult:
    result = asyncio.run(evaluate_plan(made))
    assert isinstance(result, RunResult)
    return result


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def line(result: RunResult, method: str, subset: str = "all") -> dict[str, Any]:
    return next(
        r for r in result.summary["rows"] if r["method"] == method and r["subset"] == subset
    )
