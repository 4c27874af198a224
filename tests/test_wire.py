"""Frames: what comes out is what went in, or an error that says what is wrong; never a wrong number."""

import dataclasses
import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from splitlib.compressors import make_compressor
from splitlib.errors import PayloadError
from splitlib.pipeline.remote.wire import (
    ACTIVATION_1,
    ACTIVATION_2,
    FRAME_BYTES,
    GRADIENT_2,
    Frame,
    announcement,
    check_frame,
    decode_frame,
    encode_frame,
    read_frame,
    read_payload,
)

CPU = torch.device("cpu")
FRAME = Frame(kind=ACTIVATION_1, step=3, micro_batch=2, of=4, uncompressed=96)
MASK = torch.tensor([[1, 1, 0], [1, 0, 0]])


def message_of(codec: str = "none", x: torch.Tensor | None = None, beside=(MASK,), **options) -> torch.Tensor:
    x = torch.linspace(-1, 1, 24).reshape(2, 3, 4) if x is None else x
    return encode_frame(make_compressor(codec, **options).encode, x, FRAME, beside)[1]


def opened(message: torch.Tensor):
    frame = read_frame(message)
    return frame, *decode_frame(frame, message, CPU)


@pytest.mark.parametrize("codec", ["none", "cast", "uniform", "sort", "power_iteration"])
@pytest.mark.parametrize("shape", [(2, 3, 4), (1, 1), (0, 5), (7,)])
def test_a_frame_carries_what_the_codec_would(codec, shape):
    x = torch.randn(shape)
    alone = make_compressor(codec).encode(x).message
    frame, tensor, (mask,) = opened(message_of(codec, x))
    assert torch.equal(message_of(codec, x)[-alone.numel() :], alone), "the payload is the codec's, byte for byte"
    assert (frame.kind, frame.step, frame.micro_batch, frame.of, frame.training) == (ACTIVATION_1, 3, 2, 4, True)
    assert tensor.shape == x.shape and frame.uncompressed == 96
    assert torch.equal(mask, MASK) and mask.dtype == MASK.dtype


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.bool])
@pytest.mark.parametrize("values", [[[0, 1]], [0, 1, 1, 0, 1, 1, 0, 0, 1], []])
def test_integers_beside_the_payload_keep_value_dtype_and_shape(dtype, values):
    tensor = torch.tensor(values, dtype=dtype)
    _, _, (received,) = opened(message_of(beside=(tensor,)))
    assert torch.equal(received, tensor) and received.dtype == dtype


def test_large_and_negative_integers_beside_the_payload():
    tensors = (torch.tensor([-1, 2**40]), torch.tensor([256, 5], dtype=torch.int32), torch.tensor([255, 0]))
    _, _, received = opened(message_of(beside=tensors))
    assert all(map(torch.equal, received, tensors))


def test_floats_beside_the_payload_are_refused():
    with pytest.raises(PayloadError, match=r"cannot send a 1-dimensional torch\.float32"):
        message_of(beside=(torch.ones(3),))


@pytest.mark.parametrize("codec", ["none", "sort"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_flipped_bit_is_an_error(codec, data):
    message = message_of(codec)
    bit = data.draw(st.integers(0, 8 * message.numel() - 1))
    message[bit // 8] ^= 1 << bit % 8
    with pytest.raises(PayloadError):
        opened(message)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_tensors_beside_a_payload_claim_nothing_that_is_not_there(data):
    """A peer can send any bytes under a checksum that fits: they are a tensor, or an error."""
    shape = [data.draw(st.sampled_from([0, 1, 5, 2**31, 2**32 - 1])) for _ in range(4)]
    numbers = [data.draw(st.integers(0, 9)) for _ in range(3)]
    extra = struct.pack("<BBB5x4I", *numbers, *shape) + bytes(data.draw(st.integers(0, 24)))
    extra = extra[: data.draw(st.integers(1, len(extra)))]
    frame = dataclasses.replace(FRAME, beside_nbytes=len(extra))
    message = torch.frombuffer(bytearray(frame.pack(extra)), dtype=torch.uint8)
    assert read_frame(message) == frame
    try:
        _, (first, *_) = read_payload(frame, message, CPU)
    except PayloadError as error:
        assert "beside a payload is damaged" in str(error)
    else:
        assert list(first.shape) == shape[: numbers[2]] and not first.any()


@pytest.mark.parametrize("bit", range(8 * FRAME_BYTES))
def test_every_bit_of_the_header_counts(bit):
    message = message_of()
    message[bit // 8] ^= 1 << bit % 8
    with pytest.raises(PayloadError):
        read_frame(message)


@pytest.mark.parametrize("left", [0, 1, FRAME_BYTES - 1, FRAME_BYTES, -9, -1])
def test_a_truncated_frame_is_an_error(left):
    with pytest.raises(PayloadError, match=r"shorter than|only|checksum"):
        opened(message_of()[:left])


def test_a_stale_tail_behind_a_frame_is_not_part_of_it():
    message = torch.cat([message_of(), torch.full((100,), 7, dtype=torch.uint8)])
    assert torch.equal(opened(message)[1], opened(message_of())[1])


def test_a_short_message_over_a_longer_one_is_an_error():
    """gloo leaves the old bytes where a message is shorter than its buffer: the checksum has to find them."""
    buffer = message_of(x=torch.ones(64))
    new = message_of(x=torch.zeros(64))
    buffer[: new.numel() // 2] = new[: new.numel() // 2]
    with pytest.raises(PayloadError, match="checksum"):
        opened(buffer)


def test_foreign_bytes_and_other_versions_are_named():
    with pytest.raises(PayloadError, match="not a splitlib frame"):
        read_frame(torch.zeros(FRAME_BYTES, dtype=torch.uint8))
    other = message_of()
    other[2] += 1
    with pytest.raises(PayloadError, match="version 2; this splitlib reads version 1"):
        read_frame(other)


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": ACTIVATION_2},
        {"step": 4},
        {"micro_batch": 1},
        {"of": 5},
        {"training": False},
    ],
)
def test_a_frame_that_is_not_the_one_due_is_an_error_that_names_both(wrong):
    due = Frame(**{"kind": ACTIVATION_1, "step": 3, "micro_batch": 2, "of": 4} | wrong)
    with pytest.raises(PayloadError) as error:
        check_frame(read_frame(message_of()), due)
    assert f"expected {due}" in str(error.value)
    assert "received activation 1, micro-batch 2 of 4, step 3, training" in str(error.value)
    check_frame(read_frame(message_of()), Frame(kind=ACTIVATION_1, step=3, micro_batch=2, of=4))


def test_an_announcement_is_no_longer_than_the_smallest_buffer():
    assert announcement(2**40).numel() == FRAME_BYTES
    assert read_frame(announcement(2**40)).payload_nbytes == 2**40


def test_sizes_on_the_wire():
    frame, message = encode_frame(make_compressor("uniform").encode, torch.randn(1000), FRAME, (MASK,))
    assert frame.nbytes == message.numel() == FRAME_BYTES + frame.beside_nbytes + frame.payload_nbytes
    assert frame.beside_nbytes == 24 + 8, "six ones and zeros take a byte each, filled up to a word"
    assert GRADIENT_2 != ACTIVATION_2
