"""SpecBench: five scenarios, each with its own spec, 200 unsafe and 100 safe prompts.

Source: arXiv 2509.14760. The model answers the attacked prompt, the judge sees the original one.
Each scenario is a part of the suite, because it has its own spec.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from adhere.chat import Case, user
from adhere.errors import BadInput
from adhere.suites.base import Suite, SuiteConfig
from adhere.suites.reading import unreadable
from adhere.suites.specbench_folder import FILES, folder_readers
from adhere.suites.specbench_rows import HALVES, Reader, Row, Scenario, case_id, place
from adhere.suites.specbench_table import hub_readers, table_readers

DATASET = "zzzhr97/SpecBench"


class SpecBenchConfig(SuiteConfig):
    """Options of `specbench`."""

    path: Path | None = Field(None, description="a folder with the data; else the hub is asked")
    scenarios: tuple[str, ...] = Field((), description="which ones, case aside; empty: all there")
    adversarial: bool = Field(True, description="ask the attacked prompts, not the original ones")
    half: Literal["all", "unsafe", "safe"] = "all"
    sample: int | None = Field(None, ge=1, description="prompts of each scenario, drawn by seed")
    seed: int = 0
    duplicates: Literal["refuse", "share"] = Field(
        "refuse", description="two rows that ask the same: an error, or one answer for both"
    )
    dataset: str = DATASET
    revision: str | None = Field(None, description="a commit or branch of the hub's data set")

    @field_validator("scenarios", mode="before")
    @classmethod
    def _one_text_is_a_list(cls, value: Any) -> Any:
        """Take `Health` and `Health+Travel` too, as the command line gives them."""
        if isinstance(value, str):
            return tuple(name.strip() for name in value.replace(",", "+").split("+"))
        return () if value is None else value

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if self.path is not None and self.revision is not None:
            raise ValueError("path and revision: a folder has no revision; give one of the two")
        return self


class SpecBench:
    """The scenarios that the options name."""

    name: ClassVar[str] = "specbench"
    Config: ClassVar[type[SpecBenchConfig]] = SpecBenchConfig

    def __init__(self, config: SpecBenchConfig | None = None) -> None:
        """Take the options."""
        self.config = config or SpecBenchConfig()

    def load(self) -> list[Suite]:
        """One suite a scenario, by name. Raises BadInput."""
        readers = _readers(self.config)
        return [self._suite(readers[key]()) for key in _chosen(readers, self.config)]

    def _suite(self, scenario: Scenario) -> Suite:
        config = self.config
        if config.duplicates == "refuse":
            _refuse_duplicates(scenario, config.adversarial)
        rows = [row for row in scenario.rows if config.half in ("all", row.label)]
        if not rows:
            raise BadInput.at(scenario.source, None, f"no {config.half} rows", "at least one")
        if config.sample is not None:
            rows = draw_rows(rows, config.sample, config.seed, scenario)
        cases = tuple(_case(scenario.key, row, config.adversarial) for row in rows)
        return Suite(scenario.key, cases, scenario.spec, scenario.source)


def draw_rows(rows: Sequence[Row], count: int, seed: int, scenario: Scenario) -> list[Row]:
    """Draw rows, as many of each half as is its share, in the order of the data.

    Which rows come first depends on the seed and a row's place alone: a larger sample by the
    same seed holds the smaller one. Raises BadInput when there are not as many rows.
    """
    if count > len(rows):
        raise BadInput.at(
            scenario.source,
            None,
            f"{len(rows)} rows, to draw {count} from",
            f"a sample of at most {len(rows)}",
        )
    halves = [[row for row in rows if row.label == half] for half in HALVES]
    shares = [count * len(half) / len(rows) for half in halves]
    counts = [int(share) for share in shares]
    # The places that rounding down left go to the largest remainders.
    by_rest = sorted(range(len(halves)), key=lambda i: counts[i] - shares[i])
    for index in by_rest[: count - sum(counts)]:
        counts[index] += 1

    def turn(row: Row) -> bytes:
        text = f"{seed}\n{scenario.key}\n{row.number}"
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()

    drawn = [
        row
        for half, most in zip(halves, counts, strict=True)
        for row in sorted(half, key=turn)[:most]
    ]
    return sorted(drawn, key=lambda row: row.number)


def _case(key: str, row: Row, adversarial: bool) -> Case:
    return Case(
        case_id(key, row.number),
        (user(_asked(row, adversarial)),),
        row.label,
        row.answer,
        row.prompt,
        row.comment or None,
    )


def _readers(config: SpecBenchConfig) -> dict[str, Reader]:
    """A reader for each scenario there is. Raises BadInput where there is none."""
    if config.path is None:
        readers = hub_readers(config.dataset, config.revision)
        if not readers:
            raise BadInput(f"the data set {config.dataset}: found no splits; expected scenarios")
        return readers
    path = config.path.expanduser()
    if not path.exists():
        raise BadInput.at(path, None, "no such folder", "a folder with SpecBench's data")
    try:
        readers = (folder_readers(path) if path.is_dir() else {}) or table_readers(path)
        if readers:
            return readers
        hint = f"A scenario is a folder with {', '.join(FILES)}; see docs/suites.md."
        if path.is_dir() and (path / "data").is_dir() and folder_readers(path / "data"):
            hint = f"There are some in it: give path={path / 'data'}"
    except OSError as error:
        raise unreadable(path, error) from None
    raise BadInput.at(path, None, "no scenario in it", "scenarios of SpecBench", hint=hint)


def _chosen(readers: dict[str, Reader], config: SpecBenchConfig) -> list[str]:
    """The keys of the scenarios to load, in the order of the data. Raises BadInput."""
    if not config.scenarios:
        return list(readers)
    lower = {key.lower(): key for key in readers}
    for name in config.scenarios:
        if name.lower() not in lower:
            near = get_close_matches(name.lower(), lower, 1)
            raise BadInput(
                f"{config.path or config.dataset}: unknown scenario {name!r}"
                + (f"; did you mean {lower[near[0]]!r}?" if near else ""),
                hint="There are: " + ", ".join(readers),
            )
    wanted = {name.lower() for name in config.scenarios}
    return [key for key in readers if key.lower() in wanted]


def _refuse_duplicates(scenario: Scenario, adversarial: bool) -> None:
    """Two rows that ask the same would share their draws: one answer, counted as two."""
    seen: dict[str, int] = {}
    for row in scenario.rows:
        first = seen.setdefault(_asked(row, adversarial), row.number)
        if first != row.number:
            raise BadInput.at(
                scenario.source,
                None,
                f"the same prompt at {place(scenario.key, row.number)} as at "
                f"{place(scenario.key, first)}",
                "each prompt once",
                hint="Give duplicates=share to have one answer judged for both.",
            )


def _asked(row: Row, adversarial: bool) -> str:
    return row.adversarial_prompt if adversarial else row.prompt
