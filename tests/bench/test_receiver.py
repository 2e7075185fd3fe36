"""The bench's receiver of webhooks: whatever comes in whatever pieces, each body once, with its time."""

import socket
import time
from collections.abc import Iterator

import pytest

from bursar.bench.receiver import ANSWER, Receiver


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.stop()


def post(path: str, body: bytes) -> bytes:
    return b"POST /%b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (path.encode(), len(body), body)


def test_each_is_answered_and_told_once(receiver: Receiver) -> None:
    sent = post("a", b'{"n": 1}') + post("b", b'{"n": 2}')
    began_s = time.time()
    with socket.create_connection(("127.0.0.1", receiver.port), 5) as connection:
        for piece in (sent[:30], sent[30:61], sent[61:]):
            connection.sendall(piece)
        answers = b""
        while len(answers) < 2 * len(ANSWER):
            answers += connection.recv(1_000)
    came = receiver.wait(2, within_s=5)
    assert answers == 2 * ANSWER
    assert [body for _, body in came] == [b'{"n": 1}', b'{"n": 2}']
    assert all(began_s <= at <= time.time() for at, _ in came)
    assert receiver.wait(1, within_s=0) == []


def test_one_path_is_never_answered(receiver: Receiver) -> None:
    with socket.create_connection(("127.0.0.1", receiver.port), 5) as hanging:
        hanging.sendall(post("hang", b"{}"))
        with socket.create_connection(("127.0.0.1", receiver.port), 5) as other:
            other.sendall(post("a", b"{}"))
            assert other.recv(1_000) == ANSWER
        hanging.setblocking(False)
        with pytest.raises(BlockingIOError):
            hanging.recv(1_000)
    assert len(receiver.wait(1, within_s=5)) == 1
