"""A mail server and a Telegram server that really listen."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage, Message
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

from tests.serving import serving


@dataclass
class Telegram:
    """What was sent to a server that speaks the Bot API. `refuse`: the HTTP status to answer with instead."""

    url: str = ""
    paths: list[str] = field(default_factory=list)
    messages: list[dict[str, Any]] = field(default_factory=list)
    refuse: int | None = None


@contextmanager
def telegram() -> Iterator[Telegram]:
    state = Telegram()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state.paths.append(self.path)
            if state.refuse is None:
                state.messages.append(body)
            answer = json.dumps({"ok": state.refuse is None, "description": "Unauthorized"}).encode()
            self.send_response(state.refuse or 200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    with serving(server):
        yield state


class _Inbox:
    def __init__(self) -> None:
        self.mails: list[Message | EmailMessage] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        self.mails.append(message_from_bytes(envelope.content, policy=default))
        return "250 OK"


class _Controller(Controller):
    """On a port that the system chooses: known once it listens, before it is first connected to."""

    def _trigger_server(self) -> None:
        assert self.server is not None
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


@dataclass
class Mail:
    port: int
    mails: list[Any]


@contextmanager
def mail(password: str = "right") -> Iterator[Mail]:
    """An SMTP server that takes mail from those who know the password."""
    inbox = _Inbox()

    def authenticate(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        known = data.password == password.encode()
        return AuthResult(success=known, handled=known)

    controller = _Controller(
        inbox, hostname="127.0.0.1", port=0, authenticator=authenticate, auth_required=True, auth_require_tls=False
    )
    controller.start()
    try:
        yield Mail(controller.port, inbox.mails)
    finally:
        controller.stop()
