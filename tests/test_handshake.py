"""Who may use a server, and what each side is told when it may not; over real sockets, with the server in a thread."""

import base64
import contextlib
import datetime
import json
import queue
import re
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.distributed import HashStore

from splitlib import experiment
from splitlib.compressors import COMPRESSORS
from splitlib.errors import ConfigError, PeerError
from splitlib.pipeline.engine import Start
from splitlib.pipeline.remote import door, handshake, network, transport
from splitlib.pipeline.remote.control import SocketControl, read_message, write_message
from splitlib.pipeline.remote.door import format_address
from splitlib.pipeline.remote.launch import dial_under_torchrun, serve_under_torchrun
from splitlib.pipeline.remote.mailbox import Mailbox
from splitlib.pipeline.remote.network import Server, dial, parse_address
from splitlib.pipeline.remote.server import check_required
from tests.support import TINY
from tests.test_transport import encoded, with_port

CONFIG = TINY.replace(engine="two_machines", epochs=1, train_samples=32)


@contextlib.contextmanager
def serving(secret: bytes = b"word", **options):
    """A server in a thread, which ends with the block; yields it and its log."""
    log, listening = [], threading.Event()

    def note(line: str) -> None:
        log.append(line)
        listening.set()

    server = Server(port=0, secret=secret, log=note, **options)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    assert listening.wait(10)
    yield server, log


def says(log: list[str], words: str, last: int = 1) -> bool:
    """Wait until one of the server's ``last`` lines has ``words``."""
    deadline = time.monotonic() + 10
    while not (said := any(words in row for row in log[-last:])) and time.monotonic() < deadline:
        time.sleep(0.01)
    return said


def has_ipv6() -> bool:
    """Say whether this machine has an IPv6 loopback."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def run_on(server: Server, config=CONFIG, secret: bytes = b"word"):
    return experiment.run(config, server=lambda: dial(("127.0.0.1", server.port), secret))


def test_the_right_secret_lets_in(monkeypatch):
    monkeypatch.setenv(handshake.SECRET, "word")
    with serving() as (server, log):
        assert len(experiment.run(CONFIG, server=f"127.0.0.1:{server.port}").history) == 1
        assert log[1].endswith(" connected") and CONFIG.key in log[2]


@pytest.mark.parametrize("secret", [b"", b"wrong"], ids=["missing", "wrong"])
def test_another_secret_is_turned_away_before_anything_else_is_said(secret):
    with serving() as (server, log):
        with pytest.raises(PeerError, match="wrong or missing secret; set "):
            run_on(server, secret=secret)
        assert says(log, "wrong or missing secret") and log[-1].startswith("turned 127.0.0.1:")
        assert not any("config" in line for line in log)
        assert len(run_on(server).history) == 1, "the next client is served"


def test_a_server_that_does_not_know_the_secret_is_found_out():
    """An impostor accepts whatever proof it is given; its own is wrong."""
    listener = socket.create_server(("127.0.0.1", 0))

    def pretend() -> None:
        connection, _ = listener.accept()
        write_message(connection, {"kind": "challenge", "challenge": "00", "versions": handshake.VERSIONS})
        read_message(connection, 10)
        write_message(connection, {"kind": "welcome", "proof": "00"})

    threading.Thread(target=pretend, daemon=True).start()
    with pytest.raises(PeerError, match="does not know the secret"):
        dial(listener.getsockname(), b"word")


def test_an_answer_recorded_once_opens_nothing_later():
    with serving() as (server, _):
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
            recorded = _proof(read_message(connection, 10)["challenge"])
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
            read_message(connection, 10)
            write_message(connection, recorded)
            assert read_message(connection, 10)["kind"] == "refused"


def _proof(challenge: str) -> dict:
    proof = handshake._proof(b"word", "client", challenge, "00")
    return {"kind": "answer", "challenge": "00", "versions": handshake.VERSIONS, "proof": proof}


def test_another_version_is_refused_with_both(monkeypatch):
    with serving() as (server, log):
        theirs = {**handshake.VERSIONS, "splitlib": "9.9"}
        connection = socket.create_connection(("127.0.0.1", server.port), timeout=10)
        challenge = read_message(connection, 10)
        write_message(connection, {**_proof(challenge["challenge"]), "versions": theirs})
        reason = read_message(connection, 10)["reason"]
        assert "client runs splitlib 9.9" in reason and f"server splitlib {handshake.__version__}" in reason
        assert says(log, reason)


def meet(server: Server, **answer) -> socket.socket:
    """Answer the server's challenge rightly but for ``answer``."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    write_message(connection, {**_proof(read_message(connection, 10)["challenge"]), **answer})
    return connection


@pytest.mark.parametrize(
    "version",
    ["\ud800", "1\n127.0.0.1:1 connected", "\x1b[2J", "é", "1" * 33, ["9.9"]],
    ids=["surrogate", "newline", "escape", "accent", "long", "list"],
)
def test_a_version_that_is_none_is_not_repeated(version):
    """A lone surrogate, which no stream encodes, ended the server; a newline forged a line of its log."""
    with serving() as (server, log), meet(server, versions={"splitlib": version, "protocol": 2}) as connection:
        assert "client runs splitlib unknown, protocol 2" in read_message(connection, 10)["reason"]
        assert says(log, "client runs splitlib unknown, protocol 2")
        with meet(server) as another:
            assert read_message(another, 10)["kind"] == "welcome"


def test_what_a_client_says_cannot_break_or_forge_the_log():
    with serving() as (server, log):
        with meet(server) as connection:
            assert read_message(connection, 10)["kind"] == "welcome"
            write_message(connection, {"kind": "bye", "reason": "\ud800\n\x1b[2J"})
            assert says(log, r"it ended: \ud800\n\x1b[2J")
        assert len(run_on(server).history) == 1
    assert all(line.isascii() and line.isprintable() for line in log)


def test_an_error_of_the_program_is_logged_whole_and_the_client_told(monkeypatch):
    """Line by line: what a client put into the error's text looks like no other line of the log."""

    def fail(*arguments, **options):
        raise ZeroDivisionError("by\nzero")

    monkeypatch.setattr(network, "serve", fail)
    with serving() as (server, log):
        line = dial(("127.0.0.1", server.port), b"word")
        with pytest.raises(PeerError, match="refused: by\nzero"):
            line.control.receive("ready", timeout=10)
        assert says(log, "    zero") and "    Traceback (most recent call last):" in log


def test_a_client_refuses_a_server_of_another_version(monkeypatch):
    listener = socket.create_server(("127.0.0.1", 0))

    def pretend() -> None:
        connection, _ = listener.accept()
        versions = {"splitlib": "9.9", "protocol": 1}
        write_message(connection, {"kind": "challenge", "challenge": "00", "versions": versions})
        connection.recv(1)

    threading.Thread(target=pretend, daemon=True).start()
    with pytest.raises(PeerError, match=r"server runs splitlib 9\.9, protocol 1, this client splitlib"):
        dial(listener.getsockname(), b"word")


def test_a_setting_the_server_was_started_with_must_match():
    with serving(required={"compressor": "sort", "chunks": 2}) as (server, log):
        with pytest.raises(PeerError, match="compressor is 'none' on the client and 'sort' on the server"):
            run_on(server)
        assert says(log, "compressor is 'none' on the client")
        assert run_on(server, CONFIG.replace(compressor="sort")).config.compressor == "sort"


@pytest.mark.parametrize(
    ("required", "words"),
    [
        ({"chunks": 0}, "chunks must be at least 1, not 0"),
        ({"task": "mnist"}, "unknown task 'mnist'"),
        ({"compressor": "none", "compressor_options": {"bits": 99}}, "'none' has no parameter 'bits'"),
        ({"gradient_compressor": "uniform", "gradient_options": {"bits": 99}}, "bits must be from 1 to 16, not 99"),
    ],
)
def test_settings_that_no_client_can_bring_are_refused_before_listening(required, words):
    """The server listened, and then turned everybody away."""
    log = []
    with pytest.raises(ConfigError, match=words):
        Server(port=0, required=required, log=log.append).run()
    assert not log


@pytest.mark.parametrize(
    "required",
    [
        {"compressor_options": {"bits": 8}},
        {"partition": "first_last", "batch_size": 1},
        {"gradient_compressor": "same", "compressor_options": {"rank": "3,7"}},
        {"compressor": "power_iteration", "compressor_options": {"rank": "3,7"}},
        *({"compressor": name} for name in COMPRESSORS),
    ],
    ids=str,
)
def test_settings_that_some_client_can_bring_are_required(required):
    check_required(required)


@pytest.mark.parametrize(
    "junk",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff" * 8,
        b"\x02\x00\x00\x00[]",
        b"\x04\x00\x00\x00{}{}",
        b"\x00\x00\x01\x00" + b"[" * (1 << 16),
    ],
    ids=["http", "huge", "list", "no json", "nested"],
)
def test_strangers_are_turned_away(junk):
    with serving() as (server, log):
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
            connection.sendall(junk)
            with contextlib.suppress(OSError):  # the server may have hung up already
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(4096):
                    pass
        assert says(log, "does not speak splitlib's protocol"), log
        assert len(run_on(server).history) == 1


def test_a_stranger_who_dawdles_is_turned_away(monkeypatch):
    """A byte now and then resets the socket's timeout, but not the greeting's."""
    monkeypatch.setattr(handshake, "_STRANGER_SECONDS", 0.5)
    with serving() as (server, log), socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(b"\x00\x01\x00\x00")
        with contextlib.suppress(OSError):
            for _ in range(200):
                connection.sendall(b" ")
                time.sleep(0.05)
                if len(log) > 1:
                    break
        assert "it gave no answer" in log[-1]


@pytest.mark.parametrize("junk", [b"[]", b"7", b'{"sort": 8}', b'{"kind": 8}', b"[" * 100_000])
def test_a_peer_that_talks_nonsense_is_lost(junk):
    """Also one that has proved itself: no thread dies of it while the other side waits."""
    here, there = socket.socketpair()
    mailbox = Mailbox("the client")
    control = SocketControl(here, mailbox)
    there.sendall(struct.pack("<I", len(junk)) + junk)
    with pytest.raises(PeerError, match="does not speak splitlib's protocol"):
        mailbox.take("anything", timeout=10)
    control.close()
    there.close()


def test_silent_strangers_keep_nobody_waiting():
    """Greeted one after the other, twenty of them kept a client out for 200 s."""
    with serving() as (server, _), contextlib.ExitStack() as strangers:
        for _ in range(20):
            strangers.enter_context(socket.create_connection(("127.0.0.1", server.port)))
        started = time.monotonic()
        dial(("127.0.0.1", server.port), b"word").control.close("only looking")
        assert time.monotonic() - started < 2


def test_who_outlasts_the_strangers_is_greeted(monkeypatch):
    """There are no more threads than the door may have, and they come back."""
    monkeypatch.setattr(handshake, "_STRANGER_SECONDS", 0.5)
    monkeypatch.setattr(door, "_AT_ONCE", 2)
    with serving() as (server, log), contextlib.ExitStack() as strangers:
        before = threading.active_count()
        for _ in range(6):
            strangers.enter_context(socket.create_connection(("127.0.0.1", server.port)))
        line = dial(("127.0.0.1", server.port), b"word")
        assert threading.active_count() <= before + 2 + 4  # both ends' threads of the control channel
        line.control.close("only looking")
        assert says(log, "only looking", last=2), "the sixth stranger may be turned away after it"
        assert sum("gave no answer" in row for row in log) >= 5


def test_a_client_waits_for_the_one_before_it_and_is_told_if_that_takes_long(monkeypatch):
    with serving() as (server, log):
        first = dial(("127.0.0.1", server.port), b"word")
        with ThreadPoolExecutor(1) as pool:
            second = pool.submit(dial, ("127.0.0.1", server.port), b"word")
            time.sleep(0.3)
            assert not second.done() and sum("connected" in row for row in log) == 1
            first.control.close("done")
            second.result(10).control.close("done as well")
        assert says(log, "done as well")
        monkeypatch.setattr(door, "_TURN_SECONDS", 0.2)
        third = dial(("127.0.0.1", server.port), b"word")
        with pytest.raises(PeerError, match="cannot be used: refused: it is busy with another client; try again later"):
            dial(("127.0.0.1", server.port), b"word")
        third.control.close("done")


def test_a_client_that_left_while_it_waited_takes_nobodys_turn():
    """With --once it would have been the one, and the server would have ended."""
    with serving() as (server, log):
        first = dial(("127.0.0.1", server.port), b"word")
        meet(server).close()
        time.sleep(0.3)
        first.control.close("done")
        assert says(log, ": it left while it waited")
        dial(("127.0.0.1", server.port), b"word").control.close("only looking")
        assert says(log, "only looking")


def test_a_server_that_has_ended_listens_no_more():
    with pytest.raises(PeerError, match="it ended: done"), ThreadPoolExecutor(1) as pool:
        listening = queue.SimpleQueue()
        server = Server(port=0, secret=b"word", log=listening.put)
        served = pool.submit(server.run, once=True)
        listening.get(timeout=10)
        dial(("127.0.0.1", server.port), b"word").control.close("done")
        served.result(10)
    socket.create_server(("127.0.0.1", server.port)).close()


def test_nobody_listening_is_one_line():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(PeerError, match=f"the server 127.0.0.1:{port} cannot be reached .*python -m splitlib server"):
        dial(("127.0.0.1", port), b"word")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("nowhere", ("nowhere", 29511)),
        ("nowhere:1", ("nowhere", 1)),
        ("[::1]", ("::1", 29511)),
        ("[fe80::1%eth0]:65535", ("fe80::1%eth0", 65535)),
    ],
)
def test_an_address_is_a_host_and_perhaps_a_port(text, address):
    assert parse_address(text) == address
    assert parse_address(format_address(*address)) == address


@pytest.mark.parametrize(
    "text", ["", ":80", "::1", "fe80::1", "::1:80", "[]", "[::1", "[::1]80", "[::1]:", "h:0", "h:65536"]
)
def test_what_is_no_address_is_named_with_what_would_be_one(text):
    """``::1`` was read as port 1 of the host ``:``."""
    with pytest.raises(
        ConfigError, match=rf"server {re.escape(repr(text))} is no address; .* in brackets: \[::1\]:29511"
    ):
        parse_address(text)


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")
def test_a_run_over_ipv6():
    with serving(bind="::1") as (server, log):
        address = log[0].removeprefix("listening on ")
        assert address == f"[::1]:{server.port}"
        assert len(experiment.run(CONFIG, server=lambda: dial(parse_address(address), b"word")).history) == 1
        assert log[1].startswith("[::1]:")


def test_other_machines_need_a_secret():
    with pytest.raises(ConfigError, match=r"listening on 0\.0\.0\.0 needs a shared secret"):
        Server(bind="0.0.0.0", port=0, log=lambda line: None).run()
    with pytest.raises(ConfigError, match=r"listening on 0\.0\.0\.0 needs a secret of at least 16 characters"):
        Server(bind="0.0.0.0", port=0, secret=b"word", log=lambda line: None).run()


def test_a_taken_port_is_one_line():
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(ConfigError, match=r"cannot listen on 127\.0\.0\.1:\d+: Address already in use; .* --port$"),
    ):
        Server(port=taken.getsockname()[1], log=lambda line: None).run()


def test_another_machines_address_is_one_line():
    words = r"cannot listen on 203\.0\.113\.7:0: [^:(]*; listen on an address of this machine$"
    with pytest.raises(ConfigError, match=words):
        Server(bind="203.0.113.7", port=0, log=lambda line: None).run()


def test_secrets_come_from_a_file_or_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv(handshake.SECRET, " from outside\n")
    assert handshake.read_secret() == b"from outside"
    (tmp_path / "secret").write_text("from a file\n")
    assert handshake.read_secret(tmp_path / "secret") == b"from a file"
    (tmp_path / "empty").touch()
    with pytest.raises(ConfigError, match="is empty"):
        handshake.read_secret(tmp_path / "empty")
    with pytest.raises(ConfigError, match="cannot be read"):
        handshake.read_secret(tmp_path / "missing")


@pytest.mark.parametrize("secret", ["two words", "  "])
def test_torchruns_pair_meets_whatever_the_secret_is(secret, monkeypatch):
    """With a space in it the client died of a ValueError; one of blanks alone is none, and the server makes its own."""
    monkeypatch.setenv(handshake.SECRET, secret)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    store, ended = HashStore(), threading.Event()

    def serve() -> None:
        with pytest.raises(PeerError, match="it ended: only looking"):
            serve_under_torchrun(store, hub=None, device=torch.device("cpu"))
        ended.set()

    threading.Thread(target=serve, daemon=True).start()
    dial_under_torchrun(store).control.close("only looking")
    assert ended.wait(30)
    assert len(store.get("splitlib").split(b" ", 1)[1].strip()) >= len("two words")


def test_the_secret_never_travels():
    """What a listener between the two would see of the handshake."""
    here, there = socket.socketpair()
    heard, sendall = [], socket.socket.sendall

    class Overheard(socket.socket):
        def sendall(self, data, *arguments):
            heard.append(bytes(data))
            return sendall(self, data, *arguments)

    ends = [Overheard(fileno=end.detach()) for end in (here, there)]

    def greet() -> None:
        write_message(ends[0], handshake.greet_client(ends[0], b"word"))

    thread = threading.Thread(target=greet)
    thread.start()
    handshake.greet_server(ends[1], b"word")
    thread.join()
    assert len(heard) == 3 and not any(b"word" in data for data in heard)
    assert json.loads(heard[2][4:])["kind"] == "welcome"


def test_a_client_that_leaves_before_the_first_tensor_leaves_the_server_for_the_next():
    with serving() as (server, log):
        line = dial(("127.0.0.1", server.port), b"word")
        start = Start(config=CONFIG, num_labels=2, data_fingerprint="", total_steps=2, train_samples=4, step=0)
        line.control.send("hello", **start.to_dict(), link={"rate_mbit": 0, "latency_ms": 0})
        assert line.control.receive("ready", timeout=30)["parameters"] > 0
        line.control.close("changed its mind")
        assert says(log, "was lost at step 0: it ended: changed its mind"), log
        assert len(run_on(server).history) == 1


def test_a_client_that_leaves_while_the_tensors_are_connected_is_no_firewall(monkeypatch):
    """A closed port refuses at once; gloo seems to try until the news is there, as it does where packets are lost."""
    gone, lose = threading.Event(), Mailbox.lose

    class Patient(transport.ProcessGroupGloo):
        def __init__(self, *args):
            try:
                super().__init__(*args)
            finally:
                gone.wait(10)

    def noticed(self, why):
        lose(self, why)
        if "changed its mind" in why:
            gone.set()

    monkeypatch.setattr(transport, "_CONNECTING", datetime.timedelta(seconds=0.3))
    monkeypatch.setattr(transport, "ProcessGroupGloo", Patient)
    monkeypatch.setattr(Mailbox, "lose", noticed)
    with serving() as (server, log):
        line = dial(("127.0.0.1", server.port), b"word")
        start = Start(config=CONFIG, num_labels=2, data_fingerprint="", total_steps=2, train_samples=4, step=0)
        line.control.send("hello", **start.to_dict(), link={"rate_mbit": 0, "latency_ms": 0})
        line.control.receive("ready", timeout=30)
        value = with_port(base64.b64decode(line.control.receive("store", timeout=10)["value"]), 1)
        line.control.send("store", key="activation 1/0/1", value=encoded(value))
        line.control.close("changed its mind")
        assert says(log, "was lost at step 0: it ended: changed its mind"), log


def test_a_client_interrupted_while_the_server_builds_says_so(monkeypatch):
    """Its control channel would otherwise go on beating for as long as the process lives, and the server wait."""
    receive = SocketControl.receive

    def interrupted(self, *kinds, timeout=None):
        if "ready" in kinds:
            raise KeyboardInterrupt
        return receive(self, *kinds, timeout=timeout)

    with serving() as (server, log):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(SocketControl, "receive", interrupted)
            run_on(server)
        assert says(log, "was lost at step 0: it ended: Ctrl-C"), log


def test_an_impossible_hello_is_refused_and_the_next_client_served():
    with serving() as (server, _):
        line = dial(("127.0.0.1", server.port), b"word")
        line.control.send("hello", config={"task": "mnist"}, link={}, num_labels=2, data_fingerprint="", total_steps=2)
        with pytest.raises(PeerError, match="refused: the client's hello lacks 'step'"):
            line.control.receive("ready", timeout=30)
        line = dial(("127.0.0.1", server.port), b"word")
        hello = {"config": {"task": "mnist"}, "link": {}, "num_labels": 2, "data_fingerprint": "", "total_steps": 2}
        line.control.send("hello", **hello, train_samples=4, step=0)
        with pytest.raises(PeerError, match="refused: unknown task 'mnist'"):
            line.control.receive("ready", timeout=30)
        assert len(run_on(server).history) == 1


def test_a_reset_connection_was_closed_by_the_other_side():
    """What the kernel of a killed process sends depends on whether it had read everything; the user's line does not."""
    listener = socket.create_server(("127.0.0.1", 0))
    peer = socket.create_connection(listener.getsockname())
    connection, _ = listener.accept()
    mailbox = Mailbox("the client")
    control = SocketControl(connection, mailbox)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()
    with pytest.raises(PeerError, match=r"was lost at step 0: it closed the connection$"):
        mailbox.take("anything", timeout=10)
    control.close()
    listener.close()
