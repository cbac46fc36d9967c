"""The HTTP requests that a vLLM server takes: one client for whoever asks it."""

from __future__ import annotations

import json
import logging
import os
import re
from pathlib import Path
from typing import Any

import urllib3

from llmrec.errors import AdapterError, EngineError

CONNECTIONS = 32  # requests in flight
MAX_REASON = 300  # characters of a server's message that are shown
TIMEOUT = urllib3.Timeout(connect=5, read=600)  # seconds
RETRY = urllib3.Retry(  # for requests that change nothing; nobody there is said at once
    total=3, connect=0, read=1, other=0, redirect=0, backoff_factor=0.3, status_forcelist=(429, 502, 503, 504),
    allowed_methods=None, raise_on_status=False, respect_retry_after_header=False,
)  # fmt: skip
NO_PAGE = "start the server with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"
logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # it warns of each try


class Refused(EngineError):
    """A server's answer that is not 200, with its reason in one line."""

    def __init__(self, where: str, status: int, reason: str):
        super().__init__(where, status, reason)  # all of them: it travels between processes
        self.status, self.reason = status, reason

    def __str__(self) -> str:
        return "{}: {}: {}".format(*self.args)


class Server:
    """A vLLM server, asked from as many threads as like to.

    Args:
        url: its address, e.g. http://127.0.0.1:8000, with or without /v1; the environment's VLLM_API_KEY is sent where
            it is set.
    Raises: EngineError for an address or a key of another kind.  Each request: EngineError where nobody answers, or
        not as vLLM does; Refused where the answer is not 200.
    """

    def __init__(self, url: str):
        if not url.startswith(("http://", "https://")):
            raise EngineError(f"{url}: a server's address begins with http:// or https://")
        self.url = url.rstrip("/").removesuffix("/v1")
        key = os.environ.get("VLLM_API_KEY", "")
        if not (key.isascii() and key.isprintable()):
            raise EngineError("VLLM_API_KEY holds what an HTTP header cannot: use printable ASCII, no line breaks")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = urllib3.PoolManager(maxsize=CONNECTIONS, block=True, timeout=TIMEOUT, headers=headers)

    def models(self) -> dict[str, dict[str, Any]]:
        """Names that the server answers to, with what it says of each; adapters have a `parent`."""
        try:
            return {str(entry["id"]): dict(entry) for entry in json.loads(self.get("/v1/models"))["data"]}
        except (KeyError, TypeError, ValueError) as error:
            raise self.odd(error) from None

    def load(self, name: str, folder: Path) -> None:
        """The server takes the adapter in `folder` in, or has one of this name.  Raises: AdapterError where it does not
        take it."""
        try:
            body = {"lora_name": name, "lora_path": str(folder.resolve())}
            self._change(
                "load", body, "; name it when starting `llmrec serve`, or give that the rank with serve.max_rank"
            )
        except AdapterError as error:
            if name not in self.models():  # else somebody was quicker
                raise AdapterError(f"{folder}: not taken: {error}") from None

    def unload(self, name: str) -> None:
        """The server forgets an adapter, for everybody.  Raises: AdapterError where it does not have it."""
        self._change("unload", {"lora_name": name})

    def get(self, path: str) -> str:
        """The text of a page."""
        return self._answer("GET", path).decode(errors="replace")

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """What the server replies to a request that changes nothing, read as JSON."""
        try:
            return json.loads(self._answer("POST", path, body))
        except ValueError as error:
            raise self.odd(error) from None

    def odd(self, error: Exception) -> EngineError:
        """For an answer in which something is not found."""
        return EngineError(f"{self.url}: an answer that is none of vLLM's ({error!r})"[:MAX_REASON])

    def close(self) -> None:
        """Let go of the connections."""
        self._http.clear()

    def _change(self, verb: str, body: dict[str, str], way_out: str = "") -> None:
        """Raises: AdapterError where it is refused."""
        try:
            self._answer("POST", f"/v1/{verb}_lora_adapter", body, retries=False)
        except Refused as error:
            if error.status == 404 and body["lora_name"] not in error.reason:  # it is the page that is not found
                way_out = f"; {NO_PAGE}"
            raise AdapterError(f"{error}{way_out}") from None

    def _answer(
        self, method: str, path: str, body: dict[str, Any] | None = None, retries: urllib3.Retry | bool = RETRY
    ) -> bytes:
        try:
            answer = self._http.request(method, self.url + path, json=body, retries=retries, redirect=False)
        except urllib3.exceptions.HTTPError as error:
            raise EngineError(f"{self.url}: no answer ({_cause(error)}); is `llmrec serve` running there?") from None
        if answer.status != 200:
            raise Refused(self.url + path, answer.status, _reason(answer.data))
        return answer.data


def _cause(error: Exception) -> str:
    if isinstance(error, urllib3.exceptions.MaxRetryError):
        error = error.reason or error
    return " ".join(re.sub(r"<.*?>:? ?", "", str(error)).split())[:MAX_REASON]


def _reason(answer: bytes) -> str:
    """The message in an answer, as vLLM or FastAPI writes it, else all of it."""
    text = answer.decode(errors="replace")
    try:
        said = json.loads(text)
        said = said.get("error", said) if isinstance(said, dict) else said
        text = str(said.get("message", said) if isinstance(said, dict) else said)
    except ValueError:
        pass
    return " ".join(text.split())[:MAX_REASON]
