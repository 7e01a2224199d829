"""The language server from its first message to its end, over standard input and output or one TCP connection."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio import IncompleteReadError, StreamReader, StreamWriter
from typing import Any, NoReturn

from pygls.io_ import StdoutWriter, run_async

from codegen25.errors import CodegenError, say
from codegen25.serve.lsp import Server

# Bytes of a header's line.
_LINE = 1 << 12


class _Messages:
    """Reads for pygls, and stops at what is no LSP: garbage by hand, or a web page that posts to our port."""

    def __init__(self, stream: StreamReader) -> None:
        self._stream = stream

    async def readline(self) -> bytes:
        try:
            line = await self._stream.readline()
        except ValueError:  # longer than the stream's limit
            line = b"?"
        if line.strip() and not line.lower().startswith(b"content-"):
            raise CodegenError("what comes in is no LSP, which begins with Content-Length; let an editor start this")
        return line

    async def readexactly(self, n: int) -> bytes:
        """Empty at a premature end."""
        try:
            return await self._stream.readexactly(n)
        except IncompleteReadError:
            return b""


def run(server: Server, port: int | None = None) -> NoReturn:
    """Serve one client until it exits or goes away, and exit: with 0 if it has asked to shut down, 1 if not.

    With a port, on 127.0.0.1. Raises `CodegenError` when that is in use, or the client does not speak LSP.
    """
    asyncio.run(_stdio(server) if port is None else _tcp(server, port))
    # At once: editors kill what takes long to end, there is nothing left to save, and a load under way cannot be
    # interrupted.
    sys.stderr.flush()
    os._exit(0 if server.protocol.was_shut_down else 1)


async def _stdio(server: Server) -> None:
    stream = StreamReader(limit=_LINE)
    loop = asyncio.get_running_loop()
    try:
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), sys.stdin)
    except ValueError:
        raise CodegenError("standard input is a file; let an editor start this, with a pipe") from None
    await _serve(server, stream, StdoutWriter(sys.stdout.buffer))


async def _tcp(server: Server, port: int) -> None:
    connected: asyncio.Future[tuple[StreamReader, StreamWriter]] = asyncio.get_running_loop().create_future()

    def connect(reader: StreamReader, writer: StreamWriter) -> None:
        if connected.done():
            writer.close()
        else:
            connected.set_result((reader, writer))

    try:
        listening = await asyncio.start_server(connect, "127.0.0.1", port, limit=_LINE)
    except OSError as error:
        raise CodegenError(f"--tcp {port}: cannot listen there ({error.strerror}); choose another port") from None
    async with listening:
        say(f"waiting for one client at 127.0.0.1:{listening.sockets[0].getsockname()[1]}")
        reader, writer = await connected
        await _serve(server, reader, writer)
        writer.close()


async def _serve(server: Server, stream: StreamReader, writer: Any) -> None:
    server.protocol.set_writer(writer)
    try:
        await run_async(
            server.protocol.stop, _Messages(stream), server.protocol, error_handler=server.report_server_error
        )
    finally:
        await server.close()
