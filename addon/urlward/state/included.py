"""Included file that need not be there: whether it is not there yet, or was lost.

The last file of ``include`` is the one that the dashboard writes new tables to, and makes for the first of
them. The audit log has each edit of it, by which is known that there was one.
"""

import os
from pathlib import Path

from urlward.config import Config
from urlward.state.audit import FILE
from urlward.state.audit_view import ChangeQuery, find_changes
from urlward.state.watch import Signature

_EDITED = ChangeQuery(topics=("configuration",), limit=10_000)


class LastIncluded:
    """The last file that a configuration includes.

    Args:
        config: which.
        state: the state folder.
    """

    def __init__(self, config: Config, state: Path) -> None:
        sources = config.sources
        self._path = sources.files[-1].path if sources is not None and len(sources.files) > 1 else None
        self._state = state
        self._known: tuple[Signature | None, bool] | None = None

    @property
    def absent(self) -> str:
        """Words where it is not there."""
        if self._path is None or os.path.lexists(self._path):
            return ""
        return f"{self._path}: not there: nothing is included from it"

    @property
    def lost(self) -> str:
        """Words where it is not there, and was.

        Raises:
            StateError: the audit log cannot be read.
        """
        if self._path is None or os.path.lexists(self._path) or not self._was_edited(self._path):
            return ""
        return (
            f"{self._path}: gone, and the dashboard had written to it: what it had is not in force after a "
            f"reload or a start; {self._state}/versions has what it was before each edit"
        )

    def _was_edited(self, path: Path) -> bool:
        seen = Signature.of(self._state / FILE)
        if self._known is None or self._known[0] != seen:
            found = find_changes(self._state, _EDITED)
            self._known = seen, any(change.fields.get("file") == str(path) for change in found)
        return self._known[1]
