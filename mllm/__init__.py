"""Fieldmark: multimodal models that tell one species from its double, and point at it."""
