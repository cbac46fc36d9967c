"""Imports point down, and what is torch-free stays so."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "llmrec").rglob("*.py"))
LAYERS = (  # lowest first; a module imports from its own layer and those before
    {"errors", "files", "progress", "screen"},
    {"config", "locks"},
    {"hub"},
    {"assets", "waist"},
    {"data", "tasks", "choices", "metrics"},
    {"baselines", "model", "engine", "dialogue"},
    {"opened"},
    {"codes"},
    {"prepare", "recommender", "jobs", "judge", "writing", "grounded", "follow_up", "insight"},  # what the verbs share
    {"learning"},
    {
        "show",
        "train",
        "evaluate",
        "parts",
        "recommend",
        "summarize",
        "explain",
        "review",
        "measuring",
        "prompts",
        "chat",
        "score",
        "serve",
        "web",
        "doctor",
        "adapters",
        "conflicts",
    },
    {"cli", "__main__"},
)
APART = {"data", "tasks", "choices", "metrics"}  # …and these do not know each other
TORCH = {"torch", "transformers", "peft", "accelerate"}


def name(path: Path) -> str:
    """`llmrec.data.split`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path) -> Iterator[str]:
    """Full names of what a file imports anywhere, functions included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def part(module: str) -> str:
    """The second word: `data` of `llmrec.data.split`; empty for the package itself.

    The protocol that `llmrec.engine` holds is the waist that others lean on; the engines stand higher.
    """
    words = module.split(".") + ["", ""]
    if not any((ROOT / "llmrec" / name).exists() for name in (words[1], f"{words[1]}.py")):
        return ""  # a name of the package itself
    is_engine = (ROOT / "llmrec" / "engine" / f"{words[2]}.py").is_file()
    return "waist" if words[1] == "engine" and not is_engine else words[1]


def layer(word: str) -> int:
    found = [i for i, words in enumerate(LAYERS) if word in words]
    assert found, f"llmrec.{word} has no layer: give it one in tests/test_imports.py"
    return found[0]


@pytest.mark.parametrize("path", FILES, ids=name)
def test_imports_point_down(path: Path):
    own = part(name(path))
    if not own:  # llmrec/__init__.py imports nothing of ours, else importing anything would import it all
        assert not any(module.startswith("llmrec") for module in imported(path))
        return
    for module in imported(path):
        if module.split(".")[0] == "llmrec" and (other := part(module)):
            assert layer(other) <= layer(own), f"{name(path)} imports {module}, which stands above it"
            assert not (own in APART and other in APART and own != other), f"{name(path)} imports {module}"


@pytest.mark.parametrize("path", [path for path in FILES if part(name(path)) in {*APART, "dialogue"}], ids=name)
def test_torch_free(path: Path):
    assert TORCH.isdisjoint(module.split(".")[0] for module in imported(path))


@pytest.mark.parametrize(
    "modules",
    [
        "llmrec.cli",
        "llmrec.prepare",
        "llmrec.data.split, llmrec.tasks, llmrec.choices, llmrec.metrics",
        "llmrec.engine.server",
        "llmrec.evaluate, llmrec.measuring.wordings",
        "llmrec.recommend, llmrec.summarize, llmrec.explain, llmrec.chat, llmrec.review, llmrec.score, llmrec.prompts",
    ],
)
def test_quick_to_import(modules: str):
    """In a fresh interpreter: torch is not even loaded through something else."""
    code = f"import sys, {modules}; print([m for m in {sorted(TORCH)!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
