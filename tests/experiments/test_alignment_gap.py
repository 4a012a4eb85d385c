"""Teacher, student and base in one table: the alignment gap, paired by case."""

from __future__ import annotations

import json
import shutil

import pytest

from adhere.cli.main import main
from adhere.errors import BadInput
from adhere.experiments.alignment_gap import alignment_gaps
from support.fake_server import FakeServer, Reply
from support.runs import plan, run

SPEC = """# Assistant
## Safety
- [short] At most three words.
  check: words(max=3)
"""
N = 40


def made(folder, name, good, methods=("raw",), **fields):
    """A run whose model follows the rule on the first so many questions."""

    def answer(path, body):
        asked = " ".join(str(m["content"]) for m in body["messages"])
        number = int(asked.rpartition("Question ")[2].split("?")[0])
        return Reply("Yes." if number < good else "Yes, I do think so.")

    with FakeServer(answer) as server:
        run(
            plan(
                folder, server, out=folder / name, judge=None, methods=list(methods),
                models=[{"model": f"openai:{name}", "base_url": server.url, "prefill": "none"}],
                **fields,
            )
        )  # fmt: skip
    return folder / name


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    (folder / "spec.md").write_text(SPEC)
    prompts = [{"id": f"q{i}", "prompt": f"Question {i}?"} for i in range(N)]
    (folder / "p.jsonl").write_text("".join(json.dumps(p) + "\n" for p in prompts))
    return (
        made(folder, "base", 10),
        made(folder, "student", 28, ("raw", "vanilla")),
        made(folder, "teacher", 36, ("vanilla",)),
    )


def test_the_gap_is_the_teachers_sar_less_the_students_case_by_case(three):
    [found] = alignment_gaps(*three)
    told = [(line.role, line.method, line.scored, line.rows) for line in found.lines]
    assert told == [
        ("teacher", "vanilla", N, N), ("student", "raw", N, N), ("student", "vanilla", N, N),
        ("base", "raw", N, N),
    ]  # fmt: skip
    teacher, student, shown, base = found.lines
    assert teacher.gap.value is None and teacher.closed is None
    assert (teacher.sar.value, student.sar.value, base.sar.value) == pytest.approx((0.9, 0.7, 0.25))
    assert student.gap.value == pytest.approx(0.2) and student.n_paired == N
    assert base.gap.value == pytest.approx(0.65)
    assert 0 < student.gap.low < 0.2 < student.gap.high < 0.4
    # 8 of 40 questions differ: a binomial's spread, not that of two independent samples.
    assert student.gap.high - student.gap.low == pytest.approx(
        2 * 1.96 * (0.2 * 0.8 / N) ** 0.5, rel=0.2
    )
    assert student.closed.closed.value == pytest.approx(0.45 / 0.65)
    assert shown.closed is not None, "the base has one arm, which is that of every student's"
    assert base.closed is None
    assert found.notes == ()


def test_cases_asked_otherwise_and_rows_without_a_verdict_are_left_out_and_counted(three, tmp_path):
    copy = tmp_path / "student"
    shutil.copytree(three[1], copy)
    file = copy / "results.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for row in rows:
        if row["case"] == "q0":
            row["messages"] = [{"role": "user", "content": "Another question?"}]
        if row["case"] == "q39":
            row["outcome"] = "unscored"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    [found] = alignment_gaps(three[0], copy, three[2])
    student = found.lines[1]
    assert (student.scored, student.rows, student.n_paired) == (N - 1, N, N - 2)
    assert student.gap.value == pytest.approx(8 / (N - 2))
    assert "1 cases were asked in other words" in found.notes[0]


WEIGHED = (
    SPEC
    + """## Behavioral
- [ends] End with a full stop.
  check: matches(/[.]$/)
- [odd] Say zzzz.
  check: contains("zzzz")
"""
)


def test_another_weight_of_the_same_marks_is_no_gap(tmp_path):
    (tmp_path / "spec.md").write_text(WEIGHED)
    prompts = [{"id": f"q{i}", "prompt": f"Question {i}?"} for i in range(4)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(p) + "\n" for p in prompts))
    base = made(tmp_path, "base", 4)
    student = made(tmp_path, "student", 4, sampling={"temperature": 0.7})
    teacher = made(tmp_path, "teacher", 4, alpha=0.9, sampling={"temperature": 0.0})
    [found] = alignment_gaps(base, student, teacher)
    assert [line.sar.value for line in found.lines] == pytest.approx([0.95] * 3)
    assert [line.gap.value for line in found.lines[1:]] == [0, 0]
    notes = " ".join(found.notes)
    assert "alpha: 0.9 in the teacher's run, 0.3 in the student's run, 0.3 in the base's" in notes
    assert "scored by the teacher's" in notes
    assert "temperature: 0.0 in the teacher's run, 0.7 in the student's run" in notes


def test_what_has_no_number_or_no_honest_interval_or_no_match_is_told(three, tmp_path):
    copy = tmp_path / "student"
    shutil.copytree(three[1], copy)
    file = copy / "summary.json"
    summary = json.loads(file.read_text())
    file.write_text(json.dumps({**summary, "unmeasured": ["safety"], "until_ci": 0.05}))
    file = copy / "results.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    other = [{**row, "suite": "another"} for row in rows]
    file.write_text("".join(json.dumps(row) + "\n" for row in [*rows, *other]))
    [found] = alignment_gaps(three[0], copy, three[2])
    assert found.lines[1].gap.value is None
    notes = " ".join(found.notes)
    assert "No number for the student's safety and sar: nobody decides the safety rules." in notes
    assert "The student's run chose by itself when to stop" in notes
    assert "left out: another (the student's)" in notes


def test_the_command_shows_one_table(three, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "220")
    base, student, teacher = map(str, three)
    with pytest.raises(SystemExit) as ended:
        main(["compare", base, student, "--teacher", teacher])
    assert not ended.value.code
    out = capsys.readouterr().out
    line = next(text for text in out.splitlines() if "student" in text and "raw on" in text)
    assert "40 of 40" in line and "+0.20 [" in line and "(40)" in line
    assert "69% of the gap closed" in out
    with pytest.raises(SystemExit) as ended:
        main(["compare", base, student, "--teacher", teacher, "--gap-to", teacher])
    assert ended.value.code == 2
    assert "--teacher: found --gap-to beside it" in capsys.readouterr().err


def test_a_teacher_of_two_methods_is_refused(three):
    with pytest.raises(BadInput, match="2 arms"):
        alignment_gaps(three[0], three[0], three[1])


def test_the_table_is_written_as_page_markdown_and_data(three, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base, student, teacher = map(str, three)
    call = ["compare", base, student, "--teacher", teacher]
    with pytest.raises(SystemExit) as done:
        main([*call, "--html", "gap.html", "--markdown", "gap.md", "--json", "-"])
    assert done.value.code == 0
    told = json.loads(capsys.readouterr().out)
    [suite] = told["suites"]
    assert [line["role"] for line in suite["lines"]] == ["teacher", "student", "student", "base"]
    raw = suite["lines"][1]
    assert raw["gap"]["value"] == pytest.approx(0.2) and raw["gap"]["n"] == N
    assert raw["closed"]["closed"][0] == pytest.approx(0.45 / 0.65)
    page, text = (tmp_path / "gap.html").read_text(), (tmp_path / "gap.md").read_text()
    assert "<script" not in page and "69% of the gap closed" in page
    assert all(number in page for number in ("0.700", "0.900", "0.250", "+0.200"))
    row = next(line for line in text.splitlines() if "| student | raw on" in line)
    assert "0.700" in row and "+0.200" in row and f"{N} cases" in row


def test_a_name_that_is_markup_stays_a_name(three, tmp_path):
    from adhere.experiments.alignment_report import to_markdown, to_page

    copy = tmp_path / "student"
    shutil.copytree(three[1], copy)
    for file in ("results.jsonl", "summary.json", "run.yaml"):
        path = copy / file
        path.write_text(path.read_text().replace("openai:student", "<em>|x</em>"))
    found = alignment_gaps(three[0], copy, three[2])
    assert "<em>" in found[0].lines[1].model
    page, text = to_page(found, ["a", "<i>", "c"]), to_markdown(found)
    assert "<em>" not in page and "<i>" not in page and "&lt;em&gt;" in page
    assert "<em>" not in text and "\\|x" in text


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--json", "-", "--markdown", "-"], "--markdown and --json all go to standard output"),
        (["--junit", "x.xml"], "--teacher: found --junit beside it"),
        (["--html", "missing/gap.html"], "--html: missing/gap.html"),
    ],
)
def test_what_does_not_go_with_a_teacher_is_refused(three, more, message, capsys, monkeypatch):
    base, student, teacher = map(str, three)
    with pytest.raises(SystemExit) as done:
        main(["compare", base, student, "--teacher", teacher, *more])
    assert done.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_pages_of_gaps_need_a_teacher(three, capsys):
    with pytest.raises(SystemExit) as done:
        main(["compare", str(three[0]), str(three[1]), "--html", "gap.html"])
    assert done.value.code == 2
    assert "--html: found no --teacher" in capsys.readouterr().err
