"""How a begun answer reaches the model: rendering, routes, probes, and what comes back."""

from __future__ import annotations

import asyncio
import json

import pytest

from adhere.chat import Capability, Sampling, assistant, system, user
from adhere.errors import (
    Auth,
    BadInput,
    CallError,
    NotFound,
    Overloaded,
    RateLimited,
    Timeout,
    Truncated,
)
from adhere.methods.base import read_answer
from adhere.models.connect import ModelConfig, connect
from adhere.models.limiter import Limiter
from adhere.models.prefill import join_prefill
from adhere.models.template import ChatTemplate
from adhere.records.journal import draw_key
from support.fake_server import BOS_ID, UNTRUSTED, FakeServer, Fault, Reply, render
from support.methods import QUICK

ASK = (user("hi"),)
STOP = Sampling(stop=("</think>",))


def use(server, *, begun="<think>\nSo", n=1, messages=ASK, sampling=None, model="m", **config):
    """Open a model by its configuration and sample with a prefill; gives model and completions."""

    async def go():
        plan = ModelConfig(model=f"openai:{model}", base_url=server.url, **config)
        async with connect(plan, Limiter(8, retry=QUICK), timeout=2) as opened:
            got = await opened.sample(messages, sampling or Sampling(), n=n, prefill=begun)
            return opened, got

    return asyncio.run(go())


def opened(server, **config):
    """Only open a model."""

    async def go():
        plan = ModelConfig(model="openai:m", base_url=server.url, **config)
        async with connect(plan, Limiter(8, retry=QUICK), timeout=2) as model:
            return model

    return asyncio.run(go())


# ---------------------------------------------------------------- think tags

# Made-up templates in the shape of three families; what matters is how the prompt ends.
HEAD = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"
OPENED = HEAD + "{% if add_generation_prompt %}<|assistant|><think>\n{% endif %}"
SWITCHED = (
    HEAD + "{% if add_generation_prompt %}<|assistant|>\n"
    "{% if enable_thinking is defined and enable_thinking is false %}"
    "{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}{% endif %}"
)
PLAIN = "<|user|>hi<|assistant|>"


@pytest.mark.parametrize("prefill", ["<think>\nSo", "<think>", "<think>\n</think>"])
@pytest.mark.parametrize(
    ("source", "extra", "head"),
    [
        (OPENED, {}, PLAIN),
        (SWITCHED, {}, PLAIN + "\n"),
        (SWITCHED, {"chat_template_kwargs": {"enable_thinking": False}}, PLAIN + "\n"),
    ],
    ids=["R1 distills", "Qwen3 thinking", "Qwen3 not thinking"],
)
def test_a_thought_is_opened_exactly_once(tmp_path, source, extra, head, prefill):
    (tmp_path / "t.jinja").write_text(source)
    # The template's own end really is another one, or this would test nothing.
    kwargs = extra.get("chat_template_kwargs")
    own = ChatTemplate(source).render(ASK, kwargs)
    assert own.count("<think>") == (source is OPENED or bool(extra))
    with FakeServer() as server:
        use(server, begun=prefill, chat_template=tmp_path / "t.jinja", extra_body=extra)
    [(path, body, _)] = server.calls
    assert path == "/completions"
    assert body["prompt"] == head + prefill


def test_a_call_without_a_prefill_is_a_plain_chat_call(tmp_path):
    (tmp_path / "t.jinja").write_text(OPENED)
    kwargs = {"enable_thinking": False}
    with FakeServer() as server:
        use(
            server, begun="", chat_template=tmp_path / "t.jinja",
            extra_body={"chat_template_kwargs": kwargs},
        )  # fmt: skip
    [(path, body, _)] = server.calls
    assert path == "/chat/completions"
    assert body == {
        "model": "m", "messages": [{"role": "user", "content": "hi"}], "chat_template_kwargs": kwargs
    }  # fmt: skip


@pytest.mark.parametrize(
    ("prompt", "prefill", "joined"),
    [
        ("<a><think>\n", "<think>\nx", "<a><think>\nx"),
        ("<a>\n<think>\n\n</think>\n\n", "<think>x", "<a>\n<think>x"),
        ("<a><think></think>", "<think>x", "<a><think>x"),
        ("<a></think>", "<think>x", "<a><think>x"),
        ("<a>", "<think>x", "<a><think>x"),
        ("<a>", "x", "<a>x"),
        # Nothing is taken away from a prompt whose thought the prefill does not open.
        ("<a><think>\n", "x", "<a><think>\nx"),
        # An earlier turn's thought is none of the generation prompt's.
        ("<think>old</think> y<a>", "<think>x", "<think>old</think> y<a><think>x"),
    ],
)
def test_join_prefill(prompt, prefill, joined):
    assert join_prefill(prompt, prefill) == joined


# ---------------------------------------------------------------- a thought that the template opens


def opening(messages, kwargs):
    """In the shape of an R1 distill's: the prompt ends in an opened thought."""
    return render(messages) + ("" if kwargs.get("enable_thinking") is False else "<think>\n")


def opening_without_system(messages, kwargs):
    assert messages[0]["role"] != "system"
    return opening(messages, kwargs)


CUT = Reply("First I weigh whether", finish="length")
NOT_OPENED = {"extra_body": {"chat_template_kwargs": {"enable_thinking": False}}}


@pytest.mark.parametrize(
    "server",
    [
        {"template": opening},
        {"template": opening, "vllm": True, "bos": "<s>"},
        {"template": opening_without_system},
    ],
    ids=["llama.cpp", "vLLM", "no system message"],
)
def test_a_cut_thought_that_the_template_opened_is_no_answer(server):
    with FakeServer(lambda p, b: CUT, **server) as running:
        _, [got] = use(running, begun="")
        assert got.text == "<think>\nFirst I weigh whether"
        with pytest.raises(Truncated, match="ended the thought"):
            read_answer(got)
        # With a prefill the text goes on with what the method wrote.
        assert use(running)[1][0].text == "First I weigh whether"
        # The template opens none: the text is an answer that was cut.
        assert use(running, begun="", **NOT_OPENED)[1][0].text == "First I weigh whether"


@pytest.mark.parametrize("route", ["auto", "completions", "chat", "none"])
@pytest.mark.parametrize(("source", "opened"), [(OPENED, True), (SWITCHED, False)])
def test_a_template_of_ones_own_tells_whether_it_opens_a_thought(tmp_path, source, opened, route):
    (tmp_path / "t.jinja").write_text(source)
    with FakeServer(lambda p, b: CUT) as server:
        _, [got] = use(server, begun="", chat_template=tmp_path / "t.jinja", prefill=route)
    assert got.text.startswith("<think>\n") is opened


@pytest.mark.parametrize(
    "reply",
    [
        Reply("all answer, by the published rule", finish="stop"),
        Reply("thought</think>\n\nanswer that was", finish="length"),
        Reply("answer that was", finish="length", reasoning="split off by the server"),
        Reply("<think>\nopened by the model", finish="length"),
    ],
    ids=["not cut", "closed", "reasoning", "tagged"],
)
def test_other_texts_stay_as_they_are(reply):
    with FakeServer(lambda p, b: reply, template=opening) as server:
        _, [got] = use(server, begun="")
    assert got.text == reply.text


def test_a_cut_stream_of_thought_is_no_answer_either():
    async def go(url):
        pieces = []
        async with connect(ModelConfig(model="openai:m", base_url=url), Limiter()) as model:
            [got] = await model.sample(ASK, Sampling(), on_delta=pieces.append)
            return got, "".join(pieces)

    with FakeServer(lambda p, b: CUT, template=opening) as server:
        got, seen = asyncio.run(go(server.url))
    assert (got.text, seen) == ("<think>\nFirst I weigh whether", "First I weigh whether")


def test_where_nothing_renders_the_user_can_say_so_and_it_enters_the_identity():
    def facts(**config):
        with FakeServer(lambda p, b: CUT, template=config.pop("template", False)) as server:
            model, [got] = use(server, begun="", **config)
            settings = ModelConfig(model="openai:m", **config).settings()
            return got.text.startswith("<think>"), model.identity, settings

    assert facts()[0] is False
    opened, identity, settings = facts(thought_opened=True)
    assert opened is True
    assert "thought_opened=true" in identity
    assert settings["thought_opened"] is True
    opened, identity, _ = facts(thought_opened=False, template=opening)
    assert opened is False  # the user knows better than the template
    assert "thought_opened=false" in identity
    opened, identity, settings = facts(template=opening)
    assert opened is True
    assert "thought_opened" not in identity + str(settings)


# ---------------------------------------------------------------- rendering and BOS


def bos_template(messages, kwargs):
    return "<s>" + render(messages) + ("<think>\n" if kwargs.get("enable_thinking") else "")


def test_vllm_renders_by_tokens_and_gets_one_bos():
    extra = {"chat_template_kwargs": {"enable_thinking": True}}
    with FakeServer(vllm=True, bos="<s>", template=bos_template) as server:
        model, _ = use(server, n=5, extra_body=extra)
    assert model.route == "completions"
    assert len(server.calls) == 5
    for path, body, _ in server.calls:
        assert path == "/completions"
        assert body["prompt"] == "<s>" + render([{"role": "user", "content": "hi"}]) + "<think>\nSo"
        assert body["add_special_tokens"] is False
        assert server.read(body).count(BOS_ID) == 1
        assert "chat_template_kwargs" not in body
    talks = [body for path, body in server.asked if path == "/tokenize" and "messages" in body]
    assert all(body["chat_template_kwargs"] == {"enable_thinking": True} for body in talks)
    assert all(body["add_generation_prompt"] is True for body in talks)
    # One for the probe, one for five draws of one prompt.
    assert len(talks) == 2
    assert not server.probes


def test_text_that_does_not_become_the_same_tokens_again_is_not_used():
    with FakeServer(vllm=True, bos="<s>", template=bos_template, lossy=True) as server:
        assert opened(server).route == "none"
    with FakeServer(
        vllm=True, bos="<s>", template=bos_template, lossy=True, continues=True
    ) as server:
        assert opened(server).route == "chat"


def test_llama_cpp_renders_and_its_text_is_sent_as_it_comes():
    def template(messages, kwargs):
        assert messages[-1]["content"] in ("x", "hi")
        return render(messages) + ("<think>\n" if kwargs == {"enable_thinking": True} else "")

    extra = {"chat_template_kwargs": {"enable_thinking": True}}
    with FakeServer(template=template, bos="<s>") as server:
        use(server, extra_body=extra)
    [body] = server.bodies()
    assert body["prompt"] == render([{"role": "user", "content": "hi"}]) + "<think>\nSo"
    assert "add_special_tokens" not in body
    assert server.read(body).count(BOS_ID) == 1
    assert [path for path, _ in server.asked] == ["/apply-template"] * 2


def test_a_template_that_knows_no_system_message_still_renders():
    def strict(messages, kwargs):
        if messages[0]["role"] == "system":
            raise ValueError("no system role")  # the server answers 500
        return render(messages)

    for vllm in (False, True):
        with FakeServer(template=strict, vllm=vllm) as server:
            assert opened(server).route == "completions"


CONFIG = {"bos_token": "<s>", "eos_token": "</s>"}
VARIABLE = "{{ bos_token }}" + HEAD
LITERAL = "<s>" + HEAD


@pytest.mark.parametrize(
    ("template", "config", "server", "prompt", "special"),
    [
        # The server counts tokens: what it does with our text is known.
        (VARIABLE, CONFIG, {"tokenizes": True, "bos": "<s>"}, "<|user|>hi", None),
        (LITERAL, CONFIG, {"tokenizes": True, "bos": "<s>"}, "<|user|>hi", None),
        (HEAD, CONFIG, {"tokenizes": True, "bos": "<s>"}, "<|user|>hi", None),
        (LITERAL, None, {"vllm": True, "bos": "<s>"}, "<s><|user|>hi", False),
        # No BOS of its own: a template may well begin with the text of one.
        (VARIABLE, CONFIG, {"tokenizes": True, "bos": ""}, "<s><|user|>hi", None),
        # The server does not count.
        (VARIABLE, CONFIG, {"bos": "<s>"}, "<|user|>hi", None),
        (VARIABLE, {**CONFIG, "add_bos_token": False}, {}, "<s><|user|>hi", None),
        (LITERAL, CONFIG, {}, "<s><|user|>hi", None),
        # It has the route and fails at it, or keeps it to itself: as if it did not count.
        (VARIABLE, CONFIG, {"bos": "<s>", "route_fault": Fault(401)}, "<|user|>hi", None),
        (VARIABLE, CONFIG, {"bos": "<s>", "route_fault": Fault(500)}, "<|user|>hi", None),
    ],
)
def test_a_prompt_of_ones_own_template_gets_one_bos(
    tmp_path, template, config, server, prompt, special
):
    (tmp_path / "chat_template.jinja").write_text(template)
    if config:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    with FakeServer(**server) as running:
        use(running, chat_template=tmp_path / "chat_template.jinja")
    [body] = running.bodies()
    assert body["prompt"] == prompt + "<think>\nSo"
    assert body.get("add_special_tokens") is special
    assert running.read(body).count(BOS_ID) == (1 if running.bos else 0)


def test_rendering_by_the_server_is_retried_like_any_call():
    seen = []

    def fault(path):
        seen.append(path)
        return Fault(503) if len(seen) == 2 else None  # after the probe

    with FakeServer(template=True, route_fault=fault) as server:
        _, [got] = use(server)
    assert got.text == "fine"
    assert len(seen) == 3


def test_template_kwargs_that_are_no_mapping_are_refused_before_anything_is_sent():
    with FakeServer() as server, pytest.raises(BadInput, match="expected a mapping"):
        opened(server, extra_body={"chat_template_kwargs": "enable_thinking"})
    assert not server.asked


# ---------------------------------------------------------------- the chat route


def test_a_template_of_ones_own_can_go_along_in_chat(tmp_path):
    (tmp_path / "t.jinja").write_text(HEAD)
    extra = {"chat_template_kwargs": {"enable_thinking": False}, "top_k": 20}
    own = {"prefill": "chat", "chat_template": tmp_path / "t.jinja", "extra_body": extra}
    with FakeServer() as server:
        model, _ = use(server, sampling=STOP, **own)
        use(server, begun="", **own)
    (path, body, _), (_, plain, _) = server.calls
    assert path == "/chat/completions"
    assert body["messages"][-1] == {"role": "assistant", "content": "<think>\nSo"}
    assert body["continue_final_message"] is True
    assert body["add_generation_prompt"] is False
    assert body["chat_template"] == HEAD
    assert body["chat_template_kwargs"] == {"enable_raw_content": True, "enable_thinking": False}
    assert body["top_k"] == 20
    assert body["stop"] == ["</think>"]
    assert f"template={ChatTemplate(HEAD).digest[:16]}" in model.identity
    assert "prefill=chat" in model.identity
    # A call without a prefill is as the server's own template has it.
    assert plain["chat_template_kwargs"] == {"enable_thinking": False}
    assert not {"chat_template", "continue_final_message", "add_generation_prompt"} & set(plain)


def test_a_server_that_trusts_no_template_is_found_out_by_one_request(tmp_path):
    (tmp_path / "t.jinja").write_text(HEAD)
    with FakeServer(trusts=False) as server, pytest.raises(BadInput) as caught:
        opened(server, prefill="chat", chat_template=tmp_path / "t.jinja")
    assert UNTRUSTED in caught.value.message
    assert "--trust-request-chat-template" in caught.value.hint
    assert "`completions`" in caught.value.hint
    assert len(server.probes) == 1
    assert not server.calls


def test_a_permanent_400_is_one_request():
    with FakeServer(lambda p, b: Fault(400), continues=True) as server, pytest.raises(BadInput):
        use(server)
    assert len(server.calls) == 1


def test_prefix_is_a_marked_message_used_only_by_configuration():
    with FakeServer(lambda p, b: Reply("<think>\nSo it goes")) as server:
        model, [got] = use(server, prefill="prefix")
    [(path, body, _)] = server.calls
    assert path == "/chat/completions"
    assert body["messages"][-1] == {"role": "assistant", "content": "<think>\nSo", "prefix": True}
    assert not {"continue_final_message", "add_generation_prompt"} & set(body)
    assert got.text == " it goes"  # such servers send the prefix back
    assert "prefill=prefix" in model.identity
    assert Capability.PREFILL in model.capabilities
    assert not server.probes
    assert not server.asked


def test_prefix_and_a_template_exclude_each_other(tmp_path):
    (tmp_path / "t.jinja").write_text(HEAD)
    with FakeServer() as server, pytest.raises(BadInput, match="prefix"):
        opened(server, prefill="prefix", chat_template=tmp_path / "t.jinja")


def test_without_a_route_a_prefill_is_refused_and_nothing_is_sent():
    with FakeServer() as server, pytest.raises(BadInput, match="cannot continue"):
        use(server, prefill="none")
    assert not server.calls
    with FakeServer() as server, pytest.raises(BadInput, match="chat template"):
        opened(server, prefill="completions")


# ---------------------------------------------------------------- probes


@pytest.mark.parametrize(
    ("server", "route", "asked", "probes"),
    [
        ({"template": True}, "completions", ["/apply-template"], 0),
        (
            {"vllm": True, "continues": True},
            "completions",
            ["/apply-template", "/tokenize", "/detokenize", "/tokenize"],
            0,
        ),
        # SGLang counts prompts but renders no conversation.
        (
            {"tokenizes": True, "continues": True},
            "chat",
            ["/apply-template", "/tokenize", "/tokenize"],
            1,
        ),
        ({"continues": True}, "chat", ["/apply-template", "/tokenize"], 1),
        ({}, "none", ["/apply-template", "/tokenize"], 1),
    ],
)
def test_probes_cost_few_calls(server, route, asked, probes):
    with FakeServer(**server) as running:
        model = opened(running)
    assert model.route == route
    assert [path for path, _ in running.asked] == asked
    assert len(running.probes) == probes
    assert not running.calls
    if probes:
        [probe] = running.probes
        assert probe["messages"][-1]["content"].startswith("<think>\n")
        assert probe["max_tokens"] <= 8


def test_a_server_that_moves_thoughts_elsewhere_is_not_taken_for_one_that_continues():
    with FakeServer(probe_fault=Reply(None, reasoning=" 14 15 16")) as server:
        assert opened(server).route == "none"


@pytest.mark.parametrize(
    ("fault", "error"),
    [(Fault(429), RateLimited), (Fault(401), Auth), (Fault(504), Timeout), (Fault(404), NotFound)],
)
def test_a_probe_that_found_nothing_out_is_no_cannot(fault, error):
    with FakeServer(probe_fault=fault) as server, pytest.raises(error):
        opened(server)


def test_an_overloaded_server_is_no_cannot_but_one_that_only_chokes_on_the_probe_is():
    down = FakeServer(lambda p, b: Fault(503), probe_fault=Fault(503))
    with down as server, pytest.raises(Overloaded) as caught:
        opened(server)
    assert "`prefill`" in caught.value.hint
    with FakeServer(probe_fault=Fault(500)) as server:
        assert opened(server).route == "none"
    assert len(server.calls) == 1
    with FakeServer(lambda p, b: Fault(400), probe_fault=Fault(500)) as server:
        assert opened(server).route == "none"


@pytest.mark.parametrize(
    ("fault", "error"), [(Fault(429), RateLimited), (Fault(503), Overloaded), (Fault(504), Timeout)]
)
def test_the_extra_routes_are_not_given_up_for_a_fault_that_passes(fault, error):
    with FakeServer(continues=True, route_fault=fault) as server, pytest.raises(error):
        opened(server)
    assert not server.probes
    left = [fault]
    with FakeServer(
        template=True, continues=True, route_fault=lambda path: left.pop() if left else None
    ) as server:
        assert opened(server).route == "completions"


@pytest.mark.parametrize(
    "fault",
    [
        *(Fault(401), Fault(403), Fault(404), Fault(405), Fault(501)),
        Fault(200, "<html></html>", "text/html"),
    ],
    ids=["401", "403", "404", "405", "501", "a page"],
)
def test_a_server_that_lets_nobody_near_the_extra_routes_is_asked_by_chat(fault):
    with FakeServer(continues=True, route_fault=fault) as server:
        model, _ = use(server)
    assert model.route == "chat"


# ---------------------------------------------------------------- what comes back


@pytest.mark.parametrize("continues", [True, False], ids=["chat", "completions"])
@pytest.mark.parametrize("text", ["T1</think>", "T1</think>\n\nAn answer too</think>", "T1"])
def test_what_comes_with_or_behind_a_stop_string_is_left_out(text, continues):
    reply = Reply(text, finish="length" if "answer" in text else "stop")
    with FakeServer(lambda p, b: reply, continues=continues, template=not continues) as server:
        _, [got] = use(server, sampling=STOP)
    assert got.text == "T1"
    assert got.finish_reason == "stop"


def test_the_first_of_several_stop_strings_ends_the_text_and_none_changes_nothing():
    with FakeServer(lambda p, b: Reply("a END b STOP c", finish="length")) as server:
        _, [got] = use(server, begun="", sampling=Sampling(stop=("STOP", "END")))
        _, [whole] = use(server, begun="")
        _, [alone] = use(server, begun="", sampling=Sampling(extra={"stop": "END"}))
    assert got.text == alone.text == "a "
    assert (whole.text, whole.finish_reason) == ("a END b STOP c", "length")


def test_a_streamed_text_ends_where_the_other_does():
    async def go(url):
        pieces = []
        plan = ModelConfig(model="openai:m", base_url=url, prefill="none")
        async with connect(plan, Limiter(8, retry=QUICK)) as model:
            [got] = await model.sample(ASK, STOP, on_delta=pieces.append)
            return got, pieces

    with FakeServer(lambda p, b: Reply("T1</think>more")) as server:
        got, pieces = asyncio.run(go(server.url))
    assert pieces
    assert got.text == "T1"


@pytest.mark.parametrize(
    ("name", "config", "text", "reasoning", "answer"),
    [
        ("gemini-x", {}, "<thought>T</thought>\n\nA", "T", "A"),
        ("google/gemini-x", {}, "T1</thought>T2</thought>A", "T2", "A"),
        ("STAIR-y", {}, "T. Final Answer: A", "T.", "A"),
        ("m", {"thought_end": "=>"}, "T => A", "T", " A"),
        ("gemini-x", {"thought_end": "</think>"}, "T</thought>A", "", "T</thought>A"),
        ("gemini-x", {}, "A without a thought", "", "A without a thought"),
        # The common mark is read where methods read it.
        ("m", {}, "<think>T</think>A", "", "<think>T</think>A"),
    ],
)
def test_a_mark_of_a_models_own_is_split_in_the_client(name, config, text, reasoning, answer):
    with FakeServer(lambda p, b: Reply(text)) as server:
        _, [got] = use(server, begun="", model=name, prefill="none", **config)
    assert (got.reasoning, got.text) == (reasoning, answer)


def test_a_stage_of_thought_is_not_split():
    with FakeServer(lambda p, b: Reply("T</thought>more"), template=True) as server:
        _, [got] = use(server, model="gemini-x", sampling=STOP)
    assert (got.reasoning, got.text) == ("", "T</thought>more")


def test_a_mark_that_is_set_enters_the_identity():
    def facts(server, **config):
        plan = ModelConfig(model="openai:m", base_url=server.url, prefill="none", **config)
        return opened(server, prefill="none", **config).identity, plan.settings()

    with FakeServer() as server:
        plain, settings = facts(server)
        own, own_settings = facts(server, thought_end="=>")
    assert "thought_end" not in plain + str(settings)
    assert own_settings["thought_end"] == "=>"
    assert draw_key(plain, ASK, Sampling(), "", 0) != draw_key(own, ASK, Sampling(), "", 0)
    with pytest.raises(ValueError, match="thought_end"):
        ModelConfig(model="openai:m", thought_end="")


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
@pytest.mark.parametrize("content", [None, "A"])
def test_a_thought_that_the_server_split_off_is_read_also_beside_no_content(field, content):
    message = {"role": "assistant", "content": content, field: "T"}
    body = json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]})
    with FakeServer(lambda p, b: Fault(200, body)) as server:
        _, [got] = use(server, begun="", prefill="none")
    assert (got.reasoning, got.text) == ("T", content or "")


def test_conversations_are_rendered_once_each_whatever_else_is_asked():
    talk = (system("be kind"), user("one"), assistant("two"), user("three"))
    with FakeServer(template=True) as server:

        async def go():
            plan = ModelConfig(model="openai:m", base_url=server.url)
            async with connect(plan, Limiter(8, retry=QUICK)) as model:
                await asyncio.gather(
                    *(model.sample(m, Sampling(), n=3, prefill="x") for m in (ASK, talk, ASK))
                )

        asyncio.run(go())
    assert len(server.calls) == 9
    assert len(server.asked) == 1 + 2


def test_a_conversation_that_cannot_be_rendered_fails_its_own_call_alone():
    def template(messages, kwargs):
        if messages[-1]["content"] == "bad":
            raise ValueError
        return render(messages)

    async def go(url):
        plan = ModelConfig(model="openai:m", base_url=url)
        async with connect(plan, Limiter(8, retry=QUICK)) as model:
            asked = [(user(text),) for text in ("bad", "good", "bad")]
            return await asyncio.gather(
                *(model.sample(m, Sampling(), prefill="x") for m in asked), return_exceptions=True
            )

    with FakeServer(template=template) as server:
        one, two, three = asyncio.run(go(server.url))
    assert isinstance(one, CallError)
    assert isinstance(three, CallError)
    assert two[0].text == "fine"
    assert len(server.calls) == 1
