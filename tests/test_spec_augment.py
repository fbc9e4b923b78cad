"""SpecAugment hides stretches and bands of the wanted sizes, each example's by its own key."""

import jax
import numpy as np
import pytest

from cwjax.errors import CwjaxError
from cwjax.models.spec_augment import SpecAugmentSettings, spec_augment

pytestmark = pytest.mark.usefixtures("quick_compilation")

FRAMES, MELS, BATCH = 200, 40, 64
SETTINGS = SpecAugmentSettings(time_masks=2, longest_time_mask=30, frequency_masks=1, widest_frequency_mask=8)


@pytest.fixture(scope="module")
def masked():
    """Where the features of each example are masked, (B, F, M)."""
    keys = jax.random.split(jax.random.key(0), BATCH)
    return np.asarray(jax.jit(spec_augment, static_argnums=2)(np.ones((BATCH, FRAMES, MELS)), keys, SETTINGS)) == 0


def test_whole_frames_and_whole_bands_are_hidden(masked):
    times, bands = masked.all(axis=2), masked.all(axis=1)
    np.testing.assert_array_equal(masked, times[:, :, None] | bands[:, None])
    runs = np.diff(np.pad(times, ((0, 0), (1, 1))).astype(int), axis=1) == 1
    assert runs.sum(axis=1).max() <= 2
    assert times.sum(axis=1).max() <= 2 * 30
    assert bands.sum(axis=1).max() <= 8


def test_lengths_and_places_are_drawn_evenly(masked):
    times, bands = masked.all(axis=2), masked.all(axis=1)
    assert times.sum(axis=1).mean() == pytest.approx(2 * 15, rel=0.25)  # a little less, as stretches overlap
    assert bands.sum(axis=1).mean() == pytest.approx(4, rel=0.3)
    assert len(np.unique(times, axis=0)) == BATCH
    assert times.any(axis=0).mean() > 0.95  # no part of the window is safe


def test_masks_belong_to_the_example_and_not_to_its_batch(masked):
    keys = jax.random.split(jax.random.key(0), BATCH)
    alone = np.asarray(spec_augment(np.ones((1, FRAMES, MELS)), keys[5:6], SETTINGS)) == 0
    np.testing.assert_array_equal(alone[0], masked[5])


def test_nothing_is_hidden_by_default_and_masks_may_be_longer_than_the_window():
    features = np.random.default_rng(0).normal(size=(2, 10, 4))
    keys = jax.random.split(jax.random.key(0), 2)
    assert not SpecAugmentSettings().masks
    np.testing.assert_array_equal(spec_augment(features, keys, SpecAugmentSettings()), features.astype(np.float32))
    assert spec_augment(features, keys, SpecAugmentSettings(3, 1000, 3, 1000)).shape == features.shape
    with pytest.raises(CwjaxError, match=r"spec_augment\.time_masks"):
        SpecAugmentSettings(time_masks=-1)
