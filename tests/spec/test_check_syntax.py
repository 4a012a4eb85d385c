"""The check language: what parses, to what, and how everything else is refused."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adhere.errors import BadInput
from adhere.spec import Check, CheckSyntaxError, parse_check
from adhere.spec.checks import BUILTINS, Regex, vocabulary

quick = settings(deadline=None, max_examples=150)

texts = (
    st.text('abc AZ 09 "\\/\n{}[]()?*+|^$.:,=é日🩺', min_size=1, max_size=12)
    .filter(lambda text: any(map(str.isalnum, text)))
)  # fmt: skip
patterns = st.lists(
    st.sampled_from(["a", "\\d", "\\\\", "[^/]", "/", "[]x]", "(?:b|c)", "d{2,3}", "\\{", "é", '"', " ", "\\b"]),
    min_size=1,
    max_size=6,
).map("".join)  # fmt: skip
regexes = st.builds(Regex, patterns, st.sampled_from(["", "i", "m", "s", "im", "ims"]))
counts = st.integers(0, 10**12 - 1)
numbers = counts | st.integers(0, 10**6).map(lambda n: n / 1000)
flags = st.booleans()


def keywords(**values: st.SearchStrategy[object]) -> st.SearchStrategy[tuple]:
    """Some of the keywords, sorted by name."""
    return st.fixed_dictionaries({}, optional=values).map(lambda d: tuple(sorted(d.items())))


def bounds(name: str, values: st.SearchStrategy[float]) -> st.SearchStrategy[Check]:
    def build(low: float | None, high: float | None) -> Check:
        if low is None and high is None:
            low = 0
        if low is not None and high is not None and low > high:
            low, high = high, low
        given = [(k, v) for k, v in (("max", high), ("min", low)) if v is not None]
        return Check(name, (), tuple(given))

    return st.builds(build, st.none() | values, st.none() | values)


def several(values: st.SearchStrategy[object]) -> st.SearchStrategy[tuple]:
    return st.lists(values, min_size=1, max_size=3).map(tuple)


names = st.sets(st.sampled_from(["A", "B c", "Ü", 'say "x"', "a\\b", "n\nl"]), min_size=1)
leaves = st.one_of(
    *(bounds(name, counts) for name in ("words", "sentences", "characters", "bullets")),
    bounds("lix", numbers),
    st.builds(
        Check,
        st.just("headings"),
        names.map(lambda n: tuple(sorted(n))),
        keywords(level=st.integers(1, 6), only=flags),
    ),
    st.builds(Check, st.just("table"), st.just(()) | several(texts)),
    st.builds(Check, st.just("contains"), several(texts | regexes), keywords(any=flags, case=flags)),
    st.builds(Check, st.just("absent"), several(texts | regexes), keywords(case=flags)),
    st.builds(Check, st.just("matches"), st.tuples(regexes)),
    st.builds(Check, st.sampled_from(["starts_with", "ends_with"]), several(texts), keywords(case=flags)),
    st.builds(
        Check,
        st.just("json"),
        st.just(()),
        keywords(bare=flags, schema=st.just('{"type": "object", "pattern": "a/\\\\d"}')),
    ),
    st.builds(Check, st.just("on_topic"), st.just(()), keywords(words=st.integers(1, 9))),
    st.just(Check("not_refusal")),
)  # fmt: skip
checks = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(Check, st.sampled_from(["not", "prompt"]), st.tuples(inner)),
        st.builds(Check, st.just("when"), st.tuples(inner, inner)),
        st.builds(Check, st.sampled_from(["all", "any"]), several(inner)),
    ),
    max_leaves=5,
)


@quick
@given(checks)
def test_a_check_reads_back_from_its_source(check: Check) -> None:
    assert parse_check(check.source) == check
    assert hash(parse_check(check.source)) == hash(check)
    assert "\n" not in check.source


@quick
@given(checks, st.sampled_from(["", " ", "\t  "]))
def test_white_space_between_symbols_means_nothing(check: Check, space: str) -> None:
    if check.args and any(isinstance(value, (str, Regex)) for value in check.args):
        spaced = f"{space}{check.name}{space}({space}{check.source[len(check.name) + 1 :]}{space}"
    else:
        spaced = check.source.replace("(", f"{space}({space}", 1)
    assert parse_check(spaced) == check


@pytest.mark.parametrize("name", BUILTINS)
def test_the_example_of_every_builtin_is_one(name: str) -> None:
    check = parse_check(BUILTINS[name].example)
    assert check.name == name
    assert parse_check(check.source) == check


garbage = st.lists(
    st.sampled_from(
        [*BUILTINS, "(", ")", ",", "=", '"', "/", "\\", "min", "max", "level", "schema", "true", "1", "0.5", "-", "i", "{", "}", "[", "a", " ", "\n", "\t", "é", "“", "*", "+", "?", "|", "{9}", "(?", "\x00"]
    ),
    max_size=25,
).map("".join)  # fmt: skip


@quick
@given(garbage | st.text('abc()=,"/\\0 \n', max_size=60))
def test_garbage_raises_nothing_but_a_syntax_error(source: str) -> None:
    try:
        check = parse_check(source)
    except CheckSyntaxError as error:
        assert 0 <= error.position <= len(source)
        assert error.caret().count("\n") == 1
        assert error.expected
    else:
        assert parse_check(check.source) == check


# A text that is no check, the column the error points at, and words of the message or hint.
BAD = {
    "": (1, "the name of a check"),
    "words": (6, '"("'),
    "words(": (7, "a value"),
    "words(max=1": (12, "the end of the check"),
    "words()": (1, "min= or max="),
    "words(150)": (7, "words(max=150)"),
    "words(max=-1)": (11, "never negative"),
    "words(max=1.5)": (7, "a whole number"),
    "words(max=true)": (7, "a whole number"),
    "words(min=5, max=1)": (7, "min to be at most max"),
    "words(max=1, max=2)": (14, "again"),
    "words(mx=1)": (7, 'Did you mean "max"'),
    "words(max=1234567890123)": (11, "at most 12 characters"),
    "wrods(max=1)": (1, 'Did you mean "words"'),
    "Words(max=1)": (1, 'Did you mean "words"'),
    "words(max=1) and lix(max=3)": (14, "all(first, second)"),
    '__import__("os")': (1, 'the unknown check "__import__"'),
    'all(eval("1"))': (5, 'the unknown check "eval"'),
    "().__class__": (1, "the name of a check"),
    "lambda: 0": (7, '"("'),
    "contains('a')": (10, "double quotes"),
    "contains(“a”)": (10, "double quotes"),
    'contains("a)': (13, "has no end"),
    'contains("a\nb")': (12, "the end of the line"),
    'contains("\\d")': (11, "regex"),
    'contains("  ")': (10, "empty text"),
    "contains(doctor)": (10, "double quotes"),
    'contains(any=true, "a")': (20, "after a keyword"),
    'contains("a", any=1)': (15, "true or false"),
    "contains()": (1, "at least one value"),
    "contains(words(max=1))": (10, "the check words"),
    "matches(/a)": (12, r"\/"),
    "matches(//)": (9, "empty regex"),
    "matches(/a/x)": (12, "ignore case"),
    "matches(/a/ii)": (12, "each once"),
    "matches(/(/)": (11, "cannot be used"),
    "matches(/a/, /b/)": (1, "exactly one value"),
    'headings("A", "a:")': (10, "each heading once"),
    'headings("**")': (10, "a name"),
    'headings("A", level=0)': (15, "from 1 to 6"),
    'headings("A", level=7)': (15, "from 1 to 6"),
    "table(1)": (7, "string"),
    "on_topic(2)": (10, "words="),
    "on_topic(words=0)": (10, "at least 1"),
    "not_refusal(1)": (13, "nothing between the brackets"),
    "not()": (1, "exactly one value"),
    "not(words(max=1), words(max=2))": (1, "exactly one value"),
    "when(words(max=1))": (1, "exactly 2 values"),
    'json(schema="{")': (6, "no JSON"),
    'json(schema="[]")': (6, "no object"),
    'json(schema="{\\"type\\": 3}")': (6, "wrong schema"),
    'json(schema="{\\"$ref\\": \\"https://example.com/s\\"}")': (6, "fetched"),
    'json(schema="{\\"$ref\\": \\"file:///etc/passwd\\"}")': (6, "fetched"),
    'json(schema="{\\"$ref\\": \\"#/nowhere\\"}")': (6, "leads nowhere"),
    'json(schema="{\\"$schema\\": \\"http://json-schema.org/draft-07/schema#\\"}")': (6, "2020-12"),
    'json(schema="{\\"patternProperties\\": {\\"(a+)+$\\": {}}}")': (6, "not supported"),
    'json(schema="{\\"pattern\\": \\"(\\"}")': (6, "pattern"),
    "not(" * 25 + "words(max=1)" + ")" * 25: (81, "nested at most 20 deep"),
    "words(" * 5_000: (1, "10,000"),
}


@pytest.mark.parametrize("source", BAD, ids=lambda source: source[:30])
def test_what_is_no_check_is_pointed_at(source: str) -> None:
    column, words = BAD[source]
    with pytest.raises(CheckSyntaxError) as caught:
        parse_check(source)
    error = caught.value
    assert words in f"{error} {error.hint}"
    if len(source) < 10_000:
        assert error.position + 1 == column
    shown, caret = error.caret().split("\n")
    assert caret.strip() == "^"
    if error.position < min(len(source), 10_000) and source[error.position] not in "\n\t":
        assert shown[caret.index("^")] == source[error.position]


def test_escapes_are_read_and_written() -> None:
    check = parse_check(r'contains("a \"b\" \\ \n", /a\/b\\/i)')
    assert check.args == ('a "b" \\ \n', Regex("a/b\\\\", "i"))
    assert check.source == r'contains("a \"b\" \\ \n", /a\/b\\/i)'
    assert parse_check(Check("matches", (Regex(r"a\/b"),)).source).args == (Regex("a/b"),)
    assert parse_check("lix(max=0.0000000001)").source == "lix(max=0.0000000001)"


BOMBS = [
    "(a{1000}){1000}",
    "((a{1000}){1000}){1000}",
    "((((a{50}){50}){50}){50}){50}",
    "(?:a{0,1000}){0,1000}",
    "[a-z]{1000}" * 11,
    "a{1001}",
    "a{0,99999999999}",
    "a{99999999999}",
    "(?R)",
    "(a(?1)?b)",
    "(?P<x>a(?&x)?)",
    "(?(1)a|b)",
    "(?:foo){e<=5}",
    "(?x) (a{1000} #)\n){1000}",
    "(?V1)[[a]--[b]]",
    "(?#(((a)",
    "(*PRUNE)a",
    "\\L<words>",
    "(" * 31 + "a" + ")" * 31,
    "a" * 1001,
    "[[:alpha:]{]{1000}" * 11,
    "([]a{9}]{1000}){11}",
    "a)",
]


@pytest.mark.parametrize("pattern", BOMBS, ids=lambda pattern: pattern[:25])
def test_patterns_that_could_hang_the_compiler_are_refused_at_once(pattern: str) -> None:
    start = time.monotonic()
    with pytest.raises(CheckSyntaxError):
        parse_check(f"matches(/{pattern.replace('/', chr(92) + '/')}/)")
    assert time.monotonic() - start < 0.5


GOOD_PATTERNS = [
    r"(?i)a(?:b|c)++(?>d)(?=e)(?!f)(?<=g)(?<!h)",
    r"(?P<year>\d{4})-(?P=year)",
    r"(?<n>a)\g<n>",
    r"[[:alpha:])(]+[^]a-z]",
    r"\p{Lu}\P{Lu}\N{BULLET}\{\}",
    r"a{2}b{2,}c{,3}d{2,3}?",
    r"(?s:a.b)|\(|\[",
    "(?:" + "a{100}" * 90 + ")",
    "(" * 29 + "a" + ")" * 29,
]


@pytest.mark.parametrize("pattern", GOOD_PATTERNS, ids=lambda pattern: pattern[:25])
def test_ordinary_patterns_are_accepted(pattern: str) -> None:
    assert parse_check(f"matches(/{pattern}/)").args == (Regex(pattern),)


class Point:
    """Stands for an installed package's entry point."""

    def __init__(self, name: str, value: object) -> None:
        self.name = name
        self.value = f"package:{name}"
        self.object = value

    def load(self) -> object:
        if isinstance(self.object, Exception):
            raise self.object
        return self.object


@pytest.fixture
def offer(monkeypatch: pytest.MonkeyPatch):
    """Have packages offer checks."""

    def offering(*points: Point) -> None:
        monkeypatch.setattr("importlib.metadata.entry_points", lambda **_: list(points))
        vocabulary.find_plugin.cache_clear()
        parse_check.cache_clear()

    yield offering
    vocabulary.find_plugin.cache_clear()
    parse_check.cache_clear()


def rhymes(text: str, prompt: str, *values: object, least: int = 1) -> None: ...


def test_a_plugin_is_read_like_a_builtin(offer) -> None:
    offer(Point("rhymes", rhymes))
    assert parse_check("not(rhymes(/a/, least=2))").nested[0].name == "rhymes"
    for bad in ("rhymes(most=2)", "rhymes(/(/)", "rhyme()"):
        with pytest.raises(CheckSyntaxError):
            parse_check(bad)


def test_plugins_that_clash_or_break_are_errors(offer) -> None:
    offer(Point("rhymes", rhymes), Point("words", rhymes))
    assert parse_check("words(max=1)")
    with pytest.raises(BadInput, match='"words"'):
        parse_check("rhymes()")
    offer(Point("rhymes", rhymes), Point("rhymes", rhymes))
    with pytest.raises(BadInput, match="of that name already"):
        parse_check("rhymes()")
    offer(Point("rhymes", ImportError("no module")))
    with pytest.raises(BadInput, match="cannot be loaded"):
        parse_check("rhymes()")
    offer(Point("rhymes", 3))
    with pytest.raises(BadInput, match="no function"):
        parse_check("rhymes()")


def test_a_plugin_is_not_loaded_for_another_name(offer) -> None:
    offer(Point("rhymes", AssertionError("loaded")))
    with pytest.raises(CheckSyntaxError):
        parse_check("rhyme()")
