import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.support import examples
from rows import each_row
from urlward.lists.formats import rpz
from urlward.lists.formats.format import Skipped
from urlward.lists.formats.rpz import MAX_RECORD, Record, records


def read(text: str) -> list[Record | Skipped]:
    return list(records(io.BytesIO(text.encode())))


def names(text: str) -> list[str]:
    return [record.name for record in read(text) if isinstance(record, Record)]


def test_names_are_relative_to_the_zone() -> None:
    text = "$ORIGIN rpz.test.\n@ SOA a. b. 1 2 3 4 5\nA.example CNAME .\nb.example.rpz.test. CNAME .\n"
    assert names(f"{text}$ORIGIN example\nc CNAME .\n$ORIGIN c.rpz.test.\nd CNAME .\n@ CNAME .\n") == [
        "a.example", "b.example", "c.example", "d.c", "c",
    ]  # fmt: skip


@each_row(
    "text",
    [
        "@ SOA a. b. 1 2 3 4 5\nx.example CNAME .\n",
        "rpz.test. SOA a. b. 1 2 3 4 5\nx.example.rpz.test. CNAME .\n",
        "x.example CNAME .\n",
    ],
    ids=["at", "SOA", "nothing"],
)
def test_without_an_origin(text: str) -> None:
    assert names(text)[-1] == "x.example"


def test_an_absolute_name_that_no_zone_is_known_for_is_bad() -> None:
    assert read("x.example. CNAME .\n") == [
        Skipped(1, 1, "an absolute name, and no $ORIGIN or SOA says of which zone")
    ]


def test_a_name_outside_the_zone_is_bad() -> None:
    assert read("$ORIGIN rpz.test.\nx.example. CNAME .\nxrpz.test. CNAME .\n") == [
        Skipped(2, 1, "a name outside the zone"), Skipped(3, 1, "a name outside the zone"),
    ]  # fmt: skip


def test_a_record_without_a_name_is_for_the_last() -> None:
    text = "$ORIGIN rpz.test.\na 60 IN A 192.0.2.1\n  IN 60 AAAA 2001:db8::1\n"
    found = read(f'{text}\tTXT (\n "a ( b" ; )\n )\nb A 192.0.2.1\n')
    assert [(r.line, r.name, r.type) for r in found if isinstance(r, Record)] == [
        (2, "a", "A"), (3, "a", "AAAA"), (4, "a", "TXT"), (7, "b", "A"),
    ]  # fmt: skip
    assert read(" CNAME .\n") == [Skipped(1, 1, "a record without a name")]


def test_targets() -> None:
    text = "$ORIGIN rpz.test.\na CNAME .\nb CNAME *.\nc CNAME rpz-drop. ; x\n"
    text += "d CNAME Garden\ne CNAME @\nf A 192.0.2.1\n"
    found = [record.target for record in read(text) if isinstance(record, Record)]
    assert found == ["", "*", "rpz-drop", "garden.rpz.test", "rpz.test", None]


@each_row(
    ("line", "reason", "unsupported"),
    [
        ("$INCLUDE other.zone", "a directive other than $ORIGIN and $TTL", True),
        ("$GENERATE 1-9 h$ CNAME .", "a directive other than $ORIGIN and $TTL", True),
        ("$ORIGIN", "a directive other than $ORIGIN and $TTL", True),
        ("secret CNAME", "not a record of a zone file", False),
        ("secret CNAM .", "not a record of a zone file", False),
        ("secret..example CNAME .", "not a record of a zone file", False),
        ("secret CH CNAME .", "not a record of a zone file", False),
        ("secret A 192.0.2", "not a record of a zone file", False),
        ('secret TXT "a', "not a record of a zone file", False),
        ("a" * 64 + " TXT x", "not a record of a zone file", False),
        ("secret TXT (", "a record that does not end", False),
    ],
)
def test_a_record_that_cannot_be_read_is_one_bad_line(line: str, reason: str, unsupported: bool) -> None:
    found = read(f"$ORIGIN rpz.test.\na CNAME .\n{line}\n")
    assert found[1:] == [Skipped(3, 1, reason, unsupported)]


def test_a_record_that_never_ends_takes_no_memory_and_what_follows_is_read() -> None:
    line = "x" * 1000 + "\n"
    found = read("a CNAME .\nb TXT (\n" + line * (MAX_RECORD // 1000 + 1) + "c CNAME .\n")
    assert found[1] == Skipped(2, 1, "a record that does not end")
    assert isinstance(found[-1], Record)
    assert found[-1].name == "c"


_NAMES = st.sampled_from(["a", "*.a", "A.b-c_d", "a.rpz.test.", "@", "rpz.test.", "1.2", "a.b.", "*"])
_TARGETS = st.sampled_from([".", "*.", "rpz-drop.", "a", "@", "B.c."])
_TTLS = st.sampled_from(["", "60 ", "2h ", "IN ", "in 60 ", "60 IN "])


@examples(300)
@given(_NAMES, _TTLS, st.sampled_from(["CNAME", "cname"]), _TARGETS, st.sampled_from(["", " ; x", ";x"]))
def test_simple_lines_are_read_as_dnspython_reads_them(
    name: str, ttl: str, kind: str, target: str, end: str
) -> None:
    text = f"$ORIGIN rpz.test.\n{name} {ttl}{kind} {target}{end}\n"
    found = read(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rpz, "_SIMPLE", lambda _: None)
        assert read(text) == found
