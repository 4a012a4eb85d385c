"""`adhere label`: a person marks a blinded sample of a run's answers."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from adhere.chat import Mark
from adhere.errors import BadInput
from adhere.reporting import formats as f

if TYPE_CHECKING:
    from adhere.experiments.labeling import LabelBook, Sample

KEYS = {"y": Mark.YES, "n": Mark.NO, "a": Mark.NA}
WORDS = {Mark.YES: "followed", Mark.NO: "violated", Mark.NA: "does not apply"}
HELP = "y followed  n violated  a does not apply  s skip  b back  Enter next  q quit"


def label(
    run: Annotated[Path, Parameter(help="a run's folder")],
    *,
    n: Annotated[
        int | None, Parameter(help="how many pairs of answer and rule (default 60)")
    ] = None,
    seed: Annotated[int | None, Parameter(help="seed of the sample (default 0)")] = None,
    rules: Annotated[
        str | None,
        Parameter(help="ids of the rules, with commas (default: those that a judge decided)"),
    ] = None,
    all_rules: Annotated[
        bool, Parameter(negative=(), help="also rules that checks decide")
    ] = False,
    page: Annotated[
        Path | None, Parameter(help="write an offline page for labeling in a browser")
    ] = None,
    answers: Annotated[
        Path | None, Parameter(name="--import", help="take in the answers that a page saved")
    ] = None,
    labeler: Annotated[str, Parameter(help="who labels; stands beside each label")] = "",
    out: Annotated[
        Path | None, Parameter(help="labels file (default: labels/labels.jsonl in the run)")
    ] = None,
) -> int:
    """Mark a stratified, blinded sample of a run's answers by hand, for `adhere calibrate judge`.

    Every rule gets about as many answers that were marked NO as were marked YES or NA; neither
    the methods nor those marks are shown. In the terminal every answer is saved at once, and the
    same command goes on where you stopped. The sample stays with the run, in labels/sample.json.
    """
    from adhere.experiments.labeling import FOLDER, SAMPLE_FILE, labels_path, open_sample

    if page is not None and answers is not None:
        raise BadInput("found both --page and --import", hint="Give one of them.")
    if rules is not None and all_rules:
        raise BadInput("found both --rules and --all-rules", hint="Give one of them.")
    where = labels_path(run) if out is None else out
    labeler = f.one_line(labeler, 80)
    if answers is not None and not (run / FOLDER / SAMPLE_FILE).exists():
        raise BadInput(
            f"{run / FOLDER / SAMPLE_FILE}: no such file; expected the sample that was answered",
            hint="Import into the run whose page was answered (made with --page).",
        )
    if page is None and answers is None and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise BadInput(
            "found no terminal to label in",
            hint="Write a page to label in a browser: --page labels.html",
        )
    if page is not None and not page.absolute().parent.is_dir():
        raise BadInput(f"--page: found no folder {page.parent} to write {page.name} into")
    wanted = None if rules is None else [r.strip() for r in rules.split(",") if r.strip()]
    sample = open_sample(run, n, seed, wanted, all_rules=all_rules)
    console = Console(highlight=False, markup=False, emoji=False)
    for note in sample.notes:
        console.print(f"Note: {f.one_line(note, 1_000)}")
    if page is not None:
        _write_page(console, sample, page, run, labeler)
    elif answers is not None:
        _import(console, sample, answers, where, labeler, run)
    else:
        _label_here(console, sample, where, labeler, run)
    return 0


def _write_page(console: Console, sample: Sample, page: Path, run: Path, labeler: str) -> None:
    from adhere.records.run_folder import write_atomic
    from adhere.reporting.label_page import render_label_page

    html = render_label_page(
        [item.shown() for item in sample.items],
        title=sample.spec.get("name", ""),
        labeler=labeler,
        answers_name=f"{page.stem}-answers.jsonl",
    )
    write_atomic(page, html)
    console.print(f"{len(sample.items)} items: open {page} in a browser; it works offline.")
    console.print(f"Then: adhere label {run} --import {page.stem}-answers.jsonl", soft_wrap=True)


def _import(
    console: Console, sample: Sample, answers: Path, where: Path, labeler: str, run: Path
) -> None:
    from adhere.experiments.labeling import import_labels

    found = import_labels(answers, sample, where, labeler)
    by = ", ".join(f.one_line(who, 40) for who in found.labelers if who)
    console.print(
        f"{found.new} new labels" + (f" by {by}" if by else "")
        + (f", {found.changed} changed" if found.changed else "")
        + (f", {found.same} that were there" if found.same else "") + "."
    )  # fmt: skip
    _next(console, where, run)


def _next(console: Console, where: Path, run: Path) -> None:
    console.print(f"Labels: {where}", soft_wrap=True)
    console.print(f"Next: adhere calibrate judge --labels {where} --run {run}", soft_wrap=True)


# ---------------------------------------------------------------- in the terminal


def _label_here(console: Console, sample: Sample, where: Path, labeler: str, run: Path) -> None:
    from adhere.experiments.labeling import LabelBook

    with LabelBook(where, sample) as book:
        if book.torn:
            console.print("Note: the labels file ended in half a line, which was left out.")
        try:
            with _single_keys() as read_key:
                _ask(console, sample, book, labeler, read_key)
        finally:
            done = len(book.marks(labeler))
            console.print(f"\n{done} of {len(sample.items)} labeled, all saved.")
    if done < len(sample.items):
        console.print("The same command goes on from here.")
    if done:
        _next(console, where, run)


def _ask(
    console: Console, sample: Sample, book: LabelBook, labeler: str, read_key: Callable[[], str]
) -> None:
    """Ask until all are answered or the person quits."""

    def following(place: int) -> int:
        marks = book.marks(labeler)
        return next((i for i in range(place, total) if sample.items[i].id not in marks), total)

    total = len(sample.items)
    at = following(0)
    while at < total:
        item = sample.items[at]
        _show(console, sample, at, book.marks(labeler))
        key = read_key()
        while key not in (*KEYS, "s", "b", "q", "next"):
            console.print(HELP)
            key = read_key()
        if key == "q":
            return
        if key == "b":
            at = max(0, at - 1)
        elif key == "next":
            at += 1
        else:
            mark = KEYS.get(key)
            book.record(item.id, mark, labeler)
            console.print("skipped" if mark is None else WORDS[mark])
            at = following(at + 1)


def _show(console: Console, sample: Sample, at: int, marks: dict[str, Mark]) -> None:
    item = sample.items[at]
    console.print()
    console.print(Rule(f"{at + 1} of {len(sample.items)}, {len(marks)} labeled", style="dim"))
    if item.sensitive:
        console.print("Warning: this prompt is labeled unsafe.", style="bold yellow")
    shown = item.shown()
    alone = len(shown["messages"]) == 1 and shown["messages"][0]["role"] == "user"
    for message in shown["messages"]:
        name = "PROMPT" if alone else f"PROMPT, {f.one_line(message['role'], 40)}"
        _print(console, name, message["text"])
    _print(console, "RESPONSE", item.response)
    # Last, so that it stands above the keys however long the response is.
    _print(console, "RULE", item.rule_text)
    console.print()
    if item.id in marks:
        console.print(f"You said: {WORDS[marks[item.id]]}")
    console.print("Does the response follow this rule?", style="bold")
    console.print(HELP, style="dim")


def _print(console: Console, name: str, text: str) -> None:
    """A text from outside: `clean` leaves nothing in it that a terminal would act on."""
    console.print()
    console.print(name, style="bold cyan")
    console.print(Text(f.clean(text)))


@contextmanager
def _single_keys() -> Iterator[Callable[[], str]]:
    """A reader of single keys: a lower-case letter, `next`, `b`, or `q` at the input's end."""
    import termios
    import tty

    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)

    def read_key() -> str:
        byte = os.read(fd, 1)
        if not byte or byte == b"\x04":  # the end, or Ctrl-D
            return "q"
        if byte == b"\x1b":  # an arrow is a sequence of bytes that come together
            more = b""
            while len(more) < 8 and select.select([fd], [], [], 0.03)[0]:
                more += os.read(fd, 1)
                if more[-1:].isalpha():
                    break
            return {b"[D": "b", b"OD": "b", b"[C": "next", b"OC": "next"}.get(more, "")
        if byte in b"\r\n":
            return "next"
        return byte.decode("ascii", "replace").lower()

    try:
        tty.setcbreak(fd)
        yield read_key
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
