"""What the commands of IterAlign share: the pool, the policy, the oracle and the judge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Group, Parameter

from adhere.cli import options
from adhere.cli.row_runs import known

_POOL = Group("The pool", sort_key=2)
_POLICY = Group("The policy", sort_key=3)
_ORACLE = Group("The oracle", sort_key=4)
_JUDGE = Group("What counts as bad", sort_key=5)


@Parameter(name="*")
@dataclass(frozen=True)
class PoolOptions:
    """Red-team prompts."""

    prompts: Annotated[
        list[Path] | None,
        Parameter(group=_POOL, negative=(), help="JSON lines with `prompt` or `messages`"),
    ] = None
    suite: Annotated[
        list[str] | None,
        Parameter(
            group=_POOL,
            negative=(),
            help="or a suite's prompts, such as harmfulqa:path=FILE,limit=200 (docs/suites.md)",
        ),
    ] = None
    wrap: Annotated[
        str | None,
        Parameter(
            group=_POOL, help="none (default); utterances: each question within a made-up talk"
        ),
    ] = None

    def fields(self) -> dict[str, Any]:
        """The plan's fields, as far as they were given."""
        return {"prompts": self.prompts, "suites": self.suite, "wrap": self.wrap}


@Parameter(name="*")
@dataclass(frozen=True)
class PolicyOptions:
    """Who answers, and how it samples."""

    model: Annotated[
        str | None,
        Parameter(
            name=["--model", "-m"], group=_POLICY, help="weights:NAME, local:NAME or openai:NAME"
        ),
    ] = None
    base_url: Annotated[options.BaseUrl, Parameter(group=_POLICY)] = None
    api_key_env: Annotated[options.ApiKeyEnv, Parameter(group=_POLICY)] = None
    temperature: Annotated[options.Temperature, Parameter(group=_POLICY)] = None
    max_tokens: Annotated[options.MaxTokens, Parameter(group=_POLICY)] = None
    seed: Annotated[options.Seed, Parameter(group=_POLICY)] = None

    def fields(self) -> dict[str, Any]:
        """The plan's fields, as far as they were given."""
        options.need_model(self.base_url, self.model)
        made = options.model_fields(
            [self.model] if self.model else None, self.base_url, self.api_key_env, None, None
        )
        sampling = options.sampling_fields(self.temperature, self.max_tokens, self.seed)
        return {"model": made[0] if made else None, "sampling": sampling or None}


@Parameter(name="*")
@dataclass(frozen=True)
class OracleOptions:
    """Who writes rules."""

    oracle: Annotated[
        str | None,
        Parameter(group=_ORACLE, help="a stronger model, openai:NAME or local:NAME, writes rules"),
    ] = None
    oracle_base_url: Annotated[
        str | None, Parameter(group=_ORACLE, help="the oracle's server, as --base-url")
    ] = None
    oracle_api_key_env: Annotated[
        str | None,
        Parameter(group=_ORACLE, help="the variable that holds the oracle's key"),
    ] = None
    oracle_output: Annotated[
        str | None,
        Parameter(
            group=_ORACLE, help="its reply: json (held to a schema), text, or auto (default)"
        ),
    ] = None
    most_rules: Annotated[
        int | None, Parameter(group=_ORACLE, help="rules that one call may propose (5)")
    ] = None
    contrast: Annotated[
        int | None,
        Parameter(
            group=_ORACLE,
            help="good answers that it is shown beside the bad ones of a call (0)",
        ),
    ] = None
    telling_words: Annotated[
        bool,
        Parameter(
            group=_ORACLE,
            negative=(),
            help="show it failures in groups that share a word which good answers do not have, "
            "and name the word",
        ),
    ] = False
    form: Annotated[
        str | None,
        Parameter(
            group=_ORACLE,
            help="rules: each names the failures it covers (default); published: the last "
            "paragraph of one reply",
        ),
    ] = None

    def fields(self) -> dict[str, Any]:
        """The plan's fields, as far as they were given."""
        oracle = {
            "model": self.oracle, "base_url": self.oracle_base_url,
            "api_key_env": self.oracle_api_key_env, "output": self.oracle_output,
        }  # fmt: skip
        return {"oracle": known(oracle), "most_rules": self.most_rules,
                "contrast": self.contrast,
                "telling_words": self.telling_words or None, "form": self.form}  # fmt: skip


@Parameter(name="*")
@dataclass(frozen=True)
class BadOptions:
    """Who says which answers are bad."""

    found_by: Annotated[
        str | None,
        Parameter(
            group=_JUDGE,
            help="judge: a model sees message and answer (default); published: the answer alone; "
            "rules: what violates a rule of --spec, by its checks and the judge",
        ),
    ] = None
    spec: Annotated[
        Path | None, Parameter(group=_JUDGE, help="with --found-by rules: the spec")
    ] = None
    about: Annotated[
        str | None,
        Parameter(group=_JUDGE, help="what the assistant is for, as judge and oracle are told"),
    ] = None
    judge: Annotated[
        str | None, Parameter(group=_JUDGE, help="who judges: openai:NAME or local:NAME")
    ] = None
    judge_mode: Annotated[options.JudgeMode, Parameter(group=_JUDGE)] = None
    judge_base_url: Annotated[options.JudgeBaseUrl, Parameter(group=_JUDGE)] = None
    judge_api_key_env: Annotated[options.JudgeApiKeyEnv, Parameter(group=_JUDGE)] = None
    judge_output: Annotated[options.JudgeOutput, Parameter(group=_JUDGE)] = None

    def fields(self) -> dict[str, Any]:
        """The plan's fields, as far as they were given."""
        judge = options.judge_fields(
            self.judge, self.judge_mode, self.judge_base_url, self.judge_api_key_env,
            self.judge_output,
        )  # fmt: skip
        return {
            "found_by": self.found_by, "spec": self.spec, "about": self.about, "judge": judge
        }  # fmt: skip


def given(*parts: Mapping[str, Any] | None) -> dict[str, Any]:
    """All fields that were given."""
    return {k: v for part in parts if part for k, v in part.items() if v is not None}
