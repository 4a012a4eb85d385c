"""The trainer on rows with one answer to learn: its loss, what it leaves, and what is sampled then."""

from __future__ import annotations

import asyncio
import json
import math
from importlib.util import find_spec

import pytest

from adhere.chat import Sampling, user
from adhere.errors import BadInput
from support.tiny_lm import TEMPLATE, make
from support.tiny_pairs import SUBJECTS, settings, write_pairs

pytestmark = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("torch", "peft")),
    reason="needs torch and peft (pip install 'adhere[train]')",
)

OPENS = TEMPLATE.replace("[assistant]{% endif %}", "[assistant]<think>\n{% endif %}")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    from adhere.models.open_weights import loading

    monkeypatch.setenv("ADHERE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(loading, "default_threads", lambda: 1)


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    at = tmp_path_factory.mktemp("material")
    return make(at / "model"), write_answers(at / "rows.jsonl")


def write_answers(path, n=20):
    lines = []
    for at in range(n):
        subject = SUBJECTS[at % len(SUBJECTS)]
        thought = f"The rule says: {'be dry, ' * (at % 3)}of {subject}."
        text = f"{subject} is dry{', yes' * (at % 4)}."
        if at % 5:
            text = f"<think>\n{thought}\n</think>\n\n{text}"
        lines.append({
            "id": f"row-{at}",
            "prompt": [{"role": "user", "content": f"tell me of {subject}, {subject}?"}],
            "completion": [{"role": "assistant", "content": text}],
            "lineage": {"spec": "Dry talk", "spec_version": "2", "spec_digest": "ab" * 32},
        })  # fmt: skip
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture
def plan(tmp_path, material):
    def of(**changes):
        from adhere.training.plan import TrainPlan

        at = changes.get("out", tmp_path / "out")
        fields = settings(*material, at, objective="auto", recipe="deliberative")
        return TrainPlan(**{**fields, **changes})

    return of


def run(plan, progress=None):
    from adhere.training.trainer import train

    return train(plan, progress=progress)


def steps_of(trained):
    return [log for log in trained.logs if log.split == "train"]


def test_the_loss_is_that_of_transformers_over_the_answers_tokens(plan, material):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    trained = run(plan(max_steps=1, batch_size=6, dev_share=0.0, shuffle=False, by_length=False))
    model = AutoModelForCausalLM.from_pretrained(str(material[0]), dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(str(material[0]))
    total, tokens = 0.0, 0
    for line in material[1].read_text().splitlines()[:6]:
        row = json.loads(line)
        how = {"add_generation_prompt": True, "return_dict": True}
        asked = tokenizer.apply_chat_template(row["prompt"], **how)["input_ids"]
        whole = tokenizer.apply_chat_template(row["prompt"] + row["completion"], return_dict=True)
        labels = [-100] * len(asked) + whole["input_ids"][len(asked) :]
        with torch.no_grad():
            ids = torch.tensor([whole["input_ids"]])
            loss = model(input_ids=ids, labels=torch.tensor([labels])).loss
        total += float(loss) * (len(labels) - len(asked))
        tokens += len(labels) - len(asked)
    [log] = steps_of(trained)
    assert log.loss == pytest.approx(total / tokens, rel=1e-5)
    assert log.pairs == 6 and log.tokens > tokens
    assert trained.objective == "sft" and "one answer" in trained.why


@pytest.mark.parametrize("tune", ["lora", "full"])
def test_groups_of_any_size_and_padding_make_the_same_steps(tmp_path, plan, tune):
    found = {}
    for size in (1, 3, 6):
        trained = run(
            plan(
                out=tmp_path / f"out-{size}", group_size=size, batch_size=6, dev_share=0.0,
                shuffle=False, by_length=False, tune=tune, learning_rate=2e-3,
            )
        )  # fmt: skip
        found[size] = steps_of(trained)
    for logs in found.values():
        for log, other in zip(logs, found[6], strict=True):
            assert log.loss == pytest.approx(other.loss, abs=1e-5)
            assert log.gradient_norm == pytest.approx(other.gradient_norm, rel=1e-4)


def test_lines_have_no_numbers_of_pairs_and_no_reference_is_computed(plan, tmp_path):
    trained = run(plan(epochs=2.0))
    lines = [
        json.loads(text) for text in (tmp_path / "out" / "train.jsonl").read_text().splitlines()
    ]
    for line in lines:
        assert set(line) == {
            "schema_version", "step", "split", "epoch", "loss", "learning_rate", "gradient_norm",
            "pairs", "tokens", "seconds",
        }  # fmt: skip
    assert not (tmp_path / "references").exists()
    assert all(math.isnan(log.margin) and math.isnan(log.accuracy) for log in trained.logs)
    assert trained.after.loss < trained.before.loss
    assert (trained.spec.name, trained.spec.version) == ("Dry talk", "2")


def test_a_training_that_was_stopped_goes_on_to_the_same_losses(plan, tmp_path, monkeypatch):
    from adhere.training.stepping import Stepper

    whole = run(plan(out=tmp_path / "whole", lora={"r": 4, "alpha": 8, "dropout": 0.1}))
    real = Stepper.train

    def dies(self, step, *arguments):
        if step == 4:
            raise KeyboardInterrupt
        return real(self, step, *arguments)

    half = plan(out=tmp_path / "half", lora={"r": 4, "alpha": 8, "dropout": 0.1})
    monkeypatch.setattr(Stepper, "train", dies)
    with pytest.raises(KeyboardInterrupt):
        run(half)
    monkeypatch.setattr(Stepper, "train", real)
    again = run(half)
    assert again.resumed_at == 2
    assert [log.loss for log in again.logs] == pytest.approx([log.loss for log in whole.logs])


def test_a_record_of_before_template_kwargs_is_the_same_training_but_not_with_some(plan, tmp_path):
    done = run(plan(max_steps=1))
    record = json.loads((tmp_path / "out" / "train.json").read_text())
    assert "template_kwargs" not in record["identity"], "as in records from before it"
    assert run(plan(max_steps=1)).created == done.created, "told again"
    with pytest.raises(BadInput, match="template_kwargs"):
        run(plan(max_steps=1, template_kwargs={"enable_thinking": False}))


def test_a_finished_training_with_names_is_not_the_one_without(plan):
    run(plan(max_steps=1, template_kwargs={"enable_thinking": False}))
    with pytest.raises(BadInput, match="template_kwargs"):
        run(plan(max_steps=1))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"objective": "apo_zero"}, "one answer to learn; expected preference pairs"),
        ({"recipe": "clair"}, "expected the preference pairs of recipe clair"),
    ],
)
def test_rows_that_a_plan_cannot_use_leave_nothing_behind(plan, tmp_path, changes, words):
    with pytest.raises(BadInput, match=words):
        run(plan(**changes))
    assert not (tmp_path / "out").exists()


def test_the_recipe_refuses_pairs(plan, tmp_path):
    with pytest.raises(BadInput, match="found preference pairs"):
        run(plan(pairs=write_pairs(tmp_path / "pairs.jsonl")))


def test_the_recipes_errors_speak_of_rows_with_one_answer(plan, tmp_path):
    from adhere.training.plan_file import read_train_plan

    empty, prompts = tmp_path / "empty.jsonl", tmp_path / "prompts.jsonl"
    empty.write_text("")
    prompts.write_text('{"prompt": "Hi"}\n')
    for file, words in (
        (empty, "found no rows; expected rows with one answer to learn"),
        (prompts, "prompt and completion, or messages"),
        (tmp_path / "none.jsonl", "none.jsonl"),
    ):
        with pytest.raises(BadInput, match=words) as caught:
            run(plan(pairs=file, recipe="deliberative"))
        assert "chosen" not in str(caught.value)
    with pytest.raises(BadInput, match=r"found no 'rows'; expected --rows FILE\.jsonl"):
        read_train_plan(None, {"recipe": "deliberative", "model": "weights:x", "out": tmp_path})


@pytest.mark.parametrize("template", [TEMPLATE, OPENS], ids=["plain", "opens a thought"])
def test_what_was_learned_by_heart_is_what_is_sampled(plan, tmp_path, template):
    """Token by token, tags and the end of the turn included."""
    from adhere.models.connect import ModelConfig, connect
    from adhere.models.limiter import Limiter

    folder = make(tmp_path / "model", template=template)
    text = "<think>\nBe dry.\n</think>\n\nno the yes."
    row = {"prompt": "Hi", "completion": text}
    rows = tmp_path / "one.jsonl"
    rows.write_text(json.dumps(row) + "\n")
    trained = run(
        plan(
            model=f"weights:{folder}", pairs=rows, tune="full", epochs=100, dev_share=0.0,
            batch_size=2, learning_rate=2e-2, save_every=1000, recipe="pairs",
        )
    )  # fmt: skip
    assert steps_of(trained)[-1].loss < 0.01

    async def sampled():
        config = ModelConfig(model=f"weights:{trained.model}", dtype="float32")
        async with connect(config, Limiter(1)) as model:
            [found] = await model.sample(
                [user("Hi")], Sampling(temperature=0.0, max_tokens=80, seed=1)
            )
            return found

    found = asyncio.run(sampled())
    expected = text if template == TEMPLATE else text.removeprefix("<think>\n")
    assert (found.text, found.finish_reason) == (expected, "stop")


def test_the_card_the_page_and_the_curves_speak_of_answers(plan, tmp_path):
    from adhere.training.account import Account, findings
    from adhere.training.finishing import write_files

    trained = run(plan(epochs=2.0, template_kwargs={"enable_thinking": True}))
    account = Account.of(trained, preset="deliberative")
    write_files(account, trained.folder, trained.model)
    card = (trained.model / "README.md").read_text()
    page = (trained.folder / "report.html").read_text()
    for words in ("Deliberative alignment", "supervised-fine-tuning", "held-out rows",
                  "perplexity of a token", "enable", "Dry talk"):  # fmt: skip
        assert words in card, words
    assert "nats a token" in page and "held-out rows" in page
    for words in ("nan", "reward", "beta", " pairs "):
        assert words not in card, words
        body = page[page.index("<main>") : page.index("All settings")]
        assert words not in body, words
    assert "Rewards and margin" not in (trained.folder / "curves.svg").read_text()
    assert any("rows were held out" in text for text in findings(account))


def test_a_dry_run_counts_what_the_training_has(plan):
    from adhere.cli.watch_training import outlook_rows
    from adhere.training.dry_run import look_ahead

    asked = plan(epochs=3.0)
    found = look_ahead(asked)
    trained = run(asked)
    assert found.alone and found.steps == trained.steps and found.pairs == trained.pairs
    an_epoch = steps_of(trained)[: trained.steps // 3]
    assert found.read_tokens == found.plain_tokens
    # The last token of an answer is predicted and not read.
    assert found.read_tokens - found.pairs == sum(log.tokens for log in an_epoch)
    told = dict(outlook_rows(asked, found))
    assert told["objective"].startswith("sft, rate") and "longest row" in told
    assert "both sides" not in told["tokens of a pass"]


def test_the_recipe_brings_its_preset():
    from adhere.training.plan_file import read_train_plan

    given = {"recipe": "deliberative", "pairs": "r.jsonl", "model": "weights:m", "out": "o"}
    found, used = read_train_plan(None, given)
    assert used == "deliberative"
    assert (found.lora.r, found.lora.alpha, found.lora.dropout) == (32, 64, 0.05)
    assert (found.epochs, found.learning_rate, found.batch_size) == (3.0, 1.41e-5, 16)
    assert (found.max_length, found.objective, found.lora.targets) == (2048, "sft", "all-linear")
    part, _ = read_train_plan(None, {**given, "lora": {"r": 8}, "epochs": 1.0})
    assert (part.lora.r, part.lora.alpha, part.epochs) == (8, 64, 1.0)
    small, used = read_train_plan(None, {**given, "preset": "small"})
    assert (used, small.learning_rate, small.lora.r) == ("small", 1e-3, 16)


def test_a_file_may_call_them_rows(tmp_path):
    from adhere.training.plan_file import read_train_plan

    file = tmp_path / "train.yaml"
    file.write_text("model: weights:m\nrows: a.jsonl\nout: o\n")
    assert read_train_plan(file, {})[0].pairs == tmp_path / "a.jsonl"
    assert str(read_train_plan(file, {"pairs": "b.jsonl"})[0].pairs) == "b.jsonl"
    file.write_text("model: weights:m\nrows: a.jsonl\npairs: b.jsonl\nout: o\n")
    with pytest.raises(BadInput, match="both rows and pairs"):
        read_train_plan(file, {})


# ---------------------------------------------------------------- on from an adapter


def tensors_of(folder):
    from safetensors.torch import load_file

    return load_file(folder / "adapter_model.safetensors")


def test_an_adapter_is_trained_on_and_the_new_one_says_from_which(plan, tmp_path):
    first = run(plan(out=tmp_path / "first", max_steps=3))
    again = f"weights:{first.model}"
    second = run(plan(model=again, out=tmp_path / "second", max_steps=3, seed=1))
    begun, moved = tensors_of(first.model), tensors_of(second.model)
    assert begun.keys() == moved.keys()
    assert any(float((moved[name] - begun[name]).abs().max()) > 1e-5 for name in begun)
    assert steps_of(second)[0].loss < steps_of(first)[0].loss
    assert second.base_digest == first.base_digest
    note = json.loads((second.model / "adhere.json").read_text())
    assert note["base_digest"] == first.base_digest
    assert len(note["training"]["began_as"]) == 64
    assert "lora" not in note["training"]
    # A finished one is told, and another adapter is another training.
    assert run(plan(model=again, out=tmp_path / "second", max_steps=3, seed=1)).steps == 3
    third = run(plan(out=tmp_path / "third", max_steps=2))
    with pytest.raises(BadInput, match="adapter: the training has"):
        run(plan(model=f"weights:{third.model}", out=tmp_path / "second", max_steps=3, seed=1))


def test_an_adapter_trained_on_in_two_starts_is_the_one_trained_at_once(plan, tmp_path):
    first = run(plan(out=tmp_path / "first", max_steps=2))
    again = f"weights:{first.model}"

    class Enough(Exception):
        pass

    from adhere.training.steps import Silent

    class Killer(Silent):
        def step(self, log):
            if log.step == 3:
                raise Enough

    whole = run(plan(model=again, out=tmp_path / "whole", max_steps=4, save_every=2))
    with pytest.raises(Enough):
        run(plan(model=again, out=tmp_path / "cut", max_steps=4, save_every=2), progress=Killer())
    cut = run(plan(model=again, out=tmp_path / "cut", max_steps=4, save_every=2))
    assert cut.resumed_at == 2
    one, other = tensors_of(whole.model), tensors_of(cut.model)
    assert all(bool((one[name] == other[name]).all()) for name in one)


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"objective": "dpo"}, "found an adapter and the objective dpo"), ({"tune": "full"}, "full")],
)
def test_an_adapter_is_trained_on_by_sft_alone(plan, tmp_path, material, changes, said):
    first = run(plan(out=tmp_path / "first", max_steps=1))
    fields = {"model": f"weights:{first.model}", "out": tmp_path / "second", **changes}
    if "objective" in changes:
        write_pairs(tmp_path / "pairs.jsonl")
        fields |= {"pairs": tmp_path / "pairs.jsonl", "recipe": "pairs"}
    with pytest.raises(BadInput, match=said):
        run(plan(**fields))
