"""Replay: what lists would have blocked, read from access logs."""
