"""Readers and writers of spec files: Markdown, YAML, SpecBench JSON, to and from one object."""

from adhere.spec.formats.files import FORMATS, Format, load_spec, read_spec, read_text
from adhere.spec.formats.markdown import write_markdown
from adhere.spec.formats.specbench import specbench_losses, write_scenario, write_specbench
from adhere.spec.formats.yaml import write_yaml

__all__ = [
    "FORMATS",
    "Format",
    "load_spec",
    "read_spec",
    "read_text",
    "specbench_losses",
    "write_markdown",
    "write_scenario",
    "write_specbench",
    "write_yaml",
]
