"""Kill a batch job at random and look whether all answers are there, once and in order; and what memory it takes.

    python scripts/check_score.py                              # 10,000 and 100,000 rows, fake engine, three kills
    python scripts/check_score.py --engine vllm --rows 500     # the base model itself, histories of five items

Makes a small domain of its own; needs the named base model, which `llmrec prepare movies` fetches.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from llmrec import config, prepare  # noqa: E402

ITEMS, USERS = 40, 500
GAP = 1e-3  # nats that a score may differ by when it is computed in another batch
RECIPE = """\
domain: check-score
data: {{format: table, path: {folder}/events.csv}}
split: {{method: leave_one_out}}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", default="fake", choices=["fake", "hf", "vllm"])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    random.seed(asked.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        domain(folder)
        try:
            for rows in asked.rows:
                check(folder, rows, asked.kills, asked.engine)
        finally:
            shutil.rmtree(prepare.data_folder(config.load_recipe(str(folder / "recipe.yaml"))), ignore_errors=True)


def domain(folder: Path) -> None:
    """A recipe with its interactions."""
    lines = ["user_id,item_id,timestamp"]
    for user in range(USERS):
        lines += [f"u{user},film {item},{place}" for place, item in enumerate(random.sample(range(ITEMS), 5))]
    (folder / "events.csv").write_text("\n".join(lines) + "\n")
    (folder / "recipe.yaml").write_text(RECIPE.format(folder=folder))


def check(folder: Path, rows: int, kills: int, engine: str) -> None:
    """One job of `rows` rows, killed `kills` times."""
    shard, pause = (250, 0.5) if engine == "fake" else (25, 10.0)  # rows; seconds that a shard or two take
    source, output = folder / f"{rows}.csv", folder / f"out-{rows}"
    users = [f"u{random.randrange(USERS)}" if random.random() > 0.01 else "nobody" for _ in range(rows)]
    source.write_text("user_id\n" + "\n".join(users) + "\n")
    moments = sorted(random.sample(range(1, rows // shard - 2), kills))  # in finished shards
    began, peak, killed_at = time.monotonic(), 0, []
    while True:
        job = start(folder, source, output, engine, shard)
        while moments and done(output) < moments[0] and running(job):
            time.sleep(random.random() * 0.05)
        if moments and running(job):
            time.sleep(random.random() * pause)  # somewhere within the work on some shard
            os.kill(job.pid, signal.SIGKILL)
            killed_at.append(done(output) * shard)
            moments.pop(0)
        _, status, usage = os.wait4(job.pid, 0)
        job.returncode = os.waitstatus_to_exitcode(status)
        peak = max(peak, usage.ru_maxrss)
        if job.returncode == 0:
            break
        assert job.returncode == -signal.SIGKILL, job.returncode
    assert len(killed_at) == kills, killed_at
    verify(output, users, 0 if engine == "fake" else GAP)
    seconds = time.monotonic() - began
    print(
        f"{rows:,} rows, engine {engine}: exact after kills at rows {killed_at}; {seconds:.0f} s; "
        f"peak {peak / 1024:.0f} MiB",
        flush=True,
    )


def start(folder: Path, source: Path, output: Path, engine: str, shard: int) -> subprocess.Popen[bytes]:
    words = ["score", str(folder / "recipe.yaml"), "--base", "--engine", engine, "-n", "5", "--shard-rows", str(shard)]
    words += ["fit.precision=float32"]
    return subprocess.Popen(
        [sys.executable, "-m", "llmrec", *words, "--input", str(source), "--output", str(output)],
        cwd=ROOT, stdout=subprocess.DEVNULL,
    )  # fmt: skip


def running(job: subprocess.Popen[bytes]) -> bool:
    """Without taking its exit status, which `wait4` gives with the memory it took."""
    return os.waitid(os.P_PID, job.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def done(output: Path) -> int:
    """Finished shards."""
    try:
        return (output / "_shards.jsonl").read_bytes().count(b"\n")
    except OSError:
        return 0


def verify(output: Path, users: list[str], gap: float) -> None:
    """Every row once, in order, with its user's one and only list; scores within `gap` may have changed places."""
    lists: dict[str, dict[str, Any]] = {}
    rows: list[int] = []
    for path in sorted(output.glob("scores-*.parquet")):
        for answer in pq.read_table(path).to_pylist():
            assert users[answer["row"] - 1] == answer["user_id"]
            first = lists.setdefault(answer["user_id"], answer)
            assert gap or first["item_id"] == answer["item_id"]
            assert len(answer["score"]) == 5 and np.abs(np.subtract(first["score"], answer["score"])).max() <= gap
            rows.append(answer["row"])
    rejected = [json.loads(line)["row"] for line in (output / "_rejects.jsonl").read_text().splitlines()]
    assert rows == [i for i, user in enumerate(users, 1) if user != "nobody"]
    assert rejected == [i for i, user in enumerate(users, 1) if user == "nobody"]
    manifest = json.loads((output / "_manifest.json").read_text())
    assert manifest["finished"] and manifest["counts"]["rows"] == len(users)


if __name__ == "__main__":
    main()
