"""Where the labels of a plot go: beside their marks, off each other, off everything drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Anchor = Literal["start", "middle", "end"]

# Mean advance of a character in a sans-serif face, in units of the font size. Rather too wide
# than too narrow: the reader's font is not known.
_ADVANCE = 0.57


@dataclass(frozen=True)
class Box:
    """An axis-parallel rectangle, y downwards."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: Box) -> float:
        """The area both cover."""
        if self.right <= other.left or other.right <= self.left:
            return 0.0  # most pairs are far apart
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return width * height if width > 0 and height > 0 else 0.0

    def inside(self, other: Box) -> bool:
        """True when no part is outside of `other`."""
        return (
            self.left >= other.left
            and self.right <= other.right
            and self.top >= other.top
            and self.bottom <= other.bottom
        )


@dataclass(frozen=True)
class Mark:
    """Something to label: its center, its radius and the text."""

    x: float
    y: float
    r: float
    text: str


@dataclass(frozen=True)
class Label:
    """A placed text (baseline at `y`) and, when it is far from its mark, a line to it."""

    x: float
    y: float
    anchor: Anchor
    box: Box
    leader: tuple[float, float, float, float] | None = None


def text_width(text: str, size: float) -> float:
    """An estimate, since no font is at hand."""
    return len(text) * size * _ADVANCE


def place(
    marks: Sequence[Mark], frame: Box, obstacles: Sequence[Box] = (), *, size: float = 12
) -> list[Label | None]:
    """A label for every mark, or None where no place is free enough.

    Greedy, then improved in rounds: each label in turn moves to the place that is cheapest given
    all the others. Deterministic. `obstacles` (whiskers, lines) may be crossed at a small price,
    marks and other labels hardly.
    """
    discs = [Box(m.x - m.r, m.y - m.r, m.x + m.r, m.y + m.r) for m in marks]
    choices: list[list[tuple[Label, float]]] = []
    for index, mark in enumerate(marks):
        inside = (c for c in _candidates(mark, size) if c[0].box.inside(frame))
        choices.append(
            [(label, own + _fixed(label, index, discs, obstacles)) for label, own in inside]
        )
    placed: list[Label | None] = [None] * len(marks)

    def price(index: int, label: Label, fixed: float) -> float:
        cost = fixed
        for other, neighbor in enumerate(placed):
            if neighbor is not None and other != index:
                cost += label.box.overlap(neighbor.box) * 4
                if label.leader:
                    cost += 15 * _crossing(label.leader, neighbor.box)
                if neighbor.leader:
                    cost += 15 * _crossing(neighbor.leader, label.box)
        return cost

    for _ in range(3):
        before = list(placed)
        for index, options in enumerate(choices):
            prices = [price(index, *option) for option in options]
            if prices:
                placed[index] = options[prices.index(min(prices))][0]
        if placed == before:
            break
    for index in range(len(marks)):
        label = placed[index]
        if label is not None and _hits(label, index, placed, discs):
            placed[index] = None
    return placed


def _fixed(label: Label, index: int, discs: Sequence[Box], obstacles: Sequence[Box]) -> float:
    """What a place costs whatever the other labels do: marks and obstacles it covers."""
    cost = sum(label.box.overlap(o) * 0.4 for o in obstacles)
    return cost + sum(
        label.box.overlap(disc) * (1 if other == index else 3) for other, disc in enumerate(discs)
    )


def _candidates(mark: Mark, size: float) -> list[tuple[Label, float]]:
    """Places around a mark with what each costs for its own sake: near and to the right is best."""
    width, out = text_width(mark.text, size), []
    for ring, gap in enumerate((4.0, 14.0, 28.0, 44.0)):
        reach = mark.r + gap
        slant, rise = reach * 0.72, reach * 0.72 + size * 0.45
        spots: tuple[tuple[float, float, Anchor], ...] = (
            (reach, 0.0, "start"),
            (-reach, 0.0, "end"),
            (slant, -rise, "start"),
            (slant, rise, "start"),
            (-slant, -rise, "end"),
            (-slant, rise, "end"),
            (0.0, -reach - size * 0.4, "middle"),
            (0.0, reach + size * 0.4, "middle"),
        )
        for turn, (dx, dy, anchor) in enumerate(spots):
            x, middle = mark.x + dx, mark.y + dy
            left = {"start": x, "middle": x - width / 2, "end": x - width}[anchor]
            box = Box(left - 1, middle - size * 0.55, left + width + 1, middle + size * 0.55)
            leader = None
            if ring > 1:
                near = mark.r / (mark.r + gap)
                leader = (
                    mark.x + dx * near, mark.y + dy * near, mark.x + dx * 0.92, mark.y + dy * 0.92,
                )  # fmt: skip
            label = Label(x, middle + size * 0.35, anchor, box, leader)
            out.append((label, ring * 30.0 + turn * 2.0))
    return out


def _crossing(leader: tuple[float, float, float, float], box: Box) -> int:
    """How much of a leader runs through a box, in fifths."""
    x1, y1, x2, y2 = leader
    if max(x1, x2) < box.left or min(x1, x2) > box.right:
        return 0
    spots = ((x1 + (x2 - x1) * i / 4, y1 + (y2 - y1) * i / 4) for i in range(5))
    return sum(box.left < x < box.right and box.top < y < box.bottom for x, y in spots)


def _hits(label: Label, index: int, placed: Sequence[Label | None], discs: Sequence[Box]) -> bool:
    """True when a label would be hard to read: it runs over another label or another mark."""
    area = (label.box.right - label.box.left) * (label.box.bottom - label.box.top)
    for other, neighbor in enumerate(placed):
        if other != index and neighbor is not None and label.box.overlap(neighbor.box) > area * 0.1:
            return True
    return any(
        label.box.overlap(disc) > area * 0.25 for other, disc in enumerate(discs) if other != index
    )
