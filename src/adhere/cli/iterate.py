"""`adhere iterate`: find the rules that a model lacks, let it correct itself, train, repeat."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter
from rich.console import Console

from adhere.cli import options
from adhere.cli.iteralign_options import (
    BadOptions,
    OracleOptions,
    PolicyOptions,
    PoolOptions,
    given,
)
from adhere.cli.row_runs import RowWatch, RunOptions

if TYPE_CHECKING:
    from adhere.experiments.starts import RunResult
    from adhere.training.plan import TrainPlan

_ROUNDS = Group("The rounds", sort_key=1)
_SELF = Group("Self-correction", sort_key=6)
_TRAIN = Group("The training", sort_key=7)


def _of(group: Group, help: str, **more: Any) -> Parameter:
    return Parameter(group=group, help=help, **more)


def iterate(
    config: Annotated[
        Path | None, Parameter(help="a YAML file with the fields of a plan (docs/iteralign.md)")
    ] = None,
    *,
    mode: Annotated[
        str | None, _of(_ROUNDS, "recommended (default), or published: as the released script")
    ] = None,
    batch: Annotated[int | None, _of(_ROUNDS, "prompts of a round (20)")] = None,
    rounds: Annotated[int | None, _of(_ROUNDS, "most rounds (to the pool's end)")] = None,
    patience: Annotated[
        int | None,
        _of(_ROUNDS, "rounds without a failure, or without gain, after which it ends (3)"),
    ] = None,
    held_out: Annotated[
        list[Path] | None,
        _of(
            _ROUNDS,
            "prompts of another source, on which each round's model is measured "
            "(default: some of the pool are set aside)",
            negative=(),
        ),
    ] = None,
    no_guard: Annotated[
        bool, _of(_ROUNDS, "keep a round whose model stopped talking sense", negative=())
    ] = False,
    pool: PoolOptions | None = None,
    policy: PolicyOptions | None = None,
    oracle: OracleOptions | None = None,
    compare: Annotated[
        bool,
        Parameter(
            group="The oracle",
            negative=(),
            help="ask it also whether a rule is new, or contradicts another",
        ),
    ] = False,
    attacks: Annotated[
        int | None,
        Parameter(
            group="The oracle",
            help="prompts that it adds to each round, like those that failed there (0)",
        ),
    ] = None,
    bad: BadOptions | None = None,
    way: Annotated[
        str | None, _of(_SELF, "answer (default), critique, one_by_one, published")
    ] = None,
    tries: Annotated[
        int | None, _of(_SELF, "draws for one failure until the gate lets one by (3)")
    ] = None,
    no_gate: Annotated[
        bool, _of(_SELF, "train also on what is still bad, as published", negative=())
    ] = False,
    start: Annotated[
        str | None, _of(_TRAIN, "what a round trains: base (default), or the last round's model")
    ] = None,
    data: Annotated[
        str | None, _of(_TRAIN, "on what: pool, all pairs so far (default), or the round's batch")
    ] = None,
    replay: Annotated[
        float | None, _of(_TRAIN, "share of the model's own good answers among the rows (0)")
    ] = None,
    learning_rate: Annotated[float | None, _of(_TRAIN, "of each training (5e-4)")] = None,
    epochs: Annotated[float | None, _of(_TRAIN, "passes over the rows (2)")] = None,
    batch_size: Annotated[int | None, _of(_TRAIN, "rows of one step (8)")] = None,
    tune: Annotated[str | None, _of(_TRAIN, "lora (default), full or qlora")] = None,
    out: Annotated[Path | None, Parameter(help="the run's folder")] = None,
    run: RunOptions | None = None,
    quiet: options.Quiet = False,
) -> int:
    """Discover the rules that a model lacks, align it by them, and keep both.

    Each round: the model answers a batch of red-team prompts; a judge finds the bad answers; a
    stronger model writes the rules whose absence caused them; the model answers again under those
    rules; what has become good is trained on, without the rules in sight. It ends when no failure
    is found any more. No spec is needed to begin with: constitution.md is one that was found, with
    the failures behind each rule. Edit it between rounds; your edits are used and counted.

    Leaves the model (rounds/NNNN/train/model), constitution.md, held.md (rules that a red-teamed
    text may have planted), ledger.jsonl, rounds.jsonl, summary.json and report.html. A killed run
    goes on when the same command is given again.

    For example:
      adhere iterate --prompts pool.jsonl --held-out other.jsonl --model weights:smollm2-135m
          --oracle local:qwen2.5-coder-1.5b --out aligned
      adhere iterate --suite harmfulqa:path=harmfulqa.json --mode published
          --model weights:base --oracle openai:gpt-4.1 --out published
    """
    from adhere.training.recipes.iteralign.loop import check_trainable
    from adhere.training.recipes.iteralign.loop import iterate as run_rounds
    from adhere.training.recipes.iteralign.plan_file import read_plan
    from adhere.training.recipes.iteralign.rounds_plan import IteratePlan

    training = {
        "learning_rate": learning_rate, "epochs": epochs, "batch_size": batch_size, "tune": tune
    }  # fmt: skip
    fields = given(
        {"mode": mode, "batch": batch, "rounds": rounds, "patience": patience,
         "held_out": held_out, "guard": False if no_guard else None},
        (pool or PoolOptions()).fields(), (policy or PolicyOptions()).fields(),
        (oracle or OracleOptions()).fields(), (bad or BadOptions()).fields(),
        {"way": way, "tries": tries, "gate": False if no_gate else None, "start": start,
         "data": data, "replay": replay, "attacks": attacks, "compare": compare or None,
         "training": {k: v for k, v in training.items() if v is not None} or None, "out": out},
        (run or RunOptions()).fields(),
    )  # fmt: skip
    plan = read_plan(IteratePlan, config, fields)
    check_trainable(plan)
    console = Console(stderr=True, quiet=quiet)
    watcher = RoundWatch(console)
    try:
        result = run_rounds(plan, trainer=watcher.trainer, watcher=watcher)
    finally:
        watcher.close()
    if not quiet:
        show(result)
    if result.stopped:
        Console(stderr=True).print(f"adhere: {result.stopped}", highlight=False, markup=False)
    return result.exit_code


class RoundWatch:
    """Rounds on a terminal: one line a phase while it runs, one a round when it is at its end."""

    _ENDS: Mapping[str, Mapping[str, str]] = {
        "redteam": {"bad": "bad", "good": "good", "unscored": "unscored", "failed": "failed"},
        "attack": {"written": "with prompts", "none": "without", "failed": "failed"},
        "propose": {"proposed": "with rules", "none": "without", "failed": "failed"},
        "compare": {"compared": "compared", "none": "unread", "failed": "failed"},
        "reflect": {"kept": "kept", "rejected": "rejected", "failed": "failed"},
    }

    def __init__(self, console: Console) -> None:
        self.console = console
        self._open: RowWatch | None = None

    def phase(self, number: int, name: str) -> RowWatch:
        """See `Watcher.phase`."""
        self.close()
        where = "the model as it came" if number == 0 else f"round {number}"
        what = {
            "redteam": "answering the round's prompts",
            "attack": "writing prompts like those that failed",
            "attacked": "answering the oracle's prompts", "propose": "looking for rules",
            "compare": "comparing rules", "reflect": "answering again under the rules",
            "train": "training", "probe": "answering the held-out prompts",
        }[name]  # fmt: skip
        self.console.print(f"{where}: {what}", highlight=False)
        self._open = RowWatch(self.console, self._ENDS.get(name, self._ENDS["redteam"]))
        if name != "train":
            self._open.__enter__()
        return self._open

    def round(self, record: Mapping[str, Any]) -> None:
        """See `Watcher.round`."""
        from adhere.training.recipes.iteralign.page import STATES

        self.close()
        found = record["found"]
        told = [f"{found['bad']} of {found['bad'] + found['good']} answers bad"]
        if (attacks := record.get("attacks")) and (more := attacks["found"]):
            told.append(f"{more['bad']} of {more['bad'] + more['good']} to the oracle's prompts")
        elif attacks:
            told.append("no new prompt by the oracle")
        if record["rules"]:
            told.append(f"{record['rules']['proposed']} rules")
        if record["rows"]:
            told.append(f"{record['rows']['rows']} revisions kept")
        if look := record.get("look"):
            value = look["bad_rate"]["value"]
            told.append("no rate on the held-out prompts" if value is None else
                        f"{value:.2f} bad on the held-out prompts")  # fmt: skip
        self.console.print(
            f"round {record['round']}: {STATES[record['state']]} ({', '.join(told)})",
            highlight=False, markup=False, soft_wrap=True,
        )  # fmt: skip

    def note(self, text: str) -> None:
        """See `Watcher.note`."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def close(self) -> None:
        """End the display of a phase."""
        if self._open is not None:
            self._open.progress.stop()
            self._open = None

    def trainer(self, plan: TrainPlan) -> str:
        """Train with plots in the terminal."""
        from adhere.training.live import Watch
        from adhere.training.recipes.iteralign.loop import train_here

        self.close()
        with Watch(self.console) as watch:
            return train_here(plan, progress=watch)


def show(result: RunResult) -> None:
    """Print the table of rounds, the rules, and where everything is."""
    from adhere.cli.console import wide_console
    from adhere.cli.distill_table import to_table
    from adhere.training.recipes.iteralign.page import grids, headline, notes

    out, summary = wide_console(), result.summary
    if result.did_nothing:
        out.print(f"{result.folder}: already finished; nothing was run.", highlight=False)
    out.print()
    out.print(headline(summary), highlight=False, markup=False, soft_wrap=True)
    for grid in grids(summary)[:2]:
        if grid.rows:
            out.print(to_table(grid))
    for note in notes(summary):
        out.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)
    folder = result.folder
    where = [f"Model: {summary['model']}", f"Report: {folder / 'report.html'}"]
    if (folder / "constitution.md").is_file():
        where.insert(1, f"Rules: {folder / 'constitution.md'}")
    for line in where:
        out.print(line, highlight=False, markup=False, soft_wrap=True)
