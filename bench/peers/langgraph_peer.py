"""LangGraph with its SQLite saver; each step's checkpoint is written before the next one starts."""

from __future__ import annotations

import operator
import sqlite3
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, TypedDict

from child import PAD, serve, sizes
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send

SEQUENCE, WIDTH, SESSIONS, EACH = sizes()


class State(TypedDict):
    n: int
    pad: str
    parts: Annotated[list[Any], operator.add]


def grow(state: State) -> dict[str, Any]:
    return {"n": state["n"] + 1, "pad": PAD}


def chain(length: int, saver: SqliteSaver) -> Any:
    graph = StateGraph(State)
    for n in range(length):
        graph.add_node(f"s{n}", grow)
        graph.add_edge(f"s{n - 1}" if n else START, f"s{n}")
    graph.add_edge(f"s{length - 1}", END)
    return graph.compile(checkpointer=saver)


def fan(saver: SqliteSaver) -> Any:
    graph = StateGraph(State)
    graph.add_node("part", lambda state: {"parts": [{"n": state["n"], "pad": PAD}]})
    graph.add_node("join", lambda state: {"n": len(state["parts"])})
    graph.add_conditional_edges(START, lambda state: [Send("part", {"n": n}) for n in range(WIDTH)], ["part"])
    graph.add_edge("part", "join")
    graph.add_edge("join", END)
    return graph.compile(checkpointer=saver)


def run(graph: Any) -> Any:
    config = {"configurable": {"thread_id": str(uuid.uuid4())}, "recursion_limit": 1000}
    return graph.invoke({"n": 0, "pad": "", "parts": []}, config, durability="sync")


saver = SqliteSaver(sqlite3.connect("langgraph.db", check_same_thread=False))
long, wide, short = chain(SEQUENCE, saver), fan(saver), chain(EACH, saver)
pool = ThreadPoolExecutor(2)


def many() -> None:
    assert all(state["n"] == EACH for state in pool.map(run, [short] * SESSIONS))


serve("langgraph", lambda: run(long), lambda: run(wide), many)
