"""vLLM in this process: continuous batching, a prefix cache, and adapters that come and go while it runs."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import threading
import warnings
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch

from llmrec.config import Serve
from llmrec.engine import WIDE, Prompt
from llmrec.engine.asks import GROUPS, Ask, Asking, Tally, fitting, loaded
from llmrec.engine.serving import ENVIRONMENT, MISSING, arguments, check_dtype, is_exact, rank_for
from llmrec.errors import AdapterError, EngineError
from llmrec.model import adapter, store


class VLLMEngine(Asking):
    """Engine over vLLM's `LLM`.

    Args:
        base: folder with the base model's weights and tokenizer.
        adapters: name → folder of those to load at once.
        dtype: of weights and activations; `exact` in float32 only.
        settings: how vLLM runs.
        merged: name of the adapter that the weights in `base` contain already (`model.adapter.merged`).
    Raises: EngineError where vLLM is missing or does not start; AdapterError for a folder that cannot be served.
    """

    def __init__(
        self,
        base: Path,
        adapters: Mapping[str, Path] | None = None,
        *,
        dtype: torch.dtype = torch.float32,
        settings: Serve | None = None,
        merged: str | None = None,
    ):
        settings = settings or Serve()
        for variable, value in (ENVIRONMENT | {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}).items():
            os.environ.setdefault(variable, value)
        try:
            with _quiet():
                from vllm import LLM
                from vllm.platforms import current_platform
        except ImportError as error:
            raise EngineError(f"{MISSING} ({error})") from None
        on_cpu = current_platform.is_cpu()
        if on_cpu:  # loaded as a plug-in too, but only where llmrec itself is installed
            from llmrec.engine import vllm_plugin

            vllm_plugin.register()
            self.widest = WIDE
        self._merged = merged
        self._loaded: dict[str, Any] = {}
        self._copies = Path(tempfile.mkdtemp(prefix="llmrec-"))  # of adapters' folders that anybody may write to
        weakref.finalize(self, shutil.rmtree, self._copies, ignore_errors=True)
        self._versions: dict[str, Any] = {}  # by the name vLLM knows, also of what `_loaded` no longer names
        self._ids = count(1)
        self._max_rank = rank_for(adapters or {}, settings)
        max_rank = 0 if merged else self._max_rank
        check_dtype(dtype, on_cpu=on_cpu, max_rank=max_rank)
        threads = torch.set_num_threads
        try:
            with _quiet():
                self.llm = LLM(
                    str(base), dtype=str(dtype).removeprefix("torch."), use_tqdm_on_load=False,
                    **arguments(settings, on_cpu=on_cpu, max_rank=max_rank, dtype=dtype),
                )  # fmt: skip
        except (RuntimeError, ValueError, OSError, AssertionError) as error:
            raise EngineError(f"vLLM does not start with {base}: {_first_line(error)}") from error
        finally:
            torch.set_num_threads = threads  # the CPU build replaces it for the whole process
        self.tokenizer = self.llm.get_tokenizer()
        whole = self.llm.llm_engine.vllm_config
        self.exact = is_exact(whole.model_config.dtype, settings, on_cpu=on_cpu)
        self.max_tokens: int = whole.model_config.max_model_len - 1  # an answer takes one
        self._block_size: int = whole.cache_config.block_size
        # Requests in flight hold a block or two each beside the histories.
        spare = 2 * whole.scheduler_config.max_num_seqs
        self._blocks = max(int(whole.cache_config.num_gpu_blocks) - spare, int(whole.cache_config.num_gpu_blocks) // 2)
        self._max_loras = settings.max_loras
        self.tally = Tally()
        self._one = threading.RLock()  # vLLM's `LLM` serves one thread at a time; a second one would hang it
        for name, folder in (adapters or {}).items():
            self.load(name, folder)

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names that a prompt may ask for."""
        return (self._merged,) if self._merged else tuple(self._loaded)

    def load(self, name: str, folder: Path) -> str:
        """Make an adapter available; another version under the same name takes its place.

        From any thread: it waits for the wave of requests in work, and requests wait for it; none fails.

        Returns: the name vLLM knows it by, which holds the digest of the weights: caches are keyed by it.
        Raises: AdapterError where vLLM would refuse it or load it wrongly.
        """
        from vllm.lora.request import LoRARequest

        if self._merged:
            raise AdapterError(f"'{name}': this engine holds the merged weights of '{self._merged}' and takes no other")
        adapter.check(folder)
        served = adapter.served_name(name, adapter.weights_digest(folder))
        if (now := self._loaded.get(name)) is not None and now.lora_name == served:
            return served
        folder = self._lasting(folder)
        rank = adapter.read_json(folder / "adapter_config.json")["r"]
        if rank > self._max_rank:
            raise AdapterError(
                f"{folder}: rank {rank}, and vLLM was started for {self._max_rank}: serve.max_rank={rank}"
            )
        served = adapter.served_name(name, adapter.weights_digest(folder))  # of what stays, whatever came in between
        request = LoRARequest(served, next(self._ids), str(folder.resolve()))
        with self._one:
            try:
                done = self.llm.llm_engine.add_lora(request)
            except Exception as error:  # its kinds are many and undocumented; what the user needs is the reason
                raise AdapterError(f"{folder}: vLLM refuses it: {_first_line(error)}") from error
            if not done:
                raise AdapterError(f"{folder}: vLLM did not load it")
            old = self._loaded.get(name)  # now: another thread may have loaded one meanwhile
            self._loaded[name] = self._versions[served] = request
            if old is not None:
                self.llm.llm_engine.remove_lora(old.lora_int_id)
        return served

    def _lasting(self, folder: Path) -> Path:
        """Where the weights stay as they are: vLLM reads them again after it has evicted them."""
        kept = store.lasting(folder)
        if kept != folder.resolve():
            return kept
        copy = Path(tempfile.mkdtemp(dir=self._copies)) / folder.name
        shutil.copytree(folder, copy)
        return copy

    def unload(self, name: str) -> None:
        """Forget an adapter; searches that have begun still end with it.

        Raises: EngineError for one that is not loaded; AdapterError where it is merged.
        """
        if self._merged:
            raise AdapterError(f"'{name}': this engine holds the merged weights of '{self._merged}' and nothing else")
        with self._one:
            self.llm.llm_engine.remove_lora(loaded(self._loaded, name).lora_int_id)
            del self._loaded[name]

    def batches(self, prompts: Sequence[Prompt]) -> Iterable[list[int]]:
        """As many prompts as a quarter of the cache of keys and values holds."""
        adapters = max(1, self._max_loras // GROUPS)
        return fitting(prompts, blocks=self._blocks // GROUPS, block_size=self._block_size, adapters=adapters)

    def close(self) -> None:
        """Give memory back.  vLLM keeps its process groups once per process: other engines of this one end, too."""
        self.llm.llm_engine.engine_core.shutdown()

    def forget(self) -> None:
        """Drop the prefix cache, for fair timing."""
        with self._one:
            self.llm.reset_prefix_cache()

    def _greedy(self, prompts: Sequence[Prompt], max_tokens: int, stop: Sequence[str]) -> list[Sequence[int]]:
        from vllm import SamplingParams

        greedy = SamplingParams(temperature=0, max_tokens=max_tokens, stop=list(stop) or None)
        outputs = self._run([p.tokens for p in prompts], [greedy] * len(prompts), [p.adapter for p in prompts])
        return [output.outputs[0].token_ids for output in outputs]

    def _log_p(self, asked: Sequence[Ask]) -> list[np.ndarray]:
        from vllm import SamplingParams

        params = [
            SamplingParams(
                temperature=0,
                max_tokens=1,
                detokenize=False,
                flat_logprobs=True,
                logprob_token_ids=list(ask.ids),
                skip_clone=True,  # they are of this request alone
            )
            for ask in asked
        ]
        outputs = self._run([ask.tokens for ask in asked], params, [ask.adapter for ask in asked])
        result = []
        for ask, output in zip(asked, outputs, strict=True):
            flat = output.outputs[0].logprobs
            end = len(ask.ids) + 1  # the sampled token first; a batch pads shorter lists behind
            found = dict(zip(flat.token_ids[:end], flat.logprobs[:end], strict=True))
            result.append(np.array([found[token] for token in ask.ids]))
        return result

    def _run(self, prompts: Sequence[tuple[int, ...]], params: list[Any], names: list[str | None]) -> list[Any]:
        if not prompts:
            return []
        with self._one:
            outputs = self.llm.generate(
                [{"prompt_token_ids": list(tokens)} for tokens in prompts], params, use_tqdm=False,
                lora_request=[self._request(name) for name in names],
            )  # fmt: skip
        self.tally.add(len(outputs), sum(map(len, prompts)), sum(out.num_cached_tokens or 0 for out in outputs))
        return outputs

    def _request(self, name: str | None) -> Any:
        if self._merged:
            if name != self._merged:
                raise EngineError(f"{name or 'the base model'}: this engine holds the merged weights of {self._merged}")
            return None
        if name is None:
            return None
        # vLLM reads one that it was told to forget again, from a folder that stays: see `load`.
        return self._versions.get(name) or loaded(self._loaded, name)

    def _version(self, name: str) -> str:
        return name if self._merged or name in self._versions else loaded(self._loaded, name).lora_name


@contextmanager
def _quiet() -> Iterator[None]:
    """Without warnings that vLLM's imports give about each other."""
    logging.getLogger("torch._library.triton").setLevel(logging.ERROR)  # no processor runs Triton
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _first_line(error: BaseException) -> str:
    """What went wrong; pydantic puts a count of mistakes before it."""
    lines = str(error).strip().splitlines()
    reasons = (line.strip().removeprefix("Value error, ") for line in lines if "Value error, " in line)
    return next(reasons, lines[0] if lines else type(error).__name__)
