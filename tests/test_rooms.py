"""The rooms of the package: a room imports only rooms below it, and no import goes in a circle."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "dualproc_cli"
# The lowest first. A room is a module or a folder; miniature/ itself holds the weights alone.
ROOMS = (
    "__init__",
    "errors",
    "printable",
    "interrupts",
    "stages",
    "files",
    "file_names",
    "terminal",
    "device",
    "known_models",
    "spec",
    "metrics",
    "picture_files",
    "visual_prompt",
    "miniature",
    "models",
    "vlm",
    "generator",
    "pictures",
    "objectives",
    "jitter",
    "keep",
    "compiler",
    "measures",
    "miniature.world",
    "drawing",
    "memory",
    "bundle",
    "exporting",
    "sampling",
    "scoring",
    "side_by_side",
    "preview",
    "evaluation",
    "report",
    "learning",
    "bench",
    "miniature.training",
    "commands",
    "__main__",
)
WITHOUT_TORCH = ("spec", "known_models", "metrics", "bundle", "miniature", "commands", "measures")


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


MODULES = {module_name(path): path for path in PACKAGE.rglob("*.py")}


def room(module: str) -> str:
    return max((name for name in ROOMS if f"{module}.".startswith(f"{name}.")), key=len)


def imports(module: str, at_the_top: bool = False) -> set[str]:
    """Return the modules of the package that ``module`` imports, anywhere in it or only ``at_the_top``."""
    tree = ast.parse(MODULES[module].read_text("utf-8"))
    nodes = tree.body if at_the_top else ast.walk(tree)
    found = set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dualproc_cli"):
            base = node.module.removeprefix("dualproc_cli").removeprefix(".")
            for name in node.names:
                longer = f"{base}.{name.name}".removeprefix(".")
                found.add(longer if longer in MODULES else base or "__init__")
    return found - {module}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_room_imports_only_rooms_below_it(module):
    above = {other for other in imports(module) if ROOMS.index(room(other)) > ROOMS.index(room(module))}
    assert not above


def test_no_import_goes_in_a_circle():
    graph = {module: imports(module) for module in MODULES}
    tuple(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


@pytest.mark.parametrize("name", ["generator", "vlm", "evaluation", "learning", "bundle"])
def test_the_miniature_is_reached_through_the_resolver_and_the_table_of_measures(name):
    reached = {other for module in MODULES if room(module) == name for other in imports(module)}
    assert not {other for other in reached if room(other).startswith("miniature")}
