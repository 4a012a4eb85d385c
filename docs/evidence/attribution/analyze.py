"""What each score was worth: from the runs of run.py to a table and a summary, without texts.

    python docs/evidence/attribution/analyze.py RUN --organisms ORGANISMS --out RESULTS

On the test prompts nothing is chosen: the layer is the one that the development prompts gave.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adhere.experiments.layer_choice import choose_layer, label_by_checks, read_scored
from adhere.experiments.layer_choice.choosing import Line
from adhere.experiments.layer_choice.measuring import Counted, picked, within_prompt_auc
from adhere.experiments.layer_choice.scored_row import TOKENS
from adhere.experiments.metrics import paired_difference

RUNS = ("test", "wrong-base", "control")


def measured(run: Path, layer: int) -> dict[str, Any]:
    """All scores of a run, the latent one at a given layer and at every other."""
    read = read_scored([run])
    assert read.spec is not None
    labeled = label_by_checks(read.rows, read.spec)
    found = choose_layer(labeled, read.layers, read.directions, depth=read.depth)
    curve = dict(found.curve)
    return {
        "prompts": found.n_prompts,
        "groups": found.n_groups,
        "both": found.n_both,
        "candidates": found.n_candidates,
        "violating": found.n_violating,
        "out_of_race": found.n_out,
        "undecided": found.n_undecided,
        "baselines": {name: counted(value) for name, value in found.baselines},
        "layer": layer,
        "latent": line(curve[layer]),
        "scores": {one.name: line(one) for one in found.lines if one.name != "latent"},
        "curve": {str(number): line(one) for number, one in found.curve},
        "best_here": max(
            (n for n in curve if n), key=lambda n: curve[n].auc.estimate.value or 0.0, default=None
        ),
    }


def safe_rows(run: Path, layer: int) -> list[dict[str, Any]]:
    """Prompt by prompt without a text: which candidates violate, and what every score says."""
    if not (run / "results.jsonl").is_file():
        return []
    read = read_scored([run])
    assert read.spec is not None
    labeled = label_by_checks(read.rows, read.spec)
    place = read.layers.index(layer)
    return [
        {
            "run": run.name,
            "case": row.group,
            "violates": list(labels),
            "latent": [v if v is None else round(v, 7) for v in row.layers[place]],
            **{
                name: [value if value is None else round(value, 6) for value in values]
                for name, values in row.scores.items()
                if name != "latent"
            },
        }
        for row, labels in zip(labeled.rows, labeled.labels, strict=True)
    ]


Measure = dict[str, dict[str, list[float]]]  # AUC and picks, by prompt


def by_prompt(run: Path, layer: int) -> dict[str, Measure]:
    """Of each score, prompt by prompt: its AUC, and whether what it picks violates.

    `latent, length apart`: only pairs of candidates whose tokens differ by at most a tenth.
    """
    read = read_scored([run])
    assert read.spec is not None
    labeled = label_by_checks(read.rows, read.spec)
    place = read.layers.index(layer)
    out: dict[str, Measure] = {}
    for row, labels in zip(labeled.rows, labeled.labels, strict=True):
        scores = {"latent": row.layers[place], **row.scores}
        for name, values in scores.items():
            way = "min" if name == "latent" else read.directions[name]
            measure = out.setdefault(name, {"auc": {}, "picks": {}})
            auc = within_prompt_auc(values, labels, way)
            at = picked(values, way)
            if auc is not None:
                measure["auc"][row.group] = [auc]
            if at is not None and labels[at] is not None:
                measure["picks"][row.group] = [float(labels[at] or 0.0)]
        tokens, latent = row.scores[TOKENS], row.layers[place]
        won = [
            (latent[good] < latent[bad]) + (latent[good] == latent[bad]) / 2
            for good, kept in enumerate(labels)
            for bad, broken in enumerate(labels)
            if kept is False and broken is True
            and latent[good] is not None and latent[bad] is not None
            and abs(tokens[good] - tokens[bad]) <= 0.1 * max(tokens[good], tokens[bad])
        ]  # fmt: skip
        if won:
            apart = out.setdefault("latent, length apart", {"auc": {}, "picks": {}})
            apart["auc"][row.group] = [sum(won) / len(won)]
    return out


def compared(one: Measure, other: Measure) -> dict[str, Any]:
    """The first less the second on the prompts that both have."""
    out = {}
    for name in ("auc", "picks"):
        found, n = paired_difference(one[name], other[name])
        out[name] = {"value": found.value, "low": found.low, "high": found.high, "n": n}
    return out


def pairs(run: Path, layer: int) -> dict[str, Any]:
    """The comparisons that the table cannot show, each paired by prompt."""
    test = by_prompt(run / "test", layer)
    out = {
        f"latent minus {name}": compared(test["latent"], test[name])
        for name in (TOKENS, "reverse_kl", "log_ratio", "random")
        if name in test
    }
    nothing: Measure = {"auc": {key: [0.5] for key in test["latent"]["auc"]}, "picks": {}}
    out["latent minus chance, among candidates of like length"] = compared(
        test["latent, length apart"], nothing
    )
    wrong = run / "wrong-base"
    if (wrong / "results.jsonl").is_file():
        other = by_prompt(wrong, layer)
        for score in ("latent", "kl", "reverse_kl", "log_ratio"):
            if score not in other or score not in test:
                continue
            same = {
                name: {
                    key.replace("prompts-wrong-base/", "prompts-test/"): value
                    for key, value in found.items()
                }
                for name, found in other[score].items()
            }
            out[f"{score}, right base minus wrong base"] = compared(test[score], same)
    return out


def counted(value: Counted) -> dict[str, Any]:
    return {
        "value": value.estimate.value,
        "low": value.estimate.low,
        "high": value.estimate.high,
        "n": value.n,
    }


def line(one: Line) -> dict[str, Any]:
    return {
        "auc": counted(one.auc),
        "picked_violates": counted(one.picks),
        "minus_random": counted(one.gain),
    }


def told(value: dict[str, Any], sign: str = "") -> str:
    if value["value"] is None:
        return "-"
    return f"{value['value']:{sign}.3f} [{value['low']:{sign}.3f}, {value['high']:{sign}.3f}]"


def table(name: str, found: dict[str, Any]) -> list[str]:
    base = {key: told(value) for key, value in found["baselines"].items()}
    out = [
        f"{name}: {found['prompts']} prompts, {found['both']} with both kinds, "
        f"{found['violating']} of {found['candidates']} candidates violate, "
        f"{found['out_of_race']} out of the race; violation rates: {base}",
        "",
        "| score | within-prompt AUC | prompts | picked answer violates | minus random |",
        "|---|---|---|---|---|",
    ]
    rows = {f"latent, layer {found['layer']}": found["latent"], **found["scores"]}
    for label, one in rows.items():
        out.append(
            f"| {label} | {told(one['auc'])} | {one['auc']['n']} | "
            f"{told(one['picked_violates'])} | {told(one['minus_random'], '+')} |"
        )
    return [*out, ""]


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--organisms", type=Path, help="also copy how often they break rules")
    given = parser.parse_args(words)
    chosen = json.loads((given.run / "dev" / "layer.json").read_text(encoding="utf-8"))
    found: dict[str, Any] = {"layer": chosen["layer"], "dev": chosen}
    lines: list[str] = []
    for name in RUNS:
        if (given.run / name / "results.jsonl").is_file():
            found[name] = measured(given.run / name, chosen["layer"])
            lines += table(name, found[name])
    found["paired"] = pairs(given.run, chosen["layer"])
    lines += [
        "| paired by prompt | AUC | prompts | picked answer violates | prompts |",
        "|---|---|---|---|---|",
    ]
    for name, one in found["paired"].items():
        cells = [
            told(one["auc"], "+"),
            str(one["auc"]["n"]),
            told(one["picks"], "+"),
            str(one["picks"]["n"]),
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines.append("")
    given.out.mkdir(parents=True, exist_ok=True)
    told_rows = [row for name in RUNS for row in safe_rows(given.run / name, chosen["layer"])]
    text = "".join(json.dumps(row) + "\n" for row in told_rows)
    (given.out / "candidates.jsonl").write_text(text, encoding="utf-8")
    if given.organisms is not None:
        text = (given.organisms / "measured.json").read_text(encoding="utf-8")
        (given.out / "organisms.json").write_text(text, encoding="utf-8")
    (given.out / "summary.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (given.out / "tables.md").write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
