"""adapters: versions of a domain's adapter, checked, kept, promoted on evidence, rolled back, exchanged with others."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from llmrec import config, prepare
from llmrec.codes import of_adapter
from llmrec.data.catalog import Catalog
from llmrec.data.dataset import read_manifest
from llmrec.engine.server import Server
from llmrec.engine.serving import base_name
from llmrec.errors import AdapterError, EngineError, LlmrecError
from llmrec.measuring.suites import RECORDS, RESULTS
from llmrec.metrics import ranking
from llmrec.metrics.significance import Interval, paired
from llmrec.model import adapter, pack, store, transfer, verify
from llmrec.model import merge as merging
from llmrec.model.encode import Encoder
from llmrec.model.load import base_model, load_tokenizer, tokenizer_digest
from llmrec.recommender import Listing
from llmrec.tasks.saved import read_card
from llmrec.tasks.template import Template

LOG = logging.getLogger("llmrec")
CUTOFF = 10  # promotion compares NDCG at this…
LEAST_USERS = 30  # …for so many users at least: the interval of a handful is an accident


@dataclass
class Verdict:
    """What `verify` found."""

    folder: Path
    problems: list[str] = field(default_factory=list)
    """Each with its way out; empty where the adapter serves."""
    notes: list[str] = field(default_factory=list)
    """What could not be checked here."""


@dataclass(frozen=True)
class Evidence:
    """A candidate against what is served, on the same queries."""

    ranker: str
    users: int
    candidate: float
    current: float
    difference: Interval

    def __str__(self) -> str:
        d = self.difference
        return (
            f"{self.ranker}, {self.users} users: ndcg@{CUTOFF} {self.candidate:.4f} against {self.current:.4f}, "
            f"difference {d.mean:+.4f} [{d.low:+.4f}, {d.high:+.4f}]"
        )


def listed() -> list[dict[str, Any]]:
    """One entry per version of every domain: domain, digest, served, bytes, base_model, trained, metrics; of a damaged
    one what is known, and `problem`."""
    root = config.project() / "adapters"
    rows = []
    for recipe in sorted(root.glob("*/recipe.yaml")):
        domain = recipe.parent.name
        found = {name: _summary(store.kept(domain) / name) | {"digest": name} for name in store.versions(domain)}
        now = _summary(recipe.parent) if (recipe.parent / adapter.CARD).is_file() else None
        if now:
            found[now["digest"]] = now
        rows += [{"domain": domain, "served": row is now, **row} for row in found.values()]
    return rows


def _summary(folder: Path) -> dict[str, Any]:
    try:
        return verify.summary(folder)
    except AdapterError as error:
        unknown = {"digest": "", "bytes": 0, "base_model": "", "trained": "", "metrics": {}}
        return unknown | {"problem": str(error)}


def checked(source: str, domain: str | None = None) -> Verdict:
    """Every problem of an adapter: a domain, domain@version, folder or archive; `domain`: whose base it must fit."""
    place, named = config.adapter_place(source)
    if place.is_dir():
        return inspect(place, domain or named)
    with pack.unpacked(place) as copy:
        verdict = inspect(copy, domain)
    verdict.folder = place
    return verdict


def inspect(folder: Path, domain: str | None = None) -> Verdict:
    """Every problem of the adapter in `folder`, for the base model and catalog of `domain` (default: the card's)."""
    verdict = Verdict(folder, verify.files(folder))
    if verdict.problems:
        return verdict  # nothing in it is read
    verdict.problems += verify.content(folder)
    try:
        card = read_card(folder)
        recipe = config.load_recipe(config.checked_name(domain or str(card.get("domain")), "domain"))
        base = base_model(recipe.base_model)
    except LlmrecError as error:
        verdict.problems.append(f"base model not checked: {error}")
        return verdict
    if card.get("base_digest") != base.digest:
        verdict.problems.append(
            f"trained on base {str(card.get('base_model'))[:80]!r} {card.get('base_digest')}, this domain has "
            f"{recipe.base_model!r} {base.digest}; set base_model in the recipe, or train again"
        )
    tokenizer = load_tokenizer(base.folder)
    if "tokenizer" not in card:
        verdict.notes.append("the card holds no tokenizer digest (trained before it was recorded)")
    elif card["tokenizer"] != (digest := tokenizer_digest(tokenizer)):
        verdict.problems.append(
            f"trained with tokenizer {card['tokenizer']}, this base has {digest}; use that base or train again"
        )
    try:
        verdict.problems += verify.fit(folder, base.folder)
        _catalog(folder, card, recipe, Encoder(tokenizer), verdict)
    except LlmrecError as error:
        verdict.problems.append(str(error))
    return verdict


def add(domain: str, source: Path) -> str:
    """Takes a folder or archive in as a version of `domain`, once it is checked.  Returns: its digest.

    Says which tasks of the domain it has not learned, and where it replaces a version of equal weights.

    Raises: AdapterError naming every problem; then nothing has changed.
    """
    config.adapter_folder(domain)
    with pack.unpacked(source) as copy:
        return _take(domain, copy, source, replaces=True)


def _take(domain: str, copy: Path, source: Path, *, replaces: bool) -> str:
    """`replaces`: equal weights that are kept with another card make room."""
    _demand(inspect(copy, domain), source)
    if lacks := _missing(config.load_recipe(domain).tasks, read_card(copy)):
        LOG.warning("%s: not trained on %s, which the recipe of %s lists", source, ", ".join(lacks), domain)
    with store.lock(domain):
        if store.kept_otherwise(domain, read_card(copy)):
            if not replaces:
                raise AdapterError(
                    f"{source}: {domain} keeps these weights with another card (prompts, weight of the prior, "
                    f"temperatures); `llmrec adapters add {domain} {source}` replaces it"
                )
            LOG.warning("%s: replaces the kept version of equal weights, which has another card", source)
        return store.keep(domain, copy, anew=True)


def import_(source: Path, domain: str | None = None) -> tuple[str, str]:
    """`add` to the domain that the card names.  Returns: domain and digest.

    Raises: AdapterError also for equal weights with another card: what somebody else fitted takes nobody's place.
    """
    with pack.unpacked(source) as copy:
        _demand(Verdict(copy, verify.files(copy)), source)
        name = domain or str(read_card(copy).get("domain"))
        if not (config.project() / "adapters" / config.checked_name(name, "domain")).is_dir():
            raise AdapterError(
                f"no domain '{name}' here: read the recipe.yaml in {source}, copy it to adapters/{name}/recipe.yaml "
                "with the paths of your data, then import again"
            )
        return name, _take(name, copy, source, replaces=False)


def promote(domain: str, version: str, results: Sequence[Path], *, force: bool = False) -> tuple[str, str | None]:
    """Serves a version whose evaluation beats that of the one served, and which has learned all its tasks; `force`
    serves it whatever it measures and lacks, and says so.

    Returns: the digest, and the numbers in words (None without an evaluation).
    Raises: AdapterError with the numbers where the interval of the difference does not lie above 0, or with the tasks
        that would be lost.
    """
    folder = store.folder_of(domain, version)
    current = config.adapter_folder(domain)
    try:
        now, learned = store.served(domain), _learned(read_card(current))
        if force and now:
            adapter.check(current)
    except AdapterError:
        if not force:
            raise
        # What is served is damaged, and this is the way out: the copy of it that was kept may be whole.
        now, learned = None, [*config.load_recipe(domain).tasks]
    if now == folder.name:
        if read_card(folder) == read_card(current):
            raise AdapterError(f"{domain}: {now} is served already")
        raise AdapterError(
            f"{domain}: {now} is served with another card (weight of the prior, temperatures), and versions are named "
            f"by their weights; fit it in place: `llmrec train {domain} init_from={domain} fit.epochs=0`"
        )
    _demand(inspect(folder, domain), folder)
    lost = ", ".join(_missing(learned, read_card(folder)))
    if lost and not force:
        raise AdapterError(
            f"{domain}: {folder.name} was not trained on {lost}, which the one served is; train it on that, too, or "
            "--force serves it without"
        )
    evidence = None
    if now and (results or not force):
        if not results:
            raise AdapterError(
                f"{domain}: no results given; `llmrec evaluate` this version ({domain}@{folder.name}) and the one "
                "served on one suite, then --results both folders (or --force)"
            )
        evidence = compare(results, folder.name, now)
        if not force and evidence.users < LEAST_USERS:
            raise AdapterError(
                f"{domain}: {evidence.users} users tell nothing; evaluate both on {LEAST_USERS} or more (or --force)"
            )
        if not force and not evidence.difference.low > 0:
            raise AdapterError(
                f"{domain}: {folder.name} is not shown to be better: {evidence}; --force serves it anyway"
            )
    store.serve(domain, folder.name)
    if lost:
        LOG.warning("%s is served without %s now; `llmrec adapters rollback %s` undoes it", domain, lost, domain)
    return folder.name, str(evidence) if evidence else None


def compare(results: Sequence[Path], candidate: str, current: str) -> Evidence:
    """NDCG of two versions in folders of `llmrec evaluate`, paired over users; who is in several splits counts once.

    Raises: AdapterError where a version is not among them, or they were not asked the same.
    """
    a, b = (_records(results, digest) for digest in (candidate, current))
    common = [key for key in a if key in b]
    if not common:
        raise AdapterError(
            f"the results of {candidate} and {current} share no split with the same queries; evaluate both on one suite"
        )
    ranker = next((name for name in ("llm+prior", "llm") if any(key[2] == name for key in common)), "")
    gains: dict[str, list[tuple[float, float]]] = {}
    for key in (key for key in common if key[2] == ranker):
        (users, targets, ranks_a), (users_b, targets_b, ranks_b) = a[key], b[key]
        if users != users_b or targets != targets_b:
            raise AdapterError(f"split {key[0]}: the records are not of the same queries; evaluate again with --force")
        both = (ranking.by_user(ranking.ndcg(found, CUTOFF), users).tolist() for found in (ranks_a, ranks_b))
        for user, *pair in zip(dict.fromkeys(users), *both, strict=True):
            gains.setdefault(user, []).append((pair[0], pair[1]))
    ours, theirs = np.array([np.mean(pairs, axis=0) for pairs in gains.values()]).T
    return Evidence(ranker, len(ours), float(ours.mean()), float(theirs.mean()), paired(ours, theirs))


def export(source: str, out: Path) -> Path:
    """Writes a domain's served adapter, or domain@version, as a hub-style folder or .tar.gz.  Returns: `out`."""
    folder = config.adapter_folder(source)
    adapter.check(folder)
    if problems := [*verify.files(folder), *verify.content(folder)]:
        raise AdapterError(f"{folder}: {'; '.join(problems)}")
    pack.pack(folder, out)
    return out


def merge(shares: Sequence[str], out: Path, *, rank: int | None = None) -> str:
    """Adds adapters up, each named as `NAME=SHARE` (a domain, domain@version or folder); the first names the domain.

    Returns: the digest of the weights in `out`.
    Raises: AdapterError where they do not go together.
    """
    named = []
    for text in shares:
        name, _, share = text.rpartition("=")
        try:
            value = float(share) if name else math.nan
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or value == 0:
            raise AdapterError(f"{text}: write each adapter as NAME=SHARE, e.g. movies=0.7; no share is 0")
        named.append((transfer.find(name), value))
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise AdapterError(f"{out}: there is something already; name a new folder")
    if not named:
        raise AdapterError("name at least two adapters, each as NAME=SHARE")
    first = adapter.read_json(named[0][0] / adapter.CARD)
    recipe = config.load_recipe(config.checked_name(str(first.get("domain")), "domain"))
    base = base_model(recipe.base_model)
    parts = [merging.Part(folder, transfer.checked(folder, base), share) for folder, share in named]
    for part in parts:
        if problems := verify.fit(part.folder, base.folder):
            raise AdapterError(f"{part.folder}: {'; '.join(problems)}")
    return merging.merge(parts, base, out, rank=rank)


def load(source: str, url: str) -> str:
    """A running vLLM server takes an adapter in.  Returns: the name to ask it for.

    Raises: AdapterError, also where the server's name says that it serves other weights.

    The server reads the kept version, whose files never change, not the folder that is exchanged by `promote`.
    """
    domain, folder = config.domain_of(source), config.adapter_folder(source)
    _demand(inspect(folder, domain), folder)
    with _asked(url) as server:
        _check_served(server, config.load_recipe(domain))  # before anything is kept
        with store.lock(domain):
            digest = store.keep(domain, folder)
        name = adapter.served_name(domain, digest)
        server.load(name, store.kept(domain) / digest)
    return name


def unload(source: str, url: str) -> str:
    """A running vLLM server forgets an adapter.  Returns: the name it had.  Raises: AdapterError."""
    digest = read_card(config.adapter_folder(source)).get("weights")
    if digest is None:
        raise AdapterError(f"{source} has no adapter; name a version, as {source}@3f2a: `llmrec adapters list`")
    name = adapter.served_name(source, str(digest))
    with _asked(url) as server:
        server.unload(name)
    return name


def _learned(card: dict[str, Any]) -> list[str]:
    """Tasks that an adapter was trained on; a prompt file alone may only word the list that they follow."""
    return [*card.get("recipe", {}).get("tasks", {})]


def _missing(tasks: Iterable[str], card: dict[str, Any]) -> list[str]:
    """Those of `tasks` that the adapter of `card` was not trained on."""
    learned = _learned(card)
    return [task for task in tasks if task not in learned]


def _demand(verdict: Verdict, source: Path) -> None:
    if verdict.problems:
        raise AdapterError(f"{source}: {'; '.join(verdict.problems)}")


def _catalog(folder: Path, card: dict[str, Any], recipe: config.Recipe, encoder: Encoder, verdict: Verdict) -> None:
    """The items that the adapter was trained on are in the catalog, if that has been prepared here."""
    if "items" not in card:  # it learned no list
        return
    if read_manifest(prepare.data_folder(recipe)) is None:
        verdict.notes.append(f"catalog not checked: `llmrec prepare {recipe.domain}` first")
        return
    catalog = Catalog.of(prepare.load(recipe))
    file = folder / "prompts" / "next_item.yaml"
    if card.get("catalog") == catalog.digest or not file.is_file():
        return
    items = card.get("items")
    trained = [str(item) for item in items] if isinstance(items, list) else []
    longest, coding = transfer.recipe_of(card).identifier.max_tokens, of_adapter(card, catalog)
    Listing.build(catalog, Template.load(file), encoder, longest, trained, recipe.new_share, coding)


Asked = tuple[list[str], list[str], np.ndarray]
"""User and target of every query, and the target's rank."""


def _records(results: Sequence[Path], weights: str) -> dict[tuple[str, str, str], Asked]:
    """(split, digest of the questions, ranker) → records, from the folders that measured these weights."""
    found: dict[tuple[str, str, str], Asked] = {}
    for folder in results:
        values = adapter.read_json(folder / RESULTS)
        if (task := values.get("task", "next_item")) != "next_item":
            raise AdapterError(
                f"{folder}: it measures {task}, and versions are compared by lists; leave out --results and give "
                "--force"
            )
        try:
            if max(values["settings"]["cutoffs"]) < CUTOFF:
                raise AdapterError(f"{folder}: lists are shorter than {CUTOFF}; evaluate with cutoffs up to {CUTOFF}")
            splits = {
                label: split["data"]["questions"]
                for label, split in values["splits"].items()
                if (split["adapter"] or {}).get("weights") == weights
            }
            table = pq.read_table(
                folder / RECORDS, columns=["user_id", "split", "ranker", "target", "rank"]
            ).to_pandas()
        except (KeyError, TypeError, OSError, pa.ArrowException) as error:
            raise AdapterError(f"{folder}: not a folder of `llmrec evaluate`: {error}") from None
        for (label, ranker), part in table.groupby(["split", "ranker"], sort=False):
            if label in splits and ranker in ("llm", "llm+prior"):
                asked = part["user_id"].tolist(), part["target"].tolist(), part["rank"].to_numpy()
                found[label, splits[label], ranker] = asked
    if not found:
        where = ", ".join(map(str, results))
        raise AdapterError(
            f"{where}: no results of version {weights}; run `llmrec evaluate` with it and name that folder"
        )
    return found


@contextmanager
def _asked(url: str) -> Iterator[Server]:
    """The server at `url`.  Raises: AdapterError for all that goes wrong with it."""
    try:
        with closing(Server(url)) as server:
            yield server
    except EngineError as error:
        raise AdapterError(str(error)) from None


def _check_served(server: Server, recipe: config.Recipe) -> None:
    """A server's base models are named with the digests of their weights where `llmrec serve` has started it; another
    one says nothing of its weights, so the user is told."""
    listed = [name for name, said in server.models().items() if not said.get("parent")]
    base = base_model(recipe.base_model)
    wanted = base_name(base, recipe.serve)
    found = [re.search(r"-([0-9a-f]{12})(-|$)", name) for name in listed]  # quantised or not, weights are weights
    if any(one and one[1] == base.digest for one in found):
        return
    if any(found):
        raise AdapterError(f"{server.url} serves {', '.join(listed)}, not {wanted}; start `llmrec serve` with it")
    LOG.warning(
        "%s does not say which weights it serves; an adapter answers wrongly on others than %s", server.url, wanted
    )
