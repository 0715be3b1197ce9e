"""Objections of users to blocks, and the decisions on them."""
