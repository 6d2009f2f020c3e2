/* What an adapter method is to the bank, inside this folder only: one const struct a method. */
#pragma once
#include "adapters/adapter.h"
#include "adapters/change.h"

typedef struct {
    const char *cache_directory; /* NULL: none */
    void (*progress)(void *, int, int);
    void *progress_context;
    int n_threads;
} AdapterSetup;

typedef struct {
    const char *name;
    /* Fill bank->state, n_parameters and hook or weight_gradients. On an error close is still
     * called. */
    Status (*open)(AdapterBank *bank, const AdapterSetup *setup, Error *error);
    void (*close)(AdapterBank *bank);
    /* As adapter_spec_parameters. */
    int64_t (*count)(const AdapterSpec *spec, const ModelConfig *config);
    void (*initial)(const AdapterBank *bank, float *v);
    void (*set)(AdapterBank *bank, int adapter, const float *v, int n_threads);
    /* As adapter_shared_layers, of two different adapters. */
    int (*shared_layers)(const AdapterBank *bank, int a, int b);
    void (*use_base)(AdapterBank *bank, bool base, int n_threads); /* NULL: nothing to do */
    void (*clear)(AdapterBank *bank);
    void (*gradient)(const AdapterBank *bank, int adapter, double *gradient);
    /* As adapter_modules, adapter_product and adapter_frozen (change.h); NULL: it has none. */
    const Module *(*modules)(const AdapterBank *bank, int *n);
    void (*product)(const AdapterBank *bank, int adapter, int module, float *a, float *b);
    bool (*frozen)(const AdapterBank *bank, int module, AdapterFrozen *frozen);
} AdapterMethod;

struct AdapterBank {
    const AdapterMethod *method;
    AdapterSpec spec;
    Model *model;
    int n_adapters;
    size_t n_parameters;
    LinearHook hook;                  /* forward is NULL: the method has none */
    WeightGradients weight_gradients; /* gradient is NULL: the method has none */
    void *state;                      /* the method's own */
};

extern const AdapterMethod adapter_method_tinylora, adapter_method_lora, adapter_method_lora_xs,
    adapter_method_full, adapter_method_none;
