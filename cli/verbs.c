/* The table of verbs, in the order of the help. */
#include "cli/verbs.h"

const Verb *const verbs[] = {
    &verb_sweep,         &verb_grpo,         &verb_sft,         &verb_scan,        &verb_eval,
    &verb_generate,      &verb_chat,         &verb_score,        &verb_tokenize,    &verb_plan,        &verb_ls,
    &verb_show,          &verb_best,         &verb_budgets,     &verb_query,       &verb_config_show, &verb_model_info,
    &verb_model_random,  &verb_verify,       &verb_pretrain,    &verb_db_check,

    &verb_watch,         &verb_db_upgrade,   &verb_replay,
    &verb_diff,          &verb_completions,  &verb_db_snapshot, &verb_db_merge,

    &verb_extract,

    &verb_export_csv,    &verb_export_jsonl, &verb_export_hdf5, &verb_export_npy,

    &verb_export_figures, &verb_export_notebook, &verb_export_report,

    &verb_adapter_export, &verb_adapter_import, &verb_adapter_diff,

    &verb_factors,

    &verb_profile_kv_cache, &verb_profile_memory, &verb_profile_techniques,
};
const int n_verbs = sizeof verbs / sizeof verbs[0];
