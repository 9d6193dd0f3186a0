"""Reads TensorBoard's event files back with TensorBoard's own reader."""

from __future__ import annotations

from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData


def read_scalars(folder: Path) -> dict[str, dict[int, float]]:
    """The values of each tag by step; a step that comes twice is an error."""
    events = EventAccumulator(str(folder))
    events.Reload()
    scalars = {}
    for tag in events.Tags()["scalars"]:
        points = [(event.step, event.value) for event in events.Scalars(tag)]
        scalars[tag] = dict(points)
        assert len(scalars[tag]) == len(points), (tag, points)
    return scalars


def read_parameters(folder: Path) -> dict[str, object]:
    """The parameters of a run as the HParams page shows them, and the metrics that are beside them."""
    events = EventAccumulator(str(folder))
    events.Reload()
    content = events.PluginTagToContent("hparams")
    start = HParamsPluginData.FromString(content["_hparams_/session_start_info"]).session_start_info
    experiment = HParamsPluginData.FromString(content["_hparams_/experiment"]).experiment
    values = {name: getattr(value, value.WhichOneof("kind")) for name, value in start.hparams.items()}
    return {**values, "metrics": sorted(info.name.tag for info in experiment.metric_infos)}
