"""IterAlign: find the rules that a model lacks, let it correct itself by them, train, repeat.

Source: arXiv 2403.18341 and its released code. The modules alone: `redteam.py` (a pool of prompts,
`pool.py`; which answers are bad, `finding.py`), `propose.py` (an oracle writes rules,
`proposing.py`), `reflect.py` (the policy answers again, `reflecting.py`; which revisions are good
enough, `gate.py`). `ledger.py` keeps the rules; `loop.py` goes through the rounds (`steps.py` their
phases, `ending.py` when it ends, `held_out.py` what models are measured on).
"""
