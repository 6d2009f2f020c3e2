/* tinylora export hdf5 · tinylora export npy */
#include "cli/options.h"
#include "cli/verbs.h"
#include "cli/written.h"
#include "core/file.h"
#include "notebooks-export/arrays.h"

typedef Status WriteGrid(Text *files, const Grid *grid, const char *path, Error *error);

static Status write_hdf5(Text *files, const Grid *grid, const char *path, Error *error)
{
    Status status = arrays_write_hdf5(grid, path, error);
    if (!status) {
        text_printf(files, "%s\n", path);
    }
    return status;
}

static Status write_npy(Text *files, const Grid *grid, const char *path, Error *error)
{
    Status status = directory_make(path, error);
    return status ? status : arrays_write_npy(files, grid, path, error);
}

static Status run(Cli *cli, int argc, char **argv, WriteGrid *write, const char *kind, Error *error)
{
    const char *id = NULL, *path;
    const Option options[] = {{"--surface", OPTION_TEXT, &id, 0, 0}};
    Store *store;
    Grid grid = {0};
    Text files = {0};
    Status status = options_parse(cli, options, 1, argc, argv, &path, 1, 1, error);
    if (!status && !id) {
        status = error_set(error, STATUS_USAGE, "--surface: a surface is missing");
    }
    status = status ? status : cli_open_store(cli, &store, error);
    if (status) {
        return status;
    }
    status = grid_read(&grid, store, id, error);
    store_close(store);
    status = status ? status : write(&files, &grid, path, error);
    status = status ? status : cli_written(cli, &files, kind, grid.surface.surface_id, error);
    if (!status && grid.surface.rows_done < grid.surface.nx) {
        cli_note(cli, "surface %s: %d of %d rows are done; what is missing is NaN",
                 grid.surface.surface_id, grid.surface.rows_done, grid.surface.nx);
    }
    grid_release(&grid);
    text_release(&files);
    return status;
}

static Status run_hdf5(Cli *cli, int argc, char **argv, Error *error)
{
    return run(cli, argc, argv, write_hdf5, "hdf5", error);
}

static Status run_npy(Cli *cli, int argc, char **argv, Error *error)
{
    return run(cli, argc, argv, write_npy, "npy", error);
}

const Verb verb_export_hdf5 = {
    .name = "export hdf5",
    .summary = "a surface as an HDF5 file, as loss-landscape names things",
    .usage = "--surface ID FILE",
    .help =
        "Datasets: xcoordinates, ycoordinates, train_loss, train_acc (percent), reward, entropy, "
        "kl,\n"
        "grad_norm as far as they were measured, with _se for standard errors; (ny, nx), as\n"
        "numpy.meshgrid(xcoordinates, ycoordinates) wants it; NaN where there is no value. "
        "Attributes say\n"
        "what it is, its units, and where base, best point and minimum are. plot_2D.py and "
        "h52vtp.py of\n"
        "loss-landscape read it.\n\n"
        "  --surface ID   a surface_id, the start of one, or an experiment with one surface\n\n"
        "examples:\n"
        "  tinylora export hdf5 --surface 5a0f surface.h5\n"
        "  tinylora export hdf5 --surface abacus-surface surface.h5\n",
    .run = run_hdf5,
};

const Verb verb_export_npy = {
    .name = "export npy",
    .summary = "a surface as NumPy arrays",
    .usage = "--surface ID DIR",
    .help = "Writes x.npy (nx), y.npy (ny) and a METRIC.npy (ny, nx) for each metric, float64; NaN "
            "where\n"
            "there is no value. numpy.load(FILE, allow_pickle=False) reads them.\n\n"
            "  --surface ID   a surface_id, the start of one, or an experiment with one surface\n\n"
            "examples:\n"
            "  tinylora export npy --surface 5a0f arrays\n"
            "  tinylora export npy --surface abacus-surface arrays/abacus\n",
    .run = run_npy,
};
