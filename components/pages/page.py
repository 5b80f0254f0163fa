"""Renders pages from sections, with plots as inline SVG."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib
from jinja2 import Environment, PackageLoader, select_autoescape
from markupsafe import Markup
from matplotlib.figure import Figure

matplotlib.rcdefaults()  # not those of a `matplotlibrc` in the working directory, which may run LaTeX on names
matplotlib.rcParams["svg.fonttype"] = "none"  # keep text as text, not as paths
matplotlib.rcParams["text.parse_math"] = False  # a column name can contain "$"
_templates = Environment(loader=PackageLoader("switchyard.components.pages", ""), autoescape=select_autoescape(["html"]))
INK = "#7a8699"
COLOURS = ("#2f6fde", "#e07b39", "#3a9d6e", "#a05cc9", "#c94f6d", "#4fa3c9", "#9c8a3c", "#6d7bd1", "#5c8f8a", "#b0713f")


def render(title: str, subtitle: str, sections: Sequence[dict[str, Any]]) -> str:
    """Returns an HTML page.

    A section has `title` and any of `good` with `verdict` (a short text), `text`, `lines`, `table` (see `table`), `plots`
    (SVGs), `code`, and `folded` (collapsed until it is clicked).
    """
    return _templates.get_template("page.html").render(title=title, subtitle=subtitle, sections=sections)


def axes(
    width: float = 4.2, height: float = 2.8, *, title: str = "", x: str = "", y: str = "", left: float | None = None
) -> tuple[Figure, Any]:
    """Returns a figure and its axes, in colours that are legible on light and dark pages.

    `left` is the share of the width reserved for labels; None fits the margins, which takes twice the time of fixed ones.
    """
    figure = Figure(figsize=(width, height), layout="constrained" if left is None else None)
    if left is not None:
        figure.subplots_adjust(left=left, bottom=0.14, right=0.97, top=0.88)
    ax = figure.subplots()
    ax.set_title(title, color=INK, fontsize=10)
    ax.set_xlabel(x, color=INK, fontsize=9)
    ax.set_ylabel(y, color=INK, fontsize=9)
    ax.tick_params(colors=INK, labelsize=8)
    for side, spine in ax.spines.items():
        spine.set_color(INK)
        spine.set_visible(side in ("left", "bottom"))
    return figure, ax


def svg(figure: Figure, label: str) -> Markup:
    """Returns a figure as inline SVG; `label` is its text for screen readers."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True)
    text = buffer.getvalue()
    body = text[text.index("<svg") :]
    return Markup('<figure role="img" aria-label="%s">') % label + Markup(body) + Markup("</figure>")  # noqa: S704 (Matplotlib escapes its texts)


def legend(ax: Any) -> None:
    """Adds a small legend to the axes."""
    ax.legend(fontsize=8, frameon=False, labelcolor=INK)


def number(value: float | None) -> str:
    """Returns a number formatted for display; empty for None and NaN."""
    if value is None or math.isnan(value):
        return ""
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) < 1e15 else f"{value:.4g}"


def table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> dict[str, Any]:
    """Returns a table in the template's format."""
    return {"head": list(head), "rows": [list(r) for r in rows]}
