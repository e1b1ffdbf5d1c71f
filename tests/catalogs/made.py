"""Catalogs of synthetic scenes: images as Cloud Optimized GeoTIFFs, items, collections."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from osgeo import gdal, gdal_array, osr

EPSG = 32633
ORIGIN = (500_000.0, 4_649_776.0)  # left and top of the place
PIXEL = 0.5


def spatial_reference(epsg: int) -> osr.SpatialReference:
    crs = osr.SpatialReference()
    crs.ImportFromEPSG(epsg)
    crs.SetAxisMappingStrategy(osr.OAMS_TRADITIONAL_GIS_ORDER)
    return crs


def write_cog(
    path: Path,
    values: np.ndarray,
    corner: tuple[float, float] = ORIGIN,
    pixel: float = PIXEL,
    epsg: int = EPSG,
    nodata: float | None = None,
    options: Sequence[str] = ("COMPRESS=DEFLATE", "BLOCKSIZE=256"),
) -> Path:
    """Write (H, W) or (H, W, bands) as a Cloud Optimized GeoTIFF."""
    bands = np.ascontiguousarray(np.atleast_3d(values).transpose(2, 0, 1))
    dataset = gdal_array.OpenArray(bands)
    dataset.SetGeoTransform((corner[0], pixel, 0, corner[1], 0, -pixel))
    dataset.SetSpatialRef(spatial_reference(epsg))
    if nodata is not None:
        for number in range(len(bands)):
            dataset.GetRasterBand(number + 1).SetNoDataValue(nodata)
    path.parent.mkdir(parents=True, exist_ok=True)
    gdal.GetDriverByName("COG").CreateCopy(str(path), dataset, options=list(options))
    return path


def lonlat_box(
    corner: tuple[float, float], width: float, height: float, epsg: int = EPSG, inset: float = 0.0
) -> list[float]:
    """The box in degrees around a rectangle in metres, which is made smaller by `inset` metres on each side."""
    to_degrees = osr.CoordinateTransformation(spatial_reference(epsg), spatial_reference(4326))
    left, top = corner[0] + inset, corner[1] - inset
    right, bottom = corner[0] + width - inset, corner[1] - height + inset
    there = np.array(to_degrees.TransformPoints([(left, top), (right, top), (right, bottom), (left, bottom)]))[:, :2]
    return [*there.min(axis=0).tolist(), *there.max(axis=0).tolist()]


def footprint(corner: tuple[float, float], width: float, height: float, epsg: int = EPSG) -> dict[str, Any]:
    """A rectangle in metres as a GeoJSON polygon."""
    to_degrees = osr.CoordinateTransformation(spatial_reference(epsg), spatial_reference(4326))
    left, top, right, bottom = corner[0], corner[1], corner[0] + width, corner[1] - height
    ring = [(left, top), (left, bottom), (right, bottom), (right, top), (left, top)]
    return {"type": "Polygon", "coordinates": [[list(point[:2]) for point in to_degrees.TransformPoints(ring)]]}


def make_item(name: str, time: str, assets: dict[str, str], collection: str | None = None, **more: Any) -> dict:
    """An item of an image that begins at ORIGIN and is 512 m wide, or has `corner`, `width`, `height`, `epsg`."""
    place = (more.pop("corner", ORIGIN), more.pop("width", 512.0), more.pop("height", 512.0), more.pop("epsg", EPSG))
    item: dict[str, Any] = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "geometry": footprint(*place),
        "bbox": lonlat_box(*place),
        "properties": {"datetime": time, "platform": "sat-a"} | more,
        "assets": {key: {"href": href} for key, href in assets.items()},
        "links": [],
    }
    if collection:
        item["collection"] = collection
    return item


def make_collection(name: str, box: list[float], licence: str = "CC-BY-4.0", **more: Any) -> dict[str, Any]:
    return {
        "type": "Collection",
        "stac_version": "1.0.0",
        "id": name,
        "description": name,
        "license": licence,
        "extent": {"spatial": {"bbox": [box]}, "temporal": {"interval": [["2015-01-01T00:00:00Z", None]]}},
        "links": [],
    } | more


def write_json(path: Path, content: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def write_static_catalog(root: Path, items: Sequence[dict], collection: str = "place") -> Path:
    """Write catalog.json, one collection and its items below `root`; hrefs of assets are kept. Returns the catalog."""
    boxes = np.array([item["bbox"] for item in items if item.get("bbox")] or [[-180, -90, 180, 90]])
    box = [*boxes[:, :2].min(axis=0).tolist(), *boxes[:, 2:].max(axis=0).tolist()]
    content = make_collection(collection, box)
    content["links"] = [{"rel": "item", "href": f"./items/{item['id'].replace('/', '-')}.json"} for item in items]
    for item in items:
        write_json(root / collection / "items" / f"{item['id'].replace('/', '-')}.json", item)
    write_json(root / collection / "collection.json", content)
    links = [{"rel": "child", "href": f"./{collection}/collection.json"}]
    catalog = {"type": "Catalog", "stac_version": "1.0.0", "id": "root", "description": "root", "links": links}
    return write_json(root / "catalog.json", catalog)


def write_maxar_catalog(root: Path, events: dict[str, dict[str, dict[str, str]]]) -> Path:
    """Write a static catalog as Maxar's: events, their acquisitions, and items `33/QUADKEY/ACQUISITION`.

    `events`: for each event and acquisition, the dates by quadkey; the cells of quadkeys lie in a row, 512 m wide.
    Returns the catalog.
    """
    for event, acquisitions in events.items():
        for acquisition, cells in acquisitions.items():
            links = []
            for quadkey, day in cells.items():
                corner = (ORIGIN[0] + 512 * int(quadkey[-1]), ORIGIN[1])
                assets = {"visual": f"./{acquisition}-visual.tif"}
                clouds: dict[str, Any] = {"tile:clouds_percent": 3, "proj:epsg": EPSG}
                item = make_item(f"33/{quadkey}/{acquisition}", f"{day}T08:00:00Z", assets, corner=corner, **clouds)
                write_json(root / event / f"ard/33/{quadkey}/{day}/{acquisition}.json", item)
                links.append({"rel": "item", "href": f"../33/{quadkey}/{day}/{acquisition}.json"})
            collection = make_collection(acquisition, lonlat_box(ORIGIN, 4096, 512), "CC-BY-NC-4.0", links=links)
            write_json(root / event / f"ard/acquisition_collections/{acquisition}_collection.json", collection)
        links = [
            {"rel": "child", "href": f"./ard/acquisition_collections/{name}_collection.json"} for name in acquisitions
        ]
        box = lonlat_box(ORIGIN, 4096, 512)
        collection = make_collection(event, box, "CC-BY-NC-4.0", title=f"The {event}", links=links)
        write_json(root / event / "collection.json", collection)
    catalog: dict[str, Any] = {"type": "Catalog", "stac_version": "1.0.0", "id": "events", "description": "events"}
    catalog["links"] = [{"rel": "child", "href": f"./{event}/collection.json"} for event in events]
    return write_json(root / "catalog.json", catalog)
