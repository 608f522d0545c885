"""Corpora of stored latents: encoding a data set to Parquet shards, and reading them back."""
