"""The rows of a run on their way from a prompt to a pair, or to the reason why there is none.

The answers are written, each is marked, then they are compared, or the one is revised, the
revision marked, and accepted or refused and tried again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from adhere.chat import Case, Models, Role
from adhere.experiments.marking import JUDGE_ROLE
from adhere.experiments.stepwise.rows import FAILED, Row, begun, ended
from adhere.experiments.stepwise.seats import NOBODY, Open
from adhere.records.run_folder import Key
from adhere.training.recipes.clair.choosing import best_and_worst, why_unusable
from adhere.training.recipes.clair.drafting import failure, is_marked, mark_text, write_text
from adhere.training.recipes.clair.edits import edit_share
from adhere.training.recipes.clair.inputs import JUDGE, REVISER, ClairInputs
from adhere.training.recipes.clair.plan import RULES
from adhere.training.recipes.clair.refusing import refuse_marks, violated
from adhere.training.recipes.clair.revising import ask_reviser, repair_draft

PAIR, CLEAN, DROPPED = "pair", "clean", "dropped"  # how a row ends


@dataclass
class Making:
    """What the rows of a run go through (`Steps`)."""

    inputs: ClairInputs

    def __post_init__(self) -> None:
        """Read what is there."""
        self.cases = {case.id: case for case in self.inputs.cases}

    def new_row(self, key: Key) -> Row:
        """A row before anything was asked."""
        return begun(key, texts=[], revision=None, tries=[], chosen=None, rejected=None, edit=None)

    def next_seat(self, row: Row) -> str:
        """Who must be open for a row's next step: a seat, or nobody."""
        texts = self.inputs.texts
        if len(row["texts"]) < len(texts):
            return texts[len(row["texts"])].seat
        judge = JUDGE if self.inputs.plan.judge is not None else NOBODY
        if self._unmarked(row) is not None:
            return judge
        if self.inputs.plan.set != "clair":
            return NOBODY
        if row["revision"] is not None:
            return judge if not is_marked(row["revision"]) else NOBODY
        needed = self.inputs.plan.model_reviser is not None and not self._needs_nothing(row)
        return REVISER if needed else NOBODY

    async def step(self, row: Row, open_: Open) -> Row:
        """The row one step further."""
        case, inputs, repeat = self.cases[row["case"]], self.inputs, row["repeat"]
        if len(row["texts"]) < len(inputs.texts):
            return await self._write(row, case, repeat, open_)
        if (unmarked := self._unmarked(row)) is not None:
            return await self._mark(row, case, row["texts"][unmarked], open_)
        if inputs.plan.set != "clair":
            return await self._measured(best_and_worst(row, inputs), case)
        if row["revision"] is None:
            return await self._revise(row, case, repeat, open_)
        if not is_marked(row["revision"]):
            row = await self._mark(row, case, row["revision"], open_)
            if row["outcome"] == FAILED:
                return row
        return await self._measured(self._accept(row), case)

    async def _write(self, row: Row, case: Case, repeat: int, open_: Open) -> Row:
        text = self.inputs.texts[len(row["texts"])]
        facts, error = await write_text(self.inputs, case, text, repeat, open_.models[text.seat])
        if error is not None:
            return {**ended(row, FAILED, detail=error.message), "error": failure(error, text.seat)}
        return {**row, "texts": [*row["texts"], facts]}

    def _unmarked(self, row: Row) -> int | None:
        """The place of the first text that can be used and has no marks yet."""
        for place, text in enumerate(row["texts"]):
            if not is_marked(text) and not why_unusable(text, self.inputs.plan.accept):
                return place
        return None

    async def _mark(self, row: Row, case: Case, text: Mapping[str, Any], open_: Open) -> Row:
        models: Models = {Role.JUDGE: open_.models[JUDGE]} if JUDGE in open_.models else {}
        marks, error = await mark_text(self.inputs, case, text["text"], models)
        if error is not None:
            return {
                **ended(row, FAILED, detail=error.message), "error": failure(error, JUDGE_ROLE)
            }  # fmt: skip
        if text is row["revision"]:
            return {**row, "revision": {**text, **marks}}
        return {**row, "texts": [{**t, **marks} if t is text else t for t in row["texts"]]}

    # ------------------------------------------------------------ revisions

    def _needs_nothing(self, row: Row) -> bool:
        """Whether the draft ends the row as it is: of no use, or without anything to mend."""
        [draft] = row["texts"]
        return "marks" not in draft or (
            not violated(draft["marks"]) and not self.inputs.plan.revises_all
        )

    async def _revise(self, row: Row, case: Case, repeat: int, open_: Open) -> Row:
        [draft] = row["texts"]
        if why := why_unusable(draft, self.inputs.plan.accept):
            return ended(row, DROPPED, why, draft["reason"])
        if "marks" not in draft:
            return ended(row, DROPPED, "draft_unscored", draft["unscored"])
        if self._needs_nothing(row):
            return ended(row, CLEAN)
        if self.inputs.plan.reviser == RULES:
            facts, error = await repair_draft(self.inputs, case, draft)
        else:
            facts, error = await ask_reviser(
                self.inputs, case, draft, open_.models[REVISER],
                repeat=repeat, number=len(row["tries"]),
            )  # fmt: skip
        if error is not None:
            failed = ended(row, FAILED, detail=error.message)
            return {**failed, "error": failure(error, REVISER)}
        if "refused" in facts:
            return self._refused(row, facts, facts["refused"], facts["detail"])
        return {**row, "revision": facts}

    def _accept(self, row: Row) -> Row:
        [draft], revision, plan = row["texts"], row["revision"], self.inputs.plan
        if "marks" not in revision:
            return self._refused(row, revision, "unscored", revision["unscored"])
        refused = refuse_marks(
            draft["marks"], revision["marks"], self.inputs.spec, plan.improve, plan.accept
        )
        if refused is not None:
            return self._refused(row, revision, refused.reason, refused.detail)
        reviser = {"seat": REVISER if plan.reviser != RULES else RULES}
        return {**ended(row, PAIR), "chosen": {**revision, **reviser}, "rejected": draft}

    async def _measured(self, row: Row, case: Case) -> Row:
        """A pair with the share of its edit that the rules needed; other rows as they are."""
        if row["outcome"] != PAIR:
            return row
        rejected, chosen = row["rejected"], row["chosen"]
        still = violated(chosen["marks"])
        broken = violated(rejected["marks"])
        rules = self.inputs.spec.rules
        # In a thread: it runs the checks many times, and other rows wait for models meanwhile.
        share = await asyncio.to_thread(
            edit_share,
            rejected["text"],
            chosen["text"],
            [rule for rule in rules if rule.id in broken and rule.id not in still],
            case.judged_prompt or case.prompt,
            [rule for rule in rules if rule.id not in broken and rule.id not in still],
        )
        return {**row, "edit": share.as_json()}

    def _refused(self, row: Row, facts: Mapping[str, Any], reason: str, detail: str) -> Row:
        """The row after a try that was no use: to be tried again, or dropped for this reason."""
        kept = {k: v for k, v in facts.items() if k in ("draw", "reply", "text", "finish_reason")}
        tries = [*row["tries"], {**kept, "reason": reason, "detail": detail}]
        row = {**row, "revision": None, "tries": tries}
        config = self.inputs.plan.model_reviser
        if config is None or len(tries) >= config.tries:
            return ended(row, DROPPED, reason, detail)
        return row
