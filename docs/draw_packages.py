"""Draw the packages of the library and who imports whom, from the imports: python docs/draw_packages.py.

An arrow that others imply is left out: where a imports b, and b imports c, that a imports c too is not drawn.
"""

import ast
from io import StringIO
from pathlib import Path
from typing import Final

import matplotlib as mpl
import networkx as nx
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

LIBRARY: Final = Path(__file__).parent.parent / "pipeline"
PICTURE: Final = Path(__file__).with_name("packages.svg")
SETTINGS: Final = {"svg.hashsalt": "packages", "svg.fonttype": "none", "font.family": "sans-serif"}
WIDTH, HEIGHT = 1.5, 0.5  # of a box, where floors are 1 apart and boxes 2


def read_imports() -> "nx.DiGraph[str]":
    """Return the packages and an edge from each to every package that it imports."""
    graph: nx.DiGraph[str] = nx.DiGraph()
    for file in sorted(LIBRARY.glob("*/**/*.py")):
        package = file.relative_to(LIBRARY).parts[0]
        graph.add_node(package)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("pipeline."):
                graph.add_edge(package, node.module.split(".")[1])
    graph.remove_edges_from(list(nx.selfloop_edges(graph)))
    return graph


def lay_out(graph: "nx.DiGraph[str]") -> dict[str, tuple[float, float]]:
    """Return where each package stands: above all that it imports, side by side on a floor, the lowest at 0."""
    floors = list(nx.topological_generations(graph.reverse()))
    return {
        name: (2.0 * (place - (len(names) - 1) / 2), float(floor))
        for floor, names in enumerate(floors)
        for place, name in enumerate(sorted(names))
    }


def draw(graph: "nx.DiGraph[str]") -> str:
    """Return the picture of an acyclic graph as SVG, the same text for the same graph."""
    shown = nx.transitive_reduction(graph)
    places = lay_out(graph)
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(7, 0.75 * (1 + max(y for _, y in places.values()))))
        FigureCanvasSVG(figure)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set_xlim(min(x for x, _ in places.values()) - 1.4, max(x for x, _ in places.values()) + 1.4)
        axes.set_ylim(-0.5, max(y for _, y in places.values()) + 0.5)
        for name, below in sorted(shown.edges):
            (x, y), (to_x, to_y) = places[name], places[below]
            bend = (-0.6 if x == to_x else -0.3) if y - to_y > 1 else 0.0  # past the boxes that stand between
            ends = ((x, y - HEIGHT / 2), (to_x, to_y + HEIGHT / 2))
            curve = f"arc3,rad={bend}"
            axes.add_patch(
                FancyArrowPatch(*ends, connectionstyle=curve, arrowstyle="-|>", mutation_scale=12, color="#778")
            )
        for name, (x, y) in sorted(places.items()):
            box = {"boxstyle": "round,pad=0.45", "facecolor": "#eef3fa", "edgecolor": "#335"}
            axes.text(x, y, name, ha="center", va="center", fontsize=11, color="#113", bbox=box)
        text = StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None}, facecolor="white")
    return text.getvalue()


if __name__ == "__main__":
    PICTURE.write_text(draw(read_imports()), encoding="utf-8")
