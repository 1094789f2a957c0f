"""Ports for processes that meet on this machine."""

import random
import socket


def free_port() -> str:
    """Return a port that no system gives to outgoing connections, which would take it before it is used."""
    source = random.SystemRandom()
    while True:
        port = source.randrange(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(('127.0.0.1', port))
            except OSError:
                continue
            return str(port)
