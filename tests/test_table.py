"""Rows from files as people have them: nothing lost silently, whatever a row holds."""

from __future__ import annotations

import gzip
import json
import lzma
import zipfile

import fsspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmrec.errors import JobError
from llmrec.jobs import table
from llmrec.jobs.table import Row, Table


def write(tmp_path, name: str, content: str | bytes):
    path = tmp_path / name
    content = content.encode() if isinstance(content, str) else content
    if name.lower().endswith(".zip"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("inside", content)
    else:
        path.write_bytes(gzip.compress(content) if name.lower().endswith(".gz") else content)
    return str(path)


def rows(place: str, *columns: str, skip: int = 0) -> list[Row]:
    found = Table.find(place).rows(columns or ("user_id", "exclude"), skip=skip)
    return [row._replace(place="") for row in found]


@pytest.mark.parametrize(
    "name",
    ["a.csv", "a.tsv", "a.jsonl", "a.ndjson", "a.csv.gz", "a.csv.GZ", "a.jsonl.gz", "a.csv.zip", "a.parquet"],
)
def test_every_kind_reads_alike(tmp_path, name: str):
    users = [f"u{i}" for i in range(7)]
    path = tmp_path / name
    if ".csv" in name or ".tsv" in name:
        lines = ["user_id,other", *(f"{user},x" for user in users)]
        write(tmp_path, name, "\n".join(lines).replace(",", "\t" if "tsv" in name else ","))
    elif "parquet" in name:
        pd.DataFrame({"other": "x", "user_id": users}).to_parquet(path, row_group_size=3)
    else:
        write(tmp_path, name, "".join(json.dumps({"user_id": user, "other": 1}) + "\n" for user in users))
    assert rows(str(path)) == [Row(i, {"user_id": user}) for i, user in enumerate(users, 1)]
    for skip in range(9):
        assert rows(str(path), skip=skip) == rows(str(path))[skip:]
    assert Table.find(str(path)).measure().rows in (7, 6)  # a last line without its end does not count


def test_places_are_lines_as_editors_count(tmp_path):
    """Header, blank lines and line breaks within quotes are lines; Parquet has none."""
    write(tmp_path, "a-1.csv", 'user_id,exclude\r\na,1\r\n\r\nb,"2\n3"\r\nc,1,2\r\nd,4')
    write(tmp_path, "a-2.csv", "user_id\ne\n")
    write(tmp_path, "b.jsonl", '{"user_id": "a"}\n\n{torn\n{"user_id": "c"}')
    pd.DataFrame({"user_id": ["a", "b"]}).to_parquet(tmp_path / "c-1.parquet")
    pd.DataFrame({"user_id": ["c", "d"]}).to_parquet(tmp_path / "c-2.parquet")
    lines = [f"a-1.csv, line {line}" for line in (2, 4, 6, 7)] + ["a-2.csv, line 2"]
    read = [f"c-{file}.parquet, row {row}" for file in (1, 2) for row in (1, 2)]
    texts = [f"b.jsonl, line {line}" for line in (1, 3, 4)]
    for place, wanted in (("a-*.csv", lines), ("b.jsonl", texts), ("c-*.parquet", read)):
        for skip in range(len(wanted)):
            found = Table.find(f"{tmp_path}/{place}").rows(["user_id"], skip=skip)
            assert [row.place for row in found] == wanted[skip:]


def test_folders_patterns_and_urls(tmp_path):
    write(tmp_path, "b-2.csv", "user_id\nc\n\nd\n")
    write(tmp_path, "b-1.csv", "\ufeffuser_id\na\nb\n")  # as spreadsheets begin their files
    write(tmp_path, "_SUCCESS", "")
    for place in (str(tmp_path), f"{tmp_path}/b-*.csv", f"file://{tmp_path}/b-*.csv"):
        assert [(row.number, row.values["user_id"]) for row in rows(place)] == list(enumerate("abcd", 1))
        assert [row.values["user_id"] for row in rows(place, skip=2)] == ["c", "d"]
    memory = fsspec.filesystem("memory")
    memory.pipe("/batch/users.jsonl", b'{"user_id": "a"}\n')
    assert rows("memory://batch/users.jsonl") == [Row(1, {"user_id": "a"})]


def test_rows_that_cannot_be_read_say_why(tmp_path):
    place = write(
        tmp_path, "a.jsonl", b'{"user_id": 1}\n{oh\n[1]\n\n{"user_id": "\xff"}\n' + b"[" * 200_000 + b"\n{}\n"
    )
    problems = [row.problem for row in rows(place)]
    assert [row.number for row in rows(place)] == [1, 2, 3, 4, 5, 6]
    assert problems[0] == problems[5] == "" and problems[1].startswith("not JSON: ")
    assert problems[2:4] == ["a JSON object is expected, not list", "not UTF-8"] and problems[4].startswith("not JSON")
    place = write(tmp_path, "a.csv", b'user_id,x\na,1\nb\nc,1,2\n"d ""\n e",1\n\xff,1\nf,\n')
    assert [(row.values.get("user_id"), row.problem) for row in rows(place)] == [
        ("a", ""),
        (None, "1 fields where the header has 2"),
        (None, "3 fields where the header has 2"),
        ('d "\n e', ""),
        (None, "not UTF-8"),
        ("f", ""),
    ]
    assert rows(place, "x")[-1].values == {"x": None}


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_a_line_without_end_costs_one_row_and_no_memory(tmp_path, name: str, monkeypatch):
    monkeypatch.setattr(table, "MAX_LINE_BYTES", 5000)
    first = ["user_id"] if name == "a.csv" else []
    good = ["a", "b"] if name == "a.csv" else ['{"user_id": "a"}', '{"user_id": "b"}']
    place = write(tmp_path, name, "\n".join([*first, good[0], "x" * 20_000, good[1]]) + "\n")
    found = rows(place)
    assert [row.values.get("user_id") for row in found] == ["a", None, "b"]
    assert found[1].problem == "longer than 5,000 bytes"


@pytest.mark.parametrize(
    "long",
    [
        '"' + "x" * 20_000 + '"',
        '"a\n' + "x" * 20_000 + '"',
        '"' + "x" * 20_000 + '\nb0\nend"',
        '"' + 'x""' * 9_000 + '"',
    ],
)
def test_a_quoted_line_without_end_swallows_no_other(tmp_path, long: str, monkeypatch):
    monkeypatch.setattr(table, "MAX_LINE_BYTES", 5000)
    place = write(tmp_path, "a.csv", "\n".join(["user_id", "a", long, *(f"b{i}" for i in range(3000))]) + "\n")
    found = rows(place)
    assert [row.values.get("user_id") for row in found] == ["a", None, *(f"b{i}" for i in range(3000))]
    assert found[1].problem == "longer than 5,000 bytes"


def test_an_open_quote_is_said(tmp_path):
    place = write(tmp_path, "a.csv", 'user_id\na\n"b\n' + "c\n" * 100_000)
    assert [row.problem for row in rows(place)] == ["", "lines 3 to 100003: a quote is left open"]


def test_a_quoted_text_that_is_too_long_is_one_row(tmp_path, monkeypatch):
    """Its lines are not taken for rows, and those behind it are."""
    monkeypatch.setattr(table, "MAX_LINE_BYTES", 5000)
    review = "\n".join(['"', *["so good"] * 1000, '"'])
    place = write(tmp_path, "a.csv", "\n".join(["user_id", "a", review, "b", '"two\nlines"', '5" wide', "c"]) + "\n")
    found = rows(place)
    assert [row.values.get("user_id") for row in found] == ["a", None, "b", "two\nlines", '5" wide', "c"]
    assert found[1].problem.startswith("lines 3 to 1004: not CSV: field larger than field limit")


def test_names_may_hold_what_patterns_hold(tmp_path):
    (tmp_path / "[2026]").mkdir()
    other, wanted = write(tmp_path, "users1.csv", "user_id\na\n"), write(tmp_path, "users[1].csv", "user_id\nb\n")
    write(tmp_path / "[2026]", "c.csv", "user_id\nc\n")
    places = (wanted, other, f"{tmp_path}/[2026]", f"{tmp_path}/[2026]/c.csv", f"{tmp_path}/users?.csv")
    assert [[row.values["user_id"] for row in rows(place)] for place in places] == [["b"], ["a"], ["c"], ["c"], ["a"]]


def test_a_column_that_is_nearly_called_like_one_that_is_read_is_said(tmp_path):
    found = Table.find(write(tmp_path, "a.csv", "user_id,excluded,Candidates,note,date,id\n1,7,8,x,2,3\n"))
    assert [*found.misspelt(["user_id", "exclude", "candidates"])] == [
        "a.csv: column 'excluded' is not read; rename it if 'exclude' is meant",
        "a.csv: column 'Candidates' is not read; rename it if 'candidates' is meant",
    ]


def test_the_query_of_an_address_is_no_part_of_its_name():
    assert table._reader("https://host/users.csv?signature=a.b/c") == "csv"
    assert table._reader("https://host/users.jsonl.gz?x=1") == "jsonl" and table._reader("/data/users.csv?x") is None
    found = Table(("https://host/a/users.csv?key=secret",), "csv", None)
    assert found.names() == ["users.csv"]


def test_headers_as_spreadsheets_write_them(tmp_path):
    place = write(tmp_path, "a.csv", "user_id, exclude ,,\n1,7,,\n")
    assert rows(place) == [Row(1, {"user_id": "1", "exclude": "7"})]
    twice = pa.table([pa.array(["1"]), pa.array(["2"])], names=["user_id", "user_id"])
    pq.write_table(twice, tmp_path / "b.parquet")
    for read in (Table.columns, lambda found: [*found.rows(["user_id"])]):
        with pytest.raises(JobError, match="column 'user_id' appears twice"):
            read(Table.find(str(tmp_path / "b.parquet")))


def test_a_long_list_fits_into_a_cell(tmp_path):
    cell = ",".join(f"item{i}" for i in range(30_000))  # more than Python's own limit of 131,072 characters
    place = write(tmp_path, "a.csv", f'user_id,items\na,"{cell}"\n')
    assert [len(row.values["items"]) for row in rows(place, "user_id", "items")] == [len(cell)]


def test_what_cannot_be_found_or_read(tmp_path):
    write(tmp_path, "a.csv", "user_id\n")
    write(tmp_path, "b.jsonl", "")
    for place, message in [
        (str(tmp_path / "none.csv"), "no such file"),
        (str(tmp_path), "name files of one kind"),
        (write(tmp_path, "c.xlsx", ""), "name files of one kind: .csv"),
        ("nothing://x/y.csv", "cannot be read: Protocol not known"),
        (write(tmp_path, "d.parquet", "no parquet"), "cannot be read"),
        (write(tmp_path, "e.csv", "user_id,user_id\n1,2\n"), "column 'user_id' appears twice"),
        (write(tmp_path, "f.csv", "user,x\n1,2\n"), "no column 'user_id'; did you mean 'user'?"),
        (write(tmp_path, "g.csv", ""), "no column 'user_id'; it is empty"),
        (str(tmp_path / "b.jsonl"), "no column 'user_id'; it is empty"),
        (write(tmp_path, "c.jsonl", "[1]\n"), "its first row: a JSON object is expected, not list"),
    ]:
        with pytest.raises(JobError, match=message.replace("?", r"\?")):
            Table.find(place).require(["user_id"])
    (tmp_path / "h.csv").write_text("user_id,x\n1,2\n", encoding="utf-16")
    with pytest.raises(JobError, match=r"h\.csv: not UTF-8; save it as UTF-8"):
        Table.find(str(tmp_path / "h.csv")).require(["user_id"])
    (tmp_path / "i.jsonl.gz").write_bytes(gzip.compress(b'{"user_id": 1}\n' * 1000)[:-20])
    (tmp_path / "j.csv.gz").write_bytes(gzip.compress(b"user_id\n" * 1000)[:20] + b"\xff" * 20)
    (tmp_path / "k.csv.xz").write_bytes(lzma.compress(b"user_id\n" * 1000)[:40] + b"\xff" * 20)
    with zipfile.ZipFile(tmp_path / "l.csv.zip", "w") as archive:  # which of the two is meant?
        archive.writestr("1", "user_id\n1\n")
        archive.writestr("2", "user_id\n2\n")
    for name in ("i.jsonl.gz", "j.csv.gz", "k.csv.xz", "l.csv.zip"):
        with pytest.raises(JobError, match="cannot be read"):
            rows(str(tmp_path / name))


def test_a_header_of_which_one_name_is_not_utf8(tmp_path):
    (tmp_path / "a.csv").write_bytes("user_id,pr\xe9nom\n1,Bob\n".encode("latin-1"))
    Table.find(str(tmp_path / "a.csv")).require(["user_id"])
    assert [row.values["user_id"] for row in rows(str(tmp_path / "a.csv"))] == ["1"]
    with pytest.raises(JobError, match="no column 'pr\xe9nom'; not UTF-8"):
        Table.find(str(tmp_path / "a.csv")).require(["pr\xe9nom"])


def test_a_header_behind_blank_lines_and_keys_that_come_later(tmp_path):
    (tmp_path / "a.csv").write_text("\n\nuser_id,x\n1,2\n")
    (tmp_path / "b.jsonl").write_text('{"x": 1}\n{"user_id": 2}\n')
    for name, wanted in (("a.csv", ["1"]), ("b.jsonl", [None, 2])):
        Table.find(str(tmp_path / name)).require(["user_id"])
        assert [row.values.get("user_id") for row in rows(str(tmp_path / name))] == wanted


def test_other_separators_are_named(tmp_path):
    (tmp_path / "a.csv").write_text("user_id;candidates\nu;1\n")
    with pytest.raises(JobError, match="separated by ';'; save it with commas"):
        Table.find(str(tmp_path / "a.csv")).require(["user_id"])


def test_a_text_of_parquet_that_is_none_costs_its_row(tmp_path):
    texts = pa.array([b"a", b"\xff\xfe", b"c"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"user_id": texts}), tmp_path / "a.parquet")
    found = rows(str(tmp_path / "a.parquet"))
    assert [row.values.get("user_id") for row in found] == ["a", None, "c"]
    assert found[1].problem.startswith("not UTF-8")


def test_the_digest_is_of_the_content(tmp_path):
    one, other = write(tmp_path, "a.csv", "user_id\n1\n2\n"), write(tmp_path, "b.csv", "user_id\n1\n3\n")
    assert Table.find(one).measure() != Table.find(other).measure()
    first = Table.find(one).measure()
    (tmp_path / "moved").mkdir()
    assert Table.find(write(tmp_path / "moved", "c.csv", "user_id\n1\n2\n")).measure() == first
    assert (first.size, first.rows) == (12, 2)
