"""Words that give away that somebody was handed rules: what a student must not learn to say.

A student is trained without the spec in its prompt. A thought or answer that speaks of "the policy
you gave me", of "the rules above" or of a prompt would teach it to refer to what is not there. To
know rules is what it is to learn: "my policy is ..." or "the rule says never to ..." are no leaks.

The phrases are English and few, chosen so that ordinary answers do not hold them. An answer may
point at a list of its own ("the rules above", "rule 1"), a thought has no such list: some phrases
count in thoughts alone. A phrase that stands in the prompt itself is no leak: then it speaks of
what the user said.
"""

from __future__ import annotations

import re

_RULES = (
    r"(?:polic(?:y|ies)|spec(?:s|ification|ifications)?|rules?|rule ?(?:book|set|list)s?"
    r"|guidelines?|principles)"
)
# "Instructions" may be those of a recipe, so they count only where it is said that somebody gave
# them to the one who speaks.
_ANY = rf"(?:{_RULES}|instructions?|prompt)"
_GIVEN = r"(?:given|provided|supplied|attached|enclosed)"
_TOLD = (
    r"(?:above|below|here|listed|stated|quoted|mentioned|specified|outlined|described|shown"
    r"|aforementioned|above-mentioned|abovementioned)"
)
_THE = r"(?:the|these|those|this|all|any|your|every|each)"
_GAVE = (
    r"(?:(?:have|has|had|['’]ve|['’]s) )?(?:gave|give|gives|given|provided?|provides|shared"
    r"|list|lists|listed|sent|supplied|wrote|showed|shown|set out|told|mentioned|specified"
    r"|outlined)"
)
_WHO = r"(?:you|the user|the prompt|the (?:system|developer)(?: message| prompt)?)"
_PROMPT = r"(?:the|this|your|my) (?:(?:system|above|user) )?(?:prompt|instructions|context|message)"
_WAS = r"(?:i|we)(?: was| were| am| are| have been| had been|['’]m|['’]re|['’]ve been)"
_FEW = r"(?:[\w’'-]+ ){0,3}"  # words in between
_SAID = r"(?:answer|response|reply)"
_KEEPS = (
    r"(?:(?:also|fully|strictly) )?(?:follows|keeps to|complies with|adheres to|meets|satisfies"
    r"|obeys|respects)"
)
_PER = r"(?:rule|policy|guideline|principle)"
_PERS = r"(?:rules|policies|guidelines|principles)"
_COUNT = r"(?:two|three|four|five|six|seven|eight|nine|ten)"
# Given, told or found by or in something of the world: "provided by your employer" is no leak.
_NOT_ELSEWHERE = (
    r"(?! (?:here )?(?:by|in|on|at|from) (?!you\b|us\b|me\b|full\b|brief\b|detail\b|order\b"
    r"|(?:the|this|my|your) (?:\w+ )?(?:user|prompt|system|developer|operator|context|message"
    r"|conversation|instructions?|task|list|spec|specification|top|beginning|start|end|section)\b))"
)

_ANYWHERE = (
    # the policy you gave me; the user lists some rules
    rf"{_RULES} (?:(?:that|which) )?{_WHO} ?{_GAVE}",
    rf"{_WHO} ?{_GAVE}(?: me| us)? {_FEW}{_RULES}",
    rf"{_THE} (?:instructions?|prompt) (?:(?:that|which) )?you ?{_GAVE} (?:me|us)",
    # the provided policy; guidelines that were given to me, or in the prompt
    rf"{_THE} {_FEW}{_GIVEN} {_RULES}",
    rf"{_RULES} (?:(?:that|which) )?(?:(?:are|is|was|were|have been|has been) )?"
    rf"(?:{_GIVEN}|shown|handed|told|listed|stated)"
    rf" (?:to (?:me|us)|by (?:you|the (?:user|prompt|system|developer))|in {_PROMPT})",
    rf"{_RULES} (?:contained |found )?in {_PROMPT}",
    # I was given rules
    rf"{_WAS} (?:given|provided(?: with)?|shown|handed|supplied with) {_FEW}{_ANY}",
    rf"{_WAS} (?:told|instructed|prompted|asked) to "
    rf"(?:follow|use|obey|quote|cite|deliberate on) {_FEW}{_ANY}",
    rf"{_WAS} instructed (?:not |never )?to",
    # rules I was given
    rf"{_RULES} (?:(?:that|which) )?{_WAS} (?:just |all )?"
    rf"(?:given|provided|shown|handed|told|sent|supplied)",
    # a remark on the answer, which is no part of it
    rf"(?:this|my|the) {_SAID} {_KEEPS} (?:all (?:of )?|each of )?(?:the|these|those|my|our|its)"
    rf" (?:given |stated )?{_RULES}(?=\s*(?:[.;:!)]|$)|\s+(?:by|and|above|below|given|stated)\b)",
    # the prompt itself
    r"(?:the|my|your|this) system (?:prompt|message)",
    r"(?:the|this|my) (?:prompt|instructions?) (?:says?|states?|asks?|wants?|tells?|requires?)"
    r" (?:me|that i|us|that we)",
    r"according to (?:my|this|your) (?:prompt|instructions?)",
)
_IN_THOUGHTS = (
    # the rules above, the listed policies, guidelines as stated here
    rf"{_THE} {_FEW}{_TOLD} {_FEW}{_RULES}",
    rf"{_THE} {_FEW}{_RULES} (?:(?:that|which) )?(?:(?:as|are|is|was|were|have been|has been) )?"
    rf"(?:{_TOLD}|{_GIVEN}){_NOT_ELSEWHERE}",
    rf"{_THE} brief {_RULES}",
    # rules I received; I was told never to
    rf"{_RULES} (?:(?:that|which) )?(?:i|we)(?: have|['’]ve)? (?:just )?(?:received|got|gotten)",
    rf"{_WAS} told (?:not |never )?to",
    r"(?:the|this|that) (?:list|set) of (?:rules|policies|guidelines|principles)",
    # of somebody else, as the task speaks of it
    rf"{_RULES} (?:of|for) (?:this|the) assistant",
    # by number or place, which mean nothing without the list
    # ("as a rule one rests", "rules one can trust" and years are none)
    rf"(?:{_PER}|{_PERS}) (?:numbers? |nos?\. ?|#)?\d{{1,2}}",
    rf"{_PER} (?:number )?{_COUNT}",
    rf"{_PER} (?:number one|one(?= (?:says|states|applies|forbids|requires|tells|bears|and)\b"
    rf"|[.:;]|$))",
    rf"{_PERS} (?:one|{_COUNT}) (?:and|or|to|through)",
    rf"(?:first|second|third|fourth|fifth|last|\d{{1,2}}(?:st|nd|rd|th)) {_PER}"
    r"(?! of (?!(?:the|this|that|my) (?:list|spec|specification|policy|rules)\b))",
    rf"(?:first|last) (?:few|{_COUNT}) {_PERS}",
    r"according to the (?:prompt|instructions?)",
    r"(?:the|these) (?:prompt|instructions?) (?:says?|states?|asks?|wants?|tells?|requires?"
    r"|forbids?)",
    r"my (?:prompt|instructions)",
    # the category, and the task, that a teacher is shown
    rf"(?:the|this) (?:{_GIVEN}|{_TOLD}) categor(?:y|ies)",
    r"the task (?:says?|asks?|wants?|tells?|requires?) (?:me|that i|us)",
)


def _compiled(patterns: tuple[str, ...]) -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(rf"\b{pattern}(?!\w)", re.IGNORECASE) for pattern in patterns)


_WORD = re.compile(r"\w+")
_RUN = 6  # words in a row that nobody says by chance
_OF_ANSWERS = _compiled(_ANYWHERE)
_OF_THOUGHTS = _compiled(_ANYWHERE + _IN_THOUGHTS)


def find_leak(text: str, prompt: str = "", *, thought: bool = False) -> str:
    """The first words that speak of rules as given, or "". `prompt`: all that the user wrote.

    `thought`: also what only a thought must not say.
    """
    plain, asked = _plain(text), _plain(prompt).casefold()
    for leak in _OF_THOUGHTS if thought else _OF_ANSWERS:
        for match in leak.finditer(plain):
            if match.group(0).casefold() not in asked:
                return match.group(0)
    return ""


def find_echo(text: str, task: str) -> str:
    """The first six words in a row that a text shares with the teacher's task, or ""."""
    said, asked = _WORD.findall(text.casefold()), _WORD.findall(task.casefold())
    runs = {tuple(asked[at : at + _RUN]) for at in range(len(asked) - _RUN + 1)}
    for at in range(len(said) - _RUN + 1):
        if tuple(said[at : at + _RUN]) in runs:
            return " ".join(said[at : at + _RUN])
    return ""


def _plain(text: str) -> str:
    """One line, without commas and marks of emphasis, which may stand within a phrase."""
    return " ".join(re.sub(r"[*_`,]", "", text).split())
