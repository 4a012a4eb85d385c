"""The commands as a user runs them: exit codes, messages, kill and resume, weight of imports."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time

import pytest

from adhere.cli.main import COMMANDS
from support.command import run_here
from support.fake_server import FakeServer, Fault, Reply

SPEC = """\
# Test assistant

## Safety
- [no-bomb] Never say bomb.
  check: absent("bomb")

## Behavioral
- [short] At most five words.
  check: words(max=5)
"""
KEY = "sk-planted-9876543210"


def adhere(*args, cwd=None, env=None, limit=None):
    """A command; with a limit on what its files may hold, in a process of its own."""
    env = {**os.environ, **(env or {})}
    if limit is None:
        return run_here(*args, cwd=cwd, env=env)
    return subprocess.run(
        [sys.executable, "-m", "adhere", *map(str, args)],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )


@pytest.fixture
def work(tmp_path):
    (tmp_path / "spec.md").write_text(SPEC)
    prompts = [{"id": f"p{i}", "prompt": f"Question {i}?"} for i in range(20)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(p) + "\n" for p in prompts))
    return tmp_path


def evaluate(work, url, *more, out="run", **kw):
    return adhere(
        "eval",
        *("--spec", "spec.md", "--prompts", "prompts.jsonl", "--out", out),
        *("--model", "openai:m", "--base-url", url, "--prefill", "none", "--method", "vanilla"),
        *more,
        cwd=work,
        **kw,
    )


def clear_error(done, code, *words):
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("adhere: ")
    for word in words:
        assert word in done.stderr


def test_help_is_quick_and_nothing_heavy_is_imported():
    probe = "import sys, adhere, adhere.cli.main; print(*sorted(sys.modules))"
    out = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    loaded = set(out.stdout.split())
    assert not loaded & {"numpy", "torch", "pydantic", "aiohttp", "jinja2", "xllamacpp"}
    best = 9.0
    for _ in range(5):
        began = time.perf_counter()
        assert adhere("--help").returncode == 0
        best = min(best, time.perf_counter() - began)
    assert best < 0.3


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_has_help(command):
    done = adhere(command, "--help")
    assert done.returncode == 0
    assert len(done.stdout) > 100


def test_the_core_never_imports_numpy_or_torch():
    probe = (
        "import sys, adhere.experiments.run, adhere.reporting.report, adhere.spec.checks, "
        "adhere.cli.eval, adhere.cli.ask, adhere.cli.compare; "
        "print({'numpy', 'torch'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"


def test_eval_prints_the_table_and_exits_0(work):
    with FakeServer() as server:
        done = evaluate(work, server.url)
        assert done.returncode == 0, done.stderr
        assert "vanilla" in done.stdout
        assert "report.html" in done.stdout
        again = evaluate(work, server.url)
        assert "already finished" in again.stdout
        assert len(server.calls) == 20


def test_init_makes_a_folder_in_which_the_spec_and_plan_are_valid(tmp_path):
    done = adhere("init", "mine", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert adhere("spec", "check", "mine/spec.md", cwd=tmp_path).returncode == 0
    with FakeServer(template=True) as server:
        done = adhere(
            "eval", "--model", "openai:m", "--base-url", server.url, cwd=tmp_path / "mine"
        )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "mine" / "runs" / "first" / "report.html").exists()
    clear_error(adhere("init", "mine", cwd=tmp_path), 2, "is there already")


def test_init_turns_a_policy_into_rules(tmp_path):
    (tmp_path / "policy.md").write_text(
        "# House rules\n\n- Never mention competitors.\n- Answer in at most 50 words.\n"
    )
    done = adhere("init", "mine", "--from", "policy.md", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "mine" / "spec.md").read_text()
    assert "words(max=50)" in text
    assert "Never mention competitors." in text
    assert adhere("spec", "check", "mine/spec.md", cwd=tmp_path).returncode == 0


def test_ask_shows_the_steps_and_prints_only_the_answer_to_stdout(work):
    replies = iter(["far too many words for this rule", "short now"])
    with FakeServer(lambda p, b: Reply(next(replies))) as server:
        done = adhere(
            *("ask", "Why?", "--spec", "spec.md", "--method", "repair", "--model", "openai:m"),
            *("--base-url", server.url, "--prefill", "none"),
            cwd=work,
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "short now\n"
    assert "repair 1" in done.stderr
    assert "far too many words" in done.stderr
    assert "no-bomb" in done.stderr


def test_report_and_compare(work):
    with FakeServer() as server:
        evaluate(work, server.url)
    with FakeServer(lambda p, b: Reply("a bomb")) as server:
        evaluate(work, server.url, out="worse")
    (work / "run" / "report.html").unlink()
    done = adhere("report", "run", "--format", "markdown", cwd=work)
    assert done.returncode == 0, done.stderr
    assert "| " in done.stdout
    assert (work / "run" / "report.html").exists()
    done = adhere("compare", "run", "worse", cwd=work)
    assert done.returncode == 0, done.stderr
    assert "-1.00" in done.stdout
    assert "no-bomb" in done.stdout
    clear_error(adhere("compare", "run", "nowhere", cwd=work), 2, "nowhere")


# ---------------------------------------------------------------- bad input


def test_bad_options(work):
    with FakeServer(models=["alpha"]) as server:
        url = server.url
        clear_error(adhere("evil", cwd=work), 2)
        clear_error(evaluate(work, url, "--no-such-option"), 2)
        clear_error(evaluate(work, url, "--method", "aling3"), 2, "align3")
        clear_error(evaluate(work, url, "--api-key-env", "NO_SUCH_KEY"), 2, "NO_SUCH_KEY")
        clear_error(evaluate(work, "localhost:1"), 2, "--base-url")
        clear_error(evaluate(work, url, "--temperature", "hot"), 2)
        clear_error(evaluate(work, url, "--temperature", "-1"), 2, "temperature")
        clear_error(adhere("eval", cwd=work), 2, "spec")
        clear_error(
            adhere(
                *("eval", "--spec", "spec.md", "--prompts", "prompts.jsonl"),
                *("--model", "local:gpt-9", "--method", "raw"),
                cwd=work,
            ),
            2,
            "gpt-9",
            "smollm2-135m",
        )
    assert not server.calls
    assert not (work / "run").exists()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("spec.md", b"", ["spec.md"]),
        ("spec.md", b"# Only\n\n## Safety\n", ["spec.md"]),
        ("spec.md", b"---\nversion: [\n---\n# X\n", ["spec.md"]),
        ("spec.md", b"# X\n\n## Safety\n- caf\xe9\n", ["spec.md", "UTF-8"]),
        ("spec.md", b"# X\n\n## Safety\n- " + b"x" * 10_000_000, ["spec.md"]),
        ("spec.md", b"# X\n\n## Safety\n- [a] One.\n- [a] Two.\n", ["spec.md:5", "a"]),
        (
            "spec.md",
            b"# X\n\n## Safety\n- [a] One.\n  chek: words(max=1)\n",
            ["spec.md:5", "check"],
        ),
        (
            "spec.md",
            b"# X\n\n## Safety\n- [a] One.\n  check: wrds(max=1)\n",
            ["spec.md:5", "words"],
        ),
        (
            "spec.md",
            b'# X\n\n## Safety\n- [a] One.\n  check: __import__("os").system("id")\n',
            ["spec.md:5"],
        ),
        ("prompts.jsonl", b"", ["prompts.jsonl"]),
        ("prompts.jsonl", b'{"prompt": "a"}\n{"prompt"\n{"prompt": "b"}\n', ["prompts.jsonl:2"]),
        ("prompts.jsonl", b'{"prompt": "a"}\n{"text": "b"}\n', ["prompts.jsonl:2", "text"]),
        ("prompts.jsonl", b'{"prompt": "\xff"}\n', ["prompts.jsonl:1", "UTF-8"]),
        ("prompts.jsonl", b'{"messages": [{"content": "b"}]}\n', ["prompts.jsonl:1", "role"]),
        ("prompts.jsonl", b'{"prompt": "a", "id": "x"}\n{"prompt": "b", "id": "x"}\n', [":2", "x"]),
        ("prompts.jsonl", b"[" * 100_000 + b"\n", ["prompts.jsonl:1"]),
    ],
)
def test_bad_files_are_named_with_their_line_and_nothing_runs(work, name, content, words):
    (work / name).write_bytes(content)
    with FakeServer() as server:
        began = time.monotonic()
        clear_error(evaluate(work, server.url), 2, *words)
        assert time.monotonic() - began < 10
    assert not server.calls
    assert not (work / "run").exists()


def test_an_out_path_under_a_regular_file(work):
    (work / "file").write_text("x")
    with FakeServer() as server:
        clear_error(evaluate(work, server.url, out="file/run"), 2, "--out")


def test_a_second_writer_exits_2(work):
    with FakeServer(lambda p, b: Reply(delay=0.3)) as server:
        first = subprocess.Popen(
            [
                *(sys.executable, "-m", "adhere", "eval", "--spec", "spec.md", "--out", "run"),
                *("--prompts", "prompts.jsonl", "--model", "openai:m", "--method", "vanilla"),
                *("--base-url", server.url, "--prefill", "none", "--concurrency", "2"),
            ],
            cwd=work,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while not server.calls:
            time.sleep(0.02)
        clear_error(evaluate(work, server.url), 2, "another adhere process")
        first.kill()
        first.wait()


def test_a_server_that_is_not_there_or_answers_html(work):
    with FakeServer() as server:
        url = server.url
    clear_error(evaluate(work, url), 4, "no connection", "--base-url")
    assert not (work / "run").exists()
    with FakeServer(lambda p, b: Fault(200, "<html>hi</html>", "text/html")) as server:
        done = evaluate(work, server.url, "--concurrency", "30")
    assert "HTML" in done.stderr
    assert done.returncode == 4
    assert "Traceback" not in done.stderr


def test_a_full_disk_exits_5_and_the_run_goes_on_later(work):
    text = "word " * 2000
    with FakeServer(lambda p, b: Reply(text)) as server:
        done = evaluate(work, server.url, limit=200_000)
        assert done.returncode == 5, done.stderr
        assert "Traceback" not in done.stderr
        assert "space" in done.stderr
        asked = len(server.calls)
        done = evaluate(work, server.url)
        assert done.returncode == 0, done.stderr
        assert len(server.calls) <= asked + 20
    rows = [json.loads(line) for line in (work / "run" / "results.jsonl").open()]
    assert len(rows) == 20


def test_the_key_stands_in_no_file_and_no_output(work):
    echo = Fault(400, json.dumps({"error": {"message": f"you sent {KEY}"}}))

    def reply(path, body):
        return echo if "Question 3?" in body["messages"][-1]["content"] else Reply()

    with FakeServer(reply, key=KEY) as server:
        done = evaluate(work, server.url, "--api-key-env", "MY_KEY", env={"MY_KEY": KEY})
    assert done.returncode == 0, done.stderr
    assert KEY not in done.stdout + done.stderr
    for path in (work / "run").iterdir():
        assert KEY.encode() not in path.read_bytes(), path


# ---------------------------------------------------------------- killed and resumed


def test_a_killed_run_goes_on_without_repeating_a_committed_call(work):
    rng = random.Random(1)
    kills, limit = 5, 4

    def reply(path, body):
        return Reply(body["messages"][-1]["content"], delay=0.03)

    with FakeServer(reply) as server:
        command = [
            *(sys.executable, "-m", "adhere", "eval", "--spec", "spec.md", "--out", "run"),
            *("--prompts", "prompts.jsonl", "--model", "openai:m", "--base-url", server.url),
            *(
                "--method",
                "vanilla",
                "--method",
                "raw",
                "--prefill",
                "none",
                "--order",
                "spec_first",
            ),
            *("--concurrency", str(limit)),
        ]
        for _ in range(kills):
            start = len(server.calls)
            process = subprocess.Popen(
                command, cwd=work, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            until = start + rng.randint(1, 8)
            while len(server.calls) < until and process.poll() is None:
                time.sleep(0.005)
            process.send_signal(signal.SIGKILL)
            process.wait()
        done = adhere(*command[3:], cwd=work)
        assert done.returncode == 0, done.stderr
        asked = len(server.calls)
    rows = [json.loads(line) for line in (work / "run" / "results.jsonl").open()]
    keys = [(r["case"], r["method"]) for r in rows]
    assert len(keys) == len(set(keys)) == 40
    assert all(r["outcome"] == "scored" and r["text"] == r["prompt"] for r in rows)
    assert asked <= 40 + kills * limit


# What a shell does to a command that it starts in its background: it does not hear Ctrl-C.
IN_BACKGROUND = ("sh", "-c", "trap '' INT; exec \"$@\"", "sh")


@pytest.mark.parametrize(
    ("end", "background"),
    [(signal.SIGINT, False), (signal.SIGTERM, False), (signal.SIGTERM, True)],
    ids=["Ctrl-C", "terminated", "terminated in the background"],
)
def test_a_polite_end_exits_130_and_keeps_what_was_done(work, end, background):
    with FakeServer(lambda p, b: Reply(delay=0.1)) as server:
        process = subprocess.Popen(
            [
                *(IN_BACKGROUND if background else ()),
                *(sys.executable, "-m", "adhere", "eval", "--spec", "spec.md", "--out", "run"),
                *("--prompts", "prompts.jsonl", "--model", "openai:m", "--method", "vanilla"),
                *("--base-url", server.url, "--prefill", "none", "--concurrency", "1"),
            ],
            cwd=work,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # As from a terminal, also where the tests themselves run in the background.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )
        while len(server.calls) < 4:
            time.sleep(0.02)
        process.send_signal(end)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in err
    summary = json.loads((work / "run" / "summary.json").read_text())
    assert not summary["finished"]
    assert summary["rows"][0]["n_scored"] >= 2
