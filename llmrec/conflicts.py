"""conflicts: do the tasks of a recipe pull its adapter the same way?  Cosines of their gradients, layer by layer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from itertools import combinations_with_replacement, islice
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import set_seed
from rich import box
from rich.table import Table
from torch import Tensor

from llmrec import config
from llmrec.engine.hf import HFEngine
from llmrec.errors import RecipeError
from llmrec.learning import learners
from llmrec.learning.next_item import as_learned
from llmrec.model import adapter as adapters
from llmrec.model import transfer
from llmrec.model.batch import Decisions, collate
from llmrec.model.conflict import cosines
from llmrec.model.encode import Encoder
from llmrec.model.fit import Objective, soft_targets
from llmrec.model.load import base_model, load_model, load_tokenizer
from llmrec.model.loss import TrieLoss
from llmrec.model.mixture import by_task, micro
from llmrec.model.rows import Row
from llmrec.progress import Bar
from llmrec.screen import screen

RESULT, PICTURE = "conflicts.json", "conflicts.png"
WIDE = 3  # pairs that fit beside each other
WHOLE = "all"


@dataclass(frozen=True)
class Cosine:
    """Of two tasks in one group of layers; of a task with itself, between its gradients on two batches that are
    compared once, so that errors hold."""

    a: str
    b: str
    group: str
    mean: float
    error: float
    """Standard error of the mean over batches, or over pairs of them; 0 for one."""
    negative: float
    """Share of the batches in which the two point against each other."""


@dataclass(frozen=True)
class Report:
    """What was measured, on which weights."""

    domain: str
    weights: str | None
    """The adapter's digest; None for a fresh one."""
    batches: int
    groups: list[str]
    """`all` first, then from the lowest layer up."""
    cosines: list[Cosine]
    norms: dict[str, dict[str, float]]
    """By task and group, the mean length of the gradient of its mean loss."""

    def of(self, a: str, b: str, group: str) -> Cosine | None:
        """None where it could not be measured: a task with itself in one batch, a group without a gradient."""
        return next((one for one in self.cosines if {one.a, one.b} == {a, b} and one.group == group), None)


def conflicts(recipe: config.Recipe, *, adapter: str | None, batches: int, out: Path) -> Report:
    """Measures gradients of the recipe's tasks, float32 and without dropout, on training batches; writes JSON and PNG.

    Of lists it is the gradient of what happened, also where a training learns what a teacher expects (`teacher.share`).

    Args:
        adapter: domain, domain@version or folder whose weights are measured; None: a fresh adapter.
        batches: how many batches are looked at, at random; several tell what is chance.
    Raises: RecipeError for fewer than two tasks, or too few rows; AdapterError where the adapter does not fit.
    """
    if len(recipe.tasks) < 2:
        raise RecipeError(f"{recipe.domain}: its recipe has one task; name more, e.g. 'tasks=[next_item, interest]'")
    base = base_model(recipe.base_model)
    set_seed(recipe.fit.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    encoder = Encoder(load_tokenizer(base.folder))
    model = load_model(base, dtype=torch.float32, device=device)
    model = adapters.attach(model, recipe.lora, base_name=recipe.base_model)
    recipe = as_learned(recipe, adapter)
    start = transfer.start(recipe, base)
    if start:
        transfer.put(start, model)
    model.eval()
    learned = learners(recipe, encoder, HFEngine(model, encoder.tokenizer))
    rows = [row for one in learned.values() for row in one.rows(0)]
    causal = model.get_base_model()
    losses = {name: TrieLoss(one.trie, causal.get_output_embeddings()).to(device) for name, one in learned.items()}
    objective = Objective(causal.get_decoder(), losses)
    decisions = {name: Decisions(one.trie) for name, one in learned.items()}
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}

    def gradient(some: Sequence[int]) -> Tensor:
        """Of the mean nats per choice of one task's rows, (parameters,)."""
        total = sum(rows[row].weight * len(rows[row].starts) for row in some)
        for part in micro(some, rows, recipe.fit.micro_batch_tokens):
            part_rows = [rows[row] for row in part]
            batch = collate(part_rows, decisions[part_rows[0].task], device)
            p, _ = soft_targets(part_rows, None, 0.0)
            expected = None if p is None else losses[batch.task].expected(p.to(device), batch.target)
            _, soft = objective(*batch.learned, expected)  # what happened, where nothing is expected
            (soft / total).backward()
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in trainable.values()])
        model.zero_grad(set_to_none=True)
        return flat

    places = groups(trainable)
    measured: list[Measured] = []
    before = None
    with Bar("batches", total=batches, transient=True) as bar:
        for step in sampled_batches(rows, recipe, batches):
            found = by_task(rows, step)
            now = torch.stack([gradient(found[task]) for task in recipe.tasks])
            measured.append(compared(now, before, places))
            before = now if before is None else None  # pairs that have no batch in common
            bar.done(1)
    report = summed(measured, recipe, start.card["weights"] if start else None, list(places))
    out.mkdir(parents=True, exist_ok=True)
    adapters.write_json(out / RESULT, asdict(report))
    heat_map(report, out / PICTURE)
    return report


Measured = tuple[np.ndarray, np.ndarray]
"""Of one batch: cosines (groups, tasks, tasks), NaN where there is no gradient, and lengths (groups, tasks)."""


def sampled_batches(rows: Sequence[Row], recipe: config.Recipe, batches: int) -> list[list[int]]:
    """Rows of random batches, each with rows of every task, drawn apart from the others': a task's equal part of
    `fit.batch_tokens`, or its longest row.  No row comes twice.

    Raises: RecipeError where a task has too few rows for as many batches.
    """
    rng = np.random.default_rng(recipe.fit.seed)
    share = recipe.fit.batch_tokens // len(recipe.tasks)
    found: list[list[int]] = [[] for _ in range(batches)]
    for task, mine in by_task(rows, range(len(rows))).items():
        parts = list(islice(micro(rng.permutation(mine).tolist(), rows, share), batches))
        if len(parts) < batches:
            raise RecipeError(
                f"{task}: its training rows fill {len(parts)} batches of {share} tokens, not {batches}; ask for fewer"
            )
        for batch, part in zip(found, parts, strict=True):
            batch += part
    return found


def groups(trainable: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Where the parameters of each group of layers lie in a flat gradient: all of it, then from the lowest layer up."""
    numbers: dict[str, list[Tensor]] = {}
    at = 0
    for name, parameter in trainable.items():
        place = torch.arange(at, at + parameter.numel())
        at += parameter.numel()
        layer = re.search(r"\.layers\.(\d+)\.(self_attn|mlp)\.", name)
        kind = "attention" if layer and layer[2] == "self_attn" else "mlp"
        numbers.setdefault(f"layer {int(layer[1]):02d} {kind}" if layer else "head", []).append(place)
    ordered = sorted(numbers, key=lambda name: (name == "head", name))
    return {WHOLE: torch.arange(at), **{name: torch.cat(numbers[name]) for name in ordered}}


def compared(now: Tensor, before: Tensor | None, places: Mapping[str, Tensor]) -> Measured:
    """One batch's gradients (tasks, parameters) with each other, and each task's with its own of another batch."""
    angles, lengths = [], []
    for place in places.values():
        mine = now[:, place.to(now.device)]
        length = mine.norm(dim=1)
        found = cosines(mine)
        found[length == 0] = torch.nan
        found[:, length == 0] = torch.nan
        own = torch.full_like(length, torch.nan)
        if before is not None:
            earlier = before[:, place.to(now.device)]
            own = torch.cosine_similarity(mine, earlier, dim=1)
            own[(length == 0) | (earlier.norm(dim=1) == 0)] = torch.nan
        found.diagonal().copy_(own)
        angles.append(found.cpu().numpy())
        lengths.append(length.cpu().numpy())
    return np.stack(angles), np.stack(lengths)


def summed(measured: Sequence[Measured], recipe: config.Recipe, weights: str | None, names: list[str]) -> Report:
    """Means over batches, with their errors."""
    angles, lengths = (np.stack(values) for values in zip(*measured, strict=True))
    tasks = list(recipe.tasks)
    found = []
    for (i, a), (j, b) in combinations_with_replacement(enumerate(tasks), 2):
        for g, group in enumerate(names):
            seen = angles[:, g, i, j]
            seen = seen[~np.isnan(seen)]
            if len(seen):
                error = float(seen.std(ddof=1) / np.sqrt(len(seen))) if len(seen) > 1 else 0.0
                found.append(Cosine(a, b, group, float(seen.mean()), error, float((seen < 0).mean())))
    norms = {task: dict(zip(names, lengths[:, :, i].mean(0).tolist(), strict=True)) for i, task in enumerate(tasks)}
    return Report(recipe.domain, weights, len(measured), names, found, norms)


def heat_map(report: Report, file: Path) -> None:
    """Cosines of every pair of tasks (columns) in every group (rows), where the extra `train` is installed."""
    if not find_spec("matplotlib"):
        return
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pairs = pairs_of(report)
    values = np.array([[one.mean if (one := report.of(*pair, group)) else np.nan for pair in pairs]
                       for group in report.groups])  # fmt: skip
    most = max(0.1, float(np.nanmax(np.abs(values))) if not np.isnan(values).all() else 0.0)
    figure, axes = pyplot.subplots(figsize=(2.5 + 1.6 * len(pairs), 1.8 + 0.28 * len(report.groups)))
    image = axes.imshow(values, cmap="RdBu", vmin=-most, vmax=most, aspect="auto")
    axes.set_xticks(range(len(pairs)), [f"{a}\n{'with itself' if a == b else b}" for a, b in pairs])
    axes.set_yticks(range(len(report.groups)), report.groups)
    for row, column in np.argwhere(~np.isnan(values)):
        colour = "white" if abs(values[row, column]) > 0.6 * most else "black"
        axes.text(column, row, f"{values[row, column]:.2f}", ha="center", va="center", fontsize=7, color=colour)
    what = report.weights or "a fresh adapter"
    axes.set_title(f"{report.domain}, {what}: cosines of gradients, {report.batches} batches", fontsize=9)
    figure.colorbar(image)
    figure.tight_layout()
    figure.savefig(file, dpi=120)
    pyplot.close(figure)


def pairs_of(report: Report) -> list[tuple[str, str]]:
    """All pairs of tasks, each with itself among them."""
    return list(combinations_with_replacement(report.norms, 2))


def print_table(report: Report) -> None:
    """Mean cosines with their standard errors; a star where more than half of the batches conflict."""
    pairs = pairs_of(report)
    what = report.weights or "a fresh adapter"
    title = f"{report.domain}, {what}: cosines of gradients, {report.batches} batches (* most below 0)"
    table = Table(box=box.SIMPLE, title=title)
    table.add_column("", no_wrap=True)
    names = [f"{a} with itself" if a == b else f"{a} ~ {b}" for a, b in pairs]

    def cell(pair: tuple[str, str], group: str) -> str:
        c = report.of(*pair, group)
        error = f" ±{c.error:.3f}" if c and c.error else ""
        return f"{c.mean:+.3f}{error}{'*' if c.negative > 0.5 else ''}" if c else ""

    if len(pairs) > WIDE:  # no terminal is as wide; layers stand in the picture and the JSON
        table.add_column("all layers", justify="right")
        for pair, name in zip(pairs, names, strict=True):
            table.add_row(name, cell(pair, WHOLE))
    else:
        for name in names:
            table.add_column(name, justify="right")
        for group in report.groups:
            table.add_row(group, *(cell(pair, group) for pair in pairs))
    screen(markup=False).print(table)
