"""Synthetic events that vit_demo was not trained on."""

import itertools

from demo.make_events import DemoEvent

DISASTERS = range(1, 6)  # categories that demo.scenes draws


def unseen_events(first_seed: int, count: int) -> list[DemoEvent]:
    """Return synthetic events with consecutive seeds, of the categories in turn.

    `first_seed`: a million or more; vit_demo was trained with seeds below.
    """
    categories = itertools.cycle(DISASTERS)
    seeds = range(first_seed, first_seed + count)
    return [DemoEvent(f"{category}_seed_{seed}", seed) for category, seed in zip(categories, seeds, strict=False)]
