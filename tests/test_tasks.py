"""A task that joins joins everywhere: no list of tasks lacks one that there is."""

from __future__ import annotations

from typing import get_args

import pytest

from llmrec import config
from llmrec.evaluate import MEASURES
from llmrec.jobs.work import KINDS
from llmrec.learning import LEARNERS
from llmrec.measuring.wordings import TRIALS
from llmrec.tasks import OF_REVIEWS, TASKS

SUITES = {task: how.settings for task, how in MEASURES.items()}


@pytest.mark.parametrize("known", [LEARNERS, SUITES, TRIALS], ids=["learned", "measured", "tried"])
def test_every_task_can_be(known: dict[str, object]) -> None:
    assert known.keys() == TASKS.keys()


def test_every_task_has_one_source() -> None:
    assert sorted([*config.OF_HISTORIES, *config.OF_PAIRS, *OF_REVIEWS]) == sorted(TASKS)


@pytest.mark.parametrize("task", TASKS)
def test_suites_may_ask_for_every_task(task: str) -> None:
    assert task in get_args(SUITES[task].model_fields["task"].annotation)


def test_batch_work_asks_every_task_of_reviews() -> None:
    assert {kind().task for kind in KINDS.values()} >= OF_REVIEWS.keys()
