"""The authority's certificate: its end is spoken of ahead, and after."""

from urlward.proxy.authority import EXPIRES_SOON, expiry_trouble

NOW = 1_795_000_000.0


def test_the_end_of_a_certificate_is_spoken_of() -> None:
    assert expiry_trouble(NOW + EXPIRES_SOON + 1, NOW) == ""
    assert "certificate ends at 2026-12-18T" in expiry_trouble(NOW + EXPIRES_SOON, NOW)
    assert "certificate has ended at 2026-11-18T" in expiry_trouble(NOW, NOW)
