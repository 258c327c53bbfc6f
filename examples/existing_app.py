"""Durable steps in a Celery app that is there already. Its own tasks stay as they are.

celery -A existing_app worker               in one terminal, in this folder
python existing_app.py Ana Bo               in another
"""

from __future__ import annotations

import os
import sys
from typing import Any

from celery import Celery

from celeriac import Celeriac, Plan, agent, step

app = Celery("shop", broker=os.environ.get("SHOP_BROKER", "redis://127.0.0.1:6379/0"))
celeriac = Celeriac(app)


@app.task(name="shop.ping")
def ping() -> str:
    """A task that was there before."""
    return "pong"


@agent("shop.names")
def names(request: dict[str, Any], ctx: Any) -> list[str]:
    """Customers to write to: the words of the session's query."""
    return ctx.session.query.split()


@agent("shop.letter")
def letter(request: dict[str, Any], ctx: Any) -> str:
    """Write one letter. `ctx.key` is the same in each attempt: pass it to services that must not act twice."""
    return f"Dear {request['name']}, thank you. ({ctx.key.rpartition('/')[2]})"


@agent("shop.post")
def post(request: dict[str, Any], ctx: Any) -> dict[str, Any]:
    """Count the letters."""
    return {"sent": len(request["letters"]), "first": request["letters"][0]}


thanks = Plan(
    "thanks",
    [
        step("names", "shop.names"),
        step("letter", "shop.letter", {"name": "${item}"}, each="${names}"),
        step("post", "shop.post", {"letters": "${letter}"}),
    ],
)


def main() -> None:
    """Start a session; the workers run it. Wait for its end and print what it gave."""
    session = celeriac.sessions.start(thanks, query=" ".join(sys.argv[1:]) or "Ana Bo")
    print(session.wait(timeout=60), session.result)


if __name__ == "__main__":
    main()
