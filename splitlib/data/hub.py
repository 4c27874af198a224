"""Where datasets and models come from: the Hugging Face hub, or a local mirror in its layout.

A mirror holds ``datasets/<org>/<name>`` and ``models/<org>/<name>``, each as ``hf download --local-dir`` leaves it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import huggingface_hub
from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

from splitlib.errors import DataError

Kind = Literal["datasets", "models"]

# The hub's own clients try for half a minute and log every try; one question of this many seconds tells as much.
TIMEOUT = 10.0


def resolve_hub(hub: Path | str | None = None) -> Path | None:
    """Return the mirror's folder: ``hub``, else ``$SPLITLIB_HUB``, else None for the Hugging Face hub itself.

    Raises:
        DataError: the folder does not exist.
    """
    named = hub or os.environ.get("SPLITLIB_HUB")
    if not named:
        return None
    folder = Path(named).expanduser()
    if not folder.is_dir():
        raise DataError(f"no hub mirror at {folder}; set --hub or SPLITLIB_HUB to a folder with datasets/ and models/")
    return folder


def locate(repo_id: str, kind: Kind, hub: Path | str | None = None) -> str:
    """Return what ``load_dataset`` or ``from_pretrained`` takes: a folder, or the id of something the hub really has.

    A model may also be a folder of your own.

    Raises:
        DataError: the mirror does not hold it, the hub does not know it, or the hub cannot be reached.
    """
    if kind == "models" and _is_folder(Path(repo_id)):
        return repo_id
    if Path(repo_id).is_absolute():
        raise DataError(f"there is no folder {repo_id}{_way_out(kind)}")
    mirror = resolve_hub(hub)
    if mirror is None:
        _ask_hub(repo_id, kind)
        return repo_id
    folder = mirror / kind / repo_id
    if not _is_folder(folder):
        raise DataError(
            f"{repo_id} is not in the hub mirror {mirror}; fetch it with 'hf download {repo_id} "
            f"--repo-type {_singular(kind)} --local-dir {folder}'{_way_out(kind)}"
        )
    return str(folder)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # too long a name
        return False


def describe(hub: Path | str | None = None) -> str:
    """Return what a title says of the source; never a path."""
    return "the Hugging Face hub" if resolve_hub(hub) is None else "a local mirror"


def reason(error: BaseException) -> str:
    """Return the first line of what went wrong first, for a message of one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _ask_hub(repo_id: str, kind: Kind) -> None:
    """Ask the hub once whether it has ``repo_id``; in offline mode its clients look in their caches instead."""
    if huggingface_hub.is_offline_mode():
        return
    try:
        huggingface_hub.HfApi().repo_info(repo_id, repo_type=_singular(kind), timeout=TIMEOUT)
    except RepositoryNotFoundError as error:
        raise DataError(f"the Hugging Face hub has no {_singular(kind)} {repo_id!r}, or keeps it private") from error
    except HFValidationError as error:
        raise DataError(f"{repo_id!r} is no folder, and no {_singular(kind)} of the hub has such a name") from error
    except Exception as error:  # one kind for each layer of the hub's client, from sockets to HTTP
        raise DataError(
            f"the Hugging Face hub, asked for {repo_id}, cannot be reached ({reason(error)}); connect to a network, "
            f"set --hub or SPLITLIB_HUB to a mirror, set HF_HUB_OFFLINE=1 if it was downloaded before{_way_out(kind)}"
        ) from error


def _singular(kind: Kind) -> str:
    return kind.removesuffix("s")


def _way_out(kind: Kind) -> str:
    return ", or use --data embedded" if kind == "datasets" else ", or name another --model"
