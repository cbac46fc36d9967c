"""vLLM beside the reference engine: the same answers, whatever is asked together; adapters that come and go."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from conftest import Served

from llmrec import writing
from llmrec.choices.search import Choices, rank
from llmrec.choices.trie import ChoiceTrie
from llmrec.config import Serve
from llmrec.engine import Node, Prompt
from llmrec.engine.asks import MAX_IDS
from llmrec.engine.hf import HFEngine
from llmrec.engine.serving import arguments, check_dtype, is_exact
from llmrec.engine.vllm import VLLMEngine
from llmrec.errors import AdapterError, EngineError
from llmrec.model import adapter
from llmrec.model.encode import Encoder
from llmrec.model.load import base_model
from llmrec.tasks.template import Name

RNG = np.random.default_rng(1)
SOME = np.array([5, 9, 200], np.int32)


@pytest.fixture(scope="module")
def hf(served: Served) -> HFEngine:
    return HFEngine(adapter.load(tiny.model(width=128), served.adapters), tiny.tokenizer("gpt2"))


def tokens(length: int) -> tuple[int, ...]:
    return tuple(RNG.integers(10, 500, length).tolist())


def mixed(count: int) -> list[Prompt]:
    """Adapters and none in turn; the tail is shared by several, so that a batch holds runs of every length."""
    return [Prompt(tokens(int(RNG.integers(1, 90))), (None, "movies", "books")[i % 3]) for i in range(count)]


def test_a_batch_of_adapters_and_none_gives_each_what_it_gets_alone(vllm: Any, hf: HFEngine) -> None:
    """vLLM's build for processors gives a prompt without adapter those of the last slot; our plug-in cures it."""
    nodes = [Node(prompt, path, SOME) for prompt in mixed(12) for path in ((), (11, 12))]
    together = vllm.branch(nodes)
    for node, log_p in zip(nodes, together, strict=True):
        np.testing.assert_allclose(log_p, hf.branch([node])[0], atol=1e-4)
    for i in (0, 2, 5, 10):
        np.testing.assert_allclose(vllm.branch([nodes[i]])[0], together[i], atol=1e-4)


@pytest.mark.parametrize(("widest", "requests"), [(None, 1), (MAX_IDS, 5)])
def test_a_node_with_hundreds_of_children_is_asked_in_parts_where_it_must(
    widest: int | None, requests: int, vllm: Any, hf: HFEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    if widest:  # as on a GPU
        monkeypatch.setattr(vllm, "widest", widest)
    children = RNG.permutation(600)[:520].astype(np.int32)
    nodes = [Node(Prompt(tokens(20), name), (), children) for name in (None, "books")]
    before = vllm.tally.requests
    for found, expected in zip(vllm.branch(nodes), hf.branch(nodes), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4)
    assert vllm.tally.requests - before == 2 * requests


def test_rankings_are_those_of_the_reference(vllm: Any, hf: HFEngine) -> None:
    choices = Choices(ChoiceTrie.build(np.unique(RNG.integers(10, 400, (500, 3)), axis=0)))
    prompts = mixed(9)
    for ours, theirs in zip(rank(vllm, prompts, choices, None, 20), rank(hf, prompts, choices, None, 20), strict=True):
        np.testing.assert_allclose(ours.log_p, theirs.log_p, atol=1e-4)
        assert ours.exact and np.mean(ours.items == theirs.items) > 0.8  # else titles within rounding changed places


def test_greedy_replies_are_those_of_the_reference(vllm: Any, hf: HFEngine) -> None:
    prompts = mixed(6)
    assert vllm.generate(prompts, max_tokens=12) == hf.generate(prompts, max_tokens=12)


@pytest.mark.parametrize("engine", ["vllm", pytest.param("remote", marks=pytest.mark.slow)])
def test_texts_with_names_are_those_of_the_reference(
    engine: str, hf: HFEngine, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stops where a name opens, ranks, writes the name and goes on; a random model opens names where we say."""
    encoder = Encoder(tiny.tokenizer("gpt2"))
    words = ["Heat", "Fargo", "Seven", "Alien", "Jaws"]
    # Whole characters, as prompts have: behind half a one vLLM looks for `stop` in the prompt's own text, too.
    rng = np.random.default_rng(0)
    prompts = [
        Prompt(tuple(encoder.text(" ".join(rng.choice(words, 8)) + ":")), (None, "movies", "books")[i % 3])
        for i in range(6)
    ]
    said = Counter(c for text in hf.generate(prompts, max_tokens=24) for c in text[1:] if c.isalpha())
    mark = said.most_common(1)[0][0]
    monkeypatch.setattr(writing, "OPENS", {"item": mark})
    monkeypatch.setattr(writing, "KINDS", {mark: "item"})
    for cuts in ("sound", "whole_sentences"):  # what a random model writes is neither
        monkeypatch.setattr(writing, cuts, list)
    titles = [f"{word} {i}" for i, word in enumerate(words * 4)]
    lines = [np.asarray(ids, np.int32) for ids in encoder.lines(titles)]
    names = {"item": writing.Names(titles, lines, Choices(ChoiceTrie.build(lines)))}

    def allowed(i: int, kind: str, said: Sequence[str]) -> Sequence[int]:
        return range(i, 20 - i)

    ours, theirs = (
        writing.write(one, encoder, prompts, names, allowed) for one in (request.getfixturevalue(engine), hf)
    )
    assert ours == theirs
    assert sum(isinstance(part, Name) for reply in ours for part in reply) >= 3


def test_histories_are_read_once(vllm: Any) -> None:
    prompt = Prompt(tokens(116), "movies")
    vllm.branch([Node(prompt, (), SOME)])
    tokens_before, cached_before = vllm.tally.tokens, vllm.tally.cached
    vllm.branch([Node(prompt, (i,), SOME) for i in range(20, 30)])
    # whole blocks of 16 only
    assert (vllm.tally.tokens - tokens_before, vllm.tally.cached - cached_before) == (10 * 117, 10 * 112)


def test_groups_fit_into_the_cache(vllm: Any) -> None:
    prompts = [Prompt(tokens(100), (None, "movies", "books")[i % 3]) for i in range(200)]
    groups = list(vllm.batches(prompts))
    assert len(groups) > 1 and sorted(i for group in groups for i in group) == list(range(200))
    assert vllm.groups > 1 and all(len(group) * 8 * vllm.groups <= vllm._blocks for group in groups)


def test_adapters_come_and_go(vllm: Any, served: Served, tmp_path: Path) -> None:
    node = Node(Prompt(tokens(70), "music"), (), SOME)
    with pytest.raises(EngineError, match="'music' is not loaded"):
        vllm.branch([node])
    first = vllm.load("music", tiny.adapter(tmp_path / "one", 7))
    before = vllm.branch([node])[0]
    second = vllm.load("music", tiny.adapter(tmp_path / "two", 8))
    after = vllm.branch([node])[0]
    assert first != second and abs(before - after).max() > 0.01  # not the first one's cached state
    reference = HFEngine(adapter.load(tiny.model(width=128), {"music": tmp_path / "two"}), tiny.tokenizer("gpt2"))
    np.testing.assert_allclose(after, reference.branch([node])[0], atol=1e-4)
    vllm.unload("music")
    with pytest.raises(EngineError, match="'music' is not loaded"):
        vllm.branch([node])


def test_adapters_change_while_others_are_asked(vllm: Any, tmp_path: Path) -> None:
    """From another thread: nothing fails, and every answer is its own adapter's."""
    nodes = [Node(prompt, (), SOME) for prompt in mixed(12)]
    before = vllm.branch(nodes)
    folders = [tiny.adapter(tmp_path / str(seed), seed) for seed in (7, 8)]
    node = Node(Prompt(tokens(30), "music"), (), SOME)
    found: list[np.ndarray] = []
    with ThreadPoolExecutor(1) as other:
        rounds = other.submit(lambda: [vllm.branch(nodes) for _ in range(8)])
        while not rounds.done() or len(found) < 4:
            vllm.load("music", folders[len(found) % 2])
            found.append(vllm.branch([node])[0])
        for again in rounds.result():
            np.testing.assert_allclose(again, before, atol=1e-4)
    assert abs(found[0] - found[1]).max() > 0.01
    for i, log_p in enumerate(found):
        np.testing.assert_allclose(log_p, found[i % 2], atol=1e-4)
    vllm.unload("music")


def test_a_search_ends_with_the_weights_that_it_began_with(
    vllm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though another version takes the name, and the folder, between two waves; the next search asks that one."""
    one = tiny.adapter(tmp_path / "own", 7)
    choices = Choices(ChoiceTrie.build(np.unique(RNG.integers(10, 400, (500, 3)), axis=0)))
    prompts = [Prompt(tokens(length), "music") for length in (3, 40)]
    vllm.load("music", one)
    before = rank(vllm, prompts, choices, None, 20)
    branch = vllm.branch

    def swapped(nodes: list[Node]) -> list[np.ndarray]:
        answers = branch(nodes)
        vllm.load("music", tiny.adapter(one, 8))
        return answers

    with monkeypatch.context() as patch:
        patch.setattr(vllm, "branch", swapped)
        during = rank(vllm, prompts, choices, None, 20)
    for then, now in zip(before, during, strict=True):
        np.testing.assert_allclose(then.log_p, now.log_p, atol=1e-4)
        assert now.waves > 1 and then.items.tolist() == now.items.tolist()
    assert abs(rank(vllm, prompts, choices, None, 20)[0].log_p - before[0].log_p).max() > 0.01
    vllm.unload("music")


KEPT: list[Any] = []  # closing an engine, or losing it, ends every other of the process


@pytest.mark.parametrize("targets", [("q_proj", "down_proj"), ("v_proj", "lm_head")])
def test_merged_weights_rank_as_the_adapter_does(vllm: Any, served: Served, tmp_path: Path, targets: tuple[str, ...]):
    """Also where the head is trained, whose weights the base shares with its embedding: that one stays as it is."""
    folder = tiny.adapter(tmp_path / "own", 3, targets=targets)
    vllm.load("own", folder)
    base = adapter.merged(base_model(str(served.base)), folder)
    engine = VLLMEngine(base, settings=Serve(kv_gib=0.01, requests=16), merged="own")
    choices = Choices(ChoiceTrie.build(np.unique(RNG.integers(10, 400, (500, 3)), axis=0)))
    prompts = [Prompt(tokens(length), "own") for length in (3, 40, 80)]
    for ours, theirs in zip(
        rank(engine, prompts, choices, None, 20), rank(vllm, prompts, choices, None, 20), strict=True
    ):
        np.testing.assert_allclose(ours.log_p, theirs.log_p, atol=1e-4)
        assert ours.exact and np.mean(ours.items == theirs.items) > 0.8
    assert engine.adapters == ("own",)
    with pytest.raises(EngineError, match="holds the merged weights of own"):
        engine.branch([Node(Prompt(tokens(5)), (), SOME)])
    with pytest.raises(AdapterError, match="takes no other"):
        engine.load("movies", served.adapters["movies"])
    with pytest.raises(AdapterError, match="merged weights of 'own' and nothing else"):
        engine.unload("own")
    vllm.unload("own")
    KEPT.append(engine)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"r": 256}, "rank 256, and vLLM was started for 8"),
        ({"use_dora": True}, "use_dora is set"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save is set"),
    ],
)
def test_what_cannot_be_served_is_refused_and_serving_goes_on(
    vllm: Any, served: Served, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    folder = tmp_path / "bad"
    shutil.copytree(served.adapters["movies"], folder)
    file = folder / "adapter_config.json"
    adapter.write_json(file, adapter.read_json(file) | change)
    with pytest.raises(AdapterError, match=message):
        vllm.load("bad", folder)
    assert "bad" not in vllm.adapters
    vllm.branch([Node(Prompt(tokens(5), "movies"), (), SOME)])


def test_an_adapter_of_another_base_is_refused(vllm: Any, tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="vLLM refuses it"):
        vllm.load("bad", tiny.adapter(tmp_path, 1, width=256))
    vllm.branch([Node(Prompt(tokens(5), "movies"), (), SOME)])


@pytest.mark.parametrize("prompt", [Prompt(()), Prompt((5,) * 256)])
def test_what_does_not_fit_is_an_error(vllm: Any, prompt: Prompt) -> None:
    with pytest.raises(EngineError, match=f"a prompt of {len(prompt.tokens)} tokens: this model takes 1 to 255"):
        vllm.branch([Node(prompt, (), SOME)])


def test_settings_reach_vllm(vllm: Any) -> None:
    on_gpu = arguments(
        Serve(tensor_parallel=2, quantization="fp8", context=2048, gpu_share=0.5), on_cpu=False, max_rank=64,
        dtype=torch.bfloat16,
    )  # fmt: skip
    assert on_gpu["tensor_parallel_size"] == 2 and on_gpu["quantization"] == "fp8"
    assert on_gpu["max_model_len"] == 2048 and on_gpu["gpu_memory_utilization"] == 0.5
    assert on_gpu["max_lora_rank"] == 64 and "kv_cache_memory_bytes" not in on_gpu
    assert "hf_overrides" not in on_gpu
    plain = {"on_cpu": False, "max_rank": 0}
    assert not {"enable_lora", "hf_overrides"} & {*arguments(Serve(), **plain, dtype=torch.float32)}
    assert "block_size" not in arguments(Serve(block_size=0), **plain, dtype=torch.float32)
    assert arguments(Serve(), **plain, dtype=torch.bfloat16)["hf_overrides"] == {"head_dtype": "float32"}
    assert "hf_overrides" not in arguments(Serve(head_float32=False), **plain, dtype=torch.bfloat16)
    assert vllm.llm.llm_engine.vllm_config.scheduler_config.max_num_seqs == 16 and vllm._block_size == 16


def test_in_16_bits_scores_are_still_float32(served: Served) -> None:
    """A bf16 head knows 256 scores between 1 and 2, and says that children tie which do not."""
    apart = {}
    for head in (False, True):
        engine = VLLMEngine(
            served.base, {"movies": served.adapters["movies"]}, dtype=torch.bfloat16,
            settings=Serve(kv_gib=0.01, requests=16, context=128, head_float32=head),
        )  # fmt: skip
        nodes = [Node(Prompt(tokens(20), name), (), np.arange(20, 420, dtype=np.int32)) for name in (None, "movies")]
        apart[head] = min(len(np.unique(log_p)) for log_p in engine.branch(nodes))
        KEPT.append(engine)
    assert apart[False] < 380 < apart[True] and not engine.exact


def test_a_gpu_serves_adapters_in_16_bits_and_is_never_exact() -> None:
    check_dtype(torch.float32, on_cpu=True, max_rank=64)
    check_dtype(torch.float32, on_cpu=False, max_rank=0)  # merged, or the base alone
    check_dtype(torch.bfloat16, on_cpu=False, max_rank=64)
    with pytest.raises(EngineError, match=r"16 bits only: fit\.precision=bf16"):
        check_dtype(torch.float32, on_cpu=False, max_rank=64)
    assert is_exact(torch.float32, Serve(), on_cpu=True)
    assert not is_exact(torch.float32, Serve(), on_cpu=False)
    assert not is_exact(torch.float32, Serve(quantization="fp8"), on_cpu=True)
    assert not is_exact(torch.bfloat16, Serve(), on_cpu=True)


def test_what_vllm_refuses_is_said_without_a_count_of_mistakes(tmp_path: Path) -> None:
    base = tiny.base(tmp_path / "base")
    with pytest.raises(EngineError, match="vLLM does not start with .*: Unknown quantization method: two-bits"):
        VLLMEngine(base, settings=Serve(quantization="two-bits", kv_gib=0.1))
