"""Small invented data for projects that start without data; the same rows every time."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from switchyard.pipelines.project import IMAGE, TABULAR, TEXT

LABELS = {TABULAR: "big_tip", TEXT: "positive", IMAGE: "shape"}
FILES = {TABULAR: "rides.csv", TEXT: "reviews.csv", IMAGE: "shapes.parquet"}
_SEED = 1


def write_sample(template: str, file: Path) -> None:
    """Writes the data of a template to its file."""
    {TABULAR: _rides, TEXT: _reviews, IMAGE: _shapes}[template](file)


def _rides(file: Path, rows: int = 2000) -> None:
    """Taxi rides, and whether they end with a big tip, in one of ten by chance."""
    import pandas as pd

    random = np.random.default_rng(_SEED)
    distance = random.exponential(3, rows) + 0.3
    fare = 2.5 + 2.4 * distance + random.normal(0, 1, rows)
    hour = random.integers(0, 24, rows)
    payment = random.choice(["card", "cash"], rows, p=[0.75, 0.25])
    likely = (payment == "card") & ((fare > 8) | (hour < 5))
    big_tip = (random.random(rows) < np.where(likely, 0.9, 0.1)).astype(int)
    columns = {"distance": distance.round(2), "fare": fare.round(2), "hour": hour, "payment": payment, "big_tip": big_tip}
    pd.DataFrame(columns).to_csv(file, index=False)


def _reviews(file: Path) -> None:
    """Film reviews, the first of the example's."""
    from switchyard.pipelines.examples.make_data import reviews

    reviews().to_csv(file, index=False)


def _shapes(file: Path, rows: int = 600) -> None:
    """Grey pictures of circles, crosses and squares, of any size and place; few bytes, to travel in a compiled pipeline."""
    import pandas as pd
    from PIL import Image, ImageDraw

    random = np.random.default_rng(_SEED)
    pictures, shapes = [], []
    for row in range(rows):
        shape = ("circle", "cross", "square")[row % 3]
        size = int(random.integers(9, 17))
        left, top = (int(random.integers(0, 24 - size)) for _ in range(2))
        box, ink = (left, top, left + size, top + size), int(random.integers(120, 256))
        image = Image.new("L", (24, 24))
        draw = ImageDraw.Draw(image)
        if shape == "cross":
            draw.line(box, ink, 2)
            draw.line((left, top + size, left + size, top), ink, 2)
        else:
            (draw.ellipse if shape == "circle" else draw.rectangle)(box, outline=ink, width=2)
        encoded = io.BytesIO()
        image.save(encoded, "PNG")
        pictures.append(encoded.getvalue())
        shapes.append(shape)
    pd.DataFrame({"image": pictures, "shape": shapes}).to_parquet(file, index=False)
