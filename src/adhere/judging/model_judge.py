"""Judges that ask a model: all rules in one call, one a rule, a guard, only refusals, or a rubric.

A rule that has a check is decided by its check. The model decides the rest, and by default is
also asked about the checked rules (*twin rules*): its marks there decide nothing, but show how far
it can be trusted on the same responses in the same run.

A reply that cannot be read is asked for again, with what was wrong (`compat: official`: without);
after `reasks` such replies the response is unscored. Marks are kept by (response, rule, judge), so
a rule that was judged once is not judged again when other rules of the spec are edited.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Protocol

from adhere.chat import (
    Answer,
    Capability,
    Case,
    Message,
    Models,
    Role,
    RuleMark,
    Unscored,
    Usage,
    Verdict,
    user,
)
from adhere.errors import CallError
from adhere.judging.asking import Asker, own_categories
from adhere.judging.base import check_verdict
from adhere.judging.config import REFUSAL_CATEGORIES, JudgeConfig
from adhere.judging.parsing import Unreadable
from adhere.judging.questions import Question, comment_kind, comment_text
from adhere.judging.replies import Spent, offers_schema
from adhere.judging.rubric import CATEGORY
from adhere.prompting import Prompts
from adhere.spec import Rule, Specification

NEEDS: Mapping[Role, frozenset[Capability]] = {Role.JUDGE: frozenset({Capability.CHAT})}


class MarkStore(Protocol):
    """Where marks are kept: by response and judge (`place`), and by rule (`key`)."""

    def get_marks(self, place: str, keys: Sequence[str]) -> tuple[dict[str, RuleMark], Usage, int]:
        """The marks that are on record by key, and what they had cost: usage and re-asks."""

    def put_marks(
        self, place: str, decider: str, marks: Mapping[str, RuleMark], usage: Usage, reasks: int
    ) -> None:
        """Commit one judge's marks by key, and what all marks of the response cost by now."""


class ModelJudge:
    """A judge that asks the model of the role `judge`. See the module."""

    requires = NEEDS

    def __init__(
        self, config: JudgeConfig, prompts: Prompts, store: MarkStore | None = None
    ) -> None:
        self.config = config
        self.prompts = prompts
        self.store = store
        self.asker = Asker(config, prompts)

    @property
    def settings(self) -> dict[str, Any]:
        """What decides marks, apart from the weights behind the model's name."""
        return {**self.config.settings(), "templates": self._templates}

    def identity(self, models: Models) -> str:
        """Who judges, in full: stands in the record of every mark."""
        config = self.config
        parts = [
            config.mode,
            models[Role.JUDGE].identity,
            f"prompts={self._templates[:8]}",
            f"T={config.temperature}",
        ]
        if self.asker.structured:
            parts.append("output=json")
        if config.reply_tokens:
            parts.append(f"reply_tokens={config.reply_tokens}")
        if config.max_chars != JudgeConfig.model_fields["max_chars"].default:
            parts.append(f"max_chars={config.max_chars}")
        if config.compat != "strict":
            parts.append(f"compat={config.compat}")
        if config.mode == "rubric":
            parts.append(f"harm_from={config.harm_from:g}")
        if config.asks_its_own:
            parts.append("guard_prompt=own")
        return " ".join(parts)

    @property
    def _templates(self) -> str:
        """The digest of the prompts in use: a rubric has its own."""
        if self.config.mode == "rubric":
            return self.prompts.digest_of("rubric/")
        return self.prompts.judge_digest

    async def prepare(self, models: Models) -> None:
        """Find out whether the server holds replies to a schema. Raises CallError, BadInput."""
        if self.config.mode == "guard" or self.config.output == "text":
            return
        offered = self.config.output == "json" or await offers_schema(models[Role.JUDGE])
        self.asker.structured = offered

    def undecided(self, spec: Specification) -> tuple[str, ...]:
        """Rules that have no check and that this mode does not decide.

        Raises BadInput where a guard with categories of its own would have to tell rules apart.
        """
        if self.config.asks_its_own and len(asked := self._asked(spec)) > 1:
            raise own_categories(asked)
        return tuple(
            rule.id for rule in spec.rules if rule.check is None and not self._decides(rule)
        )

    def _decides(self, rule: Rule) -> bool:
        if self.config.mode == "guard":
            return rule.kind == "safety"
        if self.config.mode == "refusal":
            return rule.category in REFUSAL_CATEGORIES
        if self.config.mode == "rubric":
            return rule.category == CATEGORY
        return True

    def _asks(self, rule: Rule, commented: str | None) -> tuple[str, str]:
        """What of a rule decides its mark. Of a rule on refusals: which way it goes."""
        about: str = rule.kind
        if self.config.mode == "refusal":
            about += f" {rule.category}"
        if rule.id == commented:  # an edit may make another rule the last, which is asked otherwise
            about += " with the comment"
        return about, rule.text

    @property
    def max_chars(self) -> int:
        """Characters of a response that are judged."""
        return self.config.max_chars

    def call_sizes(self, case: Case, answer: Answer, spec: Specification) -> list[tuple[int, int]]:
        """Characters of the prompt and most tokens of the reply, of each call about a response."""
        return self.asker.sizes(self._question(case, answer.text, spec), self._asked(spec))

    def _asked(self, spec: Specification) -> list[Rule]:
        """The rules about which the model is asked."""
        # What a guard finds by its own list says nothing about a rule that code decides.
        twins = self.config.twins and not self.config.asks_its_own
        return [
            rule for rule in spec.rules if self._decides(rule) and (twins or rule.check is None)
        ]

    # ------------------------------------------------------------ one response

    async def judge(
        self, case: Case, answer: Answer, spec: Specification, models: Models
    ) -> Verdict | Unscored:
        """See `Judge.judge`. A reply that stays unreadable leaves the response unscored."""
        checked = check_verdict(spec.rules, answer.text, case.judged_prompt or case.prompt)
        if isinstance(checked, Unscored):
            return checked
        asked = self._asked(spec)
        model = models[Role.JUDGE]
        who = self.identity(models)
        view = self._question(case, answer.text, spec)
        place = view.place(who)
        keys = {rule.id: _rule_key(*self._asks(rule, view.commented)) for rule in asked}
        known: dict[str, RuleMark] = {}
        spent = Spent()
        if self.store and keys:
            known, spent.usage, spent.reasks = self.store.get_marks(place, list(keys.values()))
        marks = {rule.id: known[keys[rule.id]] for rule in asked if keys[rule.id] in known}
        if left := [rule for rule in asked if rule.id not in marks]:
            try:
                new = await self.asker.ask(view, left, model, who, spent)
            except Unreadable as problem:
                reason = f"the judge's reply could not be read: {problem}"
                return Unscored(reason, None, spent.usage, spent.reasks)
            except CallError as error:
                reason = f"the judge could not be asked: {error.kind}: {error.message}"
                return Unscored(reason, error, spent.usage, spent.reasks)
            if self.store:
                found = {keys[rule]: mark for rule, mark in new.items()}
                self.store.put_marks(place, who, found, spent.usage, spent.reasks)
            marks.update(new)
        decided = checked.marks
        return Verdict(
            {
                rule.id: decided.get(rule.id) or marks[rule.id]
                for rule in spec.rules
                if rule.id in decided or rule.id in marks
            },
            {rule.id: marks[rule.id] for rule in asked if rule.id in decided},
            spent.usage,
            spent.reasks,
        )

    def _question(self, case: Case, text: str, spec: Specification) -> Question:
        config = self.config
        comment = comment_text(case, comment_kind(case, config.compat, config.mode))
        commented = None
        if config.compat == "official" and config.mode == "sequential":
            # As published: only beside the last behavioral rule, the one on answering the question.
            commented = spec.behavioral[-1].id if spec.behavioral else ""
        turns = _turns(case) if config.asks_its_own else ()
        return Question(_conversation(case), text[: config.max_chars], comment, commented, turns)


@lru_cache(maxsize=4096)
def _rule_key(kind: str, text: str) -> str:
    """What a mark is kept under, beside the response: an edited text is another rule."""
    whole = f"{kind}\0{text}"
    return hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _turns(case: Case) -> tuple[Message, ...]:
    """What was asked as turns of user and assistant, which is all that a guard's template takes."""
    if case.judged_prompt:
        return (user(case.judged_prompt),)
    return tuple(m for m in case.messages if m.role in ("user", "assistant") and m.text.strip())


def _conversation(case: Case) -> str:
    """What was asked: the judged prompt, the one user message, or the whole conversation."""
    if case.judged_prompt:
        return case.judged_prompt
    turns = [m for m in case.messages if m.text.strip()]
    if len(turns) == 1:
        return turns[0].text
    return "\n\n".join(f"[{m.role}]\n{_HEADING.sub(_rounded, m.text)}" for m in turns)


# A line that could pass for the heading of a turn: a message is one turn, whatever it holds.
_HEADING = re.compile(r"^(\s*)\[(\w+)\](?=\s*$)", re.MULTILINE)


def _rounded(found: re.Match[str]) -> str:
    return f"{found[1]}({found[2]})"
