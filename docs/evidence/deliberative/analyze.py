"""What the distillation came to: from the runs of run.py to tables and a summary, without texts.

    python docs/evidence/deliberative/analyze.py RUN --out docs/evidence/deliberative/results

Rules are in two groups: five of form, asked of every answer, and one for each subject, asked of
questions on it. Intervals are bootstraps over prompts, differences are paired by prompt.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from adhere.experiments.alignment_gap import alignment_gaps
from adhere.experiments.alignment_report import to_facts, to_markdown
from adhere.experiments.metrics import Estimate, means, paired_difference
from adhere.spec import looks_like_refusal

TRAINED = ("complaints", "household")
OWN = {"complaints": "ask-expert", "hobbies": "read-more", "computers": "save-first",
       "household": "small-spot"}  # fmt: skip
FORM = ("opening", "short", "prose", "calm", "answers")
ARMS = (("base", "raw"), ("base", "vanilla"), ("student", "raw"), ("student", "vanilla"),
        ("grpo", "raw"), ("grpo", "vanilla"), ("teacher", "vanilla"))  # fmt: skip

Row = dict[str, Any]
Values = dict[str, list[float]]


def rows_of(folder: Path, method: str) -> list[Row]:
    file = folder / "results.jsonl"
    if not file.is_file():
        return []
    found = map(json.loads, file.read_text(encoding="utf-8").splitlines())
    return [row for row in found if row["method"] == method]


def subject(row: Row) -> str:
    return str(row["case"]).split("-", 1)[0]


def form(row: Row) -> float | None:
    """The share of the five rules of form that an answer follows; none for one without marks."""
    if row["outcome"] != "scored":
        return None
    marks = [row["marks"][rule] == "YES" for rule in FORM if row["marks"].get(rule) != "NA"]
    return sum(marks) / len(marks) if marks else None


def own(row: Row) -> float | None:
    """Whether the rule of its subject is followed."""
    if row["outcome"] != "scored":
        return None
    return float(row["marks"].get(OWN[subject(row)]) == "YES")


def by_rule(rows: Sequence[Row]) -> dict[str, list[int]]:
    """Of each rule: in how many answers it is followed, of those that it applies to."""
    scored = [row["marks"] for row in rows if row["outcome"] == "scored"]
    return {
        rule: [
            sum(marks.get(rule) == "YES" for marks in scored),
            sum(marks.get(rule) in ("YES", "NO") for marks in scored),
        ]
        for rule in (*FORM, *OWN.values())
    }


def without_texts(row: Row) -> Row:
    """A row that holds no word of a prompt or an answer."""
    keys = ("case", "outcome", "marks", "cut", "empty", "refused")
    tokens = sum(used["completion_tokens"] for used in row["usage"].values())
    return {**{k: row[k] for k in keys}, "thought": bool(row["thought"]), "tokens": tokens}


def values(rows: Sequence[Row], measure: Callable[[Row], float | None]) -> Values:
    found: Values = {}
    for row in rows:
        if (value := measure(row)) is not None:
            found.setdefault(row["case"], []).append(value)
    return found


def told(found: Estimate) -> dict[str, float | None]:
    return {"value": found.value, "low": found.low, "high": found.high}


def arm(rows: Sequence[Row]) -> dict[str, Any]:
    """The numbers of one arm, over all prompts and by whether the subject was trained on."""
    out: dict[str, Any] = {"rows": len(rows)}
    out["scored"] = sum(row["outcome"] == "scored" for row in rows)
    out["thought"] = sum(bool(row["thought"]) for row in rows)
    out["cut"] = sum(bool(row["cut"]) for row in rows)
    out["empty"] = sum(bool(row["empty"]) for row in rows)
    tokens = [u["completion_tokens"] for row in rows for u in row["usage"].values()]
    out["tokens"] = sum(tokens) / max(1, len(rows))
    out["by_rule"] = by_rule(rows)
    for name, part in parts(rows).items():
        for measure in (form, own):
            found = values(part, measure)
            [estimate] = means([found])
            out[f"{measure.__name__} {name}"] = {**told(estimate), "n": len(found)}
    return out


def parts(rows: Sequence[Row]) -> dict[str, list[Row]]:
    return {
        "trained": [row for row in rows if subject(row) in TRAINED],
        "held out": [row for row in rows if subject(row) not in TRAINED],
    }


def differences(one: Sequence[Row], other: Sequence[Row]) -> dict[str, Any]:
    """Of two arms, the first less the second, paired by prompt."""
    out = {}
    for name in ("trained", "held out"):
        for measure in (form, own):
            found, _ = paired_difference(
                values(parts(one)[name], measure), values(parts(other)[name], measure)
            )
            out[f"{measure.__name__} {name}"] = told(found)
    return out


def cell(one: dict[str, Any], sign: str = "") -> str:
    if one["value"] is None:
        return "-"
    return f"{one['value']:{sign}.2f} [{one['low']:{sign}.2f}, {one['high']:{sign}.2f}]"


def tables(found: dict[str, Any]) -> list[str]:
    columns = ("form trained", "own trained", "form held out", "own held out")
    out = [
        "| who | answers with a verdict | thought | cut | tokens | " + " | ".join(columns) + " |",
        "|---" * (5 + len(columns)) + "|",
    ]
    for name, one in found["arms"].items():
        out.append(
            f"| {name} | {one['scored']} of {one['rows']} | {one['thought']} | {one['cut']} | "
            f"{one['tokens']:.0f} | " + " | ".join(cell(one[column]) for column in columns) + " |"
        )
    out += ["", "| difference | " + " | ".join(columns) + " |", "|---" * (1 + len(columns)) + "|"]
    for name, one in found["differences"].items():
        out.append(f"| {name} | " + " | ".join(cell(one[c], "+") for c in columns) + " |")
    return [*out, ""]


def refusals(run: Path) -> dict[str, Any]:
    """Over-refusal of base and student on XSTest's safe prompts, and how far its judge agrees."""
    out: dict[str, Any] = {}
    for file in sorted(run.glob("calibration-*/calibration.json")):
        found = json.loads(file.read_text(encoding="utf-8"))
        out[file.parent.name] = {"judge": found["judge"], "n": found["n"], **found["overall"]}
    columns: dict[str, Values] = {}
    for name in ("base", "student"):
        rows = rows_of(run / "eval" / f"xstest-{name}", "raw")
        found = values(
            rows,
            lambda row: (
                float(row["marks"].get("complies") == "NO") if row["outcome"] == "scored" else None
            ),
        )
        phrases = sum(bool(row["refused"]) for row in rows)
        [estimate] = means([found])
        columns[name] = found
        out[name] = {**told(estimate), "n": len(found), "rows": len(rows), "by_phrases": phrases}
    out["student minus base"] = told(paired_difference(columns["student"], columns["base"])[0])
    return out


def phrases(folder: Path) -> dict[str, Any]:
    """How far phrases agree with people on all labeled completions of XSTest."""
    found: dict[str, Values] = {"sensitivity": {}, "specificity": {}}
    for table in sorted((folder / "completions").glob("*.csv")):
        with table.open(encoding="utf-8", newline="") as opened:
            for row in csv.DictReader(opened):
                if not row["completion"].strip():
                    continue
                said = looks_like_refusal(row["completion"])
                refuses = not row["final_label"].startswith("1")
                name = "sensitivity" if refuses else "specificity"
                found[name][f"{table.stem} {row['id']}"] = [float(said == refuses)]
    out: dict[str, Any] = {
        name: {**told(means([one])[0]), "n": len(one)} for name, one in found.items()
    }
    out["auc"] = (out["sensitivity"]["value"] + out["specificity"]["value"]) / 2
    return out


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--xstest", type=Path, help="hold phrases against its labels")
    given = parser.parse_args(words)
    run: Path = given.run
    rows = {
        f"{who}, {method}": found
        for who, method in ARMS
        if (found := rows_of(run / "eval" / f"test-{who}", method))
    }
    compared = (("student, raw", "base, raw"), ("student, raw", "base, vanilla"),
                ("student, vanilla", "student, raw"), ("grpo, raw", "student, raw"),
                ("student, raw", "teacher, vanilla"))  # fmt: skip
    data = json.loads((run / "rows" / "summary.json").read_text(encoding="utf-8"))
    keys = ("planned", "rows", "rejected", "failed", "yield", "rejected_by_reason",
            "refused_tries_by_reason", "by_category", "words", "tokens", "citing", "spent",
            "wall_seconds")  # fmt: skip
    found: dict[str, Any] = {
        "distilled": {key: data[key] for key in keys},
        "rates": json.loads((run / "rates.json").read_text(encoding="utf-8")),
        "arms": {name: arm(one) for name, one in rows.items()},
        "differences": {
            f"{a} minus {b}": differences(rows[a], rows[b])
            for a, b in compared
            if a in rows and b in rows
        },
        "xstest": refusals(run),
    }
    if given.xstest is not None:
        found["xstest"]["phrases"] = phrases(given.xstest)
    lines = tables(found)
    places = [run / "eval" / f"test-{who}" for who in ("base", "student", "teacher")]
    if all(place.is_dir() for place in places):
        gaps = alignment_gaps(*places)
        found["alignment gap"] = to_facts(gaps)["suites"]
        lines += ["", to_markdown(gaps)]
    given.out.mkdir(parents=True, exist_ok=True)
    safe = [json.dumps({"arm": name, **without_texts(row)}) for name in rows for row in rows[name]]
    (given.out / "test-rows.jsonl").write_text("\n".join(safe) + "\n", encoding="utf-8")
    (given.out / "summary.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (given.out / "tables.md").write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))
    print(json.dumps(found["xstest"], indent=1))


if __name__ == "__main__":
    main()
