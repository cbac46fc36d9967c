"""Training on a random model that can learn: the loss, exactness of batching, caching and resuming."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from accelerate import Accelerator
from conftest import PATIENCE
from torch import nn

from llmrec.choices.trie import ChoiceTrie
from llmrec.config import Fit, Lora, Task
from llmrec.errors import AdapterError, RecipeError, ScoreError
from llmrec.model import adapter
from llmrec.model.activations import Activations, check_split
from llmrec.model.batch import Decisions, collate
from llmrec.model.checkpoint import Progressed, save_checkpoint
from llmrec.model.fit import Objective, fit
from llmrec.model.loss import TrieLoss
from llmrec.model.plan import Plan, learning_rate
from llmrec.model.rows import Row, choice_row, dense_rows

RNG = np.random.default_rng(0)
LINES = [np.append(line, 7) for line in np.unique(RNG.integers(10, 60, (150, 2)), axis=0)]
TRIE = ChoiceTrie.build(LINES)
TRIES = {"next_item": TRIE}
LORA = Lora(rank=8, alpha=16, first_layer=1)
SETTINGS = Fit(
    window_tokens=48, batch_tokens=200, micro_batch_tokens=200, epochs=4, learning_rate=1e-2, valid_users=0,
    precision="float32", checkpoint_minutes=60,
)  # fmt: skip


def people(count: int = 24) -> list[Row]:
    """People who walk through the choices by a fixed step: something to learn."""
    starts = RNG.integers(0, len(LINES), count)
    walks = [(start + 3 * np.arange(12)) % len(LINES) for start in starts]
    return [row for walk in walks for row in dense_rows([1, 2, 3], LINES, walk, window_tokens=48)]


ROWS = people()


def learner(**lora: object) -> tuple[object, Objective]:
    model = adapter.attach(tiny.model(100), LORA.model_copy(update=lora), base_name="tiny")
    causal = model.get_base_model()
    return model, Objective(causal.get_decoder(), {"next_item": TrieLoss(TRIE, causal.get_output_embeddings())})


def test_a_teacher_that_expects_nothing_teaches_nothing() -> None:
    """As of somebody who has chosen everything."""
    loss = TrieLoss(TRIE, torch.nn.Linear(8, 100, bias=False))
    hidden = torch.randn(2, 8, requires_grad=True)
    p = torch.zeros(2, len(LINES))
    p[0] = 1 / len(LINES)
    happened, soft = loss(hidden, torch.tensor([0, 1]), loss.expected(p, torch.tensor([0, 1])))
    (happened.sum() + soft.sum()).backward()
    assert soft[0] > 0 and soft[1] == 0 and bool(torch.isfinite(hidden.grad).all())


def nats(parts: list[list[Row]]) -> float:
    _, module = learner()
    decisions = Decisions(TRIE)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.sin(torch.arange(parameter.numel()).float()).view_as(parameter) * 0.1)
        batches = [collate(part, decisions) for part in parts]
        return sum(float(module(*b.learned)[0]) for b in batches)


def trained(run: Path, rows: list[Row] = ROWS, **settings: object) -> dict[str, torch.Tensor]:
    model, _ = learner()
    state = fit(
        model,
        [rows],
        TRIES,
        SETTINGS.model_copy(update=settings),
        run,
        first_layer=1,
        accelerator=Accelerator(cpu=True),
    )
    losses = [entry["loss"] for entry in state.log if "loss" in entry]
    return weights_of(model) | {"loss": torch.tensor(losses)}


def weights_of(model: object) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], atol: float = 0.0) -> bool:
    return a.keys() == b.keys() and all(torch.allclose(a[k], b[k], atol=atol, rtol=0) for k in a)


@pytest.mark.parametrize("targets", [("q_proj",), ("q_proj", "lm_head")])
def test_the_loss_is_minus_log_p_of_the_choice_over_siblings_only(targets: tuple[str, ...]) -> None:
    """Summed over a line's decisions, against a softmax written out by hand; the head's own LoRA counts, too."""
    row = dense_rows([1, 2, 3], LINES, np.array([5, 40]), window_tokens=48)[0]
    model, module = learner(targets=targets)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.sin(torch.arange(parameter.numel()).float()).view_as(parameter))
    batch = collate([row], Decisions(TRIE))
    with torch.no_grad():
        logits = model(torch.tensor(row.tokens)[None].long()).logits[0].float()
        expected = 0.0
        for start, choice in zip(row.starts, row.choices, strict=True):
            for child in TRIE.decision_child[TRIE.decision_offsets[choice] : TRIE.decision_offsets[choice + 1]]:
                node = TRIE.child_parent[child]
                at = start + TRIE.node_depth[node] - 1
                siblings = torch.tensor(TRIE.children(node)).long()
                right = TRIE.child_token[child]
                expected -= float(logits[at, right] - torch.logsumexp(logits[at, siblings], 0))
        assert float(module(*batch.learned)[0]) == pytest.approx(expected, abs=1e-3)


def test_soft_targets_are_a_cross_entropy_with_the_teacher_at_every_decision() -> None:
    row = dense_rows([1, 2, 3], LINES, np.array([5, 40]), window_tokens=48)[0]
    model, module = learner()
    batch = collate([row], Decisions(TRIE))
    certain = torch.nn.functional.one_hot(torch.tensor([5, 40]), len(TRIE)).float()
    p = torch.rand(2, len(TRIE), generator=torch.manual_seed(0))
    with torch.no_grad():
        happened, soft = module(*batch.learned, module.losses["next_item"].expected(certain, batch.target))
        assert float(soft) == pytest.approx(float(happened), rel=1e-5)
        again, soft = module(*batch.learned, module.losses["next_item"].expected(p, batch.target))
        assert float(again) == pytest.approx(float(happened), rel=1e-6)
        logits = model(torch.tensor(row.tokens)[None].long()).logits[0].float()
        expected = 0.0
        for target, (start, choice) in enumerate(zip(row.starts, row.choices, strict=True)):
            for child in TRIE.decision_child[TRIE.decision_offsets[choice] : TRIE.decision_offsets[choice + 1]]:
                node = int(TRIE.child_parent[child])
                options = range(TRIE.child_offsets[node], TRIE.child_offsets[node + 1])
                below = [TRIE.order[TRIE.child_lo[o] : TRIE.child_hi[o]].tolist() for o in options]
                share = torch.stack([p[target, leaves].sum() for leaves in below])
                tokens = torch.tensor(TRIE.children(node)).long()
                log_p = torch.log_softmax(logits[start + TRIE.node_depth[node] - 1, tokens], 0)
                expected -= float((share / share.sum() * log_p).sum())
    assert float(soft) == pytest.approx(expected, abs=1e-3)


def test_a_teacher_moves_the_model_towards_what_it_expects(tmp_path: Path) -> None:
    """Soft targets alone, always the same choice: what happened gets less likely than without them."""
    favourite = torch.nn.functional.one_hot(torch.tensor(7), len(TRIE)).float()

    def loss(share: float) -> float:
        model, _ = learner()
        state = fit(
            model, [ROWS], TRIES, SETTINGS, tmp_path / str(share), first_layer=1, accelerator=Accelerator(cpu=True),
            teachers={"next_item": lambda part: favourite.expand(sum(len(row.starts) for row in part), -1)},
            share=share,
        )  # fmt: skip
        return [entry["loss"] for entry in state.log if "loss" in entry][-1]

    assert loss(1.0) > loss(0.0)


def test_a_task_counts_by_its_mean_times_its_weight(tmp_path: Path) -> None:
    """Twice as many rows of a task in a step change nothing; its weight does."""
    reviews = [choice_row([1, 2, 40 + i % 3], np.array([20 + i % 3, 7]), i % 3, task="review") for i in range(9)]
    tries = {**TRIES, "review": ChoiceTrie.build([[20, 7], [21, 7], [22, 7]])}
    settings = SETTINGS.model_copy(update={"batch_tokens": 100_000, "epochs": 1})  # one step

    def run(name: str, rows: list[Row], weight: float) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
        model, _ = learner()
        state = fit(
            model, [rows], tries, settings, tmp_path / name, tasks={"review": Task(weight=weight)},
            accelerator=Accelerator(cpu=True),
        )  # fmt: skip
        assert state.step == 1
        return state.log[-1], {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}

    log, once = run("once", [*ROWS, *reviews], 3.0)
    assert log["loss"] == pytest.approx(log["loss/next_item"] + 3 * log["loss/review"])
    assert log["loss/review"] == pytest.approx(np.log(3), abs=1.0)
    assert same(once, run("twice", [*ROWS, *reviews, *reviews], 3.0)[1], atol=2e-4)
    assert not same(once, run("light", [*ROWS, *reviews], 0.01)[1], atol=2e-4)


def test_the_log_says_how_long_the_gradient_was_before_it_was_cut(tmp_path: Path) -> None:
    one = SETTINGS.model_copy(update={"batch_tokens": 100_000, "epochs": 1})

    def run(limit: float) -> float:
        model, _ = learner()
        settings = one.model_copy(update={"max_grad_norm": limit})
        state = fit(model, [ROWS], TRIES, settings, tmp_path / str(limit), accelerator=Accelerator(cpu=True))
        return state.log[-1]["grad_norm"]

    assert run(1e-4) == pytest.approx(run(1e4)) and run(1e-4) > 1e-3


def test_rows_together_are_rows_alone() -> None:
    assert nats([ROWS]) == pytest.approx(nats([[row] for row in ROWS]), rel=1e-5)


def test_wide_nodes_and_narrow_ones_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    from llmrec.model import loss

    wide = nats([ROWS])
    assert max(np.diff(TRIE.child_offsets)) < loss.WIDE
    monkeypatch.setattr(loss, "WIDE", 2)
    monkeypatch.setattr(loss, "BUCKETS", ())
    assert nats([ROWS]) == pytest.approx(wide, rel=1e-5)


def test_training_learns_and_changes_every_adapter_weight(tmp_path: Path) -> None:
    before, _ = learner()
    start = {name: p.detach().clone() for name, p in before.named_parameters() if p.requires_grad}
    found = trained(tmp_path, epochs=20)
    assert found["loss"][-1] < 0.5 * found["loss"][0]
    assert all(not torch.equal(found[name], start[name]) for name in start)


def test_steps_in_parts_are_the_same_steps(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole")
    parts = trained(tmp_path / "parts", micro_batch_tokens=50)
    assert same(whole, parts, atol=2e-4)


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_cached_activations_change_nothing(tmp_path: Path, cache: str) -> None:
    plain = trained(tmp_path / "plain")
    assert same(plain, trained(tmp_path / "cached", cache=cache), atol=2e-4)
    if cache == "disk":
        assert (tmp_path / "cached" / "activations-0.sums").is_file()


def test_gradient_checkpointing_changes_nothing(tmp_path: Path) -> None:
    assert same(trained(tmp_path / "a"), trained(tmp_path / "b", gradient_checkpointing=True), atol=2e-4)


def test_gradients_go_no_lower_than_what_is_trained(tmp_path: Path) -> None:
    model, _ = learner()
    settings = SETTINGS.model_copy(update={"gradient_checkpointing": True, "epochs": 1})
    fit(model, [ROWS[:4]], TRIES, settings, tmp_path, accelerator=Accelerator(cpu=True))
    decoder, reached = model.get_base_model().get_decoder().train(), []
    for layer in decoder.layers[:2]:
        layer.register_forward_hook(lambda module, inputs, output: reached.append(output.requires_grad))
    decoder(torch.tensor([[1, 2, 3]]))
    assert reached == [False, True]


KILLED = """
import sys, os, signal
sys.path.insert(0, {tests!r})
from pathlib import Path
import torch
torch.set_num_threads(1)
import {module}
from llmrec.config import Mixture
from llmrec.model import fit
save = fit.save_checkpoint
def killing(run, state, *rest):
    save(run, state, *rest)
    if state.step == {step}:
        os.kill(os.getpid(), signal.SIGKILL)
fit.save_checkpoint = killing
{module}.trained(Path({run!r}), checkpoint_minutes=1e-9, {settings})
"""


def killed(run: Path, step: int, module: str = "test_fit", settings: str = "") -> Path:
    """The one checkpoint of a training, of a test module's `trained`, that was killed right after `step`."""
    tests = str(Path(__file__).parent)
    code = KILLED.format(tests=tests, module=module, step=step, run=str(run), settings=settings)
    died = subprocess.run([sys.executable, "-c", code], capture_output=True, env=os.environ, timeout=PATIENCE)
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()
    [checkpoint] = run.glob("checkpoint-*")
    return checkpoint


def test_a_killed_run_resumes_exactly(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole")
    assert killed(tmp_path / "killed", 7).name == "checkpoint-00000007"
    with open(tmp_path / "killed" / "log.jsonl", "a") as stream:
        stream.write('{"step": 9}\n')  # what was noted after the checkpoint, and will be again
    assert same(whole, trained(tmp_path / "killed"))
    logs = [(tmp_path / run / "log.jsonl").read_text().splitlines() for run in ("whole", "killed")]
    steps = [[json.loads(line)["step"] for line in log] for log in logs]
    assert steps[0] == steps[1]


def test_what_a_power_cut_has_damaged_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = trained(tmp_path / "whole")
    run = tmp_path / "killed"
    killed(run, 7, settings="cache='disk'")
    states = np.memmap(run / "activations-0.bin", np.float32, "r+")
    assert (states[1100:1200] != 0).all() and np.fromfile(run / "activations-0.sums", np.int64).all()
    states[1024:2048] = 0  # a page that had not reached the disk, of rows that count as there
    states.flush()
    width = len(states) // sum(len(row.tokens) for row in ROWS)
    ends = np.cumsum([len(row.tokens) * width for row in ROWS])
    damaged = {i for i, end in enumerate(ends) if end > 1024 and end - len(ROWS[i].tokens) * width < 2048}
    computed: list[Row] = []
    real = Activations._compute
    monkeypatch.setattr(Activations, "_compute", lambda self, rows: (computed.extend(rows), real(self, rows))[1])
    assert same(whole, trained(run, cache="disk"))
    assert {id(row) for row in computed} == {id(ROWS[i]) for i in damaged}
    [checkpoint] = run.glob("checkpoint-*")
    (checkpoint / "optimizer.safetensors").write_bytes(b"")
    with pytest.raises(RecipeError, match=r"checkpoint-00000020: damaged .*--restart"):
        trained(run)


def test_best_weights_that_are_gone_are_not_replaced_by_the_last(tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"valid_users": 1, "epochs": 1})

    def run() -> None:
        fit(
            learner()[0], [ROWS], TRIES, settings, tmp_path, first_layer=1, validate=lambda: {"log_p": 1.0},
            metric="log_p", accelerator=Accelerator(cpu=True),
        )  # fmt: skip

    run()
    run()  # finished before
    spoilt: list[Callable[[Path], object]] = [lambda file: file.write_bytes(b""), Path.unlink]
    for spoil in spoilt:
        [best] = tmp_path.glob("best-*")
        spoil(best)
        with pytest.raises(RecipeError, match=r"best-\d{8}\.safetensors: damaged .*--restart"):
            run()


def test_best_weights_are_those_that_the_checkpoint_means(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is killed may have found better ones than the run that goes on finds: its own are taken."""
    settings = SETTINGS.model_copy(update={"valid_users": 1, "epochs": 2, "valid_every": 0.5, "checkpoint_minutes": 0})
    measured: dict[float, dict[str, torch.Tensor]] = {}

    def run(values: Sequence[float]) -> tuple[Progressed, dict[str, torch.Tensor]]:
        model, left = learner()[0], iter(values)

        def validate() -> dict[str, float]:
            measured[value := next(left)] = weights_of(model)
            return {"log_p": value}

        state = fit(
            model, [ROWS], TRIES, settings, tmp_path, first_layer=1, validate=validate, metric="log_p",
            accelerator=Accelerator(cpu=True),
        )  # fmt: skip
        return state, weights_of(model)

    def dies(run: Path, state: Progressed, *rest: object) -> None:
        if state.best == 0.2:  # these weights are the last thing that was written
            raise KeyboardInterrupt
        save_checkpoint(run, state, *rest)

    with monkeypatch.context() as patch:
        patch.setattr("llmrec.model.fit.save_checkpoint", dies)
        with pytest.raises(KeyboardInterrupt):
            run([0.1, 0.2, 0.2, 0.2])
    assert len([*tmp_path.glob("best-*")]) == 2
    state, found = run([0.09, 0.08, 0.07, 0.06, 0.05])
    assert state.best == 0.1 and same(found, measured[0.1])
    assert [*tmp_path.glob("best-*")] == [tmp_path / f"best-{state.best_step:08d}.safetensors"]


def test_a_checkpoint_that_is_there_is_never_taken_away_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of a training keeps its last step, which a checkpoint by the clock, or the same command, may hold."""
    before = trained(tmp_path)
    [checkpoint] = tmp_path.glob("checkpoint-*")
    monkeypatch.setattr("llmrec.model.checkpoint.save_file", lambda *_: pytest.fail("died while writing"))
    assert same(before, trained(tmp_path))
    assert [*tmp_path.glob("checkpoint-*")] == [checkpoint]


def test_room_for_activations_is_asked_for_before_they_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk that a mapped file meets later ends the process with a signal."""
    trained(tmp_path / "run", cache="disk")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=100))
    trained(tmp_path / "run", cache="disk")  # what lies there needs no more
    with pytest.raises(RecipeError, match=r"fit\.cache=disk: 0\.0 GiB are needed in .*fit\.cache=memory"):
        trained(tmp_path / "other", cache="disk")


def test_one_choice_is_nothing_to_learn(tmp_path: Path) -> None:
    model, _ = learner()
    with pytest.raises(RecipeError, match=r"tasks\.next_item: one choice only"):
        fit(model, [ROWS], {"next_item": ChoiceTrie.build([[20, 7]])}, SETTINGS, tmp_path)


def test_the_best_weights_are_kept_and_patience_ends_training(tmp_path: Path) -> None:
    model, _ = learner()
    seen: list[torch.Tensor] = []
    scores = iter([0.3, 0.5, 0.4, 0.2, 0.9])

    def validate() -> dict[str, float]:
        seen.append(next(p.detach().clone() for n, p in model.named_parameters() if "lora_B" in n))
        return {"ndcg@10": next(scores)}

    settings = SETTINGS.model_copy(update={"epochs": 50, "valid_users": 1, "valid_every": 1, "patience": 2})
    state = fit(model, [ROWS], TRIES, settings, tmp_path, validate=validate, accelerator=Accelerator(cpu=True))
    assert len(seen) == 4 and state.best == 0.5
    assert torch.equal(next(p for n, p in model.named_parameters() if "lora_B" in n), seen[1])


def test_weights_from_before_a_task_began_are_never_the_best(tmp_path: Path) -> None:
    model, _ = learner()
    scores = iter([0.9, 0.8, 0.3, 0.5])
    settings = SETTINGS.model_copy(update={"epochs": 4, "valid_users": 1, "valid_every": 1, "patience": 2})
    state = fit(
        model, [ROWS], TRIES, settings, tmp_path, validate=lambda: {"ndcg@10": next(scores)},
        tasks={"next_item": Task(), "late": Task(start=2)}, accelerator=Accelerator(cpu=True),
    )  # fmt: skip
    assert state.best == 0.5 and [e["ndcg@10"] for e in state.log if "ndcg@10" in e] == [0.3, 0.5]
    assert [e["early/ndcg@10"] for e in state.log if "early/ndcg@10" in e] == [0.9, 0.8]


def test_scores_that_are_no_numbers_do_not_end_a_training(tmp_path: Path) -> None:
    model, _ = learner()
    said = iter([0.5, None, None])

    def validate() -> dict[str, float]:
        value = next(said)
        if value is None:
            raise ScoreError("no numbers")
        return {"ndcg@10": value}

    settings = SETTINGS.model_copy(update={"epochs": 9, "valid_users": 1, "valid_every": 1, "patience": 2})
    state = fit(model, [ROWS], TRIES, settings, tmp_path, validate=validate, accelerator=Accelerator(cpu=True))
    assert state.best == 0.5 and [e["no_numbers"] for e in state.log if "no_numbers" in e] == [1, 1]


def test_weights_that_answer_nothing_are_never_the_best(tmp_path: Path) -> None:
    """Whatever the metric's range: log p is below 0."""
    model, _ = learner()
    said = iter([None, -4.2, None])

    def validate() -> dict[str, float]:
        if (value := next(said)) is None:
            raise ScoreError("no numbers")
        return {"ndcg@10": value}

    settings = SETTINGS.model_copy(update={"epochs": 3, "valid_users": 1, "valid_every": 1, "patience": 9})
    state = fit(model, [ROWS], TRIES, settings, tmp_path, validate=validate, accelerator=Accelerator(cpu=True))
    assert state.best == -4.2 and state.since_best == 1
    assert [entry.get("no_numbers") for entry in state.log if "loss" not in entry] == [1, None, 1]


def test_an_adapter_that_is_no_number_is_not_written(tmp_path: Path) -> None:
    model, _ = learner()
    for value in (float("nan"), 1e6):  # too large for the float16 that is kept
        with torch.no_grad():
            next(p for p in model.parameters() if p.requires_grad).fill_(value)
        with pytest.raises(AdapterError, match="1 of .* no number in float16.*lower fit.learning_rate"):
            adapter.save(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_every_epoch_sees_all_rows_once() -> None:
    plan = Plan([ROWS], SETTINGS)
    for epoch in range(4):
        rows = [row for step in range(plan.starts[epoch], plan.starts[epoch + 1]) for row in plan.step(step)[1]]
        assert sorted(rows) == list(range(len(ROWS)))
    assert plan.epoch_of(plan.steps) == 4


def test_learning_rate_warms_up_and_decays_to_a_tenth() -> None:
    settings = SETTINGS.model_copy(update={"learning_rate": 1.0, "warmup": 0.1})
    assert [round(learning_rate(step, 100, settings), 3) for step in (0, 9, 10, 55, 100)] == [0.1, 1.0, 1.0, 0.55, 0.1]


def test_what_cannot_be_trained_or_served_is_refused_before_the_first_step(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="layers 0 to 2"):
        learner(first_layer=3)
    with pytest.raises(RecipeError, match="above 0"):
        fit(
            adapter.attach(tiny.model(100), Lora(rank=8), base_name="tiny"), [ROWS], TRIES,
            SETTINGS.model_copy(update={"cache": "disk"}), tmp_path, accelerator=Accelerator(cpu=True),
        )  # fmt: skip
    with pytest.raises(RecipeError, match="no training rows"):
        Plan([[]], SETTINGS)
    for bad in ({"use_dora": True}, {"modules_to_save": ["lm_head"]}, {"r": 12}, {"bias": "all"}, {"peft_type": "IA3"},
                {"layers_to_transform": [0]}, {"layers_pattern": "layers"}, {"r": True}, {"r": 16.0}):  # fmt: skip
        assert adapter.unservable({"peft_type": "LORA", "r": 8} | bad)
    assert not adapter.unservable({"peft_type": "LORA", "r": 8})
    with pytest.raises(AdapterError, match="no trained adapter"):
        adapter.check(tmp_path)


def test_validations_leave_room_before_the_last() -> None:
    def at(epochs: float, every: float) -> list[float]:
        plan = Plan([ROWS], SETTINGS.model_copy(update={"epochs": epochs, "valid_every": every, "valid_users": 1}))
        assert max(plan.validations()) == plan.steps
        return [plan.epoch_of(step) for step in sorted(plan.validations())]

    assert at(3, 1) == [1, 2, 3] and at(1, 5) == [1]
    assert len(at(1.5, 1.5)) == 1  # rounded, the first would come a step or two before the last
    assert len(at(1.25, 1)) == 1 and len(at(1.8, 1)) == 2


def test_layers_that_cannot_run_apart_are_noticed() -> None:
    decoder = tiny.model(100).get_decoder()
    check_split(decoder, 1, [5, 6, 7])
    decoder.train()
    noise = decoder.layers[1].mlp.register_forward_hook(
        lambda mlp, _, out: nn.functional.dropout(out, 0.5, mlp.training)
    )
    check_split(decoder, 1, [5, 6, 7])  # dropout alone is no reason to refuse
    assert decoder.training
    noise.remove()
    embed = decoder.embed_tokens
    plain = embed.forward
    decoder.layers[0].register_forward_hook(lambda *_: None)
    decoder.register_forward_pre_hook(
        lambda _, args, kwargs: (
            (args, kwargs | {"inputs_embeds": 2 * kwargs["inputs_embeds"]})
            if kwargs.get("inputs_embeds") is not None
            else None
        ),
        with_kwargs=True,
    )
    assert embed.forward == plain
    with pytest.raises(RecipeError, match="fit.cache=none"):
        check_split(decoder, 1, [5, 6, 7])
