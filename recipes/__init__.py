"""Training programs, one readable story each; run them with `accelerate launch recipes/sft.py`."""
