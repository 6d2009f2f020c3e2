/* A surface of 7 x 5 points with two metrics whose values are a function of the place. */
#pragma once
#include <math.h>
#include <sys/utsname.h>

#include "results/store_surface.h"
#include "tests/results_test.h"

enum { NX = 7, NY = 5, N_VALUES = 2 * NY };

static const char *const metric_names[] = {"loss", "accuracy"};

static const double plane[] = {0.31, -1.27, 2.385, 1, 0, 0, 0, 0.6, -0.8};
static const SurfaceInfo surface_info = {.surface_id = "5a0f3c1d2e4b6a70",
                                         .experiment = "e",
                                         .identity = "{\"a\":1}",
                                         .config = "{}",
                                         .model = "abacus",
                                         .n_parameters = 3,
                                         .plane = plane,
                                         .metrics = "[\"loss\",\"accuracy\"]",
                                         .x_label = "x",
                                         .y_label = "y",
                                         .nx = NX,
                                         .ny = NY,
                                         .x_min = -0.3,
                                         .x_max = 0.3,
                                         .y_min = -0.2,
                                         .y_max = 0.2};
static const int in_order[NX] = {0, 1, 2, 3, 4, 5, 6};

static inline double surface_value(int i, int j, int metric)
{
    return sin(0.31 * i + 1.27 * j + 2.385 * metric);
}

/* All values of row i, or those of a lattice of stride 2. */
static inline size_t row_values(SurfaceValue values[N_VALUES], int i, int stride)
{
    size_t n = 0;
    for (int j = 0; j < NY; j += stride) {
        for (int m = 0; m < 2; m++) {
            values[n++] = (SurfaceValue){j, metric_names[m], -0.3 + 0.1 * i, -0.2 + 0.1 * j,
                                         surface_value(i, j, m)};
        }
    }
    return n;
}

/* This process, as a worker. */
static inline Worker worker_here(void)
{
    static char host[64], boot_id[64];
    struct utsname names;
    uname(&names);
    snprintf(host, sizeof host, "%.60s", names.nodename);
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "r");
    if (file) {
        if (!fgets(boot_id, sizeof boot_id, file)) {
            boot_id[0] = 0;
        }
        boot_id[strcspn(boot_id, "\n")] = 0;
        fclose(file);
    }
    return (Worker){
        .host = host, .pid = getpid(), .boot_id = boot_id, .environment = "{\"threads\":1}"};
}

static inline Store *open_with_surface(StoreMode mode)
{
    Store *store = NULL;
    RunState state;
    assert_ok(store_open(&store, path, mode, 5000, error));
    assert_ok(store_experiment(store, "e", "{}", 1.0, error));
    assert_ok(store_surface(store, &surface_info, 2.0, &state, error));
    return store;
}

static const char *const id = "5a0f3c1d2e4b6a70";

static inline SurfaceLease claim(Store *store, const Worker *worker, const int *order, int stride,
                                 double now_s)
{
    SurfaceLease lease = {0};
    assert_ok(
        store_surface_claim(store, id, worker, order, NX, stride, now_s, 60.0, &lease, error));
    return lease;
}

static inline void commit(Store *store, const SurfaceLease *lease, double now_s)
{
    SurfaceValue values[N_VALUES];
    bool kept = false;
    size_t n = row_values(values, lease->i, lease->preview ? 2 : 1);
    assert_ok(store_surface_commit(store, id, lease, values, n, now_s, &kept, error));
    assert_true(kept);
}
