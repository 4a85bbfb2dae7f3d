"""matplotlib's figures as SVG that can stand in a page beside others, in the page's colours."""

import io
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
INK = "#010203"  # what becomes the colour of the page's text
STYLE: Any = {
    "svg.hashsalt": "dualproc",  # or ids would differ from run to run
    "svg.fonttype": "none",  # text stays text: it can be searched and read aloud
    "font.size": 10.0,
    "font.family": "sans-serif",
    "text.parse_math": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "path.simplify_threshold": 0.5,
}


@contextmanager
def styled() -> Iterator[None]:
    """Draw in the report's style inside the block."""
    with matplotlib.rc_context(STYLE):
        yield


def to_svg(figure: Figure, name: str, description: str) -> Markup:
    """Return a figure that was drawn inside `styled` as an element of HTML; equal figures give equal text.

    Args:
        figure: what to show; it is as wide as the page lets it be.
        name: unique in the page; every id begins with it.
        description: for those who cannot see it.
    """
    file = io.BytesIO()
    FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None, "Creator": None})
    root = ET.fromstring(file.getvalue())
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (
                f"{{{SVG}}}metadata",
                f"{{{SVG}}}style",
            ):  # the style is of everything, not of it
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.removeprefix(f"{{{SVG}}}")  # HTML knows what svg is
        for key, value in list(element.attrib.items()):
            if key == "id":
                value = f"{name}-{value}"
            if key == f"{{{XLINK}}}href":
                del element.attrib[key]
                key, value = "href", value.replace("#", f"#{name}-", 1)
            value = value.replace("url(#", f"url(#{name}-").replace(INK, "currentColor")
            element.attrib[key] = value
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    root.attrib |= {"role": "img", "aria-label": description, "stroke-linejoin": "round"}
    return Markup(ET.tostring(root, encoding="unicode"))
