"""What only a GPU can show: `make test-gpu`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from conftest import Served

from llmrec import config
from llmrec.engine import Node, Prompt
from llmrec.engine.hf import HFEngine
from llmrec.errors import EngineError
from llmrec.model import adapter
from llmrec.train import train

pytestmark = pytest.mark.gpu
RNG = np.random.default_rng(0)
CHILDREN = np.array([5, 9, 200], np.int32)
NODES = [
    Node(Prompt(tuple(RNG.integers(10, 500, length).tolist()), name), path, CHILDREN)
    for length in (3, 40, 90) for name in (None, "movies", "books") for path in ((), (7,), (7, 8))
]  # fmt: skip


def hf(served: Served, device: str, dtype: torch.dtype) -> HFEngine:
    model = adapter.load(tiny.model(width=128).to(device, dtype), served.adapters)
    return HFEngine(model.to(device), tiny.tokenizer("gpt2"))


@pytest.mark.parametrize(("dtype", "apart"), [(torch.float32, 1e-3), (torch.bfloat16, 0.3)])
def test_hf_answers_as_on_a_processor(served: Served, dtype: torch.dtype, apart: float) -> None:
    expected = hf(served, "cpu", torch.float32).branch(NODES)
    found = hf(served, "cuda", dtype).branch(NODES)
    assert np.mean([np.abs(a - b) for a, b in zip(found, expected, strict=True)]) < apart


@pytest.mark.parametrize("setting", ["fit.quantize=4bit", "fit.gradient_checkpointing=true", "fit.cache=disk"])
def test_training_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    monkeypatch.setenv("LLMREC_PROJECT", str(tiny.films(tmp_path)))
    folder = train(config.load_recipe("films", ("fit.precision=auto", "fit.epochs=4", setting)))
    adapter.check(folder)
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    losses = [entry["loss"] for entry in log if "loss" in entry]
    assert losses[-1] < losses[0]


def test_vllm_serves_adapters_in_16_bits(served: Served) -> None:
    from llmrec.engine.vllm import VLLMEngine

    with pytest.raises(EngineError, match="16 bits only"):
        VLLMEngine(served.base, served.adapters, dtype=torch.float32)
    settings = config.Serve(context=256, gpu_share=0.3)
    engine = VLLMEngine(served.base, served.adapters, dtype=torch.bfloat16, settings=settings)
    assert not engine.exact
    expected = hf(served, "cpu", torch.float32).branch(NODES)
    assert np.mean([np.abs(a - b) for a, b in zip(engine.branch(NODES), expected, strict=True)]) < 0.3
    engine.close()
