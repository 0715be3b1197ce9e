"""``urlward check`` with a configuration: as the filter would decide, for whom and when, and why."""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from urlward import cli
from urlward.policy.allows import add_allow
from urlward.state.folder import local_key

CONFIG = """\
list = ["list.txt"]
state = "state"

[[group]]
name = "pupils"
networks = ["192.0.2.0/24"]
  [[group.rule]]
  categories = ["games"]
  action = "block"
  schedule = "lessons"
  [[group.rule]]
  categories = ["games"]
  action = "allow"

[[rule]]
categories = ["ads"]
action = "monitor"

[schedule.lessons]
zone = "UTC"
days = ["mon"]
from = "08:00"
to = "12:00"
"""
LIST = "games.example category=games id=C-1\nads.example category=ads id=C-2\nother.example id=C-3\n"
LESSON, BREAK = "2026-11-23T09:00:00Z", "2026-11-23T13:00:00Z"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "list.txt").write_text(LIST)
    path = tmp_path / "urlward.toml"
    path.write_text(CONFIG)
    return path


type Check = Callable[..., tuple[int, str]]


@pytest.fixture
def check(config: Path, capsys: pytest.CaptureFixture[str], compiles_here: None) -> Check:
    def run(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as raised:
            cli.main(["check", "--config", str(config), *arguments])
        assert isinstance(raised.value.code, int)
        captured = capsys.readouterr()
        return raised.value.code, captured.out + captured.err

    return run


@pytest.mark.parametrize(
    ("client", "at", "host", "verdict"),
    [
        ("192.0.2.5", LESSON, "games.example", "block"),
        ("192.0.2.5", BREAK, "games.example", "pass"),
        ("198.51.100.1", BREAK, "games.example", "block"),
        ("198.51.100.1", LESSON, "ads.example", "monitor"),
        ("192.0.2.5", LESSON, "ads.example", "block"),
        ("192.0.2.5", LESSON, "unlisted.example", "pass"),
    ],
)
def test_for_whom_and_when(check: Check, client: str, at: str, host: str, verdict: str) -> None:
    code, out = check("--client", client, "--at", at, "--json", host)
    assert json.loads(out)["verdict"] == verdict
    assert code == (1 if verdict == "block" else 0)


def test_why(check: Check) -> None:
    code, out = check("--client", "192.0.2.5", "--at", BREAK, "--explain", "http://games.example/page")
    assert code == 0
    assert "pass for 192.0.2.5, in group pupils (group.0.networks.0), at 2026-11-23T13:00:00Z" in out
    assert "C-1 games in list on games.example: by group.0.rule.1; group.0.rule.0 fits, out of its" in out


def test_what_a_protected_host_is_kept_from(check: Check, config: Path) -> None:
    config.write_text('state = "state"\n[[feed]]\nname = "list"\npath = "list.txt"\n')
    (config.parent / "state").mkdir(mode=0o700)
    _, out = check("--explain", "https://localhost/page")
    assert (
        "protected   no feed blocks this host whole, or has it decrypted: over HTTPS, pages on it pass" in out
    )
    assert "protected" not in check("--explain", "https://games.example/page")[1]


def test_that_the_filter_blocks_less_is_told(
    check: Check, config: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Or whoever asks why a listed page is to be seen is told that it is blocked."""
    config.write_text(f"monitor = true\nintercept = 'none'\n{CONFIG}")
    assert check("http://other.example/")[0] == 1
    assert "monitor: the filter lets pass what is blocked here" in caplog.text
    assert "intercept: of what is asked for over TLS" in caplog.text


def test_why_as_json(check: Check) -> None:
    _, out = check("--client", "192.0.2.5", "--at", LESSON, "--explain", "--json", "games.example")
    explained = json.loads(out)["explanation"]
    assert explained["decided"]["rule"] == "group.0.rule.0"
    assert explained["decided"]["schedule"] == "lessons"
    assert explained["until"] == "2026-11-23T12:00:00Z"
    assert explained["protected"] is False


def test_what_is_allowed_for_a_while_counts(check: Check, config: Path) -> None:
    state = config.parent / "state"
    assert check("other.example")[0] == 1
    add_allow(state, local_key(state), "other.example", 3600, "x", "me", whole_host=False, now=time.time())
    code, out = check("--explain", "other.example")
    assert code == 0
    assert "an exception" in out


@pytest.fixture
def given(config: Path) -> Iterator[Path]:
    """The configuration as a shell's ``<(command)`` gives it: whoever reads it again finds nothing."""
    folder = config.parent
    text = CONFIG.replace("list.txt", str(folder / "list.txt")).replace('"state"', f'"{folder / "state"}"')
    end, other = os.pipe()
    os.write(other, text.encode())
    os.close(other)
    yield Path(f"/dev/fd/{end}")
    os.close(end)


def test_a_configuration_that_the_shell_gives(check: Check, config: Path, given: Path) -> None:
    state = config.parent / "state"
    add_allow(state, local_key(state), "other.example", 3600, "x", "me", whole_host=False, now=time.time())
    code, out = check("--config", str(given), "--explain", "other.example")
    assert code == 0
    assert "allowed by  me, until" in out


def test_a_helper_with_such_a_configuration(given: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "urlward", "helper", "squid", "--config", str(given)],
        input=b"0 GET http://other.example/ 192.0.2.5 -\n",
        pass_fds=[int(given.name)],
        capture_output=True,
        check=True,
    )
    assert done.stdout.startswith(b"0 OK "), done
    assert b"C-3" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--at", "noon", "a.example"), "at: 'noon' is not a date"),
        (("--client", "pupils", "a.example"), "client: 'pupils' is not an address"),
        (("--client", "", "a.example"), "client: '' is not an address"),
        (("--max-errors", "x", "a.example"), "max-errors: 'x' is not a count"),
    ],
)
def test_bad_arguments_are_one_line(check: Check, arguments: tuple[str, ...], problem: str) -> None:
    code, out = check(*arguments)
    assert code == 2
    assert out.startswith(f"urlward: {problem}")
    assert out.count("\n") == 1


def test_a_list_of_another_format_is_recognised(tmp_path: Path) -> None:
    path = tmp_path / "rules.txt"
    path.write_text("||a.example/ads/^\n||b.example^$third-party\n")
    done = _command("check", "--list", path, "http://a.example/ads/", "http://b.example/")
    assert (done.returncode, done.stdout.splitlines()[0][:5]) == (1, "block")
    assert done.stderr.splitlines() == [
        f"list {path}: read as format adblock, by its first lines",
        f"list {path}: 1 lines are of a kind that cannot be taken; first: {path}:2:1: "
        "an option that changes what the rule means",
    ]
    done = _command("check", "--list", path, "--format", "grammar", "http://a.example/")
    assert done.returncode == 2
    assert "2 lines could not be read" in done.stderr
    assert done.stderr.endswith("; it looks like format adblock\n")


def test_the_format_that_is_said(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("url\nhttp://a.example/x\n")
    done = _command("check", "--list", path, "--format", "csv", "http://a.example/x")
    assert (done.returncode, done.stderr) == (1, "")


def _command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "urlward", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


# -- files


CONTENT = b"an invented file"
SHA1, MD5 = hashlib.sha1(CONTENT).hexdigest(), hashlib.md5(CONTENT).hexdigest()


@pytest.fixture
def listed(config: Path) -> Path:
    """A file that the list has for everybody by one digest, and for pupils at their lessons by another."""
    lines = f"sha1:{SHA1} category=games id=C-4\nmd5:{MD5} category=ads id=C-5\n"
    (config.parent / "list.txt").write_text(LIST + lines)
    path = config.parent / "a file"
    path.write_bytes(CONTENT)
    return path


def test_a_file_by_its_digests(check: Check, listed: Path) -> None:
    other = listed.with_name("other")
    other.write_bytes(CONTENT + b".")
    code, text = check("--file", str(listed), "--file", str(other), "http://unlisted.example/")
    assert code == 1
    assert text.splitlines()[-3:] == [
        "pass   http://unlisted.example/",
        f"block  {listed}  kind=file algorithm=sha1 digest={SHA1} id=C-4 category=games list=list",
        f"pass   {other}",
    ]
    assert check("--file", str(other))[0] == 0


@pytest.mark.parametrize(
    ("client", "at", "verdict", "algorithm"),
    [
        ("192.0.2.5", LESSON, "block", "sha1"),
        ("192.0.2.5", BREAK, "block", "md5"),
        ("198.51.100.1", BREAK, "block", "sha1"),
    ],
)
def test_a_file_for_whom_and_when(
    check: Check, listed: Path, client: str, at: str, verdict: str, algorithm: str
) -> None:
    _, text = check("--file", str(listed), "--client", client, "--at", at, "--json", "--explain")
    found = json.loads(text.splitlines()[-1])
    assert (found["file"], found["verdict"], found["algorithm"]) == (str(listed), verdict, algorithm)
    explanation = found["explanation"]
    assert (explanation["verdict"], explanation["decided"]["host"]) == (verdict, algorithm)
    assert {one["host"] for one in (explanation["decided"], *explanation["others"])} == {"sha1", "md5"}
    assert "protected" not in explanation


@pytest.mark.parametrize("name", ["nothing there", "."])
def test_a_file_that_cannot_be_read_is_an_error_and_the_next_is_looked_at(
    check: Check, listed: Path, name: str
) -> None:
    code, text = check("--file", str(listed.parent / name), "--file", str(listed))
    assert code == 2
    assert f"error  {listed.parent / name}  " in text
    assert "algorithm=sha1" in text
    assert "Traceback" not in text


@pytest.fixture
def photograph(config: Path) -> Path:
    """An invented picture, of which another size is listed."""
    pytest.importorskip("pdqhash")
    from files.pictures import picture, written

    made = picture(1)
    small = made.resize((320, 240))
    pdqhash, np = pytest.importorskip("pdqhash"), pytest.importorskip("numpy")
    vector, _ = pdqhash.compute(np.asarray(small.convert("RGB")))
    digest = np.packbits(np.asarray(vector, np.uint8)).tobytes().hex()
    (config.parent / "list.txt").write_text(LIST + f"pdq:{digest} category=games id=C-6\n")
    path = config.parent / "photograph.jpeg"
    path.write_bytes(written(made, quality=40))
    return path


def test_a_picture_that_is_like_a_listed_one(check: Check, photograph: Path, config: Path) -> None:
    from files.pictures import picture, written

    other = photograph.with_name("other.png")
    other.write_bytes(written(picture(2), "PNG"))
    code, text = check("--file", str(photograph), "--json", "--explain", "--file", str(other))
    found, unlike = map(json.loads, text.splitlines()[-2:])
    assert (code, found["verdict"], found["algorithm"], found["id"]) == (1, "block", "pdq", "C-6")
    assert 0 <= found["distance"] <= 31
    assert f"pdq:{found['digest']} " in (config.parent / "list.txt").read_text()
    assert found["explanation"]["decided"]["host"] == "pdq"
    assert (unlike["verdict"], "distance" in unlike) == ("pass", False)
    _, text = check("--file", str(photograph), "--client", "192.0.2.5", "--at", BREAK)
    assert text.splitlines()[-1] == f"pass   {photograph}"
    # What `digest` says is what is excused.
    with (config.parent / "list.txt").open("a") as lines:
        lines.write(f"@@pdq:{found['digest']}\n")
    assert "allow" in check("--file", str(photograph))[1]


def test_a_picture_that_cannot_be_decoded_is_said(check: Check, photograph: Path) -> None:
    photograph.write_bytes(photograph.read_bytes()[:600])
    code, text = check("--file", str(photograph))
    assert code == 2
    assert text.startswith("error")
    assert "its pictures cannot be decoded" in text


def test_without_the_extra_pictures_are_said_not_to_be_compared(
    check: Check, listed: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (config.parent / "list.txt").write_text(LIST + f"pdq:{'0f' * 32}\n")
    assert check("--file", str(listed))[0] == 0  # no picture
    listed.write_bytes(b"\xff\xd8\xff" + bytes(500))
    monkeypatch.setattr("urlward.files.sandbox.MODULE", "urlward.nothing")
    code, text = check("--file", str(listed))
    assert code == 2, "nobody knows whether it is listed"
    assert "pictures are not compared" in text
    assert "Traceback" not in text


def test_neither_a_url_nor_a_file(check: Check) -> None:
    code, text = check()
    assert code == 2
    assert "a URL is needed, or a file: --file PATH" in text
