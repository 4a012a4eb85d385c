"""The rows that a plan names, and the objective where the plan leaves that to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from adhere.errors import BadInput
from adhere.training.auto_objective import choose_objective
from adhere.training.completions import completions_digest
from adhere.training.plan import TrainPlan
from adhere.training.reading import read_training_rows, rows_digest
from adhere.training.rows import CompletionRow, PreferenceRow, TrainRow
from adhere.training.tokenizing import SetAside


@dataclass(frozen=True)
class Rows:
    """The rows of a file, all of one kind; `digest` is over what they say, in order."""

    rows: Sequence[TrainRow]
    set_aside: list[SetAside]
    digest: str

    @property
    def alone(self) -> bool:
        """Whether each row is one answer to learn, and no preference pair."""
        return isinstance(self.rows[0], CompletionRow)


def read(plan: TrainPlan) -> Rows:
    """The plan's rows. Raises BadInput, also for rows that its recipe or objective cannot use."""
    learns = plan.recipe in ("deliberative", "iteralign")
    found = read_training_rows(plan.pairs, plan.on_bad_row, learns=learns)
    alone = [row for row in found.rows if isinstance(row, CompletionRow)]
    if not alone:
        if plan.recipe == "deliberative":
            raise BadInput(
                f"{plan.pairs}: found preference pairs; expected rows with one answer to learn "
                "(recipe deliberative)",
                hint="`adhere data distill` makes them. For pairs leave --recipe out.",
            )
        pairs = [row for row in found.rows if isinstance(row, PreferenceRow)]
        return Rows(pairs, found.set_aside, rows_digest(pairs))
    if plan.objective not in ("auto", "sft"):
        raise BadInput(
            f"{plan.pairs}: found rows with one answer to learn; expected preference pairs for the "
            f"objective {plan.objective}",
            hint="Leave --objective out, or name sft: these rows have nothing to avoid.",
        )
    if plan.recipe == "clair":
        raise BadInput(
            f"{plan.pairs}: found rows with one answer to learn; expected the preference pairs of "
            "recipe clair",
            hint="--recipe deliberative is for distilled rows; for others leave --recipe out.",
        )
    return Rows(alone, found.set_aside, completions_digest(alone))


def chosen_objective(
    plan: TrainPlan, rows: Rows, note: Callable[[str], None], *, may_sample: bool
) -> tuple[str, str]:
    """The objective, and why where the plan leaves it open (`auto_objective.py`).

    Raises BadInput where there is nothing to choose by.
    """
    if plan.objective != "auto":
        return plan.objective, ""
    if rows.alone:
        return "sft", "sft, for the rows have one answer to learn and none to avoid"
    from adhere.spec import load_spec

    spec = load_spec(plan.spec) if plan.spec is not None else None
    pairs = [row for row in rows.rows if isinstance(row, PreferenceRow)]
    found = choose_objective(plan, pairs, spec, note=note, may_sample=may_sample)
    return found.objective, found.why
