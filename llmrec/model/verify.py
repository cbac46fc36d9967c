"""An adapter folder from elsewhere is hostile until checked: what it may hold, and what the base model can take.

Nothing here runs or unpickles anything: JSON, YAML and safetensors are parsed, every size has a limit.
"""

from __future__ import annotations

import math
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForCausalLM

from llmrec.baselines import teacher
from llmrec.config import NAME, Lora
from llmrec.errors import AdapterError, PromptError
from llmrec.model import adapter
from llmrec.tasks.saved import misshapen
from llmrec.tasks.template import Template

MB = 1_000_000
LIMITS = {  # every file that an adapter may hold, as a pattern, with its most bytes
    "adapter_config.json": MB,
    adapter.WEIGHTS: 2_000 * MB,
    adapter.CARD: adapter.MAX_CARD_BYTES,
    "recipe.yaml": MB,
    "README.md": MB,
    "LICENSE": MB,
    adapter.TEACHER: 2_000 * MB,
    "curve.png": 5 * MB,
    "log.jsonl": 20 * MB,
    r"prompts/[a-z0-9][a-z0-9_-]{0,63}\.yaml": MB,
}
MAX_FILES = 64
MAX_ALPHA = 65_536
MAX_TENSORS = 10_000
NEEDED = ("adapter_config.json", adapter.WEIGHTS, adapter.CARD)
MODULES = frozenset(get_args(get_args(Lora.model_fields["targets"].annotation)[0]))
HARMLESS = frozenset({  # keys of adapter_config.json that may have a value; `adapter.unservable` judges some
    "task_type", "peft_type", "base_model_name_or_path", "revision", "inference_mode", "r", "target_modules",
    "lora_alpha", "lora_dropout", "bias", "use_rslora", "init_lora_weights", "layers_to_transform", "layers_pattern",
    "peft_version", "megatron_core", "qalora_group_size", "modules_to_save", "trainable_token_indices", "rank_pattern",
    "alpha_pattern", "lora_bias", "use_dora",
})  # fmt: skip
_TENSOR = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")


def limit(name: str) -> int | None:
    """Most bytes of the file at `name` inside an adapter's folder; None where no such file belongs there."""
    return next((size for pattern, size in LIMITS.items() if re.fullmatch(pattern, name)), None)


def files(folder: Path) -> list[str]:
    """What is wrong with the files in `folder`: links, strangers, sizes, what is missing."""
    if folder.is_symlink() or not folder.is_dir():
        return [f"{folder}: not a folder (links are not followed); name the folder itself"]
    problems: list[str] = []
    too_many: list[str] = []
    found: set[str] = set()
    for count, path in enumerate(_walk(folder), 1):
        if count > MAX_FILES:
            too_many = [f"more than {MAX_FILES} files; keep only what `llmrec adapters export` writes"]
            break
        name = path.relative_to(folder).as_posix()
        status = path.lstat()
        if stat.S_ISDIR(status.st_mode) and name == "prompts":
            continue
        if not stat.S_ISREG(status.st_mode):
            kind = "a link" if stat.S_ISLNK(status.st_mode) else "a folder or special file"
            problems.append(f"{name!r} is {kind}; replace it by a plain file or remove it")
        elif (most := limit(name)) is None:
            problems.append(f"{name!r} does not belong in an adapter (weights are {adapter.WEIGHTS} only); remove it")
        elif status.st_size > most:
            problems.append(f"{name}: {status.st_size:,} bytes, at most {most:,}; not an adapter of this kind")
        else:
            found.add(name)
    missing = [f"{name} is missing; copy it from where the adapter was trained" for name in NEEDED
               if name not in found and not (folder / name).is_symlink()]  # fmt: skip
    return [*_few(problems), *too_many, *missing]


def content(folder: Path) -> list[str]:
    """What is wrong inside the files of a folder that `files` found in order."""
    problems: list[str] = []
    for check in (_config, _card, _weights):
        try:
            problems += check(folder)
        except (AdapterError, PromptError) as error:
            problems.append(str(error))
    return problems


def fit(folder: Path, base_folder: Path) -> list[str]:
    """Where names and shapes of the tensors differ from adapter_config.json or from the base model in `base_folder`."""
    peft_config = adapter.read_json(folder / "adapter_config.json")
    rank, targets = peft_config.get("r"), peft_config.get("target_modules")
    targets = targets if isinstance(targets, list) else []
    try:
        shapes = _tensors(folder)
    except SafetensorError:
        return []  # `content` has said so
    linear = _linear(base_folder)
    problems, sides = [], dict[str, set[str]]()
    for name, shape in sorted(shapes.items()):
        if not (match := _TENSOR.fullmatch(name)):
            problems.append(f"tensor {name!r} is no LoRA update of a layer; export the adapter with peft's LoRA alone")
            continue
        module, side = match.groups()
        sides.setdefault(module, set()).add(side)
        if module not in linear:
            problems.append(f"tensor {name!r}: the base model has no such linear layer; it was trained on another base")
            continue
        wanted = (rank, linear[module][1]) if side == "A" else (linear[module][0], rank)
        if shape != wanted:
            why = "another vocabulary size" if module == "lm_head" else f"another base or rank than r={rank}"
            problems.append(f"tensor {name}: shape {shape}, {wanted} expected: {why}; train on this base")
    for module, found in sorted(sides.items()):
        if len(found) == 1:
            problems.append(f"{module}: only lora_{min(found)} is there; export the adapter again")
        if not any(_names(target, module) for target in targets):
            problems.append(
                f"{module}: not among target_modules; weights and adapter_config.json are not of one adapter"
            )
    for target in targets:
        if not any(_names(target, module) for module in sides):
            problems.append(f"target_modules names {target!r}, but no tensor updates it; export the adapter again")
    return _few(problems)


def _walk(folder: Path) -> Iterator[Path]:
    """Everything in the folder, links not followed."""
    for path in sorted(folder.iterdir()):
        yield path
        if path.name == "prompts" and path.is_dir() and not path.is_symlink():
            yield from sorted(path.iterdir())


def _config(folder: Path) -> list[str]:
    values = adapter.read_json(folder / "adapter_config.json")
    problems = [f"adapter_config.json: {problem}" for problem in adapter.unservable(values)]
    strange = sorted(key for key, value in values.items() if value and key not in HARMLESS)
    problems += _few([f"adapter_config.json: {key[:60]!r} is set, which the engines do not serve" for key in strange])
    targets = values.get("target_modules")
    if not isinstance(targets, list) or not targets or not all(isinstance(target, str) for target in targets):
        problems.append("adapter_config.json: target_modules must list names, not a pattern")
    else:
        other = sorted({target.rsplit(".", 1)[-1] for target in targets} - MODULES)
        problems += [f"adapter_config.json: updates of {name[:60]!r} cannot be served" for name in other]
    if values.get("task_type") != "CAUSAL_LM":
        problems.append(f"adapter_config.json: task_type {str(values.get('task_type'))[:60]!r} is not CAUSAL_LM")
    alpha, dropout = values.get("lora_alpha"), values.get("lora_dropout", 0.0)
    if not _number(alpha) or not 0 < alpha <= MAX_ALPHA:
        problems.append(f"adapter_config.json: lora_alpha {str(alpha)[:60]} is no number above 0, at most {MAX_ALPHA}")
    if not _number(dropout) or not 0 <= dropout < 1:
        problems.append(f"adapter_config.json: lora_dropout {str(dropout)[:60]} is no number from 0 to below 1")
    return [f"{problem}; train with one of this project's recipes" for problem in problems]


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _card(folder: Path) -> list[str]:
    card = adapter.read_json(folder / adapter.CARD)
    problems = []
    if not NAME.fullmatch(str(card.get("domain"))):
        problems.append(f"{adapter.CARD}: domain {str(card.get('domain'))[:80]!r} is no name; set the domain's name")
    for key in ("recipe", "validation"):
        if key not in card:
            problems.append(f"{adapter.CARD}: {key} is missing; copy the card from the training run")
    problems += _scale(folder, card)
    if problem := misshapen(card):
        problems.append(f"{adapter.CARD}: {problem}; copy the card from the training run")
    if card.get("format") != 1:
        problems.append(f"{adapter.CARD}: format {card.get('format')!r} is unknown; upgrade llmrec or export again")
    if card.get("weights") != adapter.weights_digest(folder):
        problems.append(f"{adapter.WEIGHTS} is not what {adapter.CARD} describes; restore both or train again")
    if problem := adapter.teacher_problem(folder, card):
        problems.append(problem)
    elif "teacher" in card:
        try:
            teacher.read(folder / adapter.TEACHER)
        except AdapterError as error:
            problems.append(str(error))
    trained = card.get("prompts")
    trained = trained if isinstance(trained, dict) else {}
    if not trained:
        problems.append(f"{adapter.CARD}: names no prompts; train again")
    there = {path.stem for path in (folder / "prompts").glob("*.yaml")}
    for name in sorted({str(name) for name in trained} ^ there):
        where = "the folder prompts" if name in there else adapter.CARD
        problems.append(f"prompt {name[:60]!r} is only in {where}; restore what the adapter was trained on")
    for name in sorted(there & set(trained)):
        try:
            found = Template.load(folder / "prompts" / f"{name}.yaml").digest
        except PromptError as error:
            problems.append(str(error))
            continue
        if found != trained[name]:
            problems.append(
                f"prompts/{name}.yaml was edited after training ({found}, card {trained[name]}); restore it"
            )
    return problems


def _scale(folder: Path, card: dict[str, Any]) -> list[str]:
    """Where rank and scale, which no digest of the weights covers, are not those of the card's recipe."""
    shape = adapter.read_json(folder / "adapter_config.json")
    recipe = card.get("recipe")
    lora = recipe.get("lora") if isinstance(recipe, dict) else None
    lora = lora if isinstance(lora, dict) else {}
    rescaled = "adapter_config.json: use_rslora, of which no recipe knows; restore it"
    return [rescaled] * bool(shape.get("use_rslora")) + [
        f"adapter_config.json: {key} {str(shape.get(key))[:60]}, by {adapter.CARD} {str(lora[name])[:60]}; restore both"
        for key, name in (("r", "rank"), ("lora_alpha", "alpha"))
        if name in lora and shape.get(key) != lora[name]
    ]


def _weights(folder: Path) -> list[str]:
    problems = []
    try:
        with safe_open(folder / adapter.WEIGHTS, framework="pt") as tensors:
            names = list(tensors.keys())
            if not 0 < len(names) <= MAX_TENSORS:
                return [f"{adapter.WEIGHTS}: {len(names)} tensors, 1 to {MAX_TENSORS} expected; not an adapter"]
            for name in names:
                tensor = tensors.get_tensor(name)
                if tensor.dtype not in (torch.float16, torch.bfloat16, torch.float32):
                    problems.append(f"tensor {name!r}: {tensor.dtype} is not served; convert it to float16")
                elif not bool(torch.isfinite(tensor).all()):
                    problems.append(f"tensor {name!r} holds values that are not finite; train again")
    except SafetensorError as error:
        problems.append(f"{adapter.WEIGHTS}: not a safetensors file ({error}); export it with safetensors")
    return _few(problems)


def _tensors(folder: Path) -> dict[str, tuple[int, ...]]:
    with safe_open(folder / adapter.WEIGHTS, framework="pt") as tensors:
        return {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118


def _linear(base_folder: Path) -> dict[str, tuple[int, int]]:
    """(outputs, inputs) of every linear layer of a base model, from its configuration: no weights are read."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base_folder))
    return {
        name: (module.out_features, module.in_features)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
    }


def _names(target: str, module: str) -> bool:
    return module == target or module.endswith(f".{target}")


def _few(problems: list[str], most: int = 5) -> list[str]:
    """One wrong base makes hundreds of wrong tensors: a few of them say as much."""
    more = len(problems) - most
    return problems if more <= 0 else [*problems[:most], f"… and {more} more of this kind"]


def summary(folder: Path) -> dict[str, Any]:
    """What `adapters list` and a model card say of an adapter."""
    card = adapter.read_json(folder / adapter.CARD)
    validation = card.get("validation")
    measured = validation if isinstance(validation, dict) else {}
    return {
        "digest": str(card.get("weights", "")),
        "bytes": sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
        "base_model": str(card.get("base_model", "")),
        "trained": str(card.get("trained", "")),
        "metrics": {k: v for k, v in measured.items() if k != "users" and _number(v) and abs(v) < math.inf},
    }
