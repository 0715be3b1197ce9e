import json
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Done
from lists.support import OTHER_SECRET, SECRET, SENTINEL, artifact, key_file, names_in
from urlward import cli
from urlward.engine.artifact import parse
from urlward.engine.signing import SigningKey, check_signature, parse_rotation, sign_artifact
from urlward.lists.trust import read_public_key, read_signing_key

BODY, NEXT = SigningKey(SECRET), SigningKey(OTHER_SECRET)


type Urlward = Callable[..., Done]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a source, its key, and the signing keys `body` and `next`."""
    monkeypatch.chdir(tmp_path)
    Path("list.txt").write_text(f"{SENTINEL}.example id=1\nb.example id=2\n")
    key_file(Path("list.key"))
    for name, key in (("body", BODY), ("next", NEXT)):
        Path(name).write_bytes(key.pem())
        Path(f"{name}.pub").write_bytes(key.public.pem())
    return tmp_path


@pytest.fixture
def urlward(capsys: pytest.CaptureFixture[str]) -> Urlward:
    def run(command: str) -> Done:
        capsys.readouterr()
        with pytest.raises(SystemExit) as raised:
            cli.main(command.split())
        assert isinstance(raised.value.code, int)
        return Done(raised.value.code, *capsys.readouterr())

    return run


def facts(urlward: Urlward, command: str) -> tuple[int, dict[str, object]]:
    done = urlward(f"info --json {command}")
    return done.code, json.loads(done.out)


class TestKeygen:
    def test_a_signing_key(self, urlward: Urlward) -> None:
        done = urlward("keygen --signing -o new")
        assert (done.code, done.err) == (0, "")
        public = read_public_key(Path("new.pub"))
        assert done.out == f"new: signing key; new.pub: public key {public}\n"
        assert read_signing_key(Path("new")).public == public
        assert stat.S_IMODE(Path("new").stat().st_mode) == 0o600

    def test_never_overwrites(self, urlward: Urlward) -> None:
        assert urlward("keygen --signing -o body").problem == "body: there already, and is never overwritten"
        assert Path("body").read_bytes() == BODY.pem()

    def test_a_list_key_as_ever(self, urlward: Urlward) -> None:
        assert urlward("keygen -o plain").code == 0
        assert not Path("plain.pub").exists()


class TestCompile:
    COMPILE = "compile list.txt -o list.ward --key list.key"

    def test_signed_with_serial_and_dates(self, urlward: Urlward) -> None:
        done = urlward(
            f"{self.COMPILE} --sign body --serial 7 --valid-from 2123-11-14 --valid-until 2123-11-14"
        )
        assert (done.code, done.err) == (0, "")
        header = parse(Path("list.ward").read_bytes()).header
        assert (header.serial, header.valid_from, header.valid_until) == (7, 4_855_593_600, 4_855_680_000)
        assert check_signature(header) == BODY.public
        assert urlward("check --list list.ward --key list.key b.example").code == 1

    def test_dates_and_serial_without_a_signature(self, urlward: Urlward) -> None:
        urlward(f"{self.COMPILE} --serial 7 --valid-until 2123-11-14T22:13:20Z")
        header = parse(Path("list.ward").read_bytes()).header
        assert (header.serial, header.valid_until, any(header.signer)) == (7, 4_855_673_600, False)

    def test_serials_rise_by_themselves(self, urlward: Urlward) -> None:
        serials = []
        for _ in range(3):
            assert urlward(self.COMPILE).code == 0
            serials.append(parse(Path("list.ward").read_bytes()).header.serial)
        assert serials == sorted(set(serials))
        far = 2**63
        assert urlward(f"{self.COMPILE} --serial {far}").code == 0
        assert urlward(self.COMPILE).code == 0
        assert parse(Path("list.ward").read_bytes()).header.serial == far + 1

    @pytest.mark.parametrize("serial", [6, 7])
    def test_a_serial_that_filters_would_refuse(self, urlward: Urlward, serial: int) -> None:
        urlward(f"{self.COMPILE} --serial 7")
        before = Path("list.ward").read_bytes()
        assert urlward(f"{self.COMPILE} --serial {serial}").problem == (
            f"serial: {serial} is not above 7, which list.ward has: filters would refuse it"
        )
        assert Path("list.ward").read_bytes() == before

    def test_after_the_last_serial_there_is(self, urlward: Urlward) -> None:
        assert urlward(f"{self.COMPILE} --serial {2**64 - 1}").code == 0
        assert "is not a number from 0" in urlward(self.COMPILE).problem

    @pytest.mark.parametrize(
        ("more", "problem"),
        [
            ("--sign none", "none: No such file or directory"),
            ("--sign body.pub", "body.pub: not a private key in PEM"),
            ("--sign list.key", "list.key: not a private key in PEM"),
            ("--serial x", "serial: 'x' is not a number"),
            ("--valid-until soon", "valid-until: 'soon' is not a date such as"),
            ("--valid-from 2027-01-02 --valid-until 2027-01-01", "valid-until: not after valid-from"),
        ],
    )
    def test_what_is_wrong(self, urlward: Urlward, more: str, problem: str) -> None:
        assert urlward(f"compile list.txt -o out.ward {more}").problem.startswith(problem)
        assert not [name for name in names_in(Path()) if name.startswith("out")]

    def test_the_signing_key_is_not_overwritten(self, urlward: Urlward) -> None:
        assert "would be overwritten" in urlward("compile list.txt -o body --sign body").problem
        assert Path("body").read_bytes() == BODY.pem()

    def test_a_key_from_a_pipe(self) -> None:
        """So that the key can be kept encrypted on disk."""
        command = [sys.executable, "-m", "urlward", *self.COMPILE.split(), "--sign", "/dev/stdin"]
        subprocess.run(command, input=BODY.pem(), check=True, capture_output=True, timeout=120)
        assert check_signature(parse(Path("list.ward").read_bytes()).header) == BODY.public


class TestSign:
    @pytest.fixture(autouse=True)
    def plain(self) -> bytes:
        data = artifact([f"{SENTINEL}.example"], OTHER_SECRET)
        Path("a.ward").write_bytes(data)
        return data

    def test_in_its_place(self, urlward: Urlward, plain: bytes) -> None:
        done = urlward("sign a.ward --sign body")
        assert (done.code, done.out) == (0, f"a.ward: serial 1, signed by {BODY.public}\n")
        assert Path("a.ward").read_bytes() == sign_artifact(plain, BODY)

    def test_elsewhere_with_serial_and_dates(self, urlward: Urlward, plain: bytes) -> None:
        assert urlward("sign a.ward --sign body -o b.ward --serial 5 --valid-until 2123-11-14").code == 0
        assert Path("a.ward").read_bytes() == plain
        made = Path("b.ward").read_bytes()
        assert made == sign_artifact(plain, BODY, serial=5, valid_until=4_855_680_000)

    def test_signed_already(self, urlward: Urlward) -> None:
        urlward("sign a.ward --sign body")
        before = Path("a.ward").read_bytes()
        assert urlward("sign a.ward --sign body").code == 0
        assert Path("a.ward").read_bytes() == before
        for more in ("--sign next", "--sign body --valid-until 2027-01-01", "--sign next --serial 1"):
            assert urlward(f"sign a.ward {more}").problem == (
                "a.ward: signed already: a changed one needs a --serial above 1, or filters would refuse it"
            )
        assert urlward("sign a.ward --sign next --serial 2").code == 0
        assert check_signature(parse(Path("a.ward").read_bytes()).header) == NEXT.public

    def test_dates_that_contradict_those_it_has(self, urlward: Urlward) -> None:
        urlward("sign a.ward --sign body --valid-from 2027-01-01")
        assert "not after" in urlward("sign a.ward --sign body --serial 2 --valid-until 2026-01-01").problem

    def test_what_is_wrong(self, urlward: Urlward, plain: bytes) -> None:
        assert urlward("sign list.txt --sign body").problem.startswith("list.txt: not a .ward file")
        assert urlward("sign none --sign body").problem == "none: No such file or directory"
        assert (
            urlward("sign a.ward --sign body -o body").problem == "body: is the key, and would be overwritten"
        )
        Path("a.ward").write_bytes(plain[:-1] + b"x")
        assert urlward("sign a.ward --sign body").problem.startswith("a.ward: its checksum")
        assert urlward("sign a.ward").code == 2


class TestRotate:
    def test_a_statement(self, urlward: Urlward) -> None:
        done = urlward("rotate body next.pub -o list.rotation --last-serial 41 --from 2023-11-14T22:13:20Z")
        assert done.out == (
            f"list.rotation: {BODY.public.short} signs up to serial 41, "
            f"{NEXT.public.short} from 2023-11-14T22:13:20Z\n"
        )
        made = parse_rotation(Path("list.rotation").read_bytes())
        assert (made.old, made.new, made.start, made.last_serial) == (
            BODY.public,
            NEXT.public,
            1_700_000_000,
            41,
        )

    def test_as_of_now(self, urlward: Urlward) -> None:
        assert urlward("rotate body next.pub -o list.rotation").code == 0
        made = parse_rotation(Path("list.rotation").read_bytes())
        assert made.last_serial == made.start > 1_700_000_000

    def test_until_its_date_the_old_key_signs_what_compile_counts(self, urlward: Urlward) -> None:
        assert urlward("rotate body next.pub -o list.rotation --from 2033-05-18T03:33:20Z").code == 0
        assert parse_rotation(Path("list.rotation").read_bytes()).last_serial == 2_000_000_000

    def test_never_overwrites(self, urlward: Urlward) -> None:
        for name in ("body", "next.pub", "list.txt"):
            assert urlward(f"rotate body next.pub -o {name}").problem == (
                f"{name}: there already, and is never overwritten"
            )

    @pytest.mark.parametrize(
        ("command", "problem"),
        [
            ("rotate body body.pub -o x", "the old key and the new one are the same"),
            ("rotate body.pub next.pub -o x", "body.pub: not a private key"),
            ("rotate body next -o x", "next: a private key where the public one is wanted"),
            ("rotate body next.pub -o x --last-serial -1", "last-serial: '-1' is not a number"),
            ("rotate body next.pub -o x --from never", "from: 'never' is not"),
        ],
    )
    def test_what_is_wrong(self, urlward: Urlward, command: str, problem: str) -> None:
        assert urlward(command.replace("serial -1", "serial=-1")).problem.startswith(problem)
        assert not Path("x").exists()


class TestInfo:
    @pytest.fixture(autouse=True)
    def signed(self) -> None:
        data = sign_artifact(artifact(["a.example"]), BODY, serial=7, valid_until=4_000_000_000)
        Path("a.ward").write_bytes(data)

    def test_says_who_signed_and_until_when(self, urlward: Urlward) -> None:
        code, found = facts(urlward, "a.ward")
        assert code == 0
        assert found["signed"] is True
        assert found["signer"] == str(BODY.public)
        assert found["signature"] == "fits"
        assert (found["valid_from"], found["valid_until"]) == ("-", "2096-10-02T07:06:40Z")
        assert "genuine" not in found
        assert f"signer      {BODY.public}\nsignature   fits\n" in urlward("info a.ward").out

    @pytest.mark.parametrize(
        "trust", ["--trust body.pub", f"--trust {BODY.public}", "--trust next.pub --trust body.pub"]
    )
    def test_genuine(self, urlward: Urlward, trust: str) -> None:
        code, found = facts(urlward, f"a.ward {trust}")
        assert (code, found["genuine"], found["validity"]) == (0, "yes", "ok")

    def test_of_another_signer(self, urlward: Urlward) -> None:
        done = urlward("info --trust next.pub a.ward")
        assert "genuine     unknown signer\n" in done.out
        assert done.problem.startswith(f"a.ward: signed by {BODY.public.short}, trusted: {NEXT.public.short}")

    def test_after_a_rotation(self, urlward: Urlward) -> None:
        urlward("rotate next body.pub -o statement --last-serial 6")
        assert facts(urlward, "a.ward --trust next.pub --trust statement")[1]["genuine"] == "yes"
        urlward("rotate body next.pub -o other --last-serial 6")
        assert facts(urlward, "a.ward --trust body.pub --trust other") == (
            2,
            facts(urlward, "a.ward")[1] | {"genuine": "retired key", "validity": "ok"},
        )

    def test_a_signature_that_does_not_fit(self, urlward: Urlward) -> None:
        data = bytearray(Path("a.ward").read_bytes())
        data[112] ^= 1
        Path("a.ward").write_bytes(bytes(data))
        assert facts(urlward, "a.ward")[1]["signature"] == "does not fit"
        assert facts(urlward, "a.ward --trust body.pub")[0] == 2

    def test_unsigned(self, urlward: Urlward) -> None:
        Path("a.ward").write_bytes(artifact(["a.example"]))
        assert urlward("info a.ward --trust body.pub").problem == (
            f"a.ward: not signed, trusted: {BODY.public.short}"
        )

    @pytest.mark.parametrize(
        ("valid_from", "valid_until", "validity"),
        [(0, 1_700_000_000, "expired"), (4_000_000_000, 0, "not yet valid")],
    )
    def test_dates_are_said_and_change_nothing_about_who_signed(
        self, urlward: Urlward, valid_from: int, valid_until: int, validity: str
    ) -> None:
        data = artifact(["a.example"])
        Path("a.ward").write_bytes(sign_artifact(data, BODY, valid_from=valid_from, valid_until=valid_until))
        code, found = facts(urlward, "a.ward --trust body.pub")
        assert (code, found["genuine"], found["validity"]) == (0, "yes", validity)

    def test_trust_that_is_none(self, urlward: Urlward) -> None:
        assert urlward("info a.ward --trust none").problem == "none: No such file or directory"
        assert urlward("info a.ward --trust body").problem.startswith("body: a private key where")


def test_no_command_says_an_entry(urlward: Urlward) -> None:
    for command in (
        "compile list.txt -o list.ward --sign body",
        "sign list.ward --sign next --serial 9999999999",
        "info list.ward --trust next.pub",
        "info list.ward --trust body.pub",
    ):
        done = urlward(command)
        assert SENTINEL not in done.out + done.err
