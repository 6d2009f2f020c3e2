/* The method "none": no parameters, nothing added. The baseline, and the test double of every
 * caller. */
#include "adapters/method.h"

static Status open_none(AdapterBank *bank, const AdapterSetup *setup, Error *error)
{
    (void)bank;
    (void)setup;
    (void)error;
    return STATUS_OK;
}

static void close_none(AdapterBank *bank)
{
    (void)bank;
}

static int64_t count_none(const AdapterSpec *spec, const ModelConfig *config)
{
    (void)spec;
    (void)config;
    return 0;
}

static void initial_none(const AdapterBank *bank, float *v)
{
    (void)bank;
    (void)v;
}

static void set_none(AdapterBank *bank, int adapter, const float *v, int n_threads)
{
    (void)bank;
    (void)adapter;
    (void)v;
    (void)n_threads;
}

static int shared_layers_none(const AdapterBank *bank, int a, int b)
{
    (void)a;
    (void)b;
    return bank->model->config.n_layers;
}

static void gradient_none(const AdapterBank *bank, int adapter, double *gradient)
{
    (void)bank;
    (void)adapter;
    (void)gradient;
}

const AdapterMethod adapter_method_none = {
    .name = "none",
    .open = open_none,
    .close = close_none,
    .count = count_none,
    .initial = initial_none,
    .set = set_none,
    .shared_layers = shared_layers_none,
    .clear = close_none,
    .gradient = gradient_none,
};
