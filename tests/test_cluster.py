"""Batch jobs on a Ray cluster of two workers: what one process answers, whoever is killed on the way."""

from __future__ import annotations

import io
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import psutil
import pytest
from rich.console import Console

from llmrec import score
from llmrec.engine.server import Refused
from llmrec.errors import JobError
from llmrec.jobs import cluster
from llmrec.jobs.output import MANIFEST, write_whole

ROOT = Path(__file__).parent.parent
PATIENCE = 600  # seconds until a test gives up on a busy machine
SHARD = 20  # rows
ROWS = 990  # the last shard is a short one


@pytest.fixture
def source(films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Rows of the project of films, some of nobody it knows."""
    monkeypatch.setenv("LLMREC_PROJECT", str(films))
    path = tmp_path / "users.csv"
    path.write_text("user_id\n" + "\n".join("nobody" if i % 31 == 30 else f"u{i % 31}" for i in range(ROWS)) + "\n")
    return path


def job(source: Path) -> score.Job:
    return score.job("films", str(source), base=True, engine="fake", n=3, shard_rows=SHARD)


def quiet() -> Console:
    return Console(file=io.StringIO())


def same(one: Path, other: Path) -> bool:
    """Whether two finished outputs hold the same answers and rejects, byte for byte."""
    files = [
        {path.name: path.read_bytes() for path in folder.iterdir() if path.name.startswith(("scores-", "_rejects"))}
        for folder in (one, other)
    ]
    return files[0] == files[1] and len(files[0]) == ROWS // SHARD + 2


def test_a_killed_worker_and_a_killed_driver_lose_nothing_and_do_nothing_twice(source: Path, tmp_path: Path):
    pytest.importorskip("ray")
    output = tmp_path / "two"
    words = [
        sys.executable, "-m", "llmrec", "score", "films", "--base", "--engine", "fake", "-n", "3",
        "--shard-rows", str(SHARD), "--input", str(source), "--output", str(output),
        "--workers", "2", "--worker-cpus", "0.5",
    ]  # fmt: skip
    patient = {"RAY_worker_niceness": "0"}  # Ray's workers let every other process of the machine go first
    with started(words, output, patient) as driver:
        family = psutil.Process(driver.pid).children(recursive=True)
        workers = [process for process in family if "MapWorker" in " ".join(process.cmdline())]
        assert 1 <= len(workers) <= 2  # one may not have begun
        for worker in workers:
            worker.kill()
        assert wait_for(10, output, driver)
        driver.send_signal(signal.SIGKILL)
    psutil.wait_procs(workers, timeout=PATIENCE)
    counts = score.score(job(source), output, console=quiet())  # one process goes on with what two began
    assert counts == score.score(job(source), tmp_path / "alone", console=quiet())
    assert same(output, tmp_path / "alone")
    assert pd.read_parquet(output)["row"].tolist() == [i + 1 for i in range(ROWS) if i % 31 != 30]


def started(words: list[str], output: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """A driver that has some shards done.  Ray gives up where its own parts take longer than half a minute to start, as
    they do on a machine that is very busy: then another try, as people would."""
    for _ in range(5):
        driver = subprocess.Popen(words, cwd=ROOT, env=os.environ | environment, stderr=subprocess.PIPE)
        if wait_for(2, output, driver):
            return driver
        said = driver.communicate()[1].decode()
        assert "Ray does not start" in said, said
    raise AssertionError(said)


def wait_for(shards: int, output: Path, driver: subprocess.Popen[bytes]) -> bool:
    """Until so many shards are done; False where the driver ends before."""
    until = time.monotonic() + PATIENCE
    journal = output / "_shards.jsonl"
    while not journal.exists() or journal.read_bytes().count(b"\n") < shards:
        if driver.poll() is not None:
            return False
        assert time.monotonic() < until
        time.sleep(0.02)
    return True


def here(load: Any, numbers: Any, **_: Any) -> Any:
    """Ray's part without Ray: two workers that take turns, and everything they are told or say pickled."""
    made = [pickle.loads(pickle.dumps(load))() for _ in range(2)]
    return (pickle.loads(pickle.dumps(made[number % 2](number))) for number in numbers)


def test_workers_answer_what_one_process_does(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cluster, "in_order", here)
    counts = score.score(job(source), tmp_path / "two", workers=2, console=quiet())
    assert counts == score.score(job(source), tmp_path / "alone", console=quiet())
    assert same(tmp_path / "two", tmp_path / "alone")
    # Killed after the last shard, before the job was called finished.
    manifest = score.read_manifest(tmp_path / "two")
    assert manifest and manifest["finished"]
    write_whole(tmp_path / "two" / MANIFEST, json.dumps(manifest | {"finished": None}).encode())
    for _ in range(2):  # the second time nothing is left to do
        assert score.score(job(source), tmp_path / "two", workers=2, console=quiet()) == counts
        assert (score.read_manifest(tmp_path / "two") or {})["finished"] and same(tmp_path / "two", tmp_path / "alone")


def test_a_worker_with_something_else_is_refused(source: Path):
    asked = job(source)
    model = score._load(asked)
    made = score.made_from(asked, model, asked.table.measure())
    assert score.Shards.load(asked, made, {})(0).rows == SHARD
    with pytest.raises(JobError, match="has other weights, data or input: catalog: "):
        score.Shards.load(asked, made | {"catalog": "0" * 12}, {})
    source.write_text(source.read_text() + "u1\n")
    with pytest.raises(JobError, match="has other weights, data or input: input.digest"):
        score.Shards.load(asked, made, {})


def test_shards_of_a_dead_worker_are_read_again(source: Path):
    asked = job(source)
    shards = score.Shards(asked, score._load(asked), {})
    first = [shards.answer(number) for number in (0, 3, 4)]
    assert [shards.answer(number) for number in (3, 0)] == [first[1], first[0]]
    assert [shards.answer(number).rows for number in (ROWS // SHARD, ROWS // SHARD + 1, 999)] == [10, 0, 0]


def test_what_ray_cannot_do_is_one_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(JobError, match="Ray is not installed: pip install"):
        list(cluster.in_order(dict, range(3), workers=2))
    small = SimpleNamespace(
        init=lambda **_: None, shutdown=lambda: None, cluster_resources=lambda: {"CPU": 4.0},
        exceptions=SimpleNamespace(RayError=KeyError),
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "ray", small)
    with pytest.raises(JobError, match="9 workers need 9 CPUs, and Ray has 4"):
        list(cluster.in_order(dict, range(3), workers=9))


def test_what_a_worker_says_comes_back_as_it_is():
    def refuses(number: int) -> int:
        if number:
            raise JobError("other weights")
        return number

    worker = cluster._Worker(lambda: refuses)
    assert [pickle.loads(found) for found in worker({"number": [0]})["found"]] == [0]
    [error] = [pickle.loads(found) for found in worker({"number": [1]})["found"]]
    refused = pickle.loads(pickle.dumps(Refused("http://127.0.0.1:8000/v1", 400, "no such model")))
    assert (str(refused), refused.status) == ("http://127.0.0.1:8000/v1: 400: no such model", 400)
    assert isinstance(error, JobError) and str(error) == "other weights"
