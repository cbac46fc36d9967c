"""Small real things for tests: tokenizers of three kinds, a random model that can learn, a small domain."""

from __future__ import annotations

import io
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
import torch
import yaml
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, LlamaTokenizer, PreTrainedTokenizerFast

ROOT = Path(__file__).parent.parent
COLOURS = ("Red", "Blue", "Black")
FILMS = [f"{colour} {thing}" for colour in COLOURS for thing in ("Sun", "Moon", "River", "Road", "Rain")]
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
INST = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system role') }}"
    "{% elif m['role'] == 'user' %}[INST] {{ m['content'] | trim }} [/INST]{% else %}{{ m['content'] | trim }}"
    "{{ eos_token }}{% endif %}{% endfor %}"
)
TEXT = [
    "Fargo\nHeat\nThe Usual Suspects\nSeven (Se7en)\nToy Story 2 (1999)\n2001: A Space Odyssey\n",
    "You recommend films. Films this person chose, oldest first. Continue the list. user assistant system",
    "Amélie, 七人の侍, Солярис, naïve café — “quotes” #2\n",
] * 20


@cache
def tokenizer(kind: str) -> Any:
    """`gpt2`: byte-level BPE; `qwen`: the same behind a regular expression, NFC, with added tokens that are not
    special; `sentencepiece`: unigram with byte fallback."""
    if kind == "sentencepiece":
        return _sentencepiece()
    core = Tokenizer(models.BPE())
    if kind == "qwen":
        core.normalizer = normalizers.NFC()
        words = Regex(r"(?i:'s|'t)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
        split = pre_tokenizers.Split(words, behavior="isolated")
        core.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    else:
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    special = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        TEXT, trainers.BpeTrainer(vocab_size=500, special_tokens=special, initial_alphabet=alphabet)
    )
    if kind == "qwen":
        core.add_tokens([AddedToken("<tool_call>", special=False), AddedToken("</think>", special=False)])
    end = {"eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}
    made = PreTrainedTokenizerFast(tokenizer_object=core, **end)
    made.chat_template = CHATML
    return made


def _sentencepiece() -> Any:
    import tempfile

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(line for text in TEXT for line in text.splitlines()), model_writer=model, vocab_size=400,
        model_type="bpe", byte_fallback=True, character_coverage=1.0, hard_vocab_limit=False, minloglevel=2,
        normalization_rule_name="identity",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "tokenizer.model").write_bytes(model.getvalue())
        made = LlamaTokenizer.from_pretrained(folder)
    made.chat_template = INST
    return made


def model(
    vocabulary: int = 600, layers: int = 3, seed: int = 0, width: int = 32, positions: int = 256
) -> LlamaForCausalLM:
    """A random decoder; with a smaller initializer_range a LoRA could not learn and tests would prove nothing."""
    torch.manual_seed(seed)
    shape = LlamaConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=positions, initializer_range=0.2,
        tie_word_embeddings=True,
        bos_token_id=None, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    return LlamaForCausalLM._from_config(shape, attn_implementation="sdpa").eval().requires_grad_(False)


def base(folder: Path, **shape: int) -> Path:
    """A folder with a random base model and a tokenizer of GPT-2's kind."""
    made = tokenizer("gpt2")
    model(len(made), **shape).save_pretrained(folder)
    made.save_pretrained(folder)
    return folder


def films(root: Path) -> Path:
    """A project in `root`: fifteen films of three colours, and 30 people of whom each stays with one colour."""
    shutil.copytree(ROOT / "prompts", root / "prompts")
    base(root / "base", positions=512)  # room for replies
    rng = np.random.default_rng(0)
    rows = ["user_id,item_id,timestamp"]
    for user in range(30):
        own = 5 * (user % 3) + rng.permutation(5)
        rows += [f"u{user},i{own[k % 5]},{1000 * user + k}" for k in range(9)]
    (root / "events.csv").write_text("\n".join(rows) + "\n")
    items = ["item_id,title,categories", *(f"i{i},{title},{title.split()[0]}" for i, title in enumerate(FILMS))]
    (root / "items.csv").write_text("\n".join(items) + "\n")
    recipe = {
        "domain": "films", "noun": "films", "unit": "film", "base_model": str(root / "base"),
        "tasks": {"next_item": {}, "interest": {}, "interest_summary": {}, "explanation": {}},
        "data": {"path": str(root / "events.csv"), "items": str(root / "items.csv")},
        "split": {"method": "leave_one_out", "repeats": "allow"},
        "lora": {"rank": 8, "alpha": 16, "first_layer": 1},
        "fit": {
            "window_tokens": 100, "batch_tokens": 1600, "micro_batch_tokens": 1600, "epochs": 10, "cache": "memory",
            "learning_rate": 0.01, "valid_users": 10, "valid_every": 10, "precision": "float32",
        },
    }  # fmt: skip
    (root / "adapters" / "films").mkdir(parents=True)
    (root / "adapters" / "films" / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return root


def adapter(folder: Path, seed: int, width: int = 128, **lora: Any) -> Path:
    """A saved adapter of `model(width=width)` that changes its answers a lot."""
    from llmrec.config import Lora
    from llmrec.model import adapter as adapters

    made = adapters.attach(model(width=width), Lora(rank=8, alpha=8, **lora), base_name="tiny")
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
    adapters.write_json(folder / adapters.CARD, {"weights": adapters.save(made, folder)})
    return folder
