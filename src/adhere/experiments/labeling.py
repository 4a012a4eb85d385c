"""Human labels of a run: the sample that is kept with it, and the file that the labels go to.

    RUN/labels/sample.json    the items and the key to them: whose answers they are
    RUN/labels/labels.jsonl   the labels, for `adhere calibrate judge`

Every answer is saved at once by writing the labels file anew, whole or not at all, so a kill
loses nothing. That keeps the weights right too: those of a stratum's labels add up to the
stratum's size however many of its items were labeled, and by however many people.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock
from filelock import Timeout as LockTaken

from adhere.chat import Mark, messages_from
from adhere.errors import BadInput, disk_error
from adhere.experiments.label_sample import DEFAULT_N, Item, Sample, arranged, draw_sample
from adhere.records.run_folder import dump_json, write_atomic
from adhere.suites.labels_file import (
    Label,
    read_labels,
    read_mark,
    resume_labels,
)
from adhere.suites.reading import json_lines, parse_object

__all__ = [
    "Imported",
    "Item",
    "LabelBook",
    "Sample",
    "draw_sample",
    "import_labels",
    "labels_path",
    "open_sample",
    "read_labels",
    "record_label",
]

FOLDER = "labels"
SAMPLE_FILE = "sample.json"
LABELS_FILE = "labels.jsonl"
SCHEMA_VERSION = 1


def labels_path(folder: Path) -> Path:
    """Where the labels of a run are."""
    return folder / FOLDER / LABELS_FILE


# ---------------------------------------------------------------- the sample of a run


def open_sample(
    folder: Path,
    n: int | None = None,
    seed: int | None = None,
    rules: Sequence[str] | None = None,
    *,
    all_rules: bool = False,
) -> Sample:
    """The sample that is kept with a run; drawn and kept first if need be, extended by a larger n.

    A kept sample is never replaced by another: a page may have been made of it. Raises BadInput.
    """
    path = folder / FOLDER / SAMPLE_FILE
    kept = _read_sample(path) if path.exists() else None
    if kept is None:
        drawn = draw_sample(
            folder, DEFAULT_N if n is None else n, seed or 0, rules, all_rules=all_rules
        )
        _write_sample(path, drawn)
        return drawn
    hint = f"To draw another sample move {path.parent} away; its answers belong to the old one."
    if seed is not None and seed != kept.seed:
        raise BadInput(f"--seed {seed}: this run's sample was drawn with {kept.seed}", hint=hint)
    asked = None if rules is None else tuple(rules)
    if (asked is not None and asked != kept.rules) or (all_rules and not kept.all_rules):
        raise BadInput(f"--rules: {path} was drawn for other rules", hint=hint)
    if n is None or len(kept.items) <= n <= kept.n:
        return kept
    larger = draw_sample(folder, max(n, 1), kept.seed, kept.rules, all_rules=kept.all_rules)
    if dict(larger.strata) != dict(kept.strata):
        raise BadInput(f"--n {n}: the run's rows changed since {path} was drawn", hint=hint)
    if len(larger.items) < len(kept.items):
        raise BadInput(f"--n {n}: this run's sample has {len(kept.items)} items", hint=hint)
    if not kept.by_id.keys() <= larger.by_id.keys():
        raise BadInput(f"--n {n}: the run's rows changed since {path} was drawn", hint=hint)
    _write_sample(path, larger)
    return larger


def _write_sample(path: Path, sample: Sample) -> None:
    drawn = Counter(item.stratum for item in sample.items)
    data = {
        "schema_version": SCHEMA_VERSION,
        "warning": "This is the key to a blinded sample. Do not show it to labelers.",
        "n": sample.n,
        "seed": sample.seed,
        "rules": sample.rules,
        "all_rules": sample.all_rules,
        "spec": dict(sample.spec),
        "strata": {k: {"size": v, "drawn": drawn[k]} for k, v in sample.strata.items()},
        "items": [
            {
                "id": item.id,
                "rule": item.rule,
                "rule_text": item.rule_text,
                "stratum": item.stratum,
                "sensitive": item.sensitive,
                "messages": [m.to_dict() for m in item.messages],
                "response": item.response,
                "row": dict(item.row),
            }
            for item in sample.items
        ],
    }
    _make_folder(path)
    write_atomic(path, json.dumps(data, indent=1, allow_nan=False) + "\n")


def _read_sample(path: Path) -> Sample:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["schema_version"] != SCHEMA_VERSION:
            raise BadInput(f"{path}: was written by another version of adhere")
        items = (
            Item(**{**item, "messages": messages_from(item["messages"])}) for item in data["items"]
        )
        return Sample(
            int(data["n"]),
            int(data["seed"]),
            None if data["rules"] is None else tuple(data["rules"]),
            bool(data["all_rules"]),
            data["spec"],
            {k: int(v["size"]) for k, v in data["strata"].items()},
            arranged(items, int(data["seed"])),
        )
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise BadInput(
            f"{path}: is damaged; expected a sample written by adhere",
            hint="Move it away to draw the sample again; the same run and seed give the same.",
        ) from None


# ---------------------------------------------------------------- labels


class LabelBook:
    """A labels file opened for writing. Use as a context manager; one process at a time.

    `torn` is True when a half written last line was left out. Labels of pairs that are not in the
    sample (written by hand, say) are kept as they are.
    """

    def __init__(self, path: Path, sample: Sample) -> None:
        """Lock and read the file. Raises BadInput."""
        self.path = path
        self._sample = sample
        self._items = sample.by_id
        _make_folder(path)
        self._lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=0)
        try:
            self._lock.acquire()
        except LockTaken:
            raise BadInput(
                f"{path}: another adhere process is writing these labels",
                hint="Wait for it to end, or write to another file with --out.",
            ) from None
        except OSError as error:
            raise disk_error(error, path) from None
        try:
            labels, self.torn = resume_labels(path)
        except BaseException:
            self._lock.release()
            raise
        self._labels = {(label.item, label.labeler): label for label in labels}

    def __enter__(self) -> LabelBook:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.release()

    def marks(self, labeler: str = "") -> dict[str, Mark]:
        """What a labeler said so far, by item id; of items of the sample only."""
        return {
            item: label.mark
            for (item, who), label in self._labels.items()
            if who == labeler and item in self._items
        }

    def record(self, item_id: str, mark: Mark | None, labeler: str = "") -> None:
        """Save one answer, in place of the labeler's earlier one; None takes that back."""
        self.merge({(item_id, labeler): mark})

    def merge(self, answers: dict[tuple[str, str], Mark | None]) -> None:
        """Save answers by item id and labeler, all or none. Raises BadInput, DiskFull."""
        labels = dict(self._labels)
        for (item_id, labeler), mark in answers.items():
            if mark is None:
                labels.pop((item_id, labeler), None)
                continue
            item = self._items[item_id]
            labels[item_id, labeler] = Label(
                item.messages, item.response, item.rule, mark,
                stratum=item.stratum, labeler=labeler, row=item.row,
            )  # fmt: skip
        labels = self._weighted(labels)
        write_atomic(
            self.path, "".join(dump_json(label.to_dict()) + "\n" for label in labels.values())
        )
        self._labels = labels

    def _weighted(self, labels: dict[tuple[str, str], Label]) -> dict[tuple[str, str], Label]:
        """Weights anew: a stratum's size over its labeled pairs, shared by a pair's labelers."""
        times = Counter(item for item, _ in labels if item in self._items)
        pairs = Counter(self._items[item].stratum for item in times)
        out = {}
        for key, label in labels.items():
            item = self._items.get(key[0])
            if item is not None:
                size = self._sample.strata[item.stratum]
                weight = size / pairs[item.stratum] / times[item.id]
                label = replace(label, weight=weight, stratum=item.stratum)  # noqa: PLW2901
            out[key] = label
        return out


def record_label(
    path: Path, sample: Sample, item_id: str, mark: Mark | None, labeler: str = ""
) -> None:
    """Save one label to a labels file. See `LabelBook.record`."""
    with LabelBook(path, sample) as book:
        book.record(item_id, mark, labeler)


# ---------------------------------------------------------------- answers of a page


@dataclass(frozen=True)
class Imported:
    """How many answers of a file were new, changed an earlier one, or repeated it."""

    new: int
    changed: int
    same: int
    labelers: tuple[str, ...]


def import_labels(answers: Path, sample: Sample, path: Path, labeler: str = "") -> Imported:
    """Merge the answers of a label page into a labels file; all of them or, on an error, none.

    `labeler` is whoever a line without a name is by. Answers of two labelers stay side by side; a
    later file of the same labeler replaces what it answers. Raises BadInput with file and line.
    """
    given: dict[tuple[str, str], Mark | None] = {}
    lines: dict[tuple[str, str], int] = {}
    items = sample.by_id
    for number, text, _ in json_lines(answers):
        data = parse_object(answers, number, text, '{"item": ..., "mark": "YES"}')
        if unknown := sorted(set(data) - {"item", "mark", "labeler"}):
            raise BadInput.at(
                answers, number, f"the key {unknown[0]!r}", "only item, mark, labeler"
            )
        item: Any = data.get("item")
        if not isinstance(item, str) or item not in items:
            raise BadInput.at(
                answers, number, f"item = {item!r:.40}", "an item of this run's sample",
                hint="Import into the run whose page was answered.",
            )  # fmt: skip
        mark = read_mark(answers, number, data.get("mark"))
        who = data.get("labeler") or labeler
        if not isinstance(who, str):
            raise BadInput.at(answers, number, f"labeler = {who!r:.40}", "text")
        key = item, who.strip()
        if given.get(key, mark) is not mark:
            raise BadInput.at(
                answers, number, f"{mark.value} where line {lines[key]} says {given[key]}",
                "one mark for an item by one labeler",
            )  # fmt: skip
        given[key] = mark
        lines[key] = number
    if not given:
        raise BadInput(f"{answers}: found no answers; expected the file that the page saved")
    with LabelBook(path, sample) as book:
        before = {key: book.marks(key[1]).get(key[0]) for key in given}
        book.merge(given)
    return Imported(
        sum(before[key] is None for key in given),
        sum(before[key] not in (None, mark) for key, mark in given.items()),
        sum(before[key] is mark for key, mark in given.items()),
        tuple(dict.fromkeys(who for _, who in given)),
    )


def _make_folder(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(error, path.parent) from None
