"""The built-in default: a small drawn world, a tiny model trained on it, and an oracle that knows it."""
