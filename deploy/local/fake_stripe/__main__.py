"""Run the fake: `python -m deploy.local.fake_stripe --host 127.0.0.1 --port 12111 --state FILE`."""

from __future__ import annotations

import argparse
import asyncio
import gc
import socket
import sys
from pathlib import Path

import uvicorn
import uvloop

from deploy.local.fake_stripe import passing
from deploy.local.fake_stripe.api import application
from deploy.local.fake_stripe.books import Books
from deploy.local.fake_stripe.connection import Protocol
from deploy.local.fake_stripe.doors import Doors
from deploy.local.fake_stripe.fake import Fake
from deploy.local.fake_stripe.journal import JournalError

_ENVIRONMENT_PREVENTS = 3
_IDLE_SECONDS = 75
"""Longer than HTTP clients keep an idle connection, so that a reused one is not closed under a request."""


def main() -> int:
    """Serve until told to stop; 3 when the port or the state file cannot be had."""
    options = _options()
    try:
        books = Books(options.state)
        listener = _listen(options.host, options.port)
    except (JournalError, OSError) as error:
        print(f"fake Stripe: {error}", file=sys.stderr)
        return _ENVIRONMENT_PREVENTS
    host, port = listener.getsockname()[:2]
    print(f"fake Stripe on http://{host}:{port}", flush=True)
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)  # what it keeps is kept for good: looking for garbage in it only holds callers up
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(books, listener, [options.host, *options.allow_host]))
    except KeyboardInterrupt:
        return 0
    finally:
        books.close()
    return 0


async def _serve(books: Books, listener: socket.socket, hosts: list[str]) -> None:
    """Answer requests, send webhooks and let time pass until told to stop."""
    fake = Fake(books)
    config = uvicorn.Config(
        Doors(application(fake), hosts),
        http=Protocol,
        ws="none",
        lifespan="off",
        access_log=False,
        proxy_headers=False,
        log_level="warning",
        server_header=False,
        timeout_keep_alive=_IDLE_SECONDS,
        timeout_graceful_shutdown=1,
    )
    async with asyncio.TaskGroup() as tasks:
        behind = [tasks.create_task(passing.run(books)), tasks.create_task(fake.sender.run())]
        await uvicorn.Server(config).serve(sockets=[listener])
        for task in behind:
            task.cancel()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m deploy.local.fake_stripe", description="A fake Stripe.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--allow-host", action="append", default=[], help="a further name by which it may be called")
    parser.add_argument("--port", type=int, default=12111, help="0 takes a free one and prints it")
    parser.add_argument("--state", type=Path, required=True, help="the journal, with a database beside it; made when absent")
    return parser.parse_args()


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), backlog=1024)
    except OSError as error:
        message = f"cannot listen on {host}:{port} ({error.strerror}); choose another --port"
        raise OSError(message) from error


if __name__ == "__main__":
    sys.exit(main())
