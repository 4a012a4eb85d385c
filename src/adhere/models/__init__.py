"""Ways to reach a language model: over HTTP, or in an embedded engine."""
