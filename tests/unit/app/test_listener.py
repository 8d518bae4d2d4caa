"""The listener without a server: what the limit of open files leaves, and a machine that has no file left."""

from __future__ import annotations

import asyncio
import errno
import logging
import math
import os
import socket
import sys
from typing import Any

import pytest

from grm_server.app.listener import Listener, Room, room_for


@pytest.mark.parametrize(
    ("open_files", "served", "held"), [(64, 36, 48), (1024, 704, 768), (20_000, 19_680, 19_744), (4, 3, 3)]
)
def test_a_part_of_the_limit_is_left_to_other_files(open_files: int, served: int, held: int) -> None:
    assert room_for(open_files) == Room(open_files, served, held)


def test_without_a_limit_there_is_always_room() -> None:
    assert room_for(-1).served > sys.maxsize // 2


class Full(socket.socket):
    """A socket of a machine that has no file left at first."""

    failures = 3.0

    def accept(self) -> Any:
        if self.failures:
            self.failures -= 1.0
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return super().accept()


class Echo(asyncio.Protocol):
    def __init__(self, connections: set[object]) -> None:
        self._connections = connections

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._connections.add(self)

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)


async def test_a_connection_waits_while_no_file_is_left(caplog: pytest.LogCaptureFixture) -> None:
    connections: set[object] = set()
    with Full() as listening:
        listening.bind(("127.0.0.1", 0))
        listener = Listener(listening, lambda: Echo(connections), connections, room_for(1024))
        with caplog.at_level(logging.WARNING):
            listener.start(100)
            reader, writer = await asyncio.open_connection(*listening.getsockname())
            writer.write(b"x")
            assert await asyncio.wait_for(reader.readexactly(1), 10) == b"x"
        listener.close()
        writer.close()
    assert len(caplog.messages) == 1
    assert "could not be accepted (Too many open files)" in caplog.text


async def test_no_connection_is_accepted_after_close_even_in_a_pause() -> None:
    connections: set[object] = set()
    with Full() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.failures = math.inf
        listener = Listener(listening, lambda: Echo(connections), connections, room_for(1024))
        listener.start(100)
        _, writer = await asyncio.open_connection(*listening.getsockname())
        await asyncio.sleep(0.01)
        listener.close()
        listening.failures = 0.0
        await asyncio.sleep(0.05)
        writer.close()
    assert not connections
