"""Errors of the lab, each one line for whoever runs it."""

from urlward.engine.errors import UrlwardError


class LabError(UrlwardError):
    """The lab cannot do what it was asked to; the message says what to do about it."""
