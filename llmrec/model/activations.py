"""What lies below the adapter: layers run apart, and their outputs computed once."""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from llmrec.config import Fit
from llmrec.errors import RecipeError
from llmrec.model.rows import Row


class Activations:
    """Hidden states below the first trained layer, which never change: computed once, when a row is first learned
    from.  Without `settings.cache` there are none, and the decoder is whole."""

    def __init__(self, decoder: nn.Module, first_layer: int, settings: Fit, run: Path, accelerator: Accelerator):
        self.kept = settings.cache != "none"
        if self.kept and first_layer == 0:
            raise RecipeError("fit.cache needs lora.first_layer above 0: nothing below the adapter can be kept")
        self.decoder, self.first_layer, self.settings = decoder, first_layer, settings
        self.run, self.accelerator = run, accelerator
        self.variants: dict[int, tuple[Tensor, Tensor, np.ndarray]] = {}
        self.sound: dict[int, set[int]] = {}  # rows of a variant that this process has made, or looked through

    def left_out(self) -> AbstractContextManager[None]:
        """The decoder from its first trained layer on, where `inputs` stand for what lies below."""
        return slice_layers(self.decoder, self.first_layer) if self.kept else nullcontext()

    def inputs(self, variant: int, rows: Sequence[Row], part: Sequence[int]) -> Tensor | None:
        """(rows, time, width) of the rows in `part`, zero-padded; None where nothing is kept."""
        if not self.kept:
            return None
        if variant not in self.variants:
            self.variants[variant] = self._kept(variant, rows)
        hidden, there, offsets = self.variants[variant]
        sound = self.sound.setdefault(variant, set())
        looked = [row for row in part if row not in sound]
        if missing := [r for r in looked if not there[r] or there[r] != _sum(hidden[offsets[r] : offsets[r + 1]])]:
            for row, states in zip(missing, self._compute([rows[row] for row in missing]), strict=True):
                hidden[offsets[row] : offsets[row + 1]] = states
                there[row] = _sum(states)  # last: a row counts once all of it lies there
        sound.update(looked)
        return nn.utils.rnn.pad_sequence([hidden[offsets[r] : offsets[r + 1]] for r in part], batch_first=True)

    def _kept(self, variant: int, rows: Sequence[Row]) -> tuple[Tensor, Tensor, np.ndarray]:
        """States (tokens, width) of all rows one after the other, the sum of each row that is there, and where each
        begins."""
        offsets = np.concatenate([[0], np.cumsum([len(row.tokens) for row in rows])])
        weight = self.decoder.get_input_embeddings().weight
        shape, dtype = (int(offsets[-1]), weight.shape[1]), self._dtype(weight)
        if self.settings.cache == "memory":
            return torch.empty(shape, dtype=dtype), torch.zeros(len(rows), dtype=torch.int64), offsets
        # New files are full of zeros; processes share them, and where two compute one row they write the same, to
        # rounding: it depends on the rows beside it.
        file = str(self.run / f"activations-{variant}")
        _check_room(Path(f"{file}.bin"), shape[0] * shape[1] * dtype.itemsize)
        hidden = torch.from_file(f"{file}.bin", shared=True, size=shape[0] * shape[1], dtype=dtype).view(shape)
        return hidden, torch.from_file(f"{file}.sums", shared=True, size=len(rows), dtype=torch.int64), offsets

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


def _sum(states: Tensor) -> int:
    """A checksum of (tokens, width) states, above 0: a page of a mapped file may not have reached the disk when the
    machine lost its power, though the mark of its row had."""
    return zlib.crc32(states.contiguous().view(torch.uint8).numpy()) + 1


def drop(run: Path) -> None:
    """Delete what a run has kept on disk: gigabytes that nothing needs once it has ended."""
    for file in run.glob("activations-*"):
        file.unlink(missing_ok=True)


def _check_room(file: Path, size: int) -> None:
    """Raises: RecipeError where the disk has no room for a file of so many bytes: one that is full when a mapped file
    grows ends the process with a signal."""
    there = file.stat().st_blocks * 512 if file.exists() else 0
    free = shutil.disk_usage(file.parent).free
    if size - there > free:
        raise RecipeError(
            f"fit.cache=disk: {size / 2**30:.1f} GiB are needed in {file.parent}, and {free / 2**30:.1f} are free; "
            "make room, set LLMREC_HOME to another disk, or take fit.cache=memory or none"
        )


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
