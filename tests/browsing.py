"""What tests in a real browser share: Chromium through Playwright, and colours as they are seen."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = Path("/usr/bin/chromium")
NEEDS_CHROMIUM = pytest.mark.skipif(not CHROMIUM.exists(), reason="needs the Debian package chromium")
SHELL = Path("/usr/bin/chromium-headless-shell")
"""The same without a window's parts: a page takes half of the time."""
NEEDS_SHELL = pytest.mark.skipif(not SHELL.exists(), reason=f"needs the Debian package {SHELL.name}")

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
)

# Every element with text of its own: its colour, and the nearest background that is not transparent.
COLOURS = """() => {
  const solid = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (!/, 0\\)$/.test(colour)) return colour;
    }
    return 'rgb(255, 255, 255)';
  };
  const own = (element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  return [...document.body.querySelectorAll('*')].filter(own)
    .map((element) => [element.textContent.trim(), getComputedStyle(element).color, solid(element)]);
}"""


@contextmanager
def launched() -> Iterator[Any]:
    """A browser without a window, for pages."""
    with pytest.importorskip("playwright.sync_api").sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(SHELL), args=list(FLAGS))
        yield browser
        browser.close()


def heard(page: Any) -> list[tuple[str, str]]:
    """Role and name of each node that a screen reader finds."""
    tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    return [
        (node["role"]["value"], node.get("name", {}).get("value", "")) for node in tree if not node["ignored"]
    ]


def axe_violations(page: Any) -> str:
    """What axe-core finds wrong with a page, by all of its rules (WCAG 2.2 A and AA among them).

    But for that on contrast, which takes it seconds: all text of the page is measured here instead.
    """
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    if page.evaluate("typeof axe === 'object'"):
        axe.axe_script = "0"  # it is there, of a look before
    rules = {"color-contrast": {"enabled": False}}
    found = axe.run(page, options={"resultTypes": ["violations"], "rules": rules})
    poor = too_pale(page.evaluate(COLOURS))
    return str(found.generate_report()) if found.violations_count else str(poor) if poor else ""


def too_pale(colours: list[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """Those of `COLOURS` with too little contrast (WCAG 2.2, 1.4.3)."""
    return [(text, ink, paper) for text, ink, paper in colours if contrast(ink, paper) < 4.5]


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2)."""
    parts = [float(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)
