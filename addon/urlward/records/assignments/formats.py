"""The formats of files that assignments are read from."""

from urlward.records.assignments.cgn import CgnParser
from urlward.records.assignments.columns import ColumnsParser
from urlward.records.assignments.isc import IscParser
from urlward.records.assignments.kea import KeaParser
from urlward.records.assignments.parsers import MakeParser
from urlward.records.assignments.radius import DetailParser

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
