"""Training: rows in, adapter weights out.  Knows tokens and choices, not users."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from llmrec.choices.trie import ChoiceTrie
from llmrec.config import Fit, Mixture, Task
from llmrec.errors import RecipeError, ScoreError
from llmrec.model.balance import Balance
from llmrec.model.conflict import Separate
from llmrec.model.loss import Expected, TrieLoss
from llmrec.model.mixture import micro, steps
from llmrec.model.own import use
from llmrec.model.rows import Row

METRIC = "ndcg@10"  # what validation maximises, if it says nothing else


@dataclass
class Progressed:
    """How far a run is: all that a resumed run needs beside tensors."""

    step: int = 0
    seconds: float = 0.0
    best: float = -math.inf
    since_best: int = 0
    log: list[dict[str, float]] = field(default_factory=list)
    """One entry per logged step (loss in nats per choice) and per validation."""
    recent: list[tuple[str, float, float]] = field(default_factory=list)
    """(task, nats, weight of the targets) since the last logged step."""
    balance: dict[str, Any] = field(default_factory=dict)
    """See `llmrec.model.balance.State`."""


@dataclass(frozen=True)
class Batch:
    """Rows of one forward pass, of one task, padded on the right (a causal model never looks there)."""

    inputs: Tensor  # (rows, time) token ids, or (rows, time, width) activations
    positions: Tensor  # (decisions,) into the flattened (rows * time)
    children: Tensor  # (decisions,) trie children that were right
    target: Tensor  # (decisions,) which target of the batch a decision belongs to
    weights: Tensor  # (decisions,) how much each counts
    task: str

    @property
    def learned(self) -> tuple[str, Tensor, Tensor, Tensor, Tensor]:
        """What a learner takes."""
        return self.task, self.inputs, self.positions, self.children, self.weights


class Learner(nn.Module):
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
    teachers: Mapping[str, Callable[[Sequence[Row]], Tensor]] | None = None,
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
        run: folder of checkpoints, log and activations; a run that lies there is resumed exactly.
        first_layer: trainable parameters lie in this layer and above; used with `settings.cache`.
        validate: returns metrics of the model as it is, `metric` among them.
        metric: what validation maximises.
        teachers: by task, what is expected at all targets of some rows, (targets, choices) probabilities.
        share: weight of what a teacher expects, against what happened.
    """
    accelerator = accelerator or Accelerator()
    run.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(settings.seed)
    plan = Plan(variants, settings, tasks, mixture)
    causal = model.get_base_model()
    decoder = causal.get_decoder()
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if settings.gradient_checkpointing:
        causal.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    mixture = mixture or Mixture()
    balance = Balance([*tries], tasks, mixture, settings.epochs, plan.steps_in(mixture.dwa_every), accelerator)
    separate = Separate(mixture, trainable, accelerator, seed=settings.seed) if mixture.conflict != "none" else None
    optimizer = torch.optim.AdamW(
        [{"params": [*trainable.values()]}, *balance.group],
        lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=False,
    )  # fmt: skip
    kept = trainable | balance.parameters
    state = load_checkpoint(run, kept, optimizer)
    balance.state = state.balance
    if not accelerator.is_main_process:
        state.recent.clear()  # what lies there is the main process's
    cached = settings.cache != "none"
    activations = Activations(decoder, first_layer, settings, run, accelerator) if cached else None
    decisions = {name: Decisions(trie) for name, trie in tries.items()}
    with trained_layers(decoder, first_layer, cached):
        head = causal.get_output_embeddings()
        losses = {name: TrieLoss(trie, head).to(accelerator.device) for name, trie in tries.items()}
        learner = accelerator.prepare(Learner(decoder, losses))
        optimizer = accelerator.prepare(optimizer)
    writer = _tensorboard(run) if accelerator.is_main_process else None
    saved, started = time.monotonic(), time.monotonic() - state.seconds

    last_start = max((task.start for task in (tasks or {}).values()), default=0.0)

    def validated() -> None:
        if validate is None:
            return
        metrics = None
        if accelerator.is_main_process:
            model.eval()
            with torch.no_grad():
                try:
                    metrics = validate()
                except ScoreError:  # training goes on from it, or patience ends it with the best before
                    metrics = {metric: 0.0, "no_numbers": 1.0}
            model.train()
        [metrics] = broadcast_object_list([metrics])
        if plan.epoch_of(state.step) <= last_start:  # weights that know nothing yet of a task are never the best
            return note({f"early/{name}": value for name, value in metrics.items()})
        better = metrics[metric] > state.best
        state.best = max(state.best, metrics[metric])
        state.since_best = 0 if better else state.since_best + 1
        if better and accelerator.is_main_process:
            _save_tensors(trainable, run / "best.safetensors")
        note(metrics)

    def note(values: dict[str, float]) -> None:
        state.seconds = time.monotonic() - started
        epoch = plan.epoch_of(state.step)
        state.log.append({"step": state.step, "epoch": epoch, "seconds": round(state.seconds, 1), **values})
        if accelerator.is_main_process:
            with open(run / "log.jsonl", "a", encoding="utf-8") as stream:
                stream.write(json.dumps(state.log[-1]) + "\n")
            for name, value in values.items():
                if writer:
                    writer.add_scalar(name, value, state.step)
            shown = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
            bar.console.print(f"step {state.step}/{plan.steps}  epoch {epoch:.2f}  {shown}", highlight=False)

    due = plan.validations()
    bar = _progress(accelerator.is_main_process)
    model.train()
    with bar:
        job = bar.add_task("training", total=plan.steps, completed=state.step)
        while state.step < plan.steps and state.since_best < settings.patience:
            variant, rows = plan.step(state.step)
            epoch = plan.epoch_of(state.step)
            weights = balance.weights(epoch)
            rows = [row for row in rows if weights[variants[variant][row].task] > 0]
            mine = rows[accelerator.process_index :: accelerator.num_processes] or rows[:1]
            real = 0.0 if len(rows) <= accelerator.process_index else 1.0  # a process without a row of its own idles
            total: dict[str, float] = {}  # of each task's targets in the whole step, over all processes
            for row in (variants[variant][row] for row in rows):
                total[row.task] = total.get(row.task, 0.0) + row.weight * len(row.starts)
            factor, rate = balance.factors(weights, [*total])
            parts = list(micro(mine, variants[variant], settings.micro_batch_tokens))
            # Dropout by step and process: a resumed run draws the same, whatever it drew before it died.
            seeds = np.random.SeedSequence((settings.seed, state.step, accelerator.process_index))
            torch.manual_seed(int(seeds.generate_state(1)[0]))
            passes: Iterator[tuple[list[int], bool]] = ((part, False) for part in parts)
            if separate:
                by_task = {task: [p for p in parts if variants[variant][p[0]].task == task] for task in total}
                passes = separate.passes(by_task, state.step)
            for i, (part, again) in enumerate(passes):
                inputs = activations.inputs(variant, variants[variant], part) if activations else None
                some = [variants[variant][row] for row in part]
                task = some[0].task
                batch = collate(some, decisions[task], accelerator.device, inputs)
                last = i == len(parts) - 1 and separate is None
                use(model, task)
                with trained_layers(decoder, first_layer, cached), _sync(accelerator, learner, last):
                    p, part_share = soft_targets(some, teachers, share)
                    expected = None if p is None else losses[task].expected(p.to(accelerator.device), batch.target)
                    nats, soft = learner(*batch.learned, expected)
                    aim = torch.lerp(nats, soft, part_share) * factor[task] / total[task]
                    accelerator.backward(real * aim * accelerator.num_processes)
                if again:
                    continue
                balance.saw(task, float(aim.detach()) * real / factor[task])
                counted = sum(row.weight * len(row.starts) for row in some)
                logged = soft if some[0].p is not None else nats
                state.recent.append((task, float(logged.detach()) * real, counted * real))
            accelerator.clip_grad_norm_(trainable.values(), settings.max_grad_norm)
            group = optimizer.param_groups[0]
            group["lr"] = rate * learning_rate(state.step, plan.steps, settings)
            balance.learn(state.step + 1, epoch, [*total])
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            state.step += 1
            bar.update(job, completed=state.step)
            if state.step % 20 == 0 or state.step == plan.steps:
                everyone = gather_object(state.recent)
                shown = {f"weight/{task}": weight for task, weight in weights.items()} if balance.changes else {}
                shown |= separate.cosines if separate else {}
                note({**_mean_losses(everyone, weights), **shown, "lr": group["lr"]})
                state.recent.clear()
            if state.step in due:
                validated()
            if time.monotonic() - saved > 60 * settings.checkpoint_minutes and accelerator.is_main_process:
                state.seconds = time.monotonic() - started
                save_checkpoint(run, state, kept, optimizer)
                saved = time.monotonic()
    state.seconds = time.monotonic() - started
    if accelerator.is_main_process:
        save_checkpoint(run, state, kept, optimizer)
    accelerator.wait_for_everyone()
    if (run / "best.safetensors").is_file():
        _load_tensors(run / "best.safetensors", trainable)
    model.eval()
    return state


def soft_targets(
    rows: Sequence[Row], teachers: Mapping[str, Callable[[Sequence[Row]], Tensor]] | None, share: float
) -> tuple[Tensor | None, float]:
    """(targets, choices) probabilities for rows of one task, and how much they count against what happened: the rows'
    own count alone, a teacher's by `share`."""
    if rows[0].p is not None:
        return torch.from_numpy(np.concatenate([row.p for row in rows if row.p is not None])), 1.0
    if share and teachers and rows[0].task in teachers:
        return teachers[rows[0].task](rows), share
    return None, 0.0


class Plan:
    """Which rows each step learns from: a function of the settings alone, so that every process and every resumed run
    agrees on it."""

    def __init__(
        self,
        variants: Sequence[Sequence[Row]],
        settings: Fit,
        tasks: Mapping[str, Task] | None = None,
        mixture: Mixture | None = None,
    ):
        if not variants or not all(variants):
            raise RecipeError("no training rows: the training split has no interactions of a user")
        self.variants = variants
        self.settings = settings
        self.tasks, self.mixture = tasks, mixture
        self._epochs: dict[int, list[list[int]]] = {}
        counts = [len(self._epoch(epoch)) for epoch in range(math.ceil(settings.epochs))]
        partial = settings.epochs - math.floor(settings.epochs)
        if partial:
            counts[-1] = max(1, round(counts[-1] * partial))
        self.starts = np.concatenate([[0], np.cumsum(counts)])
        self.steps = int(self.starts[-1])

    def step(self, step: int) -> tuple[int, list[int]]:
        """(variant, rows) of a step."""
        epoch = int(np.searchsorted(self.starts, step, side="right")) - 1
        return epoch % len(self.variants), self._epoch(epoch)[step - int(self.starts[epoch])]

    def epoch_of(self, step: int) -> float:
        """Epochs done after `step` steps."""
        epoch = min(int(np.searchsorted(self.starts, step, side="right")) - 1, len(self.starts) - 2)
        return round(epoch + (step - int(self.starts[epoch])) / len(self._epoch(epoch)), 3)

    def steps_in(self, epochs: float) -> int:
        """Steps of a part of an epoch, at least one."""
        return max(1, round(epochs * len(self._epoch(0))))

    def validations(self) -> set[int]:
        """Steps after which to validate; the last step always."""
        every = self.steps_in(self.settings.valid_every)
        before = range(every, self.steps - every // 2, every)  # one just before the last would say what the last says
        return {*before, self.steps} if self.settings.valid_users else set()

    def _epoch(self, epoch: int) -> list[list[int]]:
        if epoch not in self._epochs:
            self._epochs[epoch] = steps(
                self.variants[epoch % len(self.variants)], self.settings.batch_tokens,
                np.random.default_rng((self.settings.seed, epoch)), self.tasks, self.mixture,
            )  # fmt: skip
        return self._epochs[epoch]


class Decisions:
    """For each choice, the children on its path and how far from its first token each is decided."""

    def __init__(self, trie: ChoiceTrie):
        self.offsets = trie.decision_offsets
        self.child = trie.decision_child
        self.depth = trie.node_depth[trie.child_parent[trie.decision_child]]

    def counts(self, row: Row) -> np.ndarray:
        """(targets,) decisions of each target."""
        return self.offsets[row.choices + 1] - self.offsets[row.choices]

    def of(self, row: Row) -> tuple[np.ndarray, np.ndarray]:
        """(positions, children) of all decisions of the row's targets; a token is decided one position before it."""
        counts = self.counts(row)
        total = int(counts.sum())
        ahead = np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts)
        index = np.repeat(self.offsets[row.choices], counts) + ahead
        return np.repeat(row.starts, counts) + self.depth[index] - 1, self.child[index]


def collate(
    rows: Sequence[Row], decisions: Decisions, device: torch.device | str = "cpu", inputs: Tensor | None = None
) -> Batch:
    """Rows of one task as one batch; `inputs` are activations (rows, time, width) where they are cached."""
    time_ = max(len(row.tokens) for row in rows)
    positions, children = zip(*(decisions.of(row) for row in rows), strict=True)
    counts = np.concatenate([decisions.counts(row) for row in rows])
    weights = np.concatenate([np.full(len(row.starts), row.weight, np.float32) for row in rows])
    flat = np.concatenate([place + i * time_ for i, place in enumerate(positions)])
    if inputs is None:
        tokens = np.zeros((len(rows), time_), np.int64)
        for i, row in enumerate(rows):
            tokens[i, : len(row.tokens)] = row.tokens
        inputs = torch.from_numpy(tokens)
    return Batch(
        inputs.to(device),
        torch.from_numpy(flat.astype(np.int64)).to(device),
        torch.from_numpy(np.concatenate(children).astype(np.int64)).to(device),
        torch.from_numpy(np.repeat(np.arange(len(counts)), counts)).to(device),
        torch.from_numpy(np.repeat(weights, counts)).to(device),
        rows[0].task,
    )


class Activations:
    """Hidden states below the first trained layer, which never change: computed once, when a row is first learned
    from."""

    def __init__(self, decoder: nn.Module, first_layer: int, settings: Fit, run: Path, accelerator: Accelerator):
        if first_layer == 0:
            raise RecipeError("fit.cache needs lora.first_layer above 0: nothing below the adapter can be kept")
        self.decoder, self.first_layer, self.settings = decoder, first_layer, settings
        self.run, self.accelerator = run, accelerator
        self.variants: dict[int, tuple[Tensor, Tensor, np.ndarray]] = {}

    def inputs(self, variant: int, rows: Sequence[Row], part: Sequence[int]) -> Tensor:
        """(rows, time, width) of the rows in `part`, zero-padded."""
        if variant not in self.variants:
            self.variants[variant] = self._kept(variant, rows)
        hidden, there, offsets = self.variants[variant]
        if missing := [row for row in part if not there[row]]:
            for row, states in zip(missing, self._compute([rows[row] for row in missing]), strict=True):
                hidden[offsets[row] : offsets[row + 1]] = states
                there[row] = 1  # last: a row counts once all of it lies there
        return nn.utils.rnn.pad_sequence([hidden[offsets[r] : offsets[r + 1]] for r in part], batch_first=True)

    def _kept(self, variant: int, rows: Sequence[Row]) -> tuple[Tensor, Tensor, np.ndarray]:
        """States (tokens, width) of all rows one after the other, which rows are there, and where each begins."""
        offsets = np.concatenate([[0], np.cumsum([len(row.tokens) for row in rows])])
        weight = self.decoder.get_input_embeddings().weight
        shape, dtype = (int(offsets[-1]), weight.shape[1]), self._dtype(weight)
        if self.settings.cache == "memory":
            return torch.empty(shape, dtype=dtype), torch.zeros(len(rows), dtype=torch.uint8), offsets
        # New files are full of zeros; processes share them, and where two compute one row they write the same.
        file = str(self.run / f"activations-{variant}")
        hidden = torch.from_file(f"{file}.bin", shared=True, size=shape[0] * shape[1], dtype=dtype).view(shape)
        return hidden, torch.from_file(f"{file}.rows", shared=True, size=len(rows), dtype=torch.uint8), offsets

    def _compute(self, rows: Sequence[Row]) -> list[Tensor]:
        """States (tokens, width) of each of some rows."""
        device, dtype = (weight := self.decoder.get_input_embeddings().weight).device, self._dtype(weight)
        tokens = [torch.from_numpy(row.tokens.astype(np.int64)) for row in rows]
        padded = nn.utils.rnn.pad_sequence(tokens, batch_first=True).to(device)
        with slice_layers(self.decoder, 0, self.first_layer), torch.no_grad(), self.accelerator.autocast():
            states = self.decoder(input_ids=padded, use_cache=False).last_hidden_state
        return [state[: len(row)].to("cpu", dtype) for state, row in zip(states, tokens, strict=True)]

    def _dtype(self, weight: Tensor) -> torch.dtype:
        return torch.bfloat16 if self.accelerator.mixed_precision == "bf16" else weight.dtype


@contextmanager
def slice_layers(decoder: Any, first: int, last: int | None = None) -> Iterator[None]:
    """The decoder as only its layers first..last; below the last one without the final norm."""
    layers, norm = decoder.layers, decoder.norm
    decoder.layers = layers[first:last]
    if last is not None:
        decoder.norm = nn.Identity()
    try:
        yield
    finally:
        decoder.layers, decoder.norm = layers, norm


def trained_layers(decoder: Any, first: int, cached: bool) -> Any:
    """Only the trained layers while their inputs come from the cache, the whole decoder otherwise."""
    return slice_layers(decoder, first) if cached else nullcontext()


def check_split(decoder: Any, first_layer: int, token_ids: Sequence[int]) -> None:
    """Raises RecipeError where running lower and upper layers apart is not what the whole decoder does."""
    ids = torch.tensor([list(token_ids)], device=decoder.get_input_embeddings().weight.device)
    training = decoder.training
    decoder.eval()  # dropout of an adapter that has learned would be a difference, too
    with torch.no_grad():
        whole = decoder(input_ids=ids, use_cache=False).last_hidden_state
        with slice_layers(decoder, 0, first_layer):
            lower = decoder(input_ids=ids, use_cache=False).last_hidden_state
        with slice_layers(decoder, first_layer):
            apart = decoder(inputs_embeds=lower, use_cache=False).last_hidden_state
    decoder.train(training)
    if not torch.allclose(whole, apart, atol=1e-3, rtol=1e-3):
        raise RecipeError("this base model's layers cannot be run apart; use fit.cache=none")


def learning_rate(step: int, steps: int, settings: Fit) -> float:
    """Linear warm-up, then cosine decay to a tenth of the peak."""
    warm = max(1, round(settings.warmup * steps))
    if step < warm:
        return settings.learning_rate * (step + 1) / warm
    left = 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
    return settings.learning_rate * (0.1 + 0.9 * left)


def save_checkpoint(run: Path, state: Progressed, trainable: dict[str, Tensor], optimizer: Any) -> None:
    """Everything that exact resuming needs, whole or not at all."""
    temporary = run / "checkpoint.writing"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    _save_tensors(trainable, temporary / "trainable.safetensors")
    moments = {}
    for name, parameter in trainable.items():
        for key, value in optimizer.state.get(parameter, {}).items():
            moments[f"{name}|{key}"] = value.detach().to("cpu").clone()
    save_file(moments, temporary / "optimizer.safetensors")
    (temporary / "state.json").write_text(json.dumps(asdict(state)), encoding="utf-8")
    # A new name for every checkpoint: a rename onto a full folder is not atomic.
    target = run / f"checkpoint-{state.step:08d}"
    shutil.rmtree(target, ignore_errors=True)
    temporary.rename(target)
    for old in sorted(run.glob("checkpoint-*"))[:-1]:
        shutil.rmtree(old)


def load_checkpoint(run: Path, trainable: dict[str, Tensor], optimizer: Any) -> Progressed:
    """The newest checkpoint's state put back; a fresh state where there is none."""
    found = sorted(run.glob("checkpoint-*"))
    if not found:
        return Progressed()
    _load_tensors(found[-1] / "trainable.safetensors", trainable)
    moments = load_file(found[-1] / "optimizer.safetensors")
    for name, parameter in trainable.items():
        for key in ("step", "exp_avg", "exp_avg_sq"):
            if (value := moments.get(f"{name}|{key}")) is not None:
                optimizer.state[parameter][key] = value if key == "step" else value.to(parameter.device)
    return Progressed(**json.loads((found[-1] / "state.json").read_text(encoding="utf-8")))


def _save_tensors(tensors: dict[str, Tensor], file: Path) -> None:
    temporary = file.with_suffix(".writing")
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, temporary)
    os.replace(temporary, file)


def _load_tensors(file: Path, into: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, tensor in load_file(file).items():
            into[name].copy_(tensor)


def _mean_losses(recent: Sequence[tuple[str, float, float]], factor: Mapping[str, float]) -> dict[str, float]:
    """Mean nats per choice of each task, and what was minimised: their sum with the tasks' weights (at the end)."""
    nats: dict[str, float] = {}
    counts: dict[str, float] = {}
    for task, value, count in recent:
        nats[task], counts[task] = nats.get(task, 0.0) + value, counts.get(task, 0.0) + count
    means = {task: nats[task] / counts[task] for task in nats}
    each = {f"loss/{task}": mean for task, mean in means.items()} if len(factor) > 1 else {}
    return {"loss": sum(factor[task] * mean for task, mean in means.items()), **each}


def _sync(accelerator: Accelerator, learner: nn.Module, last: bool) -> Any:
    """Gradients are exchanged between processes once per step, with its last part."""
    return nullcontext() if last else accelerator.no_sync(learner)


def _progress(shown: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("left"), TimeRemainingColumn(), disable=not shown,
    )  # fmt: skip


def _tensorboard(run: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(run / "tensorboard")
