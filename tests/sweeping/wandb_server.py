"""A stand-in of the W&B server on loopback: as much of its protocol as `wandb agent` and online runs use, no more.

What the real client (wandb 0.31) asks: `Viewer` (is the key good), `SweepWithRuns` (the sweep's YAML, for its
`command`), `CreateAgent`, then every 5 s `Heartbeat` with the ids of the runs that live, answered by a JSON list of
commands `{"type": "run" | "stop" | "exit", ...}`. A run asks once `RunResumeStatus` (a sweep run may be a requeued
one), then sends `UpsertBucket` (config), `CreateRunFiles` and PUTs (pictures), and posts its metrics to
`/files/ENTITY/PROJECT/RUN/file_stream`, at last with `complete` and `exitcode`; an answer with `stopped` makes the
client interrupt the run's main thread (SIGINT) within 15 s.
"""

from __future__ import annotations

import base64
import json
import re
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal

ENTITY, PROJECT, SWEEP = "lab", "chest", "sweep001"
KEY = "0123456789abcdef" * 2 + "01234567"
METRIC = "val/score"

Variables = dict[str, Any]


@dataclass
class Run:
    """One run that the sweep hands out, and what came back of it."""

    id: str
    values: dict[str, Any]
    """Config keys and the values that the sweep chose."""
    epochs: int | None = None
    """Rows of `METRIC` after which the run is to end; None lets it train on."""
    by: Literal["stop", "page", "exit"] = "stop"
    """How: the agent gets `stop` (hyperband), the run itself hears of it (its page), the agent gets `exit` (cancel)."""
    agent: str | None = None
    """The agent that got it."""
    starts: int = 0
    """How often a process opened this run: `wandb.init` asks for the resume status once."""
    config: dict[str, Any] = field(default_factory=dict)
    """Keys and values as W&B's run page would show them."""
    sweep: str | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    files: set[str] = field(default_factory=set)
    told: int = 0
    """How often an agent or the run was told to end."""
    exit_code: int | None = None
    """As the client reported it when it closed the run; None: never closed, which W&B shows as crashed."""

    @property
    def scored(self) -> int:
        """Epochs whose `METRIC` has arrived."""
        return sum(METRIC in row for row in self.history)

    @property
    def due(self) -> bool:
        """Whether the run is to end now."""
        return self.epochs is not None and self.scored >= self.epochs


class _Http(ThreadingHTTPServer):
    """Clients that are killed reset their connections; that is no news."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class WandbServer:
    """Hands out runs, one at a time; an agent that has had all of its own is told to exit.

    Args:
        sweep: The sweep's YAML as a dictionary.
        queues: The runs of each agent, agents in the order in which they register.
    """

    def __init__(self, sweep: dict[str, Any], *queues: Sequence[Run]):
        self.sweep = sweep
        self.runs = {run.id: run for queue in queues for run in queue}
        self.agents: list[str] = []
        self.others: list[str] = []
        """Operations and paths that nothing here answers."""
        self._queues = [deque(queue) for queue in queues]
        self._lock = threading.Lock()
        self._http = _Http(("127.0.0.1", 0), _handler(self))
        self._operations: dict[str, Callable[[Variables], Variables]] = {
            "Viewer": self._viewer,
            "ServerFeaturesQuery": lambda _: {"serverInfo": {"features": []}},
            "SweepWithRuns": self._sweep_with_runs,
            "CreateAgent": self._create_agent,
            "Heartbeat": self._heartbeat,
            "RunResumeStatus": self._resume_status,
            "UpsertBucket": self._upsert_run,
            "CreateRunFiles": self._create_files,
        }

    def __enter__(self) -> WandbServer:
        """Serve in threads of this process."""
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._http.server_close()

    @property
    def url(self) -> str:
        """For `WANDB_BASE_URL`."""
        return f"http://127.0.0.1:{self._http.server_port}"

    def environment(self) -> dict[str, str]:
        """Variables that send a client here, with a key, quickly, and nowhere else."""
        return {
            "WANDB_BASE_URL": self.url,
            "WANDB_API_KEY": KEY,
            "WANDB_ERROR_REPORTING": "false",
            "WANDB__FILE_STREAM_TRANSMIT_INTERVAL": "1",  # whole seconds; a fraction counts as unset, which is 15 s
            "NO_PROXY": "127.0.0.1",
        }

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Variables]:
        """Status and JSON for one request."""
        with self._lock:
            if path == "/graphql":
                return self._graphql(json.loads(body))
            if found := re.fullmatch(rf"/files/{ENTITY}/{PROJECT}/([\w-]+)/file_stream", path):
                return 200, self._stream(self.runs[found[1]], json.loads(body))
            if method == "PUT" and (found := re.fullmatch(r"/upload/([\w-]+)/(.+)", path)):
                self.runs[found[1]].files.add(found[2])
                return 200, {}
            self.others.append(f"{method} {path}")
            return 404, {}

    def _graphql(self, request: Variables) -> tuple[int, Variables]:
        found = re.search(r"\b(?:query|mutation)\s+(\w+)", request["query"])
        name = found[1] if found else request["query"]
        if name not in self._operations:
            self.others.append(name)
            return 200, {"data": None, "errors": [{"message": f"the stand-in does not know {name}"}]}
        return 200, {"data": self._operations[name](request.get("variables") or {})}

    def _viewer(self, _: Variables) -> Variables:
        names: Variables = {"id": "user", "entity": ENTITY, "username": "tester", "email": "tester@example.org"}
        return {"viewer": names | {"flags": "{}", "teams": {"edges": [{"node": {"name": ENTITY}}]}}}

    def _sweep_with_runs(self, asked: Variables) -> Variables:
        known = (asked["entity"], asked["project"], asked["sweep"]) == (ENTITY, PROJECT, SWEEP)
        text = json.dumps(self.sweep)  # JSON is YAML
        sweep = {"id": "s", "name": SWEEP, "state": "RUNNING", "config": text, "runs": {"edges": []}}
        return {"project": {"sweep": sweep} if known else None}

    def _create_agent(self, asked: Variables) -> Variables:
        assert asked["sweep"] == SWEEP
        self.agents.append(f"agent-{len(self.agents)}")
        return {"createAgent": {"agent": {"id": self.agents[-1]}}}

    def _heartbeat(self, said: Variables) -> Variables:
        commands = self._commands(said["id"], list(json.loads(said["runState"])))
        return {"agentHeartbeat": {"agent": {"id": said["id"]}, "commands": json.dumps(commands)}}

    def _commands(self, agent: str, alive: list[str]) -> list[Variables]:
        if alive:
            due = [run for name in alive if (run := self.runs[name]).due and run.by != "page"]
            for run in due:
                run.told += 1
            return [{"type": run.by, "run_id": run.id} for run in due]
        queue = self._queues[self.agents.index(agent)]
        if not queue:
            return [{"type": "exit"}]
        run = queue.popleft()
        run.agent = agent
        values = {key: {"value": value} for key, value in run.values.items()}
        return [{"type": "run", "run_id": run.id, "program": self.sweep.get("program"), "args": values}]

    def _resume_status(self, asked: Variables) -> Variables:
        self.runs[asked["name"]].starts += 1
        return {"model": {"id": "p", "name": PROJECT, "entity": {"id": "e", "name": ENTITY}, "bucket": None}}

    def _upsert_run(self, said: Variables) -> Variables:
        run = self.runs[said["name"]]
        run.sweep = said["sweep"] or run.sweep
        run.config |= {key: entry["value"] for key, entry in json.loads(said["config"] or "{}").items()}
        project = {"id": "p", "name": PROJECT, "entity": {"id": "e", "name": ENTITY}}
        bucket = {"id": run.id, "name": run.id, "displayName": run.id, "sweepName": SWEEP, "project": project}
        return {"upsertBucket": {"bucket": bucket | {"historyLineCount": 0}, "inserted": True}}

    def _create_files(self, asked: Variables) -> Variables:
        files = [{"name": name, "uploadUrl": f"{self.url}/upload/{asked['run']}/{name}"} for name in asked["files"]]
        return {"createRunFiles": {"runID": asked["run"], "uploadHeaders": [], "files": files}}

    def _stream(self, run: Run, said: Variables) -> Variables:
        if lines := said.get("files", {}).get("wandb-history.jsonl"):
            run.history[lines["offset"] :] = [json.loads(line) for line in lines["content"]]
        if said.get("complete"):
            run.exit_code = said["exitcode"]
        if run.due and run.by == "page":
            run.told += 1
            return {"stopped": True}
        return {}


def _handler(server: WandbServer) -> type[BaseHTTPRequestHandler]:
    """The class that http.server makes once a request."""
    login = "Basic " + base64.b64encode(f"api:{KEY}".encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _reply(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            known = self.headers.get("Authorization") == login or self.path.startswith("/upload/")
            status, answer = server.answer(self.command, self.path, body) if known else (401, {})
            text = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PUT = _reply  # noqa: N815  # names that http.server wants

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    return Handler
