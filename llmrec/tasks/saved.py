"""What an adapter's folder says of it: its card, and the wordings saved with it; how prompt files differ from those."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llmrec import config
from llmrec.errors import AdapterError, PromptError
from llmrec.tasks.template import Template

LOG = logging.getLogger("llmrec")
CARD = "card.json"  # written last: a folder without it is not an adapter
RETRAIN = "no adapter answers this way until it is trained again"


class _Known(BaseModel):
    """What is read of a mapping that somebody else may have written; what is not there was not recorded yet."""

    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)


class _Trained(_Known):
    tasks: dict[str, dict[str, Any]] | list[str] = {}  # the first cards name them alone
    split: dict[str, Any] = {}
    identifier: dict[str, Any] = {}
    fit: dict[str, Any] = {}
    data: dict[str, Any] | None = None


class _Card(_Known):
    recipe: _Trained = _Trained()
    validation: dict[str, Any] = {}
    prompts: dict[str, Any] = {}
    items: list[str] | None = None
    codes: dict[str, Annotated[str, Field(pattern="^[A-Z0-9]{1,6}$")]] = {}
    prior_weight: float = 0.0


def misshapen(card: Mapping[str, Any]) -> str | None:
    """The first value of a card that nothing can read: null where settings belong, say."""
    try:
        _Card.model_validate(card)
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        what = problem["msg"].partition(" or instance")[0]
        return f"{'.'.join(map(str, problem['loc']))[:80]!r} cannot be read: {what}"
    return None


def read_card(folder: Path | None) -> dict[str, Any]:
    """The card of the adapter in `folder`; empty where there is none.  Raises: AdapterError for a damaged one."""
    if folder is None:
        return {}
    file = folder / CARD
    try:
        card = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, RecursionError) as error:  # ValueError: no JSON, or no UTF-8
        reason = f"cannot be read: {error}"
    else:
        if not isinstance(card, dict):
            reason = f"holds no JSON object but {type(card).__name__}"
        elif not (reason := misshapen(card) or ""):
            return card
    raise AdapterError(f"{file}: {reason}; restore it, go back with `llmrec adapters rollback`, or train again")


def saved_prompts(folder: Path, card: Mapping[str, Any]) -> dict[str, Template]:
    """Task → the prompt file that the adapter in `folder` was trained on.

    Raises: AdapterError where there is no card or a file is not the one it names; PromptError where one is missing.
    """
    if not card:
        domain = config.domain_of(config.adapter_name(folder))
        raise AdapterError(f"{folder}: no trained adapter here (no {CARD}); run `llmrec train {domain}`")
    digests = card.get("prompts")
    if not isinstance(digests, dict) or not digests:
        raise AdapterError(f"{folder}: the card names no prompts; restore it or train again")
    saved = {}
    for name, digest in digests.items():
        path = folder / "prompts" / f"{config.checked_name(name, 'task')}.yaml"
        saved[name] = Template.load(path)
        if saved[name].digest != digest:
            raise AdapterError(f"{folder}: prompts/{name}.yaml is not the wording it was trained on; restore it")
    return saved


def outdated(saved: Mapping[str, Template], prompts: Path) -> list[str]:
    """The tasks whose file in the folder `prompts` no longer says what was trained on, or cannot be read."""
    return [name for name, template in saved.items() if _meaning(prompts / f"{name}.yaml") != template.meaning]


def warn(adapter: str, saved: Mapping[str, Template]) -> None:
    """A line to the user where the project's prompt files say something else than an adapter learned."""
    if changed := outdated(saved, config.project() / "prompts"):
        LOG.warning(
            "%s answers with the wording it was trained on, not with today's prompts/ (%s); see what changed with "
            "`llmrec prompts diff %s`", adapter, ", ".join(changed), adapter,
        )  # fmt: skip


@dataclass(frozen=True)
class Change:
    """One difference between two prompt files."""

    what: str
    effect: str
    behaves: bool
    """Whether a model reads or learns something else."""


def changes(old: Template, new: Template) -> list[Change]:
    """What `new` says that `old` did not, most weighty first; empty where only comments or layout differ."""
    found = [
        *_identifiers(old, new),
        *_turns(old, new),
        *_labels(old, new),
        *_replies(old, new),
        *(_unread(name, old, new) for name in ("version", "slots", "facts")),
    ]
    listed = [change for change in found if change]
    if any(change.behaves for change in listed) and old.version == new.version:
        listed.append(Change(f"version is still {new.version}", "raise it with every change of meaning", False))
    return listed


def _identifiers(old: Template, new: Template) -> Iterator[Change]:
    if old.line != new.line:
        yield Change("line", f"items are named otherwise; {RETRAIN}", True)
    for name in ("reply", "choices", "follows"):
        if getattr(old, name) != getattr(new, name):
            yield Change(name, f"another kind of answer; {RETRAIN}", True)


def _turns(old: Template, new: Template) -> Iterator[Change]:
    if old.system != new.system:
        yield Change("system", "every prompt of this task begins otherwise", True)
    before, after = [wording.text for wording in old.user], [wording.text for wording in new.user]
    for i, text in enumerate(after):
        serves = "it is the one that answers" if i == 0 else "one of several"
        if i < len(before) and before[i] == text:
            pass
        elif text in before:
            yield Change(f"wording {before.index(text)} is now wording {i}", serves, True)
        elif i < len(before) and before[i] not in after:
            yield Change(f"wording {i} reworded", serves, True)
        else:
            yield Change(f"wording {i} added", serves, True)
    for i, text in enumerate(before):
        if text not in after and not (i < len(after) and after[i] not in before):
            yield Change(f"wording {i} removed", "it is learned from no more", True)
    held_out = {wording.text: wording.held_out for wording in old.user}
    for i, wording in enumerate(new.user):
        if held_out.get(wording.text, wording.held_out) != wording.held_out:
            effect = "training leaves it out" if wording.held_out else "training learns from it; it measures no more"
            yield Change(f"wording {i} is {'' if wording.held_out else 'no longer '}held out", effect, True)


def _labels(old: Template, new: Template) -> Iterator[Change]:
    before, after = [label.text for label in old.labels], [label.text for label in new.labels]
    if before != after:
        yield Change(f"labels: {_plain(tuple(before))} → {_plain(tuple(after))}", RETRAIN, True)
    elif old.labels != new.labels:
        yield Change("labels: other ratings mean them", "what is true changes; train again", True)


def _replies(old: Template, new: Template) -> Iterator[Change]:
    """What a text should be has no place of its own in a prompt: replies are told apart by what they say."""
    if old.replies != new.replies:
        lost, found = ([text for text in one.replies if text not in other.replies] for one, other in
                       ((old, new), (new, old)))  # fmt: skip
        counted = f"{len(found)} new, {len(lost)} gone" if lost or found else "in another order"
        yield Change(f"replies: {counted}", RETRAIN, True)


def _unread(name: str, old: Template, new: Template) -> Change | None:
    before, after = getattr(old, name), getattr(new, name)
    return (
        Change(f"{name}: {_plain(before)} → {_plain(after)}", "no model reads it", False) if before != after else None
    )


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value)


def _meaning(path: Path) -> dict[str, Any] | None:
    try:
        return Template.load(path).meaning
    except PromptError:
        return None
