"""What people wrote of items, as examples: nothing that is asked for, or later, is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from llmrec import config
from llmrec.data.pairs import EARLIER, Pairs, of_split
from llmrec.errors import DataError

COLUMNS = {"user_id": "who", "item_id": "what", "review": "text", "title": "name"}


def written(folder: Path, rows: list[dict], **settings: object) -> config.ReviewSource:
    file = folder / "texts.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return config.ReviewSource(path=str(file), **({"columns": COLUMNS} | settings))


def dated(folder: Path, people: int = 12, **settings: object) -> config.ReviewSource:
    """Everybody writes five texts; the last two have one time."""
    rng = np.random.default_rng(0)
    rows = [
        {"who": f"u{u}", "what": f"i{item}", "name": f"Thing {item}", "when": 1000 * u + min(k, 3),
         "text": f"The strap number {u}-{k} holds the guitar well. I like it."}
        for u in range(people)
        for k, item in enumerate(rng.permutation(8)[:5])
    ]  # fmt: skip
    rng.shuffle(rows)
    return written(folder, rows, columns=COLUMNS | {"timestamp": "when"}, **settings)


def undated(folder: Path, people: int = 40, **settings: object) -> config.ReviewSource:
    rows = [
        {"who": u, "what": f"i{(u * 3 + k) % 20}", "name": f"Place {(u * 3 + k) % 20}",
         "text": f"For its view {u}.{k}" if u % 5 else "For its view", "person": f"Likes views of {u}"}
        for u in range(people)
        for k in range(2)
    ]  # fmt: skip
    return written(folder, rows, **settings)


def test_only_what_is_older_is_known(tmp_path: Path) -> None:
    pairs = Pairs.read(dated(tmp_path), Path)
    when = {(row.user_id, row.item_id): row.timestamp for row in pairs.table.itertuples()}
    text_at = {row.review: row.timestamp for row in pairs.table.itertuples()}
    examples = pairs.of_items()
    assert {one.split for one in examples} == {"train", "valid", "test"} and len(examples) == 60
    for one in examples:
        mine = when[one.user_id, one.item_id]
        earlier = [when[one.user_id, item.title.replace("Thing ", "i")] for item in one.earlier]
        assert len(earlier) == sum(time < mine for (user, _), time in when.items() if user == one.user_id)
        assert all(time < mine for time in earlier) and earlier == sorted(earlier)
        said = [text for text in text_at if text in one.item.about]
        assert all(text_at[text] < mine for text in said) and one.text not in said
    assert any(one.item.about for one in examples)


def test_what_others_say_comes_from_training_texts(tmp_path: Path) -> None:
    examples = Pairs.read(dated(tmp_path), Path).of_items()
    asked = {one.text for one in examples if one.split != "train"}
    assert not any(text in one.item.about for one in examples for text in asked)


def test_a_persons_last_texts_are_asked_for(tmp_path: Path) -> None:
    table = Pairs.read(dated(tmp_path), Path).table
    for _, mine in table.groupby("user_id"):
        assert sorted(mine["split"]) == ["test", "train", "train", "train", "valid"]
        last = {name: mine.loc[mine["split"] == name, "timestamp"].max() for name in ("train", "valid", "test")}
        assert last["train"] <= last["valid"] <= last["test"]


def test_the_sentence_that_explains_takes_the_place_of_the_text(tmp_path: Path) -> None:
    pairs = Pairs.read(dated(tmp_path, sentence=True), Path)
    assert "guitar" in pairs.features.idf
    assert all(text.startswith("The strap") and text.endswith("well.") for text in pairs.table["review"])


def test_without_times_whole_people_are_asked(tmp_path: Path) -> None:
    source = undated(tmp_path, valid=0.2, test=0.2)
    pairs = Pairs.read(source, Path)
    for examples in (pairs.of_items(), pairs.of_people()):
        people = {name: {one.user_id for one in examples if one.split == name} for name in ("train", "valid", "test")}
        texts = {name: {one.text for one in examples if one.split == name} for name in people}
        assert all(people.values())
        for a, b in (("train", "valid"), ("train", "test"), ("valid", "test")):
            assert not people[a] & people[b] and not texts[a] & texts[b]
    assert sum(one.text == "For its view" for one in pairs.of_items()) in range(1, 17)  # on one side only
    sides = {one.user_id: one.split for one in pairs.of_items()}
    assert all(sides.get(one.user_id, one.split) == one.split for one in pairs.of_people())


def test_people_are_known_by_what_they_chose(tmp_path: Path) -> None:
    more = tmp_path / "more.csv"
    more.write_text("user,item\n" + "".join(f"1,i{k}\n" for k in range(20)) + "1,unknown\n")
    history = config.ChoiceSource(path=str(more), columns={"user_id": "user", "item_id": "item"})
    source = undated(tmp_path, history=history)
    with pytest.raises(DataError, match="choices without times beside texts with them"):
        Pairs.read(dated(tmp_path, history=history), Path)
    source = undated(tmp_path, history=history)
    [one] = [one for one in Pairs.read(source, Path).of_people() if one.user_id == "1"]
    assert len(one.earlier) == EARLIER and all(item.title for item in one.earlier)
    explained = [one for one in Pairs.read(source, Path).of_items() if one.user_id == "1"]
    assert all(one.item not in one.earlier for one in explained)


def test_people_of_whose_choices_nothing_is_known_are_no_silence(tmp_path: Path) -> None:
    untitled = undated(tmp_path, columns={name: COLUMNS[name] for name in ("user_id", "item_id", "review")})
    with pytest.raises(DataError, match=r"none of the 33 people .* map columns\.title"):
        Pairs.read(untitled, Path).of_people()


def test_who_asks_for_it_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "gone.csv").write_text("who\nu0\nu3\n0\n3\n")
    for make in (dated, undated):
        everybody = Pairs.read(make(tmp_path), Path).table
        left = Pairs.read(make(tmp_path, leave_out=str(tmp_path / "gone.csv")), Path).table
        assert {*everybody["user_id"]} - {*left["user_id"]} <= {"u0", "u3", "0", "3"}
        both = everybody.merge(left, on=["user_id", "item_id", "review"])
        assert len(both) == len(left) < len(everybody) and (both["split_x"] == both["split_y"]).all()


def test_titles_from_a_file_of_items(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("what,label,said\ni0,Strap,It holds\ni0,Other,\ni1,,\n")
    rows = [{"who": f"u{u}", "what": f"i{u % 3}", "text": f"text {u}"} for u in range(30)]
    columns = {"user_id": "who", "item_id": "what", "review": "text", "title": "label", "about": "said"}
    pairs = Pairs.read(written(tmp_path, rows, columns=columns, items=str(tmp_path / "items.csv")), Path)
    assert {one.item_id: one.item.title for one in pairs.of_items()} == {"i0": "Strap", "i1": "", "i2": ""}
    assert pairs.items["i0"].about == "It holds"


def test_samples_are_fixed(tmp_path: Path) -> None:
    examples = Pairs.read(undated(tmp_path), Path).of_items()
    some = of_split(examples, "train", 10, seed=3)
    assert len(some) == 10 and some == of_split(examples, "train", 10, seed=3) != of_split(
        examples, "train", 10, seed=4
    )
    assert of_split(examples, "train", 0, seed=3) == [one for one in examples if one.split == "train"]


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="unknown name 'rating'"):
        Pairs.read(undated(tmp_path, columns=COLUMNS | {"rating": "stars"}), Path)
    with pytest.raises(DataError, match="no column 'tekst'"):
        Pairs.read(undated(tmp_path, columns=COLUMNS | {"review": "tekst"}), Path)
    (tmp_path / "items.csv").write_text("what,label\ni0,Strap\n")
    for items in (None, str(tmp_path / "items.csv")):
        for name in ("title", "about", "person"):
            with pytest.raises(DataError, match="no column 'nayme'"):
                Pairs.read(undated(tmp_path, columns=COLUMNS | {name: "nayme"}, items=items), Path)
    with pytest.raises(DataError, match="too few to split"):
        Pairs.read(undated(tmp_path, people=2), Path)
    with pytest.raises(DataError, match="no text is left for the split"):
        Pairs.read(dated(tmp_path, people=1, sentence=True), Path)


def test_the_digest_tells_splits_and_histories_apart(tmp_path: Path) -> None:
    one, same, other = (Pairs.read(undated(tmp_path, seed=seed), Path).digest for seed in (0, 0, 1))
    assert one == same != other


def test_the_digest_tells_the_split_of_people_apart_where_texts_have_times(tmp_path: Path) -> None:
    rows = [
        {
            "who": f"u{u}",
            "what": f"i{k}",
            "name": f"Thing {k}",
            "when": k,
            "text": f"The strap {u}-{k} holds well.",
            "person": f"Plays {u}",
        }
        for u in range(40)
        for k in range(5)
    ]
    columns = COLUMNS | {"timestamp": "when"}
    one, same, other = (Pairs.read(written(tmp_path, rows, columns=columns, seed=seed), Path) for seed in (0, 0, 1))
    assert one.table.equals(other.table) and one.sides != other.sides
    assert one.digest == same.digest != other.digest
    assert one.split_digest == same.split_digest != other.split_digest
    assert Pairs.read(dated(tmp_path), Path).split_digest == ""
    for example in one.of_items():  # what is asked of people is in no training example
        hidden = example.split == "train" and one.sides[example.user_id] != "train"
        assert example.person == ("" if hidden else f"Plays {example.user_id[1:]}")
