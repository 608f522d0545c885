"""Audio files: exact reading of any part, writing, and resampling."""
