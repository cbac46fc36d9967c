"""SASRec of RecBole, or of RecTools, on the questions of a suite: peers that an evaluation sets beside its rankers.

    llmrec evaluate movielens-100k --questions /tmp/asked
    /tmp/peers/bin/python scripts/rank_elsewhere.py recbole /tmp/asked/test-leave_one_out
    llmrec evaluate movielens-100k 'splits=[{method: leave_one_out}]' lists.recbole=/tmp/asked 'compare=[[llm,recbole]]'

Both libraries want older packages than this one, so they live in an environment of their own:

    python3 -m venv /tmp/peers
    /tmp/peers/bin/pip install torch 'numpy<2' 'pandas<3' 'pyarrow<21' scipy scikit-learn pyyaml colorlog==4.7.2 \\
        colorama==0.4.4 tensorboard thop tabulate plotly texttable psutil tqdm 'rectools[torch]==0.19.0'
    /tmp/peers/bin/pip install --no-deps recbole==1.2.1

Their models with their defaults, cross-entropy over the whole catalog in both; settings may differ, such as
`hidden_dropout_prob=0.2` (RecBole) or `n_factors=64` (RecTools).  Training stops by NDCG@10 on the validation
questions, among what the person has not chosen yet, as every ranker of a suite answers; the lists are those of the best
epoch.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

DEPTH = 100  # places of a list


def ndcg(lists: Sequence[Sequence[str]], targets: Sequence[str]) -> float:
    """NDCG@10, the mean over queries."""
    pairs = zip(lists, targets, strict=True)
    gains = [1 / np.log2(found.index(target) + 2) if target in found[:10] else 0.0 for found, target in pairs]
    return float(np.mean(gains))


def best_of(scores: np.ndarray, items: np.ndarray, histories: Sequence[Sequence[str]]) -> list[list[str]]:
    """The best items of each row of `scores` (queries, items) that are not in the row's history."""
    place = {item: i for i, item in enumerate(items.tolist())}
    lists = []
    for row, history in zip(scores.copy(), histories, strict=True):
        row[[place[item] for item in history if item in place]] = -np.inf
        order = np.argsort(-row, kind="stable")[:DEPTH]
        lists.append(items[order[row[order] > -np.inf]].tolist())
    return lists


def recbole(data: dict[str, pd.DataFrame], settings: dict[str, Any], seed: int) -> list[list[str]]:
    """Lists for data["questions"]; every event of training is a target after what its basket lets be seen."""
    import torch
    from recbole.config import Config
    from recbole.data import create_dataset
    from recbole.data.interaction import Interaction
    from recbole.model.sequential_recommender import SASRec
    from recbole.utils import init_seed

    kept = tempfile.TemporaryDirectory()  # gone with what is returned
    folder = Path(kept.name) / "peer"
    folder.mkdir()
    lines = ["user_id:token\titem_id_list:token_seq\titem_id:token"]
    length = int(settings.get("MAX_ITEM_LIST_LENGTH", 50))
    names = data["train"]["item_id"].unique()  # its files have places instead of ids: what separates them is a space
    place = {item: str(i) for i, item in enumerate(names.tolist())}
    for user, (_, events) in enumerate(data["train"].groupby("user_id", sort=False)):
        items, times = events["item_id"].map(place).tolist(), events["timestamp"].to_numpy()
        for i, before in enumerate(np.searchsorted(times, times, side="left").tolist()):
            if before:
                lines.append(f"{user}\t{' '.join(items[max(before - length, 0) : before])}\t{items[i]}")
    (folder / "peer.train.inter").write_text("\n".join(lines) + "\n")
    fixed = {
        "data_path": str(folder.parent), "benchmark_filename": ["train"], "alias_of_item_id": ["item_id_list"],
        "load_col": {"inter": ["user_id", "item_id_list", "item_id"]}, "train_neg_sample_args": None,
        "loss_type": "CE", "seed": seed, "use_gpu": False,
    }  # fmt: skip
    config = Config(model="SASRec", dataset="peer", config_dict=fixed | settings)
    init_seed(seed, True)
    dataset = create_dataset(config)
    [train] = dataset.build()
    model = SASRec(config, train).to(config["device"])
    items = names[dataset.id2token("item_id", np.arange(1, dataset.item_num)).astype(int)]
    known = {item: i for i, item in enumerate(items.tolist(), 1)}

    def rank(asked: pd.DataFrame) -> list[list[str]]:
        histories = [list(history) for history in asked["history"]]
        ids = [[known[item] for item in history if item in known][-length:] for history in histories]
        rows = torch.zeros(len(ids), length, dtype=torch.long)
        for row, history in zip(rows, ids, strict=True):
            row[: len(history)] = torch.tensor(history)
        lengths = torch.tensor([max(len(history), 1) for history in ids])
        model.eval()
        with torch.no_grad():
            scores = model.full_sort_predict(Interaction({"item_id_list": rows, "item_length": lengths}))
        return best_of(scores.view(len(ids), -1)[:, 1:].numpy(), items, histories)

    optimizer = torch.optim.Adam(model.parameters(), lr=config["learning_rate"], weight_decay=config["weight_decay"])
    rng = np.random.default_rng(seed)
    rows = train.inter_feat

    def epoch() -> None:
        model.train()
        order = torch.from_numpy(rng.permutation(len(rows)))
        for part in order.split(config["train_batch_size"]):
            optimizer.zero_grad()
            model.calculate_loss(rows[part]).backward()
            optimizer.step()

    return early_stopped(epoch, rank, data)


def rectools(data: dict[str, pd.DataFrame], settings: dict[str, Any], seed: int) -> list[list[str]]:
    """Lists for data["questions"]; a person's latest events are one session, in their order."""
    import logging

    from pytorch_lightning import Trainer, seed_everything
    from rectools import Columns
    from rectools.dataset import Dataset
    from rectools.models import SASRecModel

    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    seed_everything(seed)

    def dataset(events: pd.DataFrame) -> Dataset:
        named = {Columns.User: events["user_id"], Columns.Item: events["item_id"], Columns.Weight: 1.0,
                 Columns.Datetime: pd.to_datetime(events["timestamp"], unit="s")}  # fmt: skip
        return Dataset.construct(pd.DataFrame(named))

    def trainer() -> Trainer:
        return Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
                       enable_progress_bar=False, enable_model_summary=False)  # fmt: skip

    learned = dataset(data["train"])
    model = SASRecModel(**{"get_trainer_func": trainer, "deterministic": True, **settings})

    def rank(asked: pd.DataFrame) -> list[list[str]]:
        shown = asked[["query", "history"]].explode("history").dropna()
        places = shown.groupby("query").cumcount()
        events = pd.DataFrame({"user_id": shown["query"], "item_id": shown["history"], "timestamp": places})
        found = model.recommend(events["user_id"].unique(), dataset(events), k=DEPTH, filter_viewed=True,
                                on_unsupported_targets="ignore")  # fmt: skip
        lists = found.sort_values([Columns.User, Columns.Rank]).groupby(Columns.User)[Columns.Item].agg(list)
        return [lists.get(query, []) for query in asked["query"]]

    return early_stopped(lambda: model.fit_partial(learned, min_epochs=1, max_epochs=1), rank, data)


def early_stopped(
    epoch: Callable[[], Any], rank: Callable[[pd.DataFrame], list[list[str]]], data: dict[str, pd.DataFrame],
    *, most: int = 300, patience: int = 10,
) -> list[list[str]]:  # fmt: skip
    """Lists for the questions, of the epoch whose NDCG@10 on `valid` is best; `patience` epochs without a better one
    end it."""
    best, best_epoch, lists, started = -1.0, 0, [], time.monotonic()
    for number in range(1, most + 1):
        epoch()
        reached = ndcg(rank(data["valid"]), data["valid"]["target"].tolist())
        print(f"epoch {number}: valid NDCG@10 {reached:.4f}, {time.monotonic() - started:.0f} s", flush=True)
        if reached > best:
            best, best_epoch, lists = reached, number, rank(data["questions"])
        elif number - best_epoch >= patience:
            break
    return lists


PEERS = {"recbole": recbole, "rectools": rectools}


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("folder", type=Path, help="a protocol's folder of `llmrec evaluate SUITE --questions`")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="values are JSON")
    parser.add_argument("--name", help="of the file of lists; default: the peer's")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_intermixed_args(words)  # settings may follow an option
    told = {name: pq.read_table(args.folder / f"{name}.parquet") for name in ("train", "valid", "questions")}
    data = {name: table.to_pandas() for name, table in told.items()}
    if data["train"].empty or data["valid"].empty:
        parser.error(f"{args.folder}: nothing to learn from, or to stop by, in train.parquet or valid.parquet")
    settings = {key: json.loads(value) for key, _, value in (word.partition("=") for word in args.settings)}
    lists = PEERS[args.peer](data, settings, args.seed)
    file = args.folder / f"{args.name or args.peer}.parquet"
    answers = pa.table({"query": told["questions"]["query"], "items": pa.array(lists, pa.list_(pa.string()))})
    # Which questions these are: others may lie there by now.
    pq.write_table(answers.replace_schema_metadata(told["questions"].schema.metadata), file)
    print(file)


if __name__ == "__main__":
    main()
