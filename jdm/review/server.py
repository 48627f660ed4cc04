"""The page's server: loopback only, one token, nothing from elsewhere."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import secrets
import socket
import sys
from collections.abc import AsyncIterator, Callable
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jdm.errors import ConfigError, JdmError
from jdm.review.session import Session
from jdm.review.summary import refresh

HOST = "127.0.0.1"
_REFRESH_SECONDS = 2.0
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_LOCKED = "403: open the address that jdm-review printed; it works once, then start jdm-review again\n"


class Gate:
    """Adds the headers to every answer, and answers 403 to requests that have neither the token nor the cookie.

    The token in the printed address opens the page once. It is then replaced by a cookie that scripts cannot read and
    that other sites' pages do not send, so that it stays in no history.
    """

    def __init__(self, app: ASGIApp, token: str, cookie: str) -> None:
        self.app, self.token, self.cookie = app, token, cookie
        self.session = secrets.token_urlsafe(32)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        fresh = self._opens(request)

        async def dressed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                if fresh:
                    headers.append("Set-Cookie", f"{self.cookie}={self.session}; HttpOnly; SameSite=Strict; Path=/")
            await send(message)

        allowed = fresh or _same(request.cookies.get(self.cookie, ""), self.session)
        origin = request.headers.get("origin")
        if origin is not None and origin != f"http://{request.headers.get('host')}":
            allowed = False  # a page of another site, or of another port of this machine
        answer = self.app if allowed else PlainTextResponse(_LOCKED, 403)
        await answer(scope, receive, dressed)

    def _opens(self, request: Request) -> bool:
        """Whether the request is the page's first, with the token, which is used up."""
        if request.method != "GET" or request.url.path != "/" or not self.token:
            return False
        if not _same(request.query_params.get("token", ""), self.token):
            return False
        self.token = ""
        return True


def application(session: Session, token: str, port: int) -> Starlette:
    """The page and its data. Endpoints take numbers only, never names of files or cases."""
    routes = [
        Route("/", _file("page.html")),
        Route("/page.css", _file("page.css")),
        Route("/page.js", _file("page.js")),
        Route("/state", lambda _: JSONResponse(session.state())),
        Route("/pair/{number:int}", _found(lambda r: JSONResponse(session.describe(r.path_params["number"])))),
        Route("/plane/{number:int}/{index:int}", _found(
            lambda r: Response(session.plane(r.path_params["number"], r.path_params["index"]),
                               media_type="application/octet-stream"))),
        Route("/decide", _decide(session), methods=["POST"]),
        Route("/undo", _found(lambda _: JSONResponse(session.undo())), methods=["POST"]),
    ]  # fmt: skip
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"], www_redirect=False)
    gate = Middleware(Gate, token=token, cookie=f"jdm_review_{port}")

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        keeper = asyncio.create_task(_keep_tables(session))
        yield
        keeper.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeper
        await run_in_threadpool(_refresh, session)

    return Starlette(routes=routes, middleware=[hosts, gate], lifespan=lifespan)


def listen(port: int) -> socket.socket:
    """A socket on this machine's loopback address.

    Args: port: 0 for any free one.
    Raises: ConfigError if it is taken.
    """
    if not 0 <= port <= 65535:
        raise ConfigError(f"--port is {port}; expected 1 to 65535, or 0 for any free one; choose another")
    # with the protocol named, asyncio switches Nagle's delay of 40 ms off
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((HOST, port))
        listening.listen(128)
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"--port {port} cannot be used ({error.strerror}); expected a free one; choose another, or leave it out"
        ) from None
    return listening


def serve(session: Session, listening: socket.socket, announce: Callable[[str], None]) -> None:
    """Serve the page until Ctrl-C or SIGTERM. Args: announce: is told the address to open."""
    import uvicorn

    token, port = secrets.token_urlsafe(32), listening.getsockname()[1]
    settings = uvicorn.Config(
        application(session, token, port), log_level="error", access_log=False, server_header=False, date_header=False,
        timeout_graceful_shutdown=2,
    )  # fmt: skip
    announce(f"http://{HOST}:{port}/?token={token}")
    with contextlib.suppress(KeyboardInterrupt):  # the way to end it
        uvicorn.Server(settings).run(sockets=[listening])


def _same(a: str, b: str) -> bool:
    return secrets.compare_digest(a.encode(), b.encode())


def _file(name: str) -> Callable[[Request], Response]:
    kind = {"html": "text/html", "css": "text/css", "js": "text/javascript"}[name.rpartition(".")[2]]
    content = (files("jdm.review") / name).read_bytes()
    return lambda _: Response(content, media_type=kind)


def _found(answer: Callable[[Request], Response]) -> Callable[[Request], Response]:
    """An endpoint that names what the user can mend, and answers 404 to unknown numbers."""

    def endpoint(request: Request) -> Response:
        try:
            return answer(request)
        except IndexError:
            return PlainTextResponse("404: no such pair\n", 404)
        except JdmError as error:
            return JSONResponse({"error": str(error)}, 400)
        except OSError as error:
            return JSONResponse({"error": f"not saved: {error.strerror}; free space, then decide again"}, 507)

    return endpoint


def _decide(session: Session) -> Callable[[Request], Any]:
    async def endpoint(request: Request) -> Response:
        try:
            body = await request.json()
            planes = {int(k): base64.b64decode(v, validate=True) for k, v in body.get("planes", {}).items()}
            asked = (int(body["number"]), str(body["decision"]), body.get("comment"), float(body["seconds"]), planes)
        except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError):
            return JSONResponse({"error": "not a decision; expected one of the page's; load it again"}, 400)
        return await run_in_threadpool(_found(lambda _: JSONResponse(session.decide(*asked))), request)

    return endpoint


async def _keep_tables(session: Session) -> None:
    while True:
        await asyncio.sleep(_REFRESH_SECONDS)
        await run_in_threadpool(_refresh, session)


def _refresh(session: Session) -> None:
    """Bring the tables up to date; a failure is tried again, because the decisions themselves are safe."""
    if not session.changed:
        return
    session.changed = False
    try:
        refresh(session.dataset)
    except (JdmError, OSError) as error:
        session.changed = True
        print(f"the tables are not up to date: {error}", file=sys.stderr)
