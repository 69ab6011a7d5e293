"""Texts of a figure that lie on each other, as they are drawn."""


def overlapping(figure):
    """Pairs of texts whose boxes overlap, as they are drawn."""
    from matplotlib.text import Text

    renderer = figure.canvas.get_renderer()
    ticks = [one for axes in figure.axes for one in hidden_ticks(axes)]
    texts = [
        one
        for one in figure.findobj(Text)
        if one not in ticks
        and one.get_visible()
        and one.get_text().strip()
        and one.get_window_extent(renderer).width
    ]
    boxes = [(one.get_text(), one.get_window_extent(renderer)) for one in texts]
    inside = [(text, box) for text, box in boxes if figure.bbox.overlaps(box)]
    return [
        (text, other)
        for number, (text, box) in enumerate(inside)
        for other, second in inside[number + 1 :]
        if box.shrunk(0.9, 0.9).overlaps(second.shrunk(0.9, 0.9))
    ]


def hidden_ticks(axes):
    """Texts of ticks that are not drawn: outside what an axis shows, or of axes that are off."""
    from matplotlib.text import Text

    for axis in (axes.xaxis, axes.yaxis):
        low, high = sorted(axis.get_view_interval())
        ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
        outside = [one for one in ticks if not low <= one.get_loc() <= high]
        for one in outside if axes.axison else [axis]:
            yield from one.findobj(Text)
