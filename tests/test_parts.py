"""Parts of an evaluation: kept until something changes, and given back bit by bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from llmrec.errors import DataError
from llmrec.parts import Parts, array_of, digest, probabilities, timed


def test_a_part_is_kept_until_something_changes(tmp_path: Path) -> None:
    made: list[str] = []

    def get(weights: str, force: bool = False) -> tuple[list[int], dict[str, float]]:
        def make() -> tuple[pa.Table, dict[str, float]]:
            made.append(weights)
            return pa.table({"value": [len(made)]}), {"fit": 0.5}

        made_from = {"weights": weights, "users": (1, 2)}
        return Parts(tmp_path, force).get("a/llm+prior", made_from, make, lambda part: part["value"].to_pylist())

    file = tmp_path / "a" / "llm+prior.parquet"
    assert get("x") == get("x") == ([1], {"fit": 0.5}) and made == ["x"]
    assert get("y") == get("y") == ([2], {"fit": 0.5}) and made == ["x", "y"]
    file.write_bytes(file.read_bytes()[:-7])
    assert get("y")[0] == [3]
    assert get("y", force=True)[0] == [4] and get("y")[0] == [4]
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_part_that_cannot_be_read_is_made_again(tmp_path: Path) -> None:
    parts = Parts(tmp_path)
    parts.get("one", {}, lambda: (pa.table({"old": [1]}), {}), lambda part: part["old"])
    found, _ = parts.get("one", {}, lambda: (pa.table({"new": [2]}), {}), lambda part: part["new"].to_pylist())
    assert found == [2]


def test_only_what_is_not_there_is_made(tmp_path: Path) -> None:
    made: list[str] = []

    def maker(name: str) -> Callable[[], Callable[[list[int]], list[int]]]:
        def make() -> Callable[[list[int]], list[int]]:
            made.append(name)
            return lambda asked: [one * len(name) for one in asked]

        return make

    def answers(*names: str) -> dict[str, list[int]]:
        found, seconds = Parts(tmp_path).answers(
            names, {name: maker(name) for name in ("a", "bb")}, [1, 2], what="write",
            made_from=lambda name: {"name": name}, table=lambda values: pa.table({"value": values}),
            read=lambda part: part["value"].to_pylist(),
        )  # fmt: skip
        assert [*seconds] == [*names] and all([*took] == ["fit", "write"] for took in seconds.values())
        return found

    assert answers("bb") == {"bb": [2, 4]} and made == ["bb"]
    assert answers("a", "bb") == {"a": [1, 2], "bb": [2, 4]} and made == ["bb", "a"]


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written.*another folder"):
        Parts(tmp_path / "file").get("one", {}, lambda: (pa.table({"a": [1]}), {}), lambda part: part)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(3, 2), (1, 1), (0, 4)])
def test_probabilities_come_back_bit_by_bit(tmp_path: Path, dtype: type, shape: tuple[int, int]) -> None:
    p = np.random.default_rng(0).random(shape).astype(dtype)
    found, _ = Parts(tmp_path).get("p", {}, lambda: (probabilities(p), {}), array_of)
    again, _ = Parts(tmp_path).get("p", {}, lambda: (probabilities(p), {}), array_of)
    for one in (found, again):
        assert one.dtype == dtype and one.shape == shape and one.tobytes() == p.tobytes()


def test_seconds_and_digests() -> None:
    found, seconds = timed(lambda: len, "abc", "predict")
    assert found == 3 and list(seconds) == ["fit", "predict"] and min(seconds.values()) >= 0
    assert digest([1, "a"]) == digest((1, "a")) != digest([1, "b"]) and len(digest(None)) == 12
