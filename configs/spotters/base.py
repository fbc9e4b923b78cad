"""A phrase spotter for Whisper base: about an hour on two CPU cores, speech included."""

from cwjax.models.phrase_spotter import SpotterConfig
from cwjax.training.spotter import SpotterTraining

config = SpotterTraining(model="openai/whisper-base", size=SpotterConfig(text_layers=2), steps=6000)
