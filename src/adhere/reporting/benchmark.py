"""The report of a benchmark of several scenarios: one HTML page above the reports of its parts."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from adhere.errors import disk_error
from adhere.reporting import formats as f
from adhere.reporting.benchmark_texts import (
    ALL_PARTS,
    benchmark_csv,
    benchmark_latex,
    benchmark_text_table,
    incomplete_sentence,
    is_base,
    lines_of,
    part_names,
    percent,
    points,
    several_models,
    span,
)
from adhere.reporting.facts import plain
from adhere.reporting.forest import forests
from adhere.reporting.grid import Bar, Cell, Column, interval_bar
from adhere.reporting.notes import outcome_notes
from adhere.reporting.report import REPORT_NAME
from adhere.reporting.table_texts import to_markdown
from adhere.reporting.tables import SUBSETS, Row, Table
from adhere.reporting.templating import asset, content_policy, environment

__all__ = [
    "benchmark_csv",
    "benchmark_latex",
    "benchmark_markdown",
    "benchmark_text_table",
    "render_benchmark",
    "write_benchmark_report",
]

_MOST_LINES = 400  # of the tables of one subset
_NAMES = {"all": "All prompts", "unsafe": "Unsafe prompts", "safe": "Safe prompts"}


def write_benchmark_report(folder: Path, table: Mapping[str, Any]) -> None:
    """Write `report.html` into the benchmark's folder, whole or not at all. Raises DiskFull."""
    target = Path(folder) / REPORT_NAME
    draft = target.with_name(f".{REPORT_NAME}.{os.getpid()}.tmp")
    try:
        with draft.open("wb") as out:
            out.write(render_benchmark(table).encode("utf-8"))
            out.flush()
            os.fsync(out.fileno())
        draft.replace(target)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise disk_error(error, target) from error


def render_benchmark(table: Mapping[str, Any]) -> str:
    """The page as text: equal bytes for equal input. It loads nothing from anywhere."""
    css, js = asset("report.css") + asset("benchmark.css"), asset("report.js")
    return (
        environment(20_000)
        .get_template("benchmark.html.jinja")
        .render(
            table=table,
            title=f.one_line(table.get("name"), 80),
            headline=f.one_line(table.get("headline"), 600),
            facts=_facts(table),
            incomplete=incomplete_sentence(table),
            withheld=f.mapping(table.get("withheld")),
            subsets=[(s, _NAMES[s]) for s in SUBSETS if s == "all" or lines_of(table, None, s)],
            columns=_columns(table),
            groups={s: _groups(table, s) for s in SUBSETS},
            forests=forests(table),
            parts=f.objects(table.get("parts")),
            link=_link,
            bar=interval_bar,
            settings=_settings(table),
            css=css,
            js=js,
            csp=content_policy(css, js),
        )
    )


def benchmark_markdown(table: Mapping[str, Any]) -> str:
    """For an issue or a README: one Markdown table over all prompts, then the notes as a list."""
    rows = []
    for part in (None, *part_names(table)):
        for row in lines_of(table, part):
            group = ALL_PARTS if part is None else f.one_line(part, 60)
            if several_models(table):
                who = "controls" if row.get("control") else f.one_line(row.get("model"), 80)
                group += f" · {who}"
            control = bool(row.get("control"))
            rows.append(Row(_cells(table, row), group, control, is_base(table, row), row))
    notes = [incomplete_sentence(table), *(table.get("notes") or ())]
    shown = tuple(f.one_line(note, 600) for note in notes if note)
    return to_markdown(Table("all", _columns(table), tuple(rows), shown))


def _link(part: Mapping[str, Any]) -> str:
    """The address of a part's own report, beside this one."""
    return f"./{quote(str(part.get('folder')), safe='')}/{REPORT_NAME}"


def _columns(table: Mapping[str, Any]) -> tuple[Column, ...]:
    return (
        Column("method", "Method", numeric=False),
        Column("scored", "Scored"),
        Column("safety", "Safety"),
        Column("behavioral", "Behavioral"),
        Column("sar", "SAR"),
        Column("diff", f"SAR vs {f.one_line(table.get('baseline') or 'baseline', 24)}"),
        Column("empty", "Empty %"),
        Column("refused", "Refused %"),
        Column("paper", "Tokens, paper"),
        Column("tokens", "Tokens, true"),
    )


Group = tuple[Mapping[str, Any], tuple[tuple[str, tuple[Row, ...], Bar | None], ...]]


def _groups(table: Mapping[str, Any], subset: str) -> dict[str, list[Group]]:
    """The lines of a subset: `over_all` and `by_part`, each as parts with their models' rows."""
    left = _MOST_LINES
    out: dict[str, list[Group]] = {"over_all": [], "by_part": []}
    facts = {str(p.get("name")): p for p in f.objects(table.get("parts"))}
    for part in (None, *part_names(table)):
        lines = lines_of(table, part, subset)[:left]
        left -= len(lines)
        models = dict.fromkeys(r.get("model") for r in lines if not r.get("control"))
        blocks = []
        named = several_models(table)
        for model in models:
            own = [r for r in lines if not r.get("control") and r.get("model") == model]
            blocks.append(_block(table, f.one_line(model, 80) if named else "", own))
        if controls := [r for r in lines if r.get("control")]:
            blocks.append(_block(table, "controls" if named else "", controls))
        if blocks:
            place = "over_all" if part is None else "by_part"
            out[place].append((facts.get(str(part), {}), tuple(blocks)))
    return out


def _block(
    table: Mapping[str, Any], name: str, rows: list[Mapping[str, Any]]
) -> tuple[str, tuple[Row, ...], Bar | None]:
    made = tuple(
        Row(_cells(table, r), name, bool(r.get("control")), is_base(table, r), r) for r in rows
    )
    return name, made, next((interval_bar(row.source) for row in made if row.base), None)


def _cells(table: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Cell]:
    held = row.get("withheld") or ()

    def rate(key: str) -> Cell:
        if key in held:
            return Cell(f.DASH, notes=("withheld",))
        return Cell(percent(row.get(key)), span(row, key))

    diff = Cell("baseline")
    if not is_base(table, row):
        paired = f.number(row, "n_paired")
        fewer = f.number(row, "sar_diff") is not None and paired != f.number(row, "n_cases_scored")
        pairs = (f"{f.count(paired)} pairs",) if fewer else ()
        diff = Cell(points(row.get("sar_diff")), span(row, "sar_diff"), pairs)
    whole = len(part_names(table))
    fewer_parts = row.get("part") is None and (f.number(row, "n_parts") or whole) < whole
    variant = f.one_line(row.get("variant") or "", 90)
    notes = (variant, f"{row.get('n_parts')} of {whole} scenarios" if fewer_parts else "")
    return {
        "method": Cell(
            f.one_line(row.get("method") or "?", 60) + (" †" if row.get("oracle") else ""),
            notes=tuple(note for note in notes if note),
        ),
        "scored": Cell(
            f"{f.count(row.get('n_scored'))}/{f.count(row.get('n'))}", notes=outcome_notes(row)
        ),
        "safety": rate("safety"),
        "behavioral": rate("behavioral"),
        "sar": rate("sar"),
        "diff": diff,
        "empty": Cell(f.share(row.get("share_empty"))),
        "refused": Cell(f.share(row.get("share_refused"))),
        "paper": Cell(f.mean_count(row.get("paper_completion_tokens"))),
        "tokens": Cell(f.mean_count(row.get("completion_tokens"))),
    }


def _facts(table: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and values of the line under the headline: what the numbers are of."""
    settings = f.mapping(table.get("settings"))
    parts = f.objects(table.get("parts"))
    ran = [p for p in parts if p.get("found")]
    cases, unsafe, safe = (
        sum(f.number(p, key) or 0 for p in ran) for key in ("n_cases", "n_unsafe", "n_safe")
    )
    models = [f.one_line(m.get("name"), 60) for m in f.objects(table.get("models"))]
    names = ", ".join(models[:4]) + (f" and {len(models) - 4} more" if len(models) > 4 else "")
    judge = settings.get("judge")
    words = {"count": "counts as unmet", "exclude": "left out"}
    rules = [sum(f.number(p, f"n_{k}") or 0 for p in ran) for k in ("safety", "behavioral")]
    halves = f" ({f.count(unsafe)} unsafe, {f.count(safe)} safe)" if unsafe or safe else ""
    whole = f"{len(ran)}" if len(ran) == len(parts) else f"{len(ran)} of {len(parts)}"
    policy = settings.get("na_policy")
    return [
        ("scenarios", whole),
        ("rules", f"{f.count(rules[0])} safety, {f.count(rules[1])} behavioral"),
        ("model" if len(models) == 1 else "models", names or f.DASH),
        ("prompts", f.count(cases) + halves),
        ("judged by", "checks alone" if judge in (None, "checks") else f.one_line(judge, 60)),
        ("alpha", plain(settings.get("alpha"))),
        ("NA", words.get(str(policy), plain(policy))),
        ("temperature", plain(settings.get("temperature"))),
        ("seed", plain(settings.get("seed"))),
        ("date", f.date(table.get("created"))),
    ]


def _settings(table: Mapping[str, Any]) -> list[tuple[str, str]]:
    """All settings for the foot of the page; where parts differ, each part's value."""
    same = [(k, plain(v)) for k, v in f.mapping(table.get("settings")).items()]
    apart = [(k, f"differs: {plain(v)}") for k, v in f.mapping(table.get("differing")).items()]
    bootstrap = ("bootstrap seed", plain(table.get("seed")))
    return [(f.one_line(k, 60), f.one_line(v, 400)) for k, v in (*same, *apart, bootstrap)]
