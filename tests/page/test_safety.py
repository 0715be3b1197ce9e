import base64
import hashlib

import pytest

from urlward.page.words import SHARED, content_policy, encode


def test_the_pages_own_styles_are_allowed_by_their_hash_and_nothing_else_is() -> None:
    style = "\np { color: #fff }\n"
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert content_policy(f"<style>{style}</style>") == (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    )


def test_what_is_no_page_has_no_styles() -> None:
    assert "style-src 'none'" in content_policy("")


def test_forms_go_where_they_are_said_to() -> None:
    assert content_policy("", form_action="'self'").endswith("form-action 'self'")


@pytest.mark.parametrize("framed", [True, False])
def test_framing(framed: bool) -> None:
    assert ("frame-ancestors 'none'" in content_policy("", framed=framed)) is not framed


def test_a_lone_surrogate_does_not_fail() -> None:
    assert encode("a\ud800") == b"a?"


def test_the_shared_style_fetches_nothing() -> None:
    style = (SHARED / "style.css").read_text()
    assert "url(" not in style
    assert "@import" not in style
