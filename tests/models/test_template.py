"""Rendering a model's chat template as Hugging Face would."""

from __future__ import annotations

import json
import re
from datetime import datetime

import pytest

from adhere.chat import Message, system, user
from adhere.errors import BadInput
from adhere.models.template import ChatTemplate

HELLO = [user("hi")]
LOOP = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"


def test_the_functions_that_templates_expect():
    assert ChatTemplate("{{ strftime_now('%Y') }}").render(HELLO) == f"{datetime.now():%Y}"
    data = '{{ {"b": "é<", "a": 1} | tojson(indent=2) }}'
    assert ChatTemplate(data).render(HELLO) == '{\n  "b": "é<",\n  "a": 1\n}'
    with pytest.raises(BadInput, match="roles must alternate"):
        ChatTemplate("{{ raise_exception('roles must alternate') }}").render(HELLO)


def test_generation_tags_mean_nothing_in_a_prompt_and_keep_their_scope():
    source = (
        "{% set x = 'out' %}"
        "{% generation %}{% set x = 'in' %}{{ messages[0].content }}{{ x }}{% endgeneration %}"
        "{{ x }}"
    )
    assert ChatTemplate(source).render(HELLO) == "hiinout"


def test_loops_can_be_left_and_blocks_leave_no_blank_lines():
    source = (
        "{% for m in messages %}\n"
        "    {% if m.role == 'system' %}\n        {% continue %}\n    {% endif %}\n"
        "{{ m.content }}\n"
        "    {% break %}\n"
        "{% endfor %}\n"
    )
    talk = [system("be kind"), user("one"), user("two")]
    assert ChatTemplate(source).render(talk) == "one\n"


def test_what_is_not_given_is_none_and_not_undefined():
    source = (
        "{% if tools is not none %}tools{% endif %}{% if documents is not none %}docs{% endif %}x"
    )
    assert ChatTemplate(source).render(HELLO) == "x"


def test_template_kwargs_reach_the_template_but_do_not_replace_the_conversation():
    template = ChatTemplate(LOOP + "{% if enable_thinking is false %}OFF{% endif %}")
    assert template.render(HELLO) == "[user]hi"
    assert template.render(HELLO, {"enable_thinking": False, "messages": []}) == "[user]hiOFF"
    closing = ChatTemplate("{% if add_generation_prompt %}go{% endif %}")
    assert closing.render(HELLO) == "go"
    assert closing.render(HELLO, generation_prompt=False) == ""


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].content + 1 }}",
        "{{ 1 / 0 }}",
        "{{ {}['no'].such }}",
    ],
)
def test_whatever_a_template_does_wrong_is_its_fault(source):
    with pytest.raises(BadInput, match=r"t\.jinja: the chat template failed"):
        ChatTemplate(source, name="t.jinja").render(HELLO)


def test_a_template_that_is_no_jinja_is_refused_at_once():
    with pytest.raises(BadInput, match="does not parse"):
        ChatTemplate("{% for %}")


# ---------------------------------------------------------------- files


def write(folder, **files):
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / name.replace("__", ".")).write_text(text)
    return folder


CONFIG = {
    "bos_token": {"content": "<s>", "special": True},
    "eos_token": "</s>",
    "add_bos_token": True,
    "chat_template": "{{ bos_token }}" + LOOP + "{{ eos_token }}",
}


def test_a_tokenizer_configuration_gives_template_and_tokens(tmp_path):
    template = ChatTemplate.read(write(tmp_path, a__json=CONFIG) / "a.json")
    assert template.render(HELLO) == "<s>[user]hi</s>"
    assert (template.bos, template.eos, template.adds_bos) == ("<s>", "</s>", True)


def test_of_several_templates_the_default_one_is_taken(tmp_path):
    several = [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]
    path = write(tmp_path, a__json={**CONFIG, "chat_template": several}) / "a.json"
    assert ChatTemplate.read(path).render(HELLO) == "D"


@pytest.mark.parametrize("given", ["", "chat_template.jinja", "tokenizer_config.json"])
def test_the_files_of_a_folder_belong_together(tmp_path, given):
    config = {k: v for k, v in CONFIG.items() if k != "chat_template"}
    write(tmp_path, chat_template__jinja="{{ bos_token }}J", tokenizer_config__json=config)
    template = ChatTemplate.read(tmp_path / given)
    assert template.render(HELLO) == "<s>J"


@pytest.mark.parametrize(
    "files",
    [{}, {"tokenizer_config__json": {"bos_token": "x"}}, {"tokenizer_config__json": "[]"}],
)
def test_a_folder_without_a_template_is_refused(tmp_path, files):
    write(tmp_path, **files)
    with pytest.raises(BadInput, match=re.escape("--chat-template: " + str(tmp_path))):
        ChatTemplate.read(tmp_path)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "t.jinja").write_bytes(b"\xff\xfe")
    with pytest.raises(BadInput, match="cannot be read"):
        ChatTemplate.read(tmp_path / "t.jinja")


# ---------------------------------------------------------------- BOS


@pytest.mark.parametrize(
    ("source", "adds", "prompt"),
    [
        ("{{ bos_token }}" + LOOP, None, "[user]hi"),
        ("{{ bos_token }}" + LOOP, True, "[user]hi"),
        ("{{ bos_token }}" + LOOP, False, "<s>[user]hi"),
        # The text of BOS as the mark of a message: with nothing said about it, it stays.
        ("<s>" + LOOP, None, "<s>[user]hi"),
        ("<s>" + LOOP, True, "[user]hi"),
        (LOOP, True, "[user]hi"),
        # One a turn (Llama 2): the first alone is the tokenizer's.
        ("{% for m in messages %}{{ bos_token }}{{ m.content }}{% endfor %}", None, "hi"),
    ],
)
def test_bos_is_left_to_a_tokenizer_that_adds_it(source, adds, prompt):
    assert ChatTemplate(source, bos="<s>", adds_bos=adds).without_bos(HELLO) == prompt


def test_only_the_first_bos_is_left_out():
    source = "{% for m in messages %}{{ bos_token }}{{ m.content }}{% endfor %}"
    talk = [user("a"), Message("assistant", "b"), user("c")]
    assert ChatTemplate(source, bos="<s>").without_bos(talk) == "a<s>b<s>c"


def test_what_changes_a_prompt_changes_the_digest():
    digests = {
        ChatTemplate(source, bos=bos, eos=eos, adds_bos=adds).digest
        for source, bos, eos, adds in [
            ("a", "", "", None),
            ("b", "", "", None),
            ("a", "x", "", None),
            ("a", "", "x", None),
            ("a", "x", "", False),
        ]
    }
    assert len(digests) == 5
    assert ChatTemplate("a", bos="x", adds_bos=True).digest in digests
