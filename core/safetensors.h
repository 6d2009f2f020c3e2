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

/* The plain types, then ggml's quantised ones (GGUF files alone have these). */
typedef enum {
    TENSOR_F32,
    TENSOR_F16,
    TENSOR_BF16,
    TENSOR_Q8_0,
    TENSOR_Q4_0,
    TENSOR_Q4_K,
    TENSOR_Q6_K,
    TENSOR_Q5_0,
    TENSOR_OTHER
} TensorType;

typedef struct {
    const char *name;
    TensorType type;
    const char *type_name; /* as in the file, e.g. "BF16" */
    int n_dims;            /* 0 .. 8 */
    size_t dims[8];
    const void *data; /* into the mapping; NOT necessarily aligned */
    size_t n_bytes;
    /* Rows of q and k as llama.cpp orders them, neighbours turned instead of halves: so many rows
     * are a head. 0: in order. */
    int turned;
} Tensor;

typedef struct SafeTensors SafeTensors;
typedef struct Gguf Gguf; /* core/gguf.h */

/* path: a .safetensors file, or a .safetensors.index.json, whose shards lie beside it and hold
 * exactly the tensors that it lists. Errors: STATUS_REFUSED naming the file, the place and the
 * rule; STATUS_FAILED when it cannot be read. */
Status safetensors_open(SafeTensors **file, const char *path, Error *error);
/* The tensors of a GGUF model under the names that safetensors files have (core/gguf_model.h); they
 * may be quantised, and their rows turned. Errors: as safetensors_open. */
Status safetensors_open_gguf(SafeTensors **file, const char *path, Error *error);
/* The GGUF file that was opened, or NULL: its metadata and its tensors under its own names. */
const Gguf *safetensors_gguf(const SafeTensors *file);
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

/* Conversion of elements (tensor_type.c). Quantised types are read by whole blocks: n is a multiple
 * of the type's block. */
bool tensor_type_plain(TensorType type);       /* F32, F16 or BF16 */
size_t tensor_type_size(TensorType type);      /* bytes per element; 0 unless plain */
const char *tensor_type_name(TensorType type); /* "F32", "Q4_K"; "?" for TENSOR_OTHER */
size_t tensor_type_bytes(TensorType type, size_t n); /* of n elements */
/* out: (n) f32 from data of the given type at any alignment. */
void tensor_to_f32(float *out, const void *data, TensorType type, size_t n);
/* Round to nearest even into bf16 or f16 or copy f32. A NaN stays one; what is too large becomes an
 * infinity. */
void tensor_from_f32(void *out, const float *in, TensorType type, size_t n);
/* Index of the first element that is infinite or no number (of a block with such a scale: its
 * first), or n. */
size_t tensor_find_nonfinite(const void *data, TensorType type, size_t n);

/* The elements of a tensor of a readable type. */
size_t tensor_n_elements(const Tensor *tensor);
/* transformers turns the halves of a head, llama.cpp's llama neighbours: row half * turned / 2 + i
 * of a head is the file's row 2 i + half of it. The file's row for a row in order, and back. */
size_t turned_row(int turned, size_t row);
size_t turned_row_back(int turned, size_t file_row);
/* Where row `row` of a matrix lies, whatever order the file has. Of a vector: row 0. */
const void *tensor_row(const Tensor *tensor, size_t row);
/* As a matrix: a vector is one row, or rows of one element where those are turned. */
Tensor tensor_rows(const Tensor *tensor);
/* out: all of a tensor, or n_rows of its rows, as f32, rows in order. */
void tensor_read(float *out, const Tensor *tensor);
void tensor_read_rows(float *out, const Tensor *tensor, size_t first, size_t n_rows);
/* The same tensor plain and in order: itself, or a copy in *owned, malloc'ed (else NULL); quantised
 * ones become F32. Errors: STATUS_FAILED (memory). */
Status tensor_plain(Tensor *plain, void **owned, const Tensor *tensor, Error *error);
