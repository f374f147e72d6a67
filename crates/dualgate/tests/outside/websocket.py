"""A WebSocket server behind a gate and a client before it, both by the `websockets` package.

    websocket.py serve              prints the port that it listens on (127.0.0.1), and serves until it is killed
    websocket.py ask ADDRESS PORT SCHEME
                                    says `ok`, or what went wrong
"""

import asyncio
import ssl
import sys

import websockets
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve

HOST = "web.example.org"
PATIENCE = 15


async def echo(connection):
    """Sends back each message; some are orders."""
    try:
        await obey(connection)
    except websockets.ConnectionClosed:
        pass


async def obey(connection):
    async for message in connection:
        if message == "close":
            await connection.close(4001, "as you wish")
        elif message == "request":
            request = connection.request
            seen = [request.path, request.headers["Host"], request.headers.get("X-Forwarded-Proto", "")]
            await connection.send(" ".join(seen))
        elif message == "ping":
            await (await connection.ping(b"from the server"))
            await connection.send("ponged")
        else:
            await connection.send(message)


async def run_server():
    options = {"max_size": None, "subprotocols": ["chat", "echo"]}
    async with serve(echo, "127.0.0.1", 0, **options) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.get_running_loop().create_future()


def expect(what, found, expected):
    if found != expected:
        raise AssertionError(f"{what}: expected {str(expected)[:200]!r}, found {str(found)[:200]!r}")


async def ask(address, port, scheme):
    context = None
    if scheme == "wss":
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE

    def open_connection(**options):
        uri = f"{scheme}://{HOST}:{port}/socket?x=1"
        options = {"host": address, "port": port, "ssl": context, "max_size": None, "proxy": None, "subprotocols": ["echo"], **options}
        return connect(uri, **options)

    for compression in ["deflate", None]:
        async with open_connection(compression=compression) as connection:
            expect("subprotocol", connection.subprotocol, "echo")
            for message in ["hello", "grüß dich ☃", "", b"\x00\xff" * 500, b""]:
                await connection.send(message)
                expect("message", await connection.recv(), message)
            for large in ["x" * 2**20, bytes(range(256)) * 4096]:
                await connection.send(large)
                expect("1 MiB", await connection.recv(), large)
            await connection.send(["in ", "three ", "fragments"])
            expect("fragments", await connection.recv(), "in three fragments")
            await connection.send("request")
            proto = "https" if scheme == "wss" else "http"
            expect("request", await connection.recv(), f"/socket?x=1 {HOST}:{port} {proto}")
            await (await connection.ping(b"from the client"))
            await connection.send("ping")
            expect("ping", await connection.recv(), "ponged")
            await connection.send("close")
            try:
                await connection.recv()
                raise AssertionError("the server did not close")
            except websockets.ConnectionClosed as closed:
                expect("close", (closed.rcvd.code, closed.rcvd.reason), (4001, "as you wish"))
        connection = await open_connection(compression=compression)
        await connection.close(3001, "enough")
        expect("own close", (connection.close_code, connection.close_reason), (3001, "enough"))
    many = await asyncio.gather(*(open_connection() for _ in range(20)))
    for number, connection in enumerate(many):
        await connection.send(str(number))
    expect("side by side", [await c.recv() for c in many], [str(number) for number in range(20)])
    await asyncio.gather(*(connection.close() for connection in many))


def main():
    if sys.argv[1] == "serve":
        asyncio.run(run_server())
    else:
        asyncio.run(asyncio.wait_for(ask(sys.argv[2], int(sys.argv[3]), sys.argv[4]), PATIENCE))
        print("ok")


if __name__ == "__main__":
    main()
