"""Texts that name things: names come from closed sets only, replies end whole, training and answering agree."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import tiny

from llmrec.choices.search import Choices
from llmrec.choices.trie import ChoiceTrie
from llmrec.engine import Prompt
from llmrec.engine.asks import cut
from llmrec.engine.fake import FakeEngine
from llmrec.errors import PromptError
from llmrec.model.encode import Encoder
from llmrec.tasks.template import Name
from llmrec.writing import MAX_NAMES, Allowed, Names, encoded, plain, reworded, sound, whole_sentences, write

TITLES, KINDS = ["Fargo", "Heat", "Seven (Se7en)", "Toy Story 2 (1999)"], ["Crime", "Drama", "War"]


class Scripted(FakeEngine):
    """Says one text after the other, whoever asks."""

    def __init__(self, *texts: str) -> None:
        super().__init__()
        self.texts = list(texts)
        self.asked: list[tuple[int, ...]] = []

    def generate(
        self, prompts: Sequence[Prompt], *, max_tokens: int, stop: Sequence[str] = (), keep_stop: bool = False
    ) -> list[str]:
        self.asked += [prompt.tokens for prompt in prompts]
        text = self.texts.pop(0)
        return [cut(text, stop, keep_stop) for _ in prompts]


def only(*allowed: dict[str, Sequence[int]]) -> Allowed:
    """The same whatever was said."""
    return lambda i, kind, said: allowed[i].get(kind, ())


@pytest.fixture(params=["gpt2", "qwen", "sentencepiece"])
def encoder(request: pytest.FixtureRequest) -> Encoder:
    return Encoder(tiny.tokenizer(request.param))


def names(encoder: Encoder) -> dict[str, Names]:
    def closed(texts: list[str]) -> Names:
        lines = [np.asarray(ids, np.int32) for ids in encoder.lines(texts)]
        return Names(texts, lines, Choices(ChoiceTrie.build(lines)))

    return {"item": closed(TITLES), "category": closed(KINDS)}


def test_a_reply_is_written_as_it_is_taught(encoder: Encoder) -> None:
    known = names(encoder)
    parts = ["Mostly ", Name.of("category", "Drama"), ", such as ", Name.of("item", "Heat"), "."]
    engine = Scripted("Mostly <", ", such as [", ".")
    [reply] = write(engine, encoder, [Prompt((7,))], known, only({"item": [1], "category": [1]}))
    assert reply == parts and plain(reply) == "Mostly Drama, such as “Heat”."
    taught = encoded(parts, known, encoder)
    assert taught[-1] == encoder.end and tuple(taught[: len(engine.asked[-1]) - 1]) == engine.asked[-1][1:]


def test_only_what_is_allowed_is_named_and_once(encoder: Encoder) -> None:
    engine = Scripted("See [", " and [", " and [", " and more. Bye [")
    [reply] = write(engine, encoder, [Prompt((7,))], names(encoder), only({"item": [3, 0, 3]}))
    named = [part for part in reply if isinstance(part, Name)]
    assert sorted(named) == ["Fargo", "Toy Story 2 (1999)"] or named == []  # the third name had nothing left
    assert reply == []  # …and the sentence never ended

    engine = Scripted("See [", " and [", ". Then [")
    [reply] = write(engine, encoder, [Prompt((7,))], names(encoder), only({"item": [3, 0]}))
    assert sorted(part for part in reply if isinstance(part, Name)) == ["Fargo", "Toy Story 2 (1999)"]
    assert reply[-1] == "."


def test_a_kind_that_may_not_be_named_ends_the_reply(encoder: Encoder) -> None:
    [reply] = write(Scripted("It is good. It is <"), encoder, [Prompt((7,))], names(encoder), only({"item": [0]}))
    assert reply == ["It is good."]
    many = Scripted(*["One. And ["] * (MAX_NAMES + 5))
    wide = {"item": Names([str(i) for i in range(40)], *_numbers(encoder)), "category": names(encoder)["category"]}
    [reply] = write(many, encoder, [Prompt((7,))], wide, only({"item": range(40)}))
    assert sum(isinstance(part, Name) for part in reply) <= MAX_NAMES


def test_what_may_be_named_depends_on_what_was_said(encoder: Encoder) -> None:
    def allowed(i: int, kind: str, said: Sequence[str | Name]) -> list[int]:
        return [0, 1] if kind == "category" else [2] if "Crime" in said else [3]

    [reply] = write(Scripted("It is <", ", so [", "."), encoder, [Prompt((7,))], names(encoder), allowed)
    assert reply[3] == ("Seven (Se7en)" if reply[1] == "Crime" else "Toy Story 2 (1999)")


def test_several_replies_at_once_have_their_own_names(encoder: Encoder) -> None:
    engine = Scripted("Take [", ".")
    replies = write(
        engine, encoder, [Prompt((i,)) for i in range(4)], names(encoder), only(*({"item": [i]} for i in range(4)))
    )
    assert [reply[1] for reply in replies] == TITLES


def test_text_that_runs_into_a_name_or_is_not_printed_ends_a_reply() -> None:
    heat = Name.of("item", "Heat")
    assert sound(["Like ", heat, ", and ", heat, "."]) == ["Like ", heat, ", and ", heat, "."]
    assert sound([heat, "'s kind."]) == [heat, "'s kind."]
    for junk in ("Sense\n, picked.", "s are.", " is\x00.", " is \ufffd."):
        assert sound(["Good. Like ", heat, junk, heat]) == ["Good. Like ", heat]
    assert whole_sentences(sound(["Good. Like ", heat, "Sense."])) == ["Good."]


def test_sentences_of_other_scripts() -> None:
    """Which end otherwise, and put no space behind a name."""
    drama = Name.of("category", "Drama")
    after = [
        "が好きです。",
        "\u3000が好き。」",
        "ﾃﾞｽ｡",
        "를 좋아합니다.",
        "ชอบ.",
        " पसंद है।",
        " يحب؟",
        " می\u200cبیند.",
        "\xa0: oui.",
        ' said "yes."',
    ]
    for text in after:
        assert whole_sentences(sound([drama, text])) == [drama, text]
    assert whole_sentences(["主に", drama, "が好き。また"]) == ["主に", drama, "が好き。"]


def test_replies_end_with_a_sentence() -> None:
    heat = Name.of("item", "Heat 2. The End")
    assert whole_sentences(["Good. And ", heat]) == ["Good."]
    assert whole_sentences(["It is ", heat, ", too! But"]) == ["It is ", heat, ", too!"]
    assert whole_sentences(["No end ", heat]) == [] and whole_sentences([]) == []


def test_only_what_nothing_is_left_of_is_asked_in_other_words() -> None:
    says = {0: ["a", "", ""], 4: ["", "b", ""], 2: ["", "", ""]}
    asked: list[tuple[list[int], int]] = []

    def ask(left: list[int], wording: int) -> list[str]:
        asked.append((left, wording))
        return [says[wording][i] for i in left]

    assert reworded(3, (0, 4, 2), ask) == ["a", "b", ""]
    assert asked == [([0, 1, 2], 0), ([1, 2], 4), ([2], 2)]
    assert reworded(1, (0, 4), ask) == ["a"] and len(asked) == 4
    assert reworded(0, (0, 4), ask) == [] and len(asked) == 4


def test_what_cannot_be_taught_is_said(encoder: Encoder) -> None:
    known = names(encoder)
    with pytest.raises(PromptError, match="no item is called 'fargo'"):
        encoded([Name.of("item", "fargo")], known, encoder)
    with pytest.raises(PromptError, match="opens a name"):
        encoded(["a [ b"], known, encoder)


def _numbers(encoder: Encoder) -> tuple[list[np.ndarray], Choices]:
    lines = [np.asarray(ids, np.int32) for ids in encoder.lines([str(i) for i in range(40)])]
    return lines, Choices(ChoiceTrie.build(lines))
