"""Every test: no network, one thread, and a home of its own."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
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

PATIENCE = 900  # seconds for a process or a server of our own: a bound on what hangs, never a measure

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
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project: fifteen films of three colours, and 30 people of whom each stays with one colour."""
    import tiny

    return tiny.films(tmp_path_factory.mktemp("films"))


@pytest.fixture(scope="session")
def films_adapter(films: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The films' adapter, trained on four tasks: 20 seconds."""
    from llmrec.train import train

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMREC_PROJECT", str(films))
        patch.setenv("LLMREC_HOME", str(tmp_path_factory.mktemp("training")))
        return train(config.load_recipe("films"))


@pytest.fixture(scope="session")
def vllm(served: Served) -> Iterator[Any]:
    """The real engine in float32; it answers a whole session, as its start takes seconds."""
    need_vllm()
    from llmrec.config import Serve
    from llmrec.engine.vllm import VLLMEngine

    engine = VLLMEngine(served.base, served.adapters, settings=Serve(max_loras=2, kv_gib=0.01, requests=16))
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def server(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a server that `llmrec serve movies books` would start."""
    need_vllm()
    import yaml

    from llmrec import serve
    from llmrec.model import adapter
    from llmrec.model.load import base_model

    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMREC_PROJECT", str(folder))
        patch.setenv("LLMREC_HOME", str(folder / "home"))
        base = base_model(str(served.base))
        for name, path in served.adapters.items():
            target = folder / "adapters" / name
            shutil.copytree(path, target)
            recipe = {"domain": name, "base_model": str(served.base), "data": {"path": "none"}}
            (target / "recipe.yaml").write_text(yaml.safe_dump(recipe))
            card = adapter.read_json(target / adapter.CARD)
            adapter.write_json(target / adapter.CARD, card | {"base_digest": base.digest})
        port = free_port()
        settings = ("serve.kv_gib=0.01", "serve.requests=16", "fit.precision=float32")
        words, environment = serve.command(list(served.adapters), settings, port=port)
    log = folder / "log.txt"
    with log.open("w") as out:
        running = subprocess.Popen(words, env=os.environ | environment, stdout=out, stderr=subprocess.STDOUT)
    try:
        url = f"http://127.0.0.1:{port}"
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            assert running.poll() is None, log.read_text()[-3000:]
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=60):
                break
            time.sleep(0.5)
        else:
            raise AssertionError(log.read_text()[-3000:])
        yield url
    finally:
        running.terminate()
        running.wait(PATIENCE)


@pytest.fixture(scope="session")
def remote(server: str, served: Served) -> Iterator[Any]:
    """The engine that asks `server`."""
    import tiny

    from llmrec.config import Serve
    from llmrec.engine.remote import RemoteEngine
    from llmrec.engine.serving import base_name
    from llmrec.model.load import base_model

    engine = RemoteEngine(
        server, base_name(base_model(str(served.base)), Serve()), tiny.tokenizer("gpt2"), served.adapters
    )
    yield engine
    engine.close()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def need_vllm() -> None:
    """Skips where vLLM is missing, and fails where the environment says that it must be there."""
    if importlib.util.find_spec("vllm") is None:
        if os.environ.get("LLMREC_REQUIRE_VLLM"):
            pytest.fail("vLLM is not installed")
        pytest.skip("vLLM is not installed; `make vllm` installs its build for processors")
