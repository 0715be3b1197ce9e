"""Commands on lists: ``urlward compile``, ``info``, ``keygen``, ``sign``, ``rotate``, ``delta``, ``patch``
and ``import``.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from urlward.commands.arguments import DONE, Command, spare
from urlward.engine.artifact import HEADER_SIZE, Artifact, Header, check_key, fit_name, parse, read_header
from urlward.engine.dates import time_text
from urlward.engine.delta import apply_delta, changes, make_delta
from urlward.engine.digest import Key
from urlward.engine.errors import ArtifactError, EntryError, UrlwardError
from urlward.engine.grammar import parse_line
from urlward.engine.signing import check_signature, make_rotation, sign_artifact, signer_of
from urlward.lists.build import (
    Issue,
    check_place,
    compile_sources,
    find_key,
    name_of,
    read_date,
    read_issue,
    read_serial,
    told,
    write_in_kind,
    written_atomically,
)
from urlward.lists.formats import (
    AUTO,
    FORMATS,
    SNIFFED,
    WHITE,
    FormatError,
    FormatOptions,
    Found,
    Part,
    Skipped,
    checked,
    format_named,
)
from urlward.lists.formats.format import SourceStream
from urlward.lists.source import (
    BadLine,
    ErrorBudget,
    Report,
    SourceError,
    check_budget,
    check_entries,
    found_in,
    left_out,
    note,
    open_list,
    parts_of,
    read_artifact,
    read_budget,
    recognise,
    unreadable,
)
from urlward.lists.trust import (
    check_dates,
    new_signing_key,
    public_beside,
    read_public_key,
    read_signing_key,
    read_trust,
)
from urlward.options import FORMAT, TRUST, given_path
from urlward.progress import Progress, progress_bar, silent
from urlward.state.keys import key_beside, new_key_file, read_key, write_key_file
from urlward.units import counted


def add_compile_command(command: Command) -> None:
    """Declare ``urlward compile``."""
    build = command("compile", _compile, "Compile sources into an artifact.")
    build.add_argument("sources", nargs="+", type=given_path, metavar="SOURCE")
    build.add_argument("-o", "--output", required=True, type=given_path, metavar="FILE")
    build.add_argument(
        "--key", type=given_path, metavar="FILE", help="key file; FILE.key beside the output where not given"
    )
    build.add_argument("--name", help="name of the list (the first source's)")
    build.add_argument("--max-errors", metavar="N|N%", default="1%", help="bad lines allowed (1%%)")
    add_issue_arguments(build)
    add_format_arguments(build)


def add_list_commands(command: Command) -> None:
    """Declare ``urlward info``, ``keygen``, ``sign``, ``rotate``, ``delta`` and ``patch``."""
    info = command("info", _info, "Show what an artifact says of itself.")
    info.add_argument("file", type=given_path, metavar="FILE")
    info.add_argument("--json", action="store_true", help="as a JSON object")
    TRUST.add_to(info)

    keygen = command("keygen", _keygen, "Make a key.")
    keygen.add_argument("-o", "--output", required=True, type=given_path, metavar="FILE")
    keygen.add_argument(
        "--signing", action="store_true", help="a signing key: FILE is private, FILE.pub is public"
    )

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

    delta = command("delta", _delta, "Write what makes one artifact of another.")
    delta.add_argument("old", type=given_path, metavar="OLD")
    delta.add_argument("new", type=given_path, metavar="NEW")
    delta.add_argument(
        "-o",
        "--output",
        required=True,
        type=given_path,
        metavar="FILE",
        help="in a folder it is named as feeds look for it: NEW.SERIAL.delta, the serial being OLD's",
    )
    delta.add_argument(
        "--key", type=given_path, metavar="FILE", help="key of both; NEW.key beside it where not given"
    )

    patch = command("patch", _patch, "Make the new artifact of the old one and a delta.")
    patch.add_argument("old", type=given_path, metavar="OLD")
    patch.add_argument("delta", type=given_path, metavar="DELTA")
    patch.add_argument("-o", "--output", required=True, type=given_path, metavar="NEW")
    patch.add_argument(
        "--key", type=given_path, metavar="FILE", help="key of both; OLD.key beside it where not given"
    )


def _compile(args: argparse.Namespace) -> int:
    format_, options = format_of(args)
    budget = read_budget(args.max_errors, "max-errors")
    issue = issue_of(args, args.output)
    if not args.output.parent.is_dir():
        raise UrlwardError(f"{args.output}: there is no folder {args.output.parent}")
    path = args.key or key_beside(args.output)
    spare(args.output, *args.sources, path, *([args.sign] if args.sign else []))
    made = not args.key and not path.exists()
    key = new_key_file(path) if made else read_key(path)
    start = time.monotonic()
    try:
        with progress_bar() as progress:
            data, report = compile_sources(
                args.sources,
                key,
                name=fit_name(args.name) if args.name else name_of(args.sources[0]),
                budget=budget,
                progress=progress,
                issue=issue,
                format=format_,
                options=options,
            )
        write_in_kind(args.output, data)
    except BaseException as e:
        if made:
            path.unlink(missing_ok=True)
        if isinstance(e, SourceError):
            _print_bad_lines(e.bad_lines)
        raise
    for source, name in report.recognised.items():
        print(f"{source}: read as format {name}, by its first lines", file=sys.stderr)
    for left in (*report.left_out, *report.wide):
        print(left, file=sys.stderr)
    if report.roots_alone:
        print(report.roots_alone, file=sys.stderr)
    _print_bad_lines(report.bad_lines)
    if report.bad > len(report.bad_lines):
        print(f"… and {report.bad - len(report.bad_lines)} more", file=sys.stderr)
    entries = parse(data).entries
    over = f" ({report.over} expired)" if report.over else ""
    print(
        f"{args.output}: {counted(entries, 'entry')}{over}, "
        f"{counted(report.entries - entries, 'equal one')} left out, {counted(report.bad, 'bad line')}, "
        + (f"{more}, " if (more := left_out(report)) else "")
        + f"{len(data)} bytes, {time.monotonic() - start:.1f} s, "
        f"{'new ' if made else ''}key {key.id.hex()} in {path}"
    )
    return DONE


def _print_bad_lines(lines: Sequence[BadLine]) -> None:
    for line in lines:
        print(line, file=sys.stderr)


def _info(args: argparse.Namespace) -> int:
    try:
        artifact = parse(read_artifact(args.file))
    except UrlwardError as e:
        raise UrlwardError(told(args.file, e)) from e
    header, meta = artifact.header, artifact.meta
    shown = {
        "name": meta["name"],
        "serial": header.serial,
        "created": time_text(header.created),
        "key": header.key_id.hex(),
        "entries": artifact.entries,
        "kinds": meta["counts"],
        "categories": {name or "(none)": count for name, count in meta["by_category"].items()},
        "bytes": header.size,
        "checksum": header.checksum.hex(),
        "signed": any(header.signer),
        **signature_facts(header),
    }
    facts, failure = trust_facts(header, args.trust)
    shown |= facts
    if args.json:
        print(json.dumps(shown))
    else:
        for name, value in shown.items():
            if isinstance(value, dict):
                value = ", ".join(f"{k} {v}" for k, v in value.items()) or "-"
            print(f"{name.replace('_', ' '):12}{value}")
    if failure:
        raise UrlwardError(told(args.file, failure))
    return DONE


def _keygen(args: argparse.Namespace) -> int:
    if args.signing:
        return make_signing_key(args.output)
    key = new_key_file(args.output)
    print(f"{args.output}: key {key.id.hex()}")
    return DONE


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
    except ArtifactError as e:
        state = "none" if e.reason == "unsigned" else "does not fit"
    return {
        "signer": str(signer or "-"),
        "signature": state,
        "valid_from": time_text(header.valid_from) if header.valid_from else "-",
        "valid_until": time_text(header.valid_until) if header.valid_until else "-",
    }


def trust_facts(header: Header, trusted: list[str] | None) -> tuple[dict[str, str], ArtifactError | None]:
    """Facts that ``urlward info --trust`` adds, and why the artifact is not genuine where it is not.

    Raises:
        KeyFileError, RotationError: as `read_trust`.
    """
    if not trusted:
        return {}, None
    trust, now = read_trust(trusted), time.time()
    failure: ArtifactError | None = None
    try:
        trust.check_signer(header, now=now)
    except ArtifactError as e:
        failure = e
    try:
        validity: str = check_dates(header, now=now, grace=0).state
    except ArtifactError as e:
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


def _delta(args: argparse.Namespace) -> int:
    start = time.monotonic()
    key_file = args.key or key_beside(args.new)
    key = find_key(args.key, (args.new,))
    old, new = (_artifact(path, key) for path in (args.old, args.new))
    serial, last = new.header.serial, old.header.serial
    if serial <= last:
        raise UrlwardError(
            f"{args.new}: its serial {serial} is not above {last}, that of {args.old}: no feed would take it"
        )
    output = args.output
    if output.is_dir():
        output /= f"{args.new.name}.{last}.delta"
    spare(output, args.old, args.new, key_file)
    try:
        with progress_bar() as progress:
            delta = make_delta(old, new, key, progress)
    except ArtifactError as e:
        raise UrlwardError(f"{args.new}: {e}") from e
    write_in_kind(output, delta)
    print(f"{output}: {_told_extent(delta, old, new)}, {time.monotonic() - start:.1f} s")
    return DONE


def _patch(args: argparse.Namespace) -> int:
    key_file = args.key or key_beside(args.old)
    key = find_key(args.key, (args.old,))
    old = _artifact(args.old, key)
    delta = read_artifact(args.delta)
    spare(args.output, args.delta, key_file)
    try:
        with progress_bar() as progress:
            artifact = apply_delta(old, delta, key, progress=progress)
    except ArtifactError as e:
        raise UrlwardError(f"{args.delta}: {e}") from e
    write_in_kind(args.output, artifact)
    new = parse(artifact)
    print(f"{args.output}: serial {new.header.serial}, {_told_extent(delta, old, new)}")
    return DONE


def _artifact(path: Path, key: Key) -> Artifact:
    try:
        artifact = parse(read_artifact(path))
        check_key(artifact.header, key)
    except ArtifactError as e:
        raise UrlwardError(told(path, e)) from e
    return artifact


def _told_extent(delta: bytes, old: Artifact, new: Artifact) -> str:
    added, removed = changes(old, new)
    sizes = f"delta of {len(delta)} bytes for an artifact of {new.header.size}"
    return f"{sizes}, {counted(added, 'entry')} added, {removed} removed"


_STDIN = Path("-")
_TAB = ("\\t", "tab")
_TOLD = 1024
"""Lines between two times that the progress is told."""


def _source(text: str) -> Path:
    return _STDIN if text == "-" else given_path(text)


def add_import_commands(command: Command) -> None:
    """Declare ``urlward import``."""
    importing = command("import", _import, "Translate sources of other formats to the list grammar.")
    importing.add_argument("sources", nargs="+", type=_source, metavar="SOURCE", help='"-" is standard input')
    add_format_arguments(importing)
    importing.add_argument("--max-errors", metavar="N|N%", default="1%", help="bad lines allowed (1%%)")
    importing.add_argument(
        "-o", "--output", type=given_path, metavar="FILE", help="file to write (standard output)"
    )
    importing.add_argument("--quiet", action="store_true", help="count what was not taken, and no more")


def add_format_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments for reading sources; `format_of` returns their values."""
    FORMAT.add_to(parser)
    parser.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="FIELD=NAME",
        help="name or number of the column with url, host, domain, path, id, category or expires; of files, "
        "with md5, sha1, sha256, pdq or distance",
    )
    parser.add_argument("--delimiter", metavar="CHARACTER", default=",", help="between columns of CSV (,)")
    parser.add_argument(
        "--category", metavar="NAME", default="", help="of entries that the source gives none"
    )
    parser.add_argument(
        "--take",
        action="append",
        default=[],
        metavar="NAME",
        help="category of the source's own that is taken, of projectvic or threatexchange (what is certain)",
    )
    parser.add_argument(
        "--white",
        choices=WHITE,
        default="skip",
        help="what becomes of squidGuard's folders of allowed names: left out, @@ entries, or blocked (skip)",
    )


def format_of(args: argparse.Namespace) -> tuple[str, FormatOptions]:
    """The format as given, and options for reading it.

    Raises:
        FormatError: what was said makes no sense.
    """
    columns: dict[str, str] = {}
    for said in args.column:
        field, equals, name = said.partition("=")
        if not equals or field in columns:
            raise FormatError(f"column: {said!r} is not FIELD=NAME, once for each field")
        columns[field] = name
    delimiter = "\t" if args.delimiter in _TAB else args.delimiter
    options = FormatOptions(columns, delimiter, args.category, args.white, tuple(args.take))
    format_named(args.format, options)
    return args.format, options


def _import(args: argparse.Namespace) -> int:
    format_, options = format_of(args)
    try:
        budget = ErrorBudget.parse(args.max_errors)
    except ValueError as e:
        raise FormatError(f"max-errors: {args.max_errors!r} is not {e}") from e
    report = Report()
    parts = [(source, _parts(source, format_, options)) for source in args.sources]
    # Not into the lines themselves, where these go to a terminal.
    with (
        nullcontext(silent) if args.output is None and sys.stdout.isatty() else progress_bar() as progress,
        _output(args.output, [p.path for _, files in parts for p in files]) as out,
    ):
        for source, files in parts:
            before = report.so_far()
            for part in files:
                _translate(source, part, out, report, progress, quiet=args.quiet)
            check_entries(source, report, before)
        check_budget(report, budget, ", ".join(map(str, args.sources)))
    for name, recognised in report.recognised.items():
        print(f"{name}: read as format {recognised}, by its first lines", file=sys.stderr)
    print(
        f"{args.output or 'standard output'}: {report.entries} lines, for {report.lines - report.bad} of the "
        f"sources; {report.bad} bad lines" + (f", {more}" if (more := left_out(report)) else ""),
        file=sys.stderr,
    )
    return DONE


def _parts(source: Path, format_: str, options: FormatOptions) -> list[Part]:
    if source == _STDIN:
        return [Part(source, FORMATS[format_].read, options)]
    return parts_of(source, format_, options)


def _translate(
    source: Path, part: Part, out: BinaryIO, report: Report, progress: Progress, *, quiet: bool
) -> None:
    name, last = str(part.path), 0
    for each in _found(source, part, report, progress):
        if isinstance(each, Skipped):
            note(report, name, each)
            if not quiet:
                kind = "not taken: " if each.unsupported else ""
                print(BadLine(name, each.line, each.column, kind + each.reason), file=sys.stderr)
        else:
            out.write(each.text.encode() + b"\n")
            report.entries += 1
            report.lines += each.line != last
            report.partly += not each.whole and each.line != last
        last = each.line


def _found(source: Path, part: Part, report: Report, progress: Progress) -> Iterator[Found | Skipped]:
    try:
        with _opened(part.path) as file:
            stream, name = SourceStream(file), str(part.path)
            if part.read is FORMATS[AUTO].read:
                _, part = recognise(part, stream.peek(SNIFFED)[:SNIFFED], report)
            # Of a pipe nobody knows how long it is.
            size = 0 if part.path == _STDIN else part.path.stat().st_size
            for number, each in enumerate(
                checked(found_in(name, stream, part, may_be_empty=part.path != source))
            ):
                if size and not number % _TOLD:
                    progress(name, min(stream.done / size, 1))
                yield each
    except OSError as e:
        raise unreadable(part.path, e) from e


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    if path == _STDIN:
        yield sys.stdin.buffer
        return
    with open_list(path) as file:
        yield file


@contextmanager
def _output(path: Path | None, sources: list[Path]) -> Iterator[BinaryIO]:
    """Open the output; a list as text is for its owner's eyes alone."""
    if path is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    spare(path, *sources)
    check_place(path, _is_list, "no list")
    with written_atomically(path, 0o600) as file:
        yield file


def _is_list(data: bytes) -> bool:
    """Whether a file that begins so has lines of the list grammar alone."""
    *lines, last = data.decode("utf-8", "replace").split("\n")
    try:
        for line in lines or [last]:
            parse_line(line)
    except EntryError:
        return False
    return True
