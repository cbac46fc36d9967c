"""No step is taken for what could not be read or served."""
# ruff: noqa: F811 - fixtures of another file are imported by name

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from test_train import here, world  # noqa: F401

from llmrec import config, train
from llmrec.errors import AdapterError, AssetError
from llmrec.model import adapter
from llmrec.model.load import BaseModel, base_model, load_model, load_tokenizer


def test_a_recipe_that_cannot_be_served_takes_no_step(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "SERVED_RANKS", (64,))  # an engine that serves fewer ranks than a recipe may ask for
    monkeypatch.setattr(train, "fit", lambda *_, **__: pytest.fail("a step was taken"))
    with pytest.raises(AdapterError, match="cannot be served: rank 8 is not one of 64"):
        train.train(config.load_recipe("films"))


def test_a_base_model_that_cannot_be_read_is_named(world: Path, tmp_path: Path) -> None:
    folder = tmp_path / "base"
    shutil.copytree(world / "base", folder)
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"model_type": "martian", "architectures": None}))
    with pytest.raises(AssetError, match="cannot be loaded: .*martian"):
        load_model(BaseModel(str(folder), folder, "0" * 12), dtype=torch.float32)
    for damage in (lambda file: file.write_bytes(file.read_bytes()[:100]), Path.unlink):  # torn, then gone
        for file in folder.glob("token*"):
            damage(file)
        with pytest.raises(AssetError, match=f"base_model {folder}: cannot be loaded"):
            load_tokenizer(folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(AssetError, match=r"model.safetensors: cannot be loaded"):
        base_model(str(folder))
    (tmp_path / "odd.gguf").write_bytes(b"no such thing")
    with pytest.raises(AssetError, match=r"odd.gguf: cannot be loaded"):
        base_model(str(tmp_path / "odd.gguf"))
