"""The `adhere` command: finds the subcommand, and turns errors into one message and an exit code.

Subcommands are imported only when they are called, so `adhere --help` is quick.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError

from adhere import __version__
from adhere.errors import EXIT_BAD_INPUT, EXIT_INTERRUPTED, AdhereError

app = App(
    name="adhere",
    version=__version__,
    help="""Make a language model adhere to a specification that you wrote.

First steps:
  adhere init my-assistant        a starter spec, prompts and adhere.yaml
  cd my-assistant && adhere eval  measure: a table, and runs/first/report.html
  adhere ask "..."                watch one method think

The models: local:smollm2-135m runs here (`adhere models pull smollm2-135m` once);
openai:NAME with --base-url is any OpenAI-compatible server.""",
    help_format="plaintext",
)

_COMMANDS = {
    "eval": ("adhere.cli.eval:evaluate", "Measure methods on prompts under a spec."),
    "ask": ("adhere.cli.ask:ask", "Answer one prompt and show how the method came to it."),
    "report": ("adhere.cli.report:report", "Write a run's report.html again, print its table."),
    "compare": ("adhere.cli.compare:compare", "Compare two runs, paired prompt by prompt."),
    "init": ("adhere.cli.init:init", "Make a starter spec, prompts and adhere.yaml."),
    "spec": ("adhere.cli.spec:app", "Check a spec file; show what differs between two."),
    "models": ("adhere.cli.models:app", "List, pull and show the models that run here."),
}
for _name, (_target, _help) in _COMMANDS.items():
    app.command(_target, name=_name, help=_help)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; exits the process with the design's exit codes."""
    try:
        code = app(argv, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        _fail(str(error), "See `adhere --help`.")
        sys.exit(EXIT_BAD_INPUT)
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


def _fail(message: str, hint: str) -> None:
    sys.stderr.write(f"adhere: {message}\n")
    if hint:
        sys.stderr.write(f"        {hint}\n")
