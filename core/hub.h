/* Hugging Face's cache of downloads, read only: FOLDER/models--ORG--NAME/ has refs/main (a commit
 * hash), snapshots/HASH/ (links to files) and blobs/ (the files by hash; *.incomplete while they
 * are loaded).                                  (huggingface_hub, "Understand caching") */
#pragma once
#include <stdbool.h>

#include "core/file.h"
#include "core/status.h"
#include "core/text.h"

/* "ORG/NAME" or "ORG/NAME@REVISION": letters, digits, '.', '_', '-'. */
bool hub_is_name(const char *name);

/* The snapshot of a name, as hub_is_name says, in one of the folders (divided by ':'). REVISION: a
 * name of refs/, or a commit hash; else main. Errors: STATUS_REFUSED saying where it was looked for
 * and the command that downloads it, or what of it is missing. */
Status hub_find(char directory[FILE_PATH_MAX], const char *name, const char *folders, Error *error);

/* Append "; an unfinished download? hf download ORG/NAME goes on with it" where directory is a
 * snapshot of the cache; else nothing. */
void hub_hint(Text *out, const char *directory);

/* The folder of blobs that the links of a snapshot lead to; false when directory is no snapshot. */
bool hub_blobs(char path[FILE_PATH_MAX], const char *directory);

/* Does a link in the directory (its real path) that leads to target (its real path) stay where it
 * may: below the directory itself or, of a snapshot, among the blobs of the same repository? */
bool hub_link_stays(const char *directory, const char *target);
