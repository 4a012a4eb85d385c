"""The plans of deliberative alignment: each loads, says what is published, and its page has it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from adhere.experiments.plan_file import read_plan
from adhere.experiments.side_by_side import is_side_by_side
from adhere.judging import ModelJudge
from adhere.methods import load_method
from adhere.prompting import Prompts
from adhere.spec import load_spec
from adhere.suites.safety_specs import attack_spec
from adhere.training.grpo.plan_file import read_grpo_plan
from adhere.training.grpo.rewards import rewarded_spec
from adhere.training.plan_file import read_train_plan
from adhere.training.recipes.deliberative.plan_file import read_distill_plan

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "configs/papers/deliberative"
PAGE = (ROOT / "docs/papers/deliberative.md").read_text("utf-8")
PLANS = sorted(FOLDER.glob("*.yaml"))


def test_the_page_names_each_plan_and_each_plan_its_source():
    assert len(PLANS) == 6
    for plan in PLANS:
        assert f"`{plan.stem}`" in PAGE
        assert "arXiv 2604.09665" in plan.read_text("utf-8")
    assert "deliberative.md" in (ROOT / "docs/papers/README.md").read_text("utf-8")


def test_the_students_settings_are_the_published_ones():
    plan, preset = read_train_plan(FOLDER / "train-sft.yaml", {})
    assert preset == "deliberative"
    assert (plan.learning_rate, plan.batch_size, plan.epochs, plan.max_length) == (
        1.41e-5, 16, 3.0, 2048,
    )  # fmt: skip
    assert (plan.lora.r, plan.lora.alpha, plan.lora.dropout) == (32, 64, 0.05)
    assert plan.objective == "sft"


def test_the_second_stages_settings_are_the_published_ones():
    plan, _ = read_grpo_plan(FOLDER / "train-grpo.yaml", {})
    assert (plan.reward, plan.reward_sees_thought, plan.beta) == ("guard", True, 0.0)
    assert (plan.learning_rate, plan.batch_size, plan.max_tokens) == (1.41e-5, 256, 2048)
    assert plan.judge is not None and plan.judge.mode == "guard"
    assert plan.judge.guard_prompt == "own"
    # Its own categories can stand for one rule, which is that of the suites of attacks.
    [rule] = rewarded_spec(plan, load_spec(FOLDER / "harm.md")).rules
    [suites] = attack_spec("harm").rules
    assert plan.spec == FOLDER / "harm.md"
    assert (rule.id, rule.text, rule.category) == (suites.id, suites.text, suites.category)
    assert not ModelJudge(plan.judge, Prompts()).undecided(load_spec(plan.spec))


def test_the_teacher_is_asked_and_filtered_as_published():
    plan = read_distill_plan(FOLDER / "data-distill.yaml", {})
    assert (plan.compose, plan.filters, plan.guard_prompt) == ("relevant", ("guard",), "own")
    assert (plan.sampling.temperature, plan.sampling.max_tokens) == (0.7, 2048)
    rules = load_spec(FOLDER / "spec.md")
    assert len({rule.category for rule in rules.safety}) == 8
    assert all(rule.summary for rule in rules.rules)


def test_the_adaptive_attack_is_the_published_one():
    from adhere.experiments.pair_attack import read_attack_plan

    plan = read_attack_plan(FOLDER / "attack-pair.yaml", {})
    assert plan.depth == 8
    assert (plan.method.method, plan.method.options["layer"]) == ("attributed_best_of_n", 12)
    assert load_method(plan.method.method, plan.method.options).config.n == 8
    assert plan.judge is not None and plan.judge.guard_prompt == "own"
    assert "88, 68, 66; Qwen-7B 68, 18, 18" in PAGE


@pytest.mark.parametrize("name", ["eval-student", "eval-instruct"])
def test_a_student_is_measured_on_attacks_over_refusal_and_utility(name):
    plan = read_plan(FOLDER / f"{name}.yaml", {})
    assert is_side_by_side(plan)
    assert [suite.suite for suite in plan.suites] == [
        "strongreject", "dan", "wildjailbreak", "xstest", "gsm8k", "mmlu",
    ]  # fmt: skip
    assert (plan.sampling.temperature, plan.sampling.max_tokens) == (0.7, 2048)
    assert plan.judge is not None and plan.judge.guard_prompt == "own"
    for item in plan.methods:
        method = load_method(item.method, item.options)
        if item.method == "attributed_best_of_n":
            assert method.config.n == 8


def test_the_published_reductions_stand_in_the_plan_and_on_the_page():
    text = (FOLDER / "eval-student.yaml").read_text("utf-8")
    for figure in ("28.2 / 31.3 / 35.4", "19.1 / 17.0 / 31.9"):
        assert figure in text and figure in PAGE


def test_paths_of_suites_are_from_the_plans_folder(tmp_path):
    shutil.copytree(FOLDER, tmp_path / "plans")
    data = tmp_path / "plans/data/gsm8k"
    data.mkdir(parents=True)
    (data / "test.jsonl").write_text(json.dumps({"question": "How many?", "answer": "#### 1"}))
    plan = read_plan(tmp_path / "plans/eval-student.yaml", {})
    where = {item.suite: item.options.get("path") for item in plan.suites}
    assert Path(where["gsm8k"]).is_dir()


def test_every_path_of_a_suite_is_anchored(tmp_path):
    (tmp_path / "plan.yaml").write_text(
        "suites:\n  - {suite: dan, path: d.csv, questions: q.csv}\nmodels: [openai:x]\n"
        "methods: [raw]\nout: o\n"
    )
    [suite] = read_plan(tmp_path / "plan.yaml", {}).suites
    assert suite.options == {"path": tmp_path / "d.csv", "questions": tmp_path / "q.csv"}
