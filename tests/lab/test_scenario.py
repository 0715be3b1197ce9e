from pathlib import Path

import pytest

from rows import each_row
from urlward.engine.errors import UrlwardError
from urlward.lab.scenario import load_scenario, shipped

START = 'description = "x"\n[list]\nentries = "a.example"\n'
FLEET = "[fleet]\nnodes = 2\n"
STEP = '[[steps]]\nrequests = [{ url = "http://a.example/", expect = "block" }]\n'


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return str(path)


@each_row("name", list(shipped()))
def test_shipped_ones_can_be_read(name: str) -> None:
    loaded = load_scenario(name)
    assert loaded.name == name
    assert loaded.scenario.description.strip()
    for step, lines in zip(loaded.scenario.steps, loaded.lines, strict=True):
        assert len(step.requests) == len(lines)
        assert all(lines), "each request's line is found"


def test_requests_have_their_lines(tmp_path: Path) -> None:
    text = (
        START
        + '# url = "http://a.example/"\n[hosts]\n"a.example" = {}\n'
        + STEP
        + STEP.replace("block", "pass")
    )
    assert load_scenario(written(tmp_path, text)).lines == ((8,), (10,))


@each_row(
    ("text", "words"),
    [
        (START + STEP + "oops = 1\n", "steps.1.oops: no such key"),
        (START + STEP.replace("expect", "expects"), "steps.1.requests.1.expects: no such key"),
        (START + STEP.replace("block", "blok"), "steps.1.requests.1.expect: input should be"),
        (START + STEP.replace(', expect = "block"', ""), "steps.1.requests.1: url needs expect"),
        (START + STEP.replace("http:", "ftp:"), "steps.1.requests.1.url: 'ftp://a.example/' is not a URL"),
        (START + '[[steps]]\nrequests = [{ dns = "a.example" }]\n', "dns needs answer"),
        (START + '[[steps]]\nrequests = [{ dns = "a.com", answer = "answer" }]\n', "is not a reserved name"),
        (START + '[[steps]]\nname = "nothing"\n', "a step needs one of action"),
        (START + STEP + 'clients = ["netscape"]\n', "steps.1.clients: 'netscape' is no client"),
        (
            START + STEP.replace(" }", ', host = "b.example" }') + 'clients = ["chromium"]\n',
            "request 1 is not one that chromium can make",
        ),
        ('description = "x"\n[list]\n' + STEP, "list: one of entries, file and make is needed"),
        (START, "steps: this key is needed"),
        (START + '[gateway]\nfial = "open"\n' + STEP, "gateway.fial: no such key"),
        (START + STEP + 'action = "kill-node"\n', "steps: step 1 is for node 1 of a fleet: [fleet] has 0"),
        (START + FLEET + STEP + 'source = "via3"\n', "steps: step 1 is for node 3 of a fleet: [fleet] has 2"),
        (START + FLEET + '[gateway]\nkeep_source = true\n' + STEP, "fleet: not with gateway.keep_source"),
        (START + FLEET + '[[steps]]\naction = "allow"\n', "the step's first request: there is none"),
        ("= 1", "not TOML"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line_with_its_place(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(UrlwardError) as raised:
        load_scenario(written(tmp_path, text))
    assert words in str(raised.value)
    assert "mine.toml: " in str(raised.value)
    assert "\n" not in str(raised.value)


def test_no_such_scenario() -> None:
    with pytest.raises(UrlwardError, match=r"nowhere: no such file, and no shipped scenario .*smoke"):
        load_scenario("nowhere")
