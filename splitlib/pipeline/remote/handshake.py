"""Two machines meet: each proves to the other that it knows the shared secret, before anything else is said.

Each side sends a random challenge and answers the other's with an HMAC over both and its own role. So the secret never
travels, an answer cannot be used twice, and neither side's answer serves as the other's. What follows on the connection
is neither encrypted nor signed: the README says how to run it through a VPN.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import socket
from pathlib import Path
from typing import NoReturn

from splitlib.errors import ConfigError, PeerError
from splitlib.pipeline.remote.control import Message, read_message, write_message
from splitlib.version import __version__

PROTOCOL = 3
SECRET = "SPLITLIB_SECRET"
"""Environment variable: the secret that client and server share."""
LEAST_SECRET = 16
"""Characters, where strangers can connect: who listens to a handshake can try every short one at home."""
_SECONDS = 10.0
_STRANGER_SECONDS = 5.0  # less, so that a client outlasts the strangers before it
_MAX_VERSION = 32
VERSIONS = {"splitlib": __version__, "protocol": PROTOCOL}


def read_secret(file: Path | None = None) -> bytes:
    """Return the shared secret from ``file``, else from ``$SPLITLIB_SECRET``; empty if there is neither."""
    if file is None:
        return os.environ.get(SECRET, "").strip().encode()
    try:
        secret = file.read_bytes().strip()
    except OSError as error:
        raise ConfigError(f"secret file {file} cannot be read: {error.strerror}") from None
    if not secret:
        raise ConfigError(f"secret file {file} is empty; write a long random line into it")
    return secret


def greet_client(connection: socket.socket, secret: bytes) -> Message:
    """Server's side: have whoever connected prove itself, and return what proves us, which is its welcome.

    Raises:
        PeerError: it runs another version, does not know the secret, or speaks something else. It was told why.
    """
    connection.settimeout(_STRANGER_SECONDS)
    ours = secrets.token_hex(16)
    write_message(connection, {"kind": "challenge", "challenge": ours, "versions": VERSIONS})
    answer = read_message(connection, _STRANGER_SECONDS)
    theirs = _text(answer, "challenge")
    if answer.get("versions") != VERSIONS:
        refuse(connection, f"the client runs {_words(answer.get('versions'))}, the server {_words(VERSIONS)}")
    if not hmac.compare_digest(_text(answer, "proof"), _proof(secret, "client", ours, theirs)):
        refuse(connection, f"wrong or missing secret; set ${SECRET} (or --secret-file) to the server's")
    return {"kind": "welcome", "proof": _proof(secret, "server", ours, theirs)}


def greet_server(connection: socket.socket, secret: bytes) -> None:
    """Client's side of :func:`greet_client`."""
    connection.settimeout(_SECONDS)
    challenge = read_message(connection, _SECONDS)
    theirs, ours = _text(challenge, "challenge"), secrets.token_hex(16)
    if challenge.get("versions") != VERSIONS:
        raise PeerError(f"the server runs {_words(challenge.get('versions'))}, this client {_words(VERSIONS)}")
    proof = _proof(secret, "client", theirs, ours)
    write_message(connection, {"kind": "answer", "challenge": ours, "versions": VERSIONS, "proof": proof})
    welcome = read_message(connection, _SECONDS)
    if welcome["kind"] == "refused":
        raise PeerError(f"refused: {_text(welcome, 'reason')}")
    if not hmac.compare_digest(_text(welcome, "proof"), _proof(secret, "server", theirs, ours)):
        raise PeerError(f"it does not know the secret in ${SECRET} (or --secret-file)")


def _proof(secret: bytes, role: str, server: str, client: str) -> str:
    return hmac.new(secret, f"splitlib {role} {server} {client}".encode(), hashlib.sha256).hexdigest()


def refuse(connection: socket.socket, reason: str) -> NoReturn:
    """Tell the client why it is turned away, and raise it."""
    write_message(connection, {"kind": "refused", "reason": reason})
    raise PeerError(reason)


def _text(message: Message, name: str) -> str:
    value = message.get(name)
    if not isinstance(value, str) or not value.isascii() or not value.isprintable():
        raise PeerError("it does not speak splitlib's protocol")
    return value


def _words(versions: object) -> str:
    known = versions if isinstance(versions, dict) else {}
    return ", ".join(f"{name} {_version(known.get(name))}" for name in VERSIONS)


def _version(value: object) -> str:
    """Return a version to show. A stranger's is shown only where it is nothing but a version."""
    text = str(value)
    plain = isinstance(value, (str, int)) and text.isascii() and text.isprintable()
    return text if plain and len(text) <= _MAX_VERSION else "unknown"
