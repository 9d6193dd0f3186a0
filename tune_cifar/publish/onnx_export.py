"""Writes a model as ONNX, for programs without torch, and only where it answers as torch does."""

from __future__ import annotations

import json
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tune_cifar.errors import UserError
from tune_cifar.files import replacing
from tune_cifar.publish.manifest import Manifest
from tune_cifar.publish.retry import PublishError
from tune_cifar.trial.batches import PIXEL_MEAN, PIXEL_STD

INPUT_NAME = "images"
OUTPUT_NAME = "logits"
LOGIT_TOLERANCE = 1e-3
"""The largest difference of a logit that is rounding: logits are some tens at most, and float32 keeps 7 digits."""

_OPSET = 18  # the exporter's own; others are converted from it
_IMAGE_PIXELS = 32


class OnnxError(PublishError):
    """The exported model does not answer as torch's does; no file is left."""


class _FromPixels(nn.Module):
    """The network with its normalisation: float32 [n, 3, 32, 32] with values 0..1 to logits."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network((images - PIXEL_MEAN) / PIXEL_STD)
        return logits


def check_onnx() -> None:
    """Raise `UserError` where a package that writes or runs ONNX is missing."""
    if any(find_spec(name) is None for name in ("onnx", "onnxruntime", "onnxscript")):
        raise UserError("ONNX needs packages that are missing: pip install 'tune-cifar[onnx]'.")


def export_onnx(network: nn.Module, manifest: Manifest, images: np.ndarray, target: Path) -> float:
    """Write `network` to `target` and return the largest difference of a logit between onnxruntime and torch.

    The graph takes `images`, float32 [n, 3, 32, 32], RGB with values 0..1, for any n; it normalises them itself and
    gives `logits`, float32 [n, classes]. Its metadata are class names, config, scores and the sha256 of the weights.
    `images` are uint8 [k, 32, 32, 3]: on these onnxruntime must predict what torch predicts and no logit may differ
    by `LOGIT_TOLERANCE`, else `OnnxError` is raised and nothing is left.
    """
    model = _FromPixels(network.to("cpu").to(memory_format=torch.contiguous_format)).eval()
    pixels = images.transpose(0, 3, 1, 2).astype(np.float32) / 255
    with replacing(target) as partial:
        _write(_graph(model), manifest, partial)
        return _compare(model, pixels, partial)


def _graph(model: nn.Module) -> Any:
    """The graph as an `onnx.ModelProto`, without the paths of this machine that the exporter notes in every node."""
    example = torch.zeros(2, 3, _IMAGE_PIXELS, _IMAGE_PIXELS)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # the exporter's own libraries warn of each other
        program = torch.onnx.export(
            model,
            (example,),
            dynamo=True,
            verbose=False,
            opset_version=_OPSET,
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
        )
    assert program is not None  # noqa: S101 - so it is with dynamo
    proto = program.model_proto
    for part in (proto.graph, *proto.graph.node, *proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        del part.metadata_props[:]
    return proto


def _write(proto: Any, manifest: Manifest, path: Path) -> None:
    import onnx

    facts = {
        "model": manifest.model,
        "stem": manifest.stem,
        "class_names": json.dumps(manifest.class_names),
        "config": json.dumps(dict(manifest.config)),
        "scores": json.dumps(dict(manifest.scores)),
        "weights_sha256": manifest.sha256,
        "input": "float32 [n, 3, 32, 32], RGB, values 0..1; normalised in the graph",
        "output": "float32 [n, classes], logits; softmax gives probabilities",
    }
    onnx.helper.set_model_props(proto, facts)
    onnx.checker.check_model(proto)
    path.write_bytes(proto.SerializeToString(deterministic=True))


def _compare(model: nn.Module, pixels: np.ndarray, path: Path) -> float:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        expected = model(torch.from_numpy(pixels)).numpy()
    # In two batches of different sizes, since the graph is to take any.
    found = np.concatenate([session.run(None, {INPUT_NAME: batch})[0] for batch in (pixels[:1], pixels[1:])])
    difference = float(np.abs(found - expected).max())
    num_other = int((found.argmax(axis=1) != expected.argmax(axis=1)).sum())
    if num_other or not difference < LOGIT_TOLERANCE:
        raise OnnxError(
            f"onnxruntime predicts another class for {num_other} of {len(pixels)} test images, and its logits differ "
            f"from torch's by up to {difference:.1e}, where {LOGIT_TOLERANCE:.0e} is allowed. The file was removed"
        )
    return difference
