"""Benchmark of lists of files: a million exact digests and a million PDQ digests in one list."""
