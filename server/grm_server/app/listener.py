"""Accept connections while the limit of open files has room for them.

The event loops' own servers do not: once no file is left, uvloop closes the connections that wait, without an answer
or a log line.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass

logger = logging.getLogger(__name__)

BATCH = 100
"""Connections accepted in one step of the event loop."""
PAUSE_S = 0.02
"""Interval at which a listener that accepts none looks for room."""
WARN_EVERY_S = 60.0


@dataclass(frozen=True, slots=True)
class Room:
    """How many connections the limit of open files allows."""

    open_files: int
    served: int
    """On further connections, POSTs are refused."""
    held: int
    """Above `served`, to answer refusals and health checks. Further connections wait in the kernel's backlog."""


def room_for(open_files: int) -> Room:
    """Share out a limit of open files. A quarter, at most 256, is for other files: the engine's, a remote meta RM's."""
    # RLIM_INFINITY is negative.
    open_files = open_files if open_files > 0 else sys.maxsize
    held = open_files - min(256, open_files // 4)
    return Room(open_files, held - min(64, held // 4), held)


class Listener:
    """Takes the place of an `asyncio.Server`."""

    def __init__(
        self,
        listening: socket.socket,
        new_protocol: Callable[[], asyncio.Protocol],
        connections: Collection[object],
        room: Room,
    ) -> None:
        """connections: the protocols whose connection is open."""
        self._socket, self._new_protocol = listening, new_protocol
        self._connections, self._room = connections, room
        self._loop = asyncio.get_running_loop()
        self._opening: dict[asyncio.Protocol, asyncio.Task[None]] = {}
        """Protocols whose connection is accepted and may not be in `connections` yet."""
        self._timer: asyncio.TimerHandle | None = None
        self._warn_at_s = 0.0

    def start(self, backlog: int) -> None:
        self._socket.setblocking(False)
        self._socket.listen(backlog)
        self._resume()

    def close(self) -> None:
        """Accept no more connections. Leaves the socket open."""
        self._loop.remove_reader(self._socket)
        if self._timer is not None:
            self._timer.cancel()

    def _resume(self) -> None:
        self._timer = None
        self._loop.add_reader(self._socket, self._accept)

    def _pause(self) -> None:
        self._loop.remove_reader(self._socket)
        self._timer = self._loop.call_later(PAUSE_S, self._resume)

    def _open_connections(self) -> int:
        return len(self._connections) + sum(protocol not in self._connections for protocol in self._opening)

    def _accept(self) -> None:
        for _ in range(BATCH):
            count = self._open_connections()
            if count >= self._room.held:
                return self._pause()
            try:
                connection, _ = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return None
            except OSError as error:
                self._warn(count, f"; the next one could not be accepted ({error.strerror})")
                return self._pause()
            if count >= self._room.served:
                self._warn(count, "")
            protocol = self._new_protocol()
            self._opening[protocol] = self._loop.create_task(self._serve(protocol, connection))

    async def _serve(self, protocol: asyncio.Protocol, connection: socket.socket) -> None:
        connection.setblocking(False)
        try:
            await self._loop.connect_accepted_socket(lambda: protocol, connection)
        except OSError:  # the client is gone
            connection.close()
        finally:
            del self._opening[protocol]

    def _warn(self, count: int, trouble: str) -> None:
        if self._loop.time() < self._warn_at_s:
            return
        self._warn_at_s = self._loop.time() + WARN_EVERY_S
        logger.warning(
            "%d connections are open%s. The limit of open files (%d) has room for %d: POSTs on further connections get "
            "503, and beyond %d connections wait. Raise the limit with `ulimit -n` (LimitNOFILE= in systemd, --ulimit "
            "nofile= in Docker)",
            count,
            trouble,
            self._room.open_files,
            self._room.served,
            self._room.held,
        )
