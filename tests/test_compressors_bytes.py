"""Payloads keep their bytes from one version of splitlib to the next, however the loops that write them change."""

import hashlib
import os
import threading

import pytest
import torch

from splitlib.compressors import decode, make_compressor, threads


def values(numel: int, dtype: torch.dtype) -> torch.Tensor:
    """Numbers of both signs and many sizes, a third of them zero; every step that makes them is exact."""
    place = torch.arange(numel)
    mantissa = (place * 7919 % 10007 - 4000) * (place % 3 > 0)
    return torch.ldexp(mantissa.float(), -(place * 31 % 13)).to(dtype)


# The first digits of two SHA-256: the payload's, and those of what it decodes to.
BYTES = {
    (1001, "float32", "none", ()): ["869b5ad56348554f", "0dea9938fa8b6b2a"],
    (1001, "float32", "cast", ()): ["4d519e156979197f", "1be51136be913db5"],
    (1001, "float32", "uniform", ()): ["4594bc8a25e21c84", "0228eb5bf077fad8"],
    (1001, "float32", "uniform", (("bits", 5), ("block", 256))): ["786be68b1cffa548", "64525b2aca8c7a32"],
    (1001, "float32", "uniform", (("bits", 12),)): ["288c9527c9afaa9a", "b93bf57209bbfdbc"],
    (1001, "float32", "sort", ()): ["b13fbf07c97df047", "5417fbb40a16b297"],
    (1001, "float32", "sort", (("level_bits", 9), ("bin_bits", 3))): ["f2707db0d810b4a3", "bc10682842d435e3"],
    (1001, "float32", "sort", (("level_bits", 0), ("bin_bits", 6))): ["711c36345578ea8b", "9c3c1098428177a9"],
    (1001, "float32", "sort", (("edges", "equal_range"), ("level_bits", 2))): ["aea6fb51ca316e22", "0b04fddcd242fc0b"],
    (1001, "float32", "fast", ()): ["b49d6abf162825a1", "253b66944cbcd659"],
    (1001, "float16", "sort", ()): ["059aa2c8a437d912", "659f3123d1b8f044"],
    (1001, "bfloat16", "uniform", (("bits", 4),)): ["5a93de25f445c9bf", "0e21205a63668626"],
    (300005, "float32", "none", ()): ["0bd00e6d9064ac73", "3fb5900560fd0986"],
    (300005, "float32", "cast", ()): ["793ae5b177965782", "4919bdcc4ae2b626"],
    (300005, "float32", "uniform", ()): ["e329b746e7824eef", "e8e5edf4de52bedc"],
    (300005, "float32", "uniform", (("bits", 5), ("block", 256))): ["60a185d4a28d10dc", "0ecff3b596d63d0c"],
    (300005, "float32", "uniform", (("bits", 12),)): ["15ad31b8adfe5eee", "a181815a7666b007"],
    (300005, "float32", "sort", ()): ["3e710f4b2f339610", "67f4a45a2381d25f"],
    (300005, "float32", "sort", (("level_bits", 9), ("bin_bits", 3))): ["addf79f22f3fad5e", "56bc415f3ef34961"],
    (300005, "float32", "sort", (("level_bits", 0), ("bin_bits", 6))): ["554f4f5187872f0a", "f3e20d353ec1d1e1"],
    (300005, "float32", "sort", (("edges", "equal_range"), ("level_bits", 2))): [
        "dfd4ba7b8b4de78d",
        "be02449bc3c98991",
    ],
    (300005, "float32", "fast", ()): ["68a4c7888eebe671", "79cad154acb555b4"],
    (300005, "float16", "sort", ()): ["4bcc2841bf102ea7", "6da1aaf05dff1fec"],
    (300005, "bfloat16", "uniform", (("bits", 4),)): ["fc4476008fa379ac", "272b372ac1cdefed"],
    (1001, "float32", "topk", ()): ["8beab46f5a6de051", "8015d235216e09e6"],
    (1001, "bfloat16", "topk", (("share", 0.05), ("values", "float8"))): ["ac3b4db9d24b8169", "2a3ca8341a04619f"],
    (300005, "float32", "topk", (("share", 0.02),)): ["f99519f2fcbf8cba", "c0439efff78c7456"],
    (300005, "float16", "topk", (("random", 0.1), ("codes", "packed"))): ["e6124647331ef270", "a87637f154e78063"],
    (0, "float32", "sort", ()): ["14f54acf4153b95a", "e3b0c44298fc1c14"],
    (1, "float32", "sort", ()): ["238c43f767f8d050", "df3f619804a92fdb"],
}


@pytest.mark.parametrize(("numel", "dtype", "name", "options"), BYTES)
@pytest.mark.parametrize("shares", [1, 3])
def test_payloads_have_the_bytes_they_always_had(numel, dtype, name, options, shares, monkeypatch):
    monkeypatch.setattr(threads, "_MIN_SHARE", 1 << 13)
    monkeypatch.setattr(torch, "get_num_threads", lambda: shares)
    payload = make_compressor(name, **dict(options)).encode(values(numel, getattr(torch, dtype)))
    back = decode(payload)
    digests = [hashlib.sha256(x.reshape(-1).view(torch.uint8).numpy().tobytes()) for x in (payload.message, back)]
    assert [digest.hexdigest()[:16] for digest in digests] == BYTES[numel, dtype, name, options]


def test_a_share_that_no_thread_begins_is_done_by_the_caller(monkeypatch):
    monkeypatch.setattr(threads, "_MIN_SHARE", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    held = threading.Event()
    busy = [threads._pool().submit(held.wait) for _ in range(os.cpu_count())]
    assert threads.share(100, 8, lambda start, stop: (start, stop)) == [
        (0, 24),
        (24, 48),
        (48, 72),
        (72, 96),
        (96, 100),
    ]
    held.set()
    assert all(other.result() for other in busy)
