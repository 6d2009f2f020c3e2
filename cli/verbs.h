/* The verbs: one file each. */
#pragma once
#include "cli/cli.h"

extern const Verb verb_best, verb_budgets, verb_config_show, verb_db_check, verb_eval, verb_export_csv,
    verb_export_hdf5, verb_export_jsonl, verb_export_npy, verb_generate, verb_grpo, verb_ls,
    verb_model_info, verb_model_random, verb_plan, verb_pretrain, verb_query, verb_score, verb_sft,
    verb_show, verb_sweep, verb_tokenize, verb_verify;
extern const Verb verb_extract;
extern const Verb verb_chat;
extern const Verb verb_export_figures, verb_export_report;
extern const Verb verb_scan;
extern const Verb verb_watch, verb_db_upgrade;
extern const Verb verb_export_notebook;
extern const Verb verb_adapter_export, verb_adapter_import, verb_adapter_diff;
extern const Verb verb_replay, verb_diff, verb_completions, verb_db_snapshot, verb_db_merge;
extern const Verb verb_factors;
extern const Verb verb_profile_kv_cache, verb_profile_memory, verb_profile_techniques;
