"""The picture of results/summary.json: SAR of each arm with its interval, and each rule's share.

    python figure.py results          # writes results/arms.svg

Left: dots are means over prompts and seeds, whiskers 95% bootstrap intervals over prompts, small
ticks single seeds; filled without the spec in the prompt, hollow with it. The dashed line is the
untrained model without the spec. Right: the share of prompts that follow each rule without the
spec; the rules behind the gap were in no training.
"""

from __future__ import annotations

import json
import sys
from html import escape
from pathlib import Path
from typing import Any

from adhere.reporting.axes import Axis

LINE, TOP, NAMES, PLOT, GAP, CELL = 34, 74, 172, 300, 40, 46
RAW, TOLD = "raw, trained rules", "vanilla, trained rules"
STYLE = """
svg { --paper: #fdfcf9; --ink: #1b1d20; --soft: #5c6065; --line: #e0dcd2; --c: #14617a;
  font: 12px system-ui, "Segoe UI", Helvetica, Arial, sans-serif; }
@media (prefers-color-scheme: dark) { svg { --paper: #15171a; --ink: #e7e4dd; --soft: #a2a5a8;
  --line: #2e3237; --c: #74bcd4; } }
.paper { fill: var(--paper); } text { fill: var(--ink); } .soft { fill: var(--soft); }
.grid { stroke: var(--line); } .base { stroke: var(--soft); stroke-dasharray: 3 4; }
.bar { stroke: var(--c); stroke-width: 2; } .dot { fill: var(--c); stroke: var(--c); }
.hollow { fill: var(--paper); stroke: var(--c); stroke-width: 2; } .seed { stroke: var(--c); }
.cell { fill: var(--c); } .edge { fill: none; stroke: var(--line); } .title { font-weight: 600; }
"""


def measured(entry: dict[str, Any], key: str, axis: Axis, y: float, kind: str) -> list[str]:
    """Dot, whisker and seeds of one arm."""
    if key not in entry:
        return []
    mean, low, high = (axis.at(value) for value in entry[key]["sar"])
    said = "{:.3f} [{:.3f}, {:.3f}]".format(*entry[key]["sar"])
    out = [f'<g><title>{said}</title><path class="bar" d="M{low:.1f} {y}H{high:.1f}"/>']
    if len(entry[key]["by_seed"]) > 1:
        out += [
            f'<path class="seed" d="M{axis.at(v):.1f} {y - 6}v12"/>' for v in entry[key]["by_seed"]
        ]
    return [*out, f'<circle class="{kind}" cx="{mean:.1f}" cy="{y}" r="4.5"/></g>']


def rules(found: dict[str, Any], left: float) -> list[str]:
    """The share of prompts that follow each rule, arm by arm, as shades."""
    out, x = [], left
    for label in ("trained", "held out"):
        key = f"raw, {label} rules"
        names = list(next(iter(found["arms"].values()))[key]["rules"])
        names = names if label == "trained" else [n for n in names if n != "answers"]
        title = "rules trained" if label == "trained" else "not trained"
        out.append(f'<text class="soft" x="{x:.1f}" y="18">{title}</text>')
        for name in names:
            out.append(
                f'<text class="soft" transform="translate({x + CELL / 2:.1f} {TOP - 14}) '
                f'rotate(-28)">{escape(name)}</text>'
            )
            for row, entry in enumerate(found["arms"].values()):
                share, y = entry[key]["rules"][name], TOP + row * LINE - LINE / 2 + 3
                box = f'x="{x:.1f}" y="{y:.1f}" width="{CELL - 3}" height="{LINE - 6}"'
                ink = "var(--paper)" if share > 0.55 else "var(--ink)"
                out += [
                    f'<rect class="cell" opacity="{share:.2f}" {box}/>',
                    f'<rect class="edge" {box}/>',
                    f'<text x="{x + CELL / 2 - 1.5:.1f}" y="{y + 19:.1f}" text-anchor="middle" '
                    f'style="fill:{ink}">{share:.2f}</text>',
                ]
            x += CELL
        x += 14
    return out


def draw(found: dict[str, Any]) -> str:
    """The whole picture as SVG; equal results give equal bytes."""
    arms = found["arms"]
    bottom = TOP + len(arms) * LINE
    axis = Axis(0.3, 1.0, NAMES, NAMES + PLOT, log=False)
    left = NAMES + PLOT + GAP
    cells = sum(
        len(next(iter(arms.values()))[f"raw, {label} rules"]["rules"])
        for label in ("trained", "held out")
    )
    width = left + (cells - 1) * CELL + 34
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {bottom + 46}" '
        f'width="{width}" height="{bottom + 46}" role="img" '
        'aria-label="SAR of each arm, and the share of prompts that follow each rule">',
        f'<style>{STYLE}</style><rect class="paper" width="100%" height="100%"/>',
        f'<text class="title" x="12" y="18">SAR on {found["prompts"]} prompts of topics that no '
        "training saw</text>",
        f'<circle class="dot" cx="{NAMES + 6}" cy="40" r="4.5"/><text x="{NAMES + 16}" y="44">'
        f'without the spec</text><circle class="hollow" cx="{NAMES + 136}" cy="40" r="4.5"/>'
        f'<text x="{NAMES + 146}" y="44">spec in the prompt</text>',
    ]
    for tenth in range(3, 11):
        x = axis.at(tenth / 10)
        out.append(f'<path class="grid" d="M{x:.1f} {TOP - 20}V{bottom - 8}"/>')
        out.append(
            f'<text class="soft" x="{x:.1f}" y="{bottom + 10}" text-anchor="middle">'
            f"{tenth / 10:.1f}</text>"
        )
    x = axis.at(arms["base"][RAW]["sar"][0])
    out.append(f'<path class="base" d="M{x:.1f} {TOP - 20}V{bottom - 8}"/>')
    out.append(
        f'<text class="soft" x="{NAMES}" y="{bottom + 30}">SAR (0.3: no rule followed)</text>'
    )
    for row, (name, entry) in enumerate(arms.items()):
        y = TOP + row * LINE
        seeds = f" ({entry['seeds']} seeds)" if entry["seeds"] > 1 else ""
        out.append(f'<text x="12" y="{y + 4}">{escape(name + seeds)}</text>')
        out += measured(entry, TOLD, axis, y + 6, "hollow")
        out += measured(entry, RAW, axis, y - 6, "dot")
    return "\n".join([*out, *rules(found, left), "</svg>", ""])


def main() -> None:
    folder = Path(sys.argv[1])
    found = json.loads((folder / "summary.json").read_text("utf-8"))
    (folder / "arms.svg").write_text(draw(found), encoding="utf-8")


if __name__ == "__main__":
    main()
