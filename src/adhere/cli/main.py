"""The `adhere` command: finds the subcommand, and turns errors into one message and an exit code.

Subcommands are imported only when they are called. The top level's own help is written here by
hand from the same table, so that it does not wait for the argument parser to be imported either.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from inspect import cleandoc
from typing import Any

from adhere import __version__
from adhere.errors import EXIT_BAD_INPUT, EXIT_INTERRUPTED, AdhereError

COMMANDS = {
    "eval": ("adhere.cli.eval:evaluate", "measure methods on prompts under a spec"),
    "ask": ("adhere.cli.ask:ask", "answer one prompt and show how the method came to it"),
    "judge": ("adhere.cli.judge:judge", "judge answers that exist already, or a run again"),
    "calibrate": (
        "adhere.cli.calibrate:app",
        "how far to trust a judge; which cap or layer to set",
    ),
    "report": ("adhere.cli.report:report", "write a run's report again and print its table"),
    "train": ("adhere.cli.train:train", "train open weights on preference pairs"),
    "iterate": ("adhere.cli.iterate:iterate", "find the rules a model lacks, align it, repeat"),
    "data": (
        "adhere.cli.data:app",
        "make data to train on from prompts and a spec; attack a model",
    ),
    "compare": ("adhere.cli.compare:compare", "compare two runs, paired prompt by prompt"),
    "recommend": ("adhere.cli.recommend:recommend", "the cheapest method that meets a target"),
    "label": ("adhere.cli.label:label", "mark a blinded sample of a run's answers by hand"),
    "init": ("adhere.cli.init:init", "make a starter spec, prompts and adhere.yaml"),
    "spec": ("adhere.cli.spec:app", "check a spec file; show what differs between two"),
    "models": ("adhere.cli.models:app", "list, pull and show the models that run here"),
}

HELP = f"""\
adhere makes a language model adhere to a specification that you wrote.

Usage: adhere COMMAND [OPTIONS]        adhere COMMAND --help explains one

Commands:
{chr(10).join(f"  {name:11}{text}" for name, (_, text) in COMMANDS.items())}

First steps:
  adhere models pull smollm2-135m   once: a small model that runs here, no account
  adhere init my-assistant          a starter spec, prompts and adhere.yaml
  cd my-assistant; adhere eval      measure: a table, and runs/first/report.html
  adhere ask "How do I..."          watch one method think

Models: local:smollm2-135m runs here; openai:NAME with --base-url is any OpenAI-compatible
server, its key in the environment variable that --api-key-env names.
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; exits the process with the design's exit codes."""
    with _deaf_to_ctrl_c():
        _main(list(sys.argv[1:] if argv is None else argv))


def _main(arguments: list[str]) -> None:
    signal.signal(signal.SIGTERM, _terminate)
    try:
        if not arguments or arguments[0] in ("--help", "-h", "help"):
            sys.stdout.write(HELP)
            code: object = 0
        elif arguments[0] == "--version":
            sys.stdout.write(f"{__version__}\n")
            code = 0
        else:
            code = _run(arguments)
        sys.stdout.flush()
    except AdhereError as error:
        _fail(error.message, error.hint)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        _fail("interrupted", "What was finished is kept; the same command goes on from there.")
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output went away (`| head`); python would complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    sys.exit(code if isinstance(code, int) else 0)


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Where a shell started this in its background, deaf to Ctrl-C: deaf in another way.

    The signal is blocked and has a handler, which `_terminate` calls: an event loop puts one of its
    own in its place, that ends its work in order. An ignored signal has none.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        yield
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _terminate(*_: object) -> None:
    """End a polite kill (`timeout`, a job scheduler) like Ctrl-C: what was done is kept."""
    handler = signal.getsignal(signal.SIGINT)
    if callable(handler):
        handler(signal.SIGINT, None)
    else:
        raise KeyboardInterrupt


def _run(arguments: Sequence[str]) -> object:
    from difflib import get_close_matches

    if arguments[0] not in COMMANDS:
        near = get_close_matches(arguments[0], COMMANDS, 1)
        _fail(
            f"unknown command {arguments[0]!r}" + (f"; did you mean {near[0]!r}?" if near else ""),
            "Commands: " + ", ".join(COMMANDS),
        )
        return EXIT_BAD_INPUT
    from cyclopts import App, CycloptsError

    app = App(
        name="adhere",
        help=HELP,
        version=__version__,
        help_format="plaintext",
        suppress_keyboard_interrupt=False,  # `main` says what was kept
    )
    name = arguments[0]
    target, _ = COMMANDS[name]
    found = _load(target)
    if isinstance(found, App):
        for command in found.subapps:
            command.help = _reflowed(command.help)
        app.command(found, name=name)
    else:
        app.command(found, name=name, help=_reflowed(found.__doc__ or ""))
    try:
        return app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        _fail(str(error), f"See `adhere {name} --help`.")
        return EXIT_BAD_INPUT


def _load(target: str) -> Any:
    module, _, attribute = target.partition(":")
    return getattr(import_module(module), attribute)


def _reflowed(text: str) -> str:
    """A docstring for a terminal of any width: the lines of a paragraph are joined.

    Lines that are indented, such as commands to copy, stay as they are.
    """
    out: list[str] = []
    for line in cleandoc(text).splitlines():
        joins = out and out[-1] and line and not line.startswith(" ")
        if joins and not out[-1].startswith(" "):
            out[-1] += f" {line}"
        else:
            out.append(line)
    return "\n".join(out)


def _fail(message: str, hint: str) -> None:
    sys.stderr.write(f"adhere: {message}\n")
    if hint:
        sys.stderr.write(f"        {hint}\n")
