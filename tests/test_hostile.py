"""Hostile titles and categories in every task that reads a history: shown on token ids, whatever the wording."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
from test_judge import HOSTILE

from llmrec import config
from llmrec.follow_up import FollowUp
from llmrec.learning.next_item import recommender
from llmrec.model.encode import Encoder
from llmrec.tasks.template import Template

PROMPTS = Path(__file__).parent.parent / "prompts"
TASKS = ("interest", "interest_summary", "explanation")
HISTORY, ITEM = [1, 0, 2, 0], 0


def asking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, title: str, category: str
) -> dict[str, FollowUp]:
    """The tasks after a list, over four items of which the first is called `title` and belongs to `category`."""
    monkeypatch.setenv("LLMREC_HOME", str(tmp_path / "home"))
    names = [title, "Heat", "Fargo", "Seven"]
    items = [
        {"item_id": f"i{i}", "title": name, "categories": [category if i == 0 else "Drama"]}
        for i, name in enumerate(names)
    ]
    events = [{"user_id": f"u{u}", "item_id": f"i{(u + k) % 4}", "timestamp": k} for u in range(4) for k in range(4)]
    for name, rows in (("items", items), ("events", events)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = config.Recipe(
        domain="odd", tasks={"next_item": {}, **{task: {} for task in TASKS}}, fit={"window_tokens": 400},
        data={"path": str(tmp_path / "events.jsonl"), "items": str(tmp_path / "items.jsonl")},
    )  # fmt: skip
    model = recommender(recipe, Encoder(tiny.tokenizer(kind)), None)
    assert len(model.catalog) == 4
    return {task: FollowUp.build(model, Template.load(PROMPTS / f"{task}.yaml")) for task in TASKS}


@pytest.mark.parametrize("kind", ["gpt2", "qwen", "sentencepiece"])
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_no_title_or_category_ends_a_turn_or_opens_a_role(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, text: str
) -> None:
    for folder in ("odd", "plain"):
        (tmp_path / folder).mkdir()
    odd = asking(tmp_path / "odd", monkeypatch, kind, text, text)
    plain = asking(tmp_path / "plain", monkeypatch, kind, "Alien", "Horror")
    encoder = odd["interest"].recommender.encoder

    def control(tokens: tuple[int, ...]) -> list[int]:
        return [token for token in tokens if token in encoder.control]

    for task, follow_up in odd.items():
        for wording in follow_up.template.wordings():
            found, wanted = (
                one.prompts([HISTORY], [{"item": one.item_slot(ITEM)}], wording)[0].tokens
                for one in (follow_up, plain[task])
            )  # fmt: skip
            assert control(found) == control(wanted) and len(control(wanted)) >= 2
            assert len(found) <= 400 + 800  # the window, and a turn with 300 characters each of a title and a category
            if kind != "sentencepiece":
                assert found[-3:] == wanted[-3:]  # the turn that opens is ours
    model = odd["interest"].recommender
    for wording in model.template.wordings():
        [found], [wanted] = (one["interest"].recommender.prompts([HISTORY], wording) for one in (odd, plain))
        assert control(found.tokens) == control(wanted.tokens)
    for line in model.listing.lines:  # what search and training name items with
        assert not encoder.control & {*line.tolist()}
