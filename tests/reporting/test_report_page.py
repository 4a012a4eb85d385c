"""The page: whole, sealed, bounded, the same twice, and honest about what it left out."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from adhere.errors import BadInput, DiskFull
from adhere.reporting import formats as f
from adhere.reporting import render_report, summary_table, write_report
from adhere.reporting.inputs import read_run
from adhere.reporting.page import ANSWERS, MAX_BYTES
from reporting import report_samples as samples

VOID = {"meta", "link", "input", "br", "hr", "img"}


class Page(HTMLParser):
    """The page as elements and texts; closing tags must match."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.code: dict[str, list[str]] = {"style": [], "script": []}
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), (tag, names)
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, (tag, self.getpos())

    def handle_data(self, data):
        if self.open and self.open[-1] in self.code:
            self.code[self.open[-1]].append(data)
        else:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def all(self, tag: str) -> list[dict]:
        return [attrs for name, attrs in self.elements if name == tag]


def render(summary=None, rows=None, config=None) -> str:
    return render_report(
        samples.summary() if summary is None else summary,
        samples.rows() if rows is None else rows,
        samples.config() if config is None else config,
    )


@pytest.fixture(scope="module")
def html() -> str:
    return render()


@pytest.fixture(scope="module")
def page(html) -> Page:
    return Page(html)


# ---------------------------------------------------------------- whole and sealed


def test_every_element_is_closed_and_every_id_is_one(page):
    assert page.open == []
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    for _, attrs in page.elements:
        for name in ("aria-labelledby", "aria-controls", "for"):
            assert set((attrs.get(name) or "").split()) <= set(ids)
        if (attrs.get("href") or "").startswith("#"):
            assert attrs["href"][1:] in ids


def test_nothing_comes_from_outside(page, html):
    for tag, attrs in page.elements:
        for name in ("src", "srcset", "action", "formaction", "data", "poster", "background"):
            assert name not in attrs, (tag, name)
        assert attrs.get("href", "#").startswith(("#", "data:,")), attrs
        assert not any(name.startswith("on") or name == "style" for name in attrs), attrs
    assert {tag for tag, _ in page.elements}.isdisjoint(
        {"iframe", "object", "embed", "base", "form"}
    )
    code = "".join(page.code["style"] + page.code["script"])
    assert not re.search(r"url\(|@import|https?:|//\w+\.\w|fetch\(|eval\(|innerHTML", code)


def test_the_policy_allows_our_code_by_hash_and_nothing_else(page):
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv"))
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    for kind in ("style", "script"):
        text = "".join(page.code[kind])
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
        assert len(page.all(kind)) == 1


def test_the_policy_stands_before_any_code(html):
    assert html.index("Content-Security-Policy") < html.index("<style>")
    assert html.index('<meta charset="utf-8">') < 200


# ---------------------------------------------------------------- content


def test_headline_and_the_line_below(page):
    summary = samples.summary()
    assert summary["headline"] in page.text
    for said in (
        "spec Health education assistant, version 3", "rules 3 safety, 5 behavioral",
        "model local:smollm2-135m", "prompts 12", "judged by checks alone", "alpha 0.3",
        "NA counts as unmet", "temperature 0.7", "seed 7", "date 22 Nov 2026, 14:05 UTC",
    ):  # fmt: skip
        assert said in page.text, said
    assert "This run is not finished" not in page.text


@pytest.mark.parametrize("subset", ["all", "unsafe", "safe"])
def test_every_number_of_the_table_is_there(html, subset):
    table = summary_table(samples.summary(), subset)
    start = html.index(f'class="subset" data-subset="{subset}"')
    part = Page(html[html.rindex("<", 0, start) : html.index("</ul>", start) + 5]).text
    for row in table.rows:
        for cell in row.cells.values():
            for text in (cell.text, cell.interval, *cell.notes):
                assert text in part, text
    assert all(note in Page(html).text for note in table.notes)


def test_one_subset_needs_no_switch():
    summary = samples.summary()
    summary["rows"] = [r for r in summary["rows"] if r["subset"] == "all"]
    page = Page(render(summary))
    assert not page.all("input") or {a["type"] for a in page.all("input")} == {"search"}
    assert "subset-unsafe" not in {a.get("id") for _, a in page.elements}


def test_the_plots_are_pictures_with_words(page, html):
    pictures = [a for a in page.all("svg") if "aria-labelledby" in a]
    assert [a["aria-labelledby"] for a in pictures] == [
        "adherence-0-t adherence-0-d", "frontier-0-t frontier-0-d",
    ]  # fmt: skip
    assert html.count('class="mark hollow"') >= 3  # two controls and the legend
    assert "canned refusal 0.650" in page.text
    assert "logarithmic" in page.text


def test_the_rule_map_says_what_nobody_decided(page, html):
    assert page.text.count("not decided in this run") == 2
    counts = samples.summary()["rules"]
    for c in counts:
        assert f"{c['yes']}/{c['no']}/{c['na']}" in page.text
    assert "absent(/\\b\\d+\\s?(mg|ml|mcg)\\b/i)" in page.text


def test_answers_stand_side_by_side_with_steps_and_reasons(page, html):
    assert "Showing 36 of 36 rows, in 12 of 12 cases; all rows are in results.jsonl." in page.text
    cases = [a for a in page.all("details") if "case" in (a.get("class") or "").split()]
    assert len(cases) == 12
    assert len([a for a in page.all("article") if a.get("class") == "answer"]) == 36
    for said in (
        "Timeout: no whole answer in 120 s", "empty answer", "stage 1: safety",
        "closed by the method", "the text has 212 words", "3 calls",
        "Let me see which rules apply.", '"candidates": 4',
    ):  # fmt: skip
        assert said in page.text, said


def test_unsafe_texts_are_veiled_until_asked_for(html):
    for chunk in html.split('<details class="case"')[1:]:
        texts = re.findall(r'class="(text[^"]*|snippet[^"]*)"', chunk.split("</section>")[0])
        unsafe = "l-unsafe" in chunk
        assert texts
        assert all(("veil" in t.split()) == unsafe for t in texts)
        assert (chunk.count('class="reveal"') == 1) == unsafe
    assert html.count('class="reveal"') == 4
    # Nothing of an unsafe prompt may show in a tooltip, where there is no blur.
    assert not re.search(r'(title|aria-label)="[^"]*(dosing tables|precise dose)', html)


def test_how_it_was_measured(page):
    for said in (
        "calls 84", "prompt tokens 75,600", "of them cached 51,240", "completion tokens 26,412",
        "inside calls 8 min 00 s", "on the clock 2 min 51 s", "order spec first", "top_p 0.95",
        "local/smollm2-135m-instruct@sha256:5a1395716f71", "chat, prefill, seed, stream",
        "true", "Paper", "results.jsonl", "Mean usage per answer, by role",
    ):  # fmt: skip
        assert said in page.text, said
    assert "hunter2" not in page.text
    assert "localhost:8000" in page.text


def test_an_unfinished_run_says_so():
    assert "This run is not finished" in Page(render(samples.summary() | {"finished": False})).text


def test_nulls_are_dashes():
    summary = samples.summary()
    for row in summary["rows"]:
        for key in row:
            if key.startswith(("safety", "behavioral", "sar", "share")):
                row[key] = None
    page = Page(render(summary, rows=[]))
    assert "No scored rows to plot." in page.text
    assert "None" not in page.text
    assert "Showing 0 of 0 rows" in page.text
    assert not re.search(r"(?<![\d.])0\.0\d\d", page.text)


def test_a_bare_summary_is_enough():
    page = Page(render({"spec": {}, "rows": []}, rows=[], config={}))
    assert "No rows." in page.text
    assert "No model is recorded." in page.text


def test_rows_may_come_once():
    assert render(rows=iter(samples.rows())) == render()


# ---------------------------------------------------------------- hostile texts

HOSTILE = [
    "<script>alert(1)</script>",
    "</script></style></title></textarea></svg><img src=x onerror=alert(1)>",
    '"><a href="javascript:alert(1)">x</a>',
    "' onmouseover='alert(1)",
    "{{ 7 * 7 }} {% raw %}",
    "<!--<script>",
    "]]><svg/onload=alert(1)>",
    "a\u202egnp.exe",
    "nul\x00byte \x1b[31m",
    "half \ud800 pair",
    "hidden \U000e0041\U000e0042",
    "&lt;script&gt; &#60;b&#62;",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_texts_are_data_wherever_they_stand(text, page):
    page_was = page
    hostile = json.loads(json.dumps(samples.summary()))
    hostile.update(headline=text, name=text, created=text, adhere_version=text)
    hostile["spec"].update(name=text, version=text, digest=text)
    for rule in hostile["spec"]["rules"]:
        rule.update(text=text, check=rule["check"] and text, category=text, applies=text)
    for row in hostile["rows"]:
        row.update(variant=text, judge=text, baseline=text)
    hostile["models"][0].update(name=text, identity=text, capabilities=[text])
    hostile["settings"][text] = text
    rows = samples.rows()
    for row in rows:
        row.update(text=text, thought=text, prompt=text, reason=text, case=row["case"] + text)
        row.update(deciders=dict.fromkeys(row["marks"], text), facts={text: text})
        row["mark_reasons"] = dict.fromkeys(row["marks"], text)
        row["messages"] = [{"role": text, "content": text}, {"role": "user", "content": [text]}]
        row["steps"] = [{"name": text, "text": text, "finish_reason": text, "note": text}]
        row["error"] = {"kind": text, "message": text}
    html = render(hostile, rows, {text: text})
    page = Page(html)
    assert page.open == []
    assert {t for t, _ in page.elements} <= {t for t, _ in page_was.elements} | {"tbody", "li"}
    known = {name for _, attrs in page_was.elements for name in attrs}
    assert {name for _, attrs in page.elements for name in attrs} <= known
    assert len(page.all("script")) == len(page.all("style")) == 1
    assert f.clean(text) in "".join(page.texts)
    html.encode("utf-8")
    assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e\u2066-\u2069]", html)


# ---------------------------------------------------------------- bounds


def test_a_long_text_is_cut_with_a_note():
    rows = samples.rows()
    rows[0]["text"] = "word " * 200_000
    html = render(rows=rows)
    assert len(html.encode()) < 400_000
    assert f"{1_000_000 - ANSWERS[0].text:,} more characters are in results.jsonl." in html


WORDS = ("the", "answer", "names", "a", "pharmacist", "and", "three", "plain", "headings", "that")


def prose(rng: random.Random, characters: int) -> str:
    return " ".join(rng.choices(WORDS, k=characters // 6))[:characters]


def real_rows(cases: int) -> list[dict]:
    """Rows as long as real ones: answers of 2,000 characters, thoughts and steps, 20 marks."""
    rng = random.Random(5)
    rows = []
    for case in range(cases):
        for row in samples.rows()[:3]:
            steps = [{"name": f"stage {i}", "text": prose(rng, 2_500), "finish_reason": "stop"}
                     for i in range(4)]  # fmt: skip
            marks = {f"rule-{i:02d}": rng.choice(("YES", "YES", "NO", "NA")) for i in range(20)}
            rows.append(row | {
                "case": f"c{case}", "text": prose(rng, 2_000), "prompt": prose(rng, 400),
                "messages": [{"role": "user", "content": prose(rng, 400)}], "steps": steps,
                "thought": prose(rng, 5_000), "marks": marks, "score": rng.random(),
                "deciders": dict.fromkeys(marks, "openai/judge@sha256:77aa"),
                "mark_reasons": {r: prose(rng, 150) for r in marks},
            })  # fmt: skip
    return rows


def test_200_real_rows_fit():
    rows = real_rows(120)
    html = render(rows=rows)
    assert len(html.encode()) <= MAX_BYTES
    text = Page(html).text
    shown = re.search(r"Showing (\d+) of 360 rows", text)
    assert 198 <= int(shown[1]) <= 200
    # Thoughts and steps were cut; what the models answered stays whole.
    assert sum(r["text"] in text for r in rows) == int(shown[1])
    assert "more characters are in results.jsonl" in text


def test_all_rows_are_whole_and_as_large_as_they_get(tmp_path):
    rows = real_rows(80)
    html = render_report(samples.summary(), rows, samples.config(), all_rows=True)
    assert len(html.encode()) > MAX_BYTES
    page = Page(html)
    assert page.open == []
    text = page.text
    assert "Showing 240 of 240 rows, in 80 of 80 cases" in text
    assert "more characters are in" not in text
    for row in rows[::37]:
        assert row["text"] in text
        assert row["steps"][3]["text"] in text
        assert row["thought"] in text
    run = samples.write_run(tmp_path)
    many = "".join(json.dumps(r) + "\n" for r in rows)
    (run / "results.jsonl").write_text(many, "utf-8")
    assert write_report(run).stat().st_size <= MAX_BYTES
    assert write_report(run, all_rows=True).read_text("utf-8") == html


@pytest.mark.parametrize("text", ["<&\"'>" * 8_000, "\u202e🙂" * 8_000, "plain " * 6_000])
def test_many_huge_rows_stay_within_the_limit(text):
    rows = []
    for case in range(150):
        for row in samples.rows()[:3]:
            step = {"name": "draft", "text": text, "finish_reason": "stop", "note": text}
            rows.append(row | {"case": f"c{case}", "text": text, "thought": text, "prompt": text,
                               "steps": [step] * 40, "facts": {"all": text}})  # fmt: skip
    html = render(rows=rows)
    assert 200_000 < len(html.encode()) <= MAX_BYTES <= 2_000_000
    page = Page(html)
    assert page.open == []
    shown = re.search(r"Showing (\d+) of 450 rows", page.text)
    assert int(shown[1]) >= 12
    assert "more characters are in results.jsonl" in page.text
    assert "more steps are in results.jsonl" in page.text


def test_everything_huge_at_once_stays_within_the_limit():
    huge = '<&"🙂>' * 3_000
    summary = samples.summary()
    base = summary["rows"][0]
    summary["rows"] = [
        base | {"suite": f"s{i % 4}", "model": f"m{i}{huge}", "method": f"x{i}{huge}",
                "variant": huge, "judge": huge}
        for i in range(330)
    ]  # fmt: skip
    rule = summary["spec"]["rules"][0] | {"text": huge, "check": huge, "applies": huge}
    summary["spec"]["rules"] = [rule | {"id": f"r{i}{huge}"} for i in range(70)]
    summary["rules"] = [
        {"suite": r["suite"], "model": r["model"], "method": r["method"], "rule": f"r{i}{huge}",
         "yes": 1, "no": 1, "na": 1}
        for i, r in enumerate(summary["rows"][:120])
    ]  # fmt: skip
    summary["settings"] |= {f"k{i}": huge for i in range(150)}
    summary["models"] = [{"name": huge, "identity": huge, "capabilities": [huge] * 5}] * 150
    summary["undecided_rules"] = [huge] * 300
    summary.update(headline=huge, name=huge, adhere_version=huge, created=huge)
    html = render(summary, rows=[r | {"text": huge} for r in samples.rows()], config={huge: huge})
    assert len(html.encode()) <= MAX_BYTES <= 2_000_000
    page = Page(html)
    assert page.open == []
    for said in ("of 330 rows; all are in summary.json", "more rules", "more suites"):
        assert said in page.text, said


def test_equal_input_gives_equal_bytes(html):
    assert render() == html
    script = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from reporting import report_samples as s\n"
        "from adhere.reporting import render_report\n"
        "import hashlib\n"
        "html = render_report(s.summary(), s.rows(), s.config())\n"
        "sys.stdout.write(hashlib.sha256(html.encode()).hexdigest())"
    )
    other = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True,
        env={"PYTHONHASHSEED": "12345", "PYTHONPATH": ":".join(sys.path), "LANG": "C"},
    )  # fmt: skip
    assert other.stdout == hashlib.sha256(html.encode()).hexdigest()


# ---------------------------------------------------------------- files


def test_the_report_lands_in_the_run_folder(tmp_path, html):
    run = samples.write_run(tmp_path / "run")
    path = write_report(run)
    assert path == run / "report.html"
    assert path.read_text("utf-8") == html
    assert sorted(p.name for p in run.iterdir()) == [
        "report.html", "results.jsonl", "run.yaml", "summary.json",
    ]  # fmt: skip
    first = path.read_bytes()
    assert write_report(run).read_bytes() == first


@pytest.mark.parametrize("name", ["summary.json", "results.jsonl", "run.yaml"])
def test_a_missing_file_is_named(tmp_path, name):
    run = samples.write_run(tmp_path)
    (run / name).unlink()
    with pytest.raises(BadInput, match=re.escape(f"{run / name}: no such file")):
        write_report(run)
    assert not (run / "report.html").exists()


def test_the_folder_of_a_training_says_where_its_own_page_is(tmp_path):
    (tmp_path / "train.json").write_text("{}")
    with pytest.raises(BadInput, match="is of a training") as caught:
        read_run(tmp_path)
    assert str(tmp_path / "report.html") in caught.value.hint
    assert f"weights:{tmp_path / 'model'}" in caught.value.hint


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(BadInput, match="nowhere: no such run folder"):
        write_report(tmp_path / "nowhere")


BROKEN = [
    ("summary.json", b'{"rows": [', r"summary\.json:1: found broken JSON"),
    ("summary.json", b"\xff\xfe", "not UTF-8"),
    ("summary.json", b"[]", "found a JSON list"),
    ("summary.json", b'{"spec": {}}', "found no 'rows'"),
    ("summary.json", b'{"spec": {}, "rows": [1]}', "'rows' with other things"),
    ("summary.json", b'{"spec": [], "rows": []}', "'spec' as list"),
    ("summary.json", b'{"spec": {"rules": [1]}, "rows": []}', "spec rules"),
    ("summary.json", b'{"schema_version": 2, "spec": {}, "rows": []}', "schema_version 2"),
    ("summary.json", b"[" * 100_000, "broken JSON"),
    ("results.jsonl", b'{"case": "a"}\n{"case": "b"', r"results\.jsonl:2: found half a row"),
    ("results.jsonl", b'{"case": "a"}\nnot json\n', r"results\.jsonl:2: found a line that is not"),
    ("results.jsonl", b"\xff\n", r"results\.jsonl:1: found bytes"),
    ("results.jsonl", b"[1]\n", "found a JSON list"),
    ("results.jsonl", b'{"schema_version": 9}\n', "schema_version 9"),
    ("results.jsonl", b'{"marks": [1]}\n', "'marks' as list"),
    ("run.yaml", b"a: [", r"run\.yaml:1: found broken YAML"),
    ("run.yaml", b"just words", "found no mapping"),
    ("run.yaml", b"\xff", "not UTF-8"),
]


@pytest.mark.parametrize(("name", "content", "message"), BROKEN)
def test_a_broken_file_is_named(tmp_path, name, content, message):
    run = samples.write_run(tmp_path)
    (run / name).write_bytes(content)
    with pytest.raises(BadInput, match=message) as caught:
        write_report(run)
    assert str(run / name) in str(caught.value)
    assert not (run / "report.html").exists()


def test_a_full_disk_leaves_the_old_report(tmp_path):
    run = samples.write_run(tmp_path)
    (run / "report.html").write_text("old")
    script = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from adhere.errors import DiskFull\n"
        "from adhere.reporting import write_report\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "try:\n    write_report(Path(sys.argv[1]))\n"
        "except DiskFull as error:\n    sys.exit(error.exit_code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-B", "-c", script, str(run)],
        env={"PYTHONPATH": ":".join(sys.path)}, check=False,
    )  # fmt: skip
    assert done.returncode == DiskFull.exit_code
    assert (run / "report.html").read_text() == "old"
    assert len(list(run.iterdir())) == 4


def test_importing_the_package_loads_nothing_heavy():
    script = (
        "import sys, adhere.reporting\n"
        "sys.exit(any(m in sys.modules for m in ('jinja2', 'rich', 'yaml', 'json')))"
    )
    env = {"PYTHONPATH": ":".join(sys.path)}
    assert subprocess.run([sys.executable, "-c", script], env=env, check=False).returncode == 0
