"""Puts the scenes of one acquisition together on a grid, with their gaps and clouds."""

import json
from typing import NamedTuple

import numpy as np
from osgeo import ogr, osr

from catalogs.query import Query
from catalogs.remote import Asset, RemoteImage, RemoteMask, grid_of, open_image, open_mask, stored_bytes
from catalogs.scenes import CLOUD_CLASSES, CLOUD_PROBABILITY, Acquisition, Scene
from rasters.place import Grid, same_crs, wgs84
from rasters.warp import Source, covered_window, rasterize, warp
from utils import EventError, Window


class Composed(NamedTuple):
    """A window of a mosaic."""

    values: np.ndarray  # (h, w, 3) float32, NaN where there is no data
    cloudy: np.ndarray  # (h, w) bool, only where there is data


class OpenScene(NamedTuple):
    """A scene whose files are open, at the overview that fits a grid."""

    scene: Scene
    image: RemoteImage
    clouds: RemoteMask | None

    def compose(self, grid: Grid, window: Window) -> Composed:
        """Read a window of the grid from this scene."""
        values = warp(Source(self.image.read_marked, grid_of(self.image)), grid, window)
        if not self.image.may_lack_data:
            values[~_inside_footprint(self.scene, grid, window)] = np.nan
        valid = ~np.isnan(values[..., 0])
        if self.clouds is None or not valid.any():
            return Composed(values, np.zeros(valid.shape, bool))
        assert self.scene.clouds is not None
        numbers = warp(Source(self.clouds.read_values, grid_of(self.clouds)), grid, window, "near")[..., 0]
        return Composed(values, valid & _is_cloud(numbers, self.scene.clouds.kind))


def _is_cloud(numbers: np.ndarray, kind: str) -> np.ndarray:
    if kind == "classes":
        return np.isin(numbers, CLOUD_CLASSES)
    return np.nan_to_num(numbers) >= (CLOUD_PROBABILITY if kind == "probability" else 1)


def _inside_footprint(scene: Scene, grid: Grid, window: Window) -> np.ndarray:
    """Return where an item's footprint lies, (h, w) bool."""
    assert grid.crs is not None
    try:
        outline = ogr.CreateGeometryFromJson(json.dumps(scene.footprint))
        transformation = osr.CoordinateTransformation(wgs84(), grid.crs)
        if outline is None or outline.Transform(transformation) != 0:
            raise RuntimeError("is invalid")
    except RuntimeError as error:
        raise EventError(f"{scene.item}: its geometry cannot be used ({error})") from None
    return rasterize(outline, grid, window)


class Mosaic:
    """The open scenes of an acquisition on a grid. Windows may be read on several threads."""

    def __init__(self, acquisition: Acquisition, query: Query, grid: Grid) -> None:
        """Open the files. Raises EventError if one cannot be used, or if they differ in type or bands."""
        self.grid = grid
        scenes = [_open_scene(scene, query, grid) for scene in acquisition.scenes]
        # Where scenes overlap, the first one counts: one in the grid's own CRS is not resampled.
        self.scenes = sorted(scenes, key=lambda scene: not same_crs(grid_of(scene.image).crs, grid.crs))
        kinds = {(scene.image.layout, scene.image.dtype) for scene in self.scenes}
        if len(kinds) > 1:
            raise EventError(f"{acquisition.text}: its items differ in bands or pixel type")
        (self.layout, self.dtype), *_ = kinds

    @property
    def has_cloud_masks(self) -> bool:
        """Whether all scenes say where their clouds are."""
        return all(scene.clouds is not None for scene in self.scenes)

    def read(self, window: Window) -> Composed:
        """Read a window of the grid; a scene without clouds takes precedence over clouds of an earlier scene."""
        first, *others = self.scenes
        values, cloudy = first.compose(self.grid, window)
        for scene in others:
            open_pixels = np.isnan(values[..., 0]) | cloudy
            if not open_pixels.any():
                break
            more = scene.compose(self.grid, window)
            has_data = ~np.isnan(more.values[..., 0])
            taken = has_data & (np.isnan(values[..., 0]) | (cloudy & ~more.cloudy))
            values[taken], cloudy[taken] = more.values[taken], more.cloudy[taken]
        return Composed(values, cloudy)

    def stored_bytes(self) -> int:
        """Return the size of the files' parts that the grid needs, as they are stored."""
        height, width = self.grid.shape
        total = 0
        for scene in self.scenes:
            for file in (scene.image, *([scene.clouds] if scene.clouds else [])):
                covered = covered_window(grid_of(file), self.grid, Window(0, 0, width, height))
                total += stored_bytes(file, covered) if covered else 0
        return total


def _open_scene(scene: Scene, query: Query, grid: Grid) -> OpenScene:
    image = open_image(image_asset(scene, query), query.bands, grid)
    if scene.clouds is None:
        return OpenScene(scene, image, None)
    mask = Asset(f"{scene.item}/clouds", scene.clouds.address, _signed_for(scene, query))
    return OpenScene(scene, image, open_mask(mask, grid))


def image_asset(scene: Scene, query: Query) -> Asset:
    """Return the asset of a scene's image."""
    return Asset(f"{scene.item}/{query.asset}", scene.asset, _signed_for(scene, query))


def _signed_for(scene: Scene, query: Query) -> str | None:
    return scene.collection if query.signed else None
