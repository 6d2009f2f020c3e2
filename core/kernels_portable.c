/* The kernels in plain C, for any CPU. */
#define KERNELS kernels_portable
#define KERNELS_NAME "portable"
#define TILE_ROWS 4
#define TILE_VECTORS 1
#include "core/kernels_table.h"
#include "core/kernels_impl.h"
