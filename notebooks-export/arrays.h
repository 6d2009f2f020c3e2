/* A surface as files of arrays. Both give z[iy, ix]; what is missing is NaN; each file appears
 * whole. */
#pragma once
#include "core/text.h"
#include "notebooks-export/grid.h"

/* One HDF5 file with the names of Goldstein's loss-landscape, which its plot_2D.py and h52vtp.py
 * read: xcoordinates (nx), ycoordinates (ny), train_loss (ny, nx), train_acc in percent, with _se
 * behind their standard errors; other metrics under their own names. Attributes of the file:
 * surface_id, experiment, model, run_id, state, x_label, y_label, config; of a dataset: metric,
 * units and, where known, value, x and y of base, best and minimum. The trajectory, if there is
 * one, as proj_xcoord and proj_ycoord. The file is built in memory, so HDF5 locks nothing. The same
 * surface gives the same bytes. */
Status arrays_write_hdf5(const Grid *grid, const char *path, Error *error);

/* folder/x.npy (nx), y.npy (ny) and METRIC.npy (ny, nx): NPY 1.0, little-endian float64, C order.
 * files: appended, a path a line. */
Status arrays_write_npy(Text *files, const Grid *grid, const char *folder, Error *error);
