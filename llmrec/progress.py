"""How much of a long work is done, and the time left: a bar on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

SAY_EVERY = 30.0  # seconds between lines where there is no terminal


class Bar:
    """`with Bar("llm", total=943) as bar: bar.done(32)` says `llm: 32 of 943, 4.1/s, 3.7 min left`.

    In a log file a line says so every `SAY_EVERY` seconds, and one at the end how long it took.

    Args:
        total: how much there is; None where `at` will tell.
        start: what was done before, which says nothing of how fast it goes.
        things: what is counted, such as "rows".
        unit: what the rate counts, where it is something else, such as "users".
        transient: leave nothing on the terminal at the end.
    """

    def __init__(
        self,
        what: str = "",
        total: int | None = None,
        *,
        start: int = 0,
        things: str = "",
        unit: str = "",
        console: Console | None = None,
        transient: bool = False,
    ) -> None:
        self.console = console or Console(stderr=True)
        self.prefix, self.things, self.unit = f"{what}: " if what else "", f" {things}" if things else "", unit
        self.total, self.start, self.now = total, start, start
        self.began = self.said = time.monotonic()
        self.logged = not self.console.is_terminal
        self.bar = Progress(
            BarColumn(), TextColumn("{task.description}", markup=False), console=self.console, transient=transient,
            disable=self.logged,
        )  # fmt: skip
        self.task = self.bar.add_task(self._line(), total=total, completed=start)

    def __enter__(self) -> Bar:
        self.bar.start()
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error is None and self.now > self.start:
            self.bar.update(self.task, total=self.now, completed=self.now, description=self._end())
            if self.logged:
                self._say(self._end())
        self.stop()

    def stop(self) -> None:
        self.bar.stop()

    def done(self, more: int) -> None:
        """`more` have been finished."""
        self.at(self.now + more, self.total)

    def at(self, now: int, total: int | None) -> None:
        """`now` of `total` are finished; what begins again is another stretch of the work, with a rate of its own."""
        if total != self.total or now < self.now:
            self.total, self.start, self.began = total, now, time.monotonic()
        self.now = now
        self.bar.update(self.task, completed=now, total=total, description=self._line())
        if self.logged and now != total and time.monotonic() - self.said > SAY_EVERY:
            self.said = time.monotonic()
            self._say(self._line())

    def _say(self, line: str) -> None:
        self.console.print(Text(line), soft_wrap=True)

    def _rate(self) -> float:
        return (self.now - self.start) / max(time.monotonic() - self.began, 1e-9)

    def _line(self) -> str:
        if self.total is None:
            return f"{self.prefix}{self.now:,}{self.things}"
        line = f"{self.prefix}{self.now:,} of {self.total:,}{self.things}"
        if self.now <= self.start:
            return line
        left = duration(max(self.total - self.now, 0) / self._rate())
        return f"{line}, {per_second(self._rate(), self.unit)}, {left} left"

    def _end(self) -> str:
        took = duration(time.monotonic() - self.began)
        return f"{self.prefix}{self.now:,}{self.things}, {per_second(self._rate(), self.unit)}, {took}"


def duration(seconds: float) -> str:
    """As people say it: 45 s, 12 min, 3.4 h, 2.1 days."""
    for size, unit in ((86400.0, "days"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 1 else f"{seconds:.2f} s"


def per_second(rate: float, unit: str = "") -> str:
    """Two digits that say something, whether a processor or a cluster is at work: 4.1/s, 12,345 users/s."""
    digits = f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
    return f"{digits} {unit}/s" if unit else f"{digits}/s"
