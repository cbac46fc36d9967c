"""Interactions, items and users: reading, splitting, keeping."""

import pandas as pd

if pd.__version__.startswith("2."):  # on Python 3.10: text columns as in pandas 3, where missing stays missing
    pd.set_option("future.infer_string", True)
