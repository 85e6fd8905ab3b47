"""The probes on features whose mutual information is known: within 5 %."""

import pytest

from infopro.analysis import ProbeSettings
from infopro.analysis.calibration import calibrate_classes, calibrate_decoder, calibrate_gaussian
from infopro.analysis.known_information import (
    binned_information,
    channel_information,
    class_information,
    gaussian_information,
)

SETTINGS = ProbeSettings(epochs=1, steps=300)


def test_integrals_have_their_limits():
    assert class_information(1e-6, num_classes=3) == pytest.approx(0, abs=1e-9)
    assert class_information(50.0, num_classes=3) == pytest.approx(1.0986123, abs=1e-6)
    assert binned_information(0.8, bins=200) == pytest.approx(gaussian_information(0.8), rel=5e-3)
    assert binned_information(0.0, bins=8) == pytest.approx(0, abs=1e-9)
    assert binned_information(0.8, bins=4) < binned_information(0.8, bins=8) < gaussian_information(0.8)
    assert channel_information(0.5) == pytest.approx(0, abs=1e-12)


def test_gaussian_nuisance():
    (found,) = calibrate_gaussian(0.95, settings=SETTINGS, num_train=6_000, num_test=20_000)
    assert found == pytest.approx(binned_information(0.95, bins=8), rel=0.05)


def test_gaussian_classes():
    found = calibrate_classes(3.0, num_classes=3, settings=SETTINGS, num_train=8_000, num_test=20_000)
    for capacity in ("small", "large"):
        assert found[capacity][0] == pytest.approx(class_information(3.0, num_classes=3), rel=0.05)


def test_decoder_behind_a_binary_channel():
    (found,) = calibrate_decoder(0.1, settings=SETTINGS, num_train=8_000, num_test=1_000)
    assert found == pytest.approx(channel_information(0.1), rel=0.05)


def test_features_that_say_nothing_are_worth_nothing():
    (gaussian,) = calibrate_gaussian(0.0, settings=SETTINGS, num_train=2_000, num_test=4_000)
    (channel,) = calibrate_decoder(0.5, settings=SETTINGS, num_train=8_000, num_test=500)
    assert -0.05 < gaussian < 0.01 and -0.01 < channel < 0.001
