"""A module holds one idea, and imports only from its left: config -> data -> model -> partition -> ... -> figure."""

import ast
import io
import tokenize
from pathlib import Path

import splitlib

ORDER = [
    "ending",
    "version",
    "errors",
    "files",
    "labels",
    "options",
    "config",
    "profiles",
    "runtime",
    "progress",
    "tally",
    "metering",
    "data",
    "models",
    "partition",
    "compressors",
    "timeline",
    "optimization",
    "checkpoints",
    "pipeline",
    "command",
    "training",
    "results",
    "experiment",
    "replica",
    "capture",
    "measuring",
    "planner",
    "reported",
    "gpu_rows",
    "comparison",
    "frontier",
    "plots",
    "widgets",
    "notebook",
    "playground",
    "workbook",
    "cli",
    "__main__",
]
MOST_LINES = 250
"""Of code in a file; CONTRIBUTING.md says so."""
PACKAGE = Path(splitlib.__file__).parent
# `splitlib` itself re-exports the public names, so nothing inside may import from it.
MODULES = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


def part_of(path: Path) -> str:
    """The part of the package a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_parts(path: Path) -> set[str]:
    """The parts of splitlib that a file imports, wherever in the file."""
    modules = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative imports hide the order"
            modules += [f"{node.module}.{alias.name}" for alias in node.names]
    return {[*module.split("."), ""][1] for module in modules if module.split(".")[0] == "splitlib"}


def test_the_public_names_are_listed():
    assert dir(splitlib) == sorted(splitlib.__all__)


def test_every_part_has_its_place():
    assert {part_of(path) for path in MODULES} == set(ORDER)


def test_imports_run_in_one_direction():
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {part}"
        for path in MODULES
        for part in imported_parts(path)
        if part not in ORDER or ORDER.index(part) > ORDER.index(part_of(path))
    ]
    assert not wrong


def test_compressors_know_nothing_of_the_network():
    assert not [p for p in (PACKAGE / "compressors").rglob("*.py") if "torch.distributed" in p.read_text("utf-8")]


def test_plots_never_touch_models():
    for path in (PACKAGE / "plots").glob("*.py"):
        assert not imported_parts(path) & {"models", "partition", "pipeline", "data", "experiment"}


def lines_of_code(path: Path) -> int:
    """How many lines of a file hold code: not blank, no comment, no string that stands alone."""
    source, marks = path.read_text(encoding="utf-8"), (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT)
    alone = {
        (node.lineno, node.end_lineno)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    }
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    held = [token for token in tokens if token.type not in marks and token.string.strip()]
    spans = {(token.start[0], token.end[0]) for token in held} - alone
    return len({line for first, last in spans for line in range(first, last + 1)})


def test_lines_of_code_are_those_that_do_something(tmp_path):
    lines = ['"""What it is.', "", '"""', "", "# why", "NAME = (  # how", "    1,", ")", '"""What this is."""', ""]
    (tmp_path / "module.py").write_text("\n".join([*lines, "def f():", '    """Short."""', "    return (", "1)", ""]))
    assert lines_of_code(tmp_path / "module.py") == 6


def test_no_file_holds_more_code_than_one_idea_takes():
    assert not [str(path.relative_to(PACKAGE)) for path in MODULES if lines_of_code(path) > MOST_LINES]
    assert f"at most {MOST_LINES} lines of code" in (PACKAGE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
