"""What the tests of the policy share: configurations as text, and verdicts as found."""

from pathlib import Path

from urlward.config import Config, read_config
from urlward.engine.verdict import Action, Verdict


def config(folder: Path, text: str) -> Config:
    path = folder / "urlward.toml"
    path.write_text(text)
    return read_config(path)


def found(
    list_name: str, category: str = "", action: Action = "block", rank: int = 0, entry: str = "e-1"
) -> Verdict:
    return Verdict(action, "domain", entry, category, list_name, rank)
