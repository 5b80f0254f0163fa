"""Renders the statistics page: every feature by split, with its distribution."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tensorflow_metadata.proto.v0 import statistics_pb2

from switchyard.components.pages.page import COLOURS, axes, legend, number, render, svg, table

_MOST_PLOTS = 100
_TOP_VALUES = 12
Statistics = Mapping[str, statistics_pb2.DatasetFeatureStatisticsList]


def statistics_html(statistics: Statistics) -> str:
    """Returns the HTML page for split -> TFDV statistics."""
    rows = {split: s.datasets[0].num_examples for split, s in statistics.items()}
    subtitle = ", ".join(f"{split}: {n:,} examples" for split, n in rows.items())
    return render("Statistics of the examples", subtitle, statistics_sections(statistics))


def statistics_sections(statistics: Statistics) -> list[dict[str, Any]]:
    """Returns the sections: tables of numeric and text features, and plots of the distributions."""
    features: dict[str, dict[str, Any]] = {}
    for split, stats in statistics.items():
        for feature in stats.datasets[0].features:
            features.setdefault(feature.path.step[0] if feature.path.step else feature.name, {})[split] = feature
    numeric, texts = [], []
    for name, by_split in sorted(features.items()):
        for split, feature in by_split.items():
            common = (feature.num_stats if feature.HasField("num_stats") else feature.string_stats).common_stats
            share = f"{common.num_missing / max(1, common.num_missing + common.num_non_missing):.1%}"
            if feature.HasField("num_stats"):
                s = feature.num_stats
                values = (s.mean, s.std_dev, s.min, s.median, s.max)
                numeric.append([name, split, number(common.num_non_missing), share, *(number(v) for v in values)])
            else:
                t = feature.string_stats
                top = t.top_values[0].value if t.top_values else ""
                texts.append([name, split, number(common.num_non_missing), share, number(t.unique), top[:40]])
    sections: list[dict[str, Any]] = []
    if numeric:
        head = ("feature", "split", "values", "missing", "mean", "std", "min", "median", "max")
        sections.append({"title": "Numbers", "table": table(head, numeric), "folded": True})
    if texts:
        columns = ("feature", "split", "values", "missing", "unique", "most frequent")
        sections.append({"title": "Texts", "table": table(columns, texts), "folded": True})
    shown = sorted(features.items())[:_MOST_PLOTS]
    note = f"The first {_MOST_PLOTS} of {len(features)} features." if len(features) > _MOST_PLOTS else ""
    plots = [p for p in (_plot(name, by_split) for name, by_split in shown) if p]
    sections.append({"title": "Distributions", "text": note, "plots": plots, "folded": True})
    return sections


def _plot(name: str, by_split: Mapping[str, Any]) -> Any:
    is_text = not next(iter(by_split.values())).HasField("num_stats")
    figure, ax = axes(3.2, 2.0, title=name, left=0.4 if is_text else 0.17)
    drawn = False
    for i, (split, feature) in enumerate(by_split.items()):
        colour = COLOURS[i % len(COLOURS)]
        if feature.HasField("num_stats") and feature.num_stats.histograms:
            buckets = feature.num_stats.histograms[0].buckets
            total = sum(b.sample_count for b in buckets) or 1
            edges = [b.low_value for b in buckets] + [buckets[-1].high_value] if buckets else []
            if edges:
                ax.stairs([b.sample_count / total for b in buckets], edges, label=split, color=colour, fill=i == 0, alpha=0.75)
                drawn = True
        elif feature.HasField("string_stats") and feature.string_stats.rank_histogram.buckets:
            ranks = feature.string_stats.rank_histogram.buckets[:_TOP_VALUES]
            total = sum(b.sample_count for b in feature.string_stats.rank_histogram.buckets) or 1
            labels = [b.label[:14] for b in ranks]
            offset = 0.8 / len(by_split)
            positions = [p + i * offset for p in range(len(ranks))]
            ax.barh(positions, [b.sample_count / total for b in ranks], height=offset, label=split, color=colour)
            ax.set_yticks(range(len(labels)), labels) if i == 0 else None
            ax.invert_yaxis() if i == 0 else None
            drawn = True
    if not drawn:
        return None
    legend(ax)
    return svg(figure, f"Distribution of {name}")
