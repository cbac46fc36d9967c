"""Settings: each is written once, here, with its default, unit and meaning; help texts and docs are derived.

Precedence, everywhere the same: default < recipe file < `key=value` on the command line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from llmrec.errors import AdapterError, RecipeError, did_you_mean

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
MAX_WINDOW = 4096  # tokens of a row: models that look back only so far are taken for such that see everything
NOT_YAML = (yaml.YAMLError, ValueError, RecursionError)  # ValueError: a date that is none
MAX_RECIPE_BYTES = 1_000_000
LOOPBACK = ("127.0.0.1", "localhost", "::1")  # names of this machine that nobody else can reach
VERSIONS = ".versions"  # in adapters/: versions of adapters that are kept
ENGINES = "hf, vllm, the address of a vLLM server, or fake (repeatable numbers without a model)"


def is_engine(name: str) -> bool:
    """Whether an engine is called so; its code, which takes seconds to load, is not needed to know."""
    return name in ("hf", "vllm", "fake") or name.startswith(("http://", "https://"))


def _engine(name: str) -> str:
    if not is_engine(name):
        raise ValueError(f"use {ENGINES}")
    return name


def _name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise ValueError("use 1 to 64 of a-z, 0-9, '-' and '_', starting with a letter or digit")
    return name


Engine = Annotated[str, AfterValidator(_engine)]
"""What computes."""


Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""What NumPy and torch both take."""


class Section(BaseModel):
    """A group of settings: unknown keys are errors, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class DataSource(Section):
    """Where a domain's interactions come from."""

    format: Literal["recbole", "movielens", "table"] = "table"
    """`recbole`: atomic files (.inter .item .user); `movielens`: ratings.csv and movies.csv; `table`: CSV, JSON lines
    or Parquet with a column map."""
    path: str
    """Folder or file of the interactions (relative paths lie in the working directory); `asset:NAME` is a named
    download; `hub:OWNER/NAME[/CONFIG][@REVISION][:SPLIT]` a hub's data set (extra `hub`)."""
    items: str | None = None
    """`table` only: the file with one row per item (item_id, title, …)."""
    users: str | None = None
    """`table` only: the file with one row per user."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Our column name → the file's column name, where they differ (e.g. `user_id: reviewerID`).  Ours are user_id,
    item_id, timestamp (seconds or dates), rating; of items title, year, categories (`A|B`, or a list)."""
    min_rating: float | None = None
    """Interactions rated below this are left out."""
    leave_out: str | None = None
    """A table with a column user_id (`columns` apply): people of whom nothing is prepared, learned or asked.  Texts
    have a `leave_out` of their own."""
    k_core: int = Field(0, ge=0, le=1000)
    """Users and items with fewer training interactions than this are left out; 0 keeps all."""


class ChoiceSource(Section):
    """Who chose what, and nothing more."""

    path: str
    """A CSV, JSON lines or Parquet file, or a folder with one; `asset:NAME` and `hub:…` as for interactions."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Our column name → the file's, where they differ: user_id, item_id."""


class ReviewSource(Section):
    """Where people's texts come from: rated ones, where nobody has to be named, or texts of somebody on some item."""

    path: str
    """A CSV, JSON lines or Parquet file, or a folder with one; `asset:NAME` and `hub:…` as for interactions."""
    columns: dict[str, str | tuple[str, ...]] = Field(default_factory=dict)
    """Our column name → the file's, where they differ: review, rating, headline, item_id, category (which may stand in
    several, broad to narrow: `category: [Department, Class]`), user_id (for `leave_out`); of grounded tasks user_id,
    item_id, timestamp, review, title, about (a text on the item) and person (a text on the person)."""
    items: str | None = None
    """Grounded tasks only: the file with one row per item (item_id, title, about), where the texts' own lacks them."""
    history: ChoiceSource | None = None
    """Grounded tasks only: a table of more that people chose, without texts."""
    leave_out: str | None = None
    """A table with a column user_id (`columns` apply): people whose texts are not learned or asked."""
    sentence: bool = False
    """Grounded tasks only: learn the one sentence of each text that explains best, not the whole text."""
    valid: float = Field(0.1, gt=0, lt=0.5)
    """Share of the reviews for validation."""
    test: float = Field(0.1, gt=0, lt=0.5)
    """Share of the reviews for testing."""
    seed: Seed = 0
    """Seed of the split."""


OF_HISTORIES = ("next_item", "interest", "interest_summary", "explanation")
"""Tasks that learn from the recipe's interactions; the others have texts of their own."""
OF_PAIRS = ("grounded_explanation", "grounded_summary")
"""Tasks that learn from texts of somebody on some item; the others of texts read one review."""

OF_TEXTS = {
    "review_sentiment": "review",
    "item_class": "review",
    "grounded_explanation": "explain",
    "grounded_summary": "summarize",
}
"""Tasks that learn from texts, and the verb that asks them."""

ANSWERS: dict[str, Any] = {
    **dict.fromkeys(
        ("domain", "noun", "unit", "split", "base_model", "new_share", "new_trust", "window_step", "window_block"), True
    ),
    "identifier": {"max_tokens"},
    "fit": {"window_tokens", "precision"},
    "serve": {"merge", "quantization", "head_float32"},
}
"""What a recipe says that a model's answers depend on, beside its tasks and what its card holds."""


class Task(Section):
    """How one task takes part in training."""

    weight: float = Field(1.0, gt=0)
    """Factor of its loss, which is the mean nats per choice of a step."""
    weight_end: float | None = Field(None, ge=0)
    """Its weight at the end of training, on a line from `weight` at its start; by default it stays as it is."""
    start: float = Field(0.0, ge=0)
    """Epoch from which it is learned; before, its rows are left out."""
    learning_rate: float = Field(1.0, gt=0)
    """Factor of `fit.learning_rate` for this task.  All tasks change one LoRA, so their mean scales the steps, and a
    task's ratio to it its gradient; of parts of its own (`lora.own`), which Adam scales for each task, it is the mean
    alone."""
    tokens: int = Field(0, ge=0)
    """Most tokens of its rows in an epoch, a new random part each time; 0 takes them all."""
    data: ReviewSource | None = None
    """Its own source: tasks of reviews and the grounded tasks learn from people's texts; they may share one (a YAML
    anchor)."""
    labels: tuple[str, ...] = ()
    """Tasks of reviews only: which labels (`item_class`: which categories) are told apart, e.g. two of three; by
    default all."""
    examples: int = Field(0, ge=0)
    """Most training examples (reviews or texts; of `next_item` histories), a fixed random sample; 0 takes them all.  Of
    `interest`, `interest_summary` and `explanation` exactly how many moments are asked about, of histories drawn
    anew, more than once where there are fewer; 0: one of each history that is long enough."""
    balance: float = Field(0.0, ge=0, le=1)
    """Tasks of reviews only: labels count for count^(1 - balance): 0 as they come, 1 all alike.  The sample is drawn
    so, and weights make up for what there is too little of."""
    max_tokens: int = Field(96, ge=8, le=4096)
    """Longer texts are clipped at their end."""


class Mixture(Section):
    """How tasks share an epoch."""

    temperature: float = Field(1.0, ge=1, le=100)
    """A task's share of an epoch's choices goes with choices^(1 / temperature): 1 takes every row once; higher repeats
    the rows of small tasks and takes part of the large ones."""
    step: Literal["source", "shared", "apart"] = "source"
    """Which tasks make an optimiser step together, each with its share of the step's tokens: `source`: those with the
    same `data`, so reviews of something else have steps of their own; `shared`: all; `apart`: none, each has its own.
    The steps of each group are spread evenly over an epoch.  Weights count within a step and from step to step: a
    gradient is cut at `fit.max_grad_norm` times the mean of what multiplies those of its tasks."""
    balance: Literal["static", "uncertainty", "dwa"] = "static"
    """What multiplies the tasks' weights while training: nothing; `uncertainty`: 1 / variance, learned for each task
    (Kendall, Gal and Cipolla 2018); `dwa`: more for a task whose loss falls slowly (Liu, Johns and Davison 2019)."""
    balance_rate: float = Field(0.02, gt=0)
    """`uncertainty` only: Adam's step size of the log-variances."""
    dwa_temperature: float = Field(2.0, gt=0)
    """`dwa` only: how alike the weights stay."""
    dwa_every: float = Field(0.1, gt=0)
    """`dwa` only: epochs over which losses are averaged before two averages are compared."""
    conflict: Literal["none", "pcgrad", "penalty"] = "none"
    """What happens to gradients of tasks that point against each other: nothing; `pcgrad`: each loses what points
    against another (Yu et al. 2020); `penalty`: their squared negative cosine is minimised, too (after Suteu and Guo
    2019), which takes a second pass over tasks in conflict.  Both keep a gradient per task in memory."""
    penalty: float = Field(0.1, gt=0)
    """`penalty` only: weight of half the squared negative cosines; its gradient never exceeds that of the losses."""

    def groups(self, names: Iterable[str], tasks: Mapping[str, Task]) -> list[list[str]]:
        """The tasks that make steps together, in the order of `names`."""
        found: dict[str, list[str]] = {}
        for name in names:
            source = tasks[name].data if name in tasks else None
            group = {"shared": "", "source": source.model_dump_json() if source else "", "apart": name}[self.step]
            found.setdefault(group, []).append(name)
        return [*found.values()]


class Split(Section):
    """Which interactions are learned from and which are asked for."""

    method: Literal["time", "leave_one_out"] = "time"
    """`time`: one global cut, histories roll forward; `leave_one_out`: each user's last two interactions."""
    valid: float = Field(0.1, gt=0, lt=0.5)
    """`time` only: share of interactions for validation."""
    test: float = Field(0.1, gt=0, lt=0.5)
    """`time` only: share of interactions for testing."""
    baskets: bool = True
    """Interactions of a user with equal time are no context for each other."""
    max_targets: int = Field(20, ge=1)
    """Targets asked per user and split."""
    repeats: Literal["exclude", "allow"] = "exclude"
    """Whether an item of the history may be recommended again."""


class Identifier(Section):
    """How a title becomes the text that names an item to the model."""

    max_tokens: int = Field(12, ge=2, le=62)
    """Longer titles are clipped at a word boundary."""
    codes: int = Field(0, ge=0, le=6)
    """Letters and digits that stand before a title in lists, beside `max_tokens`, and say which items it is chosen
    with, learned from the training events: 2 make 260 groups.  0: titles alone.  A training that starts from an adapter
    keeps that one's.  Nobody is shown them, and texts name titles alone."""

    @property
    def longest(self) -> int:
        """Tokens of an identifier with its code and the space between, which may be one."""
        return self.max_tokens + (self.codes + 1 if self.codes else 0)

    @model_validator(mode="after")
    def _fits_a_choice(self) -> Identifier:
        if self.longest > 62:
            raise ValueError(f"identifier.max_tokens: {62 - self.codes - 1} at most with identifier.codes={self.codes}")
        return self


class Lora(Section):
    """The adapter's shape."""

    rank: Literal[1, 8, 16, 32, 64, 128, 256, 320, 512] = 64
    """Rank of the update; the ranks vLLM serves.  vLLM needs max_lora_rank at least this large."""
    alpha: int = Field(64, ge=1)
    """Scale numerator: the update is (alpha / rank) * B A x."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of the adapter's inputs dropped while training."""
    first_layer: int = Field(0, ge=0)
    """Layers below this stay frozen.  With a positive value their activations can be cached (`fit.cache`)."""
    targets: tuple[
        Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head"], ...
    ] = (
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    )  # fmt: skip
    """Linear layers that get an update; `lm_head` gives each token's score an update of its own."""
    own: int = Field(0, ge=0, le=256)
    """Rank of a part that each task has for itself beside the `rank` that all share, on the same layers and at the same
    scale; 0: everything is shared.  With it, training writes an adapter for each task."""

    @model_validator(mode="after")
    def _both_fit_one_adapter(self) -> Lora:
        if self.own and self.rank + self.own > 256:
            raise ValueError(f"own: what is shared and a task's own part have rank {self.rank + self.own}, at most 256")
        return self


class Fit(Section):
    """How the adapter is trained."""

    supervision: Literal["dense", "last"] = "dense"
    """`dense`: every line of a list is a target; `last`: one target per row, the field's usual fine-tuning."""
    window_tokens: int = Field(320, ge=32, le=MAX_WINDOW)
    """Longest row, in tokens; longer histories become several rows."""
    overlap: float = Field(0.0, ge=0, lt=1)
    """Share of a row that repeats the row before as context only; a line is a target once."""
    variants: int = Field(1, ge=1, le=32)
    """Different cuts of every history into rows (with equal times reshuffled); epoch e uses variant e mod variants."""
    left_out: float = Field(0.0, ge=0, lt=1)
    """Up to about this share of a history's items is left out of its list, drawn anew for each history and variant:
    histories that nobody has, for a teacher (`teacher.share`) to answer.  Wants several variants."""
    latest: int = Field(0, ge=0)
    """Of each history only its latest part is learned from, as much as fits into so many rows; 0: all.  One person then
    counts for as much as another, and long histories for the rarer items that they have come to."""
    batch_tokens: int = Field(4096, ge=32)
    """Tokens per optimiser step over all processes, padding included; a longer row goes alone, and where tasks share a
    step, each with rows of its own, it may be passed by as much."""
    micro_batch_tokens: int = Field(4096, ge=32)
    """Tokens per forward pass; smaller needs less memory and gives the same step, but for rounding and for what
    `lora.dropout` draws."""
    epochs: float = Field(3.0, ge=0)
    """Passes over the training rows.  0 learns nothing: what `init_from` names, such as a merge, keeps its shape and
    weights, and what its card holds of validation (a prior's weight, temperatures) is fitted anew."""
    learning_rate: float = Field(1e-3, gt=0)
    """Peak of the schedule (linear warm-up, cosine decay to a tenth)."""
    warmup: float = Field(0.05, ge=0, lt=1)
    """Share of the steps spent warming up."""
    weight_decay: float = Field(0.01, ge=0)
    """AdamW's decay."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients above this norm are scaled down; the training's log says how long they are (`grad_norm`)."""
    precision: Literal["auto", "bf16", "float32"] = "auto"
    """`auto`: bf16 where the hardware multiplies it (GPUs, AMX processors), else float32."""
    quantize: Literal["none", "4bit"] = "none"
    """`4bit`: NF4 base weights through bitsandbytes (extra `qlora`)."""
    cache: Literal["none", "memory", "disk"] = "none"
    """Where activations below `lora.first_layer` are kept, computed when a row is first learned from."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: about a third slower, far less memory."""
    valid_users: int = Field(128, ge=0)
    """Users ranked, or reviews judged, at each validation; 0 validates never, and fits no weight of a prior:
    lists are then the model's alone."""
    valid_every: float = Field(0.5, gt=0)
    """Epochs between validations."""
    patience: int = Field(4, ge=1)
    """Validations without a better main metric before training stops."""
    checkpoint_minutes: float = Field(5.0, gt=0)
    """Minutes between checkpoints; training resumes from the last one."""
    seed: Seed = 0
    """Seed of everything random."""

    @model_validator(mode="after")
    def _what_is_left_out_changes(self) -> Fit:
        if self.left_out and self.variants < 2:
            raise ValueError(
                f"left_out={self.left_out:g} with variants=1 leaves the same out in every epoch, never to be learned; "
                "set variants to the number of epochs"
            )
        return self


class Teacher(Section):
    """Soft targets for the next item: what a SASRec and the item-item transitions, fitted on the same training events,
    expect at every line."""

    share: float = Field(0.0, ge=0, le=1)
    """Weight of what the teacher expects, against what happened; 0 trains on what happened alone."""
    members: int = Field(2, ge=1, le=16)
    """SASRec models of different seeds whose probabilities are averaged."""
    transitions: float = Field(0.3, ge=0, le=1)
    """Share of the item-item transitions in the teacher's probabilities."""


class Prior(Section):
    """What the same training events say without text, added to the model's log p as a bonus; its weight is fitted on
    validation users."""

    kind: Literal["transitions", "teacher"] = "transitions"
    """`transitions`: item-item transitions, counted anew wherever they are used; `teacher`: the recipe's teacher (see
    its section), SASRec models among it, whose weights then lie beside the adapter's."""
    last: int = Field(10, ge=1)
    """How many of the latest items of a history vote."""
    decay: float = Field(0.8, gt=0, le=1)
    """Weight of an event relative to the one after it."""
    window: int = Field(10, ge=1)
    """Longest distance between two events of a history that counts as a transition."""
    smoothing: float = Field(10.0, ge=0)
    """Transitions drawn from popularity that are added to each item's own, so that rarely seen items say little."""
    floor: float = Field(0.1, gt=0, lt=1)
    """Share of popularity mixed in, so that no item gets -inf."""


class Serve(Section):
    """How vLLM runs, in process and as a server."""

    merge: bool = False
    """Merge the adapter into the base weights first: faster, but one domain only."""
    max_loras: int = Field(4, ge=1)
    """Different adapters in one batch; each takes memory."""
    max_cpu_loras: int = Field(16, ge=1)
    """Adapters kept ready in main memory."""
    max_rank: Literal[0, 1, 8, 16, 32, 64, 128, 256, 320, 512] = 0
    """Largest LoRA rank served; 0: the largest of the adapters named at the start."""
    context: int = Field(0, ge=0)
    """Longest prompt and reply, in tokens; 0: what the model takes."""
    block_size: int = Field(16, ge=0)
    """Tokens of a block of the prefix cache; 16 is the smallest that attention kernels take, 0 leaves it to vLLM."""
    step_tokens: int = Field(0, ge=0)
    """Most tokens of one step; 0: 512 on a processor, 8192 on a GPU."""
    requests: int = Field(128, ge=1)
    """Most requests in one step."""
    kv_gib: float = Field(1.0, gt=0)
    """Processor only: memory for keys and values, GiB."""
    gpu_share: float = Field(0.9, gt=0, le=1)
    """GPU only: share of its memory that vLLM takes."""
    tensor_parallel: int = Field(1, ge=1)
    """GPUs that share each layer."""
    data_parallel: int = Field(1, ge=1)
    """Replicas of the server behind one port (`llmrec serve`)."""
    quantization: str | None = None
    """vLLM's name of a quantisation of the base weights, e.g. fp8 or int8_per_channel_weight_only, on a GPU."""
    head_float32: bool = True
    """A model in 16 bits scores in float32, else neighbours of a list tie; not with `quantization`."""


class SASRec(Section):
    """The self-attentive baseline that stands beside the language model."""

    dimension: int = Field(64, ge=2, le=4096)
    """Size of an item's vector."""
    blocks: int = Field(2, ge=1, le=64)
    """Transformer blocks."""
    heads: int = Field(2, ge=1)
    """Attention heads; they share the dimension evenly."""
    dropout: float = Field(0.2, ge=0, lt=1)
    """Share of activations dropped while training."""
    length: int = Field(50, ge=1, le=10_000)
    """Latest items of a history that are looked at."""
    learning_rate: float = Field(1e-3, gt=0)
    """Adam's step size, constant."""
    batch: int = Field(64, ge=1)
    """Histories, or windows of long ones, per step."""
    epochs: int = Field(100, ge=1)
    """Most passes over the training histories."""
    valid_every: int = Field(2, ge=1)
    """Epochs between validations."""
    valid_queries: int = Field(1000, ge=1)
    """Validation queries ranked each time, a random sample."""
    patience: int = Field(6, ge=1)
    """Validations without a better ndcg@10 before training stops; the best weights are kept."""


class Recipe(Section):
    """What to train for one domain: `adapters/<domain>/recipe.yaml`."""

    domain: Annotated[str, AfterValidator(_name)]
    """Name of the domain: the folder's name."""
    noun: str = "items"
    """What the catalog holds, in the plural: films, products, songs."""
    unit: str = "item"
    """One of them."""
    base_model: str = "smollm2-135m"
    """Hub id, local folder, GGUF file, or named asset."""
    init_from: str | None = None
    """Domain, `domain@version` or folder of the adapter whose weights training starts from: of the same base model,
    rank and scale of LoRA, which may reach further than there."""
    licence: str = ""
    """Terms of the data, copied to the card."""
    tasks: dict[str, Task] = Field(default_factory=lambda: {"next_item": Task()})
    """What to train on, names of prompt files: a list, or a mapping from name to settings."""
    mixture: Mixture = Mixture()
    data: DataSource | None = None
    """Interactions; `next_item` needs them."""
    split: Split = Split()
    identifier: Identifier = Identifier()
    lora: Lora = Lora()
    fit: Fit = Fit()
    prior: Prior = Prior()
    teacher: Teacher = Teacher()
    sasrec: SASRec = SASRec()
    """The teacher's members."""
    serve: Serve = Serve()
    window_step: int = Field(0, ge=0)
    """Tokens by which the beginning of a history that is longer than `fit.window_tokens` moves at a time when it is
    asked about; 0: as little as it must.  With 64 about ten prompts of a growing history begin alike, so that an engine
    goes on from what it has computed; what is read is up to so much shorter."""
    window_block: int = Field(0, ge=0, le=256)
    """Tokens of a block of the engine's prefix cache (vLLM's has 16): up to a tenth of a history's tokens are left out,
    oldest first, so that the prompt ends with a block, or just behind one, since whatever is asked about it computes
    anew what lies behind the last whole one; 0: nothing is left out.  Not together with `window_step`."""
    new_share: float = Field(0.05, gt=0, lt=1)
    """Probability that items added after training share, until the adapter is trained again."""
    new_trust: float = Field(0.35, ge=0, le=1)
    """How much of what the base model says of them decides which of them is how probable (in vLLM with `serve.merge`:
    the merged weights): 1 takes its word, 0 makes all alike.  It is too sure of famous titles (docs/results.md)."""

    @field_validator("tasks", mode="before")
    @classmethod
    def _a_list_has_no_settings(cls, tasks: Any) -> Any:
        return {name: {} for name in tasks} if isinstance(tasks, list | tuple) else tasks

    @model_validator(mode="after")
    def _each_task_has_data(self) -> Recipe:
        if not self.tasks:
            raise ValueError("tasks: name at least one")
        if "next_item" in self.tasks and self.data is None:
            raise ValueError("data: next_item learns from interactions; say where they are")
        return self

    @model_validator(mode="after")
    def _each_setting_has_an_effect(self) -> Recipe:
        gone_from = self.data.path if self.data and self.data.leave_out else None
        for name, task in self.tasks.items():
            of_histories, of_pairs = name in OF_HISTORIES, name in OF_PAIRS
            if of_histories and (idle := _set(task, "data", "max_tokens")):
                raise ValueError(f"tasks.{name}.{idle}: only tasks of texts have it; remove it")
            if (of_histories or of_pairs) and (idle := _set(task, "labels", "balance")):
                raise ValueError(f"tasks.{name}.{idle}: only tasks of reviews have it; remove it")
            if task.data and not of_pairs and (idle := _set(task.data, "items", "history", "sentence")):
                raise ValueError(f"tasks.{name}.data.{idle}: only grounded tasks read it; remove it")
            if task.data and task.data.path == gone_from and not task.data.leave_out:
                raise ValueError(
                    f"tasks.{name}.data.leave_out: data.leave_out names people whose texts this task would learn from "
                    "the same file; set it here, too"
                )
        return self

    @model_validator(mode="after")
    def _one_beginning(self) -> Recipe:
        if self.window_step and self.window_block:
            raise ValueError(
                "window_block: it moves a history's beginning with every new choice, which window_step is there to "
                "prevent; set one of the two"
            )
        return self

    @model_validator(mode="after")
    def _each_task_has_its_time(self) -> Recipe:
        starts = {name: task.start for name, task in self.tasks.items()}
        if min(starts.values()) > 0:
            raise ValueError("tasks: one must have start 0, as nothing would be learned before")
        late = [name for name, start in starts.items() if start >= self.fit.epochs]
        if late and self.fit.epochs:
            raise ValueError(f"tasks.{late[0]}.start: training ends before, after fit.epochs={self.fit.epochs:g}")
        return self

    @model_validator(mode="after")
    def _something_is_learned(self) -> Recipe:
        if not self.fit.epochs and (self.init_from is None or self.lora.own):
            raise ValueError(
                "fit.epochs: 0 learns nothing and only fits anew what stands in a card: name an adapter by init_from, "
                "and leave lora.own at 0"
            )
        return self

    @model_validator(mode="after")
    def _parts_of_their_own(self) -> Recipe:
        if self.lora.own and len(self.tasks) < 2:
            raise ValueError("lora.own: one task shares with nobody; name more tasks, or raise lora.rank instead")
        if self.mixture.conflict != "none" and len(self.mixture.groups(self.tasks, self.tasks)) > 1:
            raise ValueError(
                "mixture.conflict: compares all tasks in each step, and with "
                f"mixture.step={self.mixture.step} some have steps of their own; set mixture.step=shared"
            )
        if self.lora.own and self.mixture.conflict != "none":
            raise ValueError("lora.own: mixture.conflict acts on one LoRA of all tasks; use one of the two")
        return self

    def task(self, name: str) -> Task:
        """Settings of a task.  Raises: RecipeError naming the nearest that the recipe has."""
        if name not in self.tasks:
            raise RecipeError(f"{self.domain}: no task '{name}'{did_you_mean(name, self.tasks)}")
        return self.tasks[name]

    @property
    def interactions(self) -> DataSource:
        """`data`.  Raises: RecipeError where the recipe has none."""
        if self.data is None:
            verbs = {OF_TEXTS[name] for name, task in self.tasks.items() if task.data and name in OF_TEXTS}
            known = ", ".join(f"`llmrec {verb} {self.domain}`" for verb in sorted(verbs))
            raise RecipeError(
                f"{self.domain}: no interactions (`data` in its recipe), so there is no catalog to rank"
                + (f"; what it has are texts: {known}" if known else "")
            )
        return self.data


A = TypeVar("A", bound="Asked")


class Asked(Section):
    """One protocol of a suite: how a domain is split, and what a query may see."""

    method: Literal["time", "leave_one_out"] | None = None
    """See `Split.method`; the adapter must have been trained under the same.  By default the recipe's."""
    baskets: bool | None = None
    """See `Split.baskets`; by default the recipe's."""
    split: Literal["valid", "test"] = "test"
    """Which interactions are asked for."""
    adapter: str | None = None
    """Folder name under `adapters/`, or `domain@version`, of the adapter that the llm rankers use; by default the
    domain's."""

    def of(self: A, split: Split) -> A:
        """With what is left to the recipe's `split`."""
        method, baskets = self.method or split.method, split.baskets if self.baskets is None else self.baskets
        return self.model_copy(update={"method": method, "baskets": baskets})

    @property
    def label(self) -> str:
        """The protocol's name in tables, records and file names."""
        return f"{self.split}-{self.method}{'-no_baskets' if self.baskets is False else ''}"


class Suite(Section):
    """What `llmrec evaluate` measures: `eval/<suite>.yaml`."""

    task: Literal["next_item"] = "next_item"
    """What is asked."""
    domain: str
    """Domain, or path of a recipe, that says where the data comes from."""
    splits: tuple[Asked, ...] | None = Field(None, min_length=1)
    """Protocols, each with all rankers; by default one, the split of the domain's recipe."""
    rankers: tuple[str, ...] = Field(("popular", "transitions", "sasrec", "llm", "llm+prior"), min_length=1)
    """What is measured; all of them rank the same queries."""
    compare: tuple[tuple[str, str], ...] = ()
    """Pairs (a, b) of rankers whose difference a - b is reported with its interval."""
    users: int = Field(0, ge=0)
    """Users asked, a random sample; 0 asks all."""
    lists: dict[Annotated[str, Field(pattern=f"^(?:{NAME.pattern})$")], str] = Field(default_factory=dict)
    """Rankers of other programs, by name, that stand beside `rankers`: the folder that `llmrec evaluate SUITE
    --questions FOLDER` wrote and that now holds their lists, PROTOCOL/NAME.parquet.  As for all others, what somebody
    has chosen already is left out."""
    cutoffs: tuple[Annotated[int, Field(ge=1)], ...] = Field((1, 5, 10, 20), min_length=1)
    """Where lists are cut: the @k of every metric."""
    samples: int = Field(2000, ge=1)
    """Bootstrap samples of users."""
    engine: Engine = "hf"
    """What computes for the llm rankers: hf, vllm, or the address of a vLLM server."""
    seed: Seed = 0
    """Seed of everything random."""
    sasrec: SASRec = SASRec()

    @model_validator(mode="before")
    @classmethod
    def _lists_are_measured(cls, values: Any) -> Any:
        """Whoever names a folder of lists need not name the ranker once more."""
        if not (isinstance(values, dict) and isinstance(values.get("lists"), dict)):
            return values
        rankers = values.get("rankers", cls.model_fields["rankers"].default)
        if not isinstance(rankers, list | tuple):
            return values  # said by its own check
        return values | {"rankers": [*rankers, *(name for name in values["lists"] if name not in rankers)]}


class Judged(Section):
    """What `llmrec evaluate` measures where a suite asks for `task: review_sentiment` or `task: item_class`."""

    task: Literal["review_sentiment", "item_class"]
    """What is asked."""
    domain: str
    """Domain, or path of a recipe, that says where the reviews come from."""
    split: Literal["valid", "test"] = "test"
    """Which reviews are asked for."""
    judges: tuple[Literal["majority", "tfidf", "tfidf-same", "base", "base-few", "llm"], ...] = Field(
        ("majority", "tfidf", "base", "llm"), min_length=1
    )
    """`majority`: always the commonest label; `tfidf`: TF-IDF and logistic regression on all training reviews;
    `tfidf-same`: on the sample that the adapter's recipe draws (`examples`; `tokens` may let it see a part only);
    `base`: the base model as it is; `base-few`: the same after `shots` labelled training reviews; `llm`: the
    adapter."""
    adapter: str | None = None
    """`llm` only: another adapter than the domain's, also one that tells fewer labels apart; then all judges do."""
    shots: int = Field(6, ge=1, le=32)
    """`base-few` only: labelled training reviews that stand before every question as turns of the conversation; as many
    of each label as of any other, the commonest where there are more labels than places."""
    level: int = Field(0, ge=0)
    """How many levels of a category count, broad to narrow; what a language model says of narrower ones is summed up,
    TF-IDF learns the broad ones.  0: all levels."""
    compare: tuple[tuple[str, str], ...] = ()
    """Pairs (a, b) of judges whose difference a - b is reported with its interval."""
    reviews: int = Field(0, ge=0)
    """Reviews asked, a random sample; 0 asks all."""
    samples: int = Field(2000, ge=1)
    """Bootstrap samples of reviews."""
    seed: Seed = 0
    """Seed of everything random."""


class AfterList(Asked):
    """What suites of the tasks after a history list have in common: users of one protocol, each asked once, with what
    was known before the first interaction of the split."""

    domain: str
    """Domain, or path of a recipe, that says where the data comes from."""
    compare: tuple[tuple[str, str], ...] = ()
    """Pairs (a, b) of what is measured whose difference a - b is reported with its interval."""
    users: int = Field(200, ge=0)
    """Users asked, a fixed random sample; 0 asks all."""
    samples: int = Field(2000, ge=1)
    """Bootstrap samples of users."""
    engine: Engine = "hf"
    """What computes for llm and base: hf, vllm, or the address of a vLLM server."""
    seed: Seed = 0
    """Seed of everything random."""


class Predicted(AfterList):
    """What `llmrec evaluate` measures where a suite asks for `task: interest`."""

    task: Literal["interest"]
    """What is asked."""
    predictors: tuple[Literal["popular", "history", "base", "llm"], ...] = Field(
        ("popular", "history", "base", "llm"), min_length=1
    )
    """`popular`: everybody's shares of the categories; `history`: the user's own, smoothed with everybody's as fits
    validation users best; `base`: the base model as it is; `llm`: the adapter."""


class Marked(Section):
    """A language model that gives its opinion of texts, too."""

    judge_url: str = ""
    """Address of an OpenAI-compatible endpoint whose model marks every reply from 1 to 5 and says for each pair of
    `compare` which it prefers; it is sent what is known of people and items, the replies, and the environment's
    LLMREC_JUDGE_KEY.  None where empty."""
    judge_model: str = ""
    """Name that the endpoint serves its model by."""
    judge_requests: int = Field(1000, ge=1)
    """Most requests about the replies of one writer, or of a pair, which take two each; more are refused unsent."""
    judge_seconds: float = Field(3600.0, gt=0)
    """Time for these requests, eight at once; replies that have no answer then count in no mean, and are told of."""

    @model_validator(mode="after")
    def _a_judge_has_both(self) -> Marked:
        if bool(self.judge_url) != bool(self.judge_model):
            raise ValueError("judge_url and judge_model belong together: name both, or neither")
        return self


class Written(Marked, AfterList):
    """What `llmrec evaluate` measures where a suite asks for `task: interest_summary` or `task: explanation`."""

    task: Literal["interest_summary", "explanation"]
    """What is asked."""
    writers: tuple[Literal["template", "copy", "base", "llm"], ...] = Field(("template", "base", "llm"), min_length=1)
    """`template`: the prompt file's first reply, filled from the data; `copy`: the most typical sentence of the item's
    training reviews, for explanations of data that has some; `base`: the base model as it is; `llm`: the adapter."""


class Grounded(Marked):
    """What `llmrec evaluate` measures where a suite asks for `grounded_explanation` or `grounded_summary`."""

    task: Literal["grounded_explanation", "grounded_summary"]
    """What is asked."""
    domain: str
    """Domain, or path of a recipe, that says where the texts come from."""
    adapter: str | None = None
    """Folder name under `adapters/`, or `domain@version`, of the adapter; by default the domain's."""
    split: Literal["valid", "test"] = "test"
    """Which texts are asked for."""
    writers: tuple[Literal["template", "typical", "copy", "nearest", "base", "llm", "llm+consensus"], ...] = Field(
        ("template", "typical", "copy", "nearest", "base", "llm"), min_length=1
    )
    """`template`: a sentence filled in with what the input names; `typical`: the most typical sentence of all training
    texts, for everybody; `copy`: the most typical of the item's own, else that one; `nearest`: the text of the training
    example whose input reads most alike; `base`: the base model as it is; `llm`: the adapter; `llm+consensus`: of its
    replies to every wording that it learned, the one most like the others."""
    compare: tuple[tuple[str, str], ...] = ()
    """Pairs (a, b) of writers whose difference a - b is reported with its interval."""
    examples: int = Field(200, ge=0)
    """Texts asked for, a fixed random sample; 0 asks all."""
    samples: int = Field(2000, ge=1)
    """Bootstrap samples of examples."""
    engine: Engine = "hf"
    """What computes for llm and base: hf, vllm, or the address of a vLLM server."""
    seed: Seed = 0
    """Seed of everything random."""


class Wordings(Section):
    """What `llmrec prompts measure` measures with."""

    users: int = Field(100, ge=1)
    """Validation users asked, a random sample."""
    samples: int = Field(2000, ge=1)
    """Bootstrap samples of users."""
    seed: Seed = 0
    """Seed of everything random."""


def _set(section: Section, *keys: str) -> str | None:
    """The first of `keys` that says something else than by default."""
    defaults = type(section).model_fields
    return next((key for key in keys if getattr(section, key) != defaults[key].default), None)


def is_section(section: type[Section], key: str) -> bool:
    """Whether what `key` of a section takes are sections again, and no plain value."""
    kind = section.model_fields[key].annotation
    return any(isinstance(one, type) and issubclass(one, Section) for one in (kind, *get_args(kind)))


S = TypeVar("S", bound=Section)


def home() -> Path:
    """Folder of downloads, prepared data and runs: `LLMREC_HOME`, else `~/.cache/llmrec`."""
    return Path(os.environ.get("LLMREC_HOME") or "~/.cache/llmrec").expanduser()


def project() -> Path:
    """Folder that holds `prompts/`, `adapters/` and `eval/`: `LLMREC_PROJECT`, else the working directory where it
    has them, else the folder this package was installed from."""
    if root := os.environ.get("LLMREC_PROJECT"):
        return Path(root).expanduser()
    here = Path.cwd()
    return here if (here / "adapters").is_dir() and (here / "prompts").is_dir() else Path(__file__).parent.parent


def checked_name(name: str, what: str = "name") -> str:
    """`name` itself if it is safe as a folder's name: names never become paths."""
    try:
        return _name(name)
    except ValueError as error:
        raise RecipeError(f"{what} {name!r}: {error}") from None


def prompt_file(task: str) -> Path:
    """Where the wordings of a task lie today."""
    return project() / "prompts" / f"{task}.yaml"


def adapter_folder(name: str) -> Path:
    """Folder of a domain's recipe and adapter, or of the version in `domain@version`; it exists.

    A version is named by its digest, or by the first four digits or more.  Raises: RecipeError.
    """
    name, at, version = name.partition("@")
    if os.sep in name:
        raise RecipeError(
            f"{name}: a folder, and a domain or domain@version is asked for; `llmrec adapters add DOMAIN {name}` keeps "
            "it as a version and says its name"
        )
    folder = project() / "adapters" / checked_name(name, "domain")
    if at:
        kept = {path.name: path for path in (folder.parent / VERSIONS / name).glob("[!.]*") if path.is_dir()}
        fitting = [place for one, place in kept.items() if len(version) >= 4 and one.startswith(version)]
        if len(fitting) != 1:
            what = f"{len(fitting)} versions begin with" if fitting else "no version"
            raise RecipeError(f"{name}: {what} '{version}'{did_you_mean(version, kept)}; see `llmrec adapters list`")
        return fitting[0]
    if not folder.is_dir():
        if not (project() / "adapters").is_dir():
            raise RecipeError(
                f"{project()}: no folder adapters/ there; go to the project's folder, or name it with LLMREC_PROJECT"
            )
        known = [p.parent.name for p in (project() / "adapters").glob("*/recipe.yaml")]
        raise RecipeError(f"no domain '{name}' in {project() / 'adapters'}{did_you_mean(name, known)}")
    return folder


def adapter_place(text: str) -> tuple[Path, str | None]:
    """The archive or folder at a path, or the folder of a domain or domain@version with the domain that it names, which
    goes before a folder called alike.  Raises: RecipeError, AdapterError."""
    path = Path(text)
    if path.is_file() or (path.is_dir() and (os.sep in text or not (project() / "adapters" / text).is_dir())):
        return path, None
    if os.sep in text or text.endswith(".tar.gz"):
        raise AdapterError(f"{text}: no such folder or archive")
    return adapter_folder(text), domain_of(text)


def domain_of(name: str) -> str:
    """The domain in the name of a domain or of one of its versions, `domain@version`."""
    return name.partition("@")[0]


def adapter_name(folder: Path) -> str:
    """What `adapter_folder` finds a folder by."""
    is_version = folder.parent.parent.name == VERSIONS
    return f"{folder.parent.name}@{folder.name}" if is_version else folder.name


def adapter_asked(recipe: Recipe, adapter: str | None, base: bool) -> str | None:
    """The adapter that answers: the one named, else the domain's; None for the base model.

    Raises: RecipeError where both an adapter and the base model are asked for, or the one named is none.
    """
    if base and adapter:
        raise RecipeError(f"--base and --adapter {adapter}: give one of the two")
    if adapter:
        adapter_folder(adapter)
    return None if base else adapter or recipe.domain


def load_recipe(domain: str, overrides: tuple[str, ...] = ()) -> Recipe:
    """The recipe of `domain` (or of a YAML file at that path), with `key=value` overrides such as `lora.rank=32`.

    Raises: RecipeError naming the file, the key and the nearest known key.
    """
    if domain.endswith((".yaml", ".yml")):
        return load_section(Recipe, Path(domain), overrides)
    if os.sep in domain:
        if (Path(domain) / "recipe.yaml").is_file():
            return load_section(Recipe, Path(domain) / "recipe.yaml", overrides)
        raise RecipeError(f"{domain}: no recipe there; name a folder in adapters/, or the path of a recipe's file")
    if "@" in domain:
        raise RecipeError(f"{domain}: recipes are of domains; name the version with --adapter {domain}")
    path = adapter_folder(domain) / "recipe.yaml"
    recipe = load_section(Recipe, path, overrides)
    if recipe.domain != domain:
        raise RecipeError(
            f"{path}: says domain: {recipe.domain}, so it would change what belongs to that one; write domain: {domain}"
        )
    return recipe


def load_section(kind: type[S], path: Path, overrides: tuple[str, ...] = ()) -> S:
    """Any settings file, strictly."""
    return section(kind, read_yaml(path), overrides, path)


def section(kind: type[S], values: dict[str, Any], overrides: tuple[str, ...] = (), source: Path | str = "") -> S:
    """Settings from plain values and `key=value` overrides; `source` stands in the messages of RecipeErrors."""
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise RecipeError(f"{override}: write overrides as key=value, e.g. lora.rank=32")
        *parents, leaf = key.split(".")
        place: Any = values
        for parent in parents:
            if place is values and (names := _names(kind, values, parent)):
                place[parent] = names
            inner = place.get(parent, {})
            if not isinstance(inner, dict):
                raise RecipeError(f"{override}: '{parent}' is a value, not a section")
            place[parent] = place = dict(inner)  # a copy: two sections may be one, by a YAML anchor
        try:
            place[leaf] = yaml.safe_load(text)
        except NOT_YAML as error:
            raise RecipeError(f"{override}: not a YAML value: {' '.join(str(error).split())}") from None
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        given = {override.partition("=")[0]: override for override in overrides}
        raise RecipeError("; ".join(_explain(source, kind, problem, given) for problem in error.errors())) from None


def _names(kind: type[Section], values: dict[str, Any], key: str) -> dict[str, Any]:
    """What a setting within `key` is added to where `key` maps names to sections and is given as a list, or not at all:
    these names, or those of its default."""
    field = kind.model_fields.get(key)
    if field is None or get_origin(field.annotation) is not dict:
        return {}
    if key not in values:
        return {name: {} for name in field.get_default(call_default_factory=True)}
    names = values[key] if isinstance(values[key], list) else []
    return {name: {} for name in names if isinstance(name, str)}


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping, read safely.  Raises: RecipeError."""
    try:
        if path.stat().st_size > MAX_RECIPE_BYTES:
            raise RecipeError(f"{path}: larger than {MAX_RECIPE_BYTES} bytes")
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read: {error}") from None
    except NOT_YAML as error:
        raise RecipeError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise RecipeError(f"{path}: a mapping of settings is expected, not {type(values).__name__}")
    return values


def _explain(source: Path | str, kind: type[Section], problem: Any, given: dict[str, str]) -> str:
    place = [str(part) for part in problem["loc"]]
    source = next((f"{text} (command line)" for key, text in given.items() if place == key.split(".")), source)
    if problem["type"] != "extra_forbidden":
        return f"{source}: {': '.join(filter(None, ['.'.join(place), problem['msg'].removeprefix('Value error, ')]))}"
    *parents, leaf = place
    section: Any = kind
    for parent in parents:
        origin = get_origin(section)
        if origin is dict:  # its keys are names, its values sections
            section = get_args(section)[1]
        elif origin is tuple:  # of sections, by number
            section = get_args(section)[0]
        else:
            section = section.model_fields[parent].annotation
        section = _present(section)
    if not parents and (inside := _inside(kind, leaf)):
        return f"{source}: unknown key '{leaf}'; did you mean {' or '.join(map(repr, inside))}?"
    return f"{source}: unknown key '{leaf}'{did_you_mean(leaf, section.model_fields)}"


def _present(annotation: Any) -> Any:
    """Of `Section | None` the section."""
    if get_origin(annotation) in (dict, tuple):
        return annotation
    return next((part for part in get_args(annotation) if part is not type(None)), annotation)


def _inside(kind: type[Section], key: str) -> list[str]:
    """`fit.epochs`, `sasrec.epochs` for `epochs`: the key in the sections of `kind` that have one."""
    sections = {name: _present(field.annotation) for name, field in kind.model_fields.items()}
    return [
        f"{name}.{key.casefold()}"
        for name, section in sections.items()
        if key.casefold() in getattr(section, "model_fields", ())
    ]
