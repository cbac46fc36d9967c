"""A vLLM server behind HTTP, as `llmrec serve` starts it: the requests of the engine in process, other transport."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from llmrec.engine import Prompt
from llmrec.engine.asks import GROUPS, Ask, Asking, Tally, fitting, loaded
from llmrec.engine.server import CONNECTIONS, Refused, Server
from llmrec.errors import AdapterError, EngineError
from llmrec.model import adapter, store

PROMPTS = 64  # prompts of one HTTP request
GREEDY = {  # all of it: what is left out a server takes from the base model's generation_config.json
    "temperature": 0, "top_p": 1, "top_k": 0, "min_p": 0, "repetition_penalty": 1, "presence_penalty": 0,
    "frequency_penalty": 0,
}  # fmt: skip
BLOCKS, BLOCK_SIZE = 2048, 16  # assumed where the server does not tell


class RemoteEngine(Asking):
    """Engine over an OpenAI-compatible vLLM server.

    Args:
        url: its address, e.g. http://127.0.0.1:8000; the environment's VLLM_API_KEY is sent where it is set.
        model: name under which it must serve the base model: `base_name` of `llmrec.engine.serving`, with the digest
            of the weights in it.  `exact` where it serves `<model>-float32` too, as `llmrec serve` says in float32.
        tokenizer: for replies.
        adapters: name → folder; what the server does not have yet is loaded into it from there.
    Raises: EngineError where the server does not answer or serves other weights; AdapterError where it refuses one.
    """

    def __init__(self, url: str, model: str, tokenizer: Any, adapters: Mapping[str, Path] | None = None):
        self._server = Server(url)
        self.url = self._server.url
        self.tokenizer = tokenizer
        self._model = model
        self._threads = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="llmrec-http")
        self._loaded: dict[str, str] = {}
        self._versions: dict[str, Path] = {}
        self.tally = Tally()
        listed = self._server.models()
        if model not in listed:
            raise EngineError(f"{self.url} serves {', '.join(listed) or 'nothing'}, not {model}; start `llmrec serve`")
        self.exact = f"{model}-float32" in listed
        self.max_tokens: int = int(listed[model].get("max_model_len") or 0) - 1
        self._blocks, self._block_size = self._capacity()
        for name, folder in (adapters or {}).items():
            self.load(name, folder)

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names that a prompt may ask for."""
        return tuple(self._loaded)

    def load(self, name: str, folder: Path) -> str:
        """Make an adapter available; one that the server has under its digest is not sent again.

        Returns: the name that the server knows it by.
        Raises: AdapterError where it is refused; EngineError where the server does not answer.
        """
        adapter.check(folder)
        folder = store.lasting(folder)
        served = adapter.served_name(name, adapter.weights_digest(folder))
        if served not in self._server.models():
            self._server.load(served, folder)
        self._loaded[name] = served
        self._versions[served] = folder
        return served

    def unload(self, name: str) -> None:
        """Remove an adapter from the server, for everybody, and for searches that have begun, unless another name here
        stands for the same weights.

        Raises: AdapterError where the server does not have it; EngineError where it does not answer.
        """
        served = loaded(self._loaded, name)
        if [*self._loaded.values()].count(served) == 1:
            self._server.unload(served)
            del self._versions[served]
        del self._loaded[name]

    def batches(self, prompts: Sequence[Prompt]) -> Iterable[list[int]]:
        """As many prompts as a quarter of the server's cache of keys and values holds."""
        return fitting(prompts, blocks=self._blocks // GROUPS, block_size=self._block_size, adapters=len(prompts))

    def close(self) -> None:
        """Let go of the connections."""
        self._threads.shutdown()
        self._server.close()

    def _greedy(self, prompts: Sequence[Prompt], max_tokens: int, stop: Sequence[str]) -> list[Sequence[int]]:
        options: dict[str, Any] = {"max_tokens": max_tokens, "return_token_ids": True}
        if stop:
            options["stop"] = list(stop)
        together: dict[str, list[int]] = {}
        for i, prompt in enumerate(prompts):
            together.setdefault(self._name(prompt.adapter), []).append(i)
        work = [(name, options, members) for name, members in together.items()]
        return self._complete([p.tokens for p in prompts], work, lambda i, choice: choice["token_ids"])

    def _log_p(self, asked: Sequence[Ask]) -> list[np.ndarray]:
        """Prompts that ask for the same ids under the same adapter, as all users do at the root, go together."""
        together: dict[tuple[str, tuple[int, ...]], list[int]] = {}
        for i, ask in enumerate(asked):
            together.setdefault((self._name(ask.adapter), ask.ids), []).append(i)
        work = [
            (
                name,
                {"max_tokens": 1, "logprobs": len(ids), "logprob_token_ids": ids, "return_tokens_as_token_ids": True},
                members,
            )
            for (name, ids), members in together.items()
        ]

        def take(i: int, choice: dict[str, Any]) -> np.ndarray:
            found = choice["logprobs"]["top_logprobs"][0]
            return np.array([found[f"token_id:{token}"] for token in asked[i].ids], np.float64)

        return self._complete([ask.tokens for ask in asked], work, take)

    def _complete(
        self,
        prompts: Sequence[tuple[int, ...]],
        work: Sequence[tuple[str, dict[str, Any], list[int]]],
        take: Callable[[int, dict[str, Any]], Any],
    ) -> list[Any]:
        """What `take` finds in every prompt's choice; `work` is (model, options, indexes of prompts), each prompt once.
        Many requests are in flight.  Raises: EngineError, also for an answer in which `take` does not find it."""
        requests = [
            (name, options, members[at : at + PROMPTS])
            for name, options, members in work
            for at in range(0, len(members), PROMPTS)
        ]

        def post(request: tuple[str, dict[str, Any], list[int]]) -> Any:
            name, options, members = request
            body = {"model": name, "prompt": [prompts[i] for i in members], **GREEDY, **options}
            try:
                return self._server.post("/v1/completions", body)
            except Refused as error:
                if error.status != 404 or name not in self._versions:
                    raise
                self._again(name)
                return self._server.post("/v1/completions", body)

        found = {}
        for (_, _, members), answer in zip(requests, self._threads.map(post, requests), strict=True):
            try:
                for choice in answer["choices"]:
                    i = members[choice["index"]]
                    found[i] = take(i, choice)
                usage = answer["usage"]
                cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
                self.tally.add(len(members), usage["prompt_tokens"], cached)
            except (KeyError, IndexError, TypeError, ValueError) as error:
                raise self._server.odd(error) from None
        if len(found) < len(prompts):
            raise EngineError(f"{self.url}: {len(found)} answers to {len(prompts)} prompts")
        return [found[i] for i in range(len(prompts))]

    def _again(self, served: str) -> None:
        """Loads a version that the server has forgotten, as one does that was started anew.

        Raises: EngineError where it serves another base by now, in another precision, or does not take the version.
        """
        listed, folder = self._server.models(), self._versions[served]
        if self._model not in listed or self.exact != (f"{self._model}-float32" in listed):
            raise EngineError(
                f"{self.url} serves {', '.join(listed) or 'nothing'} by now, not what it served; start this again"
            )
        try:
            if not served.endswith(adapter.weights_digest(folder)):
                raise EngineError(f"{folder}: holds other weights by now than {served}; start this again")
            self._server.load(served, folder)
        except AdapterError as error:
            raise EngineError(str(error)) from None

    def _name(self, name: str | None) -> str:
        return self._model if name is None else self._version(name)

    def _version(self, name: str) -> str:
        return name if name in self._versions else loaded(self._loaded, name)

    def _capacity(self) -> tuple[int, int]:
        """(blocks, tokens of a block) of the server's cache."""
        try:
            text = self._server.get("/metrics")
        except Refused:
            text = ""
        found = re.search(r"^vllm:cache_config_info\{(.*)\}", text, re.MULTILINE)
        labels = dict(re.findall(r'(\w+)="(\d+)"', found[1])) if found else {}
        blocks, size = int(labels.get("num_gpu_blocks", BLOCKS)), int(labels.get("block_size", BLOCK_SIZE))
        return blocks - blocks // 4, size  # a quarter for the requests in flight and for other clients
