"""One model, many threads: whoever asks while it computes is answered together with the others."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as Late
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from llmrec.errors import EngineError

if TYPE_CHECKING:  # it imports torch; what is here works without
    from llmrec.choices.search import Ranking
    from llmrec.recommender import Recommender

LOG = logging.getLogger("llmrec")
MOST = 64  # lists that are ranked at once
WAITING = 256  # questions that wait; more are refused
PATIENCE = 120.0  # seconds until somebody who waits is told so
UNTIL: ContextVar[float | None] = ContextVar("until", default=None)
"""When the patience of a request ends, however much it asks (monotonic seconds)."""

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


Question = Asked | Callable[[], Any]


class Together:
    """Answers questions from any thread in one of its own, which alone touches the model."""

    def __init__(self, model: Recommender, *, prior: bool = True) -> None:
        self.model, self.prior = model, prior
        self._waiting: deque[tuple[Question, Future[Any]]] = deque()
        self._change = threading.Condition()
        self._open = True
        self._thread = threading.Thread(target=self._work, daemon=True, name="model")
        self._thread.start()

    def rank(self, asked: Sequence[Asked]) -> list[Ranking]:
        """The top of each.  Raises: Busy; what the engine raises."""
        return self._answers(asked)

    def call(self, ask: Callable[[], T]) -> T:
        """What `ask` returns, run where the model may be touched.  Raises: as `rank`."""
        [answer] = self._answers([ask])
        return answer

    def close(self) -> None:
        """Ends after what is being computed; who waits is told so."""
        with self._change:
            self._open = False
            left = [*self._waiting]
            self._waiting.clear()
            self._change.notify_all()
        for _, future in left:
            if future.set_running_or_notify_cancel():
                future.set_exception(Busy("this server is being stopped"))

    def _answers(self, asked: Sequence[Question]) -> list[Any]:
        """All or none wait, and nothing is computed for who has given up."""
        until = UNTIL.get() or time.monotonic() + PATIENCE
        mine: list[Future[Any]] = [Future() for _ in asked]
        with self._change:
            if not self._open:
                raise Busy("this server is being stopped")
            if len(self._waiting) + len(mine) > WAITING:
                raise Busy(f"{len(self._waiting)} questions wait already; ask again in a moment")
            self._waiting.extend(zip(asked, mine, strict=True))
            self._change.notify_all()
        try:
            return [future.result(max(until - time.monotonic(), 0)) for future in mine]
        except Late:
            raise Busy(f"no answer within {PATIENCE:.0f} seconds; ask again later") from None
        finally:
            for future in mine:
                future.cancel()  # which leaves those that have an answer alone

    def _work(self) -> None:
        while taken := self._next():
            lists = [(one, future) for one, future in taken if isinstance(one, Asked)]
            for n in sorted({one.n for one, _ in lists}):  # a long list is not everybody's
                self._rank(n, [(one, future) for one, future in lists if one.n == n])
            for ask, future in taken:
                if not isinstance(ask, Asked) and future.set_running_or_notify_cancel():
                    _settle([future], lambda ask=ask: [ask()], self._forget)

    def _next(self) -> list[tuple[Question, Future[Any]]]:
        """The lists that have waited longest, and one other question: texts take long, and lists go on between them.
        Nothing where this ends."""
        with self._change:
            self._change.wait_for(lambda: self._waiting or not self._open)
            taken, left, other = [], [], False
            for one in self._waiting:
                is_list = isinstance(one[0], Asked)
                if len(taken) >= MOST or (other and not is_list):
                    left.append(one)
                else:
                    taken.append(one)
                    other = other or not is_list
            self._waiting = deque(left)
            return taken

    def _rank(self, n: int, asked: Sequence[tuple[Asked, Future[Any]]]) -> None:
        there = [(one, future) for one, future in asked if future.set_running_or_notify_cancel()]
        futures = [future for _, future in there]
        if len(there) > 1 and _settle(
            futures, lambda: self._ranked(n, [one for one, _ in there]), self._forget, last=False
        ):
            return
        for one, future in there:  # alone, so that what fails is only whose fault it is
            _settle([future], lambda one=one: self._ranked(n, [one]), self._forget)

    def _ranked(self, n: int, asked: Sequence[Asked]) -> list[Ranking]:
        return self.model.rank(
            [one.history for one in asked],
            n,
            exclude=[one.exclude for one in asked],
            candidates=[None if one.allowed is None else np.flatnonzero(one.allowed) for one in asked],
            prior=self.prior,
        )

    def _forget(self) -> None:
        """An engine that failed in the middle may hold half of what it thinks it holds."""
        if callable(forget := getattr(self.model.engine, "forget", None)):
            forget()


def _settle(
    futures: Sequence[Future[Any]],
    make: Callable[[], Sequence[Any]],
    failed: Callable[[], None],
    *,
    last: bool = True,
) -> bool:
    """Whether all have what `make` gives; its error is theirs where this was their `last` chance."""
    try:
        answers = make()
    except BaseException as error:  # noqa: BLE001 - it belongs to those who asked; the thread goes on
        failed()
        for future in futures if last else ():
            future.set_exception(error)
        return False
    for future, answer in zip(futures, answers, strict=True):
        future.set_result(answer)
    return True
