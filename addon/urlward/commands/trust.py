"""``urlward sign`` and ``urlward rotate``, and signing options of ``keygen``, ``compile`` and ``info``."""

import argparse
import time
from dataclasses import replace
from pathlib import Path

from urlward.commands.arguments import DONE, Command
from urlward.engine.artifact import HEADER_SIZE, Artifact, Header, parse, read_header
from urlward.engine.dates import time_text
from urlward.engine.errors import ArtifactError, SignatureError, UnsignedError, UrlwardError
from urlward.engine.signing import check_signature, make_rotation, sign_artifact, signer_of
from urlward.lists.build import Issue, read_date, read_issue, read_serial, told, write_in_kind
from urlward.lists.source import SourceError, open_list, read_artifact
from urlward.lists.trust import (
    TrustError,
    check_dates,
    new_signing_key,
    public_beside,
    read_public_key,
    read_signing_key,
    read_trust,
    write_key_file,
)
from urlward.options import given_path


def add_trust_commands(command: Command) -> None:
    """Declare ``urlward sign`` and ``urlward rotate``."""
    sign = command("sign", _sign, "Sign an artifact, which needs no list key.")
    sign.add_argument("file", type=given_path, metavar="FILE")
    sign.add_argument("-o", "--output", type=given_path, metavar="FILE", help="where to (in its place)")
    add_issue_arguments(sign, required=True)

    rotate = command("rotate", _rotate, "Hand over from one signing key to the next.")
    rotate.add_argument("old", type=given_path, metavar="OLD_PRIVATE", help="the key that signs no more")
    rotate.add_argument("new", type=given_path, metavar="NEW_PUBLIC", help="the one that signs instead")
    rotate.add_argument("-o", "--output", required=True, type=given_path, metavar="STATEMENT")
    rotate.add_argument(
        "--last-serial", metavar="N", help="the last that the old key signs (what compile counts --from as)"
    )
    rotate.add_argument("--from", dest="start", metavar="DATE", help="when the new key begins (now)")


def add_issue_arguments(parser: argparse.ArgumentParser, *, required: bool = False) -> None:
    """Declare the arguments that `issue_of` reads."""
    parser.add_argument(
        "--sign", required=required, type=given_path, metavar="KEY", help="private key of `keygen --signing`"
    )
    parser.add_argument("--serial", metavar="N", help="higher with each issue")
    parser.add_argument("--valid-from", metavar="DATE", help="first day, or time with offset (always)")
    parser.add_argument("--valid-until", metavar="DATE", help="last day, or time with offset (always)")


def issue_of(args: argparse.Namespace, output: Path) -> Issue:
    """Issue of a new artifact at `output`: its serial is higher than that of the one there.

    Raises:
        UrlwardError: a serial or date cannot be, or the serial is not higher.
        KeyFileError: the signing key is missing or none.
    """
    issue = read_issue(args.serial, args.valid_from, args.valid_until)
    if issue.valid_until and issue.valid_until <= time.time():
        raise UrlwardError(f"valid-until: {args.valid_until} is over: no filter would take it")
    if args.sign:
        issue = replace(issue, key=read_signing_key(args.sign))
    last = _serial_at(output)
    if last is None:
        return issue
    if issue.serial is None:
        return replace(issue, serial=max(int(time.time()), last + 1))
    if issue.serial <= last:
        raise UrlwardError(
            f"serial: {issue.serial} is not above {last}, which {output} has: filters would refuse it"
        )
    return issue


def make_signing_key(path: Path) -> int:
    """Run ``urlward keygen --signing``."""
    key = new_signing_key(path)
    print(f"{path}: signing key; {public_beside(path)}: public key {key.public}")
    return DONE


def signature_facts(header: Header) -> dict[str, str]:
    """Facts of the signature for ``urlward info``: whether it is the named signer's, whoever that is."""
    signer = signer_of(header)
    try:
        check_signature(header)
        state = "fits"
    except UnsignedError:
        state = "none"
    except SignatureError:
        state = "does not fit"
    return {
        "signer": str(signer or "-"),
        "signature": state,
        "valid_from": time_text(header.valid_from) if header.valid_from else "-",
        "valid_until": time_text(header.valid_until) if header.valid_until else "-",
    }


def trust_facts(header: Header, trusted: list[str] | None) -> tuple[dict[str, str], TrustError | None]:
    """Facts that ``urlward info --trust`` adds, and why the artifact is not genuine where it is not.

    Raises:
        KeyFileError, RotationError: as `read_trust`.
    """
    if not trusted:
        return {}, None
    trust, now = read_trust(trusted), time.time()
    failure: TrustError | None = None
    try:
        trust.check_signer(header, now=now)
    except TrustError as e:
        failure = e
    try:
        validity: str = check_dates(header, now=now, grace=0).state
    except TrustError as e:
        validity = e.reason
    return {"genuine": failure.reason if failure else "yes", "validity": validity}, failure


def _sign(args: argparse.Namespace) -> int:
    data = read_artifact(args.file)
    header = _parsed(args.file, data).header
    output: Path = args.output or args.file
    if output.exists() and output.samefile(args.sign):
        raise UrlwardError(f"{output}: is the key, and would be overwritten")
    issue = read_issue(args.serial, args.valid_from, args.valid_until)
    key = read_signing_key(args.sign)
    made = sign_artifact(
        data, key, serial=issue.serial, valid_from=issue.valid_from, valid_until=issue.valid_until
    )
    new = read_header(made)
    Issue(new.serial, new.valid_from, new.valid_until)  # together with the dates it had
    if any(header.signer) and made != data and new.serial <= header.serial:
        raise UrlwardError(
            f"{args.file}: signed already: a changed one needs a --serial above {header.serial}, "
            "or filters would refuse it"
        )
    write_in_kind(output, made)
    print(f"{output}: serial {new.serial}, signed by {key.public}")
    return DONE


def _rotate(args: argparse.Namespace) -> int:
    last, start = read_serial("last-serial", args.last_serial), read_date("from", args.start)
    start = int(time.time()) if start is None else start
    old, new = read_signing_key(args.old), read_public_key(args.new)
    made = make_rotation(old, new, start=start, last_serial=start if last is None else last)
    write_key_file(args.output, made.text(), 0o644)
    print(
        f"{args.output}: {made.old.short} signs up to serial {made.last_serial}, "
        f"{made.new.short} from {time_text(made.start)}"
    )
    return DONE


def _parsed(path: Path, data: bytes) -> Artifact:
    try:
        return parse(data)
    except ArtifactError as e:
        raise UrlwardError(told(path, e)) from e


def _serial_at(path: Path) -> int | None:
    """Serial of the artifact that is to be replaced; None where there is none that could be read."""
    try:
        with open_list(path) as file:
            return read_header(file.read(HEADER_SIZE)).serial
    except (OSError, SourceError, ArtifactError):
        return None
