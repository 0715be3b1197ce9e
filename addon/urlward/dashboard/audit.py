"""Page over the audit log, its export, and the same for scripts."""

import csv
import io
import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from urllib.parse import urlencode

from urlward.dashboard import asked
from urlward.dashboard.api import Api
from urlward.dashboard.handler import Base
from urlward.dashboard.pages import EXPORT_PAGE, Page
from urlward.dashboard.sources import Row
from urlward.engine.errors import UrlwardError
from urlward.records.event import plain_cell
from urlward.state.audit_view import TOPICS, ChangeQuery

COLUMNS = ("line", "time", "action", "who", "detail")

_FILTERS = ("kind", "who", "list", "since", "until")


class _OfAudit(Base):
    """Common part of the page, the export and the interface for scripts."""

    def query(self, limit: int = 50) -> ChangeQuery:
        """Parse the filters.

        Raises:
            AdminError: one does not fit.
        """
        kinds = [kind for kind in self.get_query_arguments("kind") if kind]
        return asked.change_query(lambda name: self.get_query_argument(name, ""), kinds, limit=limit)

    async def find(self, query: ChangeQuery) -> tuple[list[Row], str]:
        """Find lines as the visitor may see them, and the place before them."""
        return await self.ask(self.context.trail.find, query, self.role())


class AuditPage(Page, _OfAudit):
    """Page of who changed what."""

    async def get(self) -> None:
        """Show the lines that match the filters, and whether the chain holds."""
        rows, older, error = list[Row](), "", ""
        try:
            rows, older = await self.find(self.query())
        except UrlwardError as e:
            self.set_status(400)
            error = str(e)
        verified, problem = await self.ask_if_there(self.context.trail.verified, self.context.steady())
        given = self.filters(_FILTERS)
        self.page(
            "audit", "audit.title", error=error, problem=problem, verified=verified, rows=rows,
            given=dict(given), chosen=self.get_query_arguments("kind"), topics=TOPICS,
            newest=urlencode(given), older=urlencode([*given, ("before", older)]) if older else "",
            paged=bool(self.get_query_argument("before", "")),
        )  # fmt: skip


class AuditExport(Page, _OfAudit):
    """Export of all matching lines, as a file."""

    async def get(self, form: str = "csv") -> None:
        """Send the file."""
        asked.heeded(self.request.query_arguments, asked.OF_AUDIT)
        wanted = replace(self.query(), limit=EXPORT_PAGE)
        write: Callable[[Iterable[Row]], str] = _csv if form == "csv" else _lines

        async def page(before: str) -> tuple[str, str]:
            rows, older = await self.find(replace(wanted, before=int(before)) if before else wanted)
            return write(rows), older

        await self.send_file("audit", form, COLUMNS, page)


class AuditApi(Api, _OfAudit):
    """Search in the audit log, for scripts."""

    async def get(self) -> None:
        """Return a page of lines, ``older`` being the ``before`` of the next, and whether the chain holds."""
        asked.heeded(self.request.query_arguments, asked.OF_AUDIT)
        rows, older = await self.find(self.query(limit=100))
        verified = await self.ask(self.context.trail.verified, self.context.steady())
        self.write_json(
            {"changes": rows, "older": older or None, "holds": verified.holds, "said": verified.words}
        )


def _csv(rows: Iterable[Row]) -> str:
    text = io.StringIO()
    written = ({**row, "line": row["line"] or "", "detail": json.dumps(row["detail"])} for row in rows)
    csv.writer(text).writerows([plain_cell(str(row[name])) for name in COLUMNS] for row in written)
    return text.getvalue()


def _lines(rows: Iterable[Row]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)
