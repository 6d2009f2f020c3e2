/* Inside core/safetensors: one file of a set. Nobody else includes this. */
#pragma once
#include "core/gguf.h"
#include "core/json.h"
#include "core/safetensors.h"

typedef struct {
    char *name; /* of the file, without folder */
    JsonDocument *header; /* the names live in it; NULL for a GGUF file, where */
    Gguf *gguf;           /* ... they live in gguf_names and the mapping is this one's */
    char (*gguf_names)[128];
    unsigned char *mapping;
    size_t n_mapping;
    Tensor *tensors; /* (n) in order of offset */
    size_t n;
} Shard;

/* home: the real path of the folder that a link may not leave (core/hub.h), or NULL: it may lead
 * anywhere. Errors: as safetensors_open, the path in front. */
Status shard_open(Shard *shard, const char *path, const char *home, Error *error);
/* What shard_open does once the file is mapped: the rest of a shard whose mapping has 8 bytes or
 * more. Errors: as shard_open, without the path; shard_close is to be called all the same. */
Status shard_parse(Shard *shard, Error *error);
void shard_close(Shard *shard); /* also of a shard that is all zeros */
