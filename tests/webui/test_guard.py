"""What reaches gradio, and how much: a real page, and sockets that send what and when they like."""

import contextlib
import http.server
import json
import logging
import os
import re
import select
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
from ports import free_port
from webui_client import MULTIPART, SlowUpload, get, multipart, stored_files, upload

from atss_ext.webui import Limits, Offer
from atss_ext.webui.desk import Desk
from atss_ext.webui.outbox import Outbox
from atss_ext.webui.serving import Server

KEPT = 2_000_000  # bytes
PATIENCE = 2.0  # seconds
# What Chromium asks for while someone uses the three tabs, by the routes of gradio.
USED = {
    ('HEAD', '/'),
    ('GET', '/'),
    ('GET', '/assets/{path:path}'),
    ('GET', '/static/{path:path}'),
    ('GET', '/favicon.ico'),
    ('GET', '/manifest.json'),
    ('GET', '/theme.css'),
    ('GET', '/gradio_api/file={path_or_url:path}'),
    ('GET', '/gradio_api/heartbeat/{session_hash}'),
    ('GET', '/gradio_api/queue/data'),
    ('GET', '/gradio_api/startup-events'),
    ('GET', '/gradio_api/upload_progress'),
    ('POST', '/gradio_api/cancel'),
    ('POST', '/gradio_api/queue/join'),
    ('POST', '/gradio_api/reset'),
    ('POST', '/gradio_api/run/{api_name}'),
    ('POST', '/gradio_api/upload'),
}


@dataclass(frozen=True)
class SmallLimits(Limits):
    @property
    def stored_bytes(self) -> int:
        return KEPT


@pytest.fixture(scope='module')
def server(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, 'tempdir', str(tmp_path_factory.mktemp('system')))
        desk = Desk(Offer.of_files(), SmallLimits(megabytes=0.3), 'cpu')
        server = Server(desk, port=int(free_port()), patience=PATIENCE)
        yield server
        server.close()


def paths_of(routes, prefix: str = '') -> set[tuple[str, str]]:
    """Methods and paths of gradio's routes, those of included routers too."""
    found = set()
    for route in routes:
        inner = getattr(route, 'original_router', None)
        if inner is not None:
            found |= paths_of(inner.routes, prefix)
        else:
            found |= {(method, prefix + route.path) for method in route.methods}
    return found


def filled(path: str) -> str:
    """A path of a route; names of functions are those that there are."""
    return re.sub(r'\{[^}]*\}', 'x', path).lstrip('/')


def files_in_the_system_folder(server) -> set[Path]:
    found = {path for path in Path(tempfile.gettempdir()).rglob('*') if path.is_file()}
    return {path for path in found if not path.is_relative_to(server.desk.outbox.folder)}


def test_of_gradio_there_is_what_the_page_uses(server):
    routes = paths_of(server.page.app.routes)
    assert {path for _, path in routes} >= {path for _, path in USED}
    assert ('POST', '/gradio_api/process_recording') in routes
    assert len(routes - USED) > 40
    for method, path in sorted(routes - USED):
        body = multipart(bytes(1000), 'video', 'a.mp4') if method == 'POST' else None
        status, _, content = get(server, filled(path), body, method, **{'Content-Type': MULTIPART})
        assert status == 404, (method, path)
        assert method == 'HEAD' or content == b'The page has nothing there.', (method, path)
    assert files_in_the_system_folder(server) == set()


@pytest.mark.parametrize('path', ['gradio_api/run/other', 'gradio_api/file=http://example.org/a', 'x', '/'])
def test_of_what_is_used_nothing_else_is_there(server, path):
    method = 'POST' if 'run/' in path else 'GET'
    assert get(server, path, b'{}' if method == 'POST' else None, method)[0] == 404


def test_what_is_used_is_there(server):
    for path in (
        '',
        'theme.css',
        'favicon.ico',
        'manifest.json',
        'static/js/iframeResizer.contentWindow.min.js',
    ):
        assert get(server, path)[0] == 200, path
    assert get(server, method='HEAD')[0] == 200
    (script,) = set(re.findall(r'src="\./(assets/index-[\w-]+\.js)"', get(server)[2].decode()))
    assert get(server, script)[0] == 200
    status, stored = upload(server, b'an image')
    assert (status, get(server, f'gradio_api/file={stored}')[2]) == (200, b'an image')


class Hub(http.server.BaseHTTPRequestHandler):
    """A hub that takes note of who asks."""

    seen: ClassVar[list[tuple[str, str | None]]] = []

    def do_GET(self) -> None:
        self.seen.append((self.path, self.headers.get('authorization')))
        self.send_response(200)
        self.send_header('Content-Length', '2')
        self.end_headers()
        self.wfile.write(b'{}')

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_nothing_is_done_in_the_operators_name(server, monkeypatch):
    import huggingface_hub

    hub = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Hub)
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    monkeypatch.setattr(huggingface_hub.constants, 'ENDPOINT', f'http://127.0.0.1:{hub.server_port}')
    monkeypatch.setenv('HF_TOKEN', 'hf_of_the_operator')
    monkeypatch.setattr(Hub, 'seen', [])
    json_body = {'Content-Type': 'application/json'}
    get(server, 'gradio_api/run-history/buckets')
    get(server, 'gradio_api/run-history/connect', b'{"bucket_id": "me/mine"}', **json_body)
    assert Hub.seen == []
    # Gradio itself has it off, whatever stands before it.
    assert server.page.run_history is False
    assert server.page.config['run_history'] is False
    huggingface_hub.HfApi().whoami()
    assert 'Bearer hf_of_the_operator' in [token for _, token in Hub.seen]  # it would have been seen
    hub.shutdown()
    hub.server_close()


# ------------------------------------------------------------------------------------------- many uploads


def size_of_gradios_folder(server) -> int:
    sizes = []
    for path in server.desk.outbox.gradio.rglob('*'):
        with contextlib.suppress(FileNotFoundError):  # it is renamed when it has come in
            sizes.append(path.stat().st_size if path.is_file() else 0)
    return sum(sizes)


def test_of_uploads_at_once_those_that_are_answered_200_are_there(server):
    """Of twelve of 300 kB, 2 MB hold six: those come in whole, and the others are told."""
    contents = [bytes([number]) * 300_000 for number in range(12)]
    bodies = [multipart(content) for content in contents]
    uploads = [SlowUpload(server, len(body)) for body in bodies]
    sizes = []
    for start in (0, 100_000, 200_000):
        for upload_, body in zip(uploads, bodies, strict=True):
            upload_.send(body[start : start + 100_000])
            sizes.append(size_of_gradios_folder(server))
    while upload(server, b'a small one meanwhile')[0] != 200:
        sizes.append(size_of_gradios_folder(server))
    for upload_, body in zip(uploads, bodies, strict=True):
        upload_.send(body[300_000:])
    answers = [upload_.answer() for upload_ in uploads]
    sizes.append(size_of_gradios_folder(server))
    assert max(sizes) <= KEPT
    assert sorted(status for status, _ in answers) == [200] * 6 + [503] * 6
    for (status, answer), content in zip(answers, contents, strict=True):
        if status == 200:
            assert Path(json.loads(answer)[0]).read_bytes() == content
        else:
            assert answer == 'Too much is being sent to this page; try again in a moment.'
    assert upload(server, bytes(300_000))[0] == 200  # now these are old, and the oldest goes


def test_no_file_goes_that_is_younger_than_what_still_comes_in(server):
    slow = SlowUpload(server, 300_000)
    slow.send(b'-')
    answers = []
    while 503 not in [status for status, _ in answers]:
        slow.send(b'-')
        answers.append(upload(server, bytes([len(answers)]) * 250_000))
        assert len(answers) < 9  # 2 MB hold seven
    slow.socket.close()
    for number, (_, stored) in enumerate(answers[:-1]):
        assert Path(stored).read_bytes() == bytes([number]) * 250_000


def test_many_that_say_much_and_send_nothing_hold_nothing(server):
    status, stored = upload(server, b'of somebody else')
    assert status == 200
    silent = [SlowUpload(server, 1_300_000) for _ in range(29)]
    for number in range(3):
        assert upload(server, bytes([number]) * 250_000)[0] == 200
    assert Path(stored).read_bytes() == b'of somebody else'
    sentence = 'What was sent did not come to its end in time; send it again.'
    assert [one.answer() for one in silent] == [(408, sentence)] * 29


def test_a_body_that_trickles_is_given_up(server):
    """No part of it is late, but all of them together are."""
    before = stored_files(server)
    slow, started = SlowUpload(server, 10_000), time.monotonic()
    slow.send(b'-')
    while not select.select([slow.socket], [], [], PATIENCE / 10)[0]:
        assert time.monotonic() - started < 10 * PATIENCE
        slow.send(b'-')
    assert slow.answer()[0] == 408
    assert time.monotonic() - started >= PATIENCE
    assert stored_files(server) == before


@pytest.mark.parametrize('path', ['gradio_api/upload', 'gradio_api/queue/join'])
def test_whoever_hangs_up_leaves_nothing(server, path, caplog):
    before = stored_files(server)
    with caplog.at_level(logging.WARNING):
        gone = SlowUpload(server, 300_000, path)
        gone.send(multipart(bytes(300_000))[:150_000])
        gone.socket.close()
        status, stored = upload(server, b'the next')
    assert status == 200
    assert stored_files(server) - before <= {Path(stored)}
    assert caplog.records == []


def test_only_an_upload_may_be_large(server):
    for path, size in (('gradio_api/queue/join', 2**20 + 1), ('gradio_api/upload', 2**20 + 2**19)):
        answer = SlowUpload(server, size, path).answer()
        assert answer == (413, 'This page takes files of up to 0.3 MB.'), path
    assert upload(server, bytes(int(0.3 * 2**20)))[0] == 200


def test_where_there_would_be_no_room_nothing_is_deleted():
    outbox = Outbox()
    outbox.gradio.mkdir()
    files = [outbox.gradio / name for name in ('oldest', 'old', 'young')]
    for written, file in enumerate(files):
        file.write_bytes(bytes(10_000))
        os.utime(file, ns=(written, written))
    # Each takes 4096 bytes beside its own; what is written at 2 stays.
    assert not outbox.make_room(20_000, 34_095, since=2)
    assert all(file.exists() for file in files)
    assert outbox.make_room(10_000, 38_192, since=2)
    assert [file.exists() for file in files] == [False, True, True]
    assert outbox.make_room(20_000, 34_096, since=2)
    assert [file.exists() for file in files] == [False, False, True]
    outbox.close()


def test_the_clock_of_the_folder_is_that_of_its_files():
    outbox = Outbox()
    for number in range(20):
        before = outbox.now()
        file = outbox.folder / str(number)
        file.write_bytes(b'')
        assert before <= file.stat().st_mtime_ns <= outbox.now()
    outbox.close()
