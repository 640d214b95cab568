"""Loopback ports: who has them, and which are free."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Iterable

import psutil

HOST = "127.0.0.1"
LOOPBACK = frozenset({HOST, "localhost", "[::1]"})
# Below the range that the kernel takes ports of outgoing connections from: nobody gets one between asking and using.
_FROM, _TO = 20_000, 32_000
# A port is taken some seconds after it was found free: processes that begin together look in different places.
_PLACES = 24


def is_free(port: int) -> bool:
    """Whether a server could listen on the port now."""
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a server that has just ended is no obstacle
        try:
            s.bind((HOST, port))
        except OSError:
            return False
    return True


def free_ports(count: int, but: Iterable[int] = ()) -> tuple[int, ...]:
    """Different ports that are free now, none of them in `but`."""
    found: list[int] = []
    size, mine = (_TO - _FROM) // _PLACES, os.getpid() % _PLACES
    candidates = list(range(_FROM, _TO))
    random.SystemRandom().shuffle(candidates)
    candidates.sort(key=lambda port: (port - _FROM) // size != mine)  # stable: the others as they are
    taken = set(but)
    for port in candidates:
        if len(found) == count:
            break
        if port not in taken and is_free(port):
            found.append(port)
    return tuple(found)


def holder(port: int) -> str:
    """Who listens on the port, as far as this user may know: ` (pid 12, java)` or nothing."""
    try:
        for c in psutil.net_connections("tcp"):
            if c.status == psutil.CONN_LISTEN and c.laddr and c.laddr.port == port and c.pid:
                return f" (pid {c.pid}, {psutil.Process(c.pid).name()})"
    except psutil.Error:
        pass
    return ""
