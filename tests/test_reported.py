"""The reported tables: complete, typed, and the same numbers as the documents' rows."""

import re
from importlib import resources
from pathlib import Path

import pandas as pd
import pytest

from splitlib import reported
from splitlib.config import PARTITIONS, RunConfig, task_kind
from splitlib.errors import ConfigError

# Counted in the documents: (rows, cells a row). A settings list is one row of twice as many cells as it has lines;
# a sentence or a point read off a figure is one cell.
COUNTS = {
    "000": {
        "000_1.1_lora_settings": (1, 1),
        "000_1.2_fairseq_settings": (1, 16),
        "000_1.2_fairseq_published": (1, 1),
        "000_1.3_gpipe_settings": (1, 16),
        "000_1_cola_curves": (12, 1),  # LoRA 4 sentences and 2 values; fairseq 1 and 2; GPipe 3 values
        "000_2.1_hardware": (1, 1),
        "000_2.1_two_machines_settings": (1, 20),
        "000_2.2_two_machines": (12, 9),
        "000_2.2_two_machines_bars": (4, 1),
    },
    "001": {
        "001_1.1_vision": (7, 9),
        "001_1.2_nlp": (6, 9),
        "001_2_default_bits": (4, 1),
        "001_2.1_cifar10_settings": (1, 5),
        "001_2.1_cifar10_ablation": (4 + 4, 1),
        "001_2.1_rte_settings": (1, 5),
        "001_2.1_rte_ablation": (5 + 5, 1),
        "001_2.2_cifar10_sort": (4, 6),
        "001_2.2_cifar100_sort": (4, 5),
        "001_2.2_food101_sort": (4, 5),
        "001_2.2_rte_sort": (4, 6),
        "001_2.2_cola_sort": (4, 5),
    },
    "002": {
        "002_1.1_settings": (1, 12),
        "002_1.1_partition": (1, 4),
        "002_1.2_decaying_linear": (4, 6),
        "002_1.2_decaying_linear_rate": (2, 6),
        "002_1.2_decaying_linear_l1": (5, 6),
        "002_1.2_decaying_linear_two_sets": (3, 7),
        "002_2.1_settings": (1, 12),
        "002_2.1_partition": (1, 4),
        "002_2.2_power_iteration": (4, 3),
        "002_3.1_settings": (1, 10),
        "002_3.1_partition": (3, 5),
        "002_3.2_macs": (3, 4),
        "002_4.1_hardware": (1, 1),
        "002_4.1_two_machines_settings": (1, 20),
        "002_4.2_two_machines": (4, 6),
    },
    "003": {
        "003_intro_hardware": (1, 1),
        "003_1.1_cifar10_settings": (1, 4),
        "003_1.2_cifar10": (14, 8),
        "003_1.2_cifar10_scatter": (3 + 2 + 2 + 2, 1),
        "003_2.1_rte_settings": (1, 4),
        "003_2.1_rte_partition": (3, 2),
        "003_2.2_rte": (10, 8),
        "003_2.1_cola_settings": (1, 4),
        "003_2.1_cola_partition": (3, 2),
        "003_2.2_cola": (2, 8),
    },
    "004": {
        "004_result_speed": (11, 9),
        "004_result_even_split": (1, 8),
        "004_result_roberta_throughput": (9, 5),
        "004_result_roberta_time": (3, 6),
        "004_result_mobilenet_v2_time": (3, 6),
        "004_result_parameters": (5, 2),
        "004_result_vgg13_time": (2, 6),
        "004_result_roberta_sgd_time": (2, 6),
        "004_result_mobilenet_v2_adamw_time": (2, 6),
        "004_result_vgg13_adamw_time": (2, 6),
    },
}
DOCUMENT_ROWS = {"000": 34, "001": 57, "002": 35, "003": 45, "004": 40}
NAMES = [name for names in COUNTS.values() for name in names]
INDEX = reported.tables().set_index("name")
TABLES = {name: reported.load(name) for name in NAMES}

FIRST = ["document", "section", "row"]
LAST = ["verbatim", "note"]
# Cells that say what the text around the table does, and those computed from others.
SURROUNDING = {"task", "model", "partition", "batch_size", "chunks"}
DERIVED = {"bits", "level_bits", "bin_bits"}
COMPRESSORS = {
    "none",
    "uniform",
    "sort",
    "fast",
    "power_iteration",
    "conv_insert",
    "conv_insert_2_sets",
    "decaying_linear",
}

UNIT_OR_WORD = r"(?<![A-Za-z\d.])"
NUMBER = r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?|\.\d+)"


def numbers(text: str, *, everywhere: bool = False) -> set[float]:
    """The numbers in a text; unless ``everywhere``, not those that end a word (CIFAR10) or stand in brackets."""
    text = re.sub(r"(?<![\d,\[])(\d{1,3}),(?=\d{3}(?![\d,]))", r"\1", text)
    if not everywhere:
        text = re.sub(r"\[[^\]]*\]", "", text)
    return {float(found) for found in re.findall(("" if everywhere else UNIT_OR_WORD) + NUMBER, text)}


def numeric_cells(row: pd.Series, columns: list[str]) -> set[float]:
    cells = (row[name] for name in columns if not isinstance(row[name], str | bool))
    return {float(cell) for cell in cells if not pd.isna(cell)}


# --- Complete --------------------------------------------------------------------------------------------------------


def test_the_index_and_the_files_name_the_same_tables() -> None:
    files = {Path(path.name).stem for path in resources.files(reported).iterdir() if path.name.endswith(".csv")}
    assert files == {"tables", *INDEX.index}
    assert list(INDEX.index) == NAMES


@pytest.mark.parametrize("document", COUNTS)
def test_no_row_of_a_document_is_missing(document: str) -> None:
    loaded = {name: len(TABLES[name]) for name in INDEX.index[INDEX["document"] == document]}
    assert loaded == {name: rows for name, (rows, _) in COUNTS[document].items()}
    assert sum(loaded.values()) == DOCUMENT_ROWS[document]
    assert INDEX["rows"].loc[list(loaded)].to_dict() == loaded


@pytest.mark.parametrize("name", NAMES)
def test_no_cell_of_a_row_is_missing(name: str) -> None:
    table = TABLES[name]
    cells = COUNTS[name[:3]][name][1]
    assert {len(text.split(" | ")) for text in table["verbatim"]} == {cells}
    header = str(INDEX.at[name, "header"])
    assert not header or len(header.split(" | ")) == cells


@pytest.mark.parametrize("name", NAMES)
def test_a_row_says_where_it_is_from(name: str) -> None:
    table = TABLES[name]
    assert list(table.columns[:3]) == FIRST
    assert list(table.columns[-2:]) == LAST
    assert set(table["document"]) == {name[:3]} == {INDEX.loc[name, "document"]}
    assert table["row"].tolist() == list(range(1, len(table) + 1))
    assert table["section"].str.startswith(str(INDEX.at[name, "section"])).all()
    assert ("source" in table) == (INDEX.loc[name, "kind"] == "figure")


def test_the_index_keeps_to_its_words() -> None:
    assert set(INDEX["kind"]) == {"table", "figure", "settings"}
    assert set(INDEX["source"]) == {"text", "read off", "clarification"}
    assert set(INDEX["study"]) == {f"0{number}" for number in range(1, 9)}


# --- The same numbers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_every_typed_number_stands_in_the_documents_row(name: str) -> None:
    table = TABLES[name]
    own = [column for column in table.columns[3:-2] if column not in SURROUNDING | DERIVED]
    for _, row in table.iterrows():
        stated = numbers(row["verbatim"], everywhere=True)
        no_l1 = {0.0} if row["verbatim"].endswith("| No") else set()
        assert numeric_cells(row, own) <= stated | no_l1, row["verbatim"]


@pytest.mark.parametrize("name", NAMES)
def test_every_number_of_the_documents_row_is_typed(name: str) -> None:
    table = TABLES[name]
    columns = list(table.columns[3:-2])
    for text in table["verbatim"].unique():  # one statement may give several points
        typed: set[float] = set()
        for _, row in table[table["verbatim"] == text].iterrows():
            words = [str(row[column]) for column in columns if isinstance(row[column], str)]
            typed |= numeric_cells(row, columns) | numbers(" ".join(words), everywhere=True)
        assert numbers(text) <= typed, text


def test_numbers_are_read_as_the_documents_write_them() -> None:
    assert numbers("256(8 chunks) | [256,1280,7,7] | 96.0%±0.13% | 2e-5 | CIFAR10") == {256, 8, 96.0, 0.13, 2e-5}
    assert numbers("(5,336 updates, .43)") == {5336, 0.43}
    assert numbers("2(chunk4)", everywhere=True) == {2, 4}


@pytest.mark.parametrize("name", NAMES)
def test_batches_and_chunks_of_a_cell_are_its_own(name: str) -> None:
    table = TABLES[name]
    for _, row in table.iterrows():
        for batch, chunks in re.findall(r"(\d+)\((\d) chunks\)", row["verbatim"]):
            assert (row["batch_size"], row["chunks"]) == (int(batch), int(chunks))
        for chunks in re.findall(r"chunk(\d)", row["verbatim"]):
            assert row["chunks"] == int(chunks)


@pytest.mark.parametrize("name", NAMES)
def test_bits_agree_with_the_row_and_the_default_division(name: str) -> None:
    table = TABLES[name]
    default = reported.load("001_2_default_bits").set_index("bits")
    for _, row in table[table["bits"].notna()].iterrows() if "bits" in table else ():
        written = re.search(r"(\d+) ?bits", row["verbatim"])
        assert row["bits"] == (int(written[1]) if written else row.get("compression_ratio", row["bits"] / 32) * 32)
        if "level_bits" in table:
            division = default.loc[row["bits"]]
            assert (row["level_bits"], row["bin_bits"]) == (division["level_bits"], division["bin_bits"])
            assert row["level_bits"] + row["bin_bits"] == row["bits"]


# --- Typed -----------------------------------------------------------------------------------------------------------


def test_a_column_has_one_type_in_every_table() -> None:
    types: dict[str, set[str]] = {}
    for name in NAMES:
        for column, dtype in TABLES[name].dtypes.items():
            types.setdefault(str(column), set()).add(str(dtype))
    assert {column: found for column, found in types.items() if len(found) > 1} == {}
    assert set().union(*types.values()) == {"str", "int64", "Int64", "float64", "bool"}


@pytest.mark.parametrize("name", NAMES)
def test_names_are_this_packages_own(name: str) -> None:
    table = TABLES[name]
    assert set(table.get("compressor", pd.Series(dtype=str))) <= COMPRESSORS
    for _, row in table.iterrows():
        if "partition" in table and "task" in table:
            assert row["partition"] in PARTITIONS[task_kind(row["task"])]
        elif "task" in table:
            task_kind(row["task"])


@pytest.mark.parametrize("name", [n for n in NAMES if INDEX.loc[n, "kind"] == "settings" and "optimizer" in TABLES[n]])
def test_training_settings_make_a_config(name: str) -> None:
    settings = TABLES[name].iloc[0]
    known = {key: settings[key] for key in RunConfig.__dataclass_fields__ if key in settings and key != "precision"}
    config = RunConfig(**{key: value.item() if hasattr(value, "item") else value for key, value in known.items()})
    assert config.lr == settings["lr"]


def test_blank_stays_blank() -> None:
    assert reported.load("001_2.2_cifar10_sort")["bandwidth_mb_s"].isna().all()
    assert reported.load("001_2.2_food101_sort")["accuracy_percent"].isna().tolist() == [False, False, False, True]
    assert reported.load("001_1.1_vision")["accuracy_percent"].isna().sum() == 2
    assert reported.load("003_1.2_cifar10")["chunks"].isna().sum() == 2


def test_a_row_without_a_note_has_an_empty_one() -> None:
    assert not any(TABLES[name]["note"].isna().any() for name in NAMES)


# --- Loading ---------------------------------------------------------------------------------------------------------


def test_an_unknown_name_lists_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"table '001_2.2_cifar_sort'; did you mean 001_2.2_cifar10_sort or"):
        reported.load("001_2.2_cifar_sort")
    with pytest.raises(ConfigError, match=r"reported.tables\(\) lists them"):
        reported.load("zzz")
    with pytest.raises(ConfigError, match="unknown reported table 'tables'"):
        reported.load("tables")


def test_a_loaded_table_is_the_callers_own() -> None:
    mine = reported.load("002_3.2_macs")
    mine.loc[0, "macs_part_1"] = 0.0
    assert reported.load("002_3.2_macs").loc[0, "macs_part_1"] == 7.45e8
