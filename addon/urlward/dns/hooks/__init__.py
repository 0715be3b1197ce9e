"""Hooks for resolvers, as they are shipped: each runs inside one, and is no part of this program."""

from pathlib import Path

FOLDER = Path(__file__).parent

NAMES = ("unbound.py", "urlward_hook.lua", "powerdns.lua", "kres_modules/urlward.lua")
"""Files that a resolver reads."""
