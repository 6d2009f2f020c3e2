/* Surfaces as HDF5 and NPY: shapes, names, holes, bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <hdf5.h>
#include <sys/file.h>

#include "notebooks-export/arrays.h"
#include "tests/notebooks_fixture.h"

static Grid grid;

static int setup(void **state)
{
    Error error = {0};
    Store *store;
    if (fixture_setup(state) || store_open(&store, "results.db", STORE_READ, 0, &error) ||
        grid_read(&grid, store, "0123", &error)) {
        return 1;
    }
    store_close(store);
    return 0;
}

static int teardown(void **state)
{
    grid_release(&grid);
    return fixture_teardown(state);
}

static void a_grid_has_y_by_rows_and_nan_where_nothing_is(void **state)
{
    (void)state;
    assert_int_equal(grid.n_metrics, 3);
    assert_string_equal(grid.metrics[0].name, "loss"); /* the surface's own order */
    assert_string_equal(grid.metrics[1].name, "accuracy");
    assert_string_equal(grid.metrics[2].name, "loss_se");
    assert_string_equal(grid.metrics[2].units, "nats per token");
    assert_true(grid.x[0] == -0.1 && grid.x[2] == 0 && grid.x[4] == 0.1);
    assert_true(grid.y[0] == -0.3 && grid.y[3] == 0.6);
    for (int j = 0; j < FIXTURE_NY; j++) {
        for (int i = 0; i < FIXTURE_NX; i++) {
            double z = grid.metrics[0].z[j * FIXTURE_NX + i];
            if (i == 3 || (i == 1 && j == 2)) {
                assert_true(isnan(z));
            } else {
                assert_true(z == fixture_loss(i, j));
            }
        }
    }
    double x, y, value;
    assert_true(grid_mark(&grid, "minimum", "loss", &x, &y, &value));
    assert_true(x == 0.003 && y == 0.011 && value == 1.2421);
    assert_false(grid_mark(&grid, "minimum", "accuracy", &x, &y, &value));
}

static void hdf5_has_the_names_and_the_order_of_loss_landscape(void **state)
{
    (void)state;
    Error error = {0};
    assert_int_equal(arrays_write_hdf5(&grid, "surface.h5", &error), STATUS_OK);
    hid_t file = H5Fopen("surface.h5", H5F_ACC_RDONLY, H5P_DEFAULT);
    assert_true(file >= 0);
    double loss[FIXTURE_NY][FIXTURE_NX], share[FIXTURE_NY][FIXTURE_NX], x[FIXTURE_NX], units;
    hid_t train_loss = H5Dopen2(file, "train_loss", H5P_DEFAULT);
    hid_t train_acc = H5Dopen2(file, "train_acc", H5P_DEFAULT);
    hid_t coordinates = H5Dopen2(file, "xcoordinates", H5P_DEFAULT);
    hid_t space = H5Dget_space(train_loss);
    hsize_t shape[2];
    assert_int_equal(H5Sget_simple_extent_dims(space, shape, NULL), 2);
    assert_int_equal(shape[0], FIXTURE_NY);
    assert_int_equal(shape[1], FIXTURE_NX);
    assert_true(H5Dread(train_loss, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, loss) >= 0);
    assert_true(H5Dread(train_acc, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, share) >= 0);
    assert_true(H5Dread(coordinates, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, x) >= 0);
    assert_true(loss[3][4] == fixture_loss(4, 3) && isnan(loss[0][3]) && isnan(loss[2][1]));
    assert_true(share[3][4] == 100 / (1 + fixture_loss(4, 3)) ||
                fabs(share[3][4] - 100 / (1 + fixture_loss(4, 3))) < 1e-12); /* one rounding */
    assert_true(x[4] == 0.1);
    hid_t base = H5Aopen(train_acc, "base_value", H5P_DEFAULT);
    assert_true(H5Aread(base, H5T_NATIVE_DOUBLE, &units) >= 0);
    assert_true(units == 43.75);
    H5Aclose(base);
    H5Sclose(space);
    H5Dclose(coordinates);
    H5Dclose(train_acc);
    H5Dclose(train_loss);
    H5Fclose(file);
}

static void a_lock_on_the_file_keeps_nobody_from_writing_it_anew_to_the_same_bytes(void **state)
{
    (void)state;
    Error error = {0};
    size_t n_first, n_second;
    assert_int_equal(arrays_write_hdf5(&grid, "again.h5", &error), STATUS_OK);
    char *first = fixture_slurp("again.h5", &n_first);
    int held = open("again.h5", O_RDWR);
    assert_int_equal(flock(held, LOCK_EX | LOCK_NB), 0); /* what HDF5 itself would ask for */
    sleep(1);                                            /* times in the file would differ */
    assert_int_equal(arrays_write_hdf5(&grid, "again.h5", &error), STATUS_OK);
    close(held);
    char *second = fixture_slurp("again.h5", &n_second);
    assert_int_equal(n_first, n_second);
    assert_memory_equal(first, second, n_first);
    free(first);
    free(second);
}

static void what_cannot_be_written_is_named_and_nothing_appears(void **state)
{
    (void)state;
    Error error = {0};
    Text files = {0};
    assert_int_equal(arrays_write_hdf5(&grid, "no/such/folder.h5", &error), STATUS_FAILED);
    assert_non_null(strstr(error.message, "no/such/folder.h5"));
    assert_int_equal(arrays_write_npy(&files, &grid, "no/such", &error), STATUS_FAILED);
    assert_non_null(strstr(error.message, "no/such/x.npy"));
    assert_int_equal(files.n, 0);
    text_release(&files);
}

static void npy_files_are_version_1_with_aligned_data(void **state)
{
    (void)state;
    Error error = {0};
    Text files = {0};
    size_t n;
    assert_int_equal(arrays_write_npy(&files, &grid, ".", &error), STATUS_OK);
    assert_string_equal(files.bytes,
                        "./x.npy\n./y.npy\n./loss.npy\n./accuracy.npy\n./loss_se.npy\n");
    unsigned char *bytes = (unsigned char *)fixture_slurp("loss.npy", &n);
    assert_memory_equal(bytes, "\x93NUMPY\x01\x00", 8);
    size_t start = 10 + bytes[8] + 256u * bytes[9];
    assert_int_equal(start % 64, 0);
    assert_int_equal(n, start + 8 * FIXTURE_NX * FIXTURE_NY);
    assert_non_null(strstr((char *)bytes + 10, "'shape': (4, 5), }"));
    double z;
    memcpy(&z, bytes + start + 8 * (3 * FIXTURE_NX + 4),
           sizeof z); /* this machine: little-endian */
    assert_true(z == fixture_loss(4, 3));
    free(bytes);
    text_release(&files);
}

/* A copy of results.db that somebody changed; false where there is no Python. */
static bool change(const char *sql)
{
    char command[512];
    snprintf(command, sizeof command,
             "cp results.db changed.db && /usr/bin/python3 -c 'import sqlite3, sys; c = "
             "sqlite3.connect(\"changed.db\"); c.execute(sys.argv[1]); c.commit()' \"%s\"",
             sql);
    return system(command) == 0;
}

static void a_database_of_somebody_else_names_no_files_and_takes_no_memory(void **state)
{
    (void)state;
    static const struct {
        const char *sql, *message;
    } cases[] = {
        {"UPDATE surface_point SET metric = '../../x' WHERE metric = 'accuracy'",
         "surface " FIXTURE_SURFACE ": \"../../x\" is no name of a metric"},
        {"UPDATE surface SET nx = 2000000000, ny = 2000000000",
         "surface " FIXTURE_SURFACE " has 2000000000 x 2000000000 points, more than 100000000"},
        {"UPDATE surface_point SET value = NULL",
         "surface " FIXTURE_SURFACE " has no finished row yet"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Error error = {0};
        Grid other = {0};
        Store *store;
        if (!change(cases[i].sql)) {
            print_message("skipped: no /usr/bin/python3\n");
            skip();
        }
        assert_int_equal(store_open(&store, "changed.db", STORE_READ, 0, &error), STATUS_OK);
        assert_int_equal(grid_read(&other, store, FIXTURE_SURFACE, &error),
                         i == 2 ? STATUS_FAILED : STATUS_REFUSED);
        assert_string_equal(error.message, cases[i].message);
        grid_release(&other);
        store_close(store);
    }
}

static void python_reads_both(void **state)
{
    (void)state;
    Error error = {0};
    Text files = {0};
    assert_int_equal(arrays_write_hdf5(&grid, "python.h5", &error), STATUS_OK);
    assert_int_equal(arrays_write_npy(&files, &grid, ".", &error), STATUS_OK);
    fixture_python("h5py, numpy", SOURCE_DIR "/tests/notebooks_arrays.py", "python.h5 .");
    text_release(&files);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_grid_has_y_by_rows_and_nan_where_nothing_is),
        cmocka_unit_test(hdf5_has_the_names_and_the_order_of_loss_landscape),
        cmocka_unit_test(a_lock_on_the_file_keeps_nobody_from_writing_it_anew_to_the_same_bytes),
        cmocka_unit_test(what_cannot_be_written_is_named_and_nothing_appears),
        cmocka_unit_test(npy_files_are_version_1_with_aligned_data),
        cmocka_unit_test(a_database_of_somebody_else_names_no_files_and_takes_no_memory),
        cmocka_unit_test(python_reads_both),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
