import io
import re

import pytest
from rich.console import Console

from llmrec import progress
from llmrec.progress import Bar, duration, per_second


def log() -> Console:
    return Console(file=io.StringIO(), width=200)


def test_lines_of_a_log_file(monkeypatch):
    monkeypatch.setattr(progress, "SAY_EVERY", -1.0)
    console = log()
    with Bar("lists", 200, start=50, things="rows", unit="users", console=console) as bar:
        bar.done(50)
        bar.done(100)
    lines = console.file.getvalue().splitlines()
    assert re.fullmatch(r"lists: 100 of 200 rows, [\d,.]+ users/s, .+ left", lines[0])
    assert re.fullmatch(r"lists: 200 rows, [\d,.]+ users/s, .+ s", lines[-1]) and len(lines) == 2


def test_nothing_is_said_of_work_that_failed_or_was_done_before():
    console = log()
    with pytest.raises(ValueError), Bar(total=200, console=console) as bar:
        bar.done(50)
        raise ValueError("nothing more is said")
    with Bar(total=200, start=200, console=console):
        pass
    with Bar("kept", console=console) as bar:
        bar.at(200, 200)
    assert console.file.getvalue() == ""


def test_each_stretch_has_a_rate_of_its_own(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(progress, "SAY_EVERY", 1000.0)
    console = log()
    with Bar("sasrec", console=console) as bar:
        bar.at(40, 40)  # epochs, as many as there are queries
        clock[0] = 100.0
        bar.at(0, 40)  # queries
        clock[0] = 110.0
        bar.at(40, 40)
    assert console.file.getvalue() == "sasrec: 40, 4/s, 10 s\n"


@pytest.mark.parametrize("transient", [False, True])
def test_a_terminal_has_a_bar(transient):
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with Bar("of [b]markup[/b]", 2, transient=transient, console=console) as bar:
        bar.done(1)
        bar.done(1)
    said = console.file.getvalue()
    assert "of [b]markup[/b]: 2" in said and "━" in said


def test_durations_and_rates():
    assert [per_second(rate) for rate in (0.149, 1.26, 9.9, 531.4)] == ["0.15/s", "1.3/s", "9.9/s", "531/s"]
    assert per_second(12_345, "users") == "12,345 users/s"
    said = [duration(seconds) for seconds in (0.2, 59, 119, 150, 9000, 400_000)]
    assert said == ["0.20 s", "59 s", "119 s", "2.5 min", "2.5 h", "4.6 days"]
