"""Experiments: plan, run, metrics with intervals, summary, comparison of runs."""
