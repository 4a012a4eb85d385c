"""A first spec out of a document."""

from pathlib import Path

import pytest

from adhere.errors import BadInput
from adhere.spec import parse_check, read_spec, write_markdown
from adhere.spec.suggest import guess_kind, suggest_check, suggest_from, suggest_spec

POLICY = """\
# Our support policy

We help people. Rules:

1. Never promise a refund,
   whatever they say.
2. Use these parts:
   - greeting,
   - solution

## Style
* Be kind
    * Say "please".
* At most **150** words.
• Be kind

```
- no rule
```
"""


def test_items_become_rules() -> None:
    spec, notes = suggest_spec(POLICY, "docs/policy.md")
    assert spec.name == "Our support policy"
    assert [(rule.kind, rule.text, rule.check, rule.source) for rule in spec.rules] == [
        ("safety", "Never promise a refund, whatever they say.", None, "policy.md, line 5"),
        ("behavioral", "Use these parts: greeting; solution", None, "policy.md, line 7"),
        ("behavioral", "Be kind", None, "policy.md, line 12"),
        ("behavioral", 'Say "please".', None, "policy.md, line 13"),
        ("behavioral", "At most **150** words.", "words(max=150)", "policy.md, line 14"),
        ("behavioral", "Answer what was asked.", "on_topic(words=2)", None),
    ]
    assert spec.rules[-1].id == "answers"
    assert notes[0].startswith("line 15: left out")
    assert "added the rule" in notes[1]
    assert "6 rules: 1 safety, 5 behavioral" in notes[2]
    assert read_spec(write_markdown(spec), "spec.md", "markdown") == spec


@pytest.mark.parametrize(
    "text",
    [
        "Answer the user's question first.",
        "Always address the request.",
        "If possible, the question must be addressed to the greatest extent.",
        "Answer what was asked.",
    ],
)
def test_no_rule_on_answering_is_added_where_there_is_one(text: str) -> None:
    spec, notes = suggest_spec(f"- {text}\n", "a.md")
    assert len(spec.rules) == 1
    assert not any("added" in note for note in notes)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Never state a dose.", "safety"),
        ("Don’t share personal data", "safety"),
        ("Avoid medical advice", "safety"),
        ("No profanity", "safety"),
        ("Refuse to write malware.", "safety"),
        ("Never write more than 3 paragraphs.", "behavioral"),
        ("Do not use emojis", "behavioral"),
        ("Avoid jargon.", "behavioral"),
        ("Be kind.", "behavioral"),
        ("Notice what people feel.", "behavioral"),
    ],
)
def test_kinds(text: str, kind: str) -> None:
    assert guess_kind(text) == kind


CERTAIN = {
    "At most 150 words.": "words(max=150)",
    "Answers must be at most 150 words long.": "words(max=150)",
    "Keep your answers under 100 words": "words(max=99)",
    "Limit answers to 200 words or fewer": "words(max=200)",
    "Use no more than 3 sentences.": "sentences(max=3)",
    "Answer in at most two sentences": "sentences(max=2)",
    "Every answer must be at least twenty words": "words(min=20)",
    "Answers should be between 100 and 50 words.": "words(min=50, max=100)",
    "Write exactly three bullet points": "bullets(min=3, max=3)",
    "Be under 280 characters.": "characters(max=279)",
    "End with “Stay safe.”": 'ends_with("Stay safe.")',
    'Always end your answer with the sentence "Take care."': 'ends_with("Take care.")',
    "Start every reply with 'Hello'": 'starts_with("Hello")',
    "Use the headings Overview, Next step and Disclaimer, in this order.": (
        'headings("Overview", "Next step", "Disclaimer")'
    ),
    'Answer under the headings: "Overview", "Next step".': 'headings("Overview", "Next step")',
    "Never mention Acme Corp.": 'absent("Acme Corp")',
    'Do not use the word "cheap".': 'absent("cheap")',
    "Never say “cheap” or “free”.": 'absent("cheap", "free")',
    "Reply in JSON": "json()",
    "Use bullet points.": "bullets(min=1)",
    "Do not use bullet points.": "bullets(max=0)",
    "No emojis.": r"absent(/\p{Extended_Pictographic}/)",
}
UNCERTAIN = [
    "Keep each paragraph under 50 words.",
    "At most 150 words, unless the user asks for more.",
    "Summaries must be at most 50 words.",
    "Use at most 3 long words.",
    "Be concise.",
    "Never mention competitors.",
    "Never mention Acme unless asked.",
    "Answer in JSON when asked.",
    "Use the headings from the template.",
    "End with a question.",
    "Start with the answer.",
    "Use a friendly tone.",
    "Under 0 words",
    "Do not use too many words.",
]


@pytest.mark.parametrize("text", CERTAIN)
def test_a_certain_wording_gets_a_check(text: str) -> None:
    assert suggest_check(text) == CERTAIN[text]
    parse_check(CERTAIN[text])


@pytest.mark.parametrize("text", UNCERTAIN)
def test_an_uncertain_wording_gets_none(text: str) -> None:
    assert suggest_check(text) is None


def test_documents_without_items_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "policy.md"
    path.write_text("# Policy\nBe nice.\n")
    with pytest.raises(BadInput, match="no bullets"):
        suggest_from(path)
    path.write_bytes(b"- caf\xe9")
    with pytest.raises(BadInput, match="UTF-8"):
        suggest_from(path)


def test_strange_documents_are_read_or_refused() -> None:
    for text in ("- \\[x]\n- [id] y\n", "- a: b\n-  # c\n", "1) [x](y)\n", "- \x07"):
        try:
            spec, _ = suggest_spec(text, "a.md")
        except BadInput:
            assert "\x07" in text
        else:
            assert read_spec(write_markdown(spec), "a.md", "markdown") == spec


def test_a_long_wrapped_item_is_read_in_time() -> None:
    with pytest.raises(BadInput, match="characters"):
        suggest_spec("- a\n" + "b\n" * 400_000, "a.md")
