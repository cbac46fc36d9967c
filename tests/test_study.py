"""scripts/study_mixture.py: recipes of the options and the table; the runs themselves are minutes."""

from __future__ import annotations

import json
import os
import runpy
from pathlib import Path

import pytest
from scipy.stats import t as student

from llmrec import config
from llmrec.errors import RecipeError

ROOT = Path(__file__).parent.parent
STUDY = runpy.run_path(str(ROOT / "scripts" / "study_mixture.py"))


@pytest.mark.parametrize("option", STUDY["OPTIONS"])
def test_options_differ_from_static_in_what_they_name_alone(option: str) -> None:
    static, other = (STUDY["recipe"](name, 3, ["fit.epochs=1"]) for name in ("static", option))
    assert static.fit == other.fit and static.fit.seed == 3
    assert [trained(static), static.lora.targets] == [trained(other), other.lora.targets]
    assert static.lora == other.lora or "own parts" in option
    assert (static == other) == (option == "static")
    assert list(other.tasks) == ([STUDY["ALONE"][option]] if option in STUDY["ALONE"] else list(static.tasks))
    assert STUDY["recipe"]("reviews from half on", 0, ["fit.epochs=1"]).tasks["review_sentiment"].start == 0.5


def trained(recipe: config.Recipe) -> int:
    """Ranks that are trained of each layer, and the scale of all, are the same whatever is shared."""
    assert recipe.lora.alpha == recipe.lora.rank
    return recipe.lora.rank + (recipe.lora.own and recipe.lora.own * len(recipe.tasks))


def test_intervals_are_those_of_student() -> None:
    half = student.ppf(0.975, 2) * 0.1 / 3**0.5
    assert STUDY["interval"]([0.2, 0.3, 0.4]) == f"0.300 [{0.3 - half:.3f}, {0.3 + half:.3f}]"
    assert STUDY["interval"]([0.25], signed=True) == "+0.250" and STUDY["interval"]([]) == ""


def test_the_table_pairs_seeds_and_leaves_out_what_was_not_measured() -> None:
    def result(nats: float, f1: float | None = None) -> dict[str, object]:
        metrics = {"next_item nats": nats} | ({} if f1 is None else {"review_sentiment nats": 1.0, "macro_f1": f1})
        return {"metrics": metrics, "steps": 100, "seconds": 60.0}

    found = STUDY["table"]({
        "static": {0: result(0.1, 0.5), 1: result(0.3, 0.5)}, "next_item alone": {1: result(0.4)}, "dwa": {},
    })  # fmt: skip
    head, rule, static, alone = found.splitlines()
    assert head.count("|") == rule.count("|") == static.count("|") == alone.count("|")
    assert static.startswith("| static | 2 | 0.200 [")
    assert alone == "| next_item alone | 1 | 0.400 | +0.100 |  |  |  |  | 100 | 1.0 |"


def test_a_finished_run_is_read_and_another_recipe_refused(tmp_path: Path) -> None:
    recipe = STUDY["recipe"]("static", 0, [])
    result = {"recipe": recipe.model_dump(mode="json"), "metrics": {}}
    (tmp_path / "result.json").write_text(json.dumps(result))
    assert STUDY["run"](recipe, tmp_path, tmp_path / "none") == result
    with pytest.raises(RecipeError, match="made with other settings"):
        STUDY["run"](STUDY["recipe"]("dwa", 0, []), tmp_path, tmp_path / "none")


def test_activations_that_are_shared_again_after_a_kill_are_whole(tmp_path: Path) -> None:
    """The rows that are there are told last, so a kill before leaves nothing that vouches for what is not there."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    for name in ("activations-0.sums", "activations-0.bin"):
        (source / name).write_bytes(name.encode())
    linked: list[str] = []
    real = os.link

    def killed(file: Path, to: Path) -> None:
        if linked:
            raise KeyboardInterrupt
        linked.append(to.name)
        real(file, to)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "link", killed)
        STUDY["share"](source, target)
    assert linked == ["activations-0.bin"]
    STUDY["share"](source, target)
    assert sorted(file.name for file in target.iterdir()) == ["activations-0.bin", "activations-0.sums"]
