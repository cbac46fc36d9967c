"""llmrec web: real HTTP in front of a small trained model; what is asked together is answered as alone."""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import uvicorn
from typer.testing import CliRunner

from llmrec import cli, config
from llmrec.errors import EngineError
from llmrec.recommend import recommend
from llmrec.recommender import Recommender
from llmrec.web import app as web
from llmrec.web import together
from llmrec.web.together import Asked, Busy, Together

JSON = {"Content-Type": "application/json"}


class Server:
    """A running application, asked over a real connection."""

    def __init__(self, answers: web.Answers) -> None:
        self.answers = answers
        self.listener = web.listen("127.0.0.1", 0)
        self.port = self.listener.getsockname()[1]
        settings = uvicorn.Config(
            web.build(answers, web.LOOPBACK), log_level="warning", lifespan="off", limit_concurrency=web.CONNECTIONS
        )
        self.uvicorn = uvicorn.Server(settings)
        self.thread = threading.Thread(target=self.uvicorn.run, kwargs={"sockets": [self.listener]})
        self.thread.start()
        while not self.uvicorn.started:
            time.sleep(0.01)

    def close(self) -> None:
        self.uvicorn.should_exit = True
        self.thread.join()
        self.answers.together.close()

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


def test_what_is_asked_together_is_answered_as_alone(server):
    titles = server.answers.model.catalog.title
    rng = np.random.default_rng(0)
    asked = [
        {
            "history": [titles[i] for i in rng.permutation(len(titles))[: rng.integers(0, 5)]],
            "n": int(rng.integers(1, 6)),
            "exclude": [titles[i] for i in rng.permutation(len(titles))[: rng.integers(0, 3)]],
        }
        for _ in range(24)
    ]
    alone = [server.ask("/recommend", one)[1] for one in asked]
    with ThreadPoolExecutor(len(asked)) as threads:
        together = [found[1] for found in threads.map(lambda one: server.ask("/recommend", one), asked)]
    for one, other, body in zip(alone, together, asked, strict=True):
        assert [item["title"] for item in one["items"]] == [item["title"] for item in other["items"]]
        assert len(one["items"]) == body["n"]
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
        ("/recommend", {"n": 0}, 400, "request: n: "),
        ("/recommend", {"n": web.MAX_LIST + 1}, 400, "request: n: "),
        ("/recommend", {"history": ["Red Sun"] * (web.MAX_ITEMS + 1)}, 400, "request: history: "),
        ("/recommend", {"history": ["x" * (web.MAX_TITLE + 1)]}, 400, "request: history.0: "),
        ("/recommend", {"only": ["colour=Red"]}, 400, "colour"),
        ("/recommend", {"user": "1"}, 400, "answers for nobody by id"),
        ("/recommend", b'{"history": [' + HALF.encode() + b"]}", 400, "request: history.0: "),
        ("/recommend", [], 400, "a JSON object is expected"),
        ("/recommend", b"{", 400, "no JSON"),
        ("/recommend", b"\xff", 400, "no JSON"),
        ("/recommend", b"[" * 100_000, 400, "no JSON"),
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


def test_pages_of_others_cannot_ask(server):
    assert server.ask("/recommend", {}, {"Content-Type": "text/plain"})[0] == 415  # what a page may send unasked
    for host in ("evil.example", "evil.example:80", "", "127.0.0.1.evil.example", "[", "\xff"):  # names pointed here
        status, found, _ = server.ask("/health", headers={"Host": host})
        assert status == 400 and "was not told that it is" in found["error"]
    for host in ("localhost:8080", "[::1]:8080", "127.0.0.1"):
        assert server.ask("/health", headers={"Host": host})[0] == 200
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


def test_users_are_answered_for_where_it_was_told_so(model):
    server = Server(web.Answers(model, engine="hf", users=True))
    try:
        user = model.dataset.users["user_id"].iloc[0]
        status, found, _ = server.ask("/recommend", {"user": user, "n": 2})
        assert status == 200 and found["user"] == user and found["history"]
        status, refused, _ = server.ask("/recommend", {"user": "nobody"})
        assert status == 400 and refused == {"error": "user: no user 'nobody'"}  # and nobody is named
        assert server.ask("/health")[1]["users"] is True
    finally:
        server.close()


class Slow:
    """A model that ranks when it is let."""

    def __init__(self) -> None:
        self.begun, self.go = threading.Event(), threading.Event()
        self.asked: list[int] = []

    def rank(self, histories: list, n: int, **_: Any) -> list:
        self.asked.append(len(histories))
        self.begun.set()
        assert self.go.wait(20)
        if n == 13:
            raise EngineError("thirteen")
        return [SimpleNamespace(n=n, history=history) for history in histories]


def test_those_that_wait_are_ranked_at_once(monkeypatch):
    monkeypatch.setattr(together, "WAITING", 5)
    model = Slow()
    asks = Together(model)
    with ThreadPoolExecutor(8) as threads:
        first = threads.submit(asks.rank, [Asked([0], 3, (), None)])
        assert model.begun.wait(20)
        rest = [threads.submit(asks.rank, [Asked([i], n, (), None)]) for i, n in enumerate((3, 3, 13, 3))]
        told = threads.submit(asks.call, lambda: "told")
        while asks._waiting.qsize() < 5:
            time.sleep(0.01)
        with pytest.raises(Busy, match="5 questions wait already"):
            asks.rank([Asked([9], 3, (), None)])
        model.go.set()
        assert first.result(20)[0].history == [0] and told.result(20) == "told"
        assert [rest[i].result(20)[0].history for i in (0, 1, 3)] == [[0], [1], [3]]
        with pytest.raises(EngineError, match="thirteen"):  # and the others have their lists
            rest[2].result(20)
    assert model.asked == [1, 3, 1]
    asks.close()


def test_who_waits_too_long_is_told_so(monkeypatch):
    monkeypatch.setattr(together, "PATIENCE", 0.1)
    model = Slow()
    asks = Together(model)
    with pytest.raises(Busy, match="no answer within"):
        asks.rank([Asked([0], 3, (), None)])
    with pytest.raises(Busy, match="no answer within"):
        asks.rank([Asked([1], 3, (), None)])
    model.go.set()
    asks.close()
    assert model.asked == [1]  # who had gone was not asked about


@pytest.mark.parametrize(
    ("error", "status"), [(Busy("full"), 503), (EngineError("the server is gone"), 502)], ids=["busy", "engine"]
)
def test_what_is_not_the_clients_fault(server, monkeypatch, error, status):
    def fails(_: Any) -> Any:
        raise error

    monkeypatch.setattr(server.answers, "recommend", fails)
    found, answer, headers = server.ask("/recommend", {})
    assert (found, answer) == (status, {"error": str(error)})
    assert ("retry-after" in {name.lower() for name in headers}) == (status == 503)


def test_the_page_speaks_of_what_is_there():
    page, script = (files("llmrec.web").joinpath(f"page.{kind}").read_text() for kind in ("html", "js"))
    assert {*re.findall(r'\$\("(\w+)"\)', script)} == {*re.findall(r'id="(\w+)"', page)}
    assert {*re.findall(r'(?:href|src)="(/[^"]*)"', page)} == {*web.PAGE} - {"/"}
    assert "innerHTML" not in script and "<script>" not in page and "style=" not in page
    limit = re.search(r'maxlength="(\d+)"', page)
    assert limit and int(limit[1]) == web.MAX_MESSAGE


def test_a_port_that_is_taken():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        found = CliRunner().invoke(cli.app, ["web", "films", "--port", str(port)])
    assert found.exit_code == 2 and f"127.0.0.1:{port}: " in found.stderr and "choose another --port" in found.stderr
