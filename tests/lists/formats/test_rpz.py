import pytest

from engine.support import matcher
from lists.formats.support import lines, read
from rows import each_row
from urlward.lists.formats import rpz

ZONE = "$ORIGIN rpz.test.\n@ SOA a. b. 1 2 3 4 5\n@ NS a.\n"


def entries(text: str) -> list[str]:
    return lines("rpz", ZONE + text)


@each_row(
    ("action", "allow"),
    [
        ("CNAME .", ""),
        ("CNAME *.", ""),
        ("CNAME rpz-drop.", ""),
        ("CNAME garden.example.", ""),
        ("CNAME *.garden.example.", ""),
        ("A 192.0.2.1", ""),
        ("AAAA 2001:db8::1", ""),
        ("TXT x", ""),
        ("CNAME rpz-passthru.", "@@"),
        ("CNAME RPZ-PASSTHRU.", "@@"),
    ],
)
def test_actions(action: str, allow: str) -> None:
    assert entries(f"a.example {action}\n") == [f"{allow}0.0.0.0 a.example"]
    assert entries(f"a.example {action}\n*.a.example {action}\n") == [f"{allow}a.example"]
    assert entries(f"*.A.example {action}\na.example {action}\n") == [f"{allow}a.example"]


def test_a_name_led_to_itself_is_let_pass() -> None:
    assert entries("a.example CNAME a.example.\n") == ["@@0.0.0.0 a.example"]


def test_what_is_blocked() -> None:
    text = "one.example CNAME .\nall.example CNAME .\n*.all.example CNAME .\n"
    text += "ok.all.example CNAME rpz-passthru.\n"
    check = matcher(*entries(text)).check_url
    for url in (
        "http://one.example/x",
        "http://all.example/",
        "https://x.all.example/",
        "http://x.ok.all.example/",
    ):
        assert check(url).blocked
    for url in ("http://x.one.example/", "http://ok.all.example/"):
        assert not check(url).blocked


def test_records_of_one_name_are_one_entry() -> None:
    text = "a.example A 192.0.2.1\n AAAA 2001:db8::1\n*.a.example A 192.0.2.1\n AAAA 2001:db8::1\n"
    assert entries(text) == ["a.example"]


def test_the_zone_itself_and_its_signatures_are_no_policy() -> None:
    assert entries("@ A 192.0.2.1\n@ TXT x\na.example NSEC b.example. A\n") == []


@each_row(
    ("name", "network"),
    [
        ("24.0.2.0.192.rpz-ip", "192.0.2.0/24"),
        ("32.7.2.0.192.rpz-ip", "192.0.2.7/32"),
        ("128.7.0.0.0.0.0.db8.2001.rpz-ip", "2001:db8::7/128"),
        ("128.7.zz.db8.2001.rpz-ip", "2001:db8::7/128"),
        ("48.zz.1.db8.2001.rpz-ip", "2001:db8:1::/48"),
        ("128.1.zz.rpz-ip", "::1/128"),
        ("8.0.0.0.10.rpz-ip", "10.0.0.0/8"),
    ],
)
def test_networks(name: str, network: str) -> None:
    assert entries(f"{name} CNAME .\n") == [network]
    assert entries(f"{name} CNAME rpz-passthru.\n") == [f"@@{network}"]


@each_row(
    ("record", "reason", "unsupported"),
    [
        ("*.a.example CNAME .", "what is below a name, but not the name itself", True),
        ("* CNAME .", "every name there is", True),
        ("a.*.example CNAME .", "an asterisk inside a name", False),
        ("a.example CNAME rpz-tcp-only.", "an action that neither blocks nor lets pass", True),
        ("a.example CNAME rpz-passthru", "an action without its last dot", False),
        ("a.example CNAME rpz-drop", "an action without its last dot", False),
        ("24.0.2.0.192.rpz-client-ip CNAME .", "a trigger other than a name or rpz-ip", True),
        ("24.0.2.0.192.rpz-nsip CNAME .", "a trigger other than a name or rpz-ip", True),
        ("ns.example.rpz-nsdname CNAME .", "a trigger other than a name or rpz-ip", True),
        ("24.7.2.0.192.rpz-ip CNAME .", "not a network", False),
        ("rpz-ip CNAME .", "not a network", False),
        ("x.rpz-ip CNAME .", "not a network", False),
        ("a.example DNAME b.example.", "a DNAME record, which is no policy", True),
        ("192.0.2.7 CNAME .", "an address for a name", False),
        (r"a\.b.example CNAME .", "host has a character that", False),
        (r"a\032b.example CNAME .", "host has a character that", False),
    ],
)
def test_not_taken(record: str, reason: str, unsupported: bool) -> None:
    found, [skipped] = read("rpz", f"{ZONE}{record}\n")
    assert not found
    assert (skipped.line, skipped.unsupported) == (4, unsupported)
    assert skipped.reason.startswith(reason)


def test_names_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpz, "WINDOW", 2)
    near = "a.example CNAME .\nb.example CNAME .\n*.a.example CNAME .\n"
    assert sorted(entries(near)) == ["0.0.0.0 b.example", "a.example"]
    far = "a.example CNAME .\nb.example CNAME .\nc.example CNAME .\n*.a.example CNAME .\n"
    found, [skipped] = read("rpz", ZONE + far)
    assert found == ["0.0.0.0 a.example", "0.0.0.0 b.example", "0.0.0.0 c.example"]
    assert skipped.unsupported
