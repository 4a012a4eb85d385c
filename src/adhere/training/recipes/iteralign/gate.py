"""The gate: which revisions are good enough to be trained on.

The released script judges every revision and throws the verdict away: what is still bad is trained
on. Here a revision passes when it has words, was not cut, is another text than the bad answer, does
not repeat itself beyond measure, and is judged good.
"""

from __future__ import annotations

from collections.abc import Mapping

from adhere.methods.attribution.degenerate import repeated_share

# Why a revision is not trained on, and what that means.
REASONS: Mapping[str, str] = {
    "empty": "the revision has no words",
    "cut": "the token limit ended it",
    "same": "it is the bad answer again",
    "degenerate": "it repeats itself",
    "still_bad": "it was judged bad again",
    "unscored": "nobody could judge it",
    "filtered": "a content filter withheld it",
}


def refuse(bad: str, revised: str, *, cut: bool, most_repeated: float) -> str:
    """Why a revision is refused before anybody is asked: a key of `REASONS`, or ""."""
    if not revised.strip():
        return "empty"
    if cut:
        return "cut"
    if _plain(revised) == _plain(bad):
        return "same"
    if repeated_share(revised) > most_repeated:
        return "degenerate"
    return ""


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
