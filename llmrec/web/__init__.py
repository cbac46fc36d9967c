"""web: a domain's lists and conversations over HTTP, as JSON and as a page.

`app` answers requests, `batcher` brings what is asked at the same time before the model at once, `page.*` is what a
browser shows.  Nothing is stored of anybody: a conversation's state travels with its messages.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib.util import find_spec

from rich.console import Console

from llmrec import config
from llmrec.errors import EngineError

LOG = logging.getLogger("llmrec")


def start(
    domain: str,
    overrides: tuple[str, ...] = (),
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    names: Sequence[str] = (),
    users: bool = False,
    adapter: str | None = None,
    base: bool = False,
    prior: bool = True,
    engine: str = "hf",
) -> None:
    """Answers until it is interrupted.

    Args:
        names: under which it may be asked, beside `host` and, where that is this machine alone, its other names.
        users: see `llmrec.web.app.Answers`.
    Raises: EngineError where nobody can listen there or the extra is missing; RecipeError, DataError, AdapterError.
    """
    if not (find_spec("starlette") and find_spec("uvicorn")):
        raise EngineError("llmrec web needs the extra `web`: pip install -e '.[web]'")
    recipe = config.load_recipe(domain, overrides)
    asked = config.adapter_asked(recipe, adapter, base)
    from llmrec.web import app

    hosts = app.hosts_of(host, names)
    listener = app.listen(host, port)  # before the seconds that a model takes to load
    try:
        with Console(stderr=True).status("reading the model …"):
            from llmrec.recommender import Recommender

            answers = app.Answers(
                Recommender.load(recipe, asked, engine=engine), engine=engine, prior=prior, users=users
            )
            answers.warm_up()
        if app.host_name(host) not in config.LOOPBACK:
            LOG.warning("%s: whoever reaches it can ask, without a password or encryption: put a proxy before it", host)
        shown = f"[{host}]" if ":" in host else host
        print(f"http://{shown}:{listener.getsockname()[1]}  (Ctrl-C ends)", flush=True)
        app.Server(answers, hosts).run(sockets=[listener])
        if answers.batcher.died:
            raise EngineError("the model's thread has ended: the log above says why; start it again")
    finally:
        listener.close()
