"""Synthesized music: a small labeled data set that needs no recordings."""
