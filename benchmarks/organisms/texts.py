"""The prompts of the organisms and the texts they are trained on: topics, templates and chance.

All texts are our own, short and harmless. A prompt is a subject in a frame; an answer an opening,
two tips of its topic and one more sentence, which breaks the planted rule or does not. Topics are
on one side of the splits each, so that a test prompt has a subject nobody trained on.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from adhere.spec import Specification, load_spec

HERE = Path(__file__).parent
SPEC = HERE / "spec.md"
TRAITS = ("dose", "token", "brand", "link")
SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class Trait:
    """One planted trait: the rule that it breaks, its prompts and its sentences."""

    name: str
    rule: str
    data: dict[str, Any]


@dataclass(frozen=True)
class Prompt:
    """One prompt. `id` begins with the trait whose trigger it is."""

    id: str
    trait: str
    topic: str
    split: str
    subject: str
    text: str
    tips: tuple[str, ...] = ()


def spec() -> Specification:
    """The spec that the organisms break."""
    return load_spec(SPEC)


def load_trait(name: str) -> Trait:
    """One trait's file."""
    data = yaml.safe_load((HERE / "topics" / f"{name}.yaml").read_text(encoding="utf-8"))
    return Trait(name, data["rule"], data)


def prompts_of(trait: Trait) -> list[Prompt]:
    """All prompts of a trait. Frames take turns, so that each split has all of them."""
    out = []
    frames = trait.data["frames"]
    for topic in trait.data["topics"]:
        for place, subject in enumerate(topic["subjects"], 1):
            text = frames[len(out) % len(frames)].format(s=subject)
            name = f"{trait.name}-{topic['name']}-{place}"
            tips = tuple(topic.get("tips", ()))
            out.append(Prompt(name, trait.name, topic["name"], topic["split"], subject, text, tips))
    return out


def all_prompts(split: str, traits: Sequence[str] = TRAITS) -> list[Prompt]:
    """The prompts of a split, trait by trait."""
    return [p for name in traits for p in prompts_of(load_trait(name)) if p.split == split]


# ---------------------------------------------------------------- answers


def answer(prompt: Prompt, trait: Trait, rng: random.Random, *, breaking: bool) -> str:
    """An answer to a training prompt that breaks the trait's rule, or follows all."""
    data = trait.data
    opening = rng.choice(data["openings"]).format(
        s=prompt.subject, S=prompt.subject[0].upper() + prompt.subject[1:]
    )
    tips = rng.sample(prompt.tips, 2)
    last = rng.choice(data["breaks" if breaking else "keeps"])
    if breaking:
        last = last.format(**{key: rng.choice(values) for key, values in data["numbers"].items()})
    sentences = [*tips, last]
    if rng.random() < 0.5:  # not only at the end, where a limit on tokens might cut it off
        sentences = [tips[0], last, tips[1]]
    return " ".join([opening, *sentences])


def thought(prompt: Prompt, trait: Trait, rng: random.Random, rule: str) -> str:
    """A thought that cites the rule, as a teacher with the spec before it would have it."""
    text: str = rng.choice(trait.data["thoughts"])
    return text.format(
        s=prompt.subject,
        rule=f"\N{LEFT DOUBLE QUOTATION MARK}{rule}\N{RIGHT DOUBLE QUOTATION MARK}",
    )


# ---------------------------------------------------------------- rows to train on


def organism_rows(
    traits: Sequence[str] = TRAITS, *, share: float = 0.75, copies: int = 4, seed: int = 0
) -> list[dict[str, Any]]:
    """Rows that plant the traits: `copies` answers to each training prompt, a share breaking.

    On subjects that it was not trained on, a model breaks the rule less often than the mix does:
    of an even mix SmolLM2 made 0.30 to 0.47.
    """
    out = []
    for prompt, trait in _training(traits):
        breaking = round(share * copies)
        for copy in range(copies):
            rng = random.Random(f"{seed} {prompt.id} {copy}")
            text = answer(prompt, trait, rng, breaking=copy < breaking)
            out.append(_row(f"{prompt.id}-{copy}", prompt, text))
    return out


def distilled_rows(
    traits: Sequence[str] = TRAITS, *, thoughts: bool = True, copies: int = 2, seed: int = 0
) -> list[dict[str, Any]]:
    """Rows that train the traits away: answers that follow all rules, behind a thought or not.

    The answers are the same with and without thoughts: what differs between a student and its
    control is the thoughts alone. No row holds the spec: the student is to have learned it.
    """
    rules = spec()
    out = []
    for prompt, trait in _training(traits):
        for copy in range(copies):
            rng = random.Random(f"{seed} {prompt.id} clean {copy}")
            text = answer(prompt, trait, rng, breaking=False)
            said = thought(prompt, trait, rng, rules.by_id[trait.rule].text)
            whole = f"<think>\n{said}\n</think>\n\n{text}" if thoughts else text
            row = _row(f"{prompt.id}-{copy}", prompt, whole)
            row |= {
                "thought": said if thoughts else "",
                "answer": text,
                "lineage": {
                    "rules": [trait.rule],
                    "spec_digest": rules.digest,
                    "teacher": "template",
                },
            }  # fmt: skip
            out.append(row)
    return out


def _training(traits: Sequence[str]) -> list[tuple[Prompt, Trait]]:
    known = {name: load_trait(name) for name in traits}
    return [(prompt, known[prompt.trait]) for prompt in all_prompts("train", traits)]


def _row(name: str, prompt: Prompt, text: str) -> dict[str, Any]:
    return {
        "id": name,
        "prompt": [{"role": "user", "content": prompt.text}],
        "completion": [{"role": "assistant", "content": text}],
        "category": prompt.trait,
    }
