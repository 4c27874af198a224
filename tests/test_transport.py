"""What carries messages, and what notices that nobody carries them any more; gloo within one process."""

import base64
import contextlib
import datetime
import json
import os
import queue
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from splitlib.compressors import make_compressor
from splitlib.errors import PeerError
from splitlib.pipeline.remote import transport
from splitlib.pipeline.remote.control import LocalControl, SocketControl
from splitlib.pipeline.remote.mailbox import CONTROL, Mailbox
from splitlib.pipeline.remote.rendezvous import ControlStore
from splitlib.pipeline.remote.transport import gloo_transport, local_pair
from splitlib.pipeline.remote.wire import (
    ACTIVATION_1,
    ACTIVATION_2,
    GRADIENT_2,
    Frame,
    decode_frame,
    encode_frame,
    read_frame,
)

CPU = torch.device("cpu")


def controls(**options) -> list[SocketControl]:
    """Both ends of a control channel."""
    return [SocketControl(end, Mailbox("the peer"), **options) for end in socket.socketpair()]


@pytest.fixture(params=["gloo", "local"])
def pair(request):
    """Both ends of a transport: the server's and the client's."""
    if request.param == "local":
        return local_pair()
    return joined()


def joined():
    """Both ends of gloo's transport."""
    with ThreadPoolExecutor(2) as pool:
        made = [
            pool.submit(gloo_transport, ControlStore(control), rank, "127.0.0.1")
            for rank, control in enumerate(controls())
        ]
        return tuple(each.result() for each in made)


class Misleading(ControlStore):
    """Tells gloo, here and there, that this end listens where ``change`` says."""

    def __init__(self, control, change):
        super().__init__(control)
        self.change = change

    def set(self, key, value):
        super().set(key, self.change(bytes(value)))


def failures_to_meet(change) -> list[str]:
    """What each end says when both mislead gloo; in threads that a hanging gloo cannot keep from ending."""
    said = queue.SimpleQueue()

    def meet(rank, control):
        try:
            gloo_transport(Misleading(control, change), rank, "127.0.0.1")
        except Exception as error:
            said.put(f"{type(error).__name__}: {error}")

    for rank, control in enumerate(controls()):
        threading.Thread(target=meet, args=(rank, control), daemon=True).start()
    return [said.get(timeout=10) for _ in range(2)]


@pytest.mark.parametrize("port", [1, 65535])
def test_tensors_that_cannot_be_connected_are_one_line_within_seconds(port, monkeypatch):
    """A firewall let the control channel through and nothing else: one end waited 30 days, deaf to Ctrl-C."""
    monkeypatch.setattr(transport, "_CONNECTING", datetime.timedelta(seconds=0.3))
    said = failures_to_meet(lambda value: with_port(value, port))
    for line in said:
        place = f"127.0.0.1 port {port}"
        assert line.startswith(f"PeerError: tensors need a connection between {place} and {place} ("), line
        assert "a firewall may block" in line and "\n" not in line and "remote=" not in line


def test_a_message_may_come_later_than_connecting_may_take(monkeypatch):
    """A batch of the other side takes as long as it takes."""
    monkeypatch.setattr(transport, "_CONNECTING", datetime.timedelta(seconds=0.3))
    server, client = joined()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(received, server, ACTIVATION_1)
        time.sleep(1.0)
        client.send(ACTIVATION_1, framed(ACTIVATION_1, 0, 10))
        client.close([ACTIVATION_1])
        assert waiting.result(10) == [(0, 10, 0.0)]


def with_port(value: bytes, port: int) -> bytes:
    """The same place on this machine, but for the port."""
    family = value.index(b"\x7f\x00\x00\x01") - 4
    return value[: family + 2] + port.to_bytes(2, "big") + value[family + 4 :]


@pytest.mark.parametrize(
    "change",
    [
        lambda value: b"",
        lambda value: b"\1",
        lambda value: b"\xff" * len(value),
        lambda value: bytes(len(value)),
        lambda value: value[:2] + b"\0\1" + value[4:],
        lambda value: value + b"\0" * 8,
    ],
    ids=["empty", "short", "ones", "zeros", "name", "long"],
)
def test_what_is_no_address_is_refused_before_gloo_reads_it(change):
    """An empty value ended the process by a signal, in gloo, and with it the server."""
    assert "the peer sent no address for tensors" in answered(lambda ours: {"value": encoded(change(ours))})


@pytest.mark.parametrize(
    "message", [{"value": None}, {"value": "é"}, {"value": "a"}, {"key": "activation 1/0/0"}, {"key": []}], ids=str
)
def test_what_is_no_message_of_the_store_is_refused(message):
    assert "the peer sent no address for tensors" in answered(lambda ours: {"value": encoded(ours), **message})


def test_a_message_of_the_store_without_a_value_is_refused():
    assert "the peer sent no address for tensors" in answered(lambda ours: {})


def encoded(value: bytes) -> str:
    return base64.b64encode(value).decode()


def answered(answer) -> str:
    """What a server says whose client, given the server's own value, sends ``answer`` through the store."""
    here, there = controls()
    with ThreadPoolExecutor(1) as pool:
        server = pool.submit(gloo_transport, ControlStore(here), 0, "127.0.0.1")
        ours = there.receive("store", timeout=10)["value"]
        message = answer(base64.b64decode(ours))
        there.send("store", **{"key": "activation 1/0/1", **message})
        return str(server.exception(10))


def framed(kind: int, i: int, size: int) -> torch.Tensor:
    return encode_frame(make_compressor("none").encode, torch.full((size,), float(i)), Frame(kind=kind, micro_batch=i))[
        1
    ]


def received(transport, kind: int) -> list[tuple[int, int, float]]:
    """Micro-batch, size and value of everything that comes."""
    found = []
    for message in transport.messages(kind):
        frame = read_frame(message)
        tensor, _ = decode_frame(frame, message, CPU)
        found.append((frame.micro_batch, tensor.numel(), tensor.mean().item()))
    return found


def test_messages_of_any_size_come_whole_and_in_order_in_both_directions(pair):
    """gloo would abort the process for a message longer than its buffer, and pad a shorter one with old bytes."""
    server, client = pair
    sizes = [1, 1000, 10, 5000, 5000, 3, 200_000, 7, 200_001, 1]
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(received, server, kind) for kind in (ACTIVATION_1, GRADIENT_2)]
        waiting.append(pool.submit(received, client, ACTIVATION_2))
        for i, size in enumerate(sizes):
            client.send(ACTIVATION_1, framed(ACTIVATION_1, i, size))
            server.send(ACTIVATION_2, framed(ACTIVATION_2, i, size))
            client.send(GRADIENT_2, framed(GRADIENT_2, i, 2 * size))
        client.close([ACTIVATION_1, GRADIENT_2])
        server.close([ACTIVATION_2])
        expected = [(i, size, float(i)) for i, size in enumerate(sizes)]
        doubled = [(i, 2 * size, value) for i, size, value in expected]
        assert [each.result(20) for each in waiting] == [expected, doubled, expected]


def test_a_kind_that_waits_blocks_no_other(pair):
    server, client = pair
    first = iter(server.messages(GRADIENT_2))
    with ThreadPoolExecutor(2) as pool:
        blocked, late = pool.submit(received, server, ACTIVATION_1), pool.submit(next, first)
        client.send(GRADIENT_2, framed(GRADIENT_2, 0, 100))
        assert read_frame(late.result(20)).kind == GRADIENT_2
        assert not blocked.done()
        client.close([ACTIVATION_1, GRADIENT_2])
        assert blocked.result(20) == []


def test_commands_arrive_in_order_and_beats_are_nobodys_business():
    here, there = controls()
    for step in range(3):
        here.send("save", step=step)
    here.send("beat")
    assert [there.receive("save", timeout=5)["step"] for _ in range(3)] == [0, 1, 2]
    time.sleep(0.05)
    assert there.mailbox.poll(CONTROL) is None


def test_a_refusal_is_an_error_wherever_something_else_is_due():
    here, there = controls()
    here.send("refused", reason="no room")
    with pytest.raises(PeerError, match="the peer refused: no room"):
        there.receive("ready", timeout=5)
    here.send("hello")
    with pytest.raises(PeerError, match="said 'hello' where ready was due"):
        there.receive("ready", timeout=5)


def test_a_closed_connection_is_noticed_at_once():
    here, there = controls()
    started = time.monotonic()
    here._socket.shutdown(socket.SHUT_RDWR)
    there.mailbox.step = 7
    with pytest.raises(PeerError, match="the peer was lost at step 7: it closed the connection"):
        there.receive("ready", timeout=5)
    assert time.monotonic() - started < 2


def test_a_socket_closed_between_two_looks_ends_the_reader_without_a_traceback():
    """A reader that had looked at the flag before this side closed, and at its socket after, met one of number -1."""
    here, _there = controls()
    here._socket.close()
    here._read()
    assert here.mailbox.lost


def test_a_silent_peer_is_lost_after_patience():
    """Its machine was unplugged: nothing closes the connection."""
    end, silent = socket.socketpair()
    control = SocketControl(end, Mailbox("the peer"), patience=2)
    with pytest.raises(PeerError, match="was lost at step 0: it was silent for 2 s"):
        control.mailbox.take(CONTROL, timeout=10)
    silent.close()


def test_a_peer_that_talks_and_never_reads_is_lost_after_patience():
    """The reader waited for ever to answer its pings, with the lock of all who send, and no longer counted silence."""
    end, deaf = socket.socketpair()
    control = SocketControl(end, Mailbox("the peer"), patience=1)
    deaf.settimeout(5)
    data = json.dumps({"kind": "ping"}).encode()
    with contextlib.suppress(OSError):  # the other end has hung up
        while not control.mailbox.lost:
            deaf.sendall((struct.pack("<I", len(data)) + data) * 1000)
    with pytest.raises(PeerError, match=r"was lost at step 0: it read nothing for 1 s$"):
        control.mailbox.take(CONTROL, timeout=5)
    started = time.monotonic()
    control.close("which nobody hears")
    assert time.monotonic() - started < 0.5
    deaf.close()


def test_a_message_may_take_longer_than_patience_on_a_slow_link():
    end, slow = socket.socketpair()
    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 12)
    control = SocketControl(end, Mailbox("the peer"), patience=1)
    sending = threading.Thread(target=control.send, args=("spans",), kwargs={"spans": "x" * 80_000})
    started = time.monotonic()
    sending.start()
    while sending.is_alive():
        slow.recv(20_000)
        time.sleep(0.2)
        slow.sendall(struct.pack("<I", 16) + b'{"kind": "beat"}')
    assert time.monotonic() - started > 1.5 and control.mailbox.lost is None
    control.close()
    slow.close()


def test_two_ends_that_say_nothing_stay_together():
    here, there = controls(patience=2)
    time.sleep(3.5)
    assert here.mailbox.lost is there.mailbox.lost is None


def test_the_reason_of_an_end_reaches_the_other_side():
    here, there = controls()
    here.close("Ctrl-C")
    with pytest.raises(PeerError, match="it ended: Ctrl-C"):
        there.mailbox.take(CONTROL, timeout=5)


def test_the_peers_clock_is_this_one():
    here, _ = controls()
    assert abs(here.clock_offset()) < 0.5


class Ahead(LocalControl):
    """Its clock is an hour ahead."""

    def send(self, kind, **values):
        super().send(kind, **{name: value + 3600 if name == "clock" else value for name, value in values.items()})


def test_a_peers_clock_that_is_ahead_is_put_back():
    here, there = LocalControl(Mailbox("the peer")), Ahead(Mailbox("the other"))
    here.peer, there.peer = there, here
    assert here.clock_offset() == pytest.approx(-3600, abs=0.5)


def test_the_first_of_several_queues_wins_and_a_threads_error_is_raised():
    mailbox = Mailbox("the peer")
    mailbox.put("b", 1)
    mailbox.put("a", 2)
    assert mailbox.take("a", "b") == ("a", 2) and mailbox.poll("a", "b") == ("b", 1)
    threading.Timer(0.05, lambda: mailbox.fail(ZeroDivisionError("in a thread"))).start()
    with pytest.raises(ZeroDivisionError, match="in a thread"):
        mailbox.take("a", timeout=5)


def test_an_unanswered_question_ends():
    with pytest.raises(PeerError, match=r"the peer gave no answer within 0\.05 s"):
        Mailbox("the peer").take("a", timeout=0.05)


def test_no_thread_outlives_its_transport():
    before = threading.active_count(), len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    here, there = controls()
    here.close()
    there.close()
    deadline = time.monotonic() + 5
    while threading.active_count() > before[0] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert threading.active_count() <= before[0]
