import pytest

from urlward.engine.errors import UrlwardError
from urlward.lab.scenario import Scenario
from urlward.lab.topology import sites


def scenario(**more: object) -> Scenario:
    return Scenario.model_validate(
        {"description": "x", "list": {"entries": "a.example"}, "steps": [{"wait": 1.0}], **more}
    )


def test_places() -> None:
    made = sites(
        scenario(
            hosts={
                "a.example": {"at": "one"}, "b.example": {"at": "one"}, "c.example": {},
                "d.example": {"alias": "a.example"},
            },
            steps=[{"requests": [
                {"url": "http://New.example./x", "expect": "pass"},
                {"url": "http://192.0.2.1/", "expect": "pass"},
                {"url": "https://[2001:db8::1]/", "expect": "pass"},
            ]}],
        )
    )  # fmt: skip
    assert set(made) == {"a.example", "b.example", "c.example", "d.example", "new.example"}
    assert made["a.example"].place == made["b.example"].place
    places = {made[name].place for name in ("a.example", "c.example", "new.example")}
    assert len(places) == 3
    assert made["d.example"].place is None
    assert all(
        place and place.v4.startswith("203.0.113.") and place.v6.startswith("2001:db8:113::")
        for place in places
    )


def test_names_below_a_host_are_its_own() -> None:
    requests = [{"url": "http://x.a.example/", "expect": "pass"}]
    made = sites(scenario(hosts={"a.example": {"subdomains": True}}, steps=[{"requests": requests}]))
    assert set(made) == {"a.example"}


def test_too_many() -> None:
    with pytest.raises(UrlwardError, match="more than the lab has addresses for"):
        sites(scenario(hosts={f"h{n}.example": {} for n in range(300)}))
