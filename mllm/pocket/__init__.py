"""The embedded default: a small drawn world, a tiny model that has seen it, and an oracle that knows it."""
