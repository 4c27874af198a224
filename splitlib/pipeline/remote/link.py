"""A network link of a chosen rate and latency, shaped in process: no root needed, the same on every machine."""

from __future__ import annotations

import math
import re
import threading
import time
from dataclasses import dataclass

from splitlib.errors import ConfigError

_RATES = {"kbit": 1e-3, "mbit": 1.0, "gbit": 1e3, "kbps": 1e-3, "mbps": 1.0, "gbps": 1e3}
_TIMES = {"us": 1e-3, "ms": 1.0, "s": 1e3}


@dataclass(frozen=True, kw_only=True)
class Link:
    """What a message meets on its way, in each direction on its own (full duplex)."""

    rate_mbit: float = 0.0
    """Million bits a second; 0: as fast as it goes."""
    latency_ms: float = 0.0
    """From the last bit sent to its arrival. It delays a message, not those behind it."""

    def __post_init__(self) -> None:
        for name, value in (("rate_mbit", self.rate_mbit), ("latency_ms", self.latency_ms)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise ConfigError(f"a link's {name} must be a number of at least 0, not {value!r}")

    @classmethod
    def parse(cls, rate: str = "", latency: str = "") -> Link:
        """Read what the command line takes.

        >>> Link.parse("1Gbit", "2.5ms")
        Link(rate_mbit=1000.0, latency_ms=2.5)
        """
        return cls(
            rate_mbit=_quantity("link", rate, _RATES, "50Mbit") if rate else 0.0,
            latency_ms=_quantity("latency", latency, _TIMES, "10ms") if latency else 0.0,
        )

    def __str__(self) -> str:
        rate = f"{self.rate_mbit:g} Mbit/s" if self.rate_mbit else "as fast as it goes"
        return f"{rate}, {self.latency_ms:g} ms" if self.latency_ms else rate

    @property
    def shaped(self) -> bool:
        """False for a link that is just as fast as it is."""
        return bool(self.rate_mbit or self.latency_ms)

    def seconds(self, nbytes: int) -> float:
        """Return how long a message keeps the link busy.

        >>> Link(rate_mbit=50).seconds(6_250_000)
        1.0
        """
        return 8 * nbytes / (1e6 * self.rate_mbit) if self.rate_mbit else 0.0


class Pace:
    """One direction of a link in real time, for a thread of urgent messages and one of others.

    Messages of a thread leave one after the other; an urgent one interrupts another's, which goes on afterwards.
    """

    def __init__(self, link: Link) -> None:
        self.link = link
        self._free = {True: 0.0, False: 0.0}
        """When the last bit of all urgent messages, and of all others, will have left."""
        self._lock = threading.Lock()

    def leave(self, nbytes: int, since: float, *, urgent: bool = False) -> tuple[float, float]:
        """Wait until the last bit of the next message, ready ``since``, has left; return when its first and last did.

        All times are ``perf_counter``'s. Oversleeping costs the link nothing: the next message follows without a gap.
        """
        seconds = self.link.seconds(nbytes)
        with self._lock:
            start = max(since, *(self._free[each] for each in {True, urgent}))
            self._free[urgent] = start + seconds
            if urgent and self._free[False] > start:
                self._free[False] += seconds
        while (end := self._free[urgent]) > time.perf_counter():
            sleep_until(end)  # if an urgent message came meanwhile, there is more to wait for
        return start, end


def sleep_until(moment: float) -> None:
    """Wait until ``perf_counter`` shows ``moment``."""
    left = moment - time.perf_counter()
    if left > 0:
        time.sleep(left)


def _quantity(name: str, text: str, units: dict[str, float], example: str) -> float:
    """Return the number in ``text`` in the unit of which ``units`` gives the others' worth."""
    match = re.fullmatch(r"(-?(?:\d+\.?\d*|\.\d+))\s*([a-z]*)", text.strip().lower().removesuffix("/s"), re.ASCII)
    if name == "latency" and match and not match[2] and float(match[1]) == 0:
        return 0.0  # the same in every unit
    known = match and match[2] in units and "Bps" not in text  # MBps are bytes
    number = float(match[1]) * units[match[2]] if match and known else math.nan
    if number < 0 or (number == 0 and name == "link"):
        raise ConfigError(f"{name} {text!r} is {'not above' if name == 'link' else 'below'} 0; write such as {example}")
    if not number < math.inf:
        raise ConfigError(f"{name} {text!r} is none; write a number and a unit ({', '.join(units)}), such as {example}")
    return number
