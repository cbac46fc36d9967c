"""How vLLM is run, whoever runs it: its build, its environment, its arguments, the names it serves."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from llmrec.config import Serve
from llmrec.errors import EngineError
from llmrec.model import adapter
from llmrec.model.load import BaseModel

MISSING = (
    "vLLM is not installed; with a GPU: pip install -e '.[vllm]', on a processor: make vllm, in the project's folder"
)
CPU_STEP, GPU_STEP = 512, 8192  # tokens of one step
ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # `auto` may take the core that another job runs on
    "VLLM_HOST_IP": "127.0.0.1",
}
"""What vLLM reads from the environment; whatever the user has set stays."""


def build() -> tuple[str, str] | None:
    """The distribution of vLLM that is installed (`vllm`, or `vllm-cpu` for processors) and its version."""
    for name in ("vllm", "vllm-cpu"):
        try:
            return name, version(name)
        except PackageNotFoundError:
            continue
    return None


def base_name(base: BaseModel, settings: Serve) -> str:
    """The name a base model is served under: it holds the digest of its weights, and how they are quantised."""
    return "-".join(filter(None, (Path(base.name).stem, base.digest, settings.quantization)))


def arguments(settings: Serve, *, on_cpu: bool, max_rank: int, dtype: torch.dtype) -> dict[str, Any]:
    """vLLM's engine arguments; `max_rank` 0 serves no adapters, `dtype` is the model's."""
    chosen: dict[str, Any] = {
        "enable_prefix_caching": True,
        "max_num_batched_tokens": settings.step_tokens or (CPU_STEP if on_cpu else GPU_STEP),
        "max_num_seqs": settings.requests,
        "max_logprobs": 128,
        "tensor_parallel_size": settings.tensor_parallel,
        "seed": 0,
    }
    if settings.block_size:
        chosen["block_size"] = settings.block_size
    if settings.context:
        chosen["max_model_len"] = settings.context
    if settings.quantization:
        chosen["quantization"] = settings.quantization
    elif settings.head_float32 and dtype != torch.float32:  # a quantised head may take no other type than its own
        chosen["hf_overrides"] = {"head_dtype": "float32"}
    if max_rank:
        chosen |= {"enable_lora": True, "max_loras": settings.max_loras, "max_lora_rank": max_rank}
        chosen["max_cpu_loras"] = max(settings.max_loras, settings.max_cpu_loras)
    if on_cpu:
        chosen |= {"enforce_eager": True, "kv_cache_memory_bytes": int(settings.kv_gib * 2**30)}
    else:
        chosen["gpu_memory_utilization"] = settings.gpu_share
    return chosen


def check_dtype(dtype: torch.dtype, *, on_cpu: bool, max_rank: int) -> None:
    """Raises: EngineError where vLLM's adapters do not take numbers of this type; on a GPU they take 16 bits only."""
    if max_rank and not on_cpu and dtype == torch.float32:
        raise EngineError(
            "vLLM serves adapters on a GPU in 16 bits only: fit.precision=bf16 (GPUs since 2020), serve.merge=true for "
            "one domain in one process, or --engine hf"
        )


def is_exact(dtype: torch.dtype, settings: Serve, *, on_cpu: bool) -> bool:
    """Whether vLLM computes in float32 throughout; on a GPU its attention multiplies in TF32, whatever is asked."""
    return on_cpu and dtype == torch.float32 and not settings.quantization


def rank_for(folders: Mapping[str, Path], settings: Serve) -> int:
    """The rank to start vLLM for: the setting, else the largest of the adapters, else 64.

    Raises: EngineError where an adapter has a larger one than the setting.
    """
    read = {name: adapter.read_json(folder / "adapter_config.json") for name, folder in folders.items()}
    ranks = {name: int(found.get("r", 0)) for name, found in read.items()}
    for name, rank in ranks.items():
        if settings.max_rank and rank > settings.max_rank:
            raise EngineError(
                f"serve.max_rank={settings.max_rank}: adapter '{name}' has rank {rank}; leave the setting out"
            )
    return settings.max_rank or max(ranks.values(), default=64)
