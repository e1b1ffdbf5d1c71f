"""The catalogs that `--source` names: one row per catalog."""

from typing import NamedTuple

PLANETARY_COMPUTER = "https://planetarycomputer.microsoft.com/api/stac/v1"


class Source(NamedTuple):
    """A catalog, and what its items need; docs/get_event.md says what was verified."""

    stac: str  # address of the catalog or API
    collection: str | None  # None: all of them
    asset: str
    documentation: str  # address of the page that describes the data
    signed: bool = False  # whether GDAL has to sign addresses, as the Planetary Computer asks for


SOURCES = {
    "maxar-open-data": Source(
        "https://maxar-opendata.s3.amazonaws.com/events/catalog.json",
        None,
        "visual",
        "https://registry.opendata.aws/maxar-open-data/",
    ),
    "earth-search-sentinel-2": Source(
        "https://earth-search.aws.element84.com/v1",
        "sentinel-2-l2a",
        "visual",
        "https://registry.opendata.aws/sentinel-2-l2a-cogs/",
    ),
    "planetary-computer-naip": Source(
        PLANETARY_COMPUTER,
        "naip",
        "image",
        "https://planetarycomputer.microsoft.com/dataset/naip",
        signed=True,
    ),
    "planetary-computer-sentinel-2": Source(
        PLANETARY_COMPUTER,
        "sentinel-2-l2a",
        "visual",
        "https://planetarycomputer.microsoft.com/dataset/sentinel-2-l2a",
        signed=True,
    ),
}
