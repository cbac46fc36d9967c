"""Base model and tokenizer from a named asset, a GGUF file, a local folder or a hub id."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, GgufConfig, PreTrainedModel
from transformers.utils import is_bitsandbytes_available, logging

from llmrec import assets, config
from llmrec.errors import AssetError, RecipeError
from llmrec.files import digest, sweep, whole
from llmrec.locks import locked

T = TypeVar("T")


@dataclass(frozen=True)
class BaseModel:
    """A base model on disk: safetensors weights, configuration and tokenizer."""

    name: str
    folder: Path
    digest: str
    """12 hex digits over names and bytes of the tensors: one name can hide two checkpoints."""


def base_model(name: str) -> BaseModel:
    """The base model called `name` in a recipe, fetched and converted on first use.

    Raises: AssetError with what was tried.
    """
    if name in assets.ASSETS:
        folder = _from_gguf(_only_gguf(assets.fetch(name)))
    elif name.endswith(".gguf"):
        folder = _from_gguf(Path(name))
    elif Path(name).is_dir():
        folder = Path(name)
    else:
        folder = _from_hub(name)
    return BaseModel(name, folder, tensor_digest(folder))


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer beside the weights.  Raises: AssetError."""
    return _read(folder, AutoTokenizer.from_pretrained, folder)


def load_model(
    base: BaseModel, *, dtype: torch.dtype, device: torch.device | str = "cpu", quantize: str = "none"
) -> PreTrainedModel:
    """The frozen decoder, in evaluation mode.

    Raises: RecipeError where 4-bit weights cannot be had, or the model does with its scores what is not known here;
        AssetError where its files cannot be read.
    """
    options: dict[str, Any] = {"dtype": dtype, "attn_implementation": "sdpa", "use_safetensors": True}
    if quantize == "4bit":
        options |= {"quantization_config": _four_bit(dtype), "device_map": {"": str(device)}}
    model = _read(base.name, _quiet, AutoModelForCausalLM.from_pretrained, base.folder, **options)
    if quantize == "none":
        model = model.to(device)
    else:  # on such processors these layers repack themselves when first evaluated, and no gradient passes from then on
        for module in model.modules():
            if hasattr(module, "support_avx512bf16_for_cpu"):
                module.support_avx512bf16_for_cpu = False
    _check_plain(model.config)
    if getattr(model.get_output_embeddings(), "bias", None) is not None:
        raise RecipeError(
            f"base_model: {model.config.model_type} adds a bias to its scores; that is not supported, name another"
        )
    model.config.use_cache = True
    return model.eval().requires_grad_(False)


def _check_plain(settings: Any) -> None:
    """Training and the reference engine take scores straight from the head and look at the whole prompt: a model that
    scales or caps its scores, or looks back only so far, would be trained as one thing and served as another."""
    usual = {"final_logit_softcapping": 0, "attn_logit_softcapping": 0, "logits_scaling": 1, "logit_scale": 1}
    given = {name: getattr(settings, name, None) or plain for name, plain in usual.items()}
    found = [f"{name}={value}" for name, value in given.items() if value != usual[name]]
    window = getattr(settings, "sliding_window", None) if getattr(settings, "use_sliding_window", True) else None
    if window and window < config.MAX_WINDOW:
        found.append(f"sliding_window={window}")
    if found:
        raise RecipeError(f"base_model: {settings.model_type} with {', '.join(found)} is not supported; name another")


def compute_dtype(precision: str, device: torch.device | str) -> torch.dtype:
    """`auto` is bf16 only where it is faster: on GPUs, and on processors that multiply it (AMX; Arm's BF16).  Others,
    AVX-512 with its bf16 dot products among them, are two to ten times faster in float32."""
    if precision != "auto":
        return torch.bfloat16 if precision == "bf16" else torch.float32
    if torch.device(device).type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    able = torch.cpu.get_capabilities()
    return torch.bfloat16 if able.get("amx_bf16") or able.get("bf16") else torch.float32


def tensor_digest(folder: Path) -> str:
    """12 hex digits over the weights in `folder`; computed once for each state of its files."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise AssetError(f"{folder}: no *.safetensors weights (other formats can run code and are not loaded)")
    state = [[f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in files]
    key = hashlib.sha256(json.dumps([str(folder.resolve()), state]).encode()).hexdigest()
    remembered = config.home() / "models" / "digests" / key
    if remembered.is_file() and re.fullmatch(r"[0-9a-f]{12}", known := remembered.read_text(errors="replace")):
        return known
    total = hashlib.sha256()
    names: dict[str, Path] = {}
    for file in files:
        with _read(file, safe_open, file, framework="pt") as tensors:
            names |= dict.fromkeys(tensors.keys(), file)
    for name in sorted(names):
        with safe_open(names[name], framework="pt") as tensors:
            tensor = tensors.get_tensor(name).contiguous()
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy())
    digest = total.hexdigest()[:12]
    try:
        remembered.parent.mkdir(parents=True, exist_ok=True)
        with whole(remembered) as partial:  # others may be reading
            partial.write_text(digest)
    except OSError:
        pass  # a read-only home costs a second per start, nothing else
    return digest


def tokenizer_digest(tokenizer: Any) -> str:
    """12 hex digits over tokens and their ids."""
    return hashlib.sha256(json.dumps(sorted(tokenizer.get_vocab().items())).encode()).hexdigest()[:12]


def _read(what: str | Path, load: Callable[..., T], *args: Any, **options: Any) -> T:
    """What `load` returns.  Raises: AssetError where the files are none that transformers can read."""
    try:
        return load(*args, **options)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # of a torn file the libraries raise a dozen kinds, plain Exception among them
        if isinstance(error, OSError) and error.errno:  # the disk, not what is on it
            raise
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise AssetError(
            f"base_model {what}: cannot be loaded: {said}; name another, or get its files again"
        ) from error


def _only_gguf(folder: Path) -> Path:
    files = sorted(folder.rglob("*.gguf"))
    if len(files) != 1:
        raise AssetError(
            f"{folder}: one GGUF file is expected, found {len(files)}; delete the folder to fetch it again"
        )
    return files[0]


def _from_gguf(file: Path) -> Path:
    """A GGUF file as a folder of float32 safetensors, converted once."""
    if not file.is_file():
        raise AssetError(f"{file}: no such file")
    folder = config.home() / "models" / f"{file.stem}-{digest(file)}"
    if folder.is_dir():  # before the lock, which a home that is read-only refuses
        return folder
    with locked(folder.with_name(f"{folder.name}.lock"), AssetError, doing="converts the same model"):
        if folder.is_dir():
            return folder
        sweep(folder.parent)
        where = {"gguf_file": file.name}
        tokenizer = _read(file, AutoTokenizer.from_pretrained, file.parent, **where)
        model = _read(
            file, _quiet, AutoModelForCausalLM.from_pretrained, file.parent, **where, dtype=torch.float32,
            quantization_config=GgufConfig(dequantize=True),  # else the result cannot be saved
        )  # fmt: skip
        _restore_digit_split(tokenizer, model.config)
        with whole(folder) as partial:
            _quiet(model.save_pretrained, partial)
            tokenizer.save_pretrained(partial)
    return folder


def _restore_digit_split(tokenizer: Any, model_config: Any) -> None:
    """The GGUF converter loses SmolLM2's rule that every digit is a token of its own."""
    from tokenizers import pre_tokenizers

    if model_config.model_type != "llama" or model_config.vocab_size != 49152:
        return
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True),
        ]
    )


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        wanted = ["*.safetensors", "*.json", "*.model", "*.jinja", "*.txt"]
        return Path(snapshot_download(name, allow_patterns=wanted))
    except HFValidationError:
        raise AssetError(f"base_model '{name}': no such folder or file, and not a hub id (owner/name)") from None
    except Exception as error:  # the hub client raises a dozen kinds; what a user needs is the same for all
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        known = [name for name, asset in assets.ASSETS.items() if asset.members.endswith(".gguf")]
        raise AssetError(
            f"base_model '{name}': not in the local cache and the hub did not give it ({reason}); "
            f"use a local folder, a GGUF file, or {' or '.join(known)}"
        ) from None


def _four_bit(dtype: torch.dtype) -> BitsAndBytesConfig:
    if not is_bitsandbytes_available():
        raise RecipeError("fit.quantize=4bit needs bitsandbytes 0.46.1 or later: pip install -e '.[qlora]'")
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )


def _quiet(call: Any, *args: Any, **options: Any) -> Any:
    """`call` without transformers' own progress bars: ours show what the user waits for."""
    logging.disable_progress_bar()
    try:
        return call(*args, **options)
    finally:
        logging.enable_progress_bar()
