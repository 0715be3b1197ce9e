"""The forms of the block page as text: Jinja templates for HTML and plain text, code for JSON.

A custom template sees: ``status``, ``phrase``, ``language``, ``texts`` (the fixed texts by key), ``reason``,
``advice`` and ``help`` (the texts for the category), ``operator``, ``authority_url``, ``objection`` (None, or
``text`` and ``href``), ``form`` (None, or ``url``, ``link``, ``max_length`` and ``texts``), ``help_links``
(each ``text`` and ``href``), ``list_name``, ``category`` and ``reference``. An unknown variable is an error.
``<style>`` elements may be used; the page's own policy refuses scripts, ``style`` attributes and whatever has
to be fetched.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import FileSystemLoader, StrictUndefined, Template, TemplateError
from jinja2.sandbox import SandboxedEnvironment

from urlward.page.negotiation import PageForm
from urlward.page.safety import SHARED
from urlward.page.words import BlockPageError
from urlward.proxy.page_links import Contact

FILES = {PageForm.HTML: "block.html.j2", PageForm.TEXT: "block.txt.j2"}

_SHIPPED = Path(__file__).parent / "templates"


def load_templates(folder: Path | None) -> dict[PageForm, Template]:
    """Compile the template of each form: the one in ``folder``, or else the shipped one.

    Raises:
        BlockPageError: the folder holds no template, or one that cannot be read or compiled.
    """
    if folder is not None and not any((folder / name).is_file() for name in FILES.values()):
        raise BlockPageError("template_dir", f"{str(folder)!r} holds no {' and no '.join(FILES.values())}")
    loader = FileSystemLoader([*([folder] if folder else []), _SHIPPED, SHARED])
    templates = {}
    for form, name in FILES.items():
        # One environment a form: a file that the page includes is escaped like the page, whatever its name.
        environment = SandboxedEnvironment(
            loader=loader,
            autoescape=form is PageForm.HTML,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        try:
            templates[form] = environment.get_template(name)
        except (TemplateError, OSError, UnicodeError) as error:
            raise BlockPageError("template_dir", f"{name} cannot be loaded: {describe(error)}") from error
    return templates


def write_problem(context: Mapping[str, Any]) -> str:
    """Write a problem object (RFC 9457) with members of our own beside ``type`` to ``detail``."""
    objection: Contact | None = context["objection"]
    problem = {
        "type": "about:blank",
        "title": context["phrase"],
        "status": context["status"],
        "detail": f"{context['texts']['lead']} {context['reason']}",
        "reference": context["reference"],
        "operator": context["operator"],
        "authority": context["authority_url"],
        "list": context["list_name"],
        "category": context["category"],
        "objection": objection and (objection.href or objection.text),
        "objection_form": context["form"] and context["form"]["link"],
        "help": [{"label": contact.text, "url": contact.href} for contact in context["help_links"]],
    }
    return json.dumps(problem, ensure_ascii=False) + "\n"


def describe(error: Exception) -> str:
    """Describe a template error in one line, with the line number in the template."""
    number = getattr(error, "lineno", None)
    text = " ".join(str(error).split()) or type(error).__name__
    return f"line {number}: {text}" if number else text
