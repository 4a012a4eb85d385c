"""A run's rows as logs of Inspect (inspect_ai), written by that library's own public functions.

An Inspect log is one task on one model, so there is a log for each suite, model and method: the
task is `<suite>-<method>`. A row is a sample (id: the case; epoch: the repeat, from 1). Its scores
are `sar`, `safety`, `behavioral` and `rule:<id>` for each rule: C followed, I violated, N does not
apply. A row without a verdict has no score, never 0; a failed one carries its error. Results hold
the summary's rates with their intervals, and a judge's rates only where it can be believed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from adhere.chat import Message, digest
from adhere.errors import BadInput, disk_error
from adhere.reporting import formats as f
from adhere.reporting.inputs import RowsFile, read_run
from adhere.reporting.withheld import is_withheld, who_decided, withhold

Format = Literal["eval", "json"]
Arm = tuple[str, str, str]  # suite, model, method

RATES = ("sar", "safety", "behavioral")
_LETTERS = {"YES": "C", "NO": "I", "NA": "N"}
_STOPS = {"stop": "stop", "length": "max_tokens", "tool_calls": "tool_calls",
          "content_filter": "content_filter"}  # fmt: skip
_KEPT = ("method", "variant", "oracle", "label", "outcome", "reason", "judged", "refused", "empty",
         "marks", "deciders", "twins", "facts", "steps", "usage", "judge_usage")  # fmt: skip


def write_inspect_log(folder: Path, path: Path, *, format: Format = "eval") -> list[Path]:
    """Write a run as Inspect logs; returns their paths.

    A `path` that ends in .eval or .json is one log, for a run with one suite, model and method;
    any other is a folder that gets a log for each. Raises BadInput without inspect_ai, for a
    broken run, or for one file where several are needed; DiskFull.
    """
    try:
        import_module("inspect_ai")
    except ImportError:
        raise BadInput(
            "Inspect logs need the package inspect_ai, which is not installed",
            hint="pip install 'adhere[inspect]'",
        ) from None
    summary, rows, config = read_run(folder)
    arms = list(dict.fromkeys(_arm(row) for row in rows))
    if path.suffix in (".eval", ".json"):
        if len(arms) != 1:
            raise BadInput(
                f"{path}: found {len(arms)} pairs of method and model in {folder}; a log holds one",
                hint="Name a folder instead of a file: it gets a log for each.",
            )
        paths = [path]
        format = "json" if path.suffix == ".json" else "eval"
    else:
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise disk_error(error, path) from None
        paths = [path / _file_name(summary, arm, format) for arm in arms]
    for arm, file in zip(arms, paths, strict=True):
        _write(_log(summary, config, arm, rows), file, format)
    return paths


def _arm(row: Mapping[str, Any]) -> Arm:
    return str(row.get("suite")), str(row.get("model")), str(row.get("method"))


def _file_name(summary: Mapping[str, Any], arm: Arm, format: Format) -> str:
    """As Inspect names its own: time, task and id, so that it lists them without opening each."""
    created, task = _slug(_created(summary)), _slug(_task(arm))
    return f"{created}_{task[:80]}_{_id(summary, arm)}.{format}"


def _slug(text: str) -> str:
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in text)


def _task(arm: Arm) -> str:
    return whole_text(f"{arm[0]}-{arm[2]}")


def _model(label: str) -> str:
    return whole_text(label.replace(":", "/", 1))  # as Inspect writes them: provider/name


def _id(summary: Mapping[str, Any], arm: Arm) -> str:
    return digest([summary.get("name"), _created(summary), *arm])[:22]


def _created(summary: Mapping[str, Any]) -> str:
    return str(summary.get("created") or "1970-01-01T00:00:00+00:00")


def _write(log: Any, path: Path, format: Format) -> None:
    write = import_module("inspect_ai.log").write_eval_log
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        write(log, str(temporary), format=format)
        temporary.replace(path)
    except OSError as error:
        raise disk_error(error, path) from None
    finally:
        temporary.unlink(missing_ok=True)


def _log(summary: Mapping[str, Any], config: Mapping[str, Any], arm: Arm, rows: RowsFile) -> Any:
    log, chat = import_module("inspect_ai.log"), import_module("inspect_ai.model")
    suite, model, method = arm
    samples = list(_samples(rows, arm))
    cases = list(dict.fromkeys(sample.id for sample in samples))
    settings = f.mapping(summary.get("settings"))
    sampled = {
        k: settings[k] for k in ("temperature", "top_p", "max_tokens", "seed") if k in settings
    }
    spec = f.mapping(summary.get("spec"))
    usage = {}
    if samples:
        total = samples[0].model_usage[_model(model)]
        for sample in samples[1:]:
            total = total + sample.model_usage[_model(model)]
        usage = {_model(model): total}
    return log.EvalLog(
        status="success" if summary.get("finished") else "cancelled",
        eval=log.EvalSpec(
            eval_id=_id(summary, arm),
            run_id=digest([summary.get("name"), _created(summary)])[:22],
            created=_created(summary),
            task=_task(arm),
            task_id=_id(summary, arm),
            task_args={"suite": suite, "method": method, "spec": spec.get("name")},
            solver=method,
            dataset=log.EvalDataset(name=suite, samples=len(cases), sample_ids=cases),
            model=_model(model),
            model_generate_config=chat.GenerateConfig(**sampled),
            config=log.EvalConfig(epochs=max((s.epoch for s in samples), default=1)),
            packages={"adhere": str(summary.get("adhere_version") or "")},
            metadata=_clean({
                "run": summary.get("name"),
                "model": model,
                "spec": {k: v for k, v in spec.items() if k != "rules"},
                "settings": settings,
                "undecided_rules": summary.get("undecided_rules"),
                "judge_trust": summary.get("judge_trust"),
                "config": f.mapping(config.get("identity")).get("methods", {}).get(method),
            }),
        ),
        results=_results(summary, arm, samples),
        stats=log.EvalStats(model_usage=usage),
        samples=samples,
    )  # fmt: skip


def _results(summary: Mapping[str, Any], arm: Arm, samples: Iterable[Any]) -> Any:
    """The summary's own rates: Inspect would leave out repeats, controls and intervals."""
    log = import_module("inspect_ai.log")
    shown = withhold(summary)
    line = next(
        (r for r in f.objects(shown.get("rows")) if _arm(r) == arm and r.get("subset") == "all"), {}
    )
    scores = []
    for rate in RATES:
        parts = {"mean": line.get(rate), "low": line.get(f"{rate}_low"),
                 "high": line.get(f"{rate}_high")}  # fmt: skip
        metrics = {k: log.EvalMetric(name=k, value=v) for k, v in parts.items() if f.is_number(v)}
        if "mean" in metrics:
            scores.append(log.EvalScore(name=rate, scorer=rate, metrics=metrics))
    by_id = {r.get("id"): r for r in f.objects(f.mapping(summary.get("spec")).get("rules"))}
    for entry in f.objects(summary.get("rules")):
        rule = by_id.get(entry.get("rule"), {"id": entry.get("rule")})
        if _arm(entry) != arm or (
            is_withheld(summary) and who_decided(summary, rule, arm[0]) != "check"
        ):
            continue
        yes, no = f.number(entry, "yes") or 0, f.number(entry, "no") or 0
        if yes + no:
            name = f"rule:{rule['id']}"
            followed = log.EvalMetric(name="followed", value=yes / (yes + no))
            scores.append(log.EvalScore(name=name, scorer=name, metrics={"followed": followed}))
    everyone = list(samples)
    return log.EvalResults(
        total_samples=len(everyone),
        completed_samples=sum(s.error is None for s in everyone),
        scores=scores,
    )


def _samples(rows: RowsFile, arm: Arm) -> Iterator[Any]:
    for number, row in enumerate(rows, 1):
        if _arm(row) == arm:
            try:
                yield _sample(_clean(row))
            except (KeyError, ValueError, TypeError, AttributeError) as error:
                raise BadInput(
                    f"{rows.path}: row {number}: found {type(error).__name__} ({error!s:.120}); "
                    "expected a row that adhere wrote"
                ) from None


def _sample(row: Mapping[str, Any]) -> Any:
    log, chat = import_module("inspect_ai.log"), import_module("inspect_ai.model")
    model = _model(row["model"])
    asked = [_message(Message.from_dict(m)) for m in row.get("messages") or ()]
    text, thought = row.get("text") or "", row.get("thought") or ""
    content = (
        [chat.ContentReasoning(reasoning=thought), chat.ContentText(text=text)] if thought else text
    )
    said = chat.ChatMessageAssistant(content=content, model=model, source="generate")
    usage = _usage(row)
    choice = chat.ChatCompletionChoice(
        message=said, stop_reason=_STOPS.get(row.get("finish_reason") or "", "unknown")
    )
    error = row.get("error")
    words = f"{error.get('kind')}: {error.get('message')}" if error else ""
    failed = row.get("outcome") == "failed"
    return log.EvalSample(
        id=row["case"],
        epoch=row["repeat"] + 1,
        input=asked,
        target="",
        messages=asked if failed else [*asked, said],
        output=chat.ModelOutput(model=model, choices=[] if failed else [choice], usage=usage),
        scores=_scores(row) or None,
        metadata={key: row[key] for key in _KEPT if row.get(key) is not None},
        model_usage={model: usage},
        total_time=row.get("seconds"),
        working_time=row.get("seconds"),
        uuid=digest([row["suite"], row["case"], row["model"], row["method"], row["repeat"]])[:22],
        error=log.EvalError(message=words, traceback="", traceback_ansi="") if error else None,
    )


def _scores(row: Mapping[str, Any]) -> dict[str, Any]:
    if row.get("outcome") != "scored":
        return {}
    score = import_module("inspect_ai.scorer").Score
    rates = {"sar": "score", "safety": "safety", "behavioral": "behavioral"}
    out = {name: score(value=row[key]) for name, key in rates.items() if row.get(key) is not None}
    deciders, reasons = row.get("deciders") or {}, row.get("mark_reasons") or {}
    for rule, mark in (row.get("marks") or {}).items():
        out[f"rule:{rule}"] = score(
            value=_LETTERS[mark],
            explanation=reasons.get(rule) or None,
            metadata={"decider": deciders.get(rule, "")},
        )
    return out


def _usage(row: Mapping[str, Any]) -> Any:
    """All calls of the answer. Inspect counts cached tokens apart from the others."""
    used = list((row.get("usage") or {}).values())
    prompt, cached, completion = (
        sum(u.get(key, 0) for u in used)
        for key in ("prompt_tokens", "cached_prompt_tokens", "completion_tokens")
    )
    return import_module("inspect_ai.model").ModelUsage(
        input_tokens=prompt - cached,
        input_tokens_cache_read=cached,
        output_tokens=completion,
        total_tokens=prompt + completion,
    )


def _message(message: Message) -> Any:
    """As Inspect's; parts that are no text, and calls of tools, are shown as JSON text."""
    chat = import_module("inspect_ai.model")
    kinds = {"system": chat.ChatMessageSystem, "developer": chat.ChatMessageSystem,
             "assistant": chat.ChatMessageAssistant}  # fmt: skip
    pieces = [message.text]
    if isinstance(message.content, tuple):
        pieces += [json.dumps(dict(p)) for p in message.content if p.get("type", "text") != "text"]
    pieces += [json.dumps(dict(call)) for call in message.tool_calls]
    return kinds.get(message.role, chat.ChatMessageUser)(content="\n".join(p for p in pieces if p))


def _clean(value: Any) -> Any:
    """The value without halves of characters, which no UTF-8 file takes."""
    if isinstance(value, str):
        return whole_text(value)
    if isinstance(value, Mapping):
        return {whole_text(str(key)): _clean(item) for key, item in value.items()}
    return [_clean(item) for item in value] if isinstance(value, list | tuple) else value


def whole_text(value: str) -> str:
    """The text with halves of characters, which no file format takes, replaced."""
    if value.isascii():
        return value
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
