"""What sentences claim, read back by the shipped replies, and left out where it does not hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmrec.tasks import explanation, interest_summary
from llmrec.tasks.claims import Claim, Readings, borne_out, read, readings, sentences
from llmrec.tasks.template import Name, Template

PROMPTS = Path(__file__).parent.parent / "prompts"
DOMAIN = {"noun": "films", "unit": "film"}
LINES = ["Fargo", "Heat", "Seven", "Alien", "Brazil", "Casino", "Diner", "Evita", "Fever", "Gattaca", "Hook", "Ikiru"]
KINDS = [("Drama",), ("Action", "Crime"), ("Crime",)] * 4  # Drama 4 of 12, Crime 8 of 12, Action 4 of 12


def category(text: str) -> Name:
    return Name.of("category", text)


def item(text: str) -> Name:
    return Name.of("item", text)


@pytest.fixture(scope="module")
def reasons() -> Readings:
    return readings(Template.load(PROMPTS / "explanation.yaml"), explanation.variants(), DOMAIN)


@pytest.fixture(scope="module")
def summaries() -> Readings:
    return readings(Template.load(PROMPTS / "interest_summary.yaml"), interest_summary.variants(), DOMAIN)


def of_item(*own: str) -> Callable[[Claim], bool]:
    return lambda claim: explanation.holds(claim, LINES, KINDS, own)


def test_replies_are_cut_into_whole_sentences() -> None:
    heat = item("Heat. No. 2")
    parts = ["It is ", heat, ", too. Like", " St.", heat, "! And"]
    assert sentences(parts) == [["It is ", heat, ", too."], [" Like", " St.", heat, "!"]]
    assert sentences(["主に", heat, "が好き。また"]) == [["主に", heat, "が好き。"]]
    assert sentences(["主に。", heat, "が好き。"]) == [["主に。"], [heat, "が好き。"]]
    assert sentences([]) == [] and sentences(["No end ", heat]) == []


@pytest.mark.parametrize("own", [("Crime", "Drama"), ("Drama",), ("War",), ()])
@pytest.mark.parametrize("near", [None, 0, 11])
def test_what_the_data_says_holds(reasons: Readings, own: tuple[str, ...], near: int | None) -> None:
    facts = explanation.facts(LINES, KINDS, own, near)
    if facts is None:
        assert not own and near is None
        return
    template = Template.load(PROMPTS / "explanation.yaml")
    for wording in range(len(template.replies)):
        reply = template.reply_parts({**facts, "domain": DOMAIN}, wording)
        assert all(read(sentence, reasons) for sentence in sentences(reply))
        assert "".join(borne_out(reply, reasons, of_item(*own))) == "".join(reply)


@pytest.mark.parametrize(
    ("own", "reply", "kept"),
    [
        (("War",), ["This person often chooses ", category("War"), ", and this is one. It often goes together with ",
                    item("Ikiru"), ", which is among the latest choices."], 1),
        (("Crime",), ["This person often chooses ", category("Crime"), ", and this is one."], 1),
        (("Crime",), ["This person has chosen ", category("Crime"), ", and this is one."], 1),  # no denial of "often"
        (("Crime", "War"), ["This person often chooses ", category("Crime"), " and ", category("War"),
                            ", and this is one."], 0),
        (("Crime", "Action", "Drama"), ["This person often chooses ", category("Crime"), " and ", category("Action"),
                                        " and ", category("Drama"), ", and this is one."], 1),
        (("Crime", "War", "Drama"), ["This person often chooses ", category("Crime"), " and ", category("Drama"),
                                     " and ", category("War"), ", and this is one."], 0),
        (("Crime",), ["This adds ", category("Crime"), " to the history."], 0),
        (("War",), ["This adds ", category("War"), " to the history."], 1),
        (("War",), ["It often goes together with ", item("Fargo"), ", which is among the latest choices."], 0),
        (("War",), ["It often goes together with ", item("Fargo"), "."], 1),
        (("War",), ["It often goes together with ", item("Ikiru"), "."], 1),
        (("War",), ["It is a fine ", category("War"), " film."], 1),  # no reply says so: nobody knows what it claims
    ],
)  # fmt: skip
def test_a_reason_loses_what_does_not_hold(reasons: Readings, own: Any, reply: list[str | Name], kept: int) -> None:
    assert len(sentences(borne_out(reply, reasons, of_item(*own)))) == kept


@pytest.mark.parametrize(
    ("rising", "latest", "kept"), [("War", "late 1", 2), ("Drama", "late 1", 1), ("War", "early 1", 1)]
)
def test_a_summary_loses_what_is_not_so_of_late(summaries: Readings, rising: str, latest: str, kept: int) -> None:
    lines = [f"early {i}" for i in range(20)] + [f"late {i}" for i in range(10)]
    kinds = [("Drama",)] * 20 + [("War",), ("War", "Drama")] * 5
    reply = [
        "Mostly ", category("Drama"), ", with films such as ", item("early 2"), ". Lately more ", category(rising),
        ": ", item(latest), " is one of them.",
    ]  # fmt: skip
    found = borne_out(reply, summaries, lambda claim: interest_summary.holds(claim, lines, kinds))
    assert len(sentences(found)) == kept and found[:2] == reply[:2]
    facts = interest_summary.facts(lines, kinds)
    assert facts is not None and facts["rising"] == "War"
    template = Template.load(PROMPTS / "interest_summary.yaml")
    for wording in range(len(template.replies)):
        said = template.reply_parts({**facts, "domain": DOMAIN}, wording)
        assert all(read(sentence, summaries) for sentence in sentences(said))
        whole = borne_out(said, summaries, lambda claim: interest_summary.holds(claim, lines, kinds))
        assert "".join(whole) == "".join(said)


@pytest.mark.parametrize(
    ("reply", "kept"),
    [
        (["Mostly ", category("Crime"), ", with films such as ", item("Heat"), "."], 1),
        (["Mostly ", category("Action"), ", also ", category("Crime"), ", with films such as ", item("Heat"), "."], 0),
        (["The favourite category is ", category("Drama"), "; ", item("Fargo"), " stand for it."], 0),
        (["The favourite category is ", category("Crime"), "; ", item("Heat"), " stand for it. ", category("Drama"),
          " follows after it."], 2),
        (["The favourite category is ", category("Crime"), "; ", item("Heat"), " stand for it. ", category("War"),
          " follows after it."], 1),
    ],
)  # fmt: skip
def test_a_summary_names_what_leads_and_what_follows(summaries: Readings, reply: list[str | Name], kept: int) -> None:
    """Crime has half of the history, Drama a third, Action a sixth."""
    found = borne_out(reply, summaries, lambda claim: interest_summary.holds(claim, LINES, KINDS))
    assert len(sentences(found)) == kept


def test_edited_replies_are_read_as_well(tmp_path: Path) -> None:
    (tmp_path / "explanation.yaml").write_text(
        "task: explanation\nversion: 1\nfollows: next_item\nslots: [item]\nuser: [{text: 'Why {{ item.title }}?'}]\n"
        "reply: text\nfacts: [shared, often, other, near, lately]\nreplies:\n"
        "  - '{% if other %}It is {{ other }}.{% else %}It is {{ shared[0] }}.{% endif %}"
        "{% if often %} A regular choice here.{% endif %}{% if near %} Like {{ near }}.{% endif %}'\n"
    )
    known = readings(Template.load(tmp_path / "explanation.yaml"), explanation.variants(), DOMAIN)
    reply = ["It is ", category("Drama"), ". A regular choice here."]
    for own, kept in ((("Drama",), 2), (("Crime", "Drama"), 2), (("War", "Drama"), 2)):
        assert len(sentences(borne_out(reply, known, of_item(*own)))) == kept
    rare = [("Drama",), *[("Crime",)] * 11]
    found = borne_out(reply, known, lambda claim: explanation.holds(claim, LINES, rare, ("Drama",)))
    assert "".join(found) == "It is Drama."
