"""The authority's certificate: its end is spoken of ahead, and after; and that it has yet to begin."""

from urlward.proxy.authority import EXPIRES_SOON, validity_trouble

NOW = 1_795_000_000.0


def test_the_end_of_a_certificate_is_spoken_of() -> None:
    assert validity_trouble(NOW - 1, NOW + EXPIRES_SOON + 1, NOW) == ""
    assert "certificate ends at 2026-12-18T" in validity_trouble(NOW - 1, NOW + EXPIRES_SOON, NOW)
    assert "certificate has ended at 2026-11-18T" in validity_trouble(NOW - 1, NOW, NOW)


def test_a_certificate_that_was_made_under_a_clock_that_ran_ahead_is_spoken_of() -> None:
    assert "certificate begins at 2026-11-18T" in validity_trouble(NOW, NOW + 2 * EXPIRES_SOON, NOW - 1)
    assert validity_trouble(NOW, NOW + 2 * EXPIRES_SOON, NOW) == ""
