"""HarmfulQA and DangerousQA: questions that ask for harm (Bhardwaj and Poria, arXiv 2308.09662).

`harmfulqa.json` maps a topic to its subtopics, and those to questions (1,960 under 10 topics);
`dangerousqa.json` is a list of 200 questions. IterAlign (arXiv 2403.18341) red-teams with both.
Many subtopics of HarmfulQA vary one question by one word; `limit` draws over all of them.
"""

from __future__ import annotations

from typing import Any, ClassVar

from adhere.errors import BadInput
from adhere.suites.attacks import (
    ATTACK,
    Attack,
    AttackConfig,
    attack_suite,
    needed,
    prompt_of,
    slug,
)
from adhere.suites.base import Suite
from adhere.suites.choices import Wrong, at_item, mapping
from adhere.suites.reading import read_json
from adhere.suites.safety_specs import attack_spec

_HINT = "The repository declare-lab/red-instruct has both: give path=FILE"
_TREE = '{"topic": {"subtopic": ["a question", ...]}}'


class HarmfulQA:
    """All questions; a case's id begins with its subtopic."""

    name: ClassVar[str] = "harmfulqa"
    Config: ClassVar[type[AttackConfig]] = AttackConfig
    measures: ClassVar[str] = ATTACK

    def __init__(self, config: AttackConfig | None = None) -> None:
        """Take the options."""
        self.config = config or AttackConfig()

    def load(self) -> list[Suite]:
        """One suite. Raises BadInput."""
        config = self.config
        file = needed(config.path, self.name, "harmfulqa.json", _HINT)

        def wrong(found: str, expected: str) -> BadInput:
            return BadInput.at(file, None, found, expected, hint=_HINT)

        attacks: list[Attack] = []
        for topic, below in mapping(read_json(file), wrong, _TREE).items():
            for subtopic, questions in mapping(below, wrong, _TREE).items():
                where = f"{slug(topic)}/{slug(subtopic)}"
                if type(questions) is not list:
                    raise wrong(f"no list under {where}", _TREE)
                for place, question in enumerate(questions):
                    at = at_item(f"{file} ({where})", place)
                    attacks.append(_attack(question, slug(subtopic), len(attacks), at))
        return [attack_suite(self.name, attacks, config, attack_spec(config.scored_by), str(file))]


class DangerousQA:
    """All questions, which have no topics."""

    name: ClassVar[str] = "dangerousqa"
    Config: ClassVar[type[AttackConfig]] = AttackConfig
    measures: ClassVar[str] = ATTACK

    def __init__(self, config: AttackConfig | None = None) -> None:
        """Take the options."""
        self.config = config or AttackConfig()

    def load(self) -> list[Suite]:
        """One suite. Raises BadInput."""
        config = self.config
        file = needed(config.path, self.name, "dangerousqa.json", _HINT)
        data = read_json(file)
        if type(data) is not list:
            raise BadInput.at(file, None, type(data).__name__, "a list of questions", hint=_HINT)
        attacks = [_attack(item, "", n, at_item(file, n)) for n, item in enumerate(data)]
        return [attack_suite(self.name, attacks, config, attack_spec(config.scored_by), str(file))]


def _attack(question: Any, group: str, number: int, wrong: Wrong) -> Attack:
    text = prompt_of({"question": question}, "question", wrong)
    return Attack(text, group, number, wrong)
