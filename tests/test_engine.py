"""The engine contract, on every engine that runs here."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch
from conftest import Served

from llmrec.choices.search import Choices, log_p_all, rank
from llmrec.choices.trie import ChoiceTrie
from llmrec.engine import Engine, Node, Prompt
from llmrec.engine.fake import FakeEngine
from llmrec.engine.hf import HFEngine
from llmrec.errors import LlmrecError
from llmrec.model import adapter

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def hf(served: Served) -> HFEngine:
    model = adapter.load(tiny.model(width=128), served.adapters)
    return HFEngine(model, tiny.tokenizer("gpt2"), batch_tokens=100)


@pytest.fixture(params=["hf", "fake", "vllm", "remote"])
def engine(request: pytest.FixtureRequest) -> Engine:
    return FakeEngine() if request.param == "fake" else request.getfixturevalue(request.param)


def some_prompts(count: int, adapters: tuple[str | None, ...] = (None, "movies", "books")) -> list[Prompt]:
    lengths = RNG.integers(1, 40, count)
    return [
        Prompt(tuple(RNG.integers(10, 500, length).tolist()), adapters[i % len(adapters)])
        for i, length in enumerate(lengths)
    ]


def some_nodes(prompts: list[Prompt]) -> list[Node]:
    paths = [(), (11,), (11, 12, 13), (40,), (11, 12, 14)]
    children = [np.array([5, 9, 200], np.int32), np.arange(20, 120, dtype=np.int32)]
    return [Node(p, path, children[len(path) % 2]) for p in prompts for path in paths]


def test_children_share_all_the_probability(engine: Engine) -> None:
    for node, log_p in zip(nodes := some_nodes(some_prompts(6)), engine.branch(nodes), strict=True):
        assert log_p.shape == node.children.shape and log_p.dtype == np.float32
        assert np.exp(log_p.astype(np.float64)).sum() == pytest.approx(1, abs=1e-5)


def test_pinned_prompts_are_answered_alike(engine: Engine) -> None:
    prompts = some_prompts(6)
    before, pinned = engine.branch(some_nodes(prompts)), engine.pinned(prompts)
    assert [prompt.tokens for prompt in pinned] == [prompt.tokens for prompt in prompts]
    if not isinstance(engine, FakeEngine):  # whose answers are drawn by the adapter's name
        for then, now in zip(before, engine.branch(some_nodes(engine.pinned(pinned))), strict=True):
            np.testing.assert_allclose(then, now, atol=1e-4)


def test_answers_do_not_depend_on_company_or_the_past(engine: Engine) -> None:
    nodes = some_nodes(some_prompts(9))
    together = engine.branch(nodes)
    for i in RNG.permutation(len(nodes))[:12]:
        np.testing.assert_allclose(engine.branch([nodes[i]])[0], together[i], atol=1e-4)
    for i, again in enumerate(engine.branch(nodes)):
        np.testing.assert_allclose(again, together[i], atol=1e-4)


def test_children_come_back_in_the_order_asked(engine: Engine) -> None:
    prompt = some_prompts(1)[0]
    there = engine.branch([Node(prompt, (), np.array([5, 9, 200], np.int32))])[0]
    back = engine.branch([Node(prompt, (), np.array([200, 9, 5], np.int32))])[0]
    np.testing.assert_allclose(there, back[::-1], atol=1e-5)


def test_every_prompt_is_in_one_batch(engine: Engine) -> None:
    prompts = some_prompts(50)
    groups = list(engine.batches(prompts))
    assert sorted(i for group in groups for i in group) == list(range(50))
    assert list(engine.batches([])) == []


def test_replies_are_strings_cut_before_a_stop(engine: Engine) -> None:
    prompts = some_prompts(4)
    replies = engine.generate(prompts, max_tokens=6)
    assert len(replies) == 4 and all(isinstance(reply, str) for reply in replies)
    stop = next((reply[1] for reply in replies if len(reply) > 1), "k")
    assert all(stop not in reply for reply in engine.generate(prompts, max_tokens=6, stop=[stop]))


@pytest.mark.parametrize("grouped", [("cpu",), ()])
def test_branch_is_what_the_whole_model_says(
    hf: HFEngine, grouped: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys and values kept, grown as a tree, shared by query heads or not: the same as one plain pass per node."""
    monkeypatch.setattr("llmrec.engine.hf.GROUPED", grouped)
    hf.forget()
    nodes = some_nodes(some_prompts(6))
    for node, log_p in zip(nodes, hf.branch(nodes), strict=True):
        with hf._active(node.prompt.adapter), torch.no_grad():
            logits = hf.model(torch.tensor([node.prompt.tokens + node.path])).logits[0, -1]
        expected = torch.log_softmax(logits[torch.tensor(node.children).long()].float(), 0)
        np.testing.assert_allclose(log_p, expected.numpy(), atol=1e-4)


def test_what_prompts_begin_with_alike_changes_nothing(engine: Engine) -> None:
    """One prompt is the whole beginning of the others; each is asked alone and with all of them."""
    header = tuple(RNG.integers(10, 500, 12).tolist())
    prompts = [Prompt(header + tuple(RNG.integers(10, 500, n).tolist()), "movies") for n in (7, 0, 3, 1)]
    nodes = some_nodes(prompts)
    together = engine.branch(nodes)
    for prompt in reversed(prompts):
        alone = engine.branch([node for node in nodes if node.prompt == prompt])
        expected = [log_p for node, log_p in zip(nodes, together, strict=True) if node.prompt == prompt]
        for a, b in zip(alone, expected, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4)


def test_replies_are_what_the_whole_model_says(hf: HFEngine) -> None:
    prompts = some_prompts(5)
    for prompt, reply in zip(prompts, hf.generate(prompts, max_tokens=9), strict=True):
        said: list[int] = []
        while len(said) < 9 and (not said or said[-1] not in hf._ends):
            with hf._active(prompt.adapter), torch.no_grad():
                said.append(int(hf.model(torch.tensor([[*prompt.tokens, *said]])).logits[0, -1].argmax()))
        assert reply == hf.tokenizer.decode(said, skip_special_tokens=True)


def test_what_goes_on_from_a_prompt_is_not_read_again(hf: HFEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reply, names in it, another turn behind the same history: only what is new is computed, and nothing differs."""
    computed: list[int] = []
    decode = hf._decode

    def counted(ids: list[int], *more: object) -> torch.Tensor:
        computed.append(len(ids))
        return decode(ids, *more)

    monkeypatch.setattr(hf, "_decode", counted)
    first, other = (Prompt(tuple(RNG.integers(10, 500, 30).tolist()), "movies") for _ in range(2))
    turn = Prompt(first.tokens[:25] + (11, 12, 13), "movies")
    longer = Prompt(first.tokens + (7, 8), "movies")
    children = np.array([5, 9, 200], np.int32)
    nodes = [Node(prompt, path, children) for prompt in (longer, turn) for path in ((), (40, 41))]
    hf.forget()
    hf.branch([Node(first, (), children)])
    found = hf.branch(nodes)
    assert sum(computed) == 30 + 2 + 3 + 2 * 2
    replies = hf.generate([turn, longer, first], max_tokens=3)
    assert sum(computed) <= 30 + 9 + 3 * 2
    for node, log_p in zip(nodes, found, strict=True):
        hf.forget()
        np.testing.assert_allclose(hf.branch([node])[0], log_p, atol=1e-4)
    for prompt, reply in zip((turn, longer, first), replies, strict=True):
        hf.forget()
        assert hf.generate([prompt], max_tokens=3) == [reply]
    computed.clear()
    hf.branch([Node(other, (), children), Node(first, (), children)])  # the other has nothing in common with it
    assert sum(computed) == 60
    many = [Prompt(first.tokens + tuple(RNG.integers(10, 500, 9).tolist()), "movies") for _ in range(8)]
    hf.branch([Node(prompt, (), children) for prompt in many[:3]])
    assert sum(computed) == 60 + 3 * 9
    computed.clear()
    hf.branch([Node(prompt, (), children) for prompt in many[3:]])  # they add more than it has: read as groups
    assert sum(computed) > 5 * 9


def test_rows_that_nobody_asks_about_are_not_widened_for_long(hf: HFEngine) -> None:
    """A deep tree behind one prompt takes as much of every row in flight."""
    prompts = [Prompt(tuple(RNG.integers(10, 500, 20).tolist()), "movies") for _ in range(4)]
    path, children = tuple(RNG.integers(10, 500, 120).tolist()), np.array([5, 9, 200], np.int32)
    hf.forget()
    hf.branch([Node(prompt, (), children) for prompt in prompts])
    rows = []
    for depth in range(0, len(path), 10):
        [log_p] = hf.branch([Node(prompts[0], path[:depth], children)])
        assert hf._flight is not None
        rows.append(len(hf._flight.rows))
    assert rows[0] == 4 and rows[-1] == 1 and sorted(rows, reverse=True) == rows
    assert max(hf._flight.used) * 1 < 4 * hf.batch_tokens
    hf.forget()
    np.testing.assert_allclose(hf.branch([Node(prompts[0], path[:depth], children)])[0], log_p, atol=1e-4)


def test_no_adapter_is_the_base_model_whatever_was_asked_before(hf: HFEngine) -> None:
    base = HFEngine(tiny.model(width=128), tiny.tokenizer("gpt2"))
    prompt = some_prompts(1, (None,))[0]
    children = np.array([5, 9, 200], np.int32)
    expected = base.branch([Node(prompt, (), children)])[0]
    answers = {}
    for name in ("movies", None, "books", None, "movies"):
        answer = hf.branch([Node(Prompt(prompt.tokens, name), (), children)])[0]
        np.testing.assert_allclose(answers.setdefault(name, answer), answer, atol=1e-5)
    np.testing.assert_allclose(answers[None], expected, atol=1e-5)
    assert abs(answers["movies"] - expected).max() > 0.01 < abs(answers["movies"] - answers["books"]).max()


def test_a_ranking_is_exact_whatever_the_batch(hf: HFEngine) -> None:
    sequences = np.unique(RNG.integers(10, 100, (300, 3)), axis=0)
    choices, prompts = Choices(ChoiceTrie.build(sequences)), some_prompts(7)
    whole = log_p_all(hf, prompts, choices)
    for i, found in enumerate(rank(hf, prompts, choices, None, 20)):
        best = np.sort(whole[i])[::-1][:20]
        np.testing.assert_allclose(found.log_p, best, atol=1e-4)
        assert found.exact


def test_groups_stay_within_memory(hf: HFEngine) -> None:
    prompts = some_prompts(40)
    for group in hf.batches(prompts):
        assert len({prompts[i].adapter for i in group}) == 1
        assert len(group) * max(len(prompts[i].tokens) for i in group) <= 100


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (Prompt(()), "0 tokens"),
        (Prompt((5,) * 257), "257 tokens: this model takes 1 to 256"),
        (Prompt((5,), "nobody"), "'nobody' is not loaded"),
    ],
)
def test_what_cannot_be_asked_is_an_error(hf: HFEngine, prompt: Prompt, message: str) -> None:
    with pytest.raises(LlmrecError, match=message):
        hf.branch([Node(prompt, (), np.array([5, 9], np.int32))])


def test_in_16_bits_a_reply_takes_the_token_that_is_likeliest_in_float32() -> None:
    """The head's own scores tie where it has 256 numbers between 16 and 32: the first would be taken."""
    engine = HFEngine(tiny.model(vocabulary=5000, width=128).to(torch.bfloat16), tiny.tokenizer("gpt2"))
    hidden = 3 * torch.randn((400, 128), generator=torch.Generator().manual_seed(0))
    [*exact] = np.stack(engine._scores(hidden, [np.arange(5000, dtype=np.int32)] * 400)).argmax(1)
    rounded = engine.head(hidden.to(torch.bfloat16)).argmax(-1).tolist()
    assert engine._likeliest(hidden) == exact and rounded != exact
    assert len(engine.generate([Prompt((10, 11, 12))], max_tokens=5)) == 1
