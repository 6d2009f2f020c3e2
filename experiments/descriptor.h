/* The format "bytes": v.bin has an adapter's scalars and nothing else; adapter.json beside it says
 * what they are, so that everything else is derived again, and how that is checked. */
#pragma once
#include "adapters/adapter.h"
#include "experiments/session.h"

#define DESCRIPTOR_FILE "adapter.json"
#define VALUES_FILE "v.bin"

/* A folder with both, which must not exist or be empty. type: of the scalars in v.bin; rounding:
 * the largest |v - what is stored|. The bank's adapter 1 is v, and is again. Errors: STATUS_USAGE
 * (the folder; a method without scalars of its own; a scalar that is too large for the type),
 * STATUS_FAILED. */
Status descriptor_write(double *rounding, const char *directory, const RunAdapter *adapter,
                        AdapterBank *bank, TensorType type, Error *error);
/* Settings, v and the model's hash. The model is the caller's: adapter->spec.model is left empty.
 * Errors: STATUS_REFUSED with the file, the place and the rule. */
Status descriptor_read(RunAdapter *adapter, const char *directory, Error *error);
/* Is the bank's adapter 1 the one described? Frozen parts of other last bits are told to the world.
 * text: the descriptor's. Errors: STATUS_REFUSED with the module and what differs. */
Status descriptor_check(const char *text, const char *name, const AdapterBank *bank,
                        const World *world, Error *error);
