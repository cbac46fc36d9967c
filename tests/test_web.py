"""llmrec web: real HTTP in front of a small trained model; what is asked together is answered as alone."""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import PATIENCE
from typer.testing import CliRunner

from llmrec import cli, config
from llmrec.errors import DataError, EngineError, RecipeError
from llmrec.explain import explain
from llmrec.recommend import recommend
from llmrec.recommender import Recommender
from llmrec.summarize import summarize
from llmrec.web import app as web
from llmrec.web import batcher
from llmrec.web.batcher import Batcher, Busy, Caller, ListAsked

JSON = {"Content-Type": "application/json"}


def until(true: Callable[[], bool]) -> None:
    """Waits, and fails where it never becomes so."""
    ends = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.01)


class Server:
    """A running application, asked over a real connection."""

    def __init__(self, answers: web.Answers) -> None:
        self.answers = answers
        self.listener = web.listen("127.0.0.1", 0)
        self.port = self.listener.getsockname()[1]
        self.uvicorn = web.Server(answers, config.LOOPBACK)
        self.thread = threading.Thread(target=self.uvicorn.run, kwargs={"sockets": [self.listener]})
        self.thread.start()
        until(lambda: self.uvicorn.started)

    def close(self) -> None:
        self.uvicorn.should_exit = True
        self.thread.join()

    def ask(
        self, path: str, body: Any = None, headers: dict[str, str] | None = None, method: str | None = None
    ) -> tuple[int, Any, dict[str, str]]:
        """Status, answer (JSON where it is), headers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        sent = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(
            method or ("GET" if body is None else "POST"), path, sent, JSON if headers is None else headers
        )
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        kind = answer.getheader("content-type", "")
        return answer.status, json.loads(content) if "json" in kind else content.decode(), dict(answer.getheaders())


@pytest.fixture(autouse=True)
def here(films: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMREC_PROJECT", str(films))


@pytest.fixture(scope="module")
def model(films: Path, films_adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMREC_PROJECT", str(films))
        patch.setenv("LLMREC_HOME", str(tmp_path_factory.mktemp("web")))
        return Recommender.load(config.load_recipe("films"), "films")


@pytest.fixture(scope="module")
def server(model: Recommender) -> Iterator[Server]:
    server = Server(web.Answers(model, engine="hf"))
    yield server
    server.close()


def test_a_list_is_that_of_the_command_line(server):
    history, only = ["Red Sun", "Red Moon"], ["category=Blue,Black"]
    status, found, _ = server.ask("/recommend", {"history": history, "n": 4, "exclude": ["Blue Rain"], "only": only})
    wanted = recommend("films", history=history, n=4, exclude=["Blue Rain"], only=only).as_dict()
    assert status == 200
    assert [item["title"] for item in found["items"]] == [item["title"] for item in wanted["items"]]
    assert found | {"items": None} == json.loads(json.dumps(wanted)) | {"items": None}
    for here, there in zip(found["items"], wanted["items"], strict=True):
        assert here["log_p"] == pytest.approx(there["log_p"], abs=1e-4)
    ids = server.answers.model.catalog.item_id
    _, rest, _ = server.ask("/recommend", {"exclude": [f"item:{one}" for one in ids[2:]] * 20})
    assert {item["item_id"] for item in rest["items"]} == {*ids[:2]}


def test_reasons_and_summaries_are_those_of_the_command_line(server, monkeypatch):
    server.answers.warm_up()
    history = ["Red Sun", "Red Moon", "Red Rain", "Blue Rain", "Red River"]
    status, found, _ = server.ask("/explain", {"item": "red sun", "history": history[1:]})
    assert (status, found) == (200, json.loads(json.dumps(explain("films", "Red Sun", history=history[1:]).as_dict())))
    status, found, _ = server.ask("/summarize", {"history": history})
    wanted = json.loads(json.dumps(summarize("films", history=history).as_dict()))
    assert status == 200 and found["text"] == wanted["text"] and found["history"] == wanted["history"]
    for here, there in zip(found["interests"], wanted["interests"], strict=True):
        assert here == pytest.approx(there, abs=1e-4)
    for path, body, status, error in (
        ("/summarize", {}, 400, "history: empty"),
        ("/explain", {"history": history}, 400, "item"),
        ("/explain", {"item": "Zzzzz", "history": history}, 400, "Zzzzz"),
        ("/explain", {"item": "Red Sun", "user": "u1"}, 403, "--users"),
    ):
        got, found, _ = server.ask(path, body)
        assert got == status and error in found["error"], found
    monkeypatch.setattr(server.answers.model, "card", {})
    assert server.ask("/explain", {"item": "Red Sun", "history": history})[0] == 404
    assert server.ask("/summarize", {"history": history})[0] == 404


def test_what_is_asked_together_is_answered_as_alone(server, monkeypatch, caplog):
    titles = server.answers.model.catalog.title
    rng = np.random.default_rng(0)
    asked = [
        {
            "history": [titles[i] for i in rng.permutation(len(titles))[: rng.integers(0, 5)]],
            "n": int(rng.integers(1, 6)),
            "exclude": [titles[i] for i in rng.permutation(len(titles))[: rng.integers(0, 3)]],
            "only": [["category=Blue"], ["category=Black,Red"], []][int(rng.integers(3))],
        }
        for _ in range(24)
    ]
    alone = [server.ask("/recommend", one)[1] for one in asked]
    asks = server.answers.batcher
    sizes, ranked = [], server.answers.model.rank
    monkeypatch.setattr(
        server.answers.model, "rank", lambda some, *n, **more: sizes.append(len(some)) or ranked(some, *n, **more)
    )
    with ThreadPoolExecutor(len(asked)) as threads:
        with held(asks):
            waits = [threads.submit(server.ask, "/recommend", one) for one in asked]
            until(lambda: len(asks._waiting) == len(asked))
        together = [found.result(PATIENCE)[1] for found in waits]
    assert len(sizes) == len({body["n"] for body in asked}) and sum(sizes) == len(asked)  # lists of one length at once,
    assert not caplog.records  # and none that failed was tried again
    for one, other, body in zip(alone, together, asked, strict=True):
        assert [item["title"] for item in one["items"]] == [item["title"] for item in other["items"]]
        assert 1 <= len(one["items"]) <= body["n"]
        wanted = {name for word in body["only"] for name in word.partition("=")[2].split(",")}
        assert all({*item["categories"]} & wanted for item in one["items"]) or not wanted
        assert not {item["title"] for item in one["items"]} & {*body["exclude"]}


def test_a_conversation_travels_with_its_messages(server):
    status, first, _ = server.ask("/chat", {"say": "I liked Red Sun and Red Moon, -n 3"})
    assert status == 200 and len(first["reply"]["items"]) == 3 and first["reply"]["ends"] is False
    title = first["reply"]["items"][0]["title"]
    _, second, _ = server.ask("/chat", {"say": "not the first", "session": first["session"]})
    assert title not in [item["title"] for item in second["reply"]["items"]]
    _, why, _ = server.ask("/chat", {"say": "why the 2nd?", "session": second["session"]})
    assert any(second["reply"]["items"][1]["title"] in line for line in why["reply"]["text"])
    _, taste, _ = server.ask("/chat", {"say": "what do I like?", "session": second["session"]})
    assert any("Red Moon" in line for line in taste["reply"]["text"])
    _, other, _ = server.ask("/chat", {"say": "show my history"})  # somebody else's begins with nothing
    assert not other["session"]["state"]["liked"]
    _, end, _ = server.ask("/chat", {"say": "quit", "session": second["session"]})
    assert end["reply"]["ends"] is True


HALF = '"\\ud800"'


@pytest.mark.parametrize(
    ("path", "body", "status", "error"),
    [
        ("/recommend", {"history": ["Nothing of the kind"]}, 400, "no title like"),
        ("/recommend", {"historie": []}, 400, "unknown key 'historie'; did you mean 'history'"),
        ("/recommend", {"a\nb": []}, 400, "unknown key 'a b'"),
        ("/recommend", {"history": ["Nothing\nof the kind"] * 40}, 400, "no title like"),
        ("/recommend", {str(i): 1 for i in range(5000)}, 400, "an object of 5,000 keys"),
        ("/recommend", {"history": [1] * 100_000}, 400, "request: history.0: "),
        ("/recommend", {"n": 0}, 400, "request: n: "),
        ("/recommend", {"n": web.MAX_LIST + 1}, 400, "request: n: "),
        ("/recommend", {"history": ["Red Sun"] * (web.MAX_HISTORY + 1)}, 400, "request: history: "),
        ("/recommend", {"history": ["x" * (web.MAX_TITLE + 1)]}, 400, "request: history.0: "),
        ("/recommend", {"only": ["colour=Red"]}, 400, "colour"),
        ("/recommend", {"exclude": ["Red Sun"] * (web.MAX_FILTERS + 1)}, 400, "name items as item:ID"),
        ("/recommend", {"exclude": ["item:?"] * 200}, 400, "no item with the id '?'"),
        ("/recommend", {"user": "1"}, 403, "answers for nobody by id"),
        ("/recommend", b'{"history": [' + HALF.encode() + b"]}", 400, "request: history.0: "),
        ("/recommend", [], 400, "a JSON object is expected"),
        ("/recommend", b"{", 400, "no JSON"),
        ("/recommend", b"\xff", 400, "no JSON"),
        ("/recommend", b"[" * 100_000, 400, "no JSON"),
        ("/recommend", b'{"history": ' + b"[" * 5000 + b"]" * 5000 + b"}", 400, "request: "),
        ("/recommend", b'{"n": ' + b"1" * 5000 + b"}", 400, "no JSON that anybody sends"),
        ("/recommend", {"n": True}, 400, "request: n: "),
        ("/recommend/", {}, 404, "Not Found"),
        ("/chat", {"say": "x" * 2001}, 400, "request: say: "),
        ("/chat", {"say": "help", "session": {"domain": "books"}}, 400, "about 'books', not 'films'"),
        ("/chat", {"say": "help", "session": {"domain": "films", "state": {"liked": ["?"]}}}, 400, "'?' is not in"),
        ("/chat", {"say": "help", "session": {"domain": "films", "state": {"only": [["?"]]}}}, 400, "no category '?'"),
        ("/chat", {"say": "help", "session": {"domain": "films", "more": 1}}, 400, "unknown key 'more'"),
        ("/chat", b"0" * (web.MAX_BODY + 1), 413, "more than"),
        ("/nothing", {}, 404, "Not Found"),
        ("/", {}, 405, "Method Not Allowed"),
    ],
)
def test_mistakes_are_one_line(server, path, body, status, error):
    found = server.ask(path, body)
    assert found[0] == status and error in found[1]["error"] and "\n" not in found[1]["error"]
    assert len(found[1]["error"]) <= web.MAX_ERROR


def test_pages_of_others_cannot_ask(server):
    assert server.ask("/recommend", {}, {"Content-Type": "text/plain"})[0] == 415  # what a page may send unasked
    for host in ("evil.example", "evil.example:80", "", "127.0.0.1.evil.example", "[", "\xff"):  # names pointed here
        status, found, _ = server.ask("/chat", {"message": "hi"}, headers={"Host": host})
        assert status == 400 and "was not told that it is" in found["error"]
        status, found, _ = server.ask("/health", headers={"Host": host})  # load balancers ask by address
        assert status == 200 and [*found] == ["domain"]
    for host in ("localhost:8080", "[::1]:8080", "127.0.0.1"):
        assert server.ask("/health", headers={"Host": host})[1]["engine"] == "hf"
    for path in web.PAGE:
        status, _, headers = server.ask(path)
        assert status == 200 and "default-src 'none'" in headers["content-security-policy"]
    assert "access-control-allow-origin" not in {name.lower() for name in server.ask("/recommend", {})[2]}


def test_a_request_that_never_comes(server, monkeypatch):
    monkeypatch.setattr(web, "BODY_SECONDS", 0.2)
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as slow:
        slow.sendall(
            b"POST /chat HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
        )
        assert b" 408 " in slow.recv(100)


def test_a_client_that_goes_is_not_waited_for(model):
    server = Server(web.Answers(model, engine="hf"))
    asks = server.answers.batcher
    try:
        with held(asks):
            body = b'{"history": []}'
            with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
                head = "POST /recommend HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
                client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
                until(lambda: len(asks._waiting) == 1)
            until(lambda: not asks._waiting)
    finally:
        server.close()


def test_who_waits_when_it_is_stopped_is_told_in_json(model):
    server = Server(web.Answers(model, engine="hf"))
    asks = server.answers.batcher
    try:
        with ThreadPoolExecutor(1) as threads, held(asks):
            waits = threads.submit(server.ask, "/recommend", {})
            until(lambda: len(asks._waiting) == 1)
            server.uvicorn.should_exit = True
            status, found, headers = waits.result(PATIENCE)
        assert status == 503 and "being stopped" in found["error"] and "retry-after" in {*map(str.lower, headers)}
    finally:
        server.close()


def test_users_are_answered_for_where_it_was_told_so(model):
    server = Server(web.Answers(model, engine="hf", users=True))
    try:
        user = model.dataset.users["user_id"].iloc[0]
        status, found, _ = server.ask("/recommend", {"user": user, "n": 2})
        assert status == 200 and found["user"] == user and found["history"]
        status, refused, _ = server.ask("/recommend", {"user": "nobody"})
        assert status == 404 and refused == {"error": "user: no user 'nobody'"}  # and nobody is named
        assert server.ask("/health")[1]["users"] is True
    finally:
        server.close()


class Slow:
    """A model that ranks when it is let, and fails for histories of 13."""

    def __init__(self) -> None:
        self.begun, self.go = threading.Event(), threading.Event()
        self.asked: list[tuple[int, dict[str, Any]]] = []
        self.engine = SimpleNamespace(forget=lambda: self.forgot.append(len(self.asked)))
        self.forgot: list[int] = []

    def rank(self, histories: list, n: int, **more: Any) -> list:
        self.asked.append((len(histories), more))
        self.begun.set()
        assert self.go.wait(PATIENCE)
        if [13] in histories:
            raise EngineError("thirteen")
        return [SimpleNamespace(n=n, history=history) for history in histories]


def begins(threads: ThreadPoolExecutor, model: Slow, asks: Batcher) -> Future:
    """A list that is being computed until the model is let."""
    first = threads.submit(asks.rank, [ListAsked([0], 3, (), None)])
    assert model.begun.wait(PATIENCE)
    return first


@contextmanager
def held(asks: Batcher) -> Iterator[None]:
    """Nothing else is computed meanwhile."""
    go, inside = threading.Event(), threading.Event()
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(asks.call, lambda: inside.set() or go.wait(PATIENCE))
        try:
            assert inside.wait(PATIENCE)
            yield
        finally:
            go.set()
        assert first.result(PATIENCE)


@pytest.fixture
def slow() -> Iterator[tuple[Slow, Batcher]]:
    model = Slow()
    asks = Batcher(model, prior=False)  # type: ignore[arg-type]
    yield model, asks
    model.go.set()
    asks.close()


def test_those_that_wait_are_ranked_at_once(slow, monkeypatch):
    monkeypatch.setattr(batcher, "WAITING", 6)
    model, asks = slow
    allowed = np.array([True, False, True])
    with ThreadPoolExecutor(8) as threads:
        first = begins(threads, model, asks)
        asked = [ListAsked([1], 3, [2], None), ListAsked([2], 3, (), allowed), ListAsked([3], 5, (), None)]
        rest = []
        for one in asked:
            rest.append(threads.submit(asks.rank, [one]))
            until(lambda: len(asks._waiting) == len(rest))
        told = [threads.submit(asks.call, lambda i=i: i) for i in range(2)]
        until(lambda: len(asks._waiting) == 5)
        with pytest.raises(Busy, match="5 questions wait already"):
            asks.rank([ListAsked([9], 3, (), None)] * 2)
        assert len(asks._waiting) == 5  # all of them or none
        model.go.set()
        assert first.result(PATIENCE)[0].history == [0]
        assert [one.result(PATIENCE)[0].history for one in rest] == [[1], [2], [3]]
        assert [one.result(PATIENCE) for one in told] == [0, 1]
    assert [count for count, _ in model.asked] == [1, 2, 1]
    more = model.asked[1][1]
    assert more["exclude"] == [[2], ()] and more["prior"] is False
    assert more["candidates"][0] is None and more["candidates"][1].tolist() == [0, 2]


def test_what_fails_is_only_whose_fault_it_is(slow):
    model, asks = slow
    with ThreadPoolExecutor(4) as threads:
        first = begins(threads, model, asks)
        rest = [threads.submit(asks.rank, [ListAsked([i], 3, (), None)]) for i in (12, 13, 14)]
        until(lambda: len(asks._waiting) == 3)
        model.go.set()
        assert first.result(PATIENCE) and rest[0].result(PATIENCE) and rest[2].result(PATIENCE)
        with pytest.raises(EngineError, match="thirteen"):
            rest[1].result(PATIENCE)
    assert [count for count, _ in model.asked] == [1, 3, 1, 1, 1]
    assert len(model.forgot) == 2  # together, and alone
    with pytest.raises(ZeroDivisionError):
        asks.call(lambda: 1 / 0)
    assert asks.call(lambda: 1) == 1  # it goes on


def test_who_waits_too_long_is_told_so(slow, monkeypatch):
    model, asks = slow
    with ThreadPoolExecutor(1) as threads:
        first = begins(threads, model, asks)
        monkeypatch.setattr(batcher, "PATIENCE", 0.1)
        with pytest.raises(Busy, match="no answer within"):
            asks.rank([ListAsked([1], 3, (), None), ListAsked([2], 3, (), None)])
        model.go.set()
        assert first.result(PATIENCE)
    assert asks.call(lambda: 1) == 1
    assert [count for count, _ in model.asked] == [1]  # who had gone was not asked about


def test_who_has_gone_makes_room_and_is_not_asked_about(slow):
    model, asks = slow
    caller = Caller()

    def asked() -> None:
        batcher.CALLER.set(caller)
        asks.rank([ListAsked([1], 3, (), None)])

    with ThreadPoolExecutor(2) as threads:
        first = begins(threads, model, asks)
        second = threads.submit(asked)
        until(lambda: len(asks._waiting) == 1)
        caller.leave()
        with pytest.raises(Busy):
            second.result(PATIENCE)
        assert not asks._waiting
        model.go.set()
        assert first.result(PATIENCE)
    assert asks.call(lambda: 1) == 1
    assert [count for count, _ in model.asked] == [1]


def test_all_that_a_request_asks_has_one_patience(slow):
    model, asks = slow
    caller = Caller()
    batcher.CALLER.set(caller)
    try:
        assert asks.call(lambda: 1) == 1
        caller.until = time.monotonic()  # it was spent on that
        with pytest.raises(Busy, match="no answer within"):
            asks.rank([ListAsked([0], 3, (), None)])
        with pytest.raises(Busy, match="no answer within"), batcher.Desk().seat():
            pass
    finally:
        batcher.CALLER.set(None)
    assert asks.call(lambda: 1) == 1 and not model.asked


def test_a_few_at_a_time_sit_at_the_desk(monkeypatch):
    desk, caller = batcher.Desk(seats=1), Caller()

    def sits() -> None:
        batcher.CALLER.set(caller)
        with desk.seat():
            pass

    monkeypatch.setattr(batcher, "GLANCE", 0.01)
    with ThreadPoolExecutor(1) as threads, desk.seat():
        with desk.away():
            threads.submit(sits).result(PATIENCE)  # while one waits for the model, another sits there
        waits = threads.submit(sits)
        caller.leave()  # and who has gone is not waited for
        with pytest.raises(Busy):
            waits.result(PATIENCE)
    threads = ThreadPoolExecutor(1)
    caller = Caller()
    threads.submit(sits).result(PATIENCE)  # every seat was given back
    threads.shutdown()


def test_an_engine_that_is_gone_for_good(slow, monkeypatch, caplog):
    model, asks = slow
    model.go.set()

    def forget() -> None:
        raise RuntimeError("dead")

    model.engine.forget = forget
    for _ in range(2):  # it goes on, to say so to the next as well
        with pytest.raises(EngineError, match="thirteen"):
            asks.rank([ListAsked([13], 3, (), None)])
    assert "the engine cannot be reset" in caplog.text and "a bug" not in caplog.text
    with pytest.raises(Busy, match="the engine has failed"):
        asks.check()
    assert asks.rank([ListAsked([1], 3, (), None)])
    asks.check()  # it is there again
    monkeypatch.setattr(asks, "_settle", lambda *_, **__: 1 / 0)  # a bug of ours: whoever waits is told at once
    with pytest.raises(Busy, match="stopped"):
        asks.call(lambda: 1)
    until(lambda: not asks.alive)
    assert asks.died
    with pytest.raises(Busy, match="has ended"):
        asks.check()
    with pytest.raises(Busy, match="stopped"):
        asks.call(lambda: 1)


def test_an_engine_that_fails_again_and_again_is_not_healthy(slow):
    model, asks = slow
    model.go.set()
    for _ in range(batcher.FAILED):
        asks.check()
        with pytest.raises(EngineError, match="thirteen"):
            asks.rank([ListAsked([13], 3, (), None)])
    with pytest.raises(Busy, match="failed 3 times"):
        asks.check()
    asks._failed -= batcher.ILL  # some time later somebody may try
    asks.check()
    with pytest.raises(EngineError, match="thirteen"):
        asks.rank([ListAsked([13], 3, (), None)])
    with pytest.raises(Busy, match="failed 4 times"):
        asks.check()
    asks.rank([ListAsked([1], 3, (), None)])
    asks.check()


@pytest.mark.parametrize(("error", "ill"), [(RuntimeError("CUDA error"), True), (DataError("no such film"), False)])
def test_whose_fault_it_is_decides_health(slow, error: Exception, ill: bool):
    _, asks = slow

    def fails() -> None:
        raise error

    for _ in range(batcher.FAILED):
        asks.check()
        with pytest.raises(type(error)):
            asks.call(fails)
    with pytest.raises(Busy) if ill else nullcontext():
        asks.check()


def test_what_has_begun_is_given_up_in_the_end(slow):
    model, asks = slow
    with ThreadPoolExecutor(1) as threads:
        first = begins(threads, model, asks)
        asks.close()
        asks.abandon()
        with pytest.raises(Busy, match="stopped"):
            first.result(PATIENCE)
    model.go.set()
    until(lambda: not asks.alive)
    assert not asks.died  # the answer that came too late is nobody's


def test_a_server_that_answers_nobody_ends(model, monkeypatch):
    server = Server(web.Answers(model, engine="hf"))
    monkeypatch.setattr(server.answers.batcher, "_settle", lambda *_, **__: 1 / 0)
    status, found, _ = server.ask("/recommend", {})
    assert status == 503 and "stopped" in found["error"]
    server.thread.join(PATIENCE)
    assert not server.thread.is_alive() and server.answers.batcher.died


def test_a_model_that_hangs_is_not_healthy(slow, monkeypatch):
    model, asks = slow
    with ThreadPoolExecutor(1) as threads:
        first = begins(threads, model, asks)
        asks.check()
        monkeypatch.setattr(batcher, "PATIENCE", 0.0)
        with pytest.raises(Busy, match="has not answered for"):
            asks.check()
        model.go.set()
        assert first.result(PATIENCE)
    until(lambda: asks._since is None)
    asks.check()


def test_who_waits_when_it_ends_is_told_so(slow):
    model, asks = slow
    with ThreadPoolExecutor(2) as threads:
        first = begins(threads, model, asks)
        second = threads.submit(asks.rank, [ListAsked([1], 3, (), None)])
        until(lambda: len(asks._waiting) == 1)
        asks.close()
        with pytest.raises(Busy, match="being stopped"):
            second.result(PATIENCE)
        with pytest.raises(Busy, match="being stopped"):
            asks.rank([ListAsked([2], 3, (), None)])
        model.go.set()
        assert first.result(PATIENCE)[0].history == [0]


def test_more_than_can_be_worked_on_is_refused(model, monkeypatch):
    monkeypatch.setattr(web, "ADMITTED", 1)
    server = Server(web.Answers(model, engine="hf"))
    go, inside = threading.Event(), threading.Event()

    def waits(_: Any) -> dict[str, Any]:
        inside.set()
        assert go.wait(PATIENCE)
        return {}

    monkeypatch.setattr(server.answers, "recommend", waits)
    try:
        with ThreadPoolExecutor(1) as threads:
            first = threads.submit(server.ask, "/recommend", {})
            assert inside.wait(PATIENCE)
            status, found, headers = server.ask("/chat", {"say": "help"})
            assert status == 503 and "1 requests are being answered" in found["error"]
            assert server.ask("/health")[0] == 200  # it is busy, not ill
            go.set()
            assert first.result(PATIENCE)[0] == 200
        assert server.ask("/chat", {"say": "help"})[0] == 200
    finally:
        go.set()
        server.close()


def test_names_of_a_server():
    names = {
        "MyBox.Local": "mybox.local",
        "127.0.0.1": "127.0.0.1",
        "::1": "::1",
        "[::1]": "::1",
        "0:0:0:0:0:0:0:1": "::1",
    }
    assert {name: web.host_name(name) for name in names} == names
    here = sorted(config.LOOPBACK)
    assert web.hosts_of("127.0.0.1") == web.hosts_of("LOCALHOST") == web.hosts_of("0:0:0:0:0:0:0:1") == here
    assert web.hosts_of("0.0.0.0", ["example.org"]) == sorted([*here, "0.0.0.0", "example.org"])
    assert web.hosts_of("10.0.0.7") == ["10.0.0.7"]  # from elsewhere nobody says that it is localhost
    for wrong in ("example.org:80", "", "a/b", "u@example.org", "[", "http://example.org", "a b:c"):
        with pytest.raises(RecipeError, match="a name or an address is expected"):
            web.host_name(wrong)


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (Busy("full"), 503, "full"),
        (EngineError("http://10.0.0.7 is gone"), 502, "what computes has failed"),
        (ZeroDivisionError("secret"), 500, "ZeroDivisionError: a bug"),
    ],
    ids=["busy", "engine", "bug"],
)
def test_what_is_not_the_clients_fault(server, monkeypatch, error, status, told):
    def fails(_: Any) -> Any:
        raise error

    monkeypatch.setattr(server.answers, "recommend", fails)
    found, answer, headers = server.ask("/recommend", {})
    assert found == status and told in answer["error"]
    assert "10.0.0.7" not in answer["error"] and "secret" not in answer["error"]
    assert ("retry-after" in {name.lower() for name in headers}) == (status == 503)


def test_the_page_speaks_of_what_is_there():
    page, script = (files("llmrec.web").joinpath(f"page.{kind}").read_text() for kind in ("html", "js"))
    assert {*re.findall(r'\$\("(\w+)"\)', script)} == {*re.findall(r'id="(\w+)"', page)}
    assert {f"/{path}" for path in re.findall(r'(?:href|src)="(page[^"]*)"', page)} == {*web.PAGE} - {"/"}
    assert not re.findall(r'(?:href|src|ask)(?:="|\(")/', page + script)  # all of it may lie below another path
    assert "innerHTML" not in script and "<script>" not in page and "style=" not in page
    limit = re.search(r'maxlength="(\d+)"', page)
    assert limit and int(limit[1]) == web.MAX_MESSAGE


def test_a_port_that_is_taken():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        found = CliRunner().invoke(cli.app, ["web", "films", "--port", str(port)])
    assert found.exit_code == 2 and f"127.0.0.1:{port}: " in found.stderr and "choose another --port" in found.stderr
