"""What notebook 08 says in prose about the documents, checked by other routes than its own cells."""

from itertools import product
from math import prod
from typing import Any

import pytest
import torch

from splitlib import reported
from splitlib.metering import count_document_convention, count_macs
from splitlib.models.mobilenet import IMAGENET_CLASSES, mobilenet_v2
from splitlib.partition import CONV_INSERTS, split

SETTINGS = reported.load("002_3.1_settings").iloc[0]
BATCH, SIZE = int(SETTINGS["batch_size"]), int(SETTINGS["image_size"])
PUBLISHED = reported.load("002_3.2_macs").set_index("type")
PLAIN = "conv_insert_type_1"
FIRST_CUT, SECOND_CUT = (32, 112, 112), (1280, 7, 7)  # what an image sends at the two cuts, by a clarification
ELEMENTS = prod(FIRST_CUT) + prod(SECOND_CUT)
MEBIBYTES = BATCH * 4 * ELEMENTS / 2**20  # float32, one direction


def count(name: str, counter: Any = count_macs) -> list[int]:
    """MACs of the three parts at the document's settings."""
    with torch.device("meta"):
        stages = split(mobilenet_v2(IMAGENET_CLASSES, weights="random").eval(), name)
        values: tuple[torch.Tensor, ...] = (torch.empty(BATCH, 3, SIZE, SIZE),)
    macs = []
    for part in stages.parts:
        macs.append(counter(part, values).total)
        values = part(values)
    return macs


def ratio(name: str) -> float:
    """Elements an image sends, by the inserts' own numbers, over those without inserts."""
    sent = 0
    for specs, (_, side, _) in zip(CONV_INSERTS[name], (FIRST_CUT, SECOND_CUT), strict=True):
        for spec in specs:
            side //= spec.kernel
        sent += specs[-1].channels_out * side**2
    return sent / ELEMENTS


RATIOS = {name: ratio(name) for name in CONV_INSERTS}


def fitting(mib: float, seconds: float) -> list[str]:
    """Partitions whose tensors take ``seconds``, to the printed hundredth, at a rate that moves ``mib`` in a second."""
    return [name for name, share in RATIOS.items() if f"{share * MEBIBYTES / mib:.2f}" == f"{seconds:.2f}"]


@pytest.mark.parametrize(("rate", "partition"), [(0.097, "conv_insert_wide"), (0.070, "conv_insert_type_2")])
def test_000_ran_the_clarified_inserts(rate: float, partition: str) -> None:
    table = reported.load("000_2.2_two_machines")
    rows = table[(table["compressor"] == "conv_insert") & (table["compression_ratio"] == rate)]
    found = [fitting(*row) for row in zip(rows["bandwidth_avg_mb_s"], rows["computation_time_s"], strict=True)]
    assert found == [[partition]] * 3


@pytest.mark.parametrize(("rate", "partition"), [(0.097, "conv_insert_counted"), (0.070, "conv_insert_type_2")])
def test_002_ran_the_insert_that_type_2_was_counted_on(rate: float, partition: str) -> None:
    """Its bandwidth counts both directions, as 003's does."""
    table = reported.load("002_4.2_two_machines")
    (row,) = table[(table["compressor"] == "conv_insert") & (table["compression_ratio"] == rate)].to_dict("records")
    assert fitting(row["bandwidth_mb_s"] / 2, row["training_time_s"]) == [partition]


def test_003_moved_as_much_as_002_in_the_same_time() -> None:
    table = reported.load("003_1.2_cifar10")
    wide, two_sets = (table[table["bandwidth_mb_s"] == speed].iloc[0] for speed in (68.70, 25.81))
    assert fitting(wide["bandwidth_mb_s"] / 2, 0.32) == ["conv_insert_counted"]
    seconds = {name: 2 * share * MEBIBYTES / two_sets["bandwidth_mb_s"] for name, share in RATIOS.items()}
    assert [name for name in RATIOS if seconds[name] < two_sets["time_per_batch_s"]] == ["conv_insert_type_3"]


def test_one_single_insert_gives_all_of_type_2() -> None:
    """In closed form, over every kernel = stride and number of channels that notebook 08 tries."""
    plain, printed = count(PLAIN, count_document_convention), PUBLISHED.loc["Type 2"]
    found = []
    for k, channels in product(range(1, 9), range(1, 65)):
        small = 112 // k
        if not rounds_to(plain[0] + BATCH * channels * small**2 * (32 * k * k + 1), printed["macs_part_1"]):
            continue
        body = body_at(k * small) + BATCH * 32 * (k * small) ** 2 * (channels * k * k + 1)
        for k_2, channels_2 in product(range(1, 8), range(1, 641)):
            restored = BATCH * 1280 * (7 // k_2 * k_2) ** 2 * (channels_2 * k_2 * k_2 + 1)
            sending = BATCH * channels_2 * (7 // k_2) ** 2 * (1280 * k_2 * k_2 + 1)
            fits = rounds_to(plain[2] + restored, printed["macs_part_3"])
            if fits and rounds_to(body + sending, printed["macs_part_2"]):
                found.append(((channels, k), (channels_2, k_2)))
    counted = tuple((spec.channels_out, spec.kernel) for (spec,) in CONV_INSERTS["conv_insert_counted"])
    assert found == [counted]


def rounds_to(macs: float, printed: float) -> bool:
    return float(f"{macs:.2e}") == printed


def body_at(side: int) -> int:
    """MACs of the server's part without inserts on feature maps of ``side``."""
    with torch.device("meta"):
        body = split(mobilenet_v2(IMAGENET_CLASSES, weights="random"), PLAIN).body
        return count_document_convention(body, (torch.empty(BATCH, 32, side, side),)).total


@pytest.mark.parametrize("name", ["conv_insert_type_2", "conv_insert_counted", "conv_insert_type_3"])
def test_half_of_an_inserts_work_is_the_clients(name: str) -> None:
    head, body, tail = (with_it - without for with_it, without in zip(count(name), count(PLAIN), strict=True))
    assert (head + tail) / (head + body + tail) == pytest.approx(0.5, abs=0.005)


def test_the_reported_total_is_ten_times_too_small() -> None:
    total = PUBLISHED.loc["Type 1", ["macs_part_1", "macs_part_2", "macs_part_3"]].sum()
    assert f"{total / 10 / 1e9:.2f}" == f"{SETTINGS['macs_giga']:.2f}"


def test_type_1s_tail_has_imagenets_classes() -> None:
    assert round(PUBLISHED.loc["Type 1", "macs_part_3"] / BATCH / 1280) == IMAGENET_CLASSES
