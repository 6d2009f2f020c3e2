"""h5py and NumPy read an exported surface the way loss-landscape's plot_2D.py does."""
import sys
import warnings

import h5py
import numpy as np

warnings.simplefilter("error")
path, folder = sys.argv[1:]
with h5py.File(path, "r") as f:
    x, y = np.array(f["xcoordinates"][:]), np.array(f["ycoordinates"][:])
    X, Y = np.meshgrid(x, y)
    Z = np.array(f["train_loss"][:])
    assert Z.shape == X.shape == (4, 5) and Z.dtype == np.float64
    i, j = np.rint((X + 0.1) / 0.05), np.rint((Y + 0.3) / 0.3)
    expected = 1.25 + 0.31 * (i - 2) ** 2 + 0.0427 * (j - 1) ** 2 + 0.017 * i * j
    there = (i != 3) & ~((i == 1) & (j == 2))
    assert (np.isfinite(Z) == there).all()
    assert np.abs(Z - expected)[there].max() < 1e-12  # the same sums, rounded in another order
    assert np.nanmax(f["train_acc"][:]) > 1  # percent
    assert list(f["proj_xcoord"][:]) == [0.01, 0.02]
    assert f.attrs["surface_id"] == "0123456789abcdef" and f.attrs["state"] == "running"
    assert "über" in f.attrs["experiment"]
    assert f["train_loss"].attrs["units"] == "nats per token"
    assert f["train_loss"].attrs["minimum_value"] == 1.2421
    for name, dataset in [("x", x), ("y", y), ("loss", Z), ("accuracy", f["train_acc"][:] / 100)]:
        array = np.load(f"{folder}/{name}.npy", allow_pickle=False)
        assert array.dtype == "<f8" and array.flags.c_contiguous
        assert np.allclose(array, dataset, rtol=1e-15, atol=0, equal_nan=True), name
