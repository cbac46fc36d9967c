"""What the Makefile and the docs promise about the project itself."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, metadata, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned() -> set[str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"==[^,*+]+", str(requirement.specifier)) for requirement in requirements)
    return {
        canonical(requirement.name)
        for requirement in requirements
        if not requirement.marker or requirement.marker.evaluate()
    }


def test_every_package_that_gets_installed_is_pinned():
    """Ours, theirs, and so on down, for this Python and system."""
    try:
        ours = requires("llmrec") or []
    except PackageNotFoundError:
        pytest.skip("llmrec is not installed; `make test` installs it")
    waiting = [Requirement(text) for text in ours]
    seen: set[str] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonical(requirement.name)
        extras = {"", *(metadata("llmrec").get_all("Provides-Extra") or ())} - {"vllm"}
        wanted = requirement.marker is None or any(requirement.marker.evaluate({"extra": x}) for x in extras)
        if name in seen or not wanted or name == "llmrec" or re.match(r"nvidia|cuda|triton", name):
            continue  # torch pins its own GPU libraries
        seen.add(name)
        try:
            theirs = [Requirement(text) for text in requires(name) or []]
        except PackageNotFoundError:
            continue  # not for this machine
        waiting += [one for one in theirs if one.marker is None or one.marker.evaluate({"extra": ""})]
    assert "torch" in seen and seen - pinned() == set()


def test_docs_match_the_code():
    pytest.importorskip("cogapp")
    done = subprocess.run(
        [sys.executable, "-m", "cogapp", "--check", "-P", "-I", "scripts", "docs/reference.md"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, "docs/reference.md is not what the code says; run `make docs`"


@pytest.mark.parametrize("name", [".ci/run", "scripts/demo.sh"])
def test_scripts_can_be_run(name: str):
    assert os.access(ROOT / name, os.X_OK)
    assert subprocess.run(["bash", "-n", ROOT / name]).returncode == 0


def test_links_in_the_docs_lead_somewhere():
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            target, _, heading = link.partition("#")
            file = page.parent / target if target else page
            assert "://" in link or file.exists(), f"{page.name}: {link}"
            if heading and "://" not in link:
                lines = file.read_text(encoding="utf-8").splitlines()
                slugs = {re.sub(r"[^\w -]", "", line.lstrip("#").strip().lower()).replace(" ", "-") for line in lines
                         if line.startswith("#")}  # fmt: skip
                assert heading in slugs, f"{page.name}: {link}"
