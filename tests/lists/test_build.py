import gc
import os
import stat
from pathlib import Path

import pytest

from lists.support import HTML, OTHER_SECRET, SECRET, SENTINEL, artifact, blocks, key_file, names_in
from rows import each_row
from urlward.engine.artifact import parse
from urlward.engine.digest import Key, format_key
from urlward.engine.errors import ArtifactError, KeyFileError
from urlward.engine.loaded import load
from urlward.engine.matcher import Matcher
from urlward.lists import build
from urlward.lists.build import (
    compile_sources,
    find_key,
    is_artifact,
    name_of,
    told,
    write_atomically,
    written_atomically,
)
from urlward.lists.run_folder import RunFolder
from urlward.lists.source import ErrorBudget, SourceError, read_artifact
from urlward.state.keys import key_beside, new_key_file, read_key

FULL = OSError(28, "No space left on device")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "list.txt"
    path.write_text("a.example id=1 category=x\nb.example\n")
    return path


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


class TestCompileSources:
    def test_what_is_listed_is_blocked_and_nothing_else(self, source: Path) -> None:
        key = Key(SECRET)
        data, report = compile_sources([source], key, name="mine")
        loaded = load(data, key)
        matcher = Matcher([loaded])
        assert (loaded.name, loaded.entries, report.entries) == ("mine", 2, 2)
        assert blocks(matcher, "http://a.example/")
        assert blocks(matcher, "http://sub.b.example/x")
        assert not blocks(matcher, "http://c.example/")

    def test_another_format_and_a_folder(self, tmp_path: Path) -> None:
        folder = tmp_path / "phishing"
        folder.mkdir()
        (folder / "domains").write_text("a.example\n")
        (folder / "urls").write_text("b.example/c\n")
        told: list[float] = []
        key = Key(SECRET)
        data, report = compile_sources(
            [tmp_path], key, name="mine", format="squidguard", progress=lambda _, share: told.append(share)
        )
        assert (report.lines, report.entries, report.unsupported) == (2, 3, 0)
        assert parse(data).meta["by_category"] == {"phishing": 3}
        assert max(told) <= 1
        assert blocks(Matcher([load(data, key)]), "http://b.example/C/d")

    def test_several_sources_make_one_list(self, source: Path) -> None:
        other = source.with_name("other.txt")
        other.write_text("c.example\na.example\n")
        data, report = compile_sources([source, other], Key(SECRET), name="both")
        # The same host with other attributes is another entry.
        assert (report.lines, report.entries, parse(data).meta["entries"]) == (4, 4, 4)

    def test_equal_entries_count_once(self, source: Path) -> None:
        source.write_text("a.example\n" * 1000 + "A.example.\n")
        data, report = compile_sources([source], Key(SECRET), name="x")
        assert (report.entries, parse(data).meta["entries"]) == (1001, 1)

    def test_the_same_source_at_the_same_time_gives_the_same_bytes(self, source: Path) -> None:
        one, _ = compile_sources([source], Key(SECRET), name="x", now=1_700_000_000.9)
        two, _ = compile_sources([source], Key(SECRET), name="x", now=1_700_000_000.1)
        assert one == two
        assert (parse(one).header.serial, parse(one).header.created) == (1_700_000_000, 1_700_000_000)

    def test_a_source_of_a_tenth_bad_lines_is_refused_unless_allowed(self, source: Path) -> None:
        source.write_text("a.example\n" * 9 + "?\n")
        with pytest.raises(
            SourceError, match=r"1 of 10 lines could not be read, allowed are 1%; first: .*:10:1: "
        ):
            compile_sources([source], Key(SECRET), name="x")
        data, report = compile_sources([source], Key(SECRET), name="x", budget=ErrorBudget.parse("10%"))
        assert (report.bad, parse(data).meta["entries"]) == (1, 1)

    def test_one_source_that_is_no_list_spoils_all(self, source: Path) -> None:
        page = source.with_name("page.txt")
        page.write_bytes(HTML)
        with pytest.raises(SourceError, match=f"{page}: a web page"):
            compile_sources([source, page], Key(SECRET), name="x")

    @pytest.mark.parametrize("name", ["missing.txt", "a\0b", "x" * 300])
    def test_one_that_cannot_be_read(self, source: Path, name: str) -> None:
        with pytest.raises(SourceError, match=r"No such file|embedded null|name too long"):
            compile_sources([source, source.with_name(name)], Key(SECRET), name="x")

    def test_no_text_outlives_the_compile(self, source: Path) -> None:
        source.write_text(
            f"{SENTINEL}.example\nhttp://x.example/{SENTINEL}/a?{SENTINEL}=1\n*/{SENTINEL}/*\n{SENTINEL}.*\n"
        )
        key = Key(SECRET)
        data, report = compile_sources([source], key, name="x")
        assert report.entries == 4
        assert SENTINEL.encode() not in data
        assert [*key.labels, *key.names, *key.segments] == []

    def test_the_collector_is_as_it_was(self, source: Path) -> None:
        assert gc.isenabled()
        compile_sources([source], Key(SECRET), name="x")
        assert gc.isenabled()
        source.write_bytes(HTML)
        with pytest.raises(SourceError):
            compile_sources([source], Key(SECRET), name="x")
        assert gc.isenabled()

    def test_progress_goes_from_reading_to_compiled(self, source: Path) -> None:
        source.write_text("".join(f"h{i}.example\n" for i in range(9000)))
        told: list[tuple[str, float]] = []
        compile_sources(
            [source], Key(SECRET), name="x", progress=lambda what, share: told.append((what, share))
        )
        assert [what for what, _ in told] == sorted((what for what, _ in told), reverse=True)
        for name in ("reading", "compiling"):
            shares = [share for what, share in told if what == name]
            assert shares == sorted(shares)
            assert all(0 <= share <= 1 for share in shares)
        assert told[-1] == ("compiling", 1)


class TestReading:
    def test_an_artifact_begins_with_its_magic(self, source: Path) -> None:
        assert not is_artifact(source)
        source.write_bytes(artifact(["a.example"]))
        assert is_artifact(source)
        assert read_artifact(source) == source.read_bytes()

    def test_a_file_shorter_than_the_magic_is_none(self, source: Path) -> None:
        source.write_bytes(b"URL")
        assert not is_artifact(source)

    @pytest.mark.parametrize("function", [is_artifact, read_artifact])
    def test_only_regular_files(self, function: object, source: Path) -> None:
        source.unlink()
        with pytest.raises(SourceError, match="No such file"):
            function(source)  # type: ignore[operator]
        os.mkfifo(source)
        for path in (source, source.parent, Path("/dev/zero")):
            with pytest.raises(SourceError, match=f"^{path}: not a regular file$"):
                function(path)  # type: ignore[operator]

    def test_a_list_without_a_name_is_called_by_its_file(self) -> None:
        assert name_of(Path("dir/phishing.txt")) == "phishing"
        assert name_of(Path("dir/.hidden")) == ".hidden"
        assert name_of(Path("dir/a\x1b[31m\udcffb.txt")) == r"a\x1b[31m\udcffb"

    def test_the_file_stands_before_what_is_wrong_with_it(self) -> None:
        assert told(Path("x.ward"), ArtifactError("bad")) == "x.ward: bad"
        assert told(Path("x.txt"), SourceError("x.txt: bad")) == "x.txt: bad"


class TestWriteAtomically:
    def test_new(self, tmp_path: Path, usual_umask: None) -> None:
        path = tmp_path / "x.ward"
        write_atomically(path, b"content")
        assert path.read_bytes() == b"content"
        assert mode_of(path) == 0o644
        assert names_in(tmp_path) == ["x.ward"]

    @pytest.mark.parametrize("path", ["/dev/no-such-device", "pipe"])
    def test_nothing_takes_the_place_of_a_device(self, tmp_path: Path, path: str) -> None:
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(SourceError, match="a device, a pipe or the like"):
            write_atomically(tmp_path / path, b"new")
        assert (tmp_path / "pipe").is_fifo()
        assert names_in(tmp_path) == ["pipe"]

    def test_over_another(self, tmp_path: Path) -> None:
        path = tmp_path / "x.ward"
        path.write_bytes(b"old and longer")
        inode = path.stat().st_ino
        with path.open("rb") as reader:
            write_atomically(path, b"new")
            assert reader.read() == b"old and longer"  # who has it open keeps the old one
        assert path.read_bytes() == b"new"
        assert path.stat().st_ino != inode

    @each_row("step", ["fsync", "rename"])
    @each_row("error", [FULL, KeyboardInterrupt()], ids=["full", "ctrl-c"])
    def test_a_failure_leaves_the_old_one_and_nothing_beside(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: BaseException
    ) -> None:
        def fail(*_: object, **__: object) -> None:
            raise error

        path = tmp_path / "x.ward"
        path.write_bytes(b"old")
        monkeypatch.setattr(*((os, "fsync") if step == "fsync" else (Path, "replace")), fail)
        with pytest.raises(SourceError if error is FULL else KeyboardInterrupt) as raised:
            write_atomically(path, b"new")
        if error is FULL:
            assert str(raised.value) == f"{path}: No space left on device"
        assert path.read_bytes() == b"old"
        assert names_in(tmp_path) == ["x.ward"]

    def test_a_folder_that_cannot_be_synchronised_does_not_undo_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = os.fsync

        def fsync(fd: int) -> None:
            if stat.S_ISDIR(os.fstat(fd).st_mode):
                raise OSError(22, "Invalid argument")
            real(fd)

        monkeypatch.setattr(os, "fsync", fsync)
        write_atomically(tmp_path / "x.ward", b"new")
        assert (tmp_path / "x.ward").read_bytes() == b"new"

    def test_what_fails_while_it_is_written_leaves_nothing(self, tmp_path: Path) -> None:
        def fail() -> None:
            with written_atomically(tmp_path / "x", 0o600) as file:
                file.write(b"half")
                assert mode_of(next(tmp_path.iterdir())) == 0o600
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
        assert names_in(tmp_path) == []

    def test_where_nothing_can_be_written(self, tmp_path: Path) -> None:
        file = tmp_path / "file"
        file.touch()
        for path, reason in (
            (file / "x.ward", "Not a directory"),
            (tmp_path / "none" / "x.ward", "No such file"),
            (tmp_path, "Is a directory"),
            (Path(), "a folder"),
            (Path("/"), "a folder"),
        ):
            with pytest.raises(SourceError, match=reason):
                write_atomically(path, b"new")
        assert names_in(tmp_path) == ["file"]


class TestKeys:
    def test_a_new_key_is_its_owners_alone(self, tmp_path: Path, usual_umask: None) -> None:
        path = tmp_path / "key"
        key = new_key_file(path)
        assert mode_of(path) == 0o600
        assert read_key(path).secret == key.secret
        assert new_key_file(tmp_path / "other").secret != key.secret

    def test_one_that_is_there_is_never_overwritten(self, tmp_path: Path) -> None:
        path = key_file(tmp_path / "key")
        with pytest.raises(KeyFileError, match=f"^{path}: there already, and is never overwritten$"):
            new_key_file(path)
        assert path.read_bytes() == format_key(SECRET)

    def test_nor_is_what_a_dangling_link_points_to_made(self, tmp_path: Path) -> None:
        (tmp_path / "key").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(KeyFileError, match="there already"):
            new_key_file(tmp_path / "key")

    def test_half_a_key_is_not_left_behind(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(_: int) -> None:
            raise FULL

        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(KeyFileError, match="No space left"):
            new_key_file(tmp_path / "key")
        assert names_in(tmp_path) == []

    def test_where_none_can_be_written(self, tmp_path: Path) -> None:
        with pytest.raises(KeyFileError, match="No such file"):
            new_key_file(tmp_path / "none" / "key")

    @each_row(
        ("content", "reason"),
        [
            (b"", "has 32 bytes, this one has 0"),
            (b"00" * 31, "this one has 31"),
            (b"00" * 33, "this one has 33"),
            (b"0" * 63, "an odd number"),
            (SECRET, "64 hexadecimal digits and nothing else"),
            (b"zz" * 32, "64 hexadecimal digits and nothing else"),
            (artifact(["a.example"]), "64 hexadecimal digits and nothing else"),
        ],
        ids=["empty", "short", "long", "odd", "raw", "not hex", "an artifact"],
    )
    def test_what_is_no_key(self, tmp_path: Path, content: bytes, reason: str) -> None:
        path = tmp_path / "key"
        path.write_bytes(content)
        with pytest.raises(KeyFileError) as raised:
            read_key(path)
        text = str(raised.value)
        assert text.startswith(f"{path}: ")
        assert reason in text
        assert "\n" not in text

    def test_white_space_around_a_key(self, tmp_path: Path) -> None:
        path = tmp_path / "key"
        path.write_bytes(b"\n " + SECRET.hex().upper().encode() + b"\r\n\n")
        assert read_key(path).secret == SECRET

    def test_a_key_that_cannot_be_read(self, tmp_path: Path) -> None:
        for path, reason in (
            (tmp_path / "none", "No such file"),
            (tmp_path, "Is a directory"),
            (Path("a\0b"), "embedded null"),
            (Path("/dev/zero"), "not a regular file"),
        ):
            with pytest.raises(KeyFileError, match=reason):
                read_key(path)


class TestFindKey:
    def test_the_one_given(self, tmp_path: Path, source: Path) -> None:
        assert find_key(key_file(tmp_path / "key"), [source]).secret == SECRET

    def test_the_one_beside_an_artifact(self, tmp_path: Path, source: Path) -> None:
        path = tmp_path / "x.ward"
        path.write_bytes(artifact(["a.example"], OTHER_SECRET))
        assert key_beside(path) == tmp_path / "x.ward.key"
        key_file(key_beside(path), OTHER_SECRET)
        assert find_key(None, [source, path]).secret == OTHER_SECRET

    def test_an_artifact_without_one(self, tmp_path: Path) -> None:
        path = tmp_path / "x.ward"
        path.write_bytes(artifact(["a.example"]))
        with pytest.raises(
            KeyFileError, match=f"^{path}: an artifact needs its key: --key FILE, or {path}.key$"
        ):
            find_key(None, [path])

    def test_sources_get_one_that_dies_with_the_process(self, source: Path) -> None:
        before = names_in(source.parent)
        assert find_key(None, [source]).secret != find_key(None, [source]).secret
        assert names_in(source.parent) == before

    def test_workers_share_one(self, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        run = RunFolder()
        monkeypatch.setattr(build, "inherited", lambda: run)
        shared = find_key(None, [source]).secret
        assert find_key(None, [source]).secret == shared
        # A list that is gone may still be in force in other workers, under the key that it would get.
        assert find_key(None, [source.with_name("gone")]).secret == shared
        artifact = source.with_name("gone.ward")
        key_file(key_beside(artifact))
        assert find_key(None, [artifact]).secret == SECRET
        run.close()

    def test_a_list_that_is_missing(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match="No such file"):
            find_key(None, [tmp_path / "none"])
