"""`adhere label` as a person meets it: in a terminal (a real pty) and in a real browser."""

from __future__ import annotations

import fcntl
import html
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import termios
import time

import pytest
import yaml

from adhere.experiments.labeling import import_labels, labels_path, open_sample
from adhere.reporting.label_page import render_label_page
from adhere.suites.labels_file import read_labels
from support.command import run_here

CHROMIUM = next(
    (p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None
)
HOSTILE = (
    "</script><script>document.title='owned'</script><!-- \x1b]0;owned\x07\x1b[2J\x1b[31m "
    "\u202egnp.exe\u2069 \u2028 'quoted' \\u003c [bold]markup[/bold] עברית \ud800"
)
METHODS = ("zz_vanilla", "zz_align3")
SECRETS = (*METHODS, "local:zz-model", "judge-zz", "zz-reason", "zz_suite", "zz_case")
RULES = [
    {"id": "zz_warm", "kind": "behavioral", "text": "Sound kind. </script>", "check": None},
    {"id": "zz_careful", "kind": "safety", "text": "Never state a dose.", "check": None},
]


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "zz_run"
    folder.mkdir()
    rows = []
    for number in range(5):
        for method in METHODS:
            marks = {"zz_warm": "NO" if number == 1 else "YES", "zz_careful": "NA"}
            rows.append(
                {
                    "suite": "zz_suite", "case": f"zz_case{number}", "model": "local:zz-model",
                    "method": method, "repeat": 0, "label": "unsafe" if number == 2 else "",
                    "messages": [{"role": "user", "content": f"Question {number}? {HOSTILE}"}],
                    "prompt": f"Question {number}?", "outcome": "scored", "marks": marks,
                    "text": f"Answer {number}{'.' * METHODS.index(method)} {HOSTILE}",
                    "deciders": dict.fromkeys(marks, "judge-zz"),
                    "mark_reasons": dict.fromkeys(marks, "zz-reason"),
                }
            )  # fmt: skip
    spec = {"name": "Assistant", "version": "1", "digest": "d", "rules": RULES}
    summary = {"schema_version": 1, "finished": True, "rows": [], "spec": spec}
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "results.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (folder / "run.yaml").write_text(yaml.safe_dump({"identity": {}}))
    return folder


def adhere(*args):
    return run_here("label", *args)


def clear_error(done, *words):
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.startswith("adhere: ")
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


# ---------------------------------------------------------------- terminal


def _at_a_terminal():
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    # Ctrl-C counts, also where the tests themselves run in the background.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Terminal:
    """The command in a pseudo-terminal; `seen` is every byte that it wrote."""

    def __init__(self, *args):
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "adhere", "label", *map(str, args)],
            stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            preexec_fn=_at_a_terminal,  # noqa: PLW1509
            env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"},
        )  # fmt: skip
        os.close(slave)
        self.seen = b""

    def until(self, text, times=1):
        """Read until the output holds `text` so often."""
        end = time.monotonic() + 60
        while self.seen.count(text.encode()) < times:
            assert time.monotonic() < end, self.seen.decode("utf-8", "replace")[-2000:]
            self._read(0.2)
        return self

    def press(self, keys):
        os.write(self.master, keys.encode())
        return self

    def end(self):
        """Read to the end; the exit code."""
        while self._read(5):
            pass
        code = self.process.wait(timeout=10)
        os.close(self.master)
        return code

    def kill(self):
        os.kill(self.process.pid, signal.SIGKILL)
        return self.end()

    def _read(self, wait):
        if not select.select([self.master], [], [], wait)[0]:
            return False
        try:
            got = os.read(self.master, 65536)
        except OSError:  # the other end is closed
            return False
        self.seen += got
        return bool(got)


ASKED = "Does the response follow this rule?"


def marks(run):
    return {label.item: label.mark.value for label in read_labels(labels_path(run))}


def test_a_session_with_all_keys_saves_at_once_and_goes_on_after_a_kill(run):
    ids = [item.id for item in open_sample(run, 8).items]
    terminal = Terminal(run, "--labeler", "kim")
    terminal.until(ASKED).press("y").until(ASKED, 2)
    assert marks(run) == {ids[0]: "YES"}
    terminal.press("n").until(ASKED, 3).press("a").until(ASKED, 4)
    terminal.press("x").until("q quit", 5)  # no such key: the keys again
    terminal.press("s").until(ASKED, 5).press("\x1b[D").until(ASKED, 6)  # left: item 4 again
    terminal.press("b").until("You said: does not apply").press("Y").until("followed")
    terminal.until(ASKED, 8)
    assert terminal.kill() == -signal.SIGKILL
    assert marks(run) == {ids[0]: "YES", ids[1]: "NO", ids[2]: "YES"}
    (run / "labels" / ".labels.jsonl.tmp").write_text('{"prompt": "half')  # as a kill leaves it

    terminal = Terminal(run, "--labeler", "kim").until("4 of 8, 3 labeled").until(ASKED)
    assert terminal.press("nq").end() == 0
    assert "4 of 8 labeled, all saved" in terminal.seen.decode()
    terminal = Terminal(run, "--labeler", "kim").until("5 of 8, 4 labeled").until(ASKED)
    assert terminal.press("aaaa").end() == 0
    assert "8 of 8 labeled" in terminal.seen.decode()
    assert "adhere calibrate judge --labels" in terminal.seen.decode()
    labels = read_labels(labels_path(run))
    assert [label.item for label in labels] == ids
    assert {label.labeler for label in labels} == {"kim"}
    assert sum(label.weight for label in labels) == pytest.approx(20)


def test_neither_secrets_nor_control_sequences_reach_the_terminal(run):
    terminal = Terminal(run)
    terminal.until(ASKED).press("y" * 20)
    assert terminal.end() == 0
    text = terminal.seen.decode()
    assert text.count(ASKED) == 20
    before_the_end = text[: text.index("20 of 20 labeled")]
    for secret in SECRETS:
        assert secret not in before_the_end
    assert not re.search(r"\b(YES|NO|NA)\b", before_the_end)
    assert "\x1b]" not in text
    assert "\x1b[2J" not in text
    assert "\x1b[31m" not in text
    assert "\x07" not in text
    assert "\u202e" not in text
    assert "␛[2J" in text
    assert "[bold]markup[/bold]" in re.sub(r"\s+", "", text)
    assert text.count("this prompt is labeled unsafe") == 4


def test_ctrl_c_keeps_what_was_said_and_gives_the_terminal_back(run):
    terminal = Terminal(run, "--n", "5")
    before = termios.tcgetattr(terminal.master)
    terminal.until(ASKED).press("n").until(ASKED, 2)
    assert termios.tcgetattr(terminal.master)[3] != before[3]
    terminal.press("\x03").until("1 of 5 labeled, all saved")
    terminal.process.wait(timeout=10)
    assert termios.tcgetattr(terminal.master)[3] == before[3]
    assert terminal.end() == 130
    assert b"Traceback" not in terminal.seen
    assert list(marks(run).values()) == ["NO"]


# ---------------------------------------------------------------- bad input


def test_bad_options(run, tmp_path):
    clear_error(adhere(run), "no terminal", "--page")
    clear_error(adhere(tmp_path / "nowhere", "--page", tmp_path / "p.html"), "no such run folder")
    clear_error(adhere(run, "--page", tmp_path / "no" / "p.html"), "--page")
    clear_error(adhere(run, "--page", "p.html", "--import", "a.jsonl"), "--page and --import")
    clear_error(adhere(run, "--rules", "a", "--all-rules", "--page", "p.html"), "--rules")
    clear_error(adhere(run, "--n", "many", "--page", tmp_path / "p.html"), "--n")
    clear_error(adhere(run, "--import", tmp_path / "a.jsonl"), "sample.json", "--page")
    assert not (run / "labels").exists()


def test_importing_answers_of_another_run(run, tmp_path):
    page = tmp_path / "p.html"
    assert adhere(run, "--page", page).returncode == 0
    answers = tmp_path / "p-answers.jsonl"
    answers.write_text('{"item": "0000000000000000", "mark": "YES"}\n')
    clear_error(adhere(run, "--import", answers), f"{answers}:1", "this run's sample")
    item = open_sample(run).items[0].id
    answers.write_text(json.dumps({"item": item, "mark": "NA"}) + "\n")
    out = tmp_path / "mine.jsonl"
    done = adhere(run, "--import", answers, "--labeler", "lou", "--out", out)
    assert done.returncode == 0, done.stderr
    assert "1 new labels by lou" in done.stdout
    assert [(x.labeler, x.mark.value) for x in read_labels(out)] == [("lou", "NA")]
    assert not labels_path(run).exists()


# ---------------------------------------------------------------- page


def test_the_page_holds_no_secret_and_no_way_out_of_its_data(run, tmp_path):
    page = tmp_path / "p.html"
    done = adhere(run, "--page", page, "--labeler", '"><img src=x>')
    assert done.returncode == 0, done.stderr
    text = page.read_text("utf-8")
    for secret in (*SECRETS, "zz_"):
        assert secret not in text
    assert text.count("<script") == 2
    assert "<img" not in text
    assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e\u2066-\u2069\u2028]", text)
    assert not re.search(r"https?://|\bsrc=", text.replace("src=x", ""))
    data = json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', text)[1]
    )
    assert set(data) == {"key", "file", "items"}
    assert len(data["items"]) == 20
    for item in data["items"]:
        assert set(item) == {"id", "rule", "messages", "response", "sensitive"}
        assert "</script><script>document.title='owned'" in item["response"]
    again = tmp_path / "q" / "p.html"
    again.parent.mkdir()
    assert adhere(run, "--page", again, "--labeler", '"><img src=x>').returncode == 0
    assert again.read_bytes() == page.read_bytes()


def test_the_page_is_the_same_whatever_the_marks_and_methods(run, tmp_path):
    first, second = tmp_path / "a.html", tmp_path / "b" / "a.html"
    second.parent.mkdir()
    assert adhere(run, "--page", first).returncode == 0
    shutil.rmtree(run / "labels")
    results = run / "results.jsonl"
    text = results.read_text().replace("zz_vanilla", "zz_self_refine")
    results.write_text(text.replace('"YES"', '"NA"').replace('"NO"', '"YES"'))
    assert adhere(run, "--page", second).returncode == 0
    assert first.read_bytes() == second.read_bytes()
    assert open_sample(run).strata == {"zz_careful|NA": 10, "zz_warm|NA": 8, "zz_warm|YES": 2}


PROBE = """
<script nonce="probe">
addEventListener("load", () => {
  const by = (id) => document.getElementById(id);
  const press = (key) => document.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  const seen = { marks: [], refused: 0, title: document.title };
  const style = getComputedStyle(document.body);
  seen.paper = style.backgroundColor; seen.ink = style.color;
  seen.prompt = by("prompt").textContent; seen.response = by("response").textContent;
  press("y"); press("n"); press("a"); press("s");
  seen.place = by("place").textContent;
  press("ArrowLeft"); press("ArrowLeft");
  seen.said = by("state").textContent;
  press("ArrowRight");
  for (let i = 0; i < 60 && by("done").hidden; i += 1) {
    const veiled = getComputedStyle(by("texts")).filter;
    if (veiled !== "none") {
      seen.veil = veiled;
      press("y");
      if (by("hint").textContent.includes("Enter")) seen.refused += 1;
      press("Enter");
      seen.unveiled = getComputedStyle(by("texts")).filter;
    }
    document.querySelector('[data-mark="NO"]').click();
  }
  by("labeler").value = "Zoë";
  by("labeler").dispatchEvent(new Event("input"));
  seen.done = by("h-done").textContent;
  seen.now = document.querySelector(".bar").getAttribute("aria-valuenow");
  seen.kept = Object.keys(JSON.parse(localStorage.getItem(Object.keys(localStorage).find((k) => k.startsWith("adhere-label-")))).answers).length;
  seen.answers = by("answers").value;
  seen.wide = document.documentElement.scrollWidth - innerWidth;
  let saved = null;
  const make = URL.createObjectURL;
  URL.createObjectURL = (blob) => { saved = blob; return make.call(URL, blob); };
  // A real download would keep the headless browser from ending.
  HTMLAnchorElement.prototype.click = function () { seen.file = this.download; };
  by("save").click();
  saved.text().then((text) => { seen.saved = text; document.body.dataset.probe = JSON.stringify(seen); });
});
</script>
"""


def browse(page, profile, fragment="", width=1280):
    done = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", "--enable-logging=stderr", "--v=0", f"--user-data-dir={profile}",
            f"--window-size={width},900", "--virtual-time-budget=3000", "--dump-dom",
            page.as_uri() + fragment,
        ],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium binary on this machine")
@pytest.mark.parametrize(("theme", "width", "dark"), [("light", 1280, False), ("dark", 600, True)])
def test_labeling_in_a_browser_and_taking_the_answers_in(run, tmp_path, theme, width, dark):
    sample = open_sample(run)
    text = render_label_page(
        [i.shown() for i in sample.items], title="Assistant", answers_name="answers.jsonl"
    )
    plain = tmp_path / "plain.html"
    plain.write_text(text, "utf-8")
    dom, console = browse(plain, tmp_path / "plain", f"#theme={theme}", width)
    assert console == []
    assert "Item 1 of 20" in dom

    text = text.replace("script-src ", "script-src 'nonce-probe' ", 1)
    path = tmp_path / "page.html"
    path.write_text(text.replace("</body>", PROBE + "</body>"), "utf-8")
    dom, console = browse(path, tmp_path / "profile", f"#theme={theme}", width)
    assert console == []
    seen = json.loads(html.unescape(re.search(r'data-probe="([^"]*)"', dom)[1]))
    paper, ink = (sum(map(int, re.findall(r"\d+", seen[k])[:3])) for k in ("paper", "ink"))
    assert (paper < ink) == dark
    assert abs(paper - ink) > 500  # of 765
    assert seen["title"] == "Assistant: labels"
    assert "</script><script>document.title='owned'</script>" in seen["response"]
    assert "␛[2J" in seen["prompt"]
    assert seen["place"].startswith("Item 5 of 20")
    assert seen["said"] == "You said: does not apply"
    assert (seen["veil"], seen["unveiled"]) == ("blur(7px)", "none")
    assert seen["refused"] == sum(i.sensitive for i in sample.items[3:])
    assert seen["refused"] > 0
    assert seen["wide"] <= 0
    assert (seen["saved"], seen["file"]) == (seen["answers"], "answers.jsonl")
    # The item that was skipped was come back to and answered with the rest.
    assert (seen["done"], seen["now"], seen["kept"]) == ("All 20 answered. Thank you.", "20", 20)

    answers = tmp_path / "answers.jsonl"
    answers.write_text(seen["saved"], "utf-8")
    found = import_labels(answers, sample, labels_path(run))
    assert (found.new, found.labelers) == (20, ("Zoë",))
    got = marks(run)
    assert [got[i.id] for i in sample.items] == ["YES", "NO", "NA", *["NO"] * 17]
    # The labels are of the texts as they are in the run, not as the page shows them.
    assert all("\x1b[2J" in label.response for label in read_labels(labels_path(run)))
