"""Every test: no network, one thread, and a home of its own."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from llmrec import config

# Before anything imports torch or transformers, which read these once.
os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",  # tiny matrices: threads only wait for each other
    "COLUMNS": "120",  # width of printed tables
}
# How long an example takes says how busy the machine is, not whether the code is right.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

REAL_HOME = Path(os.environ.get("LLMREC_TEST_HOME") or config.home())


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty LLMREC_HOME."""
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("LLMREC_HOME", str(folder))
    for name in ("LLMREC_PROJECT", "LLMREC_ASSETS"):
        monkeypatch.delenv(name, raising=False)
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)  # whatever the test before has set
    return folder


@pytest.fixture
def real_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`LLMREC_TEST_HOME`, else the user's: with the real base model and MovieLens, which `make test` fetched."""
    if not any(REAL_HOME.glob("assets/smollm2-135m-*")):
        pytest.skip(f"no base model in {REAL_HOME}; `make test` fetches it")
    monkeypatch.setenv("LLMREC_HOME", str(REAL_HOME))
    return REAL_HOME


@dataclass(frozen=True)
class Served:
    """A tiny base model and two adapters of it, on disk."""

    base: Path
    adapters: dict[str, Path]


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    import tiny

    folder = tmp_path_factory.mktemp("served")
    tiny.model(width=128).save_pretrained(folder / "base")  # vLLM's attention takes no head narrower than 32
    tiny.tokenizer("gpt2").save_pretrained(folder / "base")
    names = ["movies", "books"]
    return Served(folder / "base", {name: tiny.adapter(folder / name, seed) for seed, name in enumerate(names)})


@pytest.fixture(scope="session")
def vllm(served: Served) -> Iterator[Any]:
    """The real engine in float32; it answers a whole session, as its start takes seconds."""
    need_vllm()
    from llmrec.config import Serve
    from llmrec.engine.vllm import VLLMEngine

    engine = VLLMEngine(served.base, served.adapters, settings=Serve(max_loras=2, kv_gib=0.01, requests=16))
    yield engine
    engine.close()


def need_vllm() -> None:
    """Skips where vLLM is missing, and fails where the environment says that it must be there."""
    if importlib.util.find_spec("vllm") is None:
        if os.environ.get("LLMREC_REQUIRE_VLLM"):
            pytest.fail("vLLM is not installed")
        pytest.skip("vLLM is not installed; `make vllm` installs its build for processors")
