"""What stands before gradio: only what the page uses, from the page itself, and no more bytes than fit."""

import re
from contextlib import AsyncExitStack
from dataclasses import dataclass
from tempfile import SpooledTemporaryFile
from typing import IO

import anyio
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from atss_ext.webui.desk import Desk

_UPLOAD = '/gradio_api/upload'
# What a browser asks for when someone uses the tabs, and gradio itself when it starts. Gradio has three
# times as much: recordings, run histories in the operator's name, an assistant that edits code, ...
_USED = {
    'HEAD': re.compile('/'),
    'GET': re.compile(
        r'/|/theme\.css|/favicon\.ico|/manifest\.json|/(assets|static)/.+'
        r'|/gradio_api/(startup-events|upload_progress|queue/data|heartbeat/\w+|file=/.+)'
    ),
    'POST': re.compile(rf'{_UPLOAD}|/gradio_api/(queue/join|cancel|reset|run/predict)'),
}
_REST = 2**20  # of a request, beside the file that it brings
_STEP = 2**20
_IN_MEMORY = 2**16  # of a body; the rest of it is on disk


@dataclass(eq=False)
class _Coming:
    """A request whose body comes in: since when (:meth:`Outbox.now`), and the bytes that it has room for."""

    since: int
    room: int = 0


class Guard:
    """Hands to gradio what the page sends, whole, and refuses everything else.

    - 404: what the page does not use, by method and path.
    - 403: what a page of another site sends. A browser states that site; it keeps the page from reading the
      answer, and not from sending.
    - 411, 413: a body without a length, or of more bytes than an upload has.
    - 408: a body whose next part is not there after ``patience`` seconds, or that takes as long for every
      megabyte.
    - 503: a body that there is no room for. Bodies count with the bytes that have come, beside the files
      that are kept: a request that sends nothing holds nothing. Old files make room, and none that is
      younger than a request which still comes in, so that whoever is answered 200 finds the file.

    A body is kept here until it is whole: what is refused or broken off leaves nothing in gradio's folder,
    and no byte counts both as coming and as a file.

    Args:
        app: what is behind.
        desk: its limits and its folder are kept.
        patience: seconds.
    """

    def __init__(self, app: ASGIApp, desk: Desk, patience: float = 30) -> None:
        self.app, self.desk, self.patience = app, desk, patience
        self._coming: set[_Coming] = set()
        self._lock = anyio.Lock()  # whoever has it may count and change the files of uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope['type'] == 'websocket':
            await send({'type': 'websocket.close'})
            return
        if scope['type'] != 'http':
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        size = int(headers.get('content-length', 0))
        refusal = self._refusal(scope, headers, size)
        if refusal is not None:
            await refusal(scope, receive, send)
        elif size:
            await self._with_body(scope, receive, send, size)
        else:
            await self.app(scope, receive, send)

    def _refusal(self, scope: Scope, headers: Headers, size: int) -> PlainTextResponse | None:
        """Why a request is refused before its body comes."""
        origin = headers.get('origin')
        if origin is not None and origin.lower().partition('://')[2] != headers.get('host', '').lower():
            return _refuse('This page takes nothing from other sites.', 403)
        used = _USED.get(scope['method'])
        if used is None or not used.fullmatch(scope['path']):
            return _refuse('The page has nothing there.', 404)
        if 'transfer-encoding' in headers:
            return _refuse('Say how long it is: Content-Length.', 411)
        limits = self.desk.limits
        if size > (limits.file_bytes if scope['path'] == _UPLOAD else 0) + _REST:
            return _refuse(f'This page takes files of up to {limits.megabytes:g} MB.', 413)
        return None

    async def _with_body(self, scope: Scope, receive: Receive, send: Send, size: int) -> None:
        outbox = self.desk.outbox
        coming = _Coming(await run_in_threadpool(outbox.now))
        self._coming.add(coming)
        try:
            with SpooledTemporaryFile(_IN_MEMORY, dir=str(outbox.folder)) as body:
                refusal = await self._take(coming, body, receive, size)
                if refusal is not None:
                    await refusal(scope, receive, send)
                else:
                    await self._hand_on(body, scope, receive, send)
        except ClientDisconnect:
            return
        finally:
            self._coming.remove(coming)

    async def _take(
        self, coming: _Coming, body: IO[bytes], receive: Receive, size: int
    ) -> PlainTextResponse | None:
        """Take in a body; what there is no room for is read to its end, or its sender would not hear why."""
        refusal, more = None, True
        try:
            with anyio.fail_after(self.patience * (1 + size / 2**20)):
                while more:
                    part, more = await self._part(receive)
                    if refusal is None and await self._reserve(coming, body.tell() + len(part), size):
                        body.write(part)
                    elif refusal is None:
                        refusal = _refuse('Too much is being sent to this page; try again in a moment.', 503)
                        body.seek(0)
                        body.truncate()
        except TimeoutError:
            return _refuse('What was sent did not come to its end in time; send it again.', 408)
        return refusal

    async def _part(self, receive: Receive) -> tuple[bytes, bool]:
        """The next part of a body, and whether more of it comes."""
        with anyio.fail_after(self.patience):
            message = await receive()
        if message['type'] == 'http.disconnect':
            raise ClientDisconnect
        return message.get('body', b''), message.get('more_body', False)

    async def _reserve(self, coming: _Coming, wanted: int, size: int) -> bool:
        """Whether there is room for the first ``wanted`` of ``size`` bytes; asked in steps of many parts."""
        if wanted <= coming.room:
            return True
        async with self._lock:
            ahead = min(size, wanted + min(wanted, _STEP))
            others = sum(one.room for one in self._coming if one is not coming)
            oldest = min(one.since for one in self._coming)
            most = self.desk.limits.stored_bytes
            fits = await run_in_threadpool(self.desk.outbox.make_room, others + ahead, most, oldest)
            coming.room = ahead if fits else 0
        return fits

    async def _hand_on(self, body: IO[bytes], scope: Scope, receive: Receive, send: Send) -> None:
        async with AsyncExitStack() as stack:
            if scope['path'] == _UPLOAD:
                await stack.enter_async_context(self._lock)
            body.seek(0)
            messages: list[Message] = [{'type': 'http.request', 'body': body.read(), 'more_body': False}]

            async def receive_whole() -> Message:
                return messages.pop() if messages else await receive()

            await self.app(scope, receive_whole, send)


def _refuse(sentence: str, status: int) -> PlainTextResponse:
    # Its body is not read: the connection cannot be used again.
    return PlainTextResponse(sentence, status, headers={'Connection': 'close'})
