"""How an engine computes: the choices of the command line. Imports nothing heavy."""

from typing import NamedTuple

PRECISIONS = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}  # names of torch's dtypes


class Execution(NamedTuple):
    """How an engine computes; with `precision` fp32, nothing here changes a map beyond rounding."""

    precision: str = "fp32"  # key of PRECISIONS
    points_per_batch: int | None = None  # None: from the device's memory
    encode_batch: int | None = None  # images; None: from the device's memory
    compile: bool = False
    host_threads: int | None = None  # that clean masks; None: as many as the machine has processors
