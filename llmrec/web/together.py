"""One model, many threads: whoever asks while it computes is answered together with the others."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as Late
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from llmrec.errors import EngineError

if TYPE_CHECKING:  # it imports torch; what is here works without
    from llmrec.choices.search import Ranking
    from llmrec.recommender import Recommender

MOST = 64  # lists that are ranked at once
WAITING = 256  # questions that wait; more are refused
PATIENCE = 120.0  # seconds until somebody who waits is told so

T = TypeVar("T")


class Busy(EngineError):
    """More is asked than can be answered."""


@dataclass(frozen=True)
class Asked:
    """One list."""

    history: Sequence[int]
    n: int
    exclude: Sequence[int]
    allowed: np.ndarray | None
    """(items,) bool; None allows all."""


class Together:
    """Answers questions from any thread in one of its own, which alone touches the model."""

    def __init__(self, model: Recommender, *, prior: bool = True) -> None:
        self.model, self.prior = model, prior
        self._waiting: queue.Queue[tuple[Asked | Callable[[], Any], Future[Any]] | None] = queue.Queue(WAITING)
        self._thread = threading.Thread(target=self._work, daemon=True, name="model")
        self._thread.start()

    def rank(self, asked: Sequence[Asked]) -> list[Ranking]:
        """The top of each.  Raises: Busy; what the engine raises."""
        futures = [self._put(one) for one in asked]
        return [_result(future) for future in futures]

    def call(self, ask: Callable[[], T]) -> T:
        """What `ask` returns, run where the model may be touched.  Raises: as `rank`."""
        return _result(self._put(ask))

    def close(self) -> None:
        """Ends when what was asked before is answered."""
        self._waiting.put(None)
        self._thread.join()

    def _put(self, what: Asked | Callable[[], Any]) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            self._waiting.put_nowait((what, future))
        except queue.Full:
            raise Busy(f"{WAITING} questions wait already; ask again in a moment") from None
        return future

    def _work(self) -> None:
        while (first := self._waiting.get()) is not None:
            waiting: list[Any] = [first]
            while len(waiting) < MOST and not self._waiting.empty():
                waiting.append(self._waiting.get())
            ends = None in waiting
            # Who has gone meanwhile is not answered.
            there = [one for one in waiting if one is not None and one[1].set_running_or_notify_cancel()]
            lists = [one for one in there if isinstance(one[0], Asked)]
            for n in sorted({one.n for one, _ in lists}):  # a long list is not everybody's
                mine = [one for one in lists if one[0].n == n]
                _answer(
                    [future for _, future in mine], lambda n=n, mine=mine: self._ranked(n, [one for one, _ in mine])
                )
            for ask, future in there:
                if not isinstance(ask, Asked):
                    _answer([future], lambda ask=ask: [ask()])
            if ends:
                return

    def _ranked(self, n: int, asked: Sequence[Asked]) -> list[Ranking]:
        return self.model.rank(
            [one.history for one in asked],
            n,
            exclude=[one.exclude for one in asked],
            candidates=[None if one.allowed is None else np.flatnonzero(one.allowed) for one in asked],
            prior=self.prior,
        )


def _answer(futures: Sequence[Future[Any]], make: Callable[[], Sequence[Any]]) -> None:
    if not futures:
        return
    try:
        for future, answer in zip(futures, make(), strict=True):
            future.set_result(answer)
    except BaseException as error:  # noqa: BLE001 - it belongs to those who asked; this thread goes on
        for future in futures:
            if not future.done():
                future.set_exception(error)


def _result(future: Future[T]) -> T:
    try:
        return future.result(PATIENCE)
    except Late:
        future.cancel()
        raise Busy(f"no answer within {PATIENCE:.0f} seconds; ask again later") from None
