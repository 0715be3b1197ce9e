"""Benchmark of hooks in resolvers."""
