"""Draws reports/sizes.json: ``python -m tasks.sizes.picture svg|html FILE``. Runs in the session's own environment."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pygal
from jinja2 import Environment
from pygal.style import CleanStyle

from ..project import REPORTS

PAGE = """<!doctype html>
<meta charset="utf-8"><title>Image sizes</title>
<body style="font-family: sans-serif; max-width: 60rem; margin: 2rem auto">
<h1>What the images weigh</h1>
{{ chart | safe }}
<table>
<tr><th>image<th>raw MB<th>gzip MB
{% for image in images %}<tr><td>{{ image.image }}<td>{{ "%.2f" | format(image.raw_bytes / 1e6) }}<td>{{ "%.2f" | format(image.gzip_bytes / 1e6) }}
{% endfor %}</table>
"""


def main(kind: str, file: str) -> None:
    """Write the picture: a bar per image, stacked by what its bytes are."""
    report = json.loads((REPORTS / "sizes.json").read_text(encoding="utf-8"))
    images = [*report["images"], *report["references"]][::-1]  # the first one is drawn lowest
    chart = pygal.HorizontalStackedBar(
        title="Image sizes, raw MB",
        style=CleanStyle,
        js=[],
        width=1000,
        height=120 + 45 * len(images),
        legend_at_bottom=True,
        legend_at_bottom_columns=4,
        print_values=False,
        human_readable=True,
    )
    chart.x_labels = [
        f"{image['image'].removeprefix('localhost/')}  {image['raw_bytes'] / 1e6:.1f}" for image in images
    ]
    known = ["interpreter", "standard library", "shared libraries", "operating system", "service"]
    for group in known:
        chart.add(group, [image["groups"].get(group, 0) / 1e6 for image in images])
    rest = [sum(size for group, size in image["groups"].items() if group not in known) / 1e6 for image in images]
    chart.add("dependencies", rest)
    if kind == "svg":
        chart.render_to_file(file)
    else:
        page = Environment(autoescape=True).from_string(PAGE)
        drawn = chart.render(is_unicode=True, disable_xml_declaration=True)
        Path(file).write_text(page.render(chart=drawn, images=images), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
