"""Training: rows in, adapter weights out.  Knows tokens and choices, not users."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn

from llmrec.choices.trie import ChoiceTrie
from llmrec.config import Fit, Mixture, Task
from llmrec.errors import RecipeError, ScoreError
from llmrec.model.activations import Activations
from llmrec.model.balance import Balance
from llmrec.model.batch import Decisions, collate
from llmrec.model.checkpoint import Progressed, load_best, load_checkpoint, save_best, save_checkpoint
from llmrec.model.conflict import Separate
from llmrec.model.loss import Expected, TrieLoss
from llmrec.model.mixture import micro
from llmrec.model.own import use
from llmrec.model.plan import Plan, learning_rate
from llmrec.model.rows import Row

METRIC = "ndcg@10"  # what validation maximises, if it says nothing else
LOGGED = 20  # steps between two notes of the losses

Teachers = Mapping[str, Callable[[Sequence[Row]], Tensor]]
"""By task, what is expected at all targets of some rows, (targets, choices) probabilities."""


class Objective(nn.Module):
    """One module from rows to summed nats, so that a distributed wrapper sees every forward pass."""

    def __init__(self, decoder: nn.Module, losses: Mapping[str, TrieLoss]):
        super().__init__()
        self.decoder = decoder
        self.losses = nn.ModuleDict(losses)

    def forward(
        self,
        task: str,
        inputs: Tensor,
        positions: Tensor,
        children: Tensor,
        weights: Tensor,
        expected: Expected | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Summed, weighted nats of what happened and of what was expected."""
        name = "inputs_embeds" if inputs.is_floating_point() else "input_ids"
        hidden = self.decoder(**{name: inputs}, use_cache=False).last_hidden_state
        with torch.autocast(hidden.device.type, enabled=False):
            happened, soft = self.losses[task](hidden.flatten(0, 1)[positions], children, expected)
            return (weights * happened).sum(), (weights * soft).sum()


def fit(
    model: Any,
    variants: Sequence[Sequence[Row]],
    tries: Mapping[str, ChoiceTrie],
    settings: Fit,
    run: Path,
    *,
    tasks: Mapping[str, Task] | None = None,
    mixture: Mixture | None = None,
    first_layer: int = 0,
    validate: Callable[[], dict[str, float]] | None = None,
    metric: str = METRIC,
    teachers: Teachers | None = None,
    share: float = 0.0,
    accelerator: Accelerator | None = None,
) -> Progressed:
    """Train the trainable parameters of `model`; on return it holds the best ones by validation.

    Args:
        model: a PEFT model around a causal decoder.
        variants: the training rows of all tasks, cut in one or more ways; epoch e uses variant e mod variants.
        tries: what targets are chosen from, by task.
        tasks: weights, their schedules, learning rates and budgets, where they are not the usual ones.
        mixture: how tasks share an epoch, how their losses are weighed against each other, and what conflicts cost.
        run: folder of checkpoints, log and activations; a run that lies there is resumed, on processors exactly (to
            rounding where activations are kept in memory, which a resumed run computes in other company).
        first_layer: trainable parameters lie in this layer and above; used with `settings.cache`.
        validate: returns metrics of the model as it is, `metric` among them.
        metric: what validation maximises.
        teachers: of the tasks that have one.
        share: weight of what a teacher expects, against what happened.
    """
    accelerator = accelerator or Accelerator()
    run.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(settings.seed)
    if alone := [task for task, trie in tries.items() if len(trie) < 2]:
        raise RecipeError(f"tasks.{alone[0]}: one choice only, so there is nothing to learn; take it out of the recipe")
    training = _Training(
        model, variants, tries, settings, run, tasks or {}, mixture or Mixture(), first_layer, teachers, share,
        accelerator,
    )  # fmt: skip
    state, plan, log = training.state, training.plan, training.log
    due = plan.validations() if validate else frozenset()
    model.train()
    with log.bar, log.stops():
        while state.step < plan.steps and state.since_best < settings.patience:
            training.step()
            if validate and state.step in due:
                training.validate(validate, metric)
            training.keep_by_the_clock()
        if validate and not plan.steps and not state.log:
            log.note(_validated(model, validate, metric, accelerator))
    log.clock()
    training.keep()
    accelerator.wait_for_everyone()
    load_best(run, state, training.trainable)
    model.eval()
    return state


class _Training:
    """What a run of `fit` consists of, as its newest checkpoint left it, and what it does again and again."""

    def __init__(
        self,
        model: Any,
        variants: Sequence[Sequence[Row]],
        tries: Mapping[str, ChoiceTrie],
        settings: Fit,
        run: Path,
        tasks: Mapping[str, Task],
        mixture: Mixture,
        first_layer: int,
        teachers: Teachers | None,
        share: float,
        accelerator: Accelerator,
    ):
        self.model, self.variants, self.settings = model, variants, settings
        self.run, self.accelerator = run, accelerator
        self.plan = Plan(variants, settings, tasks, mixture)
        self.trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if settings.gradient_checkpointing:
            base = model.get_base_model()
            base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            # transformers lets gradients reach the embedding, which only reentrant checkpoints need: layers below the
            # first trained one would be kept and computed again for nothing.
            base.disable_input_require_grads()
        self.balance = Balance(
            [*tries], tasks, mixture, settings.epochs, self.plan.steps_in(mixture.dwa_every), accelerator,
            self.plan.groups(),
        )  # fmt: skip
        self.separate = (
            None if mixture.conflict == "none" else Separate(mixture, self.trainable, accelerator, seed=settings.seed)
        )
        optimizer = torch.optim.AdamW(
            [{"params": [*self.trainable.values()]}, *self.balance.group],
            lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=False,
        )  # fmt: skip
        self.kept = self.trainable | self.balance.parameters
        self.state = load_checkpoint(run, self.kept, optimizer)
        if len({*gather_object([(run.name, self.state.step, self.plan.steps)])}) > 1:
            raise RecipeError(
                f"{run}: the processes of this training are not at one step of one run; give all of them the same data "
                "and fit.precision, and one LLMREC_HOME"
            )
        self.balance.state = self.state.balance
        if not accelerator.is_main_process:
            self.state.recent.clear()  # what lies there is the main process's
        lower = Activations(model.get_base_model().get_decoder(), first_layer, settings, run, accelerator)
        self.passes = Passes(
            model, tries, settings, lower, self.balance, self.separate, teachers, share, accelerator
        )  # fmt: skip
        # Its state lies where it belongs; on a GPU step counts of a resumed run would cost a wait for each parameter.
        self.optimizer = accelerator.prepare_optimizer(optimizer, device_placement=False)
        self.log = Log(run, self.plan, self.state, shown=accelerator.is_main_process)
        self.last_start = max((task.start for task in tasks.values()), default=0.0)
        self.saved = time.monotonic()

    def step(self) -> None:
        """One step of the optimizer, and every `LOGGED` steps a note of the losses."""
        state, settings = self.state, self.settings
        variant, chosen = self.plan.step(state.step)
        epoch = self.plan.epoch_of(state.step)
        weights = self.balance.weights(epoch)
        rows = self.variants[variant]
        chosen = [row for row in chosen if weights[rows[row].task] > 0]
        factors, rate = self.passes.step(variant, rows, chosen, weights, state)
        # What its tasks' gradients are without their factors is cut: else all steps would be cut to one length.
        own = fmean(factors.values()) if factors else 1.0
        norm = self.accelerator.clip_grad_norm_(self.trainable.values(), own * settings.max_grad_norm) / own
        group = self.optimizer.param_groups[0]
        group["lr"] = rate * learning_rate(state.step, self.plan.steps, settings)
        self.balance.learn(state.step + 1, epoch, [*factors])
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        state.step += 1
        self.log.advance()
        if state.step % LOGGED == 0 or state.step == self.plan.steps:
            everyone = gather_object(state.recent)
            told = {f"weight/{task}": weight for task, weight in weights.items()} if self.balance.changes else {}
            told |= self.separate.cosines if self.separate else {}
            self.log.note({**_mean_losses(everyone, weights), **told, "grad_norm": float(norm), "lr": group["lr"]})
            state.recent.clear()

    def validate(self, validate: Callable[[], dict[str, float]], metric: str) -> None:
        """Notes what `validate` measures, and keeps the weights where `metric` is the best so far."""
        metrics = _validated(self.model, validate, metric, self.accelerator)
        if self.plan.epoch_of(self.state.step) <= self.last_start:  # these weights know nothing yet of some task
            self.log.note({f"early/{name}": value for name, value in metrics.items()})
            return
        if self.state.is_best(metrics.get(metric, -math.inf)) and self.accelerator.is_main_process:
            save_best(self.run, self.state, self.trainable)
        self.log.note(metrics)

    def keep_by_the_clock(self) -> None:
        """A checkpoint where the last one is long ago."""
        if time.monotonic() - self.saved > 60 * self.settings.checkpoint_minutes:
            self.log.clock()
            self.keep()

    def keep(self) -> None:
        """A checkpoint, by the main process."""
        if self.accelerator.is_main_process:
            save_checkpoint(self.run, self.state, self.kept, self.optimizer)
            self.log.kept = self.state.step
        self.saved = time.monotonic()


class Passes:
    """The forward and backward passes of a step: afterwards its gradient lies in the trainable parameters."""

    def __init__(
        self,
        model: Any,
        tries: Mapping[str, ChoiceTrie],
        settings: Fit,
        lower: Activations,
        balance: Balance,
        separate: Separate | None,
        teachers: Teachers | None,
        share: float,
        accelerator: Accelerator,
    ):
        self.model, self.settings, self.lower, self.accelerator = model, settings, lower, accelerator
        self.balance, self.separate, self.teachers, self.share = balance, separate, teachers, share
        self.decisions = {name: Decisions(trie) for name, trie in tries.items()}
        causal = model.get_base_model()
        with lower.left_out():
            head = causal.get_output_embeddings()
            self.losses = {name: TrieLoss(trie, head).to(accelerator.device) for name, trie in tries.items()}
            self.objective = accelerator.prepare(Objective(causal.get_decoder(), self.losses))

    def step(
        self, variant: int, rows: Sequence[Row], chosen: Sequence[int], weights: Mapping[str, float], state: Progressed
    ) -> tuple[dict[str, float], float]:
        """Learns from the `chosen` ones of a variant's `rows`; what this process lost is added to `state.recent`.

        Returns: what has multiplied the gradient of each of the step's tasks, and what multiplies its learning rate.
        """
        process, processes = self.accelerator.process_index, self.accelerator.num_processes
        mine = chosen[process::processes] or chosen[:1]
        real = 0.0 if len(chosen) <= process else 1.0  # a process without a row of its own idles
        total: dict[str, float] = {}  # of each task's targets in the whole step, over all processes
        for row in (rows[i] for i in chosen):
            total[row.task] = total.get(row.task, 0.0) + row.weight * len(row.starts)
        factor, rate = self.balance.factors(weights, [*total])
        parts = list(micro(mine, rows, self.settings.micro_batch_tokens))
        # Dropout by step and process: a resumed run draws the same, whatever it drew before it died.
        seeds = np.random.SeedSequence((self.settings.seed, state.step, process))
        torch.manual_seed(int(seeds.generate_state(1)[0]))
        for i, (part, again) in enumerate(self._parts(rows, parts, [*total], state.step)):
            some = [rows[row] for row in part]
            task = some[0].task
            batch = collate(some, self.decisions[task], self.accelerator.device, self.lower.inputs(variant, rows, part))
            last = i == len(parts) - 1 and self.separate is None
            use(self.model, task)
            with self.lower.left_out(), self._sync(last):
                p, part_share = soft_targets(some, self.teachers, self.share)
                device = self.accelerator.device
                expected = None if p is None else self.losses[task].expected(p.to(device), batch.target)
                nats, soft = self.objective(*batch.learned, expected)
                aim = torch.lerp(nats, soft, part_share) * factor[task] / total[task]
                self.accelerator.backward(real * aim * processes)
            if again:
                continue
            self.balance.saw(task, float(aim.detach()) * real / factor[task])
            counted = sum(row.weight * len(row.starts) for row in some)
            logged = soft if some[0].p is not None else nats
            state.recent.append((task, float(logged.detach()) * real, counted * real))
        return factor, rate

    def _parts(
        self, rows: Sequence[Row], parts: list[list[int]], tasks: Sequence[str], step: int
    ) -> Iterator[tuple[list[int], bool]]:
        """The parts in the order of their passes; True with one that was there before and is run again."""
        if self.separate is None:
            return ((part, False) for part in parts)
        by_task = {task: [part for part in parts if rows[part[0]].task == task] for task in tasks}
        return self.separate.passes(by_task, step)

    def _sync(self, last: bool) -> Any:
        """Gradients are exchanged between processes once per step, with its last part."""
        return nullcontext() if last else self.accelerator.no_sync(self.objective)


def soft_targets(rows: Sequence[Row], teachers: Teachers | None, share: float) -> tuple[Tensor | None, float]:
    """(targets, choices) probabilities for rows of one task, and how much they count against what happened: the rows'
    own count alone, a teacher's by `share`."""
    if rows[0].p is not None:
        return torch.from_numpy(np.concatenate([row.p for row in rows if row.p is not None])), 1.0
    if share and teachers and rows[0].task in teachers:
        return teachers[rows[0].task](rows), share
    return None, 0.0


class Log:
    """What a training says of itself: in log.jsonl, on TensorBoard and, with time left, on the terminal."""

    def __init__(self, run: Path, plan: Plan, state: Progressed, *, shown: bool):
        self.run, self.plan, self.state, self.shown = run, plan, state, shown
        self.started = time.monotonic() - state.seconds
        self.kept = state.step  # where a run that is interrupted goes on
        self.writer = _tensorboard(run) if shown else None
        self.bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("left"), TimeRemainingColumn(), disable=not shown,
        )  # fmt: skip
        self._job = self.bar.add_task("training", total=plan.steps, completed=state.step)
        if shown:  # what was noted after the checkpoint that this run goes on from will be noted again
            lines = [json.dumps(entry) + "\n" for entry in state.log]
            (run / "log.jsonl").write_text("".join(lines), encoding="utf-8")

    def advance(self) -> None:
        self.bar.update(self._job, completed=self.state.step)

    @contextmanager
    def stops(self) -> Iterator[None]:
        """Says, where somebody interrupts, what is kept."""
        try:
            yield
        except KeyboardInterrupt:
            again = f"goes on from step {self.kept}" if self.kept else "begins anew, as nothing is kept yet"
            self.bar.console.print(f"stopped at step {self.state.step} of {self.plan.steps}; the same command {again}")
            raise

    def clock(self) -> None:
        """Brings `state.seconds` up to date."""
        self.state.seconds = time.monotonic() - self.started

    def note(self, values: Mapping[str, float]) -> None:
        """Values of the step that was done last."""
        self.clock()
        step, epoch = self.state.step, self.plan.epoch_of(self.state.step)
        entry = {"step": step, "epoch": epoch, "seconds": round(self.state.seconds, 1), **values}
        self.state.log.append(entry)
        if not self.shown:
            return
        with open(self.run / "log.jsonl", "a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry) + "\n")
        for name, value in values.items():
            if self.writer:
                self.writer.add_scalar(name, value, step)
        told = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        self.bar.console.print(f"step {step}/{self.plan.steps}  epoch {epoch:.2f}  {told}", highlight=False)


def _validated(
    model: Any, validate: Callable[[], dict[str, float]], metric: str, accelerator: Accelerator
) -> dict[str, float]:
    """What the main process measures, in all processes."""
    metrics = None
    if accelerator.is_main_process:
        model.eval()
        with torch.no_grad():
            try:
                metrics = validate()
            except ScoreError:  # training goes on from it, or patience ends it with the best before
                metrics = {"no_numbers": 1.0}
        model.train()
    [metrics] = broadcast_object_list([metrics])
    return metrics


def _mean_losses(recent: Sequence[tuple[str, float, float]], factor: Mapping[str, float]) -> dict[str, float]:
    """Mean nats per choice of each task, and what was minimised: their sum with the tasks' weights (at the end)."""
    nats: dict[str, float] = {}
    counts: dict[str, float] = {}
    for task, value, count in recent:
        nats[task], counts[task] = nats.get(task, 0.0) + value, counts.get(task, 0.0) + count
    means = {task: nats[task] / counts[task] for task in nats}
    each = {f"loss/{task}": mean for task, mean in means.items()} if [*factor.values()] != [1.0] else {}
    return {"loss": sum(factor[task] * mean for task, mean in means.items()), **each}


def _tensorboard(run: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(run / "tensorboard")
