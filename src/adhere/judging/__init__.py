"""Turning responses into marks, verdicts and scores."""

from adhere.judging.base import CheckJudge, Judge, check_verdict
from adhere.judging.scoring import ALPHA, NaPolicy, Score, score

__all__ = ["ALPHA", "CheckJudge", "Judge", "NaPolicy", "Score", "check_verdict", "score"]
