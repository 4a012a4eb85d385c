"""Texts side by side in one cache, a token of each at a time; others may join on the way.

Rows differ in length, so they are padded on the left, where a mask hides it. What all rows are
padded by is cut off, so a batch that texts leave and join for hours is as wide as its longest.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from adhere.models.open_weights.forward import Prefix
from adhere.models.open_weights.loading import Loaded


class Batch:
    """Rows behind their prefixes. Prefixes may differ, and rows join, where `mixes_prompts`."""

    def __init__(self, net: Loaded, prefixes: Sequence[Prefix]) -> None:
        """One row for each prefix, in order."""
        self._torch: Any = import_module("torch")
        self.net = net
        first = prefixes[0]
        self.cache = first.expanded(1)
        self.width = len(first.ids)  # tokens of a row, padding included
        self._pads: Any = None  # [rows]: how many of them are padding; None: of none
        if all(prefix.ids == first.ids for prefix in prefixes):
            if len(prefixes) > 1:
                self.cache.batch_repeat_interleave(len(prefixes))
            self.rows = len(prefixes)
        else:
            self.rows = 1
            self.join(prefixes[1:])

    def select(self, rows: Sequence[int]) -> None:
        """Keep those rows alone, in the order given."""
        places = self._torch.tensor(list(rows), device=self.net.device)
        self.cache.batch_select_indices(places)
        self.rows = len(rows)
        if self._pads is None:
            return
        self._pads = self._pads[places]
        if common := int(self._pads.min()):
            for layer in self.cache.layers:
                layer.keys, layer.values = layer.keys[:, :, common:], layer.values[:, :, common:]
            self._pads, self.width = self._pads - common, self.width - common

    def join(self, prefixes: Sequence[Prefix]) -> None:
        """Append a row for each prefix."""
        torch = self._torch
        lengths = [len(prefix.ids) for prefix in prefixes]
        width = max(self.width, *lengths)

        def padded(states: Any) -> Any:
            return torch.nn.functional.pad(states, (0, 0, width - states.shape[2], 0))

        for number, layer in enumerate(self.cache.layers):
            others = [prefix.cache.layers[number] for prefix in prefixes]
            for name in ("keys", "values"):
                parts = [getattr(one, name) for one in (layer, *others)]
                setattr(layer, name, torch.cat([padded(part) for part in parts]))
        own = self._pads
        if own is None:
            own = torch.zeros(self.rows, dtype=torch.long, device=self.net.device)
        new = torch.tensor([width - n for n in lengths], device=self.net.device)
        self._pads = torch.cat([own + (width - self.width), new])
        self.rows, self.width = self.rows + len(prefixes), width

    def next(self) -> dict[str, Any]:
        """What the model is told with one more token of each row."""
        self.width += 1
        if self._pads is None:
            return {}
        places = self._torch.arange(self.width, device=self.net.device)
        return {
            "attention_mask": (places >= self._pads[:, None]).long(),
            "position_ids": (self.width - 1 - self._pads)[:, None],
        }
