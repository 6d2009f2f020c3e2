/* The TinyLoRA hook behind a fake engine: a plain double reference, central differences, and the
 * law on bits. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "adapters/adapter.h"
#include "adapters/factors.h"
#include "tests/tiny_model.h"

enum { MAX_ROWS = 1024, ALL_TARGETS = (1 << N_ROLES) - 1 };

static Model
    *model; /* layers with odd and even sizes; more rows than one thread keeps for itself */
static Error error;

static int open_model(void **state)
{
    (void)state;
    ModelConfig config = tiny_config(ARCHITECTURE_LLAMA, true);
    config.n_layers = 4;
    config.ff_width = 141;
    model = tiny_model_open(&config, 5);
    return 0;
}

static int close_model(void **state)
{
    (void)state;
    model_free(model);
    return 0;
}

static AdapterSpec spec_of(int rank, int u, int groups, TieRule tie)
{
    return (AdapterSpec){.method = "tinylora",
                         .plan = {.rank = rank, .u = u, .groups = groups, .tie = tie},
                         .targets = ALL_TARGETS,
                         .seed = 13,
                         .scale = 0.83f};
}

static AdapterBank *open_bank(AdapterSpec spec, int n_adapters)
{
    AdapterBank *bank;
    if (spec.plan.groups > 1 && spec.plan.tie == TIE_TILED) {
        spec.plan.grouping = GROUPING_BALANCED;
    }
    tiny_require(adapter_bank_new(&bank, model, &spec, n_adapters, 2, NULL, NULL, NULL, &error),
                 &error);
    return bank;
}

/* One call on one module: rows of spans with random contents. */
typedef struct {
    int module, n_in, n_out, width, n_rows, n_spans;
    RowSpan spans[16];
    float *x, *y, *y0, *saved, *dx, *dx0, *dy;
} Call;

static float *random_floats(size_t n, uint32_t stream)
{
    float *values = malloc((n + 1) * sizeof *values);
    for (size_t i = 0; i < n; i++) {
        values[i] = (float)random_normal((RandomKey){99, RANDOM_DATA}, (uint32_t)i, stream, 0, 0);
    }
    return values;
}

static void call_init(Call *c, const AdapterBank *bank, int module, const int *rows,
                      const int *adapters, int n_spans)
{
    *c = (Call){.module = module, .n_spans = n_spans};
    role_shape(&model->config, (Role)(module % N_ROLES), &c->n_out, &c->n_in);
    for (int i = 0; i < n_spans; i++) {
        c->spans[i] = (RowSpan){i, adapters[i], c->n_rows, rows[i], i, 0};
        c->n_rows += rows[i];
    }
    c->width = adapter_hook(bank)->saved_width(adapter_hook(bank)->context, module);
    size_t n = (size_t)c->n_rows;
    c->x = random_floats(n * c->n_in, 1);
    c->y0 = random_floats(n * c->n_out, 2);
    c->y = random_floats(n * c->n_out, 2);
    c->dx0 = random_floats(n * c->n_in, 3);
    c->dx = random_floats(n * c->n_in, 3);
    c->dy = random_floats(n * c->n_out, 4);
    c->saved = malloc((n * c->width + 1) * sizeof *c->saved);
    for (size_t i = 0; i < n * c->width; i++) {
        c->saved[i] = NAN;
    }
}

static void call_release(Call *c)
{
    free(c->x);
    free(c->y);
    free(c->y0);
    free(c->saved);
    free(c->dx);
    free(c->dx0);
    free(c->dy);
}

static void run_forward(Call *c, const AdapterBank *bank, int n_threads)
{
    const LinearHook *hook = adapter_hook(bank);
    HookForward call = {c->x, c->y, c->saved};
    hook->forward(hook->context, c->module, &call, c->spans, c->n_spans, n_threads);
}

/* A backward of one layer between begin and end; `ended`: its spans, each sequence once. */
static void whole_backward(const LinearHook *hook, int module, const HookBackward *call,
                           const RowSpan *spans, int n_spans, const RowSpan *ended, int n_ended,
                           int n_threads)
{
    tiny_require(hook->begin(hook->context, spans, 16, &error), &error);
    hook->backward(hook->context, module, call, spans, n_spans, n_threads);
    hook->end(hook->context, ended, n_ended);
}

static void run_backward(Call *c, const AdapterBank *bank, int n_threads)
{
    const LinearHook *hook = adapter_hook(bank);
    HookBackward call = {c->dx, c->dy, NULL, c->saved};
    whole_backward(hook, c->module, &call, c->spans, c->n_spans, c->spans, c->n_spans, n_threads);
}

/* dW (n_out, n_in) in double = s U S (sum_i v_i P_i) V^T, P from its law. v: of the module's group.
 */
static double *update_matrix(const AdapterSpec *spec, int module, const double *v)
{
    Module m = {module / N_ROLES, (Role)(module % N_ROLES)};
    int rank = spec->plan.rank;
    Factors f;
    tiny_require(factors_open(&f, model, &m, 1, rank, 1, NULL, NULL, NULL, &error), &error);
    char name[96];
    module_name(name, m.layer, m.role);
    RandomKey key = {random_seed_for(spec->seed, name), RANDOM_PROJECTION};
    double *w = calloc((size_t)f.n_out * f.n_in, sizeof *w);
    for (int j = 0; j < rank; j++) {
        for (int k = 0; k < rank; k++) {
            double r = 0;
            for (int i = 0; i < spec->plan.u; i++) {
                r += v[i] *
                     (double)(float)(random_normal(key, (uint32_t)i, (uint32_t)j, (uint32_t)k, 0) /
                                     sqrt(rank));
            }
            for (int o = 0; o < f.n_out; o++) {
                for (int in = 0; in < f.n_in; in++) {
                    w[(size_t)o * f.n_in + in] +=
                        (double)spec->scale * (double)f.u[(size_t)j * f.n_out + o] *
                        (double)f.s[j] * r * (double)f.v[(size_t)k * f.n_in + in];
                }
            }
        }
    }
    factors_release(&f);
    return w;
}

static void set_adapters(AdapterBank *bank, int n_adapters, float *v)
{
    size_t n = adapter_parameters(bank);
    for (int a = 1; a <= n_adapters; a++) {
        float *values = random_floats(n, (uint32_t)(100 + a));
        adapter_set(bank, a, values, 1);
        memcpy(v + (size_t)a * n, values, n * sizeof *v);
        free(values);
    }
}

static const int ROWS[] = {1, 3, 5, 300, 2, 7}, ADAPTERS[] = {2, 1, 0, 1, 2, 1};
enum { N_SPANS = 6, N_ADAPTERS = 2 };

/* Every module kind, rank and u: y and dx against W' in double; dv against <P, dR> by the reference
 * matrix, which is linear in v, so that its matrix for the i-th unit vector is the exact
 * derivative. */
static void forward_and_backward_match_a_double_reference(void **state)
{
    (void)state;
    const struct {
        int rank, u, groups;
        TieRule tie;
    } cases[] = {{2, 1, 13, TIE_TILED},
                 {1, 1, 28, TIE_NONE},
                 {3, 5, 1, TIE_ALL},
                 {4, 2, 7, TIE_STRUCTURED},
                 {8, 70, 2, TIE_TILED}};
    for (int c = 0; c < 5; c++) {
        AdapterSpec spec = spec_of(cases[c].rank, cases[c].u, cases[c].groups, cases[c].tie);
        AdapterBank *bank = open_bank(spec, N_ADAPTERS);
        spec = *adapter_spec(bank);
        size_t n = adapter_parameters(bank);
        assert_int_equal(n, (size_t)cases[c].u * cases[c].groups);
        float *v = calloc((N_ADAPTERS + 1) * n, sizeof *v);
        double *dv = calloc(n, sizeof *dv);
        set_adapters(bank, N_ADAPTERS, v);
        Module modules[4 * N_ROLES];
        int group[4 * N_ROLES];
        plan_modules(modules, &model->config, ALL_TARGETS);
        tiny_require(plan_groups(group, &spec.plan, modules, &error), &error);
        for (int module = 0; module < 4 * N_ROLES; module += 3) {
            Call call;
            call_init(&call, bank, module, ROWS, ADAPTERS, N_SPANS);
            run_forward(&call, bank, 2);
            adapter_clear_gradients(bank);
            run_backward(&call, bank, 2);
            int u = spec.plan.u, n_in = call.n_in, n_out = call.n_out;
            for (int a = 0; a <= N_ADAPTERS; a++) {
                double *values = calloc((size_t)u, sizeof *values);
                for (int i = 0; i < u; i++) {
                    values[i] = (double)v[(size_t)a * n + group[module] * u + i];
                }
                double *w = update_matrix(&spec, module, values);
                for (int s = 0; s < N_SPANS; s++) {
                    for (int r = call.spans[s].first_row;
                         ADAPTERS[s] == a && r < call.spans[s].first_row + ROWS[s]; r++) {
                        for (int o = 0; o < n_out; o++) {
                            double y = (double)call.y0[r * n_out + o], size = fabs(y);
                            for (int i = 0; i < n_in; i++) {
                                double term = w[o * n_in + i] * (double)call.x[r * n_in + i];
                                y += term;
                                size += fabs(term);
                            }
                            /* f32: some roundings of the terms, and terms of R that cancel in W' */
                            assert_true(fabs(y - (double)call.y[r * n_out + o]) <= 1e-5 * size);
                        }
                        for (int i = 0; i < n_in; i++) {
                            double dx = (double)call.dx0[r * n_in + i], size = fabs(dx);
                            for (int o = 0; o < n_out; o++) {
                                double term = w[o * n_in + i] * (double)call.dy[r * n_out + o];
                                dx += term;
                                size += fabs(term);
                            }
                            assert_true(fabs(dx - (double)call.dx[r * n_in + i]) <= 1e-5 * size);
                        }
                    }
                }
                free(w);
                free(values);
                if (a == 0) {
                    continue;
                }
                adapter_gradient(bank, a, dv);
                for (int i = 0; i < u; i++) {
                    double *unit = calloc((size_t)u, sizeof *unit), expected = 0, size = 0;
                    unit[i] = 1;
                    w = update_matrix(&spec, module, unit);
                    for (int s = 0; s < N_SPANS; s++) {
                        for (int r = call.spans[s].first_row;
                             ADAPTERS[s] == a && r < call.spans[s].first_row + ROWS[s]; r++) {
                            for (int o = 0; o < n_out; o++) {
                                double dy = (double)call.dy[r * n_out + o];
                                for (int k = 0; k < n_in; k++) {
                                    double y = w[o * n_in + k] * (double)call.x[r * n_in + k];
                                    expected += y * dy;
                                    size += fabs(y * dy);
                                }
                            }
                        }
                    }
                    assert_true(fabs(expected - dv[group[module] * u + i]) <= 1e-5 * size);
                    free(w);
                    free(unit);
                    i += u > 10 ? 16 : 0; /* a sample of many */
                }
            }
            /* Base rows are untouched. */
            assert_memory_equal(call.y + 4 * n_out, call.y0 + 4 * n_out, 5 * n_out * sizeof(float));
            assert_memory_equal(call.dx + 4 * n_in, call.dx0 + 4 * n_in, 5 * n_in * sizeof(float));
            call_release(&call);
        }
        free(v);
        free(dv);
        adapter_bank_free(bank);
    }
}

/* loss = sum c y^2 / 2 through one tied group of two modules, by central differences in double. */
static void gradient_matches_central_differences_of_a_quadratic_loss(void **state)
{
    (void)state;
    AdapterBank *bank = open_bank(spec_of(2, 3, 1, TIE_ALL), 1);
    const AdapterSpec *spec = adapter_spec(bank);
    float v[3] = {0.31f, -1.27f, 2.385f};
    adapter_set(bank, 1, v, 1);
    adapter_clear_gradients(bank);
    const int modules[] = {ROLE_K, N_ROLES + ROLE_DOWN}, rows[] = {17}, adapters[] = {1};
    double numerical[3] = {0}, analytical[3];
    for (int m = 0; m < 2; m++) {
        Call call;
        call_init(&call, bank, modules[m], rows, adapters, 1);
        run_forward(&call, bank, 1);
        size_t n = (size_t)call.n_rows * call.n_out;
        float *c = random_floats(n, 7);
        for (size_t i = 0; i < n; i++) {
            call.dy[i] = c[i] * call.y[i];
        }
        run_backward(&call, bank, 1);
        for (int i = 0; i < 3; i++) {
            for (int sign = -1; sign <= 1; sign += 2) {
                double moved[3] = {(double)v[0], (double)v[1], (double)v[2]}, loss = 0;
                moved[i] += sign * 1e-3; /* exact: the loss is quadratic in v */
                double *w = update_matrix(spec, modules[m], moved);
                for (size_t e = 0; e < n; e++) {
                    size_t row = e / (size_t)call.n_out, o = e % (size_t)call.n_out;
                    double y = (double)call.y0[e];
                    for (int k = 0; k < call.n_in; k++) {
                        y += w[o * call.n_in + k] * (double)call.x[row * call.n_in + k];
                    }
                    loss += 0.5 * (double)c[e] * y * y;
                }
                numerical[i] += sign * loss / 2e-3;
                free(w);
            }
        }
        free(c);
        call_release(&call);
    }
    adapter_gradient(bank, 1, analytical);
    for (int i = 0; i < 3; i++) {
        assert_true(fabs(analytical[i] - numerical[i]) <= 1e-5 * fabs(numerical[i]));
    }
    adapter_bank_free(bank);
}

static void a_zero_v_leaves_every_bit_of_y_and_still_has_a_gradient(void **state)
{
    (void)state;
    AdapterBank *bank = open_bank(spec_of(2, 1, 13, TIE_TILED), 2);
    float v[13];
    memset(v, 0xff, sizeof v);
    adapter_initial(bank, v);
    for (int i = 0; i < 13; i++) {
        assert_true(v[i] == 0);
    }
    adapter_set(bank, 1, v, 1);
    Call call;
    call_init(&call, bank, 5, ROWS, (const int[]){1, 1, 1, 1, 2, 2}, N_SPANS);
    call.y[3] = -0.0f;
    call.y0[3] = -0.0f;
    run_forward(&call, bank, 2); /* adapter 2 was never set: zero as well */
    assert_memory_equal(call.y, call.y0, (size_t)call.n_rows * call.n_out * sizeof(float));
    adapter_clear_gradients(bank);
    run_backward(&call, bank, 2);
    assert_memory_equal(call.dx, call.dx0, (size_t)call.n_rows * call.n_in * sizeof(float));
    double dv[13];
    adapter_gradient(bank, 2, dv);
    assert_true(dv[2] != 0 && isfinite(dv[2])); /* module 5 is in group 5 * 13 / 28 = 2 */
    adapter_clear_gradients(bank);
    adapter_gradient(bank, 2, dv);
    assert_true(dv[2] == 0);
    call_release(&call);
    adapter_bank_free(bank);
}

static void bits_are_the_same_for_any_threads_and_neighbours(void **state)
{
    (void)state;
    AdapterBank *bank = open_bank(spec_of(3, 2, 4, TIE_TILED), N_ADAPTERS);
    float v[(N_ADAPTERS + 1) * 8];
    set_adapters(bank, N_ADAPTERS, v);
    for (int module = 4; module < 7; module++) {
        Call all;
        double expected[8], dv[8];
        call_init(&all, bank, module, ROWS, ADAPTERS, N_SPANS);
        run_forward(&all, bank, 1);
        adapter_clear_gradients(bank);
        run_backward(&all, bank, 1);
        adapter_gradient(bank, 1, expected);
        size_t n_y = (size_t)all.n_rows * all.n_out, n_x = (size_t)all.n_rows * all.n_in;
        for (int n_threads = 2; n_threads <= 5; n_threads++) {
            Call again;
            call_init(&again, bank, module, ROWS, ADAPTERS, N_SPANS);
            run_forward(&again, bank, n_threads);
            adapter_clear_gradients(bank);
            run_backward(&again, bank, n_threads);
            assert_memory_equal(again.y, all.y, n_y * sizeof(float));
            assert_memory_equal(again.dx, all.dx, n_x * sizeof(float));
            adapter_gradient(bank, 1, dv);
            assert_memory_equal(dv, expected, sizeof dv);
            /* Without a backward to come nothing is saved, and y is the same. */
            memcpy(again.y, again.y0, n_y * sizeof(float));
            free(again.saved);
            again.saved = NULL;
            run_forward(&again, bank, n_threads);
            assert_memory_equal(again.y, all.y, n_y * sizeof(float));
            call_release(&again);
        }
        /* Sequence by sequence, row by row: nobody sees its neighbours. */
        Call alone;
        call_init(&alone, bank, module, ROWS, ADAPTERS, N_SPANS);
        adapter_clear_gradients(bank);
        const LinearHook *hook = adapter_hook(bank);
        for (int s = 0; s < N_SPANS; s++) {
            for (int r = 0; r < ROWS[s]; r++) {
                size_t row = (size_t)all.spans[s].first_row + r;
                HookForward forward = {alone.x + row * all.n_in, alone.y + row * all.n_out,
                                       alone.saved + row * all.width};
                RowSpan one = {0, ADAPTERS[s], 0, 1, 0, 0};
                hook->forward(hook->context, module, &forward, &one, 1, 3);
            }
            HookBackward backward = {alone.dx, alone.dy, NULL, alone.saved};
            whole_backward(hook, module, &backward, &all.spans[s], 1, &all.spans[s], 1, 2);
        }
        assert_memory_equal(alone.y, all.y, n_y * sizeof(float));
        assert_memory_equal(alone.dx, all.dx, n_x * sizeof(float));
        adapter_gradient(bank, 1, dv);
        assert_memory_equal(dv, expected, sizeof dv);
        /* A sequence given as two spans is still summed as one. */
        adapter_clear_gradients(bank);
        RowSpan parts[N_SPANS + 1];
        memcpy(parts, all.spans, 3 * sizeof *parts);
        parts[3] = (RowSpan){3, ADAPTERS[3], all.spans[3].first_row, 101, 3, 0};
        parts[4] = (RowSpan){3, ADAPTERS[3], all.spans[3].first_row + 101, ROWS[3] - 101, 3, 0};
        memcpy(parts + 5, all.spans + 4, 2 * sizeof *parts);
        HookBackward backward = {NULL, alone.dy, NULL, alone.saved};
        whole_backward(hook, module, &backward, parts, N_SPANS + 1, all.spans, N_SPANS, 2);
        adapter_gradient(bank, 1, dv);
        assert_memory_equal(dv, expected, sizeof dv);
        call_release(&alone);
        call_release(&all);
    }
    adapter_bank_free(bank);
}

/* More rows than the backward keeps of U^T dy at a time. */
static void long_calls_are_cut_into_tiles_without_a_trace(void **state)
{
    (void)state;
    AdapterBank *bank = open_bank(spec_of(8, 2, 1, TIE_ALL), 1);
    float v[2] = {0.7f, -0.4f};
    adapter_set(bank, 1, v, 1);
    Call call;
    double together[2], parted[2];
    call_init(&call, bank, 1, (const int[]){700, 2000, 1800}, (const int[]){1, 1, 1}, 3);
    run_forward(&call, bank, 2);
    adapter_clear_gradients(bank);
    run_backward(&call, bank, 2);
    adapter_gradient(bank, 1, together);
    adapter_clear_gradients(bank);
    const LinearHook *hook = adapter_hook(bank);
    HookBackward backward = {NULL, call.dy, NULL, call.saved};
    for (int s = 0; s < 3; s++) {
        whole_backward(hook, 1, &backward, &call.spans[s], 1, &call.spans[s], 1, 1);
    }
    adapter_gradient(bank, 1, parted);
    assert_memory_equal(together, parted, sizeof together);
    call_release(&call);
    adapter_bank_free(bank);
}

static void only_targeted_modules_are_touched(void **state)
{
    (void)state;
    AdapterSpec spec = spec_of(2, 1, 8, TIE_NONE);
    spec.targets = 1u << ROLE_Q | 1u << ROLE_UP;
    AdapterBank *bank = open_bank(spec, 1);
    const LinearHook *hook = adapter_hook(bank);
    assert_int_equal(hook->lowest_layer, 0);
    assert_false(hook->needs_input);
    for (int module = 0; module < 4 * N_ROLES; module++) {
        int role = module % N_ROLES;
        bool target = role == ROLE_Q || role == ROLE_UP;
        assert_int_equal(hook->saved_width(hook->context, module), target ? 2 : 0);
    }
    float v[8] = {1, 1, 1, 1, 1, 1, 1, 1};
    adapter_set(bank, 1, v, 1);
    Call call;
    call_init(&call, bank, ROLE_K, ROWS, (const int[]){1, 1, 1, 1, 1, 1}, N_SPANS);
    run_forward(&call, bank, 1);
    run_backward(&call, bank, 1);
    assert_memory_equal(call.y, call.y0, (size_t)call.n_rows * call.n_out * sizeof(float));
    call_release(&call);
    adapter_bank_free(bank);
}

static void a_v_that_is_not_a_number_is_seen_in_y(void **state)
{
    (void)state;
    AdapterBank *bank = open_bank(spec_of(2, 1, 1, TIE_ALL), 2);
    float v = NAN;
    adapter_set(bank, 1, &v, 1);
    Call call;
    call_init(&call, bank, 0, ROWS, ADAPTERS, N_SPANS);
    run_forward(&call, bank, 1);
    assert_true(isnan(call.y[1 * call.n_out]));
    assert_false(isnan(call.y[0]));
    call_release(&call);
    adapter_bank_free(bank);
}

static void refuses(AdapterSpec spec, int n_adapters, const char *message)
{
    AdapterBank *bank = NULL;
    assert_int_equal(adapter_bank_new(&bank, model, &spec, n_adapters, 1, NULL, NULL, NULL, &error),
                     STATUS_USAGE);
    assert_string_equal(error.message, message);
    assert_null(bank);
}

static void specs_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    AdapterSpec spec = spec_of(2, 1, 1, TIE_ALL);
    spec.method = "dora";
    refuses(spec, 1, "adapter method \"dora\": known are tinylora, lora, lora-xs, full, none");
    refuses(spec_of(2, 1, 1, TIE_ALL), 0, "a bank of 0 adapters: at least 1");
    refuses(spec_of(9, 1, 1, TIE_ALL), 1,
            "adapter \"tinylora\": module \"model.layers.0.self_attn.k_proj\" (8 x 24): rank 9, at "
            "most 8");
    refuses(spec_of(2, 1, 2, TIE_ALL), 1,
            "adapter \"tinylora\": tie rule \"all\" makes 1 group, not 2");
    spec = spec_of(2, 1, 1, TIE_ALL);
    spec.scale = INFINITY;
    refuses(spec, 1, "adapter \"tinylora\": scale is not a finite number");
    spec.scale = 1;
    spec.targets = 0;
    refuses(spec, 1, "adapter \"tinylora\": the targets select no module of the model");
    spec.method = "full";
    refuses(spec, 2, "adapter \"full\": one adapter a bank, not 2");
}

/* Two scalars, tiled: the first acts on layers 0 and 1, the second on 2 and 3. */
static void shared_layers_are_those_below_the_first_scalar_that_differs(void **state)
{
    (void)state;
    AdapterBank *bank = open_bank(spec_of(2, 1, 2, TIE_TILED), 4);
    const float v[4][2] = {{0.31f, -1.27f}, {0.31f, 2.385f}, {0.3100001f, 2.385f}, {0, 0.77f}};
    for (int a = 1; a <= 4; a++) {
        adapter_set(bank, a, v[a - 1], 1);
    }
    const int expected[5][5] = {
        {4, 0, 0, 0, 2}, {0, 4, 2, 0, 0}, {0, 2, 4, 0, 0}, {0, 0, 0, 4, 0}, {2, 0, 0, 0, 4}};
    for (int a = 0; a <= 4; a++) {
        for (int b = 0; b <= 4; b++) {
            assert_int_equal(adapter_shared_layers(bank, a, b), expected[a][b]);
        }
    }
    adapter_set(bank, 2, v[0], 1); /* equal values, another adapter */
    assert_int_equal(adapter_shared_layers(bank, 1, 2), 4);
    adapter_set(bank, 4, (const float[2]){0, 0}, 1);
    assert_int_equal(adapter_shared_layers(bank, 0, 4), 4);
    adapter_set(bank, 4, (const float[2]){0.31f, NAN}, 1);
    assert_int_equal(adapter_shared_layers(bank, 1, 4), 2);
    adapter_bank_free(bank);

    AdapterSpec spec = spec_of(2, 2, 1, TIE_ALL); /* base and adapter differ where one is adapted */
    spec.targets = 1 << ROLE_DOWN;
    bank = open_bank(spec, 2);
    adapter_set(bank, 1, (const float[2]){0.5f, 0}, 1);
    adapter_set(bank, 2, (const float[2]){0, 0.5f}, 1);
    assert_int_equal(adapter_shared_layers(bank, 1, 2), 0);
    assert_int_equal(adapter_shared_layers(bank, 2, 0), 0);
    adapter_bank_free(bank);
}

static void none_has_no_parameters_and_no_hook(void **state)
{
    (void)state;
    AdapterSpec spec = {.method = "none"};
    AdapterBank *bank;
    tiny_require(adapter_bank_new(&bank, model, &spec, 3, 1, NULL, NULL, NULL, &error), &error);
    assert_int_equal(adapter_parameters(bank), 0);
    assert_null(adapter_hook(bank));
    assert_null(adapter_weight_gradients(bank));
    adapter_initial(bank, NULL);
    adapter_set(bank, 3, NULL, 1);
    adapter_use_base(bank, true, 1);
    assert_int_equal(adapter_shared_layers(bank, 0, 2), model->config.n_layers);
    adapter_clear_gradients(bank);
    adapter_gradient(bank, 1, NULL);
    assert_string_equal(adapter_spec(bank)->method, "none");
    adapter_bank_free(bank);
    adapter_bank_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forward_and_backward_match_a_double_reference),
        cmocka_unit_test(gradient_matches_central_differences_of_a_quadratic_loss),
        cmocka_unit_test(a_zero_v_leaves_every_bit_of_y_and_still_has_a_gradient),
        cmocka_unit_test(bits_are_the_same_for_any_threads_and_neighbours),
        cmocka_unit_test(long_calls_are_cut_into_tiles_without_a_trace),
        cmocka_unit_test(only_targeted_modules_are_touched),
        cmocka_unit_test(a_v_that_is_not_a_number_is_seen_in_y),
        cmocka_unit_test(specs_that_do_not_fit_are_refused),
        cmocka_unit_test(shared_layers_are_those_below_the_first_scalar_that_differs),
        cmocka_unit_test(none_has_no_parameters_and_no_hook),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
