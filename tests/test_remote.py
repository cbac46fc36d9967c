"""A vLLM server over HTTP: the reference's answers, adapters loaded under load, and what goes wrong first."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import tiny
from conftest import Served

from llmrec.engine import Node, Prompt
from llmrec.engine.hf import HFEngine
from llmrec.engine.remote import RemoteEngine
from llmrec.engine.server import Refused, Server
from llmrec.errors import AdapterError, EngineError
from llmrec.model import adapter

RNG = np.random.default_rng(2)
SOME = np.array([5, 9, 200], np.int32)


@pytest.fixture(scope="module")
def hf(served: Served) -> HFEngine:
    return HFEngine(adapter.load(tiny.model(width=128), served.adapters), tiny.tokenizer("gpt2"))


def prompts(count: int) -> list[Prompt]:
    lengths = RNG.integers(1, 90, count)
    return [
        Prompt(tuple(RNG.integers(10, 500, length).tolist()), (None, "movies", "books")[i % 3])
        for i, length in enumerate(lengths)
    ]


@pytest.mark.slow
def test_a_server_answers_as_the_reference_does(remote: RemoteEngine, hf: HFEngine) -> None:
    asked = prompts(12)
    wide = RNG.permutation(600)[:300].astype(np.int32)
    nodes = [Node(p, path, children) for p in asked for path, children in (((), wide), ((11, 12), SOME))]
    for ours, theirs in zip(remote.branch(nodes), hf.branch(nodes), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    assert remote.exact and remote.tally.cached > 0
    assert remote.generate(asked[:6], max_tokens=12) == hf.generate(asked[:6], max_tokens=12)


@pytest.mark.slow
def test_an_adapter_loads_while_others_are_asked(remote: RemoteEngine, tmp_path: Path) -> None:
    nodes = [Node(p, (), SOME) for p in prompts(30)]
    before = remote.branch(nodes)
    node = Node(Prompt(nodes[0].prompt.tokens, "music"), (), SOME)
    with ThreadPoolExecutor(1) as other:
        rounds = other.submit(lambda: [remote.branch(nodes) for _ in range(4)])
        first = remote.load("music", tiny.adapter(tmp_path / "one", 7))
        was = remote.branch([node])[0]
        second = remote.load("music", tiny.adapter(tmp_path / "two", 8))
        now = remote.branch([node])[0]
        remote.unload("music")
        for again in rounds.result():
            for ours, theirs in zip(again, before, strict=True):
                np.testing.assert_allclose(ours, theirs, atol=1e-4)
    assert first != second and abs(was - now).max() > 0.01
    with pytest.raises(EngineError, match="'music' is not loaded"):
        remote.branch([node])
    with pytest.raises(AdapterError, match="not taken"):
        remote.load("bad", tiny.adapter(tmp_path / "bad", 1, width=256))
    remote.branch(nodes[:3])


@pytest.mark.slow
def test_other_weights_than_ours_are_refused(server: str) -> None:
    with pytest.raises(EngineError, match=r"serves base-.*, not base-000000000000; start `llmrec serve`"):
        RemoteEngine(server, "base-000000000000", None)


@pytest.mark.slow
def test_what_does_not_fit_is_an_error(remote: RemoteEngine) -> None:
    with pytest.raises(EngineError, match="a prompt of 256 tokens: this model takes 1 to 255"):
        remote.branch([Node(Prompt((5,) * 256), (), SOME)])


@pytest.mark.slow
def test_a_server_names_what_it_does_not_have(server: str, tmp_path: Path) -> None:
    client = Server(server)
    with pytest.raises(AdapterError, match=r"404: The lora adapter 'music-0' cannot be found\.$"):
        client.unload("music-0")
    with pytest.raises(
        AdapterError, match="not taken: .*404: .*music-0.*; name it when starting `llmrec serve`.*serve.max_rank$"
    ):
        client.load("music-0", tmp_path / "none")
    client.close()


def test_nobody_there() -> None:
    with pytest.raises(EngineError, match="no answer .*refused.*llmrec serve") as found:
        RemoteEngine("http://127.0.0.1:9", "base", None)
    assert "Max retries" not in str(found.value) and "\n" not in str(found.value)


class Odd(BaseHTTPRequestHandler):
    """A server that lists the model and then answers with what it was told to."""

    status, body, busy = 200, b"{}", 0
    asked: ClassVar[list[dict[str, Any]]] = []
    keys: ClassVar[list[str | None]] = []

    def do_GET(self) -> None:
        self._say(200, json.dumps({"data": [{"id": "base", "max_model_len": 100}]}).encode())

    def do_POST(self) -> None:
        type(self).keys.append(self.headers["Authorization"])
        type(self).asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        busy = len(self.asked) <= self.busy
        self._say(503 if busy else self.status, b"{}" if busy else self.body)

    def _say(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def odd() -> Iterator[str]:
    listening = ThreadingHTTPServer(("127.0.0.1", 0), Odd)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{listening.server_port}"
    listening.shutdown()
    listening.server_close()


def test_a_busy_server_is_asked_again_and_nothing_is_left_to_its_defaults(odd: str) -> None:
    said = {"index": 0, "logprobs": {"top_logprobs": [{f"token_id:{token}": -1.0 for token in SOME.tolist()}]}}
    Odd.status, Odd.body = 200, json.dumps({"choices": [said], "usage": {"prompt_tokens": 3}}).encode()
    Odd.busy, Odd.asked = 2, []
    engine = RemoteEngine(odd, "base", None)
    [log_p] = engine.branch([Node(Prompt((5, 6)), (), SOME)])
    np.testing.assert_allclose(log_p, -np.log(len(SOME)), atol=1e-6)
    assert len(Odd.asked) == 3 and Odd.asked[0] == Odd.asked[2]
    assert Odd.asked[0]["repetition_penalty"] == Odd.asked[0]["top_p"] == 1 and Odd.asked[0]["temperature"] == 0
    Odd.busy = 0
    engine.close()


def test_an_adapter_that_somebody_else_has_just_loaded(
    odd: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = RemoteEngine(odd, "base", None)
    monkeypatch.setattr("llmrec.engine.remote.adapter.check", lambda folder: None)
    monkeypatch.setattr("llmrec.engine.remote.adapter.weights_digest", lambda folder: "1234abcd")
    Odd.status, Odd.body = 400, json.dumps({"error": {"message": "has already been loaded"}}).encode()
    base, films = {"base": {"max_model_len": 100}}, {"films-1234abcd": {"parent": "base"}}
    listed = iter([base, base | films, base, base])
    monkeypatch.setattr(engine._server, "models", lambda: next(listed))
    assert engine.load("films", tmp_path) == "films-1234abcd" and engine.adapters == ("films",)
    with pytest.raises(AdapterError, match="already been loaded"):  # though the server does not have it
        engine.load("films", tmp_path)
    engine.close()


def test_a_server_that_was_started_anew_gets_the_adapter_again(
    odd: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {"index": 0, "logprobs": {"top_logprobs": [{f"token_id:{token}": -1.0 for token in SOME.tolist()}]}}
    answer = {"choices": [said], "usage": {"prompt_tokens": 3}}
    there: list[str] = []
    listed = {"base": {"max_model_len": 100}, "base-float32": {}}

    def post(path: str, body: dict[str, Any]) -> Any:
        if body["model"] not in there:
            raise Refused(path, 404, f"the model {body['model']} does not exist")
        return answer

    engine = RemoteEngine(odd, "base", None)
    monkeypatch.setattr(engine._server, "post", post)
    monkeypatch.setattr(engine._server, "load", lambda name, folder: there.append(name))
    monkeypatch.setattr(engine._server, "models", lambda: listed)
    engine.exact = True
    monkeypatch.setattr("llmrec.engine.remote.adapter.check", lambda folder: None)
    monkeypatch.setattr("llmrec.engine.remote.adapter.weights_digest", lambda folder: "1234abcd")
    engine.load("films", tmp_path)
    node = Node(Prompt((5, 6), "films"), (), SOME)
    before = engine.branch([node])
    there.clear()
    np.testing.assert_array_equal(engine.branch([node]), before)
    assert there == ["films-1234abcd"]
    there.clear()
    monkeypatch.setattr("llmrec.engine.remote.adapter.weights_digest", lambda folder: "5678abcd")
    with pytest.raises(EngineError, match="holds other weights by now"):
        engine.branch([node])
    monkeypatch.setattr("llmrec.engine.remote.adapter.weights_digest", lambda folder: "1234abcd")
    del listed["base-float32"]
    with pytest.raises(EngineError, match="serves base by now"):
        engine.branch([node])
    assert there == []
    there.append("base")
    engine.branch([Node(Prompt((5, 6)), (), SOME)])
    there.clear()
    with pytest.raises(Refused, match="base does not exist"):
        engine.branch([Node(Prompt((5, 6)), (), SOME)])
    engine.close()


@pytest.mark.parametrize(
    ("status", "message", "way_out"),
    [
        (404, "Not Found", "start the server with --enable-lora"),
        (404, "Loading lora films-1 failed", "name it when starting `llmrec serve`"),  # it looks in vain for the folder
        (500, "rank 64 is too large", "name it when starting `llmrec serve`"),
    ],
)
def test_an_adapter_that_is_not_taken(odd: str, tmp_path: Path, status: int, message: str, way_out: str) -> None:
    Odd.status, Odd.body, Odd.asked = status, json.dumps({"error": {"message": message}}).encode(), []
    server = Server(odd)
    with pytest.raises(AdapterError, match=f"{tmp_path}: not taken: {odd}.*: {status}: {message}; {way_out}"):
        server.load("films-1", tmp_path)
    assert Odd.asked == [{"lora_name": "films-1", "lora_path": str(tmp_path.resolve())}]
    server.close()


@pytest.mark.parametrize("key", [None, "abc"])
def test_the_key_is_sent(odd: str, key: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    Odd.status, Odd.body, Odd.keys = 200, b'{"choices": []}', []
    monkeypatch.setenv("VLLM_API_KEY", key or "")
    server = Server(f"{odd}/v1/")
    assert server.post("/v1/completions", {}) == {"choices": []} and list(server.models()) == ["base"]
    assert Odd.keys == [key and f"Bearer {key}"]
    server.close()


def test_a_key_with_a_line_break_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "secret\n")
    with pytest.raises(EngineError, match="VLLM_API_KEY") as found:
        Server("http://127.0.0.1:9")
    assert "secret" not in str(found.value)


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (200, b"{}", "none of vLLM's"),
        (200, b'{"choices": [{"index": 0, "logprobs": null}], "usage": {"prompt_tokens": 3}}', "none of vLLM's"),
        (200, b"<html>", "none of vLLM's"),
        (200, b'{"choices": [], "usage": {"prompt_tokens": 3}}', "0 answers to 1 prompts"),
        (400, b'{"error": {"message": "too\\nlong"}}', "400: too long"),
        (400, b'["no"]', "400: \\['no'\\]"),
        (500, b"Internal Server Error", "500: Internal Server Error"),
    ],
)
def test_an_odd_answer_is_one_line(odd: str, status: int, body: bytes, message: str) -> None:
    Odd.status, Odd.body = status, body
    engine = RemoteEngine(odd, "base", None)
    with pytest.raises(EngineError, match=message):
        engine.branch([Node(Prompt((5, 6)), (), SOME)])
    assert not engine.exact
    engine.close()
