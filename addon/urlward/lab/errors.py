"""What goes wrong in the lab, each in one line for who runs it."""

from urlward.engine.errors import UrlwardError


class LabError(UrlwardError):
    """The lab cannot do what it was asked to; the message says what to do about it."""
