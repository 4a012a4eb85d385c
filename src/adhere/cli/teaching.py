"""`adhere train --recipe deliberative --teacher ...`: the rows are distilled first, in one go."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter
from rich.console import Console

from adhere.cli import options
from adhere.cli.row_runs import RowWatch, conclude
from adhere.errors import EXIT_DONE, BadInput
from adhere.experiments.yaml_file import anchor_paths, read_fields

if TYPE_CHECKING:
    from adhere.training.plan import TrainPlan
    from adhere.training.recipes.deliberative.plan import DistillPlan

_TEACHER = Group("A teacher (--recipe deliberative)", sort_key=8)
ENDS = {"kept": "kept", "rejected": "rejected", "failed": "failed"}


@Parameter(name="*")
@dataclass(frozen=True)
class TeacherOptions:
    """Who teaches; all else about it stands in a plan of `adhere data distill`."""

    teacher: Annotated[
        str | None,
        Parameter(
            group=_TEACHER,
            help="openai:NAME, local:NAME or weights:NAME reasons over --spec on --prompts; the "
            "rows that pass lie in OUT/rows",
        ),
    ] = None
    teacher_base_url: Annotated[
        str | None, Parameter(group=_TEACHER, help="the teacher's server, as --base-url elsewhere")
    ] = None
    teacher_api_key_env: Annotated[
        str | None, Parameter(group=_TEACHER, help="the variable that holds the teacher's key")
    ] = None
    distill: Annotated[
        Path | None,
        Parameter(
            group=_TEACHER,
            help="a YAML plan of `adhere data distill`: form, filters, judge, tries, tokens",
        ),
    ] = None

    @property
    def asked_for(self) -> bool:
        """Whether anything of a teacher was given."""
        return any((self.teacher, self.teacher_base_url, self.teacher_api_key_env, self.distill))


def teaching_plan(
    given: TeacherOptions, config: Path | None, fields: Mapping[str, Any]
) -> DistillPlan:
    """The plan to distill by. `config`, `fields`: those of the training. Raises BadInput."""
    from adhere.training.folder import ROWS
    from adhere.training.recipes.deliberative.plan_file import read_distill_plan

    asked: dict[str, Any] = dict.fromkeys(("recipe", "pairs", "rows", "out", "spec", "prompts"))
    if config is not None:
        read = read_fields(config, "model:")
        anchor_paths(read, ("pairs", "rows", "out", "spec"), config.parent)
        asked.update({k: v for k, v in read.items() if k in asked})
    asked.update({k: v for k, v in fields.items() if k in asked and v is not None})
    if asked["recipe"] != "deliberative":
        raise BadInput("--teacher: found with another recipe; expected --recipe deliberative")
    if asked["pairs"] is not None or asked["rows"] is not None:
        raise BadInput("--teacher: found --rows beside it; expected one of the two")
    if asked["out"] is None:
        raise BadInput("found no 'out'; expected --out FOLDER")
    options.need_model(given.teacher_base_url, given.teacher)
    made = options.model_fields(
        [given.teacher] if given.teacher else None,
        given.teacher_base_url, given.teacher_api_key_env, None, None,
    )  # fmt: skip
    told = {
        "teacher": made[0] if made else None,
        "prompts": asked["prompts"],
        "spec": asked["spec"],
        "out": Path(asked["out"]) / ROWS,
    }
    return read_distill_plan(given.distill, {k: v for k, v in told.items() if v is not None})


def check_student(plan: TrainPlan) -> None:
    """Find what would keep the student from being trained, before a teacher is paid.

    Raises BadInput for a missing package, a model that is not there, and a folder of others.
    """
    from adhere.models.connect import ModelConfig, connect
    from adhere.models.limiter import Limiter
    from adhere.models.open_weights.loading import check_installed
    from adhere.training.folder import check_free
    from adhere.training.loading import PACKAGES

    check_installed(plan.model, PACKAGES, extra="train")
    connect(ModelConfig(model=plan.model), Limiter())
    check_free(plan.out)


def teach(plan: DistillPlan, *, quiet: bool) -> tuple[Path, int]:
    """Distill, or go on with it: the file of rows, and an exit code that is 0 where it is whole.

    Where the training has begun its rows are settled: calls that failed are not tried again, for
    other rows would be another training. Raises BadInput where no row was kept, and for lessons
    that are not those of the rows.
    """
    from adhere.training.folder import RECORD_FILE
    from adhere.training.recipes.deliberative.run import check_same, distill

    rows = plan.out / "rows.jsonl"
    if (plan.out.parent / RECORD_FILE).is_file() and rows.is_file():
        check_same(plan)
        return rows, EXIT_DONE

    with RowWatch(Console(stderr=True, quiet=quiet), ENDS) as watch:
        result = asyncio.run(distill(plan, watch))
    if not quiet:
        from adhere.cli.distill_table import show_rows

        show_rows(result)
    code = conclude(result, plan.max_unscored, "rejected.jsonl")
    if code == EXIT_DONE and not result.summary["rows"]:
        raise BadInput(
            f"{plan.out}: the teacher's rows were all rejected; expected some to train on",
            hint="rejected.jsonl and report.html there say why.",
        )
    return rows, code
