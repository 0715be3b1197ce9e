"""Errors of a replay, each one line for who runs it, without any text of a log."""

from urlward.engine.errors import UrlwardError


class ReplayError(UrlwardError):
    """A log cannot be replayed; the message says what to do about it."""


class BadLineError(UrlwardError):
    """A line of a log that cannot be read; the message says why."""
