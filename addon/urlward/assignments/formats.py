"""Registry of the file formats that assignments are read from."""

from urlward.assignments.cgn import CgnParser
from urlward.assignments.columns import ColumnsParser
from urlward.assignments.isc import IscParser
from urlward.assignments.kea import KeaParser
from urlward.assignments.parsers import MakeParser
from urlward.assignments.radius import DetailParser

FORMATS: dict[str, MakeParser] = {
    "kea": KeaParser,
    "isc": IscParser,
    "detail": DetailParser,
    "cgn": CgnParser,
    "ports": ColumnsParser,
    "csv": ColumnsParser,
}

RADACCT = "radacct"
"""FreeRADIUS's table, which is no file."""

DETERMINISTIC = "deterministic"
"""A translator's formula, which is not read at all."""
