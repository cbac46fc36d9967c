"""Weights of tasks: as scheduled, by uncertainty, by dynamic weight average; learning rates; resuming with them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from test_fit import ROWS, SETTINGS, TRIES, killed, learner, same

from llmrec import config
from llmrec.choices.trie import ChoiceTrie
from llmrec.config import Mixture, Task
from llmrec.errors import RecipeError
from llmrec.model.balance import Balance, scheduled, softmax
from llmrec.model.checkpoint import Progressed
from llmrec.model.fit import fit
from llmrec.model.rows import Row, choice_row

REVIEWS = [choice_row([1, 2, 40 + i % 3], np.array([20 + i % 3, 7]), i % 3, task="review") for i in range(30)]
BOTH = {**TRIES, "review": ChoiceTrie.build([[20, 7], [21, 7], [22, 7]])}
Weights = dict[str, torch.Tensor]


def trained(
    run: Path, rows: list[Row] | None = None, tasks: dict[str, Task] | None = None, mixture: Mixture | None = None,
    **settings: object,
) -> tuple[Progressed, Weights]:  # fmt: skip
    model, _ = learner()
    state = fit(
        model, [rows or [*ROWS, *REVIEWS]], BOTH, SETTINGS.model_copy(update=settings), run, tasks=tasks,
        mixture=mixture, first_layer=1, accelerator=Accelerator(cpu=True),
    )  # fmt: skip
    return state, {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def balance(mixture: Mixture, window: int = 1, **tasks: Task) -> Balance:
    return Balance(["a", "b"], tasks, mixture, 2.0, window, Accelerator(cpu=True))


def test_a_weight_starts_and_moves_on_a_line() -> None:
    task = Task(weight=2, weight_end=0, start=1)
    assert [scheduled(task, epoch, 3) for epoch in (0, 0.99, 1, 2, 2.5, 3)] == [0, 0, 2, 1, 0.5, 0]
    assert scheduled(Task(weight=3), 0.7, 3) == 3


def test_learning_rates_scale_the_step_by_their_mean_and_gradients_by_the_rest() -> None:
    both = balance(Mixture(), a=Task(learning_rate=0.5), b=Task(learning_rate=1.5, weight=3))
    weights = both.weights(0)
    factors, rate = both.factors(weights, ["a", "b"])
    assert rate == (1 * 0.5 + 3 * 1.5) / (1 + 3)
    assert factors == {"a": 0.2, "b": 1.8}  # as .5 to 4.5, 1 in the mean
    assert both.factors(weights, ["a"]) == ({"a": 0.2}, rate)  # Adam spreads what one step says over ten
    assert both.factors(weights, []) == ({}, 1.0)


def of_groups(tasks: dict[str, Task], groups: dict[tuple[str, ...], float]) -> Balance:
    return Balance([*tasks], tasks, Mixture(), 2.0, 1, Accelerator(cpu=True), groups)


def test_apart_every_task_learns_at_its_own_rate_whatever_the_others_do() -> None:
    """What Adam makes of it: a gradient divided by the root of the mean square of all steps', times the rate."""
    tasks = {"a": Task(), "b": Task(learning_rate=0.3)}
    made = of_groups(tasks, {("a",): 0.9, ("b",): 0.1})
    weights = made.weights(0)
    (a, rate), (b, same_rate) = made.factors(weights, ["a"]), made.factors(weights, ["b"])
    usual = (0.9 * a["a"] ** 2 + 0.1 * b["b"] ** 2) ** 0.5
    assert rate == same_rate and usual == pytest.approx(1)
    assert (rate * a["a"], rate * b["b"]) == pytest.approx((1, 0.3))
    assert made.factors(weights, []) == ({}, 1.0)


def test_apart_a_task_that_has_not_begun_changes_nothing_for_the_others() -> None:
    tasks = {"a": Task(learning_rate=0.5), "b": Task(start=1)}
    made = of_groups(tasks, {("a",): 0.1, ("b",): 0.9})
    factors, rate = made.factors(made.weights(0), ["a"])
    assert factors == pytest.approx({"a": 1}) and rate == pytest.approx(0.5)
    factors, rate = made.factors(made.weights(1), ["a"])
    assert factors["a"] * rate == pytest.approx(0.5)


def test_a_group_learns_at_the_mean_rate_of_its_tasks_whatever_the_others_do() -> None:
    tasks = {"a": Task(), "b": Task(weight=3, learning_rate=0.6), "c": Task(weight=2, learning_rate=5)}
    made = of_groups(tasks, {("a", "b"): 0.8, ("c",): 0.2})
    (both, rate), (alone, same_rate) = made.factors(made.weights(0), ["a", "b"]), made.factors(made.weights(0), ["c"])
    assert rate == same_rate and both["b"] == pytest.approx(1.8 * both["a"])
    size, other = (both["a"] + both["b"]) / 2, alone["c"]
    assert 0.8 * size**2 + 0.2 * other**2 == pytest.approx(1)  # what Adam divides by
    assert other / size == pytest.approx(2 * 5 / ((1 * 1 + 3 * 0.6) / 2))


def nearer(found: Weights, one: Weights, other: Weights) -> bool:
    """Whether the way from the start to `found` points more to `one` than to `other`."""
    begun = {name: p.detach() for name, p in learner()[0].named_parameters() if p.requires_grad}

    def way(weights: Weights) -> torch.Tensor:
        return torch.cat([(weights[name] - begun[name]).flatten() for name in begun])

    to_one, to_other = (torch.cosine_similarity(way(found), way(end), dim=0) for end in (one, other))
    return bool(to_one > to_other + 0.1)


@pytest.mark.parametrize("step", ["apart", "source"])
def test_weights_of_steps_of_their_own_reach_gradients_that_are_cut(tmp_path: Path, step: str) -> None:
    source = {"data": {"path": "reviews.csv", "columns": {"review": "text", "rating": "stars"}}}

    def apart(name: str, rows: list[Row], task: Task) -> Weights:
        settings = {"max_grad_norm": 1e-3, "epochs": 1, "batch_tokens": 60}
        own = Task.model_validate(task.model_dump() | source)
        mixture = Mixture.model_validate({"step": step})
        return trained(tmp_path / name, rows, {"review": own}, mixture, **settings)[1]

    both = [*ROWS, *REVIEWS]
    heavy, light = apart("heavy", both, Task(weight=50)), apart("light", both, Task(weight=0.02))
    alone = {name: apart(f"{name} alone", rows, Task()) for name, rows in (("lists", ROWS), ("reviews", REVIEWS))}
    assert nearer(heavy, alone["reviews"], alone["lists"]) and nearer(light, alone["lists"], alone["reviews"])
    assert same(alone["reviews"], apart("weight alone", REVIEWS, Task(weight=4)))


def test_shared_a_weight_holds_for_steps_without_its_task(tmp_path: Path) -> None:
    def shared(name: str, rows: list[Row], task: Task) -> Weights:
        settings = {"max_grad_norm": 1e-3, "epochs": 1, "batch_tokens": 60}
        return trained(tmp_path / name, rows, {"review": task}, Mixture(), **settings)[1]

    few = REVIEWS[:3]  # of all steps three have one
    alone = {name: shared(f"{name} alone", rows, Task()) for name, rows in (("lists", ROWS), ("reviews", few))}
    assert nearer(shared("heavy", [*ROWS, *few], Task(weight=1000)), alone["reviews"], alone["lists"])


def test_a_task_alone_learns_at_its_own_rate(tmp_path: Path) -> None:
    """Adam is blind to the gradient's scale, so this must be the step's."""
    own = trained(tmp_path / "own", ROWS, {"next_item": Task(learning_rate=0.3)})[1]
    assert same(own, trained(tmp_path / "all", ROWS, learning_rate=0.3 * SETTINGS.learning_rate)[1])
    assert not same(own, trained(tmp_path / "plain", ROWS)[1], atol=1e-3)


def test_a_task_is_not_learned_before_its_start(tmp_path: Path) -> None:
    alone = trained(tmp_path / "alone", ROWS, epochs=1, batch_tokens=100_000)[1]
    state, late = trained(
        tmp_path / "late", tasks={"review": Task(start=0.5)}, epochs=1, batch_tokens=100_000
    )  # one step, at epoch 0
    assert same(alone, late) and "loss/review" not in state.log[-1] and state.log[-1]["weight/review"] == 0
    only = trained(tmp_path / "only", REVIEWS, {"review": Task(start=2)}, epochs=40)[0]
    assert only.log[-1]["step"] == only.step and only.log[-1]["loss/review"] < np.log(3)  # steps without rows go by


def test_uncertainty_settles_where_a_task_costs_half() -> None:
    """exp(-s) L + s / 2 is smallest at exp(-s) = 1 / (2 L): weights 1 / (2 L) times the static ones."""
    both = balance(Mixture(balance="uncertainty"), b=Task(weight=3))
    assert both.weights(0) == {"a": 1.0, "b": 3.0}
    both.saw("a", 1.5)
    both.saw("a", 2.5)
    both.saw("b", 0.25)
    both.learn(1, 0, ["a", "b"])
    assert float(both.log_variance["a"].grad) == 0.5 - 4.0 and float(both.log_variance["b"].grad) == 3 * (0.5 - 0.25)
    descent = torch.optim.SGD(both.log_variance.values(), lr=0.1)
    for _ in range(500):
        both.saw("a", 4.0)
        both.saw("b", 0.25)
        both.learn(1, 0, ["a", "b"])
        descent.step()
    assert both.weights(0) == pytest.approx({"a": 1 / 8, "b": 3 * 2.0}, rel=1e-3)


def test_dwa_weighs_by_how_much_of_a_loss_was_kept() -> None:
    both = balance(Mixture(balance="dwa", dwa_temperature=2), window=2, b=Task(weight=3))
    for step, (a, b) in enumerate([(4.0, 1.0), (2.0, 1.0), (1.0, 0.9), (2.0, 0.9)], 1):
        assert both.weights(0) == {"a": 1.0, "b": 3.0}
        both.saw("a", a)
        both.saw("b", b)
        both.learn(step, 0, ["a", "b"])
    kept_a, kept_b = math.exp(0.5 / 2), math.exp(0.9 / 2)  # 1.5 of 3, .9 of 1
    share = 2 * kept_a / (kept_a + kept_b)
    assert both.weights(0) == pytest.approx({"a": share, "b": 3 * (2 - share)})


def test_before_any_task_has_started_there_is_nothing_to_weigh() -> None:
    assert softmax({}, 2.0) == {}


@pytest.mark.parametrize("kind", ["uncertainty", "dwa"])
def test_weights_in_force_are_logged_and_used(tmp_path: Path, kind: str) -> None:
    mixture = Mixture(balance=kind, dwa_every=0.2)
    state, weights = trained(tmp_path / kind, mixture=mixture, epochs=6)
    last = state.log[-1]
    seen = {name: last[f"weight/{name}"] for name in BOTH}
    assert all(weight > 0 and weight != 1 for weight in seen.values())
    assert last["loss"] == pytest.approx(sum(seen[name] * last[f"loss/{name}"] for name in BOTH))
    assert (sum(seen.values()) == pytest.approx(2)) == (kind == "dwa")
    assert not same(weights, trained(tmp_path / "static", epochs=6)[1], atol=1e-3)
    if kind == "uncertainty":  # more nats, less weight
        assert (seen["review"] > seen["next_item"]) == (last["loss/review"] < last["loss/next_item"])


@pytest.mark.parametrize("kind", ["uncertainty", "dwa"])
def test_a_killed_run_resumes_exactly_with_its_weights(tmp_path: Path, kind: str) -> None:
    whole, weights = trained(tmp_path / "whole", mixture=Mixture(balance=kind, dwa_every=0.2))
    checkpoint = killed(tmp_path / "killed", 9, "test_balance", f"mixture=Mixture(balance={kind!r}, dwa_every=0.2)")
    extra = load_file(checkpoint / "trainable.safetensors").keys() - weights.keys()
    assert extra == ({f"log_variance/{name}" for name in BOTH} if kind == "uncertainty" else set())
    resumed, again = trained(tmp_path / "killed", mixture=Mixture(balance=kind, dwa_every=0.2))
    assert same(weights, again)
    left = [{k: v for k, v in entry.items() if k != "seconds"} for entry in resumed.log]
    assert left == [{k: v for k, v in entry.items() if k != "seconds"} for entry in whole.log]


def test_a_recipe_begins_with_something_and_ends_after_every_start() -> None:
    def recipe(**start: float) -> config.Recipe:
        tasks = {name: {"start": value} for name, value in start.items()}
        return config.section(config.Recipe, {"domain": "films", "data": {"path": "x"}, "tasks": tasks})

    assert recipe(next_item=0, review_sentiment=2.9)
    with pytest.raises(RecipeError, match="one must have start 0"):
        recipe(next_item=1, review_sentiment=2)
    with pytest.raises(RecipeError, match=r"review_sentiment.start: training ends before, after fit.epochs=3"):
        recipe(next_item=0, review_sentiment=3)
