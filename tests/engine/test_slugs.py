"""Pages that WordPress gives by other names, as it has been asked and as its own function says."""

import json
import re
from pathlib import Path

from hypothesis import assume, given
from hypothesis import strategies as st

from engine.support import examples, matcher
from rows import each_row
from urlward.engine.hosts import LOOK
from urlward.engine.slugs import is_own_slug, slug_path
from urlward.engine.verdict import PASS, Verdict

ASKED = json.loads((Path(__file__).parents[1] / "data" / "slugs.json").read_text())
SERVED = [(page, target) for page, targets in ASKED["served"].items() for target in targets]


def test_what_wordpress_serves_as_a_listed_page_is_blocked() -> None:
    assert len(SERVED) == 414
    found = {page: matcher(f"http://p.test{page}") for page in ASKED["served"]}
    assert not [target for page, target in SERVED if not found[page].check("p.test", target).blocked]


def test_what_wordpress_serves_as_another_page_passes() -> None:
    for page, targets in ASKED["passed"].items():
        found = matcher(f"http://p.test{page}")
        assert not [target for target in targets if found.check("p.test", target).blocked]


def made_by_wordpress(segment: str) -> str:
    """What `sanitize_title_with_dashes` makes of ASCII."""
    text = re.sub(r"<[^>]*>?", "", segment)
    text = re.sub(r"%(?![0-9A-Fa-f]{2})", "", text)[:200].lower()
    text = re.sub(r"&.+?;", "", text).replace(".", "-")
    return re.sub(r"-+", "-", re.sub(r"[^%a-z0-9_-]", "", text)).strip("-")


SLUG = "a-listed_page-1"
LISTED = matcher(f"http://p.test/2024/05/{SLUG}/")
MARKS = st.sampled_from(["", *"!\"$%&'()*+,:;<=>@[]^`{|}~", "&x;", "<b>", "%%", "-", ".", "-~.", "%2", ";-&"])


@given(st.dictionaries(st.integers(0, len(SLUG)), MARKS, max_size=6), st.sets(st.sampled_from(SLUG)))
@examples(1000)
def test_what_wordpress_makes_a_listed_slug_of_is_blocked(marks: dict[int, str], large: set[str]) -> None:
    letters = ["", *(letter.upper() if letter in large else letter for letter in SLUG)]
    segment = "".join(letter + marks.get(at, "") for at, letter in enumerate(letters))
    assume(made_by_wordpress(segment) == SLUG)
    for target in (f"/2024/05/{segment}/", f"/2024/5/{segment}/00/", f"/2024/05/{segment}/comment-page-3?x"):
        assert LISTED.check("p.test", target).blocked, target


@each_row(
    ("entry", "target"),
    [
        # Two pages to most programs: no slash at the end, capitals, an index by letter.
        ("http://p.test/listed-page", "/Listed-page!"),
        ("http://p.test/listed-page", "/Listed-page!/"),
        ("http://p.test/listed-page/", "/Listed-page!"),
        ("http://p.test/listed-page/", "/Listed-page!?q=a%20b"),
        ("http://p.test/Listed-page/", "/listed-page/"),
        ("http://p.test/Listed-page/", "/LISTED-page/"),
        ("http://p.test/a.listed.page/", "/a-listed-page/"),
        ("http://p.test/index/b/", "/index/B/"),
        ("http://p.test/index/abcd/", "/index/ABCD/"),
        ("http://p.test/index/ж/", "/index/%D0%96/"),
        ("http://p.test/", "/0/"),
        ("http://p.test/", "/page/1/"),
        # A user, or a scope of npm.
        ("http://p.test/alice/", "/@alice/"),
        ("http://p.test/a/alice/", "/a/~Alice/"),
        ("http://p.test/users/john-doe/", "/users/john.doe/"),
        ("http://p.test/users/john-doe/", "/users/john%20doe/"),
        ("http://p.test/users/john-doe/", "/users/John--Doe/"),
        ("http://p.test/users/john-doe/", "/users/-john-doe/"),
        ("http://p.test/users/john-doe/photos/", "/users/john.doe/photos/"),
        ("http://p.test/johnathandoe/", "/johnathandoe-/"),
        ("http://p.test/marie/", "/Marie/"),
        ("http://p.test/marie/2024/05/a-title/", "/Marie/2024/05/a-title/"),
        ("http://p.test/%d1%81%d0%b2%d0%b5%d1%82%d0%b0/", "/%d0%a1%d0%b2%d0%b5%d1%82%d0%b0/"),
        # C is not C#.
        ("http://p.test/learn-c-now/", "/learn-c%23-now/"),
        # Pages alone.
        ("http://p.test/listed-page/*", "/Listed-page!/"),
        ("http://p.test/listed-page/*", "/Listed-page!/x"),
        ("http://p.test/listed-page/?id=5", "/Listed-page!/?id=5"),
        ("*/listed-page/*", "/Listed-page!/x"),
        # Other pages of it.
        ("http://p.test/listed-page/", "/listed-page/1/"),
        ("http://p.test/listed-page/", "/listed-page/page/10/"),
        ("http://p.test/listed-page/", "/listed-page/x/0/"),
        ("http://p.test/listed-page/", "/listed-page/0/0/"),
        ("http://p.test/2024/05/listed-page/", "/x2024/5/listed-page/"),
        ("http://p.test/guitars/", "/guitars/amp/"),
        ("http://p.test/listed-page/", "/listed-page/x/amp/"),
    ],
)
def test_other_pages_pass(entry: str, target: str) -> None:
    assert matcher(entry).check("p.test", target) == PASS


@each_row(
    ("page", "target"),
    [
        ("/2024/05/marie/", "/2024/05/Marie/"),
        ("/2024/05/john-doe/", "/2024/05/john.doe/"),
        ("/blog/2024/05/17/john-doe/", "/blog/2024/5/17/-john--doe/"),
        ("/introduction/", "/Introduction/"),
        ("/john-doe/", "/John-Doe!/"),
        ("/a-longer-title/", "/a.longer.title-/"),
        ("/a-title/", "/a-title/amp/"),
        ("/a-title/", "/A-title?q=a%20b&%20%70review=1"),
        ("/2024/05/a-title/", "/2024/05/a-title/amp/?x"),
    ],
)
def test_a_title_is_found_in_another_spelling(page: str, target: str) -> None:
    assert matcher(f"http://p.test{page}").check("p.test", target).blocked


@each_row("entry", ["{}", "{} nocase", "{} port=80", "{} expires=2149-06-06", "{} subdomains"])
def test_an_entry_with_attributes_is_found_where_they_hold(entry: str) -> None:
    found = matcher(entry.format("http://p.test/listed-page/"))
    assert found.check("p.test", "/listed-page'/?x", (80,)).blocked
    assert found.check_request(["other.test", "p.test"], "/Listed-page/comment-page-2", (80,)).blocked
    assert found.check("p.test", "/listed-page!/", (81,)).blocked is ("port" not in entry)
    assert found.check("a.p.test", "/listed-page!/", (80,)).blocked is ("subdomains" in entry)
    assert found.check("p.test", "/listed-page!/", (80,), 4e10).blocked is ("expires" not in entry)


def test_a_page_is_found_on_a_host_of_very_many() -> None:
    found = matcher(*[f"http://p.test/{n}/page-{n}/" for n in range(LOOK * 4)])
    assert found.check("p.test", "/77/Page-77/").blocked
    assert found.check("p.test", "/77/Page-78/") == PASS


def test_what_allows_a_path_as_sent_allows_what_wordpress_makes_of_it() -> None:
    found = matcher(
        "http://p.test/listed-page/ id=a", "@@http://p.test/Listed-page!/", "@@http://p.test/ok/*"
    )
    assert found.check("p.test", "/Listed-page!/").action == "allow"
    assert found.check("p.test", "/Listed-page!!/").entry == "a"
    assert (
        matcher("http://p.test/listed-page/", "@@http://p.test/listed-page/").check("p.test", "/Listed-page/")
        == PASS
    )


@each_row("target", ["/listed-page!/", "/listed%2dpage!/", "/LISTED-PAGE/0/"])
def test_what_is_only_told_of_is_told_of_by_another_name(target: str) -> None:
    def told(verdicts: list[Verdict]) -> Verdict:
        return verdicts[0]._replace(action="monitor")

    found = matcher("http://p.test/listed-page/")
    assert found.check("p.test", target, decide=told).action == "monitor"


def test_a_block_by_another_name_counts_before_what_is_told_of() -> None:
    def told(verdicts: list[Verdict]) -> Verdict:
        return verdicts[0]._replace(action="monitor") if verdicts[0].entry == "told" else verdicts[0]

    found = matcher("http://p.test/Listed-page id=told", "http://p.test/listed-page/")
    assert found.check("p.test", "/Listed-page/", decide=told).blocked


@each_row("unit", ["-", "&", "&;", "<", "<>", "/", "-/", "/0", "0", "/2024/5", "page/", "%C3%A9"])
def test_a_long_path_is_looked_through_once(unit: str) -> None:
    """From each of its characters on, that would take minutes."""
    path = f"/{unit * (65_000 // len(unit))}/"
    slug_path(path)
    is_own_slug(path)
