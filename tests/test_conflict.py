"""Gradients of tasks against each other: projected, penalised, on vectors and in training."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from conftest import PATIENCE
from safetensors.torch import load_file
from test_balance import BOTH, trained
from test_fit import SETTINGS, learner, same

from llmrec.config import Fit, Mixture, Task
from llmrec.errors import RecipeError
from llmrec.model.conflict import Separate, cosines, directions, penalty, project
from llmrec.model.fit import fit
from llmrec.model.rows import choice_row

OPPOSED = [  # the same texts, labelled the other way round by the second task
    choice_row([1, 2, 40 + i % 3], np.array([20 + (i + shift) % 3, 7]), (i + shift) % 3, task=name)
    for name, shift in (("next_item", 0), ("review", 1)) for i in range(30)
]  # fmt: skip
SAME_TRIE = {"next_item": BOTH["review"], "review": BOTH["review"]}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_cosines_of_a_gradient_with_itself_its_opposite_and_nothing() -> None:
    found = cosines(torch.tensor([[2.0, 0.0], [-1.0, 0.0], [0.0, 3.0], [0.0, 0.0]]))
    assert torch.equal(found, torch.tensor([[1.0, -1, 0, 0], [-1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]))


def test_two_opposed_tasks_keep_what_the_other_does_not_mind() -> None:
    a, b = torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 1.0])
    found = project(torch.stack([a, b]), rng())
    assert torch.allclose(found, torch.tensor([0.5, 0.5]) + torch.tensor([0.0, 1.0]))  # by hand
    assert found @ a >= 0 and found @ b >= 0 and (a + b) @ a == 0


def test_projection_leaves_no_negative_inner_product_of_two_and_agreeing_ones_alone() -> None:
    generator = torch.manual_seed(0)
    for _ in range(50):
        pair = torch.randn(2, 5, generator=generator)
        found = project(pair, rng())
        if pair[0] @ pair[1] < 0:
            assert bool((pair @ found >= -1e-5).all())
        else:
            assert torch.allclose(found, pair.sum(0))


def test_the_order_of_projections_is_random_and_seeded() -> None:
    many = torch.randn(5, 4, generator=torch.manual_seed(1))
    assert torch.equal(project(many, rng(3)), project(many, rng(3)))
    assert len({tuple(project(many, rng(seed)).tolist()) for seed in range(8)}) > 1


def test_directions_are_the_derivative_of_the_penalty() -> None:
    gradients = torch.randn(4, 6, generator=torch.manual_seed(2), dtype=torch.float64).requires_grad_()
    penalty(gradients).backward()
    assert torch.allclose(directions(gradients.detach()), gradients.grad)
    assert not directions(torch.tensor([[1.0, 0.0], [1.0, 1.0]])).any()  # no conflict, nothing to do


def test_the_penalised_gradient_is_that_of_losses_and_penalty_together() -> None:
    """Two quadratic bowls, whose second derivatives are known: against autograd through the whole sum."""
    a, b = (torch.randn(4, 4, generator=torch.manual_seed(seed)) for seed in (3, 4))
    bowls = {"a": a @ a.T + torch.eye(4), "b": b @ b.T + torch.eye(4)}
    goal = {"a": torch.ones(4), "b": -torch.ones(4)}
    place = torch.nn.Parameter(torch.tensor([0.3, -0.2, 0.1, 0.4]))

    def loss(task: str, at: torch.Tensor) -> torch.Tensor:
        return 0.5 * (at - goal[task]) @ bowls[task] @ (at - goal[task])

    mixture = Mixture(conflict="penalty", penalty=0.5)
    separate = Separate(mixture, {"place": place}, Accelerator(cpu=True), seed=0)
    ran = []
    for task, again in separate.passes({"a": ["a"], "b": ["b"]}, 0):
        ran.append((task, again))
        loss(task, place).backward()
    assert ran == [("a", False), ("b", False), ("a", True), ("b", True)]
    assert separate.cosines["cosine/a~b"] < 0
    assert torch.equal(place, torch.tensor([0.3, -0.2, 0.1, 0.4]))  # where it was
    at = place.detach().clone().requires_grad_()
    each = [torch.autograd.grad(loss(task, at), at, create_graph=True)[0] for task in bowls]
    whole = loss("a", at) + loss("b", at) + 0.5 * penalty(torch.stack(each))
    assert torch.allclose(place.grad, torch.autograd.grad(whole, at)[0], atol=1e-2)


@pytest.mark.parametrize("micro_batch_tokens", [10_000, 60])
def test_gradients_of_tasks_kept_apart_sum_to_the_same_step(tmp_path: Path, micro_batch_tokens: int) -> None:
    """A penalty next to nothing: what is left is the plain step, in one part a task or in several."""
    faint = Mixture(conflict="penalty", penalty=1e-12)
    plain = trained(tmp_path / "plain", epochs=1)[1]
    assert same(
        plain, trained(tmp_path / "apart", mixture=faint, epochs=1, micro_batch_tokens=micro_batch_tokens)[1], 5e-4
    )


@pytest.mark.parametrize("conflict", ["pcgrad", "penalty"])
def test_tasks_in_conflict_are_trained_otherwise_and_the_same_each_time(tmp_path: Path, conflict: str) -> None:
    def run(name: str, mixture: Mixture, dropout: float = 0.0) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
        model, _ = learner(dropout=dropout)
        state = fit(
            model, [OPPOSED], SAME_TRIE, SETTINGS, tmp_path / name, first_layer=1, mixture=mixture,
            tasks={"review": Task(weight=0.5)}, accelerator=Accelerator(cpu=True),
        )  # fmt: skip
        return state.log[-1], {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}

    mixture = Mixture(conflict=conflict, penalty=10.0)
    log, weights = run("first", mixture)
    assert log["cosine/next_item~review"] < 0
    assert same(weights, run("again", mixture)[1])
    assert not same(weights, run("plain", Mixture())[1], atol=1e-3)
    assert same(run("dropped", mixture, 0.3)[1], run("dropped-again", mixture, 0.3)[1])


TOGETHER = {
    "pcgrad": Mixture(conflict="pcgrad", balance="uncertainty"),
    "penalty": Mixture(conflict="penalty", balance="dwa", penalty=10.0, dwa_every=0.2),
}
WORKER = """
import sys
sys.path[:0] = [{tests!r}, {root!r}]
import torch
torch.set_num_threads(1)
from pathlib import Path
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from safetensors.torch import save_file
import test_conflict
accelerator = Accelerator(cpu=True, kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)])
assert accelerator.num_processes == 2
for name in test_conflict.TOGETHER:
    weights = test_conflict.together(Path({folder!r}), name, accelerator)
    if accelerator.is_main_process:
        save_file(weights, Path({folder!r}) / (name + ".safetensors"))
accelerator.end_training()
"""


def together(folder: Path, name: str, accelerator: Accelerator) -> dict[str, torch.Tensor]:
    """Trained on few rows a step, so that a process often has no row of a task."""
    model, _ = learner()
    settings = SETTINGS.model_copy(update={"batch_tokens": 60, "micro_batch_tokens": 20, "epochs": 2})
    fit(model, [OPPOSED], SAME_TRIE, settings, folder / name, mixture=TOGETHER[name], accelerator=accelerator)
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


def test_two_processes_settle_conflicts_as_one_does(tmp_path: Path) -> None:
    script = tmp_path / "worker.py"
    here = Path(__file__).parent
    script.write_text(WORKER.format(tests=str(here), root=str(here.parent), folder=str(tmp_path)))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)]
    done = subprocess.run(launcher, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr[-3000:]
    for name in TOGETHER:
        alone = together(tmp_path / "alone", name, Accelerator(cpu=True))
        assert same(alone, load_file(tmp_path / f"{name}.safetensors"), atol=2e-4), name


def test_a_penalty_needs_float32() -> None:
    accelerator = Accelerator(cpu=True)
    accelerator.state._mixed_precision = "bf16"
    try:
        with pytest.raises(RecipeError, match="fit.precision=float32"):
            Separate(Mixture(conflict="penalty"), {}, accelerator, seed=Fit().seed)
    finally:
        accelerator.state._mixed_precision = "no"
