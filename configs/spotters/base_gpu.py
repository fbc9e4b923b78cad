"""The phrase spotter that comes with Whisper base: six minutes on an H100, after an hour of speech on two CPU cores.

New windows are mixed and encoded at every step, so that the larger Whispers, whose encoded windows would fill a disk,
take `--model` and `--output` alone.
"""

from cwjax.models.phrase_spotter import SpotterConfig
from cwjax.spotting.batches import BatchSettings
from cwjax.training.spotter import SpotterTraining

config = SpotterTraining(
    model="openai/whisper-base",
    size=SpotterConfig(text_layers=2),
    sentences=9200,
    batch=BatchSettings(slices=96, slice_seconds=7.5),
    steps=11200,
)
