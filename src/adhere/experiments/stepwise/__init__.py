"""Runs whose rows go forward step by step, each step asking at most one model.

Pairs, distilled rows and adaptive attacks are made so. What a row's steps are, is said by the kind
of run (`Steps`); here is what all share: who is open (`seats`), how rows go on after a kill or when
the model that they wait for has its turn (`rows`), and one start of the whole (`run`).
"""
