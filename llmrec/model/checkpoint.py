"""How far a training is, on disk: whole or not at all."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from llmrec.errors import RecipeError
from llmrec.files import unfinished, whole


@dataclass
class Progressed:
    """How far a run is: all that a resumed run needs beside tensors."""

    step: int = 0
    seconds: float = 0.0
    best: float = -math.inf
    best_step: int = -1
    """After which step the best weights were measured."""
    since_best: int = 0
    log: list[dict[str, float]] = field(default_factory=list)
    """One entry per logged step (loss in nats per choice) and per validation."""
    recent: list[tuple[str, float, float]] = field(default_factory=list)
    """(task, nats, weight of the targets) since the last logged step."""
    balance: dict[str, Any] = field(default_factory=dict)
    """See `llmrec.model.balance.State`."""

    def is_best(self, value: float) -> bool:
        """Takes in what validation maximises; whether it is better than ever before."""
        better = value > self.best
        if better:
            self.best, self.best_step = value, self.step
        self.since_best = 0 if better else self.since_best + 1
        return better


def save_checkpoint(run: Path, state: Progressed, trainable: dict[str, Tensor], optimizer: Any) -> None:
    """Everything that exact resuming needs, whole or not at all."""
    moments = {}
    for name, parameter in trainable.items():
        for key, value in optimizer.state.get(parameter, {}).items():
            moments[f"{name}|{key}"] = value.detach().to("cpu").clone()
    # A new name for every checkpoint: a rename onto a full folder is not atomic.
    target = run / f"checkpoint-{state.step:08d}"
    if not target.exists():  # else the same state lies there, and may be all that there is
        with whole(target, synced=True) as folder:  # the one before is deleted
            folder.mkdir()
            save_tensors(trainable, folder / "trainable.safetensors")
            save_file(moments, folder / "optimizer.safetensors")
            (folder / "state.json").write_text(json.dumps(asdict(state)), encoding="utf-8")
    for old in sorted(run.glob("checkpoint-*"))[:-1]:
        shutil.rmtree(old)
    for other in {*run.glob("best-*")} - {best_file(run, state)}:  # which this checkpoint does not speak of
        other.unlink()
    for left in [path for path in run.iterdir() if unfinished(path)]:  # by a process that was killed
        shutil.rmtree(left) if left.is_dir() else left.unlink()


def load_checkpoint(run: Path, trainable: dict[str, Tensor], optimizer: Any) -> Progressed:
    """The newest checkpoint's state put back; a fresh state where there is none.

    Raises: RecipeError for one that a disk has damaged.
    """
    found = sorted(run.glob("checkpoint-*"))
    if not found:
        return Progressed()
    with _whole_or_told(found[-1]):
        state = Progressed(**json.loads((found[-1] / "state.json").read_text(encoding="utf-8")))
        moments = load_file(found[-1] / "optimizer.safetensors")
        load_tensors(found[-1] / "trainable.safetensors", trainable)
    for name, parameter in trainable.items():
        for key in ("step", "exp_avg", "exp_avg_sq"):
            if (value := moments.get(f"{name}|{key}")) is not None:
                optimizer.state[parameter][key] = value if key == "step" else value.to(parameter.device)
    return state


def best_file(run: Path, state: Progressed) -> Path:
    """Where the weights lie that validation found best.  Each step's have a file of their own: one that a killed
    process had measured, and a resumed run measures otherwise, must not stand for those that its checkpoint means."""
    return run / f"best-{state.best_step:08d}.safetensors"


def save_best(run: Path, state: Progressed, trainable: dict[str, Tensor]) -> None:
    """The weights that validation found best so far."""
    save_tensors(trainable, best_file(run, state), synced=True)  # a checkpoint will speak of them


def load_best(run: Path, state: Progressed, trainable: dict[str, Tensor]) -> None:
    """Puts back the best weights, where any validation has found some.  Raises: RecipeError where they are damaged."""
    if state.best_step >= 0:
        with _whole_or_told(file := best_file(run, state)):
            load_tensors(file, trainable)


@contextmanager
def _whole_or_told(place: Path) -> Iterator[None]:
    """Raises RecipeError with the way out where what a run has kept cannot be read."""
    try:
        yield
    except (FileNotFoundError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        why = " ".join(str(error).split())
        raise RecipeError(f"{place}: damaged ({why}); train from the beginning with --restart") from None
    except OSError as error:
        raise RecipeError(f"{place}: cannot be read: {error.strerror or error}; make it readable") from None


def save_tensors(tensors: dict[str, Tensor], file: Path, *, synced: bool = False) -> None:
    """Tensors by name as one file of safetensors, whole or not at all; see `files.whole`."""
    with whole(file, synced=synced) as partial:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, partial)


def load_tensors(file: Path, into: dict[str, Tensor]) -> None:
    """The values of `file` into the tensors of the same names."""
    with torch.no_grad():
        for name, tensor in load_file(file).items():
            into[name].copy_(tensor)
