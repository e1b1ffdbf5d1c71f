"""flags.py and settings.py: the flags for SAM, and the engine that they select."""

import argparse
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from segment_anything.modeling import Sam

import config
from sam import settings as engine_options
from sam.encoders import PLAIN_VIT, EncoderKind
from sam.engine import SamEngine
from sam.execution import Execution
from sam.flags import SamFlags, add_sam_arguments
from sam.mask_generator import ignore_points
from sam.settings import load_engine
from tests.scripts import DEMO_SAM
from utils import UsageError


def parse(*flags: str) -> SamFlags:
    parser = argparse.ArgumentParser()
    add_sam_arguments(parser)
    return SamFlags.of(parser.parse_args(flags))


def refusal(capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    """The error message of argparse for invalid flags."""
    with pytest.raises(SystemExit) as refused:
        parse(*flags)
    assert refused.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


# --- Flags -----------------------------------------------------------------------------------------------------------
def test_defaults_are_the_published_settings() -> None:
    args = parse()
    assert args.precision == "fp32"
    assert args.compile is False
    # Checkpoint and batch sizes are chosen later, from the device.
    assert (args.device, args.checkpoint, args.points_per_batch, args.encode_batch) == (None, None, None, None)
    assert args.model_type == config.SAM_MODEL_TYPE


def test_flags_are_read() -> None:
    args = parse("--precision=bf16", "--points-per-batch=7", "--encode-batch=2", "--compile", "--sam-checkpoint=a.pth")
    assert args.precision == "bf16"
    assert args.points_per_batch == 7
    assert args.encode_batch == 2
    assert args.compile is True
    assert args.checkpoint == Path("a.pth")


@pytest.mark.parametrize("flag", ["--points-per-batch", "--encode-batch"])
@pytest.mark.parametrize("value", ["0", "-3", "1.5", "many", ""])
def test_invalid_batch_sizes_are_refused(capsys: pytest.CaptureFixture[str], flag: str, value: str) -> None:
    assert f"argument {flag}: " in refusal(capsys, f"{flag}={value}")


def test_unknown_precisions_and_model_types_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "argument --precision: invalid choice: 'fp64'" in refusal(capsys, "--precision", "fp64")
    assert "argument --sam-model-type: invalid choice: 'vit_x'" in refusal(capsys, "--sam-model-type", "vit_x")


def test_help_names_flags_that_change_the_maps_or_need_a_compiler() -> None:
    parser = argparse.ArgumentParser()
    add_sam_arguments(parser)
    text = " ".join(parser.format_help().split())
    assert "bf16 and fp16 are faster on a GPU and change the maps, see docs/benchmarks.md (default: fp32)" in text
    assert "needs a C++ compiler (default: not compiled)" in text


# --- Engines ---------------------------------------------------------------------------------------------------------
@pytest.fixture
def requested_executions(monkeypatch: pytest.MonkeyPatch) -> list[Execution | None]:
    """The `execution` argument of each engine; no engine is built."""
    executions: list[Execution | None] = []

    class Recorder(SamEngine):
        def __init__(
            self,
            _: Sam,
            __: torch.device,
            execution: Execution | None = None,
            kind: EncoderKind = PLAIN_VIT,
            points_done: Callable[[int], object] = ignore_points,
        ) -> None:
            executions.append(execution)

    monkeypatch.setattr(engine_options, "SamEngine", Recorder)
    return executions


def test_load_engine_logs_the_model_and_records_its_provenance(caplog: pytest.LogCaptureFixture) -> None:
    engine, settings = load_engine(parse(*DEMO_SAM))
    sam = settings.identity
    (line,) = caplog.messages
    assert line == f"SAM vit_demo: {config.DEMO_CHECKPOINT} (of the tests, for synthetic scenes only) on cpu"
    assert engine.device == torch.device("cpu")
    assert sam.checkpoint == config.DEMO_CHECKPOINT.name
    assert sam.provenance == {
        "sam_model_type": "vit_demo",
        "sam_checkpoint_sha256": hashlib.sha256(config.DEMO_CHECKPOINT.read_bytes()).hexdigest(),
        "precision": "fp32",
    }
    json.dumps(sam.provenance)  # written to the maps' metadata


@pytest.mark.parametrize(
    ("flags", "execution"),
    [
        ([], Execution("fp32", None, None, False)),
        (["--precision", "bf16", "--compile"], Execution("bf16", None, None, True)),
        (["--precision=fp16", "--points-per-batch=7"], Execution("fp16", 7, None, False)),
        (["--encode-batch", "3"], Execution("fp32", None, 3, False)),
    ],
)
def test_flags_set_the_engine_execution(
    requested_executions: list[Execution | None], flags: Sequence[str], execution: Execution
) -> None:
    _, settings = load_engine(parse(*DEMO_SAM, *flags))
    sam = settings.identity
    assert requested_executions == [execution]
    assert sam.provenance["precision"] == execution.precision
    assert sam.provenance.get("norms") == (None if execution.precision == "fp32" else "fp32")


def test_load_engine_disables_tf32(monkeypatch: pytest.MonkeyPatch, requested_executions: list[object]) -> None:
    # By default, torch rounds fp32 convolutions to 10 bits on recent GPUs.
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    load_engine(parse(*DEMO_SAM))
    assert torch.backends.cudnn.allow_tf32 is False
    assert torch.backends.cuda.matmul.allow_tf32 is False


def test_an_unknown_model_type_from_the_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    # argparse does not check defaults.
    monkeypatch.setattr(config, "SAM_MODEL_TYPE", "vit_x")
    with pytest.raises(
        UsageError, match="vit_x: no such SAM model type; choose one of vit_b, vit_l, vit_h, vit_t, vit_demo"
    ):
        load_engine(parse("--device", "cpu"))


def test_a_missing_device_is_refused_before_weights_are_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--device cuda:1000: not found"):
        load_engine(parse("--device", "cuda:1000", "--sam-checkpoint", str(tmp_path / "none.pth")))
