"""One direction of one cut: a compressor, and what both sides know that makes its work easier.

Three things may be known, each a setting of the run:

* *Where the padding is.* A text model ignores it, so it need not cross: what is sent are the real tokens' rows.
* *What the sample's tensor was when it was last seen.* Only the change is coded then, after which both sides know the
  tensor as it arrived (AQ-SGD, Wang et al. 2022, arXiv:2206.01299). A first visit has nothing to change from and is
  coded in 8 bits.
* *What the last tensor lost.* The sender adds it to the next one (error feedback, Seide et al. 2014).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from splitlib.compressors import HEADER_BYTES, Compressor, Identity, Payload, decode, make_compressor
from splitlib.config import RunConfig
from splitlib.data.order import BatchOrder


@dataclass(frozen=True)
class Place:
    """Which micro-batch a tensor belongs to."""

    samples: Tensor | None = None
    """The indices [B] of its training samples; None in evaluation."""
    tokens: Tensor | None = None
    """Which positions [B, L] hold a token, if padding does not cross."""
    training: bool = True


@dataclass(frozen=True, kw_only=True)
class Coding:
    """What a run's channels make of what both sides know; the default is nothing."""

    skip_padding: bool = False
    feedback: bool = False
    """Of gradients: what an activation lost belongs to samples that do not come again at once."""
    order: BatchOrder | None = None
    """Which samples a batch holds, where activations are coded as changes."""
    chunks: int = 1

    @classmethod
    def of(cls, config: RunConfig, samples: int) -> Coding:
        """Return the coding of a config, with ``samples`` training samples."""
        order = BatchOrder(samples, config.batch_size, config.seed) if config.coding == "change" else None
        return cls(
            skip_padding=config.padding == "skipped",
            feedback=config.error_feedback == "gradients",
            order=order,
            chunks=config.chunks,
        )

    def activations(self, codec: Compressor) -> Channel:
        """Return a channel for what goes forward."""
        return Channel(codec, samples=self.order.samples if self.order else 0)

    def gradients(self, codec: Compressor) -> Channel:
        """Return a channel for what comes back."""
        return Channel(codec, feedback=self.feedback)

    def place(self, step: int, micro_batch: int, *, mask: Tensor | None, training: bool) -> Place:
        """Return where a tensor belongs: which micro-batch of which optimizer step, and its attention mask [B, L]."""
        samples = self.order.at(step).chunk(self.chunks)[micro_batch] if self.order and training else None
        tokens = mask.bool() if self.skip_padding and mask is not None else None
        return Place(samples, tokens, training)


State = dict[str, Tensor | None]


class Channel:
    """What encodes tensors on one side of a cut and decodes them on the other.

    Each side has a channel of its own; in one process :meth:`cross` serves both.
    """

    def __init__(self, codec: Compressor, *, samples: int = 0, feedback: bool = False) -> None:
        """``samples`` is how many training samples to remember; 0 codes every tensor as it is."""
        self.codec, self.feedback = codec, feedback
        self.memory = _Memory(samples) if samples else None
        self._lost: Tensor | None = None

    def cross(self, x: Tensor, place: Place) -> tuple[Tensor, int]:
        """Return what the other side receives of ``x``, and the bytes that took.

        The identity needs no encoding: its payload is the tensor's own bytes behind a header.
        """
        if isinstance(self.codec, Identity) and self.memory is None:
            sent = x if place.tokens is None else x[place.tokens]
            received = x.view_as(x) if place.tokens is None else _spread(sent, place.tokens)
            return received, HEADER_BYTES + sent.numel() * sent.element_size()
        whole, payload = self._encode(x, place)
        received = self.receive(payload, place)
        self._note_loss(whole, received, place)
        return received, payload.nbytes

    def send(self, x: Tensor, place: Place, *, room: int = 0) -> Payload:
        """Return ``x`` encoded; ``room`` is :meth:`Compressor.encode`'s."""
        whole, payload = self._encode(x, place, room)
        if self.memory is not None or self.feedback:
            self._note_loss(whole, self.receive(payload, place), place)
        return payload

    def receive(self, payload: Payload, place: Place) -> Tensor:
        """Return the tensor that the other side's channel sent."""
        received = decode(payload)
        if place.tokens is not None:
            received = _spread(received, place.tokens)
        return received if self.memory is None else self.memory.add(received, place)

    def _encode(self, x: Tensor, place: Place, room: int = 0) -> tuple[Tensor, Payload]:
        """Return what the other side should receive, and its payload."""
        codec, whole = self.codec if place.training else self.codec.in_evaluation, x.detach()
        if self._lost is not None and place.training and self._lost.shape == whole.shape:
            whole = whole + self._lost.to(whole)
        change = whole
        if self.memory is not None:
            change, known = self.memory.change(whole, place)
            codec = codec if known else _FIRST_VISIT
        state = codec.state
        payload = codec.encode(change if place.tokens is None else change[place.tokens], room=room)
        if not place.training and codec.state is not state:
            codec.state = state  # evaluation starts from what training learnt and leaves it alone
        return whole, payload

    def _note_loss(self, whole: Tensor, received: Tensor, place: Place) -> None:
        if self.feedback and place.training:
            self._lost = _finite(whole - received)

    @property
    def state(self) -> State:
        """What the next tensor depends on, for a checkpoint."""
        memory = (None, None) if self.memory is None else (self.memory.tensors, self.memory.seen)
        return {"codec": self.codec.state, "lost": self._lost, "tensors": memory[0], "seen": memory[1]}

    @state.setter
    def state(self, state: State) -> None:
        if state["codec"] is not None:
            self.codec.state = state["codec"]
        self._lost = state["lost"]
        if self.memory is not None and state["seen"] is not None:
            self.memory.tensors, self.memory.seen = state["tensors"], state["seen"]


_FIRST_VISIT = make_compressor("uniform", bits=8, block=256)


class _Memory:
    """Each training sample's tensor as it last arrived; one that was not seen yet is remembered as zeros."""

    def __init__(self, samples: int) -> None:
        self.seen = torch.zeros(samples, dtype=torch.bool)
        self.tensors: Tensor | None = None

    def change(self, x: Tensor, place: Place) -> tuple[Tensor, bool]:
        """Return ``x`` less what is remembered, and whether all of its samples were seen before."""
        if place.samples is None:
            return x, False
        if self.tensors is None:
            self.tensors = torch.zeros(len(self.seen), *x.shape[1:], dtype=x.dtype)
        return x - self.tensors[place.samples].to(x), bool(self.seen[place.samples].all())

    def add(self, change: Tensor, place: Place) -> Tensor:
        """Return what is remembered with ``change``, and remember that."""
        if place.samples is None:
            return change
        if self.tensors is None:
            self.tensors = torch.zeros(len(self.seen), *change.shape[1:], dtype=change.dtype)
        whole = self.tensors[place.samples].to(change) + change
        self.tensors[place.samples] = _finite(whole).to(self.tensors)
        self.seen[place.samples] = True
        return whole


def _finite(x: Tensor) -> Tensor:
    """Return ``x`` with zeros for inf and NaN, which cross as they are but must not outlast their batch."""
    return x.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)


def _spread(rows: Tensor, tokens: Tensor) -> Tensor:
    """Return real tokens' rows [n, D] in their places [B, L, D], zeros elsewhere; undo ``x[tokens]``."""
    whole = rows.new_zeros(*tokens.shape, *rows.shape[1:])
    whole[tokens] = rows
    return whole
