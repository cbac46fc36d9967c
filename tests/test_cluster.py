"""Batch jobs on a Ray cluster of two workers: what one process answers, whoever is killed on the way."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
from rich.console import Console

from llmrec import score

pytest.importorskip("ray", reason="Ray is not installed: pip install 'llmrec[ray]'")
ROOT = Path(__file__).parent.parent
PATIENCE = 300  # seconds until a test gives up on a busy machine
WORKER = "ray::MapWorker"


@pytest.fixture
def source(films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """2,000 rows of the project of films, some of nobody it knows."""
    monkeypatch.setenv("LLMREC_PROJECT", str(films))
    path = tmp_path / "users.csv"
    path.write_text("user_id\n" + "\n".join("nobody" if i % 31 == 30 else f"u{i % 31}" for i in range(2000)) + "\n")
    return path


def command(source: Path, output: Path, *more: str) -> list[str]:
    return [
        sys.executable, "-m", "llmrec", "score", "films", "--base", "--engine", "fake", "-n", "3", "--shard-rows", "20",
        "--input", str(source), "--output", str(output), *more,
    ]  # fmt: skip


def run(words: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE)


def wait_for(shards: int, output: Path, driver: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + PATIENCE
    while not (output / "_shards.jsonl").exists() or (output / "_shards.jsonl").read_bytes().count(b"\n") < shards:
        assert driver.poll() is None and time.monotonic() < until
        time.sleep(0.05)


def test_killed_workers_and_a_killed_driver_lose_nothing_and_do_nothing_twice(source: Path, tmp_path: Path):
    asked = score.job("films", str(source), base=True, engine="fake", n=3, shard_rows=20)
    counts = score.score(asked, tmp_path / "alone", console=Console(file=io.StringIO()))
    output = tmp_path / "two"
    with subprocess.Popen(command(source, output, "--workers", "2", "--worker-cpus", "0.5"), cwd=ROOT) as driver:
        wait_for(3, output, driver)
        family = psutil.Process(driver.pid).children(recursive=True)
        workers = [process for process in family if process.name().startswith(WORKER[:15])]
        assert len(workers) == 2
        os.kill(workers[0].pid, signal.SIGKILL)
        wait_for(20, output, driver)
        driver.kill()
    _, left = psutil.wait_procs(workers, timeout=PATIENCE)
    assert not left  # they end with the driver
    again = run(command(source, output, "--workers", "2", "--worker-cpus", "0.5"))
    assert again.returncode == 0, again.stderr
    assert "going on after" in again.stderr and "2,000 rows" in again.stdout
    found = pd.read_parquet(output)
    assert found["row"].tolist() == [i + 1 for i in range(2000) if i % 31 != 30] and counts["answers"] == len(found)
    for path in (tmp_path / "alone").glob("*"):
        if path.name.startswith(("scores-", "_rejects")):
            assert path.read_bytes() == (output / path.name).read_bytes()


def test_what_ray_cannot_do_is_one_line(source: Path, tmp_path: Path):
    found = run(command(source, tmp_path / "out", "--workers", "9999"))
    assert found.returncode == 2 and "9999 workers need 9999 CPUs, and Ray has" in found.stderr.splitlines()[-1]
    assert score.read_manifest(tmp_path / "out") is not None  # the same command with fewer goes on
