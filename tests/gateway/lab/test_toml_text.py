import tomllib

from hypothesis import given
from hypothesis import strategies as st

from urlward.gateway.lab.toml_text import to_toml

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
PLAIN = st.one_of(
    TEXT, st.integers(-(2**53), 2**53), st.booleans(), st.floats(allow_nan=False, allow_infinity=False)
)
VALUE = st.one_of(PLAIN, st.lists(PLAIN, max_size=3))
TABLES = st.recursive(
    st.dictionaries(TEXT, VALUE, max_size=3),
    lambda inner: st.dictionaries(TEXT, inner | VALUE, max_size=3),
    max_leaves=6,
)


@given(TABLES)
def test_tomllib_reads_what_was_written(data: dict[str, object]) -> None:
    assert tomllib.loads(to_toml(data)) == data


def test_as_it_looks() -> None:
    data = {"list": ["a.txt"], "gateway": {"steer": True, "dns": {"timeout": 1.0, "a b": "x"}}}
    assert to_toml(data) == (
        'list = ["a.txt"]\n[gateway]\nsteer = true\n[gateway.dns]\ntimeout = 1.0\n"a b" = "x"\n'
    )
