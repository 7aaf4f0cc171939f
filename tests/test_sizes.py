"""The size limits of the house: what is too long to be read at one go is cut up."""

import ast
import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
MODULE_LINES = 400
FUNCTION_LINES = 40
PROTOCOL_METHODS = 10
SOURCES = sorted([*(PROJECT / "msrcache").rglob("*.py"), *(PROJECT / "tests").rglob("*.py")])
REFUSED = {"utils", "helpers", "common", "base", "core", "manager"}


def named(path: Path) -> str:
    """The path as it is reported."""
    return str(path.relative_to(PROJECT))


def functions(tree: ast.AST) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    """All functions and methods, nested ones too."""
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from `def` to the end, without the docstring: a long promise is no long function."""
    whole = (function.end_lineno or function.lineno) - function.lineno + 1
    first = function.body[0]
    if (
        isinstance(first, ast.Expr)
        and isinstance(first.value, ast.Constant)
        and isinstance(first.value.value, str)
    ):
        whole -= (first.end_lineno or first.lineno) - first.lineno + 1
    return whole


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_a_module_is_read_at_one_go(path: Path) -> None:
    """No module over 400 lines, no function over 40."""
    text = path.read_text()
    assert len(text.splitlines()) <= MODULE_LINES
    long = {f.name: length(f) for f in functions(ast.parse(text)) if length(f) > FUNCTION_LINES}
    assert long == {}


def test_no_module_is_a_drawer() -> None:
    """Modules are called by what they hold; the names of drawers are refused."""
    assert [named(path) for path in SOURCES if path.stem in REFUSED] == []


def test_protocols_stay_small() -> None:
    """A protocol has at most ten methods."""
    grown = {}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and any(
                re.match(r"Protocol\b", ast.unparse(base)) for base in node.bases
            ):
                methods = [m for m in node.body if isinstance(m, ast.FunctionDef | ast.AsyncFunctionDef)]
                if len(methods) > PROTOCOL_METHODS:
                    grown[f"{named(path)}:{node.name}"] = len(methods)
    assert grown == {}
