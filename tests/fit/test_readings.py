"""Which readings go with the others of their cell."""

import numpy as np

from tests.fit.conftest import agree, changed, quiet


def test_outliers_are_left_out_and_counted(columns, clean):
    generator = np.random.default_rng(0)
    odd = generator.random(len(columns["cell"])) < 0.02
    fit = quiet(changed(columns, measured=np.where(odd, 10 * columns["measured"], columns["measured"])))
    (told,) = [note for note in fit.report.notes if "left out" in note]
    # Ten times a reading next to zero is no outlier.
    high = int((odd & (columns["target"] > 0)).sum())
    assert high - 5 <= int(told.split()[0]) <= odd.sum() + 5
    agree(fit, clean, 0.1)
