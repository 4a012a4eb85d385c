"""Data sets with their scoring: what a model is asked."""

from adhere.suites.base import Suite
from adhere.suites.prompts_file import load_prompts

__all__ = ["Suite", "load_prompts"]
