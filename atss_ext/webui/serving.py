"""The server of the page: on loopback unless told otherwise, and without anything from elsewhere."""

import contextlib
import ipaddress
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from atss_ext.errors import UserError, first_line
from atss_ext.webui.desk import Desk
from atss_ext.webui.guard import Guard

# Gradio's own scripts stand in the page and compile templates; a browser takes nothing from other hosts.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' blob:; font-src 'self' data:; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
_QUEUE = 16
_NO_API = {'docs_url': None, 'redoc_url': None, 'openapi_url': None}
_QUIET: dict[str, Any] = {
    'quiet': True,
    'inbrowser': False,
    'prevent_thread_lock': True,
    'show_error': False,
    'footer_links': [],
    # What gradio offers beside the page: a public address, other servers, and a history of runs that it
    # keeps in buckets of whose token this machine has.
    'share': False,
    'enable_monitoring': False,
    'run_history': False,
    'ssr_mode': False,
    'num_workers': 0,
    'pwa': False,
    'mcp_server': False,
}


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


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server at ``host``."""
    if host == 'localhost':
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_host(host: str) -> None:
    """Refuse what no server can listen at, and an address of IPv6, at which gradio does not find itself.

    Raises:
        UserError: it is one, holds a port, is empty, or is no name or address of this machine.
    """
    if ':' in host or not host.strip():
        raise UserError(f'--host {host!r} has to be a name or an address of IPv4, such as 127.0.0.1')
    with socket.socket() as probe:
        try:
            probe.bind((host, 0))
        except (OSError, UnicodeError) as error:
            reason = getattr(error, 'strerror', None) or first_line(error)
            raise UserError(
                f'--host {host} is no address of this machine ({reason}); the default 127.0.0.1 always is'
            ) from error


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
        patience: seconds that a request may be silent, see :class:`Guard`.

    Raises:
        UserError: the port is taken, the address is none of this machine or of IPv6, or gradio fails.
    """

    def __init__(self, desk: Desk, host: str = '127.0.0.1', port: int = 7860, patience: float = 30) -> None:
        check_host(host)
        # Uploads end with the server too; read by gradio on import.
        os.environ['GRADIO_TEMP_DIR'] = str(desk.outbox.gradio)
        from atss_ext.webui.page import build_page, looks

        self.desk, self.page = desk, build_page(desk)
        self.page.queue(max_size=_QUEUE, api_open=False)
        try:
            with _no_proxy_for(host):
                _, self.url, _ = self.page.launch(
                    server_name=host,
                    server_port=port,
                    max_file_size=desk.limits.file_bytes,
                    app_kwargs={'middleware': _middleware(host, desk, patience), **_NO_API},
                    **_QUIET,
                    **looks(),
                )
        except Exception as error:  # gradio asks itself for an answer, and raises what httpx raises
            self.page.close(verbose=False)
            reason = first_line(error) if isinstance(error, OSError) else f'gradio: {first_line(error)}'
            raise UserError(
                f'the page cannot be served at {host}:{port} ({reason}); choose another --port or --host'
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


@contextlib.contextmanager
def _no_proxy_for(host: str) -> Iterator[None]:
    """Let no proxy of the environment stand between this process and its own page."""
    before = {key: os.environ.get(key) for key in ('NO_PROXY', 'no_proxy')}
    known = [name.strip() for value in before.values() for name in (value or '').split(',')]
    names = dict.fromkeys([*filter(None, known), host, '127.0.0.1', 'localhost'])
    os.environ.update(dict.fromkeys(before, ','.join(names)))
    try:
        yield
    finally:
        for key, value in before.items():
            del os.environ[key]
            if value is not None:
                os.environ[key] = value


def _middleware(host: str, desk: Desk, patience: float) -> list[Any]:
    layers = [Middleware(Headers)]
    if is_loopback(host):
        # A page of another site cannot reach this one under a name that it lets point here.
        layers.append(Middleware(TrustedHostMiddleware, allowed_hosts=['127.0.0.1', 'localhost', host]))
    return [*layers, Middleware(Guard, desk, patience)]
