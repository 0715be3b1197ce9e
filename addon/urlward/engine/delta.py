"""Deltas between artifacts: make and apply, at the size of what has changed.

`make_delta` is for the list body, who has both artifacts; `apply_delta` for the provider, who has the
old one and gets the very bytes of the new one, and with them a change file, by which a filter that
has the old one loaded takes the new one into use.
"""

from urlward.engine.change import Change, read_change
from urlward.engine.delta_apply import Applied, apply_delta, extent
from urlward.engine.delta_format import DeltaError
from urlward.engine.delta_make import make_delta

__all__ = ["Applied", "Change", "DeltaError", "apply_delta", "extent", "make_delta", "read_change"]
