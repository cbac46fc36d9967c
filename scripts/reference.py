"""What docs/reference.md prints from the code: `make docs` runs it through cog."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import typer
from typer.testing import CliRunner

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from llmrec import cli, config  # noqa: E402
from llmrec.tasks.template import Label, Template, Wording  # noqa: E402


def verbs() -> str:
    """The help of every verb, and of the acts of those that have several."""
    return "\n".join(f"### {name}\n\n```\n{_help(name)}\n```\n" for name in _names(typer.main.get_command(cli.app)))


def settings(kind: type[config.Section], prefix: str = "") -> str:
    """A table of keys, defaults and meanings, groups written out."""
    rows = [f"| `{key}` | {default} | {meaning} |" for key, default, meaning in _keys(kind, prefix)]
    return "\n".join(["| key | default | meaning |", "| --- | --- | --- |", *rows]) + "\n"


def recipe() -> str:
    return settings(config.Recipe)


def suite() -> str:
    return settings(config.Suite)


def judged() -> str:
    return settings(config.Judged)


def predicted() -> str:
    return settings(config.Predicted)


def written() -> str:
    return settings(config.Written)


def grounded() -> str:
    return settings(config.Grounded)


def wordings() -> str:
    return settings(config.Wordings)


def prompt_file() -> str:
    return settings(Template) + "\nA wording:\n\n" + settings(Wording) + "\nA label:\n\n" + settings(Label)


def prompts() -> str:
    """Every prompt file: its slots and wordings."""
    rows = []
    for path in sorted((ROOT / "prompts").rglob("*.yaml")):
        template = Template.load(path)
        held_out = len(template.wordings(held_out=True))
        wordings = f"{len(template.user)}, {held_out} held out"
        slots = ", ".join(f"`{slot}`" for slot in template.slots)
        rows.append(f"| `{template.task}` | {template.version} | {slots} | {template.reply} | {wordings} |")
    return "\n".join(["| task | version | slots | reply | wordings |", "| --- | --- | --- | --- | --- |", *rows]) + "\n"


def _names(group: Any, before: str = "") -> Iterator[str]:
    for name, command in group.commands.items():
        yield f"{before}{name}"
        if hasattr(command, "commands"):
            yield from _names(command, f"{before}{name} ")


def _help(verb: str) -> str:
    result = CliRunner().invoke(
        cli.app, [*verb.split(), "--help"], prog_name="llmrec", terminal_width=100, env={"COLUMNS": "100"}
    )
    return result.output.strip()


def _keys(kind: type[config.Section], prefix: str) -> Iterator[tuple[str, str, str]]:
    for key, field in kind.model_fields.items():
        inner: Any = field.annotation
        if isinstance(inner, type) and issubclass(inner, config.Section):
            yield from _keys(inner, f"{prefix}{key}.")
            continue
        parts = [part for part in get_args(inner) if isinstance(part, type) and issubclass(part, config.Section)]
        if parts and get_origin(inner) is not tuple:  # may be left out, or stands under names
            yield f"{prefix}{key}", "none", " ".join((field.description or "").split())
            yield from _keys(parts[0], f"{prefix}{key}.NAME." if get_origin(inner) is dict else f"{prefix}{key}.")
            continue
        default = field.get_default(call_default_factory=True) if not field.is_required() else None
        shown = "required" if field.is_required() else f"`{_plain(default)}`"
        yield f"{prefix}{key}", shown, " ".join((field.description or "").split()).replace("|", "\\|")


def _plain(value: Any) -> str:
    if isinstance(value, config.Section):
        return " ".join(f"{key}={_plain(inner)}" for key, inner in value)
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_plain, value)) + "]"
    return json.dumps(value) if value in ("", None) or isinstance(value, (bool, dict)) else str(value)
