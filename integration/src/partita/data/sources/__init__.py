"""Sources of data sets: folders of audio, tables, archives, their splits, and their metadata."""
