"""Every test: no network, one thread, and a home of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

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
