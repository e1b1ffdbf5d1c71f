"""Execution options of an engine, as chosen on the command line. Imports nothing heavy."""

from typing import NamedTuple

PRECISIONS = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}  # names of torch's dtypes


class Execution(NamedTuple):
    """Execution options of an engine; with `precision` fp32, none of them changes a map beyond rounding."""

    precision: str = "fp32"  # key of PRECISIONS
    points_per_batch: int | None = None  # None: chosen from the device's memory
    encode_batch: int | None = None  # images; None: chosen from the device's memory
    compile: bool = False
