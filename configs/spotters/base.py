"""A phrase spotter for Whisper base: about an hour on two CPU cores, speech included."""

from cwjax.training.spotter import SpotterTraining

config = SpotterTraining(model="openai/whisper-base")
