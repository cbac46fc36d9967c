"""What a kill at any moment leaves is gone on with, or refused with the way out."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pytest

from llmrec.errors import JobError
from llmrec.files import WRITING
from llmrec.jobs import output as module
from llmrec.jobs.output import MANIFEST, REJECTS, SHARDS, Output, answers, differences, read_manifest

ROOT = Path(__file__).parent.parent
SCHEMA = pa.schema([("row", pa.int64()), ("text", pa.string())])
MADE = {"n": 3, "input": {"digest": "abc"}, "format": "parquet"}


@contextmanager
def begun(folder: Path, made=MADE, format: str = "parquet", **options) -> Iterator[Output]:
    with Output(folder, SCHEMA, format) as found:
        found.begin(made | {"format": format}, {}, **options)
        yield found


def go_on(folder: Path, rows: int, format: str = "parquet", stop: int | None = None) -> Output:
    """Two rows a shard; every fifth row is rejected."""
    with begun(folder, format=format) as found:
        while found.rows < min(rows, stop or rows):
            chunk = range(found.rows + 1, min(found.rows + 2, rows) + 1)
            found.commit(
                len(chunk), [{"row": i, "text": f"é{i}"} for i in chunk if i % 5],
                [{"row": i, "reason": "fifth"} for i in chunk if not i % 5], 0,
            )  # fmt: skip
        if not stop:
            found.finish()
    return found


def content(folder: Path) -> tuple[list[int], list[int]]:
    rejects = [json.loads(line)["row"] for line in (folder / REJECTS).read_text().splitlines()]
    return [row["row"] for row in answers(folder, ["row"])], rejects


@pytest.mark.parametrize("format", ["parquet", "jsonl"])
def test_answers_and_rejects_are_all_there(tmp_path, format: str):
    go_on(tmp_path / "out", 11, format)
    assert content(tmp_path / "out") == ([1, 2, 3, 4, 6, 7, 8, 9, 11], [5, 10])
    manifest = read_manifest(tmp_path / "out")
    assert manifest["finished"] and manifest["counts"] == {"rows": 11, "answers": 9, "rejected": 2, "unchanged": 0}


@pytest.mark.parametrize("left", [0, 1])
def test_finished_answers_without_their_lines_are_not_thrown_away(tmp_path, left: int):
    go_on(tmp_path / "out", 11)
    lines = (tmp_path / "out" / SHARDS).read_bytes().splitlines(keepends=True)
    (tmp_path / "out" / SHARDS).write_bytes(b"".join(lines[:left]))
    with pytest.raises(JobError, match=f"{SHARDS}: missing, or not what was written"), begun(tmp_path / "out"):
        pass
    (tmp_path / "out" / SHARDS).write_bytes(b"".join(lines))
    assert content(tmp_path / "out") == ([1, 2, 3, 4, 6, 7, 8, 9, 11], [5, 10])


class Killed(BaseException):
    pass


@pytest.mark.parametrize("format", ["parquet", "jsonl"])
def test_stopped_before_or_after_every_write(tmp_path, monkeypatch, format: str):
    """Wherever the disk is when the process dies, the end is the same."""
    whole = tmp_path / "whole"
    go_on(whole, 11, format)
    done, stops = False, 0
    while not done:
        folder = tmp_path / f"stopped-{stops}"
        moments = {"left": stops}

        def moment(moments=moments) -> None:
            moments["left"] -= 1
            if moments["left"] < 0:
                raise Killed

        def torn(path: Path, text: bytes, write=module._append) -> None:
            moment()
            write(path, text[: len(text) // 2])  # part of it has reached the disk
            moment()
            write(path, text[len(text) // 2 :])
            moment()

        def unnamed(path: Path, text: bytes, write=module.write_whole) -> None:
            path.with_name(f"{WRITING}1-{path.name}").write_bytes(text[: len(text) // 2])
            moment()
            write(path, text)
            moment()

        with monkeypatch.context() as patch:
            patch.setattr(module, "_append", torn)
            patch.setattr(module, "write_whole", unnamed)
            try:
                go_on(folder, 11, format)
                done = True
            except Killed:
                pass
        go_on(folder, 11, format)
        assert content(folder) == content(whole)
        names = sorted(path.name for path in folder.iterdir())
        assert names == sorted(path.name for path in whole.iterdir())
        for name in names:
            if name not in (MANIFEST, SHARDS):
                assert (folder / name).read_bytes() == (whole / name).read_bytes()
        stops += 1
    assert stops > 40


def test_other_settings_are_refused(tmp_path):
    go_on(tmp_path / "out", 5, stop=2)
    other = {"n": 3, "input": {"digest": "xyz"}}
    message = 'input.digest: "abc", now "xyz".*another folder.*--restart'
    with pytest.raises(JobError, match=message), begun(tmp_path / "out", other):
        pass
    with begun(tmp_path / "out") as found:
        assert found.rows == 2
    with begun(tmp_path / "out", {"n": 4}, restart=True) as again:
        assert again.rows == 0 and not list((tmp_path / "out").glob("scores-*"))
    assert (tmp_path / "out" / REJECTS).read_bytes() == b""


@pytest.mark.parametrize("damaged", ["", '{"format": 2}'])
def test_a_restart_mends_a_manifest_that_cannot_be_read(tmp_path, damaged: str):
    go_on(tmp_path / "out", 5)
    (tmp_path / "out" / MANIFEST).write_text(damaged)
    with pytest.raises(JobError, match="give --restart"), begun(tmp_path / "out"):
        pass
    with begun(tmp_path / "out", restart=True) as again:
        assert again.rows == 0


def test_a_restart_that_is_killed_does_not_mix_two_jobs(tmp_path, monkeypatch):
    go_on(tmp_path / "out", 9)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Output, "_remove_leftovers", lambda self: (_ for _ in ()).throw(Killed))
        with begun(tmp_path / "out", {"n": 4}, restart=True):
            pass
    with begun(tmp_path / "out", {"n": 4}) as found:
        assert found.rows == 0 and not list((tmp_path / "out").glob("scores-*"))


def test_answers_that_were_touched_are_refused(tmp_path):
    go_on(tmp_path / "out", 9, stop=4)
    path = tmp_path / "out" / "scores-000001.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with (
        pytest.raises(JobError, match="scores-000001.parquet: missing, or not what was written"),
        begun(tmp_path / "out"),
    ):
        pass
    with pytest.raises(JobError, match="scores-000001.parquet: missing, or not what was written"):
        content(tmp_path / "out")  # as --since reads them
    path.unlink()
    with pytest.raises(JobError, match="missing, or not what was written"), begun(tmp_path / "out"):
        pass
    with pytest.raises(JobError, match="no output"):
        [*answers(tmp_path, ["row"])]


def test_lines_that_were_lost_are_refused(tmp_path):
    go_on(tmp_path / "out", 9)
    assert len([*answers(tmp_path / "out", ["row"])]) == 8
    (tmp_path / "out" / "scores-all.jsonl").write_text("somebody's own")
    lines = (tmp_path / "out" / SHARDS).read_text().splitlines(keepends=True)
    for kept in (lines[:1], []):
        (tmp_path / "out" / SHARDS).write_text("".join(kept))
        with pytest.raises(JobError, match="_shards.jsonl: missing, or not what was written"):
            [*answers(tmp_path / "out", ["row"])]
    (tmp_path / "out" / SHARDS).unlink()
    with pytest.raises(JobError, match="_shards.jsonl: missing"):
        [*answers(tmp_path / "out", ["row"])]


def test_what_is_spoilt_is_not_gone_on_with(tmp_path):
    with begun(tmp_path / "out") as found:
        assert "may answer either; score again with --restart" in str(found.spoilt("these may answer either"))
    with pytest.raises(JobError, match="may answer either; score again with --restart"), begun(tmp_path / "out"):
        pass
    with begun(tmp_path / "out", restart=True) as found:
        found.finish()
    with begun(tmp_path / "out") as found:
        assert found.finished


def test_rejects_that_were_touched_are_refused(tmp_path):
    go_on(tmp_path / "out", 9, stop=6)
    (tmp_path / "out" / REJECTS).write_bytes(b"")
    with pytest.raises(JobError, match="_rejects.jsonl: missing"), begun(tmp_path / "out"):
        pass


def test_files_beside_the_answers_are_somebodys_own(tmp_path):
    go_on(folder := tmp_path / "out", 5)
    (folder / "scores-all.parquet").write_bytes(b"somebody's")
    (folder / "scores-old").mkdir()
    before = [*answers(folder, ["row"])]
    (folder / "scores-000009.parquet").write_bytes(b"left by a kill")
    with begun(folder) as found:
        assert found.finished
    assert (folder / "scores-all.parquet").read_bytes() == b"somebody's" and (folder / "scores-old").is_dir()
    assert not (folder / "scores-000009.parquet").exists()
    assert [*answers(folder, ["row"])] == before


def test_an_input_whose_name_is_no_text(tmp_path):
    odd = {"n": 3, "input": {"path": b"us\xffers.csv".decode(errors="surrogateescape")}}
    for _ in range(2):  # begins, and goes on
        with begun(tmp_path, odd) as found:
            assert found.manifest["made_from"] == odd | {"format": "parquet"}


def test_folders_that_hold_something_else(tmp_path):
    (tmp_path / "scores-000000.parquet").write_bytes(b"somebody's")
    with pytest.raises(JobError, match="holds other files"), Output(tmp_path, SCHEMA):
        pass
    assert (tmp_path / "scores-000000.parquet").read_bytes() == b"somebody's"
    with pytest.raises(JobError, match="not a folder"), Output(tmp_path / "scores-000000.parquet", SCHEMA):
        pass
    with pytest.raises(JobError, match="local folders"), Output(Path("s3://bucket/out"), SCHEMA):
        pass
    assert not Path("s3:").exists()
    with pytest.raises(JobError, match="cannot be written: File name too long"), Output(tmp_path / ("x" * 300), SCHEMA):
        pass
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / MANIFEST).write_text('{"format": 99}')
    with pytest.raises(JobError, match="format 1"), begun(tmp_path / "old"):
        pass


def test_one_process_at_a_time(tmp_path):
    code = (
        "import sys, pyarrow as pa; from pathlib import Path; from llmrec.jobs.output import Output\n"
        "with Output(Path(sys.argv[1]), pa.schema([])): print('in', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    )
    with other:
        assert other.stdout and other.stdin
        assert other.stdout.readline() == b"in\n"
        with pytest.raises(JobError, match="another process is writing here"), Output(tmp_path, SCHEMA):
            pass
        other.kill()
    with Output(tmp_path, SCHEMA):  # a dead process holds nothing
        pass


def test_differences():
    assert list(differences({"a": 1, "b": {"c": 2, "d": 3}}, {"a": 1, "b": {"c": 4, "d": 3}})) == ["b.c: 2, now 4"]
    assert list(differences({"a": 1}, {"b": 1})) == ["a: 1, now null", "b: null, now 1"]
