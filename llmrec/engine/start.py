"""The engine that a word names: `hf`, `vllm`, or the address of a vLLM server."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch

from llmrec import config
from llmrec.engine import Engine
from llmrec.engine.fake import FakeEngine
from llmrec.errors import EngineError
from llmrec.model import adapter
from llmrec.model.load import BaseModel, compute_dtype, load_model

LOG = logging.getLogger("llmrec")


class Holder(Protocol):
    """Whoever answers through an engine."""

    @property
    def engine(self) -> Engine: ...


H = TypeVar("H", bound=Holder)


def alone(loaded: dict[str | None, H], name: str | None, load: Callable[[], H]) -> H:
    """The one called `name` in `loaded`; where it is not there, what is gives back first what outlives it (a device's
    memory, connections): one model in memory at a time."""
    if name not in loaded:
        while loaded:  # nothing here may hold on to one while the next is loaded
            loaded.popitem()[1].engine.close()
        loaded[name] = load()
    return loaded[name]


def start(
    name: str,
    base: BaseModel,
    tokenizer: Any,
    adapters: Mapping[str, Path],
    recipe: config.Recipe,
    *,
    device: torch.device | str = "cpu",
) -> Engine:
    """An engine with the adapters (name → folder) loaded.

    Raises: EngineError where it is unknown, not installed or not reachable; AdapterError for a folder it cannot take.
    """
    if name == "fake":
        return FakeEngine()
    dtype = compute_dtype(recipe.fit.precision, device)
    if name == "hf":
        from llmrec.engine.hf import HFEngine

        model = load_model(base, dtype=dtype, device=device)
        return HFEngine(adapter.load(model, dict(adapters)), tokenizer)
    if name == "vllm":
        from llmrec.engine.vllm import VLLMEngine

        if recipe.serve.data_parallel > 1:
            LOG.warning("serve.data_parallel: one process holds one copy; `llmrec serve` starts several")
        if recipe.serve.merge:
            if len(adapters) != 1:
                raise EngineError(f"serve.merge=true merges one adapter, not {len(adapters)}")
            [(merged, folder)] = adapters.items()
            return VLLMEngine(adapter.merged(base, folder), dtype=dtype, settings=recipe.serve, merged=merged)
        return VLLMEngine(base.folder, adapters, dtype=dtype, settings=recipe.serve)
    if config.is_engine(name):
        from llmrec.engine.remote import RemoteEngine
        from llmrec.engine.serving import base_name

        return RemoteEngine(name, base_name(base, recipe.serve), tokenizer, adapters)
    raise EngineError(f"engine '{name}': use {config.ENGINES}")
