"""`adhere train` as a user types it, on a tiny model that is really trained."""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from adhere.cli.main import main
from adhere.cli.train import train
from adhere.training.plan import PRESETS, LoraPlan, TrainPlan
from support.tiny_pairs import write_pairs

SPEC = """\
---
version: 7
---
# Short talk

## Behavioral
- [short] At most 60 words.
  check: words(max=60)
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    pytest.importorskip("torch")
    pytest.importorskip("peft")
    from support.tiny_lm import make

    return make(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.setenv("ADHERE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    write_pairs(tmp_path / "pairs.jsonl", 24)
    (tmp_path / "spec.md").write_text(SPEC)
    return tmp_path


def adhere(*arguments):
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in arguments])
    return int(ended.value.code or 0)


def line(tiny, *more, **changes):
    """A command line; `changes` are options in place of these, or beside them."""
    options = {
        "pairs": "pairs.jsonl", "model": f"weights:{tiny}", "out": "out", "objective": "apo_zero",
        "beta": 0.5, "learning_rate": 0.005, "batch_size": 4, "group_size": 2, "dev_share": 0.2,
        "warmup": 0, "lora_r": 4, "max_steps": 3, **changes,
    }  # fmt: skip
    given = [part for k, v in options.items() for part in (f"--{k.replace('_', '-')}", v)]
    return ["train", *given, *more]


def test_a_training_leaves_a_model_a_card_a_page_and_its_curves(work, tiny, capfd):
    assert adhere(*line(tiny, spec="spec.md", license="mit", eval_every=1)) == 0
    said = capfd.readouterr()
    out = work / "out"
    logs = [json.loads(text) for text in (out / "train.jsonl").read_text().splitlines()]
    train_logs = [log for log in logs if log["split"] == "train"]
    assert [log["step"] for log in train_logs] == [1, 2, 3]
    # standard error has how it went, standard output what came of it
    for log in train_logs:
        assert f"step {log['step']} of 3: loss {log['loss']:.4f}" in said.err
    assert "FutureWarning" not in said.err
    assert "held-out pairs" in said.out
    assert f"{logs[-1]['loss']:.3f}" in said.out
    assert "Report: out/report.html" in said.out
    measure = next(t for t in said.out.splitlines() if t.startswith("Measure it: "))
    words = shlex.split(measure.removeprefix("Measure it: "))
    assert words[:4] == ["adhere", "eval", "--spec", "spec.md"]
    assert words[words.index("--out") - 1] == "weights:out/model"

    assert (out / "curves.svg").read_text().startswith("<svg ")
    page = (out / "report.html").read_text()
    assert "3 steps of apo_zero on" in page
    assert "Short talk, version 7" in page
    card = (out / "model" / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert (front["base_model"], front["license"]) == ("tiny", "mit")
    record = json.loads((out / "train.json").read_text())
    assert record["facts"]["rows_digest"] in card
    from adhere.spec import load_spec

    assert load_spec(work / "spec.md").digest in card
    assert str(work) not in card
    assert (out / "model" / "adapter_model.safetensors").is_file()


def test_what_a_dry_run_says_is_what_the_training_does(work, tiny, capfd):
    assert adhere(*line(tiny, "--dry-run", max_steps=2)) == 0
    told = capfd.readouterr().out
    assert not (work / "out").exists()
    assert adhere(*line(tiny, "--quiet", max_steps=2)) == 0
    assert capfd.readouterr().out == ""
    facts = json.loads((work / "out" / "train.json").read_text())["facts"]
    assert f"{facts['pairs']} to train on, {facts['held_out']} held out" in told
    assert f"{facts['trained_parameters']:,} of {facts['all_parameters']:,}" in told
    assert "2, of 4 pairs in groups of 2" in told


def test_a_finished_training_is_told_again_and_an_other_one_refused(work, tiny, capfd):
    assert adhere(*line(tiny)) == 0
    first = capfd.readouterr().out
    log = (work / "out" / "train.jsonl").read_bytes()
    page = (work / "out" / "report.html").read_bytes()
    (work / "out" / "report.html").unlink()
    assert adhere(*line(tiny)) == 0
    said = capfd.readouterr()
    assert said.out == first
    assert "finished already" in said.err
    assert (work / "out" / "train.jsonl").read_bytes() == log
    assert (work / "out" / "report.html").read_bytes() == page
    assert adhere(*line(tiny, seed=5)) == 2
    assert "seed: the training has 0, this is 5" in capfd.readouterr().err
    assert (work / "out" / "report.html").read_bytes() == page


def test_one_spec_is_named_everywhere_and_for_good(work, tiny, capfd):
    """That of the rows, in card, page, note and record; a spec that comes later changes nothing."""
    lineage = {"spec": "Old talk", "spec_version": "6", "spec_digest": "ab" * 32}
    rows = [json.loads(text) for text in Path("pairs.jsonl").read_text().splitlines()]
    text = "".join(json.dumps({**row, "lineage": lineage}) + "\n" for row in rows)
    Path("pairs.jsonl").write_text(text)
    assert adhere(*line(tiny, recipe="clair", max_steps=1)) == 0
    note = json.loads(Path("out/model/adhere.json").read_text())
    assert note["spec"] == {"name": "Old talk", "version": "6", "digest": "ab" * 32}
    card = Path("out/model/README.md").read_text()
    assert "ab" * 32 in card
    capfd.readouterr()
    assert adhere(*line(tiny, recipe="clair", max_steps=1, spec="spec.md")) == 0
    assert "It was not for spec.md as that is now" in capfd.readouterr().err
    assert Path("out/model/README.md").read_text() == card

    assert adhere(*line(tiny, recipe="clair", max_steps=1, spec="spec.md", out="other")) == 0
    said = "24 of 24 pairs were made for another spec"
    assert said in capfd.readouterr().err
    assert said in Path("other/model/README.md").read_text()
    assert said in Path("other/report.html").read_text()


def test_auto_is_chosen_by_marks_and_says_why_everywhere(work, tiny, capfd):
    rows = [json.loads(text) for text in Path("pairs.jsonl").read_text().splitlines()]
    marks = {"before": {"short": "NO"}, "after": {"short": "YES"}}
    Path("pairs.jsonl").write_text("".join(json.dumps({**r, "marks": marks}) + "\n" for r in rows))
    assert adhere(*line(tiny, objective="auto", recipe="clair")) == 0
    said = capfd.readouterr()
    why = "apo_zero, for the winners are better than what the model writes"
    assert f"objective: {why}" in said.err
    assert why in (work / "out" / "report.html").read_text()
    assert "for the winners are better" in (work / "out" / "model" / "README.md").read_text()
    assert why in json.loads((work / "out" / "train.json").read_text())["facts"]["why"]


def test_auto_without_marks_asks(work, tiny, capfd):
    assert adhere(*line(tiny, objective="auto")) == 2
    said = capfd.readouterr().err
    assert "no marks" in said
    assert "--objective apo_zero" in said


def test_the_file_is_the_command_line(work, tiny, capfd):
    fields = {
        "model": f"weights:{tiny}", "pairs": "pairs.jsonl", "out": "from-file", "preset": "small",
        "objective": "dpo", "batch_size": 4, "group_size": 2, "max_steps": 1, "lora": {"r": 2},
    }  # fmt: skip
    Path("train.yaml").write_text(yaml.safe_dump(fields))
    assert adhere("train", "train.yaml", "--lora-alpha", 6, "--no-shuffle") == 0
    identity = json.loads(Path("from-file/train.json").read_text())["identity"]
    assert identity["lora"]["r"] == 2
    assert identity["lora"]["alpha"] == 6
    assert identity["shuffle"] is False
    assert identity["learning_rate"] == PRESETS["small"]["learning_rate"]
    assert "| preset | small |" in Path("from-file/model/README.md").read_text()


def test_every_field_of_the_plan_is_an_option(work, tiny):
    """An option that is forgotten in the table of fields would do nothing, silently."""
    options = set(train.__annotations__) - {"return"}
    fields = set(TrainPlan.model_fields) - {"lora"} | {f"lora_{k}" for k in LoraPlan.model_fields}
    assert fields <= options


SET = {
    "recipe": "clair", "objective": "dpo", "beta": 0.3, "form": "paper", "learning_rate": 1e-5,
    "schedule": "cosine", "warmup": 0.2, "weight_decay": 0.01, "max_grad_norm": 2.0, "epochs": 3.0,
    "max_steps": 9, "batch_size": 6, "group_size": 3, "seed": 4, "tune": "full", "dtype": "float32",
    "logit_chunk": 64, "max_length": 300, "on_bad_row": "skip", "dev_share": 0.3, "split_seed": 3,
    "eval_every": 2, "save_every": 7, "keep": 5, "spec": "spec.md", "reference_folder": "refs",
    "lora_r": 3, "lora_alpha": 5, "lora_dropout": 0.1,
    "template_kwargs": {"enable_thinking": False},
}  # fmt: skip
FLAGS = {
    "shuffle": "--no-shuffle", "by_length": "--no-by-length", "share_prompt": "--no-share-prompt",
    "checkpoint_layers": "--checkpoint-layers", "cut_prompt": "--cut-prompt",
}  # fmt: skip


def test_every_option_arrives(work, tiny, monkeypatch):
    from adhere.cli import watch_training

    arrived = []
    monkeypatch.setattr(watch_training, "show_outlook", arrived.append)
    given = [
        part
        for k, v in SET.items()
        for part in (f"--{k.replace('_', '-')}", json.dumps(v) if isinstance(v, dict) else v)
    ]
    targets = ("--lora-targets", "q_proj", "--lora-targets", "v_proj")
    base = ("train", "--pairs", "p.jsonl", "--model", "weights:m", "--out", "o", "--dry-run")
    assert adhere(*base, *given, *targets, *FLAGS.values()) == 0
    (plan,) = arrived
    found = plan.model_dump(mode="json")
    found |= {f"lora_{k}": v for k, v in found.pop("lora").items()}
    for name, value in SET.items():
        assert found[name] == value, name
    assert found["lora_targets"] == ["q_proj", "v_proj"]
    default = TrainPlan(model="weights:m", pairs="p", out="o")
    for name in FLAGS:
        assert found[name] is not getattr(default, name), name
    missing = set(found) - set(SET) - set(FLAGS) - {"lora_targets", "model", "pairs", "out"}
    assert missing == set()
    assert adhere(*base, "--lora-targets", "all-linear") == 0
    assert arrived[-1].lora.targets == "all-linear"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pairs": "none.jsonl"}, ("none.jsonl",)),
        ({"objective": "ppo"}, ("objective", "'ppo'", "apo_zero")),
        ({"preset": "huge"}, ("preset", "paper, small")),
        ({"model": "openai:gpt"}, ("openai:gpt", "weights:NAME")),
        ({"spec": "nothing.md"}, ("nothing.md",)),
        ({"tune": "qlora"}, ("qlora", "GPU")),
        ({"lora_targets": "nowhere"}, ("lora.targets",)),
        ({"beta": "much"}, ("beta",)),
    ],
)
def test_mistakes_end_with_2_and_leave_nothing_behind(work, tiny, capfd, changes, words):
    assert adhere(*line(tiny, **changes)) == 2
    said = capfd.readouterr().err
    for word in words:
        assert word in said
    assert "Traceback" not in said
    assert "pairs" not in changes or not (work / "out").exists()
    assert not (work / "out" / "report.html").exists()


def test_a_start_without_torch_says_what_to_install(work):
    """Nothing of the face itself needs torch; what does is asked for by name."""
    probe = (
        "import sys; sys.modules['torch'] = None\n"
        "import importlib.util as u, adhere.models.open_weights.loading as l\n"
        "l.find_spec = lambda name: None if name == 'torch' else u.find_spec(name)\n"
        "from adhere.cli.main import main\n"
        "main(['train', '--pairs', 'pairs.jsonl', '--model', 'weights:m', '--out', 'o', "
        "'--objective', 'dpo'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe],
        cwd=work,
        capture_output=True,
        text=True,
        env=dict(os.environ),
    )
    assert done.returncode == 2
    assert "needs torch" in done.stderr
    assert "pip install" in done.stderr
    assert "Traceback" not in done.stderr


CPUS = """
compute_environment: LOCAL_MACHINE
distributed_type: FSDP
num_machines: 1
num_processes: 2
main_process_port: {port}
mixed_precision: "no"
use_cpu: true
fsdp_config:
  fsdp_version: 2
"""


def test_two_processes_tell_and_write_once(work, tiny, monkeypatch, capfd):
    pytest.importorskip("accelerate")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        Path("cpus.yaml").write_text(CPUS.format(port=found.getsockname()[1]))
    command = [str(a) for a in line(tiny, accelerate_config="cpus.yaml", recipe="clair")]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(sys, "argv", ["adhere", *command])  # which it starts again
    code = adhere(*command)
    done = capfd.readouterr()
    assert code == 0, done.err
    assert done.err.count("step 3 of 3: ") == 1
    assert done.out.count("Report: out/report.html") == 1
    assert json.loads((work / "out" / "train.json").read_text())["facts"]["processes"] == 2
    assert (work / "out" / "model" / "adapter_model.safetensors").exists()
    assert "2 processes" in (work / "out" / "report.html").read_text()
    assert (work / "out" / "model" / "README.md").exists()


def test_processes_are_started_from_the_command_line_only(work, tiny, capfd):
    assert adhere(*line(tiny, accelerate_config="cpus.yaml")) == 2
    assert "--accelerate-config" in capfd.readouterr().err


def test_help_imports_neither_torch_nor_pydantic():
    probe = (
        "import sys\nfrom adhere.cli.main import main\n"
        "try:\n main(['train', '--help'])\nexcept SystemExit:\n pass\n"
        "sys.stderr.write(str({'torch', 'numpy', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    assert done.stderr == "set()"
    assert "apo_down" in done.stdout


def test_a_stopped_training_leaves_its_curves(work, tiny, capfd):
    """A rate that blows the numbers up stops the training; what was logged is drawn."""
    assert adhere(*line(tiny, learning_rate=1e30, max_steps=8)) == 4
    said = capfd.readouterr().err
    assert "not finite" in said
    assert "Curves so far: out/curves.svg" in said
    assert (work / "out" / "curves.svg").read_text().startswith("<svg ")
    assert not (work / "out" / "report.html").exists()


def test_rows_with_one_answer_are_learned_under_their_recipe(work, tiny, capfd):
    rows = [
        {
            "prompt": f"Question {at}, of {'x' * at}?",
            "completion": f"<think>\nHm.\n</think>\n\nYes {at}.",
        }
        for at in range(24)
    ]
    (work / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = [
        "train", "--recipe", "deliberative", "--rows", "rows.jsonl", "--model", f"weights:{tiny}",
        "--out", "out", "--max-steps", "2", "--batch-size", "4",
    ]  # fmt: skip
    assert adhere(*given, "--dry-run") == 0
    assert "rows" in capfd.readouterr().out
    assert adhere(*given) == 0
    said = capfd.readouterr()
    assert "step 1 of 2: loss" in said.err and "nats a token" in said.err
    assert "2 steps on" in said.err and " rows" in said.err and "margin" not in said.err
    assert "perplexity of a token" in said.out
    card = (work / "out" / "model" / "README.md").read_text()
    assert "Deliberative alignment" in card and "| preset | deliberative |" in card
    assert adhere(*given, "--template-kwargs", "[1]") == 2
    assert "--template-kwargs: found '[1]'" in capfd.readouterr().err


def test_a_teacher_makes_the_rows_first_and_the_student_learns_them(work, tiny, capfd, monkeypatch):
    from support import distilling
    from support.clair import by_name
    from support.fake_server import FakeServer

    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    prompts = [{"id": f"p{i}", "prompt": f"Question {i}?", "category": "web"} for i in range(24)]
    (work / "lessons.jsonl").write_text("".join(json.dumps(p) + "\n" for p in prompts))
    (work / "rules.md").write_text(distilling.SPEC)
    (work / "lessons.yaml").write_text("form: parts\n")
    refuses = []

    def teacher(body):
        return "No." if refuses else distilling.good(body)

    with FakeServer(by_name(teacher=teacher)) as server:
        given = [
            "train", "--recipe", "deliberative", "--teacher", "openai:teacher",
            "--teacher-base-url", server.url, "--prompts", "lessons.jsonl", "--spec", "rules.md",
            "--distill", "lessons.yaml",
            "--model", f"weights:{tiny}", "--out", "out", "--max-steps", "2", "--batch-size", "4",
        ]  # fmt: skip
        assert adhere(*given, "--dry-run") == 0
        assert server.bodies() == [] and not (work / "out").exists()
        capfd.readouterr()
        assert adhere(*given) == 0
        said = capfd.readouterr()
        assert "24 of 24 rows: 24 kept" in said.err and "step 1 of 2: loss" in said.err
        asked = len(server.bodies())
        assert asked == 24
        # The same command again asks nobody and trains nothing.
        assert adhere(*given) == 0
        assert len(server.bodies()) == asked
        capfd.readouterr()
        card = (work / "out" / "model" / "README.md").read_text()
        assert "Deliberative alignment" in card
        rows = (work / "out" / "rows" / "rows.jsonl").read_text().splitlines()
        assert (
            len(rows) == 24
            and "Never state a dose" not in json.loads(rows[0])["prompt"][0]["content"]
        )
        # Another plan for the teacher is another run; nobody is asked to find that out.
        (work / "lessons.yaml").write_text("form: parts\ntries: 3\n")
        assert adhere(*given) == 2
        assert "tries" in capfd.readouterr().err
        assert len(server.bodies()) == asked
        (work / "lessons.yaml").write_text("form: parts\n")
        # Nothing that passes is nothing to learn.
        refuses.append(True)
        assert adhere(*given[:-6], "--out", "none") == 2
        assert "all rejected" in capfd.readouterr().err
        assert not (work / "none" / "model").exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--recipe", "clair"], "--teacher: found with another recipe"),
        (["--recipe", "deliberative", "--rows", "rows.jsonl"], "--teacher: found --rows beside it"),
        (["--recipe", "deliberative", "--generations", "4"], "--generations: found with another"),
        (["--recipe", "deliberative", "--reward", "guard"], "--reward: found with another recipe"),
    ],
)
def test_what_does_not_go_with_a_teacher_is_refused(work, tiny, capfd, more, words):
    (work / "lessons.jsonl").write_text('{"prompt": "Question 0?"}\n')
    (work / "rules.md").write_text(
        "# A\n## Behavioral\n- [short] Be short.\n  check: words(max=9)\n"
    )
    given = [
        "train", "--teacher", "openai:teacher", "--prompts", "lessons.jsonl", "--spec", "rules.md",
        "--model", f"weights:{tiny}", "--out", "out",
    ]  # fmt: skip
    assert adhere(*given, *more) == 2
    assert words in " ".join(capfd.readouterr().err.split())
    assert not (work / "out").exists()


def write_lessons(work, n=24):
    from support import distilling

    rows = [{"id": f"p{i}", "prompt": f"Question {i}?"} for i in range(n)]
    (work / "lessons.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (work / "rules.md").write_text(distilling.SPEC)
    (work / "lessons.yaml").write_text("form: parts\nlimits: {attempts: 1}\n")


def test_rows_are_settled_once_the_training_has_begun(work, tiny, capfd, monkeypatch):
    """A call that failed before is not tried again: with its row it were another training."""
    from support import distilling
    from support.clair import by_name
    from support.fake_server import FakeServer, Fault

    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    write_lessons(work)
    broken = [True]

    def teacher(body):
        if broken and distilling.number(body) == 3:
            return Fault(500)
        return distilling.good(body)

    with FakeServer(by_name(teacher=teacher)) as server:
        # All of it in a file, but for the teacher.
        (work / "train.yaml").write_text(
            f"recipe: deliberative\nmodel: weights:{tiny}\nout: out\nspec: rules.md\n"
            "max_steps: 2\nbatch_size: 4\n"
        )
        given = [
            "train", "train.yaml", "--teacher", "openai:teacher", "--teacher-base-url", server.url,
            "--prompts", "lessons.jsonl", "--distill", "lessons.yaml",
        ]  # fmt: skip
        assert adhere(*given) == 0
        assert len((work / "out/rows/rows.jsonl").read_text().splitlines()) == 23
        asked = len(server.bodies())
        broken.clear()
        assert adhere(*given) == 0
        assert len(server.bodies()) == asked
    assert "Assistant" in (work / "out" / "model" / "README.md").read_text()


def test_what_keeps_the_student_from_being_trained_is_found_before_the_teacher_is_paid(
    work, tiny, capfd, monkeypatch
):
    from support import distilling
    from support.clair import by_name
    from support.fake_server import FakeServer

    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    write_lessons(work)
    (work / "taken").mkdir()
    (work / "taken" / "notes.txt").write_text("mine")
    with FakeServer(by_name(teacher=distilling.good)) as server:
        given = [
            "train", "--recipe", "deliberative", "--teacher", "openai:teacher",
            "--teacher-base-url", server.url, "--prompts", "lessons.jsonl", "--spec", "rules.md",
            "--distill", "lessons.yaml",
        ]  # fmt: skip
        for more, words in (
            (["--model", f"weights:{tiny}", "--out", "taken"], "holds other files"),
            (["--model", "weights:nosuch", "--out", "out"], "nosuch"),
        ):
            assert adhere(*given, *more) == 2
            assert words in capfd.readouterr().err
        assert server.bodies() == []
    assert [entry.name for entry in (work / "taken").iterdir()] == ["notes.txt"]
    assert not (work / "out").exists()


def test_grpo_has_no_teacher(work, tiny, capfd):
    given = ["train", "--recipe", "grpo", "--teacher", "openai:x", "--model", f"weights:{tiny}"]
    assert adhere(*given, "--out", "out") == 2
    assert "--teacher: found with recipe grpo" in capfd.readouterr().err
