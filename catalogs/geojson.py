"""Reads the place of a query from a GeoJSON file: its bounding box, in degrees."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from osgeo import osr

from catalogs.query import Box
from rasters.place import named_crs, wgs84
from rasters.warp import transform_bounds
from utils import UsageError


def box_of_geojson(path: Path) -> Box:
    """Return the bounding box of a GeoJSON file, in degrees.

    A file in another CRS, which it names in a member `crs` as GeoJSON of 2008 does, is transformed. Raises UsageError
    if the file has no coordinates, or if its CRS is not known.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError):
        raise UsageError(f"{path}: is not GeoJSON") from None
    try:
        west, south, east, north = bounds(content)
    except ValueError:
        raise UsageError(f"{path}: has no coordinates; it must be GeoJSON in longitude and latitude") from None
    try:
        crs = _crs_of(content)
        found = transform_bounds((west, south, east, north), crs, wgs84()) if crs else (west, south, east, north)
        if found is None:
            raise UsageError("its coordinates are outside of the area of its CRS; write it in longitude and latitude")
        return Box.of(found)
    except UsageError as error:
        raise UsageError(f"{path}: {str(error).removeprefix('--bbox ')}") from None


def bounds(geojson: Any) -> tuple[float, float, float, float]:
    """Return the least and greatest coordinates of a GeoJSON object. Raises ValueError if it has none."""
    x, y = zip(*_points(geojson), strict=True)
    return min(x), min(y), max(x), max(y)


def _points(value: Any) -> Iterator[tuple[float, float]]:
    """Yield the positions in a GeoJSON object, at any depth."""
    if isinstance(value, dict):
        for member in _members(value):
            yield from _points(member)
        yield from _points(value.get("coordinates"))
    elif isinstance(value, list) and len(value) > 1 and all(isinstance(number, int | float) for number in value):
        yield float(value[0]), float(value[1])
    elif isinstance(value, list):
        for part in value:
            yield from _points(part)


def _members(geojson: dict[str, Any]) -> list[Any]:
    """Return the members of a GeoJSON object that are, or contain, GeoJSON objects."""
    return [geojson.get(name) for name in ("features", "geometry", "geometries")]


def _crs_of(content: Any) -> osr.SpatialReference | None:
    """Return the CRS that a file names; None: it names none, so that it is in degrees. Raises UsageError."""
    names = set(_crs_names(content))
    if not names:
        return None
    if len(names) > 1:
        raise UsageError("names more than one CRS; write it in longitude and latitude")
    (name,) = names
    crs = named_crs(name)
    if crs is None:
        raise UsageError(f"its CRS {name} is not known; write it in longitude and latitude")
    return crs


def _crs_names(value: Any) -> Iterator[str]:
    """Yield the names of the CRSs in a GeoJSON object, at any depth."""
    if isinstance(value, dict):
        crs = value.get("crs")
        if crs is not None:
            properties = crs.get("properties") if isinstance(crs, dict) else None
            yield str(properties.get("name") if isinstance(properties, dict) else crs)
        for member in _members(value):
            yield from _crs_names(member)
    elif isinstance(value, list):
        for part in value:
            yield from _crs_names(part)
