"""Writes tests/golden/mobile_sam: results of the literal method with MobileSAM's official weights.

    PYTHONPATH=FOLDER python -m tests.make_golden

FOLDER holds an independent MobileSAM, so that the results owe nothing to the project's own code:

    pip install --target FOLDER --no-deps mobilesam-mirror==1.0.0 timm huggingface_hub safetensors pyyaml

Its encoder runs in segment_anything's unchanged mask generator; benchmarks/reference.py does the rest.
"""

import hashlib
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from osgeo import gdal
from segment_anything.modeling import Sam
from tqdm import tqdm

import config
from benchmarks import reference
from demo.make_events import DEMO_EVENTS, write_event
from sam.weights import locate_weights

GOLDEN = Path(__file__).parent / "golden"
FOLDER = GOLDEN / "mobile_sam"
SHIPPED, DRAWN = "1_golden_explosion", "2_demo_collapse"
PUBLISHED_POINTS, FEW_POINTS = 32, 8  # per side
CASES = ((SHIPPED, FEW_POINTS), (DRAWN, FEW_POINTS), (SHIPPED, PUBLISHED_POINTS))  # event and points per side


class Images(NamedTuple):
    """The images of an event, (H, W, 3) uint8 RGB each."""

    historical: list[np.ndarray]  # oldest first
    monitor: np.ndarray

    @property
    def checksum(self) -> str:
        """SHA-256 of all pixels."""
        return hashlib.sha256(b"".join(image.tobytes() for image in (*self.historical, self.monitor))).hexdigest()


class Maps(NamedTuple):
    """The maps of an event, (H, W) float32 each."""

    change_map: np.ndarray
    filtered: np.ndarray
    anomaly: np.ndarray


def data_root(event: str, drawn: Path) -> Path:
    """Return the data root of an event; an event of the demo is drawn into the folder `drawn`."""
    if event == SHIPPED:
        return GOLDEN / "events"
    (demo_event,) = (one for one in DEMO_EVENTS if one.name == event)
    write_event(drawn, demo_event)
    return drawn


def read_images(folder: Path) -> Images:
    """Read an event's images without the project's own reader."""

    def read(path: Path) -> np.ndarray:
        return np.ascontiguousarray(gdal.Open(str(path)).ReadAsArray().transpose(1, 2, 0))

    (monitor,) = (path for path in folder.glob("anomaly_*.tif") if "label" not in path.name)
    return Images([read(path) for path in sorted(folder.glob("normal_*.tif"))], read(monitor))


def independent_mobile_sam() -> Sam:
    """Load MobileSAM's encoder from the independent package into segment_anything's Sam."""
    from mobile_sam import sam_model_registry

    state = torch.load(locate_weights("vit_t", None).path, map_location="cpu", weights_only=True)
    theirs = sam_model_registry["vit_t"]()
    theirs.load_state_dict(state)
    theirs.train().eval()  # the biases of its attention are those of the moment of this call
    from segment_anything import sam_model_registry as stock_registry

    model = stock_registry["vit_b"](checkpoint=None)
    model.image_encoder = theirs.image_encoder
    model.load_state_dict(state)
    return model


def literal_maps(model: Sam, images: Images, points_per_side: int) -> Maps:
    """Run both stages on images of one window."""
    parameters = config.STAGE1_SAM_PARAMS | {"points_per_side": points_per_side}
    changes, _ = reference.stage1_window(
        model,
        images.historical[-1],
        images.monitor,
        parameters,
        config.STAGE1_MIN_MASK_PIXELS,
        config.MAX_REGION_FRACTION,
    )
    filtered = reference.filter_change_map(changes, config.STAGE2_CHANGE_MAP_QUANTILE)
    anomalies = reference.stage2_window(
        model,
        images.historical,
        images.monitor,
        filtered,
        config.STAGE2_MIN_MASK_PIXELS,
        config.MAX_REGION_FRACTION,
    )
    return Maps(changes, filtered, anomalies)


def main() -> None:
    """Compute and write the results of all cases."""
    model = independent_mobile_sam()
    FOLDER.mkdir(exist_ok=True)
    for event, points in tqdm(CASES):
        with tempfile.TemporaryDirectory() as drawn:
            images = read_images(data_root(event, Path(drawn)) / event)
        maps = literal_maps(model, images, points)
        np.savez_compressed(
            FOLDER / f"{event}_{points}.npz",
            change_map=maps.change_map,
            filtered=maps.filtered,
            anomaly=maps.anomaly,
            images=images.checksum,
        )


if __name__ == "__main__":
    main()
