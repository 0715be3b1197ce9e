"""Objections: what users say about a block, and what is decided."""
