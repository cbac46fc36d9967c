"""Shards answered by processes of a Ray cluster, which may be this machine alone; their answers come back in order.

Ray Data places a worker per process, hands it the next shard when it is free, and gives a dead worker's shard to
another.  Nothing is written here: whoever asks is the only one that writes.
"""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from llmrec.errors import JobError, LlmrecError

T = TypeVar("T")
MAX_BLOCKS = 10_000  # that Ray keeps count of; beyond, several shards lie in one
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # else warnings about Ray Data's own use of Ray
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # as its next version does; it warns otherwise
}
"""What Ray reads from the environment; whatever the user has set stays."""
MISSING = "--workers: Ray is not installed: pip install -e '.[ray]'"


def in_order(
    load: Callable[[], Callable[[int], T]],
    numbers: Sequence[int],
    *,
    workers: int,
    cpus: float = 1,
    gpus: float = 0,
) -> Iterator[T]:
    """`load()(number)` of every number, in order, computed by `workers` processes that each call `load` once.

    The cluster is the one that RAY_ADDRESS names, or that `ray start` has started here; else one of this machine's own
    cores, which ends with this process.

    Args:
        load: can be pickled; every machine of the cluster has what it needs.
        cpus, gpus: of each worker; gpus only where the cluster has any.
    Raises: JobError where Ray is missing, has too little, or fails; LlmrecError of a worker.
    """
    for variable, value in ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    try:
        import ray
    except ImportError:
        raise JobError(MISSING) from None
    try:
        ray.init(logging_level=logging.ERROR, log_to_driver=False, include_dashboard=False)
    except Exception as error:  # of any kind, down to a bare Exception
        raise JobError(f"Ray does not start: {_first_line(error)}") from error
    try:
        there = ray.cluster_resources()
        gpus = gpus if there.get("GPU") else 0
        for what, wanted in (("CPU", workers * cpus), ("GPU", workers * gpus)):
            if wanted > there.get(what, 0):
                raise JobError(f"{workers} workers need {wanted:g} {what}s, and Ray has {there.get(what, 0):g}")
        yield from _answers(load, numbers, workers, {"num_cpus": cpus, "num_gpus": gpus})
    except ray.exceptions.RayError as error:
        raise JobError(f"Ray: {_first_line(error)} (the same command goes on from what is kept)") from error
    finally:
        ray.shutdown()


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _answers(load: Any, numbers: Sequence[int], workers: int, resources: dict[str, float]) -> Iterator[Any]:
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    items = [{"number": number} for number in numbers]
    asked = ray.data.from_items(items, override_num_blocks=min(len(items), MAX_BLOCKS))
    answered = asked.map_batches(
        _Worker, fn_constructor_args=(load,), batch_size=1, compute=ray.data.ActorPoolStrategy(size=workers),
        **resources,
    )  # fmt: skip
    for row in answered.iter_rows():
        found = pickle.loads(row["found"])
        if isinstance(found, LlmrecError):
            raise found
        yield found


class _Worker:
    """A process of the cluster."""

    def __init__(self, load: Callable[[], Callable[[int], Any]]) -> None:
        self.load = load
        self.answer: Callable[[int], Any] | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        try:
            self.answer = self.answer or self.load()
            found = [self.answer(int(number)) for number in batch["number"]]
        except LlmrecError as error:  # as a value: Ray would wrap it in traces of its own
            found = [error]
        return {"found": [pickle.dumps(one) for one in found]}
