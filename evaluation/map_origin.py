"""Says how maps were made, from what their stage records, for people to read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rasters.geotiff import GeoTiff
from rasters.maps import read_parameters
from sam.registry import SAM_VARIANTS


def map_origin(path: Path) -> dict[str, str]:
    """Return texts by name: SAM, weights, precision, program, date; empty for a map of another program.

    Raises EventError if the file or its tags are damaged.
    """
    parameters = read_parameters(path)
    return {} if parameters is None else describe_origin(parameters, GeoTiff(path).dataset.GetMetadata())


def describe_origin(parameters: Mapping[str, Any], tags: Mapping[str, str]) -> dict[str, str]:
    """Return the texts of `map_origin`. `parameters`: that a map records. `tags`: all that it records."""
    sam, checksum = str(parameters.get("sam_model_type")), str(parameters.get("sam_checkpoint_sha256"))
    published = SAM_VARIANTS[sam].published if sam in SAM_VARIANTS else None
    if published is not None:
        sam += ", official weights" if published.sha256 == checksum else ", other weights"
    return {
        "SAM": sam,
        "weights": f"{tags.get('ANOMALYCD_CHECKPOINT', 'unknown')}, SHA-256 {checksum[:12]}",
        "precision": str(parameters.get("precision")),
        "program": f"AnomalyCD {tags.get('ANOMALYCD_VERSION')}, commit {tags.get('ANOMALYCD_COMMIT', '')[:12]}",
        "date": str(tags.get("ANOMALYCD_TIME"))[:10],
    }
