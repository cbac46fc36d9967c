"""Data sets of a hub as tables: `hub:OWNER/NAME` becomes a Parquet file in `LLMREC_HOME`, fetched once.

`datasets` does the work (formats, authentication, cache, offline mode); since version 4 it runs no code of a data set.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from llmrec import config
from llmrec.errors import AssetError
from llmrec.files import whole
from llmrec.locks import locked

PREFIX = "hub:"
PART = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
ADDRESS = re.compile(
    rf"hub:(?P<name>{PART}/{PART})(?:/(?P<config>{PART}))?(?:@(?P<revision>{PART}))?(?::(?P<split>{PART}))?"
)
FORM = "hub:OWNER/NAME, then /CONFIG, @REVISION and :SPLIT where they matter, e.g. hub:owner/reviews@main:train"


def table(address: str) -> Path:
    """The Parquet file of a hub's table; fetched on first use, kept afterwards.

    Args:
        address: `hub:OWNER/NAME[/CONFIG][@REVISION][:SPLIT]`; without a split, `train`.

    Raises: AssetError where the address is none, the extra `hub` is missing, or the hub does not give it.
    """
    found = ADDRESS.fullmatch(address)
    if not found:
        raise AssetError(f"{address}: not a table of a hub; write {FORM}")
    folder = config.home() / "hub"
    file = folder / f"{found['name'].replace('/', '--')}-{hashlib.sha256(address.encode()).hexdigest()[:12]}.parquet"
    if file.is_file():
        return file
    try:
        from datasets import load_dataset
    except ImportError:
        raise AssetError(f"{address}: needs the library datasets: pip install -e '.[hub]'") from None
    with locked(file.with_name(f"{file.name}.lock"), AssetError, doing="fetches the same table"):
        if not file.is_file():  # another process may have been first
            try:
                rows = load_dataset(
                    found["name"], found["config"], revision=found["revision"], split=found["split"] or "train"
                )
                with whole(file) as partial:
                    rows.to_parquet(partial)
            except Exception as error:  # the library and the hub client raise a dozen kinds
                reason = " ".join(str(error).split())[:300] or type(error).__name__
                raise AssetError(
                    f"{address}: not fetched: {reason}; check the name, log in with `hf auth login` where it is gated, "
                    "or download it and give the file's path"
                ) from None
    return file
