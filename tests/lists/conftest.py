"""The log, as tests of feeds have it."""

from feeds.conftest import caplog

__all__ = ["caplog"]
