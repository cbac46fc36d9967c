"""What vLLM loads in each of its processes, through the entry point `vllm.general_plugins`."""

from __future__ import annotations


def register() -> None:
    """Mends vLLM's build for processors (`vllm_cpu`), and leaves every other build alone.  May be called many times."""
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        from llmrec.engine import vllm_cpu  # other builds need not have what it imports

        vllm_cpu.register()
