"""Requests and their answers.  Starlette routes and uvicorn listens: both are small, kept, and what vLLM's own server
stands on.

    POST /recommend   {"history": ["Fargo"], "n": 10, "exclude": [], "only": ["category=Comedy"]} → a list
    POST /explain     {"item": "Heat", "history": ["Fargo"]} → why it suits them, and the facts behind it
    POST /summarize   {"history": ["Fargo"]} → sentences on their taste, and which categories come next
    POST /chat        {"say": "something like Fargo", "session": null} → {"reply", "session"}: send that back next time
    GET  /health      what answers
    GET  /            the page

Whatever goes wrong is {"error": one line} and a status of docs/web.md.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from ipaddress import ip_address
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
import numpy as np
import uvicorn
from pydantic import AfterValidator, FailFast, Field
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from llmrec import config
from llmrec.chat import Exact, ranked
from llmrec.config import LOOPBACK, Section
from llmrec.data.names import BY_ID, match_titles
from llmrec.data.records import one_line, shown
from llmrec.dialogue.grammar import MAX_MESSAGE
from llmrec.dialogue.reply import Ranked, respond
from llmrec.dialogue.state import MAX_BYTES, MAX_LIST, Session, check_session, trimmed
from llmrec.dialogue.vocabulary import Vocabulary
from llmrec.errors import DataError, EngineError, LlmrecError, RecipeError
from llmrec.jobs.work import Known
from llmrec.recommend import question, recommendation
from llmrec.summarize import summary
from llmrec.web.batcher import CALLER, Batcher, Busy, Caller, Desk, ListAsked

if TYPE_CHECKING:  # it imports torch; what is here works without
    from llmrec.recommender import Recommender

LOG = logging.getLogger("llmrec")
MAX_BODY = MAX_BYTES + 100_000  # bytes: a session and what is said
MAX_HISTORY = 500  # titles of one request: each is looked up
BODY_SECONDS = 10.0  # until a request has to be there
ADMITTED = 128  # requests that are worked on, each in a thread that mostly waits; more are refused
CONNECTIONS = 512  # more are refused
GRACE = 30  # seconds that what is begun has to end in …
TOLD = 5  # … of which these are for telling who still waits
RETRY = 5  # seconds after which to ask again
ALL = ("0.0.0.0", "::")  # addresses that stand for every one of this machine
MAX_TITLE = 1000  # characters
MAX_FILTERS = 100  # and titles to leave out
MAX_EXCLUDED = 10_000  # items by id: all that is sold out, say
MAX_KEYS = 40  # of a JSON object
MAX_ERROR = 1000  # characters
PAGE = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

Text = Annotated[str, Field(max_length=MAX_TITLE)]


def _few_names(texts: tuple[str, ...]) -> tuple[str, ...]:
    """Names are looked for, which takes its time; ids are not."""
    names = sum(not text.startswith(BY_ID) for text in texts)
    if names > MAX_FILTERS:
        raise ValueError(f"{names} titles and filters, at most {MAX_FILTERS}; name items as {BY_ID}ID")
    return texts


class SummaryRequest(Section):
    """What POST /summarize asks."""

    user: Text | None = None
    """Somebody of the domain's data, whose history stands before `history`; only where the server was told so."""
    history: Annotated[tuple[Text, ...], FailFast(), Field(max_length=MAX_HISTORY)] = ()
    """Titles, oldest first, tolerantly matched; or item:ID."""


class ExplanationRequest(SummaryRequest):
    """What POST /explain asks."""

    item: Text
    """The title, tolerantly matched, or item:ID."""


class ListRequest(SummaryRequest):
    """What POST /recommend asks."""

    n: int = Field(10, ge=1, le=MAX_LIST, strict=True)
    """Length of the list."""
    exclude: Annotated[tuple[Text, ...], FailFast(), Field(max_length=MAX_EXCLUDED), AfterValidator(_few_names)] = ()
    """Titles, item:ID, category=NAME or year=FROM..TO to leave out."""
    only: Annotated[tuple[Text, ...], FailFast(), Field(max_length=MAX_FILTERS)] = ()
    """category=NAME,NAME or year=FROM..TO to stay within."""


class ChatRequest(Section):
    """What POST /chat asks."""

    say: Annotated[str, Field(max_length=MAX_MESSAGE)]
    session: Session | None = None
    """As the last reply gave it; null begins a conversation."""


class Rejected(LlmrecError):
    """A request that is not even looked into."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True)
class Shared:
    """How a conversation asks the model that all share."""

    batcher: Batcher
    desk: Desk
    exact: Exact

    def rank(
        self, histories: Sequence[Sequence[int]], n: int, exclude: Sequence[int], allowed: np.ndarray | None
    ) -> list[list[Ranked]]:
        with self.desk.away():
            found = self.batcher.rank([ListAsked(one, n, exclude, allowed) for one in histories])
        return [ranked(one) for one in found]

    def reason(self, history: Sequence[int], item: int) -> str:
        with self.desk.away():
            return self.batcher.call(lambda: self.exact.reason(history, item))

    def taste(self, history: Sequence[int]) -> tuple[str, ...]:
        with self.desk.away():
            return self.batcher.call(lambda: self.exact.taste(history))


class Answers:
    """What the routes ask, from any thread."""

    def __init__(self, model: Recommender, *, engine: str, prior: bool = True, users: bool = False) -> None:
        """`users`: whether histories of the domain's data are answered for by id."""
        self.model, self.engine = model, engine
        recipe, catalog = model.recipe, model.catalog
        self.vocabulary = Vocabulary(catalog, (recipe.noun, recipe.unit, recipe.domain))
        self.batcher, self.desk = Batcher(model, prior=prior), Desk()
        self.shared = Shared(self.batcher, self.desk, Exact(recipe, model.adapter, prior, engine, model))
        self.users = Known.of(model.dataset, catalog).history if users else None

    def warm_up(self) -> None:
        """What the first list and the first reason need is there, or fails, before anybody asks.

        Raises: as `Recommender.rank`; AdapterError.
        """
        self.model.rank([()], 10, prior=self.batcher.prior)
        self.shared.exact.insight().open()

    def health(self) -> dict[str, Any]:
        """Raises: Busy where nobody is answered."""
        self.batcher.check()
        model = self.model
        return {
            "domain": model.recipe.domain, "noun": model.recipe.noun, "items": len(model.catalog),
            "adapter": model.adapter, "users": self.users is not None,
            "engine": self.engine if "://" not in self.engine else "server",
        }  # fmt: skip

    def recommend(self, asked: ListRequest) -> dict[str, Any]:
        """Raises: Rejected, DataError, Busy."""
        known = self._history(asked.user)
        with self.desk.seat():
            wanted = question(
                self.model.dataset, self.model.catalog, history=asked.history, exclude=asked.exclude, only=asked.only
            )
        wanted = replace(wanted, user=asked.user, history=known + wanted.history)
        [ranking] = self.batcher.rank([ListAsked(wanted.history, asked.n, wanted.exclude, wanted.allowed)])
        return recommendation(self.model, wanted, ranking).as_dict()

    def explain(self, asked: ExplanationRequest) -> dict[str, Any]:
        """Raises: Rejected, DataError, Busy."""
        self._learned("explanation")
        history = self._somebody(asked)
        with self.desk.seat():
            [item] = match_titles([asked.item], self.model.catalog)
        insight = self.shared.exact.insight
        [found] = self.batcher.call(lambda: insight().explanations([history], [item], [asked.user]))
        return found.as_dict()

    def summarize(self, asked: SummaryRequest) -> dict[str, Any]:
        """Raises: Rejected, DataError, Busy."""
        self._learned("interest", "interest_summary")
        history = self._somebody(asked)
        insight = self.shared.exact.insight
        found = self.batcher.call(lambda: summary(insight(), history, asked.user))
        return found.as_dict()

    def chat(self, asked: ChatRequest) -> dict[str, Any]:
        """Raises: DataError, Busy."""
        recipe = self.model.recipe
        session = asked.session or Session(domain=recipe.domain)
        if session.domain != recipe.domain:
            raise DataError(f"session: about '{session.domain}', not '{recipe.domain}'; start another session")
        with self.desk.seat():
            check_session(session, self.model.catalog, "session")
            reply, session = respond(session, asked.say, self.vocabulary, self.shared, recipe.noun, recipe.unit)
        return {"reply": reply.as_dict() | {"ends": reply.ends}, "session": trimmed(session).model_dump(mode="json")}

    def _learned(self, *tasks: str) -> None:
        if missing := [task for task in tasks if task not in self.model.card]:
            raise Rejected(404, f"this adapter has not learned {missing[0]}")

    def _somebody(self, asked: SummaryRequest) -> list[int]:
        """Raises: Rejected, DataError where nothing is known of anybody."""
        known = self._history(asked.user)
        with self.desk.seat():
            history = known + match_titles(asked.history, self.model.catalog)
        if not history:
            raise DataError("history: empty; send the titles of what somebody chose")
        return history

    def _history(self, user: str | None) -> list[int]:
        if user is None:
            return []
        if self.users is None:
            raise Rejected(403, "user: this server answers for nobody by id; send a history (or start it with --users)")
        if user not in self.users:
            raise Rejected(404, f"user: no user {shown(user)}")
        return [int(item) for item in self.users[user]]


def build(answers: Answers, hosts: Sequence[str]) -> Starlette:
    """The application.

    Args:
        hosts: names under which it may be asked; another one is how a page of somebody else reaches a server on this
            machine (DNS rebinding).
    """

    async def health(request: Request) -> Response:  # however many requests there are
        try:
            found = answers.health()
            return _json(found if _host(request.scope) in hosts else {"domain": found["domain"]})
        except Busy as error:
            return _error(503, error)

    answered = Door().answered
    routes = [
        Route("/health", health, methods=["GET"]),
        Route("/recommend", answered(lambda body: answers.recommend(_read(ListRequest, body))), methods=["POST"]),
        Route("/explain", answered(lambda body: answers.explain(_read(ExplanationRequest, body))), methods=["POST"]),
        Route("/summarize", answered(lambda body: answers.summarize(_read(SummaryRequest, body))), methods=["POST"]),
        Route("/chat", answered(lambda body: answers.chat(_read(ChatRequest, body))), methods=["POST"]),
        *(Route(path, _file(*file), methods=["GET"]) for path, file in PAGE.items()),
    ]
    app = Starlette(
        routes=routes,
        middleware=[Middleware(OnlyFor, hosts=hosts)],
        exception_handlers={HTTPException: _no_route, Exception: _bug},
    )
    app.router.redirect_slashes = False
    return app


def _host(scope: Scope) -> str | None:
    """The name that a request asks; None for none that can be read."""
    try:
        return urlsplit(f"//{Headers(scope=scope).get('host', '')}").hostname
    except ValueError:  # "[" and such
        return None


class OnlyFor:
    """Refuses requests under any other name, but for how this server is: load balancers ask by address.  (Starlette's
    own check cannot read `[::1]:8080`.)"""

    def __init__(self, app: ASGIApp, hosts: Sequence[str]) -> None:
        self.app, self.hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (_host(scope) in self.hosts or scope["path"] == "/health"):
            await self.app(scope, receive, send)
        else:
            sent = Headers(scope=scope).get("host", "") if scope["type"] == "http" else ""
            text = f"this server was not told that it is {shown(sent)}; start it with --name"
            await _error(400, text)(scope, receive, send)


class Server(uvicorn.Server):
    """Answers until it is interrupted, by Ctrl-C or SIGTERM; then it ends what was begun, and tells who waits."""

    def __init__(self, answers: Answers, hosts: Sequence[str]) -> None:
        self.answers = answers
        super().__init__(
            uvicorn.Config(
                build(answers, hosts), log_level="warning", access_log=False, server_header=False, lifespan="off",
                limit_concurrency=CONNECTIONS, timeout_keep_alive=5, timeout_graceful_shutdown=GRACE,
            )
        )  # fmt: skip

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        batcher = self.answers.batcher
        batcher.close()
        told = asyncio.get_running_loop().call_later(GRACE - TOLD, batcher.abandon)
        await super().shutdown(sockets)
        told.cancel()

    async def on_tick(self, counter: int) -> bool:
        """Whether it shall end: as well where it will answer nobody again."""
        return await super().on_tick(counter) or not self.answers.batcher.alive


def hosts_of(host: str, names: Sequence[str] = ()) -> list[str]:
    """Names under which a server that listens on `host` may be asked: its own, `names`, and where this machine can
    reach it, that machine's.  Raises: RecipeError."""
    found = {host_name(name) for name in (host, *names)}
    return sorted(found | {*LOOPBACK} if host_name(host) in (*LOOPBACK, *ALL) else found)


def host_name(text: str) -> str:
    """A name or address as a request's Host has it.  Raises: RecipeError."""
    try:
        found = urlsplit(f"//{f'[{text}]' if text.count(':') > 1 and '[' not in text else text}")
        name, port = found.hostname, found.port
    except ValueError:
        name, port = None, None
    if not name or port is not None or text.strip("[]").lower() != name:
        raise RecipeError(f"{text}: a name or an address is expected, such as recommend.example.org, and no port")
    try:
        return ip_address(name).compressed  # as browsers send it
    except ValueError:
        return name


def listen(host: str, port: int) -> socket.socket:
    """Raises: EngineError where somebody else listens there, or nobody can."""
    try:
        both = host == "::" and socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=CONNECTIONS, dualstack_ipv6=both)
    except OSError as error:
        raise EngineError(f"{host}:{port}: {error.strerror or error}; choose another --port or --host") from None


class Door:
    """Lets requests in, as many as can be worked on."""

    def __init__(self) -> None:
        self.inside = 0

    def answered(self, answer: Callable[[bytes], Mapping[str, Any]]) -> Callable[[Request], Awaitable[Response]]:
        """A route: the body is read within limits, and answered in a thread."""

        async def route(request: Request) -> Response:
            try:
                self._check()
                body = await _body(request)
                self._check()  # a place is taken by what can be worked on, not by what is on its way
                return _json(await self._inside(request, lambda: answer(body)))
            except Rejected as error:
                return _error(error.status, error)
            except Busy as error:
                return _error(503, error)
            except (DataError, RecipeError) as error:
                return _error(400, error)
            except LlmrecError as error:  # an engine or an adapter: nothing that the client could mend, nor need know
                LOG.warning("%s: %s", request.url.path, error)
                return _error(502, "what computes has failed; the server's log says how")
            except ClientDisconnect:
                return Response(status_code=499)

        return route

    def _check(self) -> None:
        if self.inside >= ADMITTED:
            raise Busy(f"{self.inside} requests are being answered; ask again in a moment")

    async def _inside(self, request: Request, answer: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
        """The answer, from a thread, which asks nothing more where the client goes."""
        caller = Caller()
        CALLER.set(caller)
        gone = asyncio.create_task(_gone(request, caller))
        self.inside += 1
        try:
            return await anyio.to_thread.run_sync(answer, limiter=anyio.CapacityLimiter(1))
        finally:
            self.inside -= 1
            gone.cancel()


async def _gone(request: Request, caller: Caller) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    caller.leave()


async def _body(request: Request) -> bytes:
    """Raises: Rejected."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":  # which a page of somebody else may not send unasked
        raise Rejected(415, "send JSON, with Content-Type: application/json")
    parts, size = [], 0
    try:
        with anyio.fail_after(BODY_SECONDS):
            async for part in request.stream():
                size += len(part)
                if size > MAX_BODY:
                    raise Rejected(413, f"more than {MAX_BODY:,} bytes")
                parts.append(part)
    except TimeoutError:
        raise Rejected(408, f"the request did not come within {BODY_SECONDS:.0f} seconds") from None
    return b"".join(parts)


def _read(kind: type[config.S], body: bytes) -> config.S:
    """Raises: RecipeError naming the key that is wrong."""
    try:
        values = json.loads(body)
        if not isinstance(values, dict):
            raise RecipeError("request: a JSON object is expected")
        _check_keys(values)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"request: no JSON: {error}") from None
    except (ValueError, RecursionError):  # a number of thousands of digits, or parentheses within parentheses
        raise RecipeError("request: no JSON that anybody sends") from None
    return config.section(kind, values, source="request")


def _check_keys(values: Any) -> None:
    """Raises: RecipeError for an object with more keys than any has here: each would be an error of its own."""
    for one in values.values() if isinstance(values, dict) else values:
        if isinstance(one, dict | list):
            _check_keys(one)
    if isinstance(values, dict) and len(values) > MAX_KEYS:
        raise RecipeError(f"request: an object of {len(values):,} keys; at most {MAX_KEYS} are expected")


def _file(name: str, kind: str) -> Callable[[Request], Awaitable[Response]]:
    content = files("llmrec.web").joinpath(name).read_bytes()

    async def route(_: Request) -> Response:
        return Response(content, media_type=f"{kind}; charset=utf-8", headers=HEADERS)

    return route


def _json(values: Mapping[str, Any], status: int = 200, **headers: str) -> Response:
    text = json.dumps(values, allow_nan=False)  # in ASCII: what a client wrote may be half a character
    return Response(text, status, media_type="application/json", headers=HEADERS | headers)


def _error(status: int, error: Exception | str, headers: Mapping[str, str] | None = None) -> Response:
    text = one_line(str(error), MAX_ERROR)
    return _json({"error": text}, status, **(headers or {}), **({"Retry-After": str(RETRY)} if status == 503 else {}))


async def _no_route(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _error(error.status_code, error.detail, error.headers)


async def _bug(request: Request, error: Exception) -> Response:
    """Starlette raises it again, so that the log has where."""
    return _error(500, f"{type(error).__name__}: a bug; the server's log says where")
