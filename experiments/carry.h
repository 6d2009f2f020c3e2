/* Adapters in and out: formats of other tools and our own, and their way into results.db. */
#pragma once
#include "adapters/merge.h"
#include "experiments/session.h"

typedef enum {
    CARRY_BYTES,         /* a folder: v.bin and what it is (descriptor.h) */
    CARRY_MERGED,        /* a whole model directory */
    CARRY_PEFT_LORA,     /* a folder that PEFT loads */
    CARRY_PEFT_TINYLORA, /* the same, with A, B, P and v */
    CARRY_GGUF           /* a file that llama.cpp loads */
} CarryFormat;
extern const char *const carry_format_names[]; /* in the enum's order, ended by NULL */

typedef struct {
    CarryFormat format;
    const char *path;
    const char *dtype; /* bytes: f32, bf16 or f16; NULL: as the model sees v */
    bool untie;        /* peft-tinylora: a v for each module, whatever is tied */
} CarryOptions;

typedef struct {
    double rounding;   /* bytes: largest |v - what is stored| */
    MergeReport merge; /* merged */
} CarryReport;

/* Write the session's adapter. Errors: STATUS_USAGE (the path is taken; a format that cannot say
 * what this adapter is, and what to do), STATUS_FAILED. */
Status carry_export(CarryReport *report, const Session *session, const RunAdapter *adapter,
                    const CarryOptions *options, Error *error);

/* Is there an adapter that carry_open reads? */
bool carry_is_adapter(const char *directory);
/* An adapter from a folder: bytes, PEFT's LoRA or TinyLoRA, or a merged model. model: its name, for
 * the settings; directory of it: model_directory. PEFT's come as method lora: TinyLoRA's A, B and P
 * are another program's, and B R is what they are. A merged model comes as method full. Errors: STATUS_REFUSED with the file, the place and the
 * rule. */
Status carry_open(RunAdapter *adapter, const char *directory, const char *model,
                  const char *model_directory, Error *error);

/* Make an adapter of a folder a stored run of method "import", done: then eval, score --run, scan
 * and diff take it. like: how rows become prompts and are judged (data, reward, eval, experiment);
 * NULL: the defaults, experiment "import". directory: of the model. The same import is one run.
 * Errors: STATUS_USAGE, STATUS_REFUSED, STATUS_FAILED. */
Status carry_import(char run_id[17], Store *store, const World *world, const RunAdapter *adapter,
                    const char *directory, const RunSpec *like, Error *error);
