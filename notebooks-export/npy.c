/* NPY 1.0 (numpy.lib.format): magic, version, length of the header, a Python dict padded with
 * blanks so that the data begins at a multiple of 64, then the data. */
#include <string.h>

#include "core/file.h"
#include "notebooks-export/arrays.h"

static void add_little_endian(Text *out, const double *values, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint64_t bits;
        char bytes[8];
        memcpy(&bits, &values[i], sizeof bits);
        for (int k = 0; k < 8; k++) {
            bytes[k] = (char)(bits >> (8 * k) & 255);
        }
        text_append(out, bytes, sizeof bytes);
    }
}

/* shape: "21," or "21, 41". */
static Status write_array(Text *files, const char *folder, const char *name, const char *shape,
                          const double *values, size_t n, Error *error)
{
    Text header = {0}, out = {0}, file = {0};
    char path[FILE_PATH_MAX];
    text_printf(&header, "{'descr': '<f8', 'fortran_order': False, 'shape': (%s), }", shape);
    while ((10 + header.n + 1) % 64 != 0) {
        text_add(&header, " ");
    }
    text_add(&header, "\n");
    text_append(&out, "\x93NUMPY\x01\x00", 8);
    char length[2] = {(char)(header.n & 255), (char)(header.n >> 8)};
    text_append(&out, length, 2);
    text_append(&out, header.bytes, header.n);
    add_little_endian(&out, values, n);
    text_printf(&file, "%s.npy", name);
    Status status = path_join(path, folder, file.bytes, error);
    status = status ? status : file_write(path, out.bytes, out.n, error);
    if (!status) {
        text_printf(files, "%s\n", path);
    }
    text_release(&header);
    text_release(&out);
    text_release(&file);
    return status;
}

Status arrays_write_npy(Text *files, const Grid *grid, const char *folder, Error *error)
{
    Text shape = {0};
    size_t nx = (size_t)grid->surface.nx, ny = (size_t)grid->surface.ny;
    text_printf(&shape, "%zu,", nx);
    Status status = write_array(files, folder, "x", shape.bytes, grid->x, nx, error);
    text_clear(&shape);
    text_printf(&shape, "%zu,", ny);
    status = status ? status : write_array(files, folder, "y", shape.bytes, grid->y, ny, error);
    text_clear(&shape);
    text_printf(&shape, "%zu, %zu", ny, nx);
    for (size_t i = 0; !status && i < grid->n_metrics; i++) {
        status = write_array(files, folder, grid->metrics[i].name, shape.bytes, grid->metrics[i].z,
                             nx * ny, error);
    }
    text_release(&shape);
    return status;
}
