import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from urlward.config import Config
from urlward.engine.errors import UrlwardError
from urlward.gateway.ca import FILES, Authority, authority, page, write_page
from urlward.lists.source import SourceError


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("confdir"), make=True)


class Structure(HTMLParser):
    """Targets, labels and identifiers of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.labels: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.tags.append(tag)
        if tag == "a":
            self.links.append(values["href"])
        self.labels += [values["aria-labelledby"]] if "aria-labelledby" in values else []
        self.ids += [values["id"]] if "id" in values else []

    def handle_data(self, data: str) -> None:
        self.text += data


def test_files(made: Authority, tmp_path: Path) -> None:
    folder = tmp_path / "www/ca"
    written = list(write_page(made, folder, Config()))
    assert (
        {path.name for path in written}
        == {*FILES.values(), "index.html"}
        == {path.name for path in folder.iterdir()}
    )
    for path in written:
        assert path.stat().st_mode & 0o777 == 0o644
        assert b"PRIVATE" not in path.read_bytes()
    for form in ("pem", "der"):
        assert (folder / FILES[form]).read_bytes() == made.encoded(form)
    assert list(write_page(made, folder, Config())) == written, "again"


def test_not_beside_the_key(made: Authority) -> None:
    with pytest.raises(UrlwardError, match="the key is in there"):
        list(write_page(made, made.folder, Config()))


def test_the_page(made: Authority) -> None:
    found = Structure(page(made, Config()))
    assert found.links == [FILES["der"], FILES["pem"], FILES["p12"]]
    assert made.fingerprint in found.text, "in one piece, to be compared or copied"
    assert set(found.labels) <= set(found.ids)
    assert len(set(found.ids)) == len(found.ids)
    assert found.tags.count("h1") == found.tags.count("main") == 1
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", page(made, Config())), (
        "nothing from elsewhere"
    )


def test_who_runs_it_and_what_is_decrypted(made: Authority) -> None:
    assert "an entry on the list are decrypted" in Structure(page(made, Config())).text
    everything = Structure(page(made, Config(intercept="all"))).text
    assert "All web traffic is decrypted" in everything
    config = Config.model_validate(
        {"page": {"operator": "<Example> Net"}, "gateway": {"steered": "intercept"}}
    )
    text = page(made, config)
    assert "&lt;Example&gt; Net" in text
    assert "or share an address with one" in Structure(text).text


def test_the_page_takes_no_others_place(made: Authority, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<p>the operator's own</p>")
    with pytest.raises(SourceError, match=r"index\.html: there already, and another page"):
        list(write_page(made, tmp_path, Config()))
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["index.html"]
