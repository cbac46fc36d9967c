"""No step is taken for what could not be served."""
# ruff: noqa: F811 - fixtures of another file are imported by name

from __future__ import annotations

from pathlib import Path

import pytest
from test_train import here, world  # noqa: F401

from llmrec import config, train
from llmrec.errors import AdapterError
from llmrec.model import adapter


def test_a_recipe_that_cannot_be_served_takes_no_step(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "SERVED_RANKS", (64,))  # an engine that serves fewer ranks than a recipe may ask for
    monkeypatch.setattr(train, "fit", lambda *_, **__: pytest.fail("a step was taken"))
    with pytest.raises(AdapterError, match="cannot be served: rank 8 is not one of 64"):
        train.train(config.load_recipe("films"))
