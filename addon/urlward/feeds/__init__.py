"""Feeds: lists fetched on a schedule."""
