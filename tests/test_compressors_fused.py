"""A GPU's loops against the reference, bit for bit; without a GPU, Triton's interpreter runs them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from splitlib.compressors import loops, reference
from splitlib.compressors.packing import packed_nbytes

ROOT = Path(__file__).resolve().parent.parent
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
WIDTHS = [(0, 1), (0, 3), (0, 4), (3, 1), (5, 0), (6, 2), (4, 7), (9, 3), (12, 4)]


def equal_everywhere() -> None:
    """Compare all loops, on sizes about those of a program, of values half of which are zero."""
    from splitlib.compressors import fused

    random = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=random)

    for numel in (1, 7, 8, 1024, 1025, 5000):
        values = drawn(numel)
        values[::2] = 0
        x = values.to(DEVICE)
        for every in (1, 4):
            assert torch.equal(fused.histogram(x, every), reference.histogram(x, every)), (numel, every)
        for level_bits, bin_bits in WIDTHS:
            bits = level_bits + bin_bits
            edges = drawn((1 << bin_bits) - 1).sort().values
            scaling = torch.stack([drawn(1 << bin_bits), drawn(1 << bin_bits).abs() * 2**level_bits])
            table, written = drawn(1 << bits), []
            for run in (fused, reference):
                body = torch.full((packed_nbytes(numel, bits),), 77, dtype=torch.uint8, device=DEVICE)
                run.write_codes(x, edges, scaling, level_bits, bits, body)
                written.append((body, run.read_codes(body, table, bits, numel)))
            assert all(map(torch.equal, *written)), (numel, level_bits, bin_bits)
            for block in (8, 256, numel):
                ranges = torch.stack([drawn(-(-numel // block)), drawn(-(-numel // block)).abs() * 2**bits])
                written = []
                for run in (fused, reference):
                    body = torch.full((packed_nbytes(numel, bits),), 77, dtype=torch.uint8, device=DEVICE)
                    run.write_blocks(x, ranges, block, bits, body)
                    written.append((body, run.read_blocks(body, ranges, block, bits, numel, 65504.0)))
                assert all(map(torch.equal, *written)), (numel, bits, block)


def test_a_gpus_loops_equal_the_reference_bit_for_bit():
    """In a process of its own: Triton decides once, when it is imported, whether to compile or to interpret."""
    pytest.importorskip("triton", reason="Triton comes with torch for CUDA")
    environment = dict(os.environ) if DEVICE.type == "cuda" else {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.test_compressors_fused"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_each_kind_of_device_has_its_loops(monkeypatch):
    monkeypatch.setattr(loops.importlib.util, "find_spec", lambda name: None)
    loops._module.cache_clear()
    assert loops.loops(torch.device("cuda")) is reference, "without Triton"
    loops._module.cache_clear()
    assert loops.loops(torch.device("cpu")).__name__.endswith("kernels")


if __name__ == "__main__":
    equal_everywhere()
