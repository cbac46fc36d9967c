"""LoRA adapters: made, checked for serving, saved and loaded.  Weights are safetensors only."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file

from llmrec import config
from llmrec.config import Lora
from llmrec.errors import AdapterError, RecipeError
from llmrec.files import digest, sweep, whole
from llmrec.locks import locked
from llmrec.model.load import BaseModel, load_model, load_tokenizer
from llmrec.tasks import TASKS
from llmrec.tasks.saved import CARD

WEIGHTS = "adapter_model.safetensors"
TEACHER = "teacher.safetensors"  # of the prior, where the card names its digest
SERVED_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # the values of vLLM's max_lora_rank
MAX_CARD_BYTES = 50_000_000
MAX_KNOWN_ITEMS = 1_000_000  # of a trained trie: a card names them all, at 18 bytes each, and their codes, at up to 28


def attach(model: Any, lora: Lora, *, base_name: str) -> PeftModel:
    """The model with a fresh, trainable LoRA (float32) of the recipe's shape.

    Raises: RecipeError where the base has no such layers; AdapterError where the shape cannot be served.
    """
    layers = model.config.num_hidden_layers
    if lora.first_layer >= layers:
        raise RecipeError(f"lora.first_layer={lora.first_layer}: this base model has layers 0 to {layers - 1}")
    modules = {name.rsplit(".", 1)[-1] for name, _ in model.named_modules()}
    if missing := [target for target in lora.targets if target not in modules]:
        raise RecipeError(f"lora.targets: the base model has no {', '.join(missing)}")
    peft_config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=adapted(model, lora),
        bias="none",
        task_type="CAUSAL_LM",
    )
    if problems := unservable(peft_config.to_dict()):
        raise AdapterError(f"an adapter of this shape cannot be served: {'; '.join(problems)}")
    with untied():
        peft_model = get_peft_model(model, peft_config)
    peft_config.base_model_name_or_path = base_name  # the name of a recipe, never a path of this machine
    return peft_model


def adapted(model: Any, lora: Lora) -> list[str]:
    """Full names of the modules that get an update: the head, and layers from `lora.first_layer` on."""
    names = [name for name, _ in model.named_modules() if name.rsplit(".", 1)[-1] in lora.targets]
    layer = {name: re.search(r"\.layers\.(\d+)\.", name) for name in names}
    return [name for name in names if not (found := layer[name]) or int(found[1]) >= lora.first_layer]


def unservable(peft_config: dict[str, Any]) -> list[str]:
    """Why vLLM would refuse this adapter_config.json or load it wrongly; empty where it serves."""
    problems = []
    if peft_config.get("peft_type") != "LORA":
        problems.append(f"peft_type {peft_config.get('peft_type')!r} is not LORA")
    if type(rank := peft_config.get("r")) is not int or rank not in SERVED_RANKS:
        problems.append(f"rank {rank} is not one of {', '.join(map(str, SERVED_RANKS))}")
    for key in ("modules_to_save", "trainable_token_indices", "rank_pattern", "alpha_pattern", "lora_bias", "use_dora",
                "layers_to_transform", "layers_pattern"):  # fmt: skip
        if peft_config.get(key):
            problems.append(f"{key} is set")
    if peft_config.get("bias", "none") != "none":
        problems.append("biases are trained")
    if peft_config.get("init_lora_weights", True) not in (True, False, "gaussian"):
        problems.append(f"init_lora_weights={peft_config['init_lora_weights']!r} changes the base weights")
    return problems


def widen(model: PeftModel, name: str, rank: int) -> None:
    """The adapter `name` of `model`, to be saved, with zeros up to `rank`, which change nothing; its alpha stays."""
    for layer in (module for module in model.modules() if isinstance(module, LoraLayer)):
        for side, axis in ((layer.lora_A, 0), (layer.lora_B, 1)):
            if name in side:
                weight = side[name].weight
                rest = rank - weight.shape[axis]
                weight.data = torch.nn.functional.pad(weight.data, (0, 0, 0, rest) if axis == 0 else (0, rest))
    model.peft_config[name].r = rank


def save(model: PeftModel, folder: Path, name: str = "default") -> str:
    """Write adapter_config.json and the weights in float16 (half the size; the update is small against the base).

    Returns: the weights' digest, 12 hex digits.
    Raises: AdapterError where a weight is no number, or too large for float16; nothing is written then.
    """
    tensors = {
        key: tensor.to(torch.float16).cpu().contiguous()
        for key, tensor in get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False).items()
    }
    if bad := [key for key, tensor in tensors.items() if not tensor.isfinite().all()]:
        raise AdapterError(
            f"{len(bad)} of {len(tensors)} tensors hold what is no number in float16 ({bad[0]} the first), and are not "
            "written: the training has diverged; lower fit.learning_rate and train again"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with whole(folder / WEIGHTS) as partial:
        save_file(tensors, partial, metadata={"format": "pt"})
    peft_config = model.peft_config[name].to_dict() | {"inference_mode": True, "peft_version": None}
    write_json(folder / "adapter_config.json", _plain(peft_config))
    return weights_digest(folder)


def load(model: Any, folders: dict[str, Path]) -> Any:
    """The base model with the adapters in `folders` loaded under their names; with none, the model itself.

    Raises: AdapterError naming what is wrong with a folder.
    """
    for name, folder in folders.items():
        check(folder)
        with untied():
            if isinstance(model, PeftModel):
                model.load_adapter(str(folder), adapter_name=name, use_safetensors=True)
            else:
                model = PeftModel.from_pretrained(model, str(folder), adapter_name=name, use_safetensors=True)
    return model.eval()


def merged(base: BaseModel, folder: Path) -> Path:
    """The base model with the adapter added to its weights, float32, as a folder in LLMREC_HOME; made once.

    Raises: AdapterError naming what is wrong with the adapter.
    """
    check(folder)
    result = config.home() / "models" / f"merged-{base.digest}-{weights_digest(folder)}"
    if result.is_dir():  # which needs no lock, so LLMREC_HOME may be read-only
        return result
    result.parent.mkdir(parents=True, exist_ok=True)
    with locked(result.with_name(f"{result.name}.lock"), AdapterError, doing="merges the same adapter"):
        if not result.is_dir():
            sweep(result.parent)
            plain = load_model(base, dtype=torch.float32)
            head = plain.get_output_embeddings()
            if head is not None and head.weight is plain.get_input_embeddings().weight:
                # Merging would change the embedding with the head; apart, each stays what the adapter was trained on.
                head.weight = torch.nn.Parameter(head.weight.clone(), requires_grad=False)
                plain.config.tie_word_embeddings = False
            model = load(plain, {"adapter": folder})
            with whole(result) as partial:
                model.merge_and_unload().save_pretrained(partial)
                load_tokenizer(base.folder).save_pretrained(partial)
    return result


def check(folder: Path) -> None:
    """Raises AdapterError unless `folder` is a complete adapter that an engine can take."""
    if not (folder / CARD).is_file():
        parts = [name for task in TASKS if (folder.with_name(name := f"{folder.name}-{task}") / CARD).is_file()]
        way_out = f"name one of its tasks' own: {', '.join(parts)}" if parts else f"run `llmrec train {folder.name}`"
        raise AdapterError(f"{folder}: no trained adapter here ({CARD} is missing); {way_out}")
    for needed in ("adapter_config.json", WEIGHTS):
        if not (folder / needed).is_file():
            raise AdapterError(f"{folder}: {needed} is missing; restore it or train again")
    peft_config = read_json(folder / "adapter_config.json")
    if problems := unservable(peft_config):
        raise AdapterError(f"{folder}: cannot be served: {'; '.join(problems)}")
    card = read_json(folder / CARD)
    if card.get("weights") != weights_digest(folder):
        raise AdapterError(f"{folder}: {WEIGHTS} is not what {CARD} describes; restore both or train again")
    if problem := teacher_problem(folder, card):
        raise AdapterError(f"{folder}: {problem}")


def check_base(card: dict[str, Any], folder: Path, base_digest: str, base_name: str) -> None:
    """Raises AdapterError unless the adapter in `folder` was trained on these very base weights."""
    if card.get("base_digest") != base_digest:
        raise AdapterError(
            f"{folder}: trained on other weights of '{card.get('base_model')}' ({card.get('base_digest')}) than "
            f"'{base_name}' has here ({base_digest}); name the base it was trained on, or train again"
        )


def weights_digest(folder: Path) -> str:
    """12 hex digits of SHA-256 over the weights file."""
    return digest(folder / WEIGHTS)


def served_name(name: str, digest: str) -> str:
    """What a vLLM engine knows an adapter by; its caches go by names, so other weights need another one.

    Args:
        name: a domain, or one of its versions, which are one adapter to a server where their weights are one.
    """
    return f"{config.domain_of(name)}-{digest}"


def teacher_problem(folder: Path, card: dict[str, Any]) -> str | None:
    """What is wrong with the teacher that the card in `folder` names, or with one that it does not name."""
    there = (folder / TEACHER).is_file()
    if there != ("teacher" in card):
        return f"{TEACHER} is {'there, but not named in' if there else 'missing, but named in'} {CARD}; restore both"
    if there and card["teacher"] != digest(folder / TEACHER):
        return f"{TEACHER} is not what {CARD} describes; restore both or train again"
    return None


def item_digests(identifiers: Iterable[str]) -> list[str]:
    """A digest of each identifier, sorted: which items a trie was trained with, without their titles."""
    return sorted(map(item_digest, identifiers))


def item_digest(identifier: str) -> str:
    """12 hex digits of SHA-256 of one identifier."""
    return hashlib.sha256(identifier.encode()).hexdigest()[:12]


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object of at most 50 MB.  Raises: AdapterError."""
    try:
        if file.stat().st_size > MAX_CARD_BYTES:
            raise AdapterError(f"{file}: larger than {MAX_CARD_BYTES} bytes")
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise AdapterError(f"{file}: cannot be read: {error}") from None
    if not isinstance(values, dict):
        raise AdapterError(f"{file}: a JSON object is expected")
    return values


def write_json(file: Path, values: dict[str, Any]) -> None:
    """Whole or not at all."""
    with whole(file) as partial:
        partial.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def forget(folder: Path) -> None:
    """Deletes what belonged to weights that are replaced and not every training writes: wordings, and a teacher."""
    shutil.rmtree(folder / "prompts", ignore_errors=True)
    (folder / TEACHER).unlink(missing_ok=True)


def copy_prompts(prompts: Path, names: Iterable[str], folder: Path) -> None:
    """The wordings that an adapter was trained on, beside it."""
    (folder / "prompts").mkdir(parents=True, exist_ok=True)
    for name in names:
        shutil.copyfile(prompts / f"{name}.yaml", folder / "prompts" / f"{name}.yaml")


@contextmanager
def untied() -> Iterator[None]:
    """PEFT warns where a head that shares its weight with the input gets an update: here only the output shall."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Model has `tie_word_embeddings=True`")
        yield


def _plain(values: Any) -> Any:
    """Sets and enums of a PEFT config as JSON knows them."""
    if isinstance(values, dict):
        return {key: _plain(value) for key, value in values.items()}
    if isinstance(values, set | frozenset):
        return sorted(values)
    if isinstance(values, list | tuple):
        return [_plain(value) for value in values]
    return getattr(values, "value", values)
