"""Writing files whole or not at all, and naming them."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from splitlib.errors import ConfigError, WriteError


def file_stem(words: Iterable[str]) -> str:
    """Return ``words`` as a file's name without its suffix.

    >>> file_stem(["timing", "cifar10", "conv insert (wide)"])
    'timing-cifar10-conv_insert_wide_'
    """
    return "-".join(re.sub(r"[^A-Za-z0-9_.]+", "_", word) for word in words)


@contextlib.contextmanager
def temporary_beside(path: Path) -> Iterator[Path]:
    """Yield a temporary file in ``path``'s folder and rename it to ``path`` if the block succeeds, else remove it.

    A reader sees the old file or the new one, never half of either. What the system refuses is a WriteError.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            temporary.chmod(0o644)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except WriteError:  # of a file inside the block
        raise
    except OSError as error:
        raise WriteError(path, error) from error


def check_writable(folder: Path, named_by: str) -> None:
    """Raise WriteError if no file can be written into ``folder``, or where it would be made.

    ``named_by`` is the option or environment variable that would name another.
    """
    try:
        there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        raise WriteError(folder, error, f"name another folder with {named_by}") from error


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call ``write(temporary)`` and move the result to ``path``."""
    with temporary_beside(path) as temporary:
        write(temporary)


def named_folder(variable: str, default: Path) -> Path:
    """Return the folder that an environment variable names, ``~`` expanded, else ``default``."""
    return Path(os.path.expanduser(os.environ.get(variable) or default))


def replace_section(path: Path, name: str, text: str) -> None:
    """Put ``text`` between the marks ``<!-- name: begin -->`` and ``<!-- name: end -->`` of a Markdown file.

    Raises:
        ConfigError: the file cannot be read, or lacks the marks.
    """
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
    try:
        before, rest = path.read_text(encoding="utf-8").split(begin)
        _, after = rest.split(end)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except ValueError:
        raise ConfigError(f"{path} needs the marks {begin.strip()} and {end}, once each") from None
    write_text(path, f"{before}{begin}\n{text.strip()}\n\n{end}{after}")


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
