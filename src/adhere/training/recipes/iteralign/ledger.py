"""The ledger of rules: every rule that was ever proposed, what became of it, and who said so.

`ledger.jsonl` is only ever added to: an event a line (a proposal, a comparison by the oracle, an
edit by a person). What the rules are now is what the events say, read from the first to the last.
`constitution.md` is the rules in use, as a spec that everything else reads; `held.md` those that
were flagged. A person edits the first (a line changed, removed, added, or moved there out of
held.md), and the next round counts and takes over what was edited.

The released script keeps no list and compares nothing: each batch has its own text (arXiv
2403.18341, code). This is an addition.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from adhere.errors import BadInput, disk_error
from adhere.prompting import one_line, without_hidden
from adhere.records.run_folder import dump_json, write_atomic
from adhere.spec import Rule, Specification, derive_id, load_spec, write_markdown
from adhere.training.recipes.iteralign.proposing import Proposal

LEDGER_FILE = "ledger.jsonl"
CONSTITUTION_FILE = "constitution.md"
HELD_FILE = "held.md"
_WRITTEN = ".constitution.json"
SCHEMA_VERSION = 1

# What a rule is at present. `held`: flagged, until a person lets it in.
ACTIVE, HELD, DUPLICATE, MERGED, REMOVED = "active", "held", "duplicate", "merged", "removed"

LONGEST = 8_000  # characters of a rule
SIMILAR = 0.85  # of words, beyond which a rule is taken for one that is there

# A constitution of limits alone is kept best by saying nothing.
ANSWERS = Rule(
    "answers",
    "behavioral",
    "Answer what was asked, unless another rule forbids it.",
    source="added by adhere: rules of what to avoid alone reward silence",
)

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_WORD = re.compile(r"\w+")
# Words that say nothing of what a rule is about.
_EMPTY = frozenset(
    ("a", "an", "and", "any", "are", "as", "at", "be", "by", "do", "does", "for", "from", "if",
     "in", "is", "it", "its", "must", "never", "no", "not", "of", "on", "or", "should", "so",
     "that", "the", "their", "them", "they", "this", "to", "when", "with")
)  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """One rule of the ledger. `covers`: failures that called for it; `same_as`: the rule it is.

    The id is not the one that its text would get, so that it stands in the spec file, and a person
    who edits the text leaves it as it is.
    """

    id: str
    text: str
    kind: str
    round: int
    covers: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    status: str = ACTIVE
    same_as: str = ""
    by: str = "oracle"
    contradicts: tuple[str, ...] = ()
    keys: Mapping[str, str] = field(default_factory=dict)  # check, category...: a person's

    @property
    def rule(self) -> Rule:
        """As a rule of a spec, with its lineage."""
        shown = ", ".join(self.covers[:8]) + (", ..." if len(self.covers) > 8 else "")
        source = f"round {self.round}: {shown}" if self.covers else f"round {self.round}"
        if self.by != "oracle":
            source = f"{source}; edited by a person" if self.covers else "a person"
        kind = "behavioral" if self.kind == "behavioral" else "safety"
        return Rule(self.id, kind, self.text, source=_clean(source), **self.keys)  # type: ignore[arg-type]


def plain_rule(text: str) -> str:
    """A rule's text as it is kept: one line, nothing hidden, no longer than a spec file takes."""
    plain = one_line(_CONTROL.sub(" ", without_hidden(text)))
    return plain if len(plain) <= LONGEST else f"{plain[:LONGEST]} ..."


def _clean(text: str) -> str:
    return one_line(_CONTROL.sub(" ", text))[:2000]


def similarity(one: str, other: str) -> float:
    """How many words two rules share: the cosine of their sets of words, empty ones left out."""
    a, b = _words(one), _words(other)
    return len(a & b) / math.sqrt(len(a) * len(b)) if a and b else 0.0


def _words(text: str) -> frozenset[str]:
    found = [word.rstrip("s") for word in _WORD.findall(text.casefold())]
    return frozenset(word for word in found if word not in _EMPTY)


def opposed(one: str, other: str) -> bool:
    """Whether one of two texts forbids, in so many words, and the other does not.

    `Never state a dose` and `Always state the dose` share nearly all words and are no duplicates.
    """
    return bool(_NEGATION.search(one)) != bool(_NEGATION.search(other))


_NEGATION = re.compile(r"\b(?:not?|never|avoid|without|cannot|refuse|refrain|don't)\b", re.I)


def entries_of(proposals: Sequence[Proposal], round_: int = 1) -> list[Entry]:
    """The rules of one proposing by itself: duplicates and flagged ones marked."""
    return _judged(proposals, (), round_)


def _judged(
    proposals: Sequence[Proposal], there: Sequence[Entry], round_: int, similar: float = SIMILAR
) -> list[Entry]:
    """New entries beside those that are there, each with what it is."""
    out: list[Entry] = []
    for proposal in proposals:
        text = plain_rule(proposal.text)
        if not text:
            continue
        # A rule that nobody let in yet keeps out no clean one.
        kinds = (ACTIVE, REMOVED, HELD) if proposal.flags else (ACTIVE, REMOVED)
        known = [e for e in (*there, *out) if e.status in kinds]
        same = next(
            (
                e.id
                for e in known
                if derive_id(e.text) == derive_id(text)
                or (similarity(e.text, text) >= similar and not opposed(e.text, text))
            ),
            "",
        )
        status = DUPLICATE if same else HELD if proposal.flags else ACTIVE
        name = f"r{round_}-{derive_id(text)}"
        if not same and any(e.id == name for e in (*there, *out)):
            name = f"{name[:60]}-b"  # its held twin has the name
        out.append(
            Entry(
                name, text, proposal.kind, round_, proposal.covers,
                proposal.flags, status, same,
            )
        )  # fmt: skip
    return out


def as_spec_text(
    entries: Iterable[Entry],
    *,
    name: str,
    about: str = "",
    status: str = ACTIVE,
    answers: bool = True,
    like: Specification | None = None,
) -> str:
    """The rules of a status as a spec file; empty where there are none.

    `answers`: add the rule on answering. `like`: the file as a person left it, whose name, version,
    description and fallback stay.
    """
    rules = {e.id: e.rule for e in entries if e.status == status}
    if not rules:
        return ""
    more = (ANSWERS,) if answers and status == ACTIVE and ANSWERS.id not in rules else ()
    made = Specification(name, (*rules.values(), *more), description=_clean(about))
    if like is not None:
        made = replace(like, rules=made.rules)
    return write_markdown(made)


def _keys(rule: Rule) -> dict[str, str]:
    found = {key: getattr(rule, key) for key in ("check", "applies", "category", "summary")}
    return {key: value for key, value in found.items() if value is not None}


def _as_written(entry: Entry) -> dict[str, Any]:
    return {"text": entry.text, "kind": entry.rule.kind, "keys": dict(entry.keys)}


def _as_found(rule: Rule) -> dict[str, Any]:
    return {"text": rule.text, "kind": rule.kind, "keys": _keys(rule)}


class Ledger:
    """The ledger of a run's folder. One process writes at a time (the folder's lock)."""

    def __init__(self, folder: Path) -> None:
        """Read what is there; a line that a kill tore is dropped. Raises BadInput."""
        self.folder = folder
        self.file = folder / LEDGER_FILE
        self.events: list[dict[str, Any]] = []
        self._read()

    def _read(self) -> None:
        try:
            raw = self.file.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            raise BadInput(f"{self.file}: cannot be read ({error})") from None
        whole = raw[: raw.rfind(b"\n") + 1]
        if whole != raw:
            write_atomic(self.file, whole.decode("utf-8"))
        for number, line in enumerate(whole.decode("utf-8").splitlines(), 1):
            try:
                event = json.loads(line)
                assert isinstance(event, dict) and isinstance(event["event"], str)
            except (ValueError, KeyError, AssertionError, RecursionError):
                raise BadInput.at(self.file, number, "no event of a ledger", "one a line") from None
            self.events.append(event)

    @property
    def entries(self) -> dict[str, Entry]:
        """What the rules are now, by id; a duplicate has only added to what its twin covers."""
        return self.at(None)

    def at(self, round_: int | None, *, own: bool = True) -> dict[str, Entry]:
        """What the rules were when a round had its own (or had none yet), edits for it included."""
        found: dict[str, Entry] = {}
        for event in self.events:
            if round_ is not None and event["round"] > round_:
                continue
            if not own and event["round"] == round_ and not _is_edit(event):
                continue
            if event["event"] == "proposed":
                for entry in map(_entry, event["rules"]):
                    if entry.status == DUPLICATE:
                        _add_covers(found, entry.same_as, entry.covers)
                    else:
                        found[entry.id] = entry
            elif event["event"] == "compared":
                self._compared(found, event)
            else:
                for edit in event["edits"]:
                    self._edited(found, edit, event["round"])
        return found

    @staticmethod
    def _compared(found: dict[str, Entry], event: Mapping[str, Any]) -> None:
        entry, against = found[event["id"]], event["contradicts"]
        if event["same_as"]:
            found[entry.id] = replace(entry, status=MERGED, same_as=event["same_as"])
            _add_covers(found, event["same_as"], entry.covers)
        elif against:
            flag = f"contradicts {', '.join(against)}"
            found[entry.id] = replace(
                entry, status=HELD, contradicts=tuple(against), flags=(*entry.flags, flag)
            )

    @staticmethod
    def _edited(found: dict[str, Entry], edit: Mapping[str, Any], round_: int) -> None:
        name, what = edit["id"], edit["what"]
        if what == "removed":
            if name in found:
                found[name] = replace(found[name], status=REMOVED)
            return
        own = {"text": edit["text"], "kind": edit["kind"], "keys": edit["keys"], "by": "person"}
        if name in found:
            found[name] = replace(found[name], status=ACTIVE, **own)
        else:
            found[name] = Entry(name, round=round_, **own)

    @property
    def active(self) -> list[Entry]:
        """The rules in use, the oldest first."""
        return [entry for entry in self.entries.values() if entry.status == ACTIVE]

    def active_in(self, round_: int) -> list[Entry]:
        """The rules in use when a round reflects."""
        return [entry for entry in self.at(round_).values() if entry.status == ACTIVE]

    def before(self, round_: int) -> list[Entry]:
        """The rules in use when a round proposes: without its own."""
        entries = self.at(round_, own=False).values()
        return [entry for entry in entries if entry.status == ACTIVE]

    def proposed_in(self, round_: int) -> list[Entry] | None:
        """The proposals of a round as they came, duplicates too; None for a round without."""
        for event in self.events:
            if event["event"] == "proposed" and event["round"] == round_:
                return [_entry(rule) for rule in event["rules"]]
        return None

    def novel_share(self, round_: int) -> float | None:
        """The share of a round's proposals that were none that was there; None for no proposal."""
        found = self.proposed_in(round_) or []
        new = sum(entry.status != DUPLICATE for entry in found)
        return new / len(found) if found else None

    # ------------------------------------------------------------ what is added

    def propose(
        self, round_: int, proposals: Sequence[Proposal], oracle: str, *, dedupe: bool = True
    ) -> list[Entry]:
        """Take a round's proposals in, once however often it is called; its entries.

        `dedupe` False: as published, nothing is compared; only the very same text is one rule.
        """
        if (known := self.proposed_in(round_)) is not None:
            return known
        there = list(self.at(round_).values())
        new = _judged(proposals, there, round_, SIMILAR if dedupe else 2.0)
        rules = [vars(entry) for entry in new]
        self._append({"event": "proposed", "round": round_, "oracle": oracle, "rules": rules})
        return new

    def compare(self, round_: int, id_: str, same_as: str, contradicts: Sequence[str]) -> None:
        """Take in what the oracle says of a new rule beside the others, once."""
        event = {"event": "compared", "round": round_, "id": id_, "same_as": same_as,
                 "contradicts": list(contradicts)}  # fmt: skip
        if not any(event.items() <= known.items() for known in self.events):
            self._append(event)

    def take_edits(self, round_: int) -> list[dict[str, Any]]:
        """What a person changed in constitution.md since it was written, as edits for a round.

        A file that is gone is no edit: it is written again. Raises BadInput for one that cannot be
        read any more.
        """
        written, spec = self._written(), self._read_spec()
        if written is None or spec is None:
            return []
        now = {rule.id: rule for rule in spec.rules}
        entries = self.entries
        found: list[dict[str, Any]] = []
        for name, rule in now.items():
            told, known = _as_found(rule), entries.get(name)
            if name == ANSWERS.id and known is None and rule.text == ANSWERS.text:
                continue  # as we wrote it
            if known is None:
                # An id of its own, so that the text may be edited and the rule stay the same.
                own = name if name != derive_id(rule.text) else f"own-{name}"
                if own not in entries or entries[own].status == REMOVED:
                    found.append({"what": "added", "id": own, **told})
            elif known.status != ACTIVE and name not in written:
                found.append({"what": "admitted", "id": name, **told})
            elif told not in (_as_written(known), written.get(name)):
                found.append({"what": "changed", "id": name, **told})
        gone = [name for name in written if name not in now]
        found += [
            {"what": "removed", "id": name}
            for name in gone
            if name in entries and entries[name].status == ACTIVE
        ]
        if ANSWERS.id in gone and ANSWERS.id not in entries and self.answers:
            found.append({"what": "removed", "id": ANSWERS.id})
        if found:
            self._append({"event": "edited", "round": round_, "edits": found})
        return found

    @property
    def answers(self) -> bool:
        """Whether the rule on answering stands in the file: until a person takes it out."""
        return not any(
            edit["what"] == "removed" and edit["id"] == ANSWERS.id
            for event in self.events
            if _is_edit(event)
            for edit in event["edits"]
        )

    def _read_spec(self) -> Specification | None:
        file = self.folder / CONSTITUTION_FILE
        return load_spec(file) if file.is_file() else None

    def edits_in(self, round_: int) -> int:
        """How many edits of a person a round took over."""
        return sum(len(e["edits"]) for e in self.events if _is_edit(e) and e["round"] == round_)

    @property
    def edits(self) -> int:
        """How many edits of a person there are."""
        return sum(len(event["edits"]) for event in self.events if _is_edit(event))

    def write_specs(self, about: str) -> None:
        """Write constitution.md and held.md anew; a file without rules is not there.

        Raises BadInput where a person left the first in a state that cannot be read.
        """
        entries, like = list(self.entries.values()), self._read_spec()
        first = as_spec_text(
            entries, name="Constitution", about=about, answers=self.answers, like=like
        )
        held = as_spec_text(entries, name="Held back", about=about, status=HELD)
        for name, text in ((CONSTITUTION_FILE, first), (HELD_FILE, held)):
            if text:
                write_atomic(self.folder / name, text)
            else:
                (self.folder / name).unlink(missing_ok=True)
        # Behind the file: a kill between the two must not look like an edit of a person.
        told = {entry.id: _as_written(entry) for entry in entries if entry.status == ACTIVE}
        if told and self.answers:
            told.setdefault(ANSWERS.id, _as_found(ANSWERS))
        write_atomic(self.folder / _WRITTEN, dump_json(told) + "\n")

    def _written(self) -> dict[str, Any] | None:
        """The rules as they were last written into constitution.md, by id; None for never."""
        try:
            found = json.loads((self.folder / _WRITTEN).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise BadInput(f"{self.folder / _WRITTEN}: cannot be read ({error})") from None
        return dict(found)

    def _append(self, event: Mapping[str, Any]) -> None:
        """Add a line, on disk before this returns: what belongs together is one event."""
        text = dump_json({"schema_version": SCHEMA_VERSION, **event}) + "\n"
        try:
            with self.file.open("a", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise disk_error(error, self.file) from None
        self.events.append(json.loads(text))


def _add_covers(found: dict[str, Entry], name: str, covers: Sequence[str]) -> None:
    if (known := found.get(name)) is not None:
        both = dict.fromkeys((*known.covers, *covers))
        found[name] = replace(known, covers=tuple(both))


def _is_edit(event: Mapping[str, Any]) -> bool:
    return bool(event["event"] == "edited")


def _entry(told: Mapping[str, Any]) -> Entry:
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in told.items()}
    return Entry(**fields)
