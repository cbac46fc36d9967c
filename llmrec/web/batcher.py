"""One model, many threads: whoever asks while it computes is answered together with the others (dynamic batching)."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, InvalidStateError
from concurrent.futures import TimeoutError as Late
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from llmrec.errors import EngineError, LlmrecError

if TYPE_CHECKING:  # it imports torch; what is here works without
    from llmrec.choices.search import Ranking
    from llmrec.recommender import Recommender

LOG = logging.getLogger("llmrec")
MOST = 640  # places of all lists that are ranked at once
LEAST = 10  # places that a shorter list counts for
WAITING = 256  # questions that wait; more are refused
PATIENCE = 120.0  # seconds until somebody who waits is told so
GLANCE = 0.25  # seconds between two looks at whether somebody has gone
FAILED = 3  # failures in a row, but for what is wrong with a question, after which a server is not healthy …
ILL = 30  # … for so many seconds: then somebody shall try, for else nobody would see that it is well again
STOPPED = "this server is being stopped"

T = TypeVar("T")


class Busy(EngineError):
    """More is asked than can be answered."""


@dataclass(frozen=True)
class ListAsked:
    """One list."""

    history: Sequence[int]
    n: int
    exclude: Sequence[int]
    allowed: np.ndarray | None
    """(items,) bool; None allows all."""

    @property
    def places(self) -> int:
        """How much of `MOST` it takes."""
        return max(self.n, LEAST)


Question = ListAsked | Callable[[], Any]


class Caller:
    """Who sent a request: waits `PATIENCE` for all that it asks, or goes."""

    def __init__(self) -> None:
        self.until = time.monotonic() + PATIENCE
        self._waits: Sequence[Future[Any]] = ()
        self._left = False

    @property
    def seconds(self) -> float:
        """How much of the patience is left."""
        return 0.0 if self._left else max(self.until - time.monotonic(), 0.0)

    def waits(self, futures: Sequence[Future[Any]]) -> None:
        """From now on these are what is waited for."""
        self._waits = futures
        if self._left:  # while they were made
            self.leave()

    def leave(self) -> None:
        """Nobody waits any more, so what is not begun is not computed; to be called from any thread."""
        self._left = True
        for future in self._waits:
            future.cancel()


CALLER: ContextVar[Caller | None] = ContextVar("caller", default=None)
"""For whom a thread asks."""


class Desk:
    """Where names are looked up and replies worded, for a few at a time: more threads would only take the interpreter
    from each other, and from the one that computes."""

    def __init__(self, seats: int = 2) -> None:
        self._free = threading.Semaphore(seats)

    @contextmanager
    def seat(self) -> Iterator[None]:
        """Raises: Busy."""
        caller = CALLER.get() or Caller()
        while not self._free.acquire(timeout=GLANCE):
            if not caller.seconds:
                raise _late()
        try:
            if not caller.seconds:
                raise _late()
            yield
        finally:
            self._free.release()

    @contextmanager
    def away(self) -> Iterator[None]:
        """Within a `seat`, while something else is waited for."""
        self._free.release()
        try:
            yield
        finally:
            self._free.acquire()


@dataclass(frozen=True)
class _Waiting:
    question: Question
    future: Future[Any]
    until: float

    def begins(self) -> bool:
        """Whether it is computed: nothing is for who has given up, or will have at once."""
        there = not self.future.done() and time.monotonic() < self.until
        return there and self.future.set_running_or_notify_cancel()


class Batcher:
    """Answers questions from any thread in one of its own, which alone touches the model."""

    def __init__(self, model: Recommender, *, prior: bool = True) -> None:
        self.model, self.prior = model, prior
        self._waiting: deque[_Waiting] = deque()
        self._change = threading.Condition()
        self._open = True
        self._taken: list[_Waiting] = []
        self._since: float | None = None
        self._failures = 0
        self._failed = 0.0  # when the last was
        self.died = False
        """Whether it ended without being told to."""
        self._thread = threading.Thread(target=self._work, daemon=True, name="model")
        self._thread.start()

    def rank(self, asked: Sequence[ListAsked]) -> list[Ranking]:
        """The top of each.  Raises: Busy; what the engine raises."""
        return self._answers(asked)

    def call(self, ask: Callable[[], T]) -> T:
        """What `ask` returns, run where the model may be touched.  Raises: as `rank`."""
        [answer] = self._answers([ask])
        return answer

    @property
    def alive(self) -> bool:
        """Whether it will answer anybody again."""
        return self._thread.is_alive()

    def check(self) -> None:
        """Raises: Busy where it answers nobody: it has ended, its engine has, or it computes for longer than anybody
        waits."""
        since = self._since
        if not self.alive:
            raise Busy("the model's thread has ended")
        if self._failures >= FAILED and time.monotonic() - self._failed < ILL:
            raise Busy(f"the engine has failed {self._failures} times in a row")
        if since is not None and time.monotonic() - since > PATIENCE:
            raise Busy(f"the model has not answered for {time.monotonic() - since:.0f} seconds")

    def close(self) -> None:
        """Ends after what is being computed; who waits is told so."""
        with self._change:
            self._open = False
            left = [*self._waiting]
            self._waiting.clear()
            self._change.notify_all()
        for one in left:
            _fail(one.future, Busy(STOPPED))

    def abandon(self) -> None:
        """Whoever waits for what is being computed is told that this ends."""
        for one in self._taken:
            _fail(one.future, Busy(STOPPED))

    def _answers(self, asked: Sequence[Question]) -> list[Any]:
        """All or none wait, and nothing is computed for who has given up."""
        caller = CALLER.get() or Caller()
        mine = [_Waiting(one, Future(), caller.until) for one in asked]
        futures = [one.future for one in mine]
        with self._change:
            if not self._open:
                raise Busy(STOPPED)
            if len(self._waiting) + len(mine) > WAITING:
                raise Busy(f"{len(self._waiting)} questions wait already; ask again in a moment")
            self._waiting.extend(mine)
            self._change.notify_all()
        caller.waits(futures)
        try:
            return [future.result(caller.seconds) for future in futures]
        except (Late, CancelledError):
            raise _late() from None
        finally:
            if any([future.cancel() for future in futures]):  # those that are not begun; they make room for others
                with self._change:
                    self._waiting = deque(one for one in self._waiting if not one.future.cancelled())

    def _work(self) -> None:
        try:
            while taken := self._next():
                lists = [one for one in taken if isinstance(one.question, ListAsked)]
                for n in sorted({one.question.n for one in lists}):  # a long list is not everybody's
                    self._rank(n, [one for one in lists if one.question.n == n])
                for one in taken:
                    if not isinstance(one.question, ListAsked) and one.begins():
                        self._settle([one], lambda ask=one.question: [ask()])
                self._since = None
        except Exception:
            LOG.exception("a bug: this server answers nobody any more")
            self.died = True
        finally:  # nobody shall wait for what never comes
            self.close()
            self.abandon()

    def _next(self) -> list[_Waiting]:
        """The lists that have waited longest, and one other question: texts take long, and lists go on between them.
        Nothing where this ends."""
        with self._change:
            self._change.wait_for(lambda: self._waiting or not self._open)
            taken, left, places, other = [], [], 0, False
            for one in self._waiting:
                more = one.question.places if isinstance(one.question, ListAsked) else 0
                if places + more > MOST or (other and not more):
                    left.append(one)
                else:
                    taken.append(one)
                    places, other = places + more, other or not more
            self._waiting, self._taken = deque(left), taken
            self._since = time.monotonic()
            return taken

    def _rank(self, n: int, asked: Sequence[_Waiting]) -> None:
        there = [one for one in asked if one.begins()]
        if len(there) > 1 and self._settle(there, lambda: self._ranked(n, there), last=False):
            return
        for one in there:  # alone, so that what fails is only whose fault it is
            if time.monotonic() < one.until:
                self._settle([one], lambda one=one: self._ranked(n, [one]))
            else:
                _fail(one.future, _late())

    def _ranked(self, n: int, asked: Sequence[_Waiting]) -> list[Ranking]:
        lists: list[Any] = [one.question for one in asked]
        return self.model.rank(
            [one.history for one in lists],
            n,
            exclude=[one.exclude for one in lists],
            candidates=[None if one.allowed is None else np.flatnonzero(one.allowed) for one in lists],
            prior=self.prior,
        )

    def _settle(self, asked: Sequence[_Waiting], make: Callable[[], Sequence[Any]], *, last: bool = True) -> bool:
        """Whether all have what `make` gives; its error is theirs where this was their `last` chance."""
        try:
            answers = make()
        except BaseException as error:  # noqa: BLE001 - it belongs to those who asked; the thread goes on
            if last:
                if isinstance(error, EngineError) or not isinstance(error, LlmrecError):
                    self._failures, self._failed = self._failures + 1, time.monotonic()
                for one in asked:
                    _fail(one.future, error)
            else:
                LOG.warning("%d lists together: %s: %s; now each alone", len(asked), type(error).__name__, error)
            self._forget()
            return False
        self._failures = 0
        for one, answer in zip(asked, answers, strict=True):
            with suppress(InvalidStateError):  # who waited was told meanwhile that this ends
                one.future.set_result(answer)
        return True

    def _forget(self) -> None:
        """An engine that failed in the middle may hold half of what it thinks it holds."""
        try:
            self.model.engine.forget()
        except Exception:  # one that is gone cannot even do this; what is asked next will say so
            LOG.exception("the engine cannot be reset")
            self._failures, self._failed = FAILED, time.monotonic()


def _fail(future: Future[Any], error: BaseException) -> None:
    """Tells who waits, unless there is an answer, or nobody."""
    with suppress(InvalidStateError):
        future.set_exception(error)


def _late() -> Busy:
    return Busy(f"no answer within {PATIENCE:.0f} seconds; ask again later")
