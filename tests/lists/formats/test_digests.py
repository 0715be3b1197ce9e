"""Digest lists: tables, Project VIC or CAID, and ThreatExchange's CSV."""

import hashlib
import io
import json
from pathlib import Path

import pytest

from lists.formats.support import DATA, read
from rows import each_row
from urlward.lists.formats import FormatError, FormatOptions, Skipped, convert
from urlward.lists.source import Report, SourceError, read_source


def of(algorithm: str, name: str) -> str:
    return hashlib.new(algorithm, f"invented {name}".encode()).hexdigest()


MD5, SHA1, SHA256, PDQ = of("md5", "a"), of("sha1", "a"), of("sha256", "a"), of("sha256", "picture")


# -- tables


def test_each_digest_of_a_row_is_an_entry() -> None:
    text = (
        "ID,pdq,SHA-256,distance,sha1,MD5,category,expires\n"
        f"7,{PDQ.upper()},{SHA256},20,{SHA1},{MD5},csam,2027-01-31\n"
        f"8,,-,,n/a,{MD5[::-1]},,\n"
        f"9,{PDQ},,,,,,\n"
    )
    found, skipped = read("csv", text)
    more = "id=7 category=csam expires=2027-01-31"
    assert found == [
        f"sha256:{SHA256} {more}",
        f"sha1:{SHA1} {more}",
        f"md5:{MD5} {more}",
        f"pdq:{PDQ} distance=20 {more}",
        f"md5:{MD5[::-1]} id=8",
        f"pdq:{PDQ} id=9",
    ]
    assert not skipped
    assert read("auto", text)[0] == found


def test_named_and_numbered_columns() -> None:
    assert read("csv", f"hash;x\n{MD5};1\n", {"md5": "Hash"}, ";")[0] == [f"md5:{MD5}"]
    assert read("csv", f"{MD5}\n{MD5[::-1]}\n", {"md5": "1"})[0] == [f"md5:{MD5}", f"md5:{MD5[::-1]}"]


@pytest.mark.parametrize("kind", ["json", "jsonl"])
def test_records(kind: str) -> None:
    record = json.dumps({"sha256": SHA256, "md5": MD5, "pdq": PDQ, "distance": 0, "id": 5})
    found, skipped = read(kind, f"[{record}]" if kind == "json" else record)
    assert found == [f"sha256:{SHA256} id=5", f"md5:{MD5} id=5", f"pdq:{PDQ} distance=0 id=5"]
    assert not skipped


@each_row("kind", ["csv", "json", "jsonl"])
def test_digests_beside_an_address_count_where_somebody_says_so(kind: str) -> None:
    """They are of what was found there, which a list of addresses need not list."""
    record = {"url": "http://a.example/x", "md5": MD5}
    text = {"csv": f"url,md5\n{','.join(record.values())}\n", "json": json.dumps([record])}.get(
        kind, json.dumps(record)
    )
    assert read(kind, text)[0] == ["http://a.example/x"]
    assert read(kind, text, {"url": "url", "md5": "md5"})[0] == ["http://a.example/x", f"md5:{MD5}"]
    assert read(kind, text, {"md5": "md5"})[0] == [f"md5:{MD5}"]


@each_row(
    "value",
    [MD5[1:], MD5 + "0", MD5[:-1] + "g", f"{MD5} id=x", f"{MD5}#", "1", SHA1, "md5:" + MD5, "٣" * 32],
)
def test_what_is_no_digest_is_one_bad_line_and_the_others_are_taken(value: str) -> None:
    found, [skipped] = read("csv", f"md5,sha1\n{value},{SHA1}\n")
    assert found == [f"sha1:{SHA1}"]
    assert (skipped.line, skipped.unsupported) == (2, False)
    assert value not in skipped.reason


@each_row("distance", ["64", "-1", "x", "1 id=5"])
def test_a_distance_that_is_none(distance: str) -> None:
    found, [skipped] = read("csv", f"pdq,md5,distance\n{PDQ},{MD5},{distance}\n")
    assert found == [f"md5:{MD5}"]
    assert "distance is a number" in skipped.reason


def test_a_row_without_any_digest() -> None:
    found, [skipped] = read("csv", f"md5,sha1,id\n{MD5},{SHA1},1\n,,2\n")
    assert len(found) == 2
    assert skipped.reason == "no url, host, domain or digest in it"


def test_digests_of_an_empty_file_are_bad_lines() -> None:
    found, skipped = read("csv", f"md5\n{hashlib.md5(b'').hexdigest()}\n{MD5}\n")
    assert found == [f"md5:{MD5}"]
    assert [each.reason for each in skipped] == ["the digest of an empty file"]


def test_an_id_that_is_another_digest_of_the_file_stays_nowhere(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text(f"id,sha256\n{MD5},{SHA256}\n")
    taken = []

    class Taken:
        def add(self, entry: object) -> None:
            taken.append(entry)

    read_source(path, Taken(), Report())  # type: ignore[arg-type]
    assert MD5 not in repr(taken)
    assert SHA256 in repr(taken)


# -- Project VIC


def vic(*records: object, **more: object) -> str:
    return json.dumps({"@odata.context": "http://x.example/ProjectVic#Media", "value": list(records), **more})


def converted(kind: str, text: str, *take: str, category: str = "") -> tuple[list[str], list[Skipped]]:
    options = FormatOptions(category=category, take=take)
    found = list(convert(kind, io.BytesIO(text.encode()), options))
    return [f for f in found if isinstance(f, str)], [f for f in found if isinstance(f, Skipped)]


def test_the_sample_of_project_vic() -> None:
    found, skipped = read("projectvic", (DATA / "projectvic.json").read_bytes())
    assert found == [
        f"sha1:{of('sha1', '1')} id=1 category=csam",
        f"md5:{of('md5', '1')} id=1 category=csam",
        f"md5:{of('md5', '3')} id=3 category=csam",
        f"sha1:{of('sha1', '5')} id=5 category=csam",
    ]
    assert [(s.line, s.unsupported) for s in skipped] == [(2, True), (4, True), (5, False), (6, False)]


def test_categories_are_chosen() -> None:
    records = [{"MediaID": n, "Category": n, "MD5": of("md5", str(n))} for n in range(4)]
    assert [line.split()[1] for line in converted("projectvic", vic(*records))[0]] == ["id=1"]
    found, skipped = converted("projectvic", vic(*records), "2", "3", category="other")
    assert [line.split()[1:] for line in found] == [["id=2", "category=other"], ["id=3", "category=other"]]
    assert all(each.unsupported for each in skipped)


def test_the_media_of_a_case() -> None:
    case = {"CaseID": "c", "Media": [{"MediaID": n, "Category": 1, "MD5": of("md5", str(n))} for n in (1, 2)]}
    assert len(converted("projectvic", vic(case, case))[0]) == 4


@each_row("text", ["[]", '{"value": [', '{"value": [{"Category": 1}', "x"])
def test_what_is_no_export_of_project_vic(text: str) -> None:
    with pytest.raises(FormatError):
        converted("projectvic", text)


def test_an_export_with_nothing_in_it_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "vic.json"
    path.write_text(vic())
    with pytest.raises(SourceError, match="no entry in it"):
        read_source(path, None, Report())  # type: ignore[arg-type]


# -- ThreatExchange


def test_the_sample_of_threatexchange() -> None:
    found, skipped = read("threatexchange", (DATA / "threatexchange.csv").read_bytes(), category="csam")
    assert [line.partition(":")[0] for line in found] == ["pdq", "md5", "http"]
    assert found[2] == "http://page.example/a%20b category=csam"
    assert [(s.line, s.unsupported) for s in skipped] == [(4, True), (5, True), (7, True), (8, False)]


def test_columns_in_any_order_and_a_category_of_ones_choice() -> None:
    text = f"category,signal_str,signal_type\nINVESTIGATION_SEED,{MD5},md5\nPOSITIVE_CLASS,{SHA1},sha1\n"
    assert converted("threatexchange", text)[0] == [f"sha1:{SHA1}"]
    assert converted("threatexchange", text, "INVESTIGATION_SEED")[0] == [f"md5:{MD5}"]


def test_a_kind_and_a_signal_a_line() -> None:
    text = f"pdq {PDQ}\nvideo_md5  {MD5.upper()}\n"
    found = [f"pdq:{PDQ}", f"md5:{MD5}"]
    assert converted("threatexchange", text)[0] == converted("auto", text.replace("  ", " "))[0] == found
    assert converted("threatexchange", f"{text}raw_text some words\nmd5 x\n")[0] == found


def test_what_is_no_export_of_threatexchange() -> None:
    with pytest.raises(FormatError, match="no columns signal_type and signal_str"):
        converted("threatexchange", f"md5,id\n{MD5},1\n")


@each_row(
    ("kind", "reason"),
    [("csv", "no categories of its own"), ("urls", "no categories of its own"), ("auto", "needs a format")],
)
def test_formats_without_categories_have_none_to_choose(kind: str, reason: str) -> None:
    with pytest.raises(FormatError, match=reason):
        converted(kind, f"md5\n{MD5}\n", "1")
