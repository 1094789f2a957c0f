"""The page as it is served: who reaches it, what it hands out, what it says; and its command line."""

import json
import os
import re
import shlex
import socket
import sys
from pathlib import Path

import httpx
import pytest
from doc_pages import commands_of
from packaging.requirements import Requirement
from ports import free_port
from tiny_coco import REPO, load_tool
from webui_client import get, port_of, stored_files, upload

from atss_ext.errors import UserError
from atss_ext.webui import Limits, Offer
from atss_ext.webui.answers import BUG, attempt
from atss_ext.webui.desk import Desk
from atss_ext.webui.offer import short_names
from atss_ext.webui.serving import Server, is_loopback, warning_of

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


SECURITY = {
    'content-security-policy': (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' blob:; "
        "font-src 'self' data:; worker-src 'self' blob:; object-src 'none'; base-uri 'self'; "
        "form-action 'self'; frame-ancestors 'none'"
    ),
    'x-content-type-options': 'nosniff',
    'referrer-policy': 'no-referrer',
}


@pytest.fixture(scope='module')
def server(shelf):
    offer = Offer.of_files([str(shelf.config)], [str(shelf.weights)], assigners=[str(shelf.config)])
    server = Server(Desk(offer, Limits(megabytes=0.01), 'cpu'), port=int(free_port()))
    yield server
    server.close()


def test_only_this_machine_reaches_the_page(server):
    # 127.0.0.2 is this machine too: a server on every address would answer there.
    with socket.socket() as probe:
        probe.settimeout(5)
        assert probe.connect_ex(('127.0.0.2', port_of(server))) != 0
    with socket.socket() as probe:
        assert probe.connect_ex(('127.0.0.1', port_of(server))) == 0
    assert get(server)[0] == 200
    assert get(server, Host='rebound.example')[0] == 400


def test_a_browser_is_told_to_take_nothing_from_elsewhere(server):
    page = get(server)[2].decode()
    assert not re.findall(r'<(?:script|img|iframe)[^>]+src="https?:', page)
    assert not re.findall(r'<link[^>]+href="(?:https?:)?//', page)
    assert '"analytics_enabled":false' in page.replace(' ', '')


@pytest.mark.parametrize('path', ['', 'theme.css', 'gradio_api/file=/etc/passwd', 'nothing'])
def test_headers_of_every_answer(server, path):
    """Written out: scripts and pictures of this host only, and no frame, plugin or form of another."""
    _, headers, _ = get(server, path)
    assert {name: headers.get_all(name) for name in SECURITY} == {name: [SECURITY[name]] for name in SECURITY}


def test_no_function_of_the_page_is_offered_to_programs(server):
    assert get(server, 'gradio_api/info')[0] == 404
    assert server.page.get_api_info()['named_endpoints'] == {}


@pytest.mark.parametrize('path', ['/etc/passwd', 'pyproject.toml', str(REPO / 'pyproject.toml')])
def test_files_of_the_server_are_not_handed_out(server, path, monkeypatch):
    monkeypatch.chdir(REPO)
    status, _, content = get(server, f'gradio_api/file={path}')
    assert status in (403, 404)
    assert b'root:' not in content
    assert b'build-backend' not in content


def test_too_many_bytes_are_not_even_stored(server):
    status, stored = upload(server, bytes(100))
    assert status == 200
    assert Path(stored).is_relative_to(server.desk.outbox.folder)
    assert upload(server, bytes(20_000)) == (413, None)


def test_other_sites_can_send_nothing(server):
    """A browser lets any page send to any server, and only keeps the answer from it."""
    before = stored_files(server)
    port = port_of(server)
    for site in (
        'http://evil.com',
        'http://[abc',
        f'http://evil.com:{port}',
        'null',
        'http://127.0.0.1',
        'http://localhost:1',
    ):
        assert upload(server, site.encode(), Origin=site) == (403, None), site
        assert get(server, Origin=site)[0] == 403
    assert stored_files(server) == before
    status, stored = upload(server, b'of this page', Origin=f'http://127.0.0.1:{port}')
    assert (status, Path(stored).read_bytes()) == (200, b'of this page')
    tunnel = {'Host': 'localhost:8000', 'Origin': 'http://localhost:8000'}
    assert upload(server, b'through a tunnel', **tunnel)[0] == 200


@pytest.mark.parametrize(
    ('header', 'status'), [('Content-Length: 1100000', 413), ('Transfer-Encoding: chunked', 411)]
)
def test_many_files_at_once_are_refused_before_they_come(server, header, status):
    """Each may be small: a request is one upload of 10 kB and the rest of a request, whatever is in it."""
    with socket.create_connection(('127.0.0.1', port_of(server)), 30) as client:
        kind = 'Content-Type: multipart/form-data; boundary=end'
        head = f'POST /gradio_api/upload HTTP/1.1\r\nHost: 127.0.0.1\r\n{kind}\r\n{header}\r\n\r\n'
        client.sendall(head.encode())
        assert client.recv(100).startswith(f'HTTP/1.1 {status} '.encode())


def test_of_what_was_sent_the_latest_files_stay(server, monkeypatch):
    monkeypatch.setattr(Limits, 'stored_bytes', 50_000)
    sent = [Path(upload(server, bytes([number]) * 8000)[1]) for number in range(8)]
    kept = [path.exists() for path in sent]
    # A file takes a block of 4096 beside its bytes: three and the request of the fourth are below 50 kB.
    assert kept == [False] * 4 + [True] * 4
    assert not sent[0].parent.exists()
    assert (
        sum(path.stat().st_size for path in (server.desk.outbox.folder / 'gradio').rglob('*.png')) <= 50_000
    )


def test_the_interface_is_not_described_to_programs(server):
    for path in ('openapi.json', 'docs', 'redoc'):
        assert get(server, path)[0] == 404


def component(server, elem_id: str) -> int:
    found = [one for one in server.page.config['components'] if one['props'].get('elem_id') == elem_id]
    return found[0]['id']


def press_detect(server, path: str, session: str) -> str:
    """What the server answers where a browser calls ``path`` its upload."""
    button = component(server, 'detect-run')
    dependencies = server.page.config['dependencies']
    number = next(n for n, one in enumerate(dependencies) if one['targets'][0][0] == button)
    sent = {'path': path, 'meta': {'_type': 'gradio.FileData'}}
    body = {'data': [sent, 'tiny.py', 'tiny.pth', 0.0], 'fn_index': number, 'session_hash': session}
    kind = {'Content-Type': 'application/json'}
    status, _, answer = get(server, 'gradio_api/queue/join', json.dumps(body).encode(), **kind)
    assert status == 200, answer
    return get(server, f'gradio_api/queue/data?session_hash={session}')[2].decode().replace(' ', '')


def test_a_file_of_the_server_is_no_upload(server, shelf):
    """What a browser sends may call any path its upload: those outside of the uploads are not looked at."""
    status, stored = upload(server, Path(shelf.image()).read_bytes())
    assert status == 200
    answer = press_detect(server, stored, 'honest')
    assert '"success":true' in answer
    assert 'a.results.json' in answer
    for number, path in enumerate((shelf.image(), '/etc/passwd', str(shelf.weights))):
        answer = press_detect(server, path, f'forged{number}')
        assert '"success":false' in answer, path
        assert 'results.json' not in answer
        assert 'Traceback' not in answer


def test_an_address_in_the_place_of_an_upload_is_not_fetched(server, monkeypatch):
    from gradio import processing_utils

    fetched = []

    async def fetch(address: str, **_: object) -> str:
        fetched.append(address)
        return __file__

    monkeypatch.setattr(processing_utils, 'async_ssrf_protected_download', fetch)
    for address in ('http://example.org/a.png', 'HTTPS://example.org/a.png'):
        assert '"success":false' in press_detect(server, address, address[:5])
    assert fetched == []


def test_a_taken_port_is_said(server):
    other = Desk(Offer.of_files(), device='cpu')
    with pytest.raises(UserError, match=rf'127\.0\.0\.1:{port_of(server)} .*choose another --port'):
        Server(other, port=port_of(server))
    other.outbox.close()


@pytest.fixture
def launched():
    """Serves an empty page, and ends it."""
    servers = []

    def launch() -> Server:
        servers.append(Server(Desk(Offer.of_files(), device='cpu'), port=int(free_port())))
        return servers[-1]

    yield launch
    for server in servers:
        server.close()


def test_a_proxy_of_the_environment_is_not_asked_for_the_page(launched, monkeypatch):
    for name in ('HTTP_PROXY', 'http_proxy', 'ALL_PROXY'):
        monkeypatch.setenv(name, f'http://127.0.0.1:{free_port()}')  # nobody is there
    monkeypatch.setenv('NO_PROXY', 'example.org, .intern')
    monkeypatch.delenv('no_proxy', raising=False)
    ask, seen = httpx.get, []

    def asked(*args: object, **options: object) -> httpx.Response:
        seen.append((os.environ['NO_PROXY'], os.environ['no_proxy']))
        return ask(*args, **options)

    monkeypatch.setattr(httpx, 'get', asked)
    assert get(launched())[0] == 200
    assert set(seen) == {('example.org,.intern,127.0.0.1,localhost',) * 2}
    assert (os.environ['NO_PROXY'], os.environ.get('no_proxy')) == ('example.org, .intern', None)


def test_whatever_gradio_raises_is_one_sentence(launched, monkeypatch):
    def refused(*_: object, **__: object) -> None:
        raise httpx.ProxyError('403 Forbidden')

    monkeypatch.setattr(httpx, 'get', refused)
    with pytest.raises(
        UserError, match=r'cannot be served at 127.0.0.1:\d+ \(gradio: 403 Forbidden\); choose'
    ):
        launched()


# ---------------------------------------------------------------------------------------------- answers


def test_a_refusal_is_a_sentence_beside_empty_fields():
    def act():
        raise UserError('the file <b>x</b> is no image')

    assert attempt(act, (None, None)) == (
        '<div class="answer refused" role="alert">The file &lt;b&gt;x&lt;/b&gt; is no image</div>',
        None,
        None,
    )


def test_a_bug_shows_no_traceback_in_the_page_but_one_in_the_terminal(capsys):
    def act():
        raise ZeroDivisionError('secret of the server')

    answer, blank = attempt(act, (None,))
    assert BUG in answer
    assert 'secret' not in answer
    assert blank is None
    assert 'ZeroDivisionError: secret of the server' in capsys.readouterr().err


def test_names_in_an_answer_are_no_markup():
    answer, rows = attempt(lambda: ('1 <script>', [1]), (None,))
    assert answer == '<div class="answer" role="status">1 &lt;script&gt;</div>'
    assert rows == [1]


def test_files_of_one_name_are_told_apart_by_their_folders():
    assert short_names(['/a/b/one.pth', '/a/c/one.pth', '/a/c/two.pth', '/a/c/two.pth']) == {
        'b/one.pth': '/a/b/one.pth',
        'c/one.pth': '/a/c/one.pth',
        'two.pth': '/a/c/two.pth',
    }


@pytest.mark.parametrize(
    ('host', 'local'),
    [('127.0.0.1', True), ('localhost', True), ('::1', True), ('0.0.0.0', False), ('example.org', False)],
)
def test_who_is_warned(host, local):
    assert is_loopback(host) is local
    assert (warning_of(host) is None) is local


# ----------------------------------------------------------------------------------------- command line

BAD = {
    'config alone': (['--config', 'x.py'], '--config needs --checkpoint'),
    'config': (['--config', 'gone.py', '--checkpoint', 'x'], 'config file gone.py does not exist'),
    'checkpoint': (['--checkpoint', 'gone.pth'], 'gone.pth does not exist'),
    'vlsam': (['--vlsam', 'gone.py'], 'config file gone.py does not exist'),
    'port': (['--port', '0'], '--port 0 must be from 1 to 65535'),
    'bytes': (['--max-megabytes', '0'], '--max-megabytes 0.0 must be greater than 0'),
    'pixels': (['--max-megapixels', 'nan'], '--max-megapixels nan must be greater than 0'),
    'IPv6': (['--host', '::1'], "--host '::1' has to be a name or an address of IPv4, such as 127.0.0.1"),
    'a port': (['--host', 'localhost:80'], "--host 'localhost:80' has to be a name or an address of IPv4"),
    'no host': (['--host', ''], "--host '' has to be a name or an address of IPv4, such as 127.0.0.1"),
    'name': (['--host', 'no.such.host.invalid'], '--host no.such.host.invalid is no address of this machine'),
    'number': (['--host', '999.1.1.1'], '--host 999.1.1.1 is no address of this machine'),
    'label': (['--host', 'a' * 70 + '.b'], 'a.b is no address of this machine'),
    'other machine': (
        ['--host', '192.0.2.1'],
        '--host 192.0.2.1 is no address of this machine (Cannot assign',
    ),
    'device': (['--device', 'abacus'], "torch knows no device 'abacus'"),
}


@pytest.mark.parametrize('name', BAD)
def test_a_users_error_is_one_sentence(name, tmp_path, monkeypatch, capsys):
    from atss_ext.cli import run_tool

    monkeypatch.chdir(tmp_path)
    words, sentence = BAD[name]
    tool = load_tool('webui.py')
    assert run_tool(lambda: tool.main(words)) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith('error: ')
    assert sentence in said[-1]


def test_by_default_the_page_listens_on_loopback_and_offers_the_small_world(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tool = load_tool('webui.py')
    args = tool.parse_args([])
    assert args.host == '127.0.0.1'
    names = {kind: [Path(path).name for path in files] for kind, files in tool.paths(args).items()}
    assert names == {
        'detectors': ['atss_r18_shapes.py'],
        'checkpoints': [],
        'discoverers': ['vlsam_world.py'],
        'assigners': ['table3_retinanet.py', 'table3_retinanet_atss.py', 'atss_r18_shapes.py'],
    }


def test_the_demos_latest_checkpoint_is_offered(tmp_path, monkeypatch):
    training = tmp_path / 'work_dirs/demo/training'
    training.mkdir(parents=True)
    (training / 'epoch_5.pth').write_bytes(b'')
    (training / 'last_checkpoint').write_text(str(training / 'epoch_5.pth'))
    monkeypatch.chdir(tmp_path)
    tool = load_tool('webui.py')
    assert tool.paths(tool.parse_args([]))['checkpoints'] == [str(training / 'epoch_5.pth')]


def test_every_documented_command_serves_the_page(tmp_path, monkeypatch, capsys):
    lines = commands_of('docs/webui.md')
    commands = [line for line in lines if line.startswith('python ')]
    for line in set(lines) - set(commands):  # how to install
        # As in the README: without the flag pip builds the native library against another torch.
        (names,) = re.findall(r"^pip install --no-build-isolation -e '\.\[([\w,]+)\]'$", line)
        assert set(names.split(',')) <= set(extras())
    assert len(commands) == 3
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'configs').symlink_to(REPO / 'configs')
    training = tmp_path / 'work_dirs/demo/training'
    training.mkdir(parents=True)
    (training / 'epoch_5.pth').write_bytes(b'')
    served = []

    def wait(server: Server) -> None:
        try:
            served.append(get(server)[0])
        finally:
            server.close()

    monkeypatch.setattr(Server, 'wait', wait)
    tool = load_tool('webui.py')
    for line in commands:
        _, script, *words = shlex.split(line)
        assert script == 'tools/webui.py'
        tool.main([*words, '--port', free_port()])
    assert served == [200] * 3
    said = capsys.readouterr()
    assert said.out.count('the page is at http://127.0.0.1:') == 3
    assert said.err.count('warning:') == 0


def extras() -> dict[str, list[str]]:
    return tomllib.loads((REPO / 'pyproject.toml').read_text())['project']['optional-dependencies']


def test_the_extra_asks_for_a_gradio_that_suits_the_models():
    """gradio before 6.29.1 wants huggingface_hub below 2, and would take the installed one back."""
    (line,) = extras()['webui']
    requirement = Requirement(line)
    assert requirement.name == 'gradio'
    assert not requirement.specifier.contains('6.29.0')
    assert requirement.specifier.contains('6.31.0')
    assert 'atss_ext[webui]' in extras()['dev']
