from __future__ import annotations

import numpy as np
import pytest

from llmrec import config
from llmrec.config import Mixture, ReviewSource, Task
from llmrec.errors import RecipeError
from llmrec.model.mixture import micro, steps, taken
from llmrec.model.rows import Row, choice_row

LISTS = [Row(np.zeros(40 + i, np.int32), np.arange(10), np.arange(10), np.empty(0)) for i in range(30)]
REVIEWS = [choice_row([1] * (8 + i % 5), np.array([3, 4]), i % 3, task="review") for i in range(60)]
ROWS = [*LISTS, *REVIEWS]


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def choices(part: list[int]) -> int:
    return sum(len(ROWS[row].starts) for row in part)


def test_at_temperature_one_every_row_is_taken_once_and_steps_hold_all_tasks() -> None:
    made = steps(ROWS, 400, rng())
    assert sorted(row for step in made for row in step) == list(range(90))
    assert all({ROWS[row].task for row in step} == {"next_item", "review"} for step in made)
    assert all(len({ROWS[row].task for row in part}) == 1 for step in made for part in micro(step, ROWS, 400))


def test_apart_a_step_is_one_tasks_and_as_large_as_alone() -> None:
    made = steps(ROWS, 400, rng(), mixture=Mixture(step="apart"))
    assert sorted(row for step in made for row in step) == list(range(90))
    tasks = [[*{ROWS[row].task for row in step}] for step in made]
    assert all(len(one) == 1 for one in tasks)
    for name in ("next_item", "review"):
        alone = steps([row for row in ROWS if row.task == name], 400, rng())
        mine = [step for step, [task] in zip(made, tasks, strict=True) if task == name]
        assert len(mine) == pytest.approx(len(alone), abs=1)
        places = [i for i, [task] in enumerate(tasks) if task == name]
        assert max(np.diff([-1, *places, len(made)])) <= -(-len(made) // len(mine)) + 1  # spread evenly


@pytest.mark.parametrize("step", ["apart", "source"])
def test_conflicts_are_asked_of_all_tasks_in_every_step(step: str) -> None:
    reviews = {"data": {"path": "reviews.csv", "columns": {"review": "text", "rating": "stars"}}}
    tasks = {"next_item": {}, "review_sentiment": reviews}
    values = {"domain": "films", "data": {"path": "x"}, "mixture": {"step": step, "conflict": "pcgrad"}}
    config.section(config.Recipe, values)  # one task is in every step
    values["tasks"] = tasks
    with pytest.raises(RecipeError, match=r"mixture.conflict: compares all tasks in each step"):
        config.section(config.Recipe, values)


def test_by_source_what_reads_other_data_has_steps_of_its_own() -> None:
    answers = [choice_row([1] * 30, np.array([3, 4]), i % 3, task="interest") for i in range(40)]
    rows = [*ROWS, *answers]
    tasks = {"review": Task(data=ReviewSource(path="reviews.csv", columns={}))}
    assert Mixture(step="source").groups(["next_item", "review", "interest"], tasks) == [
        ["next_item", "interest"], ["review"]
    ]  # fmt: skip
    made = steps(rows, 400, rng(), tasks, Mixture(step="source"))
    assert sorted(row for step in made for row in step) == list(range(130))
    found = [{rows[row].task for row in step} for step in made]
    assert all(names in ({"next_item", "interest"}, {"review"}) for names in found)
    places = [i for i, names in enumerate(found) if "review" in names]
    alone = steps([row for row in rows if row.task == "review"], 400, rng())
    assert len(places) == pytest.approx(len(alone), abs=1)
    assert np.ptp(np.diff(places)) <= 1  # spread evenly


def test_temperature_shares_choices_not_rows() -> None:
    """300 choices in lists, 60 in reviews: at infinity both get 180."""
    found = taken(ROWS, {}, Mixture(temperature=100), rng())
    assert choices(found["next_item"]) == pytest.approx(180, abs=10)
    assert choices(found["review"]) == pytest.approx(180, abs=10)
    assert set(found["review"]) == set(range(30, 90))  # three times each, or nearly
    half = taken(ROWS, {}, Mixture(temperature=2), rng())
    wanted = 360 * np.sqrt(300) / (np.sqrt(300) + np.sqrt(60))
    assert choices(half["next_item"]) == pytest.approx(wanted, abs=10)


def test_a_token_budget_takes_another_part_each_time() -> None:
    tasks, draws = {"next_item": Task(tokens=500)}, rng()
    first, second = (taken(ROWS, tasks, Mixture(), draws) for _ in range(2))
    for found in (first, second):
        assert 400 < sum(len(ROWS[row].tokens) for row in found["next_item"]) <= 500
        assert len(found["review"]) == 60
    assert first["next_item"] != second["next_item"]


@pytest.mark.parametrize(
    ("task", "key", "value", "says"),
    [
        ("interest", "labels", ["a", "b"], "only tasks of reviews have it"),
        ("interest", "balance", 0.5, "only tasks of reviews have it"),
        ("interest", "max_tokens", 32, "only tasks of texts have it"),
        ("interest", "data", {"path": "x"}, "only tasks of texts have it"),
        ("grounded_summary", "labels", ["a", "b"], "only tasks of reviews have it"),
        ("grounded_explanation", "balance", 0.5, "only tasks of reviews have it"),
        ("review_sentiment", "data.items", "x", "only grounded tasks read it"),
        ("item_class", "data.history", {"path": "x"}, "only grounded tasks read it"),
        ("item_class", "data.sentence", True, "only grounded tasks read it"),
    ],
)
def test_a_setting_without_effect_is_refused(task: str, key: str, value: object, says: str) -> None:
    texts = {} if task in config.OF_HISTORIES else {"path": "x"}
    *above, key = key.split(".")
    settings = {"data": texts | {key: value}} if above else ({"data": texts} if texts else {}) | {key: value}
    recipe = {"domain": "films", "data": {"path": "x"}, "tasks": {task: settings}}
    with pytest.raises(RecipeError, match=f"{'.'.join(['tasks', task, *above, key])}: {says}; remove it"):
        config.section(config.Recipe, recipe)


def test_what_people_chose_is_a_path_and_columns() -> None:
    data = {"path": "x", "history": {"path": "y", "columns": {"user_id": "who"}, "k_core": 5}}
    with pytest.raises(RecipeError, match="unknown key 'k_core'.*(columns, path)"):
        config.section(config.Recipe, {"domain": "shop", "tasks": {"grounded_summary": {"data": data}}})
