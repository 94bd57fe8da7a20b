"""The tables that tfaug writes, read again."""

import numpy as np
import pandas as pd
import pytest

from tfaug import tables


def test_names_stay_as_they_are_and_numbers_are_numbers(tmp_path):
    written = pd.DataFrame(
        {
            "case": ["001", "NA", "1e5"],
            "structure": ["nan", "Myo", "True"],
            "dice": [0.5, np.nan, 1.0],
            "hd95_mm": [3.0, 4.0, np.nan],
            "in_neither": [False, True, False],
            "problems": ["", "is damaged", ""],
        }
    )
    written.to_csv(tmp_path / "table.csv", index=False)
    pd.testing.assert_frame_equal(tables.read(tmp_path / "table.csv"), written)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe"])
def test_what_is_no_table_is_a_value_error(tmp_path, content):
    (tmp_path / "table.csv").write_bytes(content)
    with pytest.raises(ValueError):
        tables.read(tmp_path / "table.csv")
