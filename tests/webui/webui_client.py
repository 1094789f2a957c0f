"""Requests to a page that is served, as a browser sends them, and as nobody should."""

import json
import re
import socket
import urllib.error
import urllib.request
from pathlib import Path

MULTIPART = 'multipart/form-data; boundary=end'


def get(server, path: str = '', body: bytes | None = None, method: str | None = None, **headers: str):
    """Status, headers and content."""
    request = urllib.request.Request(server.url + path, body, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def port_of(server) -> int:
    return int(re.search(r':(\d+)/', server.url)[1])


def multipart(content: bytes, name: str = 'files', file_name: str = 'a.png') -> bytes:
    head = f'--end\r\nContent-Disposition: form-data; name="{name}"; filename="{file_name}"\r\n\r\n'
    return head.encode() + content + b'\r\n--end--\r\n'


def upload(server, content: bytes, **headers: str) -> tuple[int, str | None]:
    """Status, and where the server put it."""
    kind = {'Content-Type': MULTIPART, **headers}
    status, _, answer = get(server, 'gradio_api/upload', multipart(content), **kind)
    return status, json.loads(answer)[0] if status == 200 else None


class SlowUpload:
    """An upload whose body is sent piece by piece."""

    def __init__(self, server, size: int, path: str = 'gradio_api/upload') -> None:
        self.socket = socket.create_connection(('127.0.0.1', port_of(server)), 30)
        head = f'POST /{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {MULTIPART}\r\n'
        self.socket.sendall(f'{head}Content-Length: {size}\r\n\r\n'.encode())

    def send(self, piece: bytes) -> None:
        self.socket.sendall(piece)

    def answer(self) -> tuple[int, str]:
        """Status and content; the server closes, or says how long its answer is."""
        received = b''
        while not re.search(rb'\r\n\r\n', received) or len(received) < _whole(received):
            piece = self.socket.recv(65536)
            if not piece:
                break
            received += piece
        self.socket.close()
        head, _, content = received.partition(b'\r\n\r\n')
        return int(head.split()[1]), content.decode()


def _whole(received: bytes) -> int:
    head, _, _ = received.partition(b'\r\n\r\n')
    length = re.search(rb'content-length: (\d+)', head.lower())
    return len(head) + 4 + (int(length[1]) if length else 0)


def stored_files(server) -> set[Path]:
    """Everything that lies in the folder of the server, but for the clock of it."""
    folder = server.desk.outbox.folder
    return {path for path in folder.rglob('*') if path.is_file() and path.name != 'clock'}
