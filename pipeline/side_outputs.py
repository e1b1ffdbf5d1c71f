"""Writes what lies beside the maps: previews, polygons, GeoJSON, styles. Outputs record the settings they depend on."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import config
from eval_metrics import binarize_anomaly_map, binarize_by_quantile
from evaluation.event_maps import EvalSettings
from evaluation.explanations import ExplanationRaster
from evaluation.polygons import (
    SETTINGS_KEY,
    find_regions,
    read_regions_metadata,
    simplify_regions,
    write_geojson,
    write_regions,
)
from evaluation.qgis_style import score_style
from rasters.gdal_output import event_file, remove_outputs
from rasters.geotiff import Georeference
from rasters.png import read_preview_text, write_preview
from rasters.raster import Raster
from utils import CATEGORIES, Event, date_text

NO_GEOJSON = {"ANOMALYCD_GEOJSON": "not possible without a usable CRS"}  # in the polygons' metadata


def settings_record(settings: dict[str, Any]) -> dict[str, str]:
    """Return the record of settings that is stored in a preview or in polygons."""
    return {SETTINGS_KEY: json.dumps(settings, sort_keys=True)}


@dataclass(frozen=True)
class ChangePreview:
    """The preview of a change map: the map, binarized at a quantile."""

    path: Path
    quantile: float

    def is_current(self) -> bool:
        """Return whether the preview exists and was made with this quantile."""
        return read_preview_text(self.path) == self._record

    def write(self, scores: Raster) -> None:
        """Write the preview. `scores`: the change map, float32."""
        write_preview(self.path, binarize_by_quantile(scores, self.quantile), self._record)

    @property
    def _record(self) -> dict[str, str]:
        return settings_record({"quantile": self.quantile})


@dataclass(frozen=True)
class Stage2Extras:
    """What stage 2 writes in addition; it does not affect the maps."""

    explain: bool = False  # the explanation map, and its averages in the polygons
    simplify: float = 0.0  # metres by which the polygons' outlines are simplified; 0: not
    geojson: bool = False  # the polygons as GeoJSON, too
    split: bool = False  # regions that touch but differ in score are kept apart

    @property
    def affecting_polygons(self) -> dict[str, Any]:
        """The options that affect the polygons, without the explanation and without defaults."""
        return {name: value for name, value in asdict(self).items() if name != "explain" and value}


@dataclass(frozen=True)
class AnomalyOutputs:
    """The preview of an anomaly map, which is its binary map, and the regions of that as polygons."""

    folder: Path
    event: Event
    georeference: Georeference
    extras: Stage2Extras
    origin: Mapping[str, str] = field(default_factory=dict)  # see describe_origin; metadata of the polygons

    @property
    def geojson_path(self) -> Path:
        """Path of the polygons as GeoJSON."""
        return self.folder / config.REGIONS_GEOJSON_NAME

    def _records(self, explained: bool) -> tuple[dict[str, str], dict[str, str]]:
        """Return the records of the preview and of the polygons; the latter also says what these hold in addition."""
        in_addition = self.extras.affecting_polygons | ({"explained": True} if explained else {})
        return settings_record(_binarizing()), settings_record(_binarizing() | in_addition)

    def are_current(self, explained: bool) -> bool:
        """Return whether all files exist and were made with these settings. `explained`: whether polygons must be."""
        preview_record, polygons_record = self._records(explained)
        if read_preview_text(self.folder / config.ANOMALY_PREVIEW_NAME) != preview_record:
            return False
        metadata = read_regions_metadata(self.folder / config.REGIONS_NAME)
        found = metadata and {name: text for name, text in metadata.items() if name.startswith("ANOMALYCD_")}
        if self.extras.geojson and not self.geojson_path.exists():
            return found == polygons_record | NO_GEOJSON
        return found == polygons_record

    def write(self, scores: Raster, explanation: ExplanationRaster | None) -> None:
        """Write all files. `scores`: the anomaly map, float32. `explanation`: of its regions, if there is one."""
        preview_record, polygons_record = self._records(explanation is not None)
        binary = binarize_anomaly_map(scores, **_binarizing())
        write_preview(self.folder / config.ANOMALY_PREVIEW_NAME, binary, preview_record)
        name, _ = CATEGORIES[self.event.category]
        attributes = {"event": self.event.name, "category": f"{self.event.category} {name}"}
        regions = find_regions(binary, scores, self.georeference, explanation, self.extras.split)
        if self.extras.simplify:
            regions = simplify_regions(regions, self.extras.simplify)
        if not self.extras.geojson:
            remove_outputs(self.geojson_path)  # it would differ from the polygons of this run
        elif not write_geojson(self.geojson_path, regions, attributes):
            remove_outputs(self.geojson_path)
            polygons_record |= NO_GEOJSON
        write_regions(self.folder / config.REGIONS_NAME, regions, attributes, polygons_record | self._about())

    def _about(self) -> dict[str, str]:
        """Return metadata of the polygons for people."""
        dates = {"MONITOR_DATE": self.event.monitor, "REFERENCE_DATE": self.event.reference}
        texts = {name: date_text(path) for name, path in dates.items()} | {
            name.upper(): text for name, text in self.origin.items() if name != "date"
        }
        return texts | {"THRESHOLD": f"{EvalSettings().stage2_threshold:g}"}


def write_map_style(path: Path, band: int = 1) -> None:
    """Write the style with which QGIS opens a map, beside it; one that exists is kept, as it may be the user's own.

    `band`: to show. Raises EventError if it cannot be written.
    """
    style = path.with_suffix(".qml")
    if not style.exists():
        with event_file(style) as part:
            part.write_text(score_style(band), encoding="utf-8")


def _binarizing() -> dict[str, Any]:
    """Return the settings of the published evaluation that turn an anomaly map into a binary map."""
    settings = EvalSettings()
    return {"threshold": settings.stage2_threshold} | settings.cleaning
