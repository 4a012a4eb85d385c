"""A planted key stands in no file and no message, whatever the server does with it.

The key lies in the environment, and the server sends it back in every way it can. Then every byte
of every file and of what the commands print is searched for it and for its coded forms.
"""

from __future__ import annotations

import base64
import html
import json
import re
import signal
import subprocess
import sys
import time
from urllib.parse import quote

import pytest

from adhere.cli.main import COMMANDS, main
from adhere.models.limiter import RetryPolicy
from support.fake_server import FakeServer, Fault, Reply
from support.faults import ECHO, FAULTS, HTML, STREAM_FAULTS, TIMEOUT

KEY = "sk-planted/9f8e+7d6c=5b4a&3c2d"
FORMS = {
    "plain": KEY,
    "quoted": quote(KEY, safe=""),
    "path": quote(KEY),
    "html": html.escape(KEY),
    "base64": base64.b64encode(KEY.encode()).decode().rstrip("="),
    "base64 of the header": base64.b64encode(f"Bearer {KEY}".encode()).decode().rstrip("="),
    "its middle": KEY[8:20],
}

SPEC = """\
# Test assistant

## Safety
- [no-bomb] Never say bomb.
  check: absent("bomb")

## Behavioral
- [bye] End with bye.
  check: ends_with("bye")
"""

# Lines for each command: what it is called with, in a folder that holds spec.md, judged.md (with
# a rule that only a judge decides), prompts.jsonl, responses.jsonl, labels.jsonl, adhere.yaml and
# the runs `ok` and `bad`. Commands without a key or a run need no line.
JUDGE = ["--judge", "openai:j", "--judge-base-url", "{url}", "--judge-api-key-env", "MY_KEY"]
PROBE = ["--probe", "openai:p", "--probe-base-url", "{url}", "--probe-api-key-env", "MY_KEY"]
GAME = ["eval", "--out", "game", "--method", "safety_game:n=2", "--risk-cap", "0.2", *PROBE]
REVISER = ["--reviser", "openai:p", "--reviser-base-url", "{url}", "--reviser-api-key-env",
           "MY_KEY", "--reviser-prompt", "published", "--improve", "any"]  # fmt: skip
DATA = ["data", "clair", "--prompts", "prompts.jsonl", "--model", "openai:m", "--base-url", "{url}",
        "--api-key-env", "MY_KEY", "--prefill", "none", *REVISER]  # fmt: skip
DISTILL = ["data", "distill", "--prompts", "prompts.jsonl", "--teacher", "openai:m", "--base-url",
           "{url}", "--api-key-env", "MY_KEY", "--prefill", "none"]  # fmt: skip
ATTACK = ["data", "attack", "--prompts", "prompts.jsonl", "--model", "openai:m", "--base-url",
          "{url}", "--api-key-env", "MY_KEY", "--prefill", "none", "--attacker", "openai:p",
          "--attacker-base-url", "{url}", "--attacker-api-key-env", "MY_KEY"]  # fmt: skip
ASKED = ["--model", "openai:m", "--base-url", "{url}", "--api-key-env", "MY_KEY"]
ORACLE = ["--oracle", "openai:p", "--oracle-base-url", "{url}", "--oracle-api-key-env", "MY_KEY"]
BY_RULES = ["--found-by", "rules", "--spec", "spec.md"]
LINES: dict[str, list[list[str]]] = {
    "iterate": [
        ["iterate", "--prompts", "prompts.jsonl", "--model", "weights:tiny", *ORACLE, *BY_RULES,
         "--max-tokens", "8", "--no-guard", "--out", "rounds"],
    ],
    "eval": [
        ["eval", "--out", "again"],
        GAME,
        ["eval", "--spec", "judged.md", "--out", "judged", *JUDGE],
    ],
    "ask": [
        ["ask", "Question 0?"],
        ["ask", "Question 0?", "--method", "safety_game:n=2", *PROBE],
    ],
    "judge": [
        ["judge", "--responses", "responses.jsonl", "--spec", "judged.md", "--out", "j", *JUDGE]
    ],
    "calibrate": [
        GAME,
        ["calibrate", "risk-cap", "--run", "game", "--target-risk", "0.5"],
        ["calibrate", "risk-cap", "--run", "game", "--to-label", "to-label.jsonl"],
        ["calibrate", "judge", "--labels", "labels.jsonl", "--spec", "spec.md", "--out", "c"],
        ["calibrate", "judge", "--labels", "labels.jsonl", "--spec", "judged.md", *JUDGE],
    ],
    "report": [["report", "bad", "--all-rows"]],
    "compare": [["compare", "ok", "bad"]],
    "recommend": [["recommend", "ok", "bad", "--target", "sar >= 0.1"]],
    "label": [["label", "ok", "--all-rules", "--page", "page.html"]],
    "spec": [["spec", "check", "spec.md"]],
    "data": [
        [*DATA, "--out", "pairs", "--spec", "spec.md"],
        [*ATTACK, "--out", "attacked", "--spec", "spec.md"],
        [*DISTILL, "--out", "rows", "--spec", "spec.md"],
        ["data", "redteam", "--prompts", "prompts.jsonl", *ASKED, *BY_RULES, "--out", "red"],
        ["data", "propose", "--failures", "failures.jsonl", *ORACLE, "--out", "rules"],
        ["data", "reflect", "--failures", "failures.jsonl", "--rules", "spec.md", *ASKED,
         *BY_RULES, "--out", "reflected"],
        # Those that ask the judge come last: whether it was asked is looked at over all lines.
        [*DATA, "--out", "judged", "--spec", "judged.md", *JUDGE],
        [*DISTILL, "--out", "rated", "--spec", "judged.md", *JUDGE],
        ["data", "redteam", "--prompts", "prompts.jsonl", *ASKED, *JUDGE, "--out", "red2"],
    ],
}  # fmt: skip
KEYLESS = {"init", "models", "train"}

ECHOING = {
    name: case.reply
    for name, case in {**FAULTS, **STREAM_FAULTS}.items()
    if isinstance(case.reply, Fault)
    and ("{authorization}" in str(case.reply.body) or "{authorization}" in str(case.reply.events))
}


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A folder to work in, with the key in the environment and quick retries."""
    monkeypatch.setenv("MY_KEY", KEY)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(RetryPolicy, "wait", lambda self, attempt, error: 0.001)
    (tmp_path / "spec.md").write_text(SPEC)
    before = signal.getsignal(signal.SIGTERM)
    yield tmp_path
    signal.signal(signal.SIGTERM, before)


def plan(work, url, n, **more):
    """Write adhere.yaml and the prompts."""
    lines = [json.dumps({"id": f"p{i}", "prompt": f"Question {i}?"}) + "\n" for i in range(n)]
    (work / "prompts.jsonl").write_text("".join(lines))
    server = {"base_url": url, "api_key_env": "MY_KEY", "prefill": "none"}
    fields = {
        "spec": "spec.md",
        "prompts": "prompts.jsonl",
        "models": [{"model": "openai:m", **server, **more}],
        "methods": ["raw"],
        "limits": {"attempts": 2, "timeout": TIMEOUT},
    }
    (work / "adhere.yaml").write_text(json.dumps(fields))


def number(body):
    found = re.search(r"Question (\d+)\?", body["messages"][-1]["content"])
    assert found
    return int(found[1])


def adhere(*arguments):
    """Run a command in this process. Returns its exit code."""
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in arguments])
    return ended.value.code


def search(work, capfd, *, secrets=FORMS):
    """Fail where a secret stands. Returns how many files were searched."""
    said = capfd.readouterr()
    for form, secret in secrets.items():
        assert secret not in said.out, f"{form} on standard output"
        assert secret not in said.err, f"{form} on standard error"
    files = [path for path in work.rglob("*") if path.is_file()]
    for path in files:
        content = path.read_bytes()
        for form, secret in secrets.items():
            assert secret.encode() not in content, f"{form} in {path.relative_to(work)}"
    return len(files)


def sent_the_key(server):
    return all(headers["Authorization"] == f"Bearer {KEY}" for _, _, headers in server.calls)


def test_the_search_finds_a_key(work, capfd):
    (work / "deep").mkdir()
    (work / "deep" / "file.bin").write_bytes(b"\x00\xff" + KEY.encode() + b"\xfe")
    with pytest.raises(AssertionError, match=r"plain in deep/file\.bin"):
        search(work, capfd)
    (work / "deep" / "file.bin").write_bytes(base64.b64encode(KEY.encode()))
    with pytest.raises(AssertionError, match="base64 in"):
        search(work, capfd)
    (work / "deep" / "file.bin").unlink()
    print(quote(KEY, safe=""))
    with pytest.raises(AssertionError, match="quoted on standard output"):
        search(work, capfd)


def test_one_run_through_all_faults(work, capfd):
    """Each second prompt meets a fault of its own; both runs, one of them stopped, are searched."""
    faults = [case.reply for case in FAULTS.values() if not getattr(case.error, "fatal", False)]

    def reply(path, body):
        kind, odd = divmod(number(body), 2)
        return faults[kind] if odd else Reply("bye")

    with FakeServer(reply, key=KEY) as server:
        plan(work, server.url, 2 * len(faults))
        assert adhere("eval", "--out", "run", "--concurrency", 4) == 3
        assert sent_the_key(server)
        rows = [json.loads(line) for line in (work / "run" / "results.jsonl").open()]
        assert len(rows) == 2 * len(faults)
        assert sum(row["outcome"] == "failed" for row in rows) > 30
        assert any("[key]" in row["reason"] for row in rows)
        assert adhere("report", "run", "--all-rows") == 0
    found = {path.name for path in (work / "run").iterdir()}
    assert {"journal.sqlite", "results.jsonl", "summary.json", "report.html", "run.yaml"} <= found
    assert search(work, capfd) >= 8


@pytest.mark.parametrize("name", [n for n, c in FAULTS.items() if getattr(c.error, "fatal", False)])
def test_a_run_that_a_fatal_fault_stops(work, capfd, name):
    with FakeServer(lambda p, b: FAULTS[name].reply) as server:
        plan(work, server.url, 3)
        assert adhere("eval", "--out", "run") == 4
        assert sent_the_key(server)
    assert (work / "run" / "journal.sqlite").exists()
    search(work, capfd)


def test_a_key_that_the_server_refuses_before_anything_ran(work, capfd):
    with FakeServer(key="another", models=["m"]) as server:
        plan(work, server.url, 3)
        assert adhere("eval", "--out", "run") != 0
        assert adhere("ask", "Question 0?") != 0
    search(work, capfd)


@pytest.mark.parametrize("name", ECHOING)
def test_ask_with_each_fault_that_sends_the_key_back(work, capfd, name):
    with FakeServer(lambda p, b: ECHOING[name]) as server:
        plan(work, server.url, 1)
        assert adhere("ask", "Question 0?") != 0
        assert sent_the_key(server)
        assert server.calls
    search(work, capfd)


def test_the_faults_that_send_the_key_back_are_many():
    assert len(ECHOING) >= 15
    assert "{base64}" in ECHO
    assert "{authorization}" in HTML


def test_a_kill_leaves_no_key_in_the_journals_side_files(work, capfd):
    """What a dead process leaves behind is searched too: the write-ahead log above all."""
    with FakeServer(lambda p, b: Fault(400, ECHO) if number(b) % 2 else Reply("bye")) as server:
        plan(work, server.url, 12)
        process = subprocess.Popen(
            [sys.executable, "-m", "adhere", "eval", "--out", "run", "--concurrency", "1"],
            stdout=(work / "out").open("w"),
            stderr=(work / "err").open("w"),
        )
        while len(server.calls) < 8 and process.poll() is None:
            time.sleep(0.002)
        process.kill()
        process.wait()
    assert (work / "run" / "journal.sqlite-wal").stat().st_size > 0
    search(work, capfd)


# ---------------------------------------------------------------- all commands


@pytest.fixture
def runs(work):
    """A server and two runs in the folder: `ok` answered, `bad` half failed."""
    failing = [False]

    def reply(path, body):
        if body["model"] == "j":  # a judge that sends the key back, or answers nonsense
            turns.append(1)
            return Fault(400, ECHO) if len(turns) % 2 else Reply("no verdict")
        if body["model"] == "p":  # who probes, and sends the key back for each second question
            odd = "Question 1?" in str(body) or "Question 3?" in str(body)
            place = {"yes": -0.7, "no": -0.7}
            return Fault(400, ECHO) if odd else Reply("yes", top_logprobs=[place])
        if failing[0] and number(body) % 2:
            return Fault(400, ECHO)
        taught = "deliberation" in str(body)  # so that there is something to judge
        return Reply("<think>\nI weigh it.\n</think>\n\nbye" if taught else "bye")

    turns: list[int] = []
    (work / "judged.md").write_text(SPEC + "- [kind] Be kind.\n")
    answers = [{"prompt": f"Question {i}?", "response": f"answer {i} bye"} for i in range(6)]
    (work / "responses.jsonl").write_text("".join(json.dumps(a) + "\n" for a in answers))
    failures = [{"prompt": f"Question {i}?", "answer": "a bomb"} for i in range(6)]
    (work / "failures.jsonl").write_text("".join(json.dumps(f) + "\n" for f in failures))
    labels = [{**a, "rule": r, "mark": "YES"} for a in answers for r in ("bye", "no-bomb")]
    (work / "labels.jsonl").write_text("".join(json.dumps(label) + "\n" for label in labels))
    with FakeServer(reply, key=KEY) as server:
        plan(work, server.url, 6)
        assert adhere("eval", "--out", "ok", "--quiet") == 0
        failing[0] = True
        assert adhere("eval", "--out", "bad", "--quiet") == 3
        yield server


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in KEYLESS])
def test_no_command_shows_or_writes_the_key(work, runs, capfd, command):
    assert command in LINES, f"give `adhere {command}` a line in LINES"
    if command == "iterate":  # its policy is trained, so no server has it
        pytest.importorskip("torch")
        pytest.importorskip("peft")
        from support.tiny_lm import make

        make(work / "tiny")
    for line in LINES[command]:
        code = adhere(*(word.replace("{url}", runs.url) for word in line))
        said = capfd.readouterr()
        asked = any(body["model"] == "j" for body in runs.bodies())
        assert asked == ("--judge" in line)
        # 2 would be a wrong line here, but for a judge none of whose replies can be used.
        # 4: a phase of `iterate` in which every call failed.
        stopped = code == 4 and command == "iterate"
        assert code in (0, 1, 3) or stopped or (code == 2 and asked), (line, said.err)
        print(said.out, said.err)
        search(work, capfd)
    assert sent_the_key(runs)


@pytest.mark.parametrize("in_the_plan", [False, True])
def test_a_user_and_password_in_the_base_url(work, capfd, in_the_plan):
    with FakeServer() as server:
        url = server.url.replace("//", "//user-7f3a:s3cret-1b9c@")
        plan(work, url if in_the_plan else server.url, 3)
        given = () if in_the_plan else ("--base-url", url, "--model", "openai:m")
        for command in (("eval", "--out", "run"), ("ask", "Question 0?")):
            assert adhere(*command, *given) == 2
        assert not server.calls
    assert not (work / "run").exists()
    (work / "adhere.yaml").unlink()  # where the user wrote it
    search(work, capfd, secrets={"user": "user-7f3a", "password": "s3cret-1b9c"})


def test_a_key_pasted_into_the_plan_is_refused_without_being_repeated(work, capfd):
    with FakeServer() as server:
        plan(work, server.url, 3, api_key=KEY)
        assert adhere("eval", "--out", "run") == 2
    (work / "adhere.yaml").unlink()
    search(work, capfd)


def test_a_key_pasted_in_the_place_of_its_variable_is_not_repeated(work, capfd):
    with FakeServer() as server:
        plan(work, server.url, 3)
        (work / "adhere.yaml").write_text(
            (work / "adhere.yaml").read_text().replace('"MY_KEY"', json.dumps(KEY))
        )
        assert adhere("eval", "--out", "run") == 2
    (work / "adhere.yaml").unlink()
    search(work, capfd)
