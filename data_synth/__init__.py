"""Data programs, one readable story each, resumable stage by stage."""
