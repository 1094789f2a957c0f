"""The server of the page: on loopback unless told otherwise, and without anything from elsewhere."""

import ipaddress
import os
import signal
import sys
import threading
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers as RequestHeaders
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from atss_ext.errors import UserError, first_line
from atss_ext.webui.desk import Desk

# Gradio's own scripts stand in the page and compile templates; a browser takes nothing from other hosts.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' blob:; font-src 'self' data:; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
_QUEUE = 16
_REST = 2**20  # of a request, beside the file that it brings
_NO_API = {'docs_url': None, 'redoc_url': None, 'openapi_url': None}


class Headers:
    """Adds what tells a browser to take nothing from other hosts, and to guess no file types."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""

        async def send_with(message: Message) -> None:
            if message['type'] == 'http.response.start':
                message['headers'] = [
                    *message['headers'],
                    (b'content-security-policy', POLICY.encode()),
                    (b'x-content-type-options', b'nosniff'),
                    (b'referrer-policy', b'no-referrer'),
                ]
            await send(message)

        await self.app(scope, receive, send_with)


class Guard:
    """Refuses what no page of this server sends: requests of other sites, and more bytes than one upload has.

    A browser states the site of a page that sends something; it keeps the page from reading the answer, and
    not from sending. What is on its way counts among what the server keeps, so that many uploads at once
    take no more room than one after the other.

    Args:
        app: what is behind.
        desk: its limits and its folder are kept.
    """

    def __init__(self, app: ASGIApp, desk: Desk) -> None:
        self.app, self.desk = app, desk
        self._coming = 0  # bytes of requests that have not been answered yet

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope['type'] not in ('http', 'websocket'):
            await self.app(scope, receive, send)
            return
        headers = RequestHeaders(scope=scope)
        size, limits = int(headers.get('content-length', 0)), self.desk.limits
        answer: ASGIApp = self._refusal(headers, size) or self.app
        if answer is not self.app or not size:
            await answer(scope, receive, send)
            return
        self._coming += size
        try:
            await run_in_threadpool(self.desk.outbox.make_room, self._coming, limits.stored_bytes)
            await self.app(scope, receive, send)
        finally:
            self._coming -= size

    def _refusal(self, headers: RequestHeaders, size: int) -> PlainTextResponse | None:
        origin = headers.get('origin')
        if origin is not None and origin.lower().partition('://')[2] != headers.get('host', '').lower():
            return PlainTextResponse('This page takes nothing from other sites.', 403)
        if 'transfer-encoding' in headers:
            return PlainTextResponse('Say how long it is: Content-Length.', 411)
        limits = self.desk.limits
        if size > limits.file_bytes + _REST:
            return PlainTextResponse(f'This page takes files of up to {limits.megabytes:g} MB.', 413)
        if self._coming + size > limits.stored_bytes:
            return PlainTextResponse('Too much is being sent to this page; try again in a moment.', 503)
        return None


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server at ``host``."""
    if host == 'localhost':
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_host(host: str) -> None:
    """Refuse an address of IPv6, which gradio listens at but does not find itself at.

    Raises:
        UserError: it is one, or holds a port.
    """
    if ':' in host:
        raise UserError(f'--host {host} has to be a name or an address of IPv4, such as 127.0.0.1')


def warning_of(host: str) -> str | None:
    """The line of warning for a host that others reach."""
    if is_loopback(host):
        return None
    return (
        f'warning: --host {host} lets everyone who reaches this machine use the page, without password or '
        'encryption; prefer the default 127.0.0.1 and an ssh tunnel'
    )


class Server:
    """A page that is being served.

    Args:
        desk: behind the page.
        host: address to listen on.
        port: to listen on.

    Raises:
        UserError: the port is taken, or the address is none of this machine or of IPv6.
    """

    def __init__(self, desk: Desk, host: str = '127.0.0.1', port: int = 7860) -> None:
        check_host(host)
        # Uploads end with the server too; read by gradio on import.
        os.environ['GRADIO_TEMP_DIR'] = str(desk.outbox.gradio)
        from atss_ext.webui.page import build_page, looks

        self.desk, self.page = desk, build_page(desk)
        self.page.queue(max_size=_QUEUE, api_open=False)
        try:
            _, self.url, _ = self.page.launch(
                server_name=host,
                server_port=port,
                share=False,
                quiet=True,
                inbrowser=False,
                prevent_thread_lock=True,
                show_error=False,
                max_file_size=desk.limits.file_bytes,
                footer_links=[],
                enable_monitoring=False,
                ssr_mode=False,
                pwa=False,
                mcp_server=False,
                app_kwargs={'middleware': _middleware(host, desk), **_NO_API},
                **looks(),
            )
        except OSError as error:
            raise UserError(
                f'the page cannot be served at {host}:{port} ({first_line(error)}); choose another --port '
                'or --host'
            ) from error

    def wait(self) -> None:
        """Serve until Ctrl-C, or until whoever started it ends it."""
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print('\nthe page has ended', file=sys.stderr)
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):  # a second one would leave files behind
                signal.signal(number, signal.SIG_IGN)
            self.close()

    def close(self) -> None:
        """End it, and delete what was sent to it."""
        self.page.close(verbose=False)
        self.desk.outbox.close()


def _middleware(host: str, desk: Desk) -> list[Any]:
    layers = [Middleware(Headers)]
    if is_loopback(host):
        # A page of another site cannot reach this one under a name that it lets point here.
        layers.append(Middleware(TrustedHostMiddleware, allowed_hosts=['127.0.0.1', 'localhost', host]))
    return [*layers, Middleware(Guard, desk)]
