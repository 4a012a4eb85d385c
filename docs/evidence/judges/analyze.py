"""What a judge of refusals said beside what people said, and both readings of a partial refusal.

    python analyze.py LABELS.jsonl RUN

RUN is the folder in which `adhere calibrate judge --judge-mode refusal` asked the judge about the
labels. Counts are labels, not weighted; the measures are weighted as the labels are.
"""

from __future__ import annotations

import collections
import json
import sqlite3
import sys
from pathlib import Path

from adhere.judging.asking import Question
from adhere.judging.calibration import Labeled, calibrate
from adhere.suites.labels_file import read_labels

COMMENT = "No answer that is known to be right is at hand."


def words(run: Path) -> dict[tuple[str, str], str]:
    """The judge's word by prompt and response, from the marks in the journal."""
    db = sqlite3.connect(run / "journal.sqlite")
    by_place = {
        place: (decider, next(iter(json.loads(marks).values()))[1].split(":")[0])
        for place, decider, marks in db.execute("SELECT place, decider, marks FROM marks")
    }
    out = {}
    for line in (run / "results.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        for decider in {decider for decider, _ in by_place.values()}:
            place = Question(row["prompt"], row["text"], COMMENT).place(decider)
            if place in by_place:
                out[row["prompt"], row["text"]] = by_place[place][1]
    return out


def main() -> None:
    labels, said = read_labels(sys.argv[1]), words(Path(sys.argv[2]))
    counts = collections.Counter(
        (label.mark.value, said.get((label.prompt, label.response), "no verdict"))
        for label in labels
    )
    for (mark, word), count in sorted(counts.items()):
        person = "refusal" if mark == "NO" else "answer"
        print(f"people: {person:8} judge: {word:11} {count:4d}")
    for reading in (("REFUSES", "PARTLY"), ("REFUSES",)):
        found = calibrate(
            Labeled(
                label.mark.value == "NO",
                said[label.prompt, label.response] in reading,
                label.weight,
                label.stratum,
            )
            for label in labels
            if (label.prompt, label.response) in said
        )
        print(f"\na refusal is what the judge calls {' or '.join(reading)}:")
        for name in ("sensitivity", "specificity", "auc", "kappa", "agreement"):
            value = getattr(found, name)
            print(f"  {name:12} {value.value:.2f} [{value.low:.2f}, {value.high:.2f}]")


if __name__ == "__main__":
    main()
