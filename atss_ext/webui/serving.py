"""The server of the page: on loopback unless told otherwise, and without anything from elsewhere."""

import ipaddress
import os
import signal
import sys
import threading
from typing import Any

from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from atss_ext.cli.errors import UserError, first_line
from atss_ext.webui.desk import Desk

# Gradio's own scripts stand in the page and compile templates; a browser takes nothing from other hosts.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' blob:; font-src 'self' data:; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
_QUEUE = 16


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
        UserError: the port is taken, or the address is none of this machine.
    """

    def __init__(self, desk: Desk, host: str = '127.0.0.1', port: int = 7860) -> None:
        # Uploads end with the server too; read by gradio on import.
        os.environ['GRADIO_TEMP_DIR'] = str(desk.outbox.folder / 'gradio')
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
                app_kwargs={'middleware': _middleware(host), 'docs_url': None, 'redoc_url': None},
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


def _middleware(host: str) -> list[Any]:
    layers = [Middleware(Headers)]
    if is_loopback(host):
        # A page of another site cannot reach this one under a name that it lets point here.
        layers.append(
            Middleware(TrustedHostMiddleware, allowed_hosts=['127.0.0.1', 'localhost', '[::1]', host])
        )
    return layers
