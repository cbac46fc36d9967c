"""recommend without a model: names, filters, and what people read."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from llmrec.data import names
from llmrec.data.catalog import Catalog
from llmrec.data.dataset import Dataset
from llmrec.data.names import Found, look_up, match_titles, meant_id, passes, plain, plain_ids, selected
from llmrec.errors import DataError, did_you_mean
from llmrec.recommend import answer, print_table, question, user_history

FILMS = [
    ("50", "Fargo", 1996, ("Crime", "Comedy")),
    ("7", "Heat", 1995, ("Crime",)),
    ("8", "Heat", 1986, ("Action",)),
    ("9", "Shawshank Redemption, The", 1994, ("Drama",)),
    ("10", "Empire Strikes Back, The", 1980, ("Action",)),
    ("11", "Empire Records", 1995, ("Comedy",)),
    ("12", "Amélie", 2001, ("Comedy",)),
    ("13", "Chasing Amy", 1997, ("Comedy",)),
    ("14", "Chasing Amy", 1997, ("Comedy",)),
    ("15", "Alien", 1979, ()),
    ("16", "Aliens", 1986, ()),
    ("17", "City of Lost Children, The (Cité des enfants perdus, La)", 1995, ()),
    ("18", "\x1b[31mRed\u202e", None, ("Drama",)),
    ("19", "M", 1931, ()),
    ("20", "Fish & Chips (1999)", None, ()),
    ("21", "Terminator, The", 1984, ()),
    ("22", "Terminator 2: Judgment Day", 1991, ()),
]  # fmt: skip
CATALOG = Catalog(*map(list, zip(*FILMS, strict=True)))


def ids(*given: str) -> list[str]:
    return [CATALOG.item_id[i] for i in match_titles(given, CATALOG)]


@pytest.mark.parametrize(
    ("name", "item_id"),
    [
        ("Fargo", "50"),
        ("  fARGO ", "50"),
        ("Fargo (1996)", "50"),
        ("Fargoo", "50"),
        ("Heat (1986)", "8"),
        ("Heat (1987)", "8"),  # sources differ by a year
        ("heat(1995)", "7"),
        ("The Shawshank Redemption", "9"),
        ("Shawshank Redemption", "9"),
        ("shawshank", "9"),
        ("Shawshank Redemptoin, The", "9"),
        ("amelie", "12"),
        ("Chasing Amy", "13"),  # the catalog has it twice, and nobody can tell them apart
        ("Alien", "15"),
        ("Aliens", "16"),
        ("The City of Lost Children", "17"),
        ("Cite des enfants perdus", "17"),
        ("Terminator 2", "22"),  # not a misspelt Terminator
        ("Terminatr", "21"),
        ("m", "19"),
        ("fish and chips", "20"),
        ("Fish & Chips (1999)", "20"),
        ("item:14", "14"),
    ],
)
def test_names_as_people_write_them(name: str, item_id: str):
    assert ids(name) == [item_id]


def test_a_title_as_it_stands_is_always_found():
    """Also where the number in it is not the year that the catalog says."""
    odd = Catalog(["a", "b", "c"], ["Heat (1995)", "Blade Runner (2049)", "Alien"], [2010, 2017, 1979], [()] * 3)
    for name, place in (("Heat (1995)", 0), ("heat (2010)", 0), ("Blade Runner (2049)", 1), ("Blade Runner (2017)", 1)):
        assert match_titles([name], odd) == [place]
    for name in ("Alien (2003)", "Aliem (2003)", "Runner (1982)"):  # a slip and a part are of a year, too
        with pytest.raises(DataError, match="no title like"):
            match_titles([name], odd)


def test_names_keep_their_order():
    assert ids("Heat (1995)", "Fargo", "Heat (1995)") == ["7", "50", "7"]
    assert ids() == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Heat", "'Heat': which one: 'Heat (1995)', 'Heat (1986)'?"),
        ("Heat (2001)", "'Heat (2001)': which one: 'Heat (1995)', 'Heat (1986)'?"),
        ("Fargo (2014)", "no title like 'Fargo (2014)' among 17; nearest: 'Fargo (1996)'"),  # that is another one
        ("Empire", "which one: 'Empire Strikes Back, The (1980)', 'Empire Records (1995)'?"),
        ("Xyzzy Plugh", "no title like 'Xyzzy Plugh' among 17"),
        ("Shawshenk Rediption Part", "nearest: 'Shawshank Redemption, The (1994)'"),
        ("item:99", "no item with the id '99'"),
        ("14", "no title like '14' among 17; the item with this id is 'item:14'"),
        ("...", "no letters or digits"),
        ("", "no letters or digits"),
    ],
)
def test_names_that_need_asking(name: str, message: str):
    with pytest.raises(DataError) as error:
        ids(name)
    assert message in str(error.value)


def test_what_no_title_tells_apart_is_offered_by_id():
    books = Catalog(["a", "b", "c"], ["War and Peace", "War and Peace", "WAR AND PEACE"], [2010, None, None], [()] * 3)
    with pytest.raises(DataError, match=r"one: 'War and Peace \(2010\)', 'War and Peace' \(item:b\), 'WAR AND"):
        match_titles(["war and peace"], books)
    assert match_titles(["War and Peace (2010)", "item:b"], books) == [0, 1]


def test_names_are_compared_with_all_titles_so_often_and_no_more():
    odd = [f"Qx{chr(97 + i % 26)}{chr(97 + i // 26)}zq Fargo" for i in range(names.MAX_LOOKED + 1)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(names, "MAX_PROBLEMS", 1000)
        with pytest.raises(DataError, match="more than 100 titles are not as the catalog writes them; .* item:ID"):
            match_titles(odd, CATALOG)
    many = [f"{name}{'!' * i}" for i in range(names.MAX_LOOKED) for name in ("Fargo", "shawshank")]
    assert len({*many}) > names.MAX_LOOKED and len(match_titles(many, CATALOG)) == len(many)


def test_every_bad_name_is_told_at_once():
    with pytest.raises(DataError, match="(?s)'Heat': which one.*no title like 'Xyzzy'"):
        ids("Heat", "Fargo", "Xyzzy")


def test_plain():
    assert plain("L'Avventura, The (1960)") == plain("lavventura")
    assert plain("The") == "the"  # an article alone is a title
    assert plain("ﬁsh—CHIPS!") == "fish chips"


@pytest.mark.parametrize(
    ("text", "item_ids"),
    [
        ("category=Drama", ["9", "18"]),
        ("category= drama , crime", ["50", "7", "9", "18"]),
        ("year=1995", ["7", "11", "17"]),
        ("year=1994..1995", ["7", "9", "11", "17"]),
        ("year=..1979", ["15", "19"]),
        ("Year=1997..", ["12", "13", "14"]),
    ],
)
def test_filters(text: str, item_ids: list[str]):
    assert [CATALOG.item_id[i] for i in np.flatnonzero(passes(CATALOG, text))] == item_ids


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("category=Commedy", "no category 'commedy'; did you mean 'Comedy'?"),
        ("genre=Comedy", "write category=Comedy"),
        ("genre=Commedy", "write category=NAME,NAME or year=FROM..TO"),
        ("catgory=comedy", "write category=Comedy"),
        ("Comedy", "write category=Comedy"),
        ("category=", "no category ''"),
        ("year=", "write year=1994"),
        ("year=..", "write year=1994"),
        ("year=19951996", "write year=1994"),
        ("year=1999..1990", "comes after"),
        ("year=-5", "write year=1994"),
    ],
)
def test_filters_that_are_none(text: str, message: str):
    with pytest.raises(DataError) as error:
        passes(CATALOG, text)
    assert message in str(error.value)


def test_what_was_meant_is_found_whatever_its_case():
    assert "did you mean 'Fiction'?" in did_you_mean("fictio", ["Fiction", "Non fiction"])
    assert "'FICTION'" in did_you_mean("fictio", ["FICTION", *(f"genre {i}" for i in range(50))])


def test_filters_together():
    allowed = selected(CATALOG, ["category=Comedy", "year=1990..1999"], ["category=Crime"])
    assert allowed is not None
    assert [CATALOG.item_id[i] for i in np.flatnonzero(allowed)] == ["11", "13", "14"]
    assert selected(CATALOG, [], []) is None


class Fake:
    """Prefers items by position; what a `Recommender` promises, and a note of what it was asked."""

    def __init__(self) -> None:
        events = pd.DataFrame({"user_id": ["a", "b", "a"], "item_id": ["7", "9", "50"], "timestamp": [2, 1, 1]})
        users = pd.DataFrame({"user_id": ["a", "b", "newcomer"]})
        items = pd.DataFrame({"item_id": CATALOG.item_id, "title": CATALOG.title})
        self.dataset = Dataset.of(events, items, users)
        self.catalog, self.recipe, self.adapter = CATALOG, SimpleNamespace(domain="films"), "films"

    def rank(self, histories, n, *, exclude, allowed, prior):
        self.asked = histories
        lists = []
        for history, left_out in zip(histories, exclude, strict=True):
            free = [
                i for i in range(len(CATALOG))
                if i not in history and i not in left_out and (allowed is None or allowed[i])
            ][:n]  # fmt: skip
            log_p = np.log(1 / 2 ** (np.arange(len(free), dtype=np.float32) + 1))
            lists.append(SimpleNamespace(items=np.array(free, int), log_p=log_p, score=log_p + prior, exact=True))
        return lists


def ask(model: Fake, n: int = 10, *, prior: bool = True, **words):
    return answer(model, question(model.dataset, model.catalog, **words), n, prior=prior)


def test_a_user_then_titles():
    model = Fake()
    found = ask(model, user="a", history=["Alien"], n=2, exclude=["Heat (1986)", "category=Drama"], prior=False)
    assert model.asked == [[0, 1, 9]]  # Fargo came before Heat in time
    assert found.history == ("Fargo", "Heat", "Alien")
    assert [(item.rank, item.item_id) for item in found.items] == [(1, "10"), (2, "11")]
    assert [item.p for item in found.items] == pytest.approx([1 / 2, 1 / 4])
    assert [item.score for item in found.items] == pytest.approx(np.log([1 / 2, 1 / 4]), abs=1e-6)


def test_without_anything():
    assert [item.item_id for item in ask(Fake(), n=1).items] == ["50"]
    assert ask(Fake(), user="newcomer", n=1).history == ()  # known, without interactions


def test_unknown_user():
    with pytest.raises(DataError, match=r"no user 'zoe' among 3 \(a, b, newcomer, …\); .*--history"):
        user_history("zoe", Fake().dataset, CATALOG)


@pytest.mark.parametrize(
    ("written", "near"),
    [("042", "42"), ("42.0", "42"), (" 42 ", "42"), ("42", "0042.0"), ("0", "000"), (" Zoë", "zoë"), ("É", "é")],
)
def test_an_id_that_was_changed_on_the_way_is_recognised(written: str, near: str):
    assert meant_id(written, plain_ids(["7", near])) == f"; did you mean '{near}'?"


@pytest.mark.parametrize("other", ["420", "4", "4 2", "42.5", "-42", "u42", ""])
def test_another_id_is_another_id(other: str):
    assert meant_id(other, plain_ids(["42", "7"])) == ""


def test_the_user_that_was_meant():
    dataset = Fake().dataset
    with pytest.raises(DataError, match=r"no user ' A' among 3 \(a, b, newcomer, …\); did you mean 'a'\?$"):
        user_history(" A", dataset, CATALOG)


def test_nothing_left():
    found = ask(Fake(), only=["year=1850"])
    assert found.items == ()
    assert "nothing is left" in printed(found)


def printed(found) -> str:
    console = Console(width=100, record=True, file=io.StringIO())
    print_table(found, console)
    return console.export_text()


def test_table_and_json():
    found = ask(Fake(), user="b", n=100, prior=False)
    text = printed(found)
    assert "films for user b" in text and "Fargo" in text and "50.00%" in text and "-0.69" in text
    assert "\x1b" not in text and "\u202e" not in text  # a title cannot steer the terminal
    again = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert list(again) == ["domain", "adapter", "user", "history", "exact", "items"]
    assert list(again["items"][0]) == ["rank", "item_id", "title", "year", "categories", "score", "log_p", "p"]
    assert next(item for item in again["items"] if item["item_id"] == "18")["year"] is None


def test_looking_up_says_what_a_name_may_mean():
    def found(name: str) -> list[str]:
        return [CATALOG.item_id[i] for i in look_up(name, CATALOG).items]

    assert found("Heat") == ["7", "8"] and found("heat (1986)") == ["8"]
    assert found("chasing amy") == ["13"]  # the two look alike
    assert look_up("Xyzzy Plugh", CATALOG) == Found(()) and look_up("…", CATALOG) == Found(())
    assert CATALOG.item_id[look_up("Shawshenk Rediption Part", CATALOG).near[0]] == "9"


def test_a_category_may_hold_commas() -> None:
    catalog = Catalog(
        ["a", "b"], ["Coat", "Ring"], [None, None], [("Clothing, Shoes & Jewelry", "Coats"), ("Jewelry",)]
    )
    assert passes(catalog, "category=clothing, shoes & jewelry").tolist() == [True, False]
    assert passes(catalog, "category=Coats,Jewelry").tolist() == [True, True]
