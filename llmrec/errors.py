"""Errors that a user reads.

An `LlmrecError` is somebody's mistake or missing resource, not a bug: the command line prints it as one line and
exits with status 2.  Its text says where, what, and the way out.
"""

from __future__ import annotations

from collections.abc import Iterable

from rapidfuzz import process

MAX_OPTIONS = 40  # more are not listed in an error, …
NEAREST = 10  # … only those most like what was written


class LlmrecError(Exception):
    """Base of every error that is shown to the user as one line."""


class RecipeError(LlmrecError):
    """A recipe, suite or override that cannot be used as written."""


class AssetError(LlmrecError):
    """A base model or data set that cannot be fetched or does not match its digest."""


class DataError(LlmrecError):
    """Input data that cannot be read as asked: names file, row, column and value."""


class PromptError(LlmrecError):
    """A prompt file that cannot be rendered."""


class ChoiceError(LlmrecError):
    """A closed set of replies that cannot be told apart or is out of limits."""


class JobError(LlmrecError):
    """A batch job whose input cannot be read, or whose output cannot be begun or gone on with."""


class AdapterError(LlmrecError):
    """An adapter that is missing, incomplete, or was trained on something else."""


class EngineError(LlmrecError):
    """An engine that is not installed, cannot be reached, or does not take what it is asked."""


class ScoreError(EngineError):
    """Scores that are no numbers."""


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """`; did you mean 'rank'? (alpha, dropout, rank)` for an unknown `name`, `; known: alpha, dropout, rank` without a
    near match.  Of many options those most like it."""
    options = sorted(options)
    near = process.extractOne(name, options, processor=str.casefold, score_cutoff=60)
    shown = options
    if len(options) > MAX_OPTIONS:
        shown = [*(found[0] for found in process.extract(name, options, processor=str.casefold, limit=NEAREST)),
                 f"and {len(options) - NEAREST:,} more"]  # fmt: skip
    known = ", ".join(shown)
    if near:
        return f"; did you mean '{near[0]}'? ({known})"
    return f"; known: {known}" if known else ""
