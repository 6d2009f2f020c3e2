/* AdamW, SGD and none, element by element in index order: exact resume needs nothing but v, moments
 * and the count. */
#include "rl/optimizer.h"

#include <math.h>
#include <string.h>

OptimizerSettings optimizer_defaults(void)
{
    return (OptimizerSettings){.beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8};
}

static void adamw_update(float *v, float *moments, const double *gradient,
                         const OptimizerSettings *settings, double lr, int64_t update, size_t n)
{
    float *first = moments, *second = moments + n;
    double beta1 = settings->beta1, beta2 = settings->beta2;
    double correction1 = 1 - pow(beta1, (double)update);
    double correction2 = sqrt(1 - pow(beta2, (double)update));
    for (size_t i = 0; i < n; i++) {
        double g = gradient[i];
        double m = beta1 * (double)first[i] + (1 - beta1) * g;
        double s = beta2 * (double)second[i] + (1 - beta2) * g * g;
        double p = (double)v[i] * (1 - lr * settings->weight_decay);
        p -= lr / correction1 * m / (sqrt(s) / correction2 + settings->epsilon);
        first[i] = (float)m;
        second[i] = (float)s;
        v[i] = (float)p;
    }
}

static void sgd_update(float *v, float *moments, const double *gradient,
                       const OptimizerSettings *settings, double lr, int64_t update, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        double g = gradient[i] + settings->weight_decay * (double)v[i];
        double velocity = update == 1 ? g : settings->momentum * (double)moments[i] + g;
        moments[i] = (float)velocity;
        v[i] = (float)((double)v[i] - lr * velocity);
    }
}

static void none_update(float *v, float *moments, const double *gradient,
                        const OptimizerSettings *settings, double lr, int64_t update, size_t n)
{
    (void)v, (void)moments, (void)gradient, (void)settings, (void)lr, (void)update, (void)n;
}

static const Optimizer adamw = {"adamw", 2, adamw_update};
static const Optimizer sgd = {"sgd", 1, sgd_update};
static const Optimizer none = {"none", 0, none_update};

const Optimizer *const optimizers[] = {&adamw, &sgd, &none};
const int n_optimizers = 3;

const Optimizer *optimizer_find(const char *name)
{
    for (int i = 0; i < n_optimizers; i++) {
        if (!strcmp(optimizers[i]->name, name)) {
            return optimizers[i];
        }
    }
    return NULL;
}

double gradient_clip(double *gradient, double max_norm, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += gradient[i] * gradient[i];
    }
    double norm = sqrt(sum);
    double factor = max_norm / (norm + 1e-6); /* PyTorch's clip_grad_norm_ */
    if (max_norm > 0 && factor < 1) {
        for (size_t i = 0; i < n; i++) {
            gradient[i] *= factor;
        }
    }
    return norm;
}
