"""adhere: measure, steer, train and report how well a language model follows a written spec.

This package imports nothing heavy. The parts live where their names say:
`adhere.spec.load_spec`, `adhere.methods`, `adhere.experiments`, `adhere.reporting`.
"""

__version__ = "0.1.0"
