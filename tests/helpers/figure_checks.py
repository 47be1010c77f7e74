"""What is drawn in a figure: its data, its texts and where they stand, and checks that hold for every figure."""

from __future__ import annotations

import itertools

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.transforms import Bbox


def lines_of(axes) -> dict[str, tuple[list[float], list[float]]]:
    """Return the data of lines and of lines with error bars, by label."""
    lines = {line.get_label(): line for line in axes.get_lines()}
    lines |= {container.get_label(): container[0] for container in axes.containers}
    return {
        label: (list(line.get_xdata()), list(line.get_ydata()))
        for label, line in lines.items()
        if not label.startswith("_")
    }


def titles_of(figure) -> list[str]:
    return [axes.get_title(loc="left") for axes in figure.axes]


def legend_of(axes) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


def texts_of(figure) -> dict[str, Bbox]:
    """Return where each text that is drawn stands."""
    FigureCanvasAgg(figure).draw()
    renderer = figure.canvas.get_renderer()
    texts = list(figure.texts)
    legends = [*figure.legends, *(axes.get_legend() for axes in figure.axes if axes.get_legend())]
    for legend in legends:
        texts += legend.get_texts()
    for axes in figure.axes:
        texts += [axes.xaxis.label, axes.yaxis.label, axes._left_title, *axes.texts]
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in axis.get_major_ticks():
                texts += [
                    label
                    for label in (tick.label1, tick.label2)
                    if label.get_visible() and low <= tick.get_loc() <= high
                ]
    return {
        f"{number} {text.get_text()}": text.get_window_extent(renderer)
        for number, text in enumerate(texts)
        if text.get_text() and text.get_visible()
    }


def check_texts(figure, tolerance: float = 0) -> None:
    """Assert that texts neither overlap nor are cut off by more than so many pixels."""
    boxes = texts_of(figure)
    for label, box in boxes.items():
        assert figure.bbox.x0 - tolerance <= box.x0, label
        assert figure.bbox.y0 - tolerance <= box.y0, label
        assert box.x1 <= figure.bbox.x1 + tolerance, label
        assert box.y1 <= figure.bbox.y1 + tolerance, label
    for (label, box), (other_label, other) in itertools.combinations(boxes.items(), 2):
        common = Bbox.intersection(box, other)
        # Lines of a legend may touch.
        assert common is None or min(common.width, common.height) < 2, (label, other_label)


def check_figure(figure) -> None:
    """Assert that a figure has data in each panel, texts that neither overlap nor are cut off, and a sound size."""
    check_texts(figure, tolerance=1)
    for axes in figure.axes:
        assert axes.lines or axes.collections, "an empty panel"
        assert axes.get_window_extent().height > 0.5 * figure.dpi
    width, height = figure.get_size_inches()
    assert width < 14
    assert height < 16
