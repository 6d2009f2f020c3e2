/* Safetensors, memory-mapped read-only: one file, or the shards of an index, checked by every rule
 * of the format before a byte of data is used (length field, UTF-8, JSON, duplicates, types, shape
 * products with overflow, sizes, holes, overlaps, end of file). */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/file.h"
#include "core/sha256.h"
#include "core/status.h"

typedef enum { TENSOR_F32, TENSOR_F16, TENSOR_BF16, TENSOR_OTHER } TensorType;

typedef struct {
    const char *name;
    TensorType type;
    const char *type_name; /* as in the file, e.g. "BF16" */
    int n_dims;            /* 0 .. 8 */
    size_t dims[8];
    const void *data; /* into the mapping; NOT necessarily aligned */
    size_t n_bytes;
} Tensor;

typedef struct SafeTensors SafeTensors;

/* path: a .safetensors file, or a .safetensors.index.json, whose shards lie beside it and hold
 * exactly the tensors that it lists. Errors: STATUS_REFUSED naming the file, the place and the
 * rule; STATUS_FAILED when it cannot be read. */
Status safetensors_open(SafeTensors **file, const char *path, Error *error);
void safetensors_close(SafeTensors *file);
size_t safetensors_count(const SafeTensors *file);
const Tensor *safetensors_at(const SafeTensors *file, size_t i);           /* in order of offset */
const Tensor *safetensors_find(const SafeTensors *file, const char *name); /* NULL when absent */
/* What the first file's __metadata__ says under a key, or NULL. */
const char *safetensors_metadata(const SafeTensors *file, const char *key);
/* Tell the kernel that the pages of this tensor are not needed any more (they stay in the file). */
void safetensors_forget(const SafeTensors *file, const Tensor *tensor);

/* The files that were opened: the one, or the index (0) and its shards. */
size_t safetensors_n_files(const SafeTensors *file);
/* name: without folder, lives as long as file. sha256: of the bytes that were parsed and are
 * mapped; NULL: not wanted. */
void safetensors_file(const SafeTensors *file, size_t i, const char **name,
                      char sha256[SHA256_HEX_SIZE]);
/* SHA-256 of the bytes of the file, or of all shards in order of their names, one after another. */
void safetensors_sha256(char hex[SHA256_HEX_SIZE], const SafeTensors *file);

/* Write tensors in the order given (data pointers filled in), atomically: temporary file, fsync,
 * rename, fsync of the directory. The header is padded to 8 bytes. metadata: n_metadata pairs key,
 * value; may be 0. */
Status safetensors_write(const char *path, const Tensor *tensors, size_t n_tensors,
                         const char *const *metadata, size_t n_metadata, Error *error);

/* The same for data made on the way: the header for these tensors (their data is not read); the
 * caller then appends the data of each, in order, and commits or cancels the writer. */
Status safetensors_begin(FileWriter *writer, const char *path, const Tensor *tensors,
                         size_t n_tensors, const char *const *metadata, size_t n_metadata,
                         Error *error);

/* Conversion of elements (tensor_type.c). */
size_t tensor_type_size(TensorType type);      /* bytes per element; 0 for TENSOR_OTHER */
const char *tensor_type_name(TensorType type); /* "F32", "F16", "BF16"; "?" for TENSOR_OTHER */
/* out: (n) f32 from data of the given type at any alignment. */
void tensor_to_f32(float *out, const void *data, TensorType type, size_t n);
/* Round to nearest even into bf16 or f16 or copy f32. A NaN stays one; what is too large becomes an
 * infinity. */
void tensor_from_f32(void *out, const float *in, TensorType type, size_t n);
/* Index of the first element that is infinite or no number, or n. */
size_t tensor_find_nonfinite(const void *data, TensorType type, size_t n);
