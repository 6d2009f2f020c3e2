/* The only door to the HDF5 library. The file is made by its core driver, which keeps it in memory
 * and writes nothing, and then taken out as an image: no lock is ever asked for (users of
 * loss-landscape hang on them), and a file appears whole or not at all. */
#include <hdf5.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "notebooks-export/arrays.h"

enum { IMAGE_STEP_BYTES = 1 << 20 };

/* Every handle is checked; the first failure ends the writing. Negative ids are closed by nobody.
 */
static bool add_text(hid_t owner, const char *name, const char *text)
{
    hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate(H5S_SCALAR);
    bool done = text && type >= 0 && space >= 0 && H5Tset_size(type, H5T_VARIABLE) >= 0 &&
                H5Tset_cset(type, H5T_CSET_UTF8) >= 0;
    hid_t attribute =
        done ? H5Acreate2(owner, name, type, space, H5P_DEFAULT, H5P_DEFAULT) : H5I_INVALID_HID;
    done = attribute >= 0 && H5Awrite(attribute, type, &text) >= 0;
    H5Aclose(attribute);
    H5Sclose(space);
    H5Tclose(type);
    return done || !text;
}

static bool add_number(hid_t owner, const char *name, double value)
{
    hid_t space = H5Screate(H5S_SCALAR);
    hid_t attribute = H5Acreate2(owner, name, H5T_IEEE_F64LE, space, H5P_DEFAULT, H5P_DEFAULT);
    bool done = attribute >= 0 && H5Awrite(attribute, H5T_NATIVE_DOUBLE, &value) >= 0;
    H5Aclose(attribute);
    H5Sclose(space);
    return done;
}

/* *dataset stays open for attributes. Without times, so that the same numbers give the same bytes.
 */
static bool add_array(hid_t *dataset, hid_t file, const char *name, const double *values, int rank,
                      hsize_t rows, hsize_t columns)
{
    hsize_t shape[2] = {rows, columns};
    hid_t space = H5Screate_simple(rank, shape, NULL);
    hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_obj_track_times(creation, false);
    *dataset = H5Dcreate2(file, name, H5T_IEEE_F64LE, space, H5P_DEFAULT, creation, H5P_DEFAULT);
    bool done = *dataset >= 0 &&
                H5Dwrite(*dataset, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0;
    H5Pclose(creation);
    H5Sclose(space);
    return done;
}

static bool add_vector(hid_t file, const char *name, const double *values, size_t n)
{
    hid_t dataset;
    bool done = add_array(&dataset, file, name, values, 1, n, 0);
    H5Dclose(dataset);
    return done;
}

/* loss -> train_loss, accuracy -> train_acc, and their standard errors. */
static void landscape_name(Text *name, const char *metric)
{
    if (strcmp(metric, "loss") == 0 || strcmp(metric, "loss_se") == 0) {
        text_printf(name, "train_%s", metric);
    } else if (strcmp(metric, "accuracy") == 0 || strcmp(metric, "accuracy_se") == 0) {
        text_printf(name, "train_acc%s", metric + strlen("accuracy"));
    } else {
        text_add(name, metric);
    }
}

static bool add_metric(hid_t file, const Grid *grid, const GridMetric *metric)
{
    size_t n = (size_t)grid->surface.nx * (size_t)grid->surface.ny;
    bool percent = strncmp(metric->name, "accuracy", strlen("accuracy")) == 0;
    double scale = percent ? 100 : 1;
    double *values = malloc(n * sizeof *values);
    if (!values) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        values[i] = scale * metric->z[i];
    }
    Text name = {0};
    landscape_name(&name, metric->name);
    hid_t dataset;
    bool done = add_array(&dataset, file, name.bytes, values, 2, (hsize_t)grid->surface.ny,
                          (hsize_t)grid->surface.nx);
    done = done && add_text(dataset, "metric", metric->name);
    done = done && add_text(dataset, "units", percent ? "percent" : metric->units);
    static const char *const kinds[] = {"base", "best", "minimum"};
    for (size_t i = 0; done && i < sizeof kinds / sizeof *kinds; i++) {
        double x, y, value;
        if (grid_mark(grid, kinds[i], metric->name, &x, &y, &value)) {
            const char *const suffixes[] = {"value", "x", "y"};
            const double numbers[] = {scale * value, x, y};
            for (int k = 0; done && k < 3; k++) {
                text_clear(&name);
                text_printf(&name, "%s_%s", kinds[i], suffixes[k]);
                done = add_number(dataset, name.bytes, numbers[k]);
            }
        }
    }
    H5Dclose(dataset);
    text_release(&name);
    free(values);
    return done;
}

/* The checkpoints of the first run that has a path, in the names of loss-landscape's projections.
 */
static bool add_trajectory(hid_t file, const Grid *grid)
{
    size_t n = 0, n_marks = grid->marks.n_rows;
    double *x = malloc((n_marks + 1) * sizeof *x), *y = malloc((n_marks + 1) * sizeof *y);
    const char *run = NULL;
    for (size_t row = 0; x && y && row < n_marks; row++) {
        const char *name = frame_text(&grid->marks, "name", row);
        if (strcmp(frame_text(&grid->marks, "kind", row), "path") == 0 &&
            (!run || strcmp(run, name) == 0)) {
            run = name;
            x[n] = frame_number(&grid->marks, "x", row);
            y[n++] = frame_number(&grid->marks, "y", row);
        }
    }
    bool done = x && y &&
                (n == 0 ||
                 (add_vector(file, "proj_xcoord", x, n) && add_vector(file, "proj_ycoord", y, n)));
    free(x);
    free(y);
    return done;
}

static bool add_surface(hid_t file, const Grid *grid)
{
    const StoredSurface *surface = &grid->surface;
    bool done =
        add_text(file, "surface_id", surface->surface_id) &&
        add_text(file, "experiment", surface->experiment) &&
        add_text(file, "model", surface->model) && add_text(file, "run_id", surface->run_id) &&
        add_text(file, "state", run_state_name(surface->state)) &&
        add_text(file, "x_label", surface->x_label) &&
        add_text(file, "y_label", surface->y_label) && add_text(file, "config", surface->config) &&
        add_vector(file, "xcoordinates", grid->x, (size_t)surface->nx) &&
        add_vector(file, "ycoordinates", grid->y, (size_t)surface->ny);
    for (size_t i = 0; done && i < grid->n_metrics; i++) {
        done = add_metric(file, grid, &grid->metrics[i]);
    }
    return done && add_trajectory(file, grid);
}

Status arrays_write_hdf5(const Grid *grid, const char *path, Error *error)
{
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL); /* it would print to stderr */
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_fapl_core(access, IMAGE_STEP_BYTES, false);
    hid_t file = H5Fcreate("surface.h5", H5F_ACC_TRUNC, H5P_DEFAULT, access);
    void *image = NULL;
    ssize_t n = -1;
    if (file >= 0 && add_surface(file, grid) && H5Fflush(file, H5F_SCOPE_GLOBAL) >= 0) {
        n = H5Fget_file_image(file, NULL, 0);
        image = n > 0 ? malloc((size_t)n) : NULL;
        n = image ? H5Fget_file_image(file, image, (size_t)n) : -1;
    }
    Status status = n > 0 ? file_write(path, image, (size_t)n, error)
                          : error_set(error, STATUS_FAILED, "%s: HDF5 cannot hold surface %s", path,
                                      grid->surface.surface_id);
    free(image);
    H5Fclose(file);
    H5Pclose(access);
    return status;
}
