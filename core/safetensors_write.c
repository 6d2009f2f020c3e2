/* Writing a safetensors file: the header for tensors laid out one after another, then their data.
 */
#include <string.h>

#include "core/safetensors.h"
#include "core/text.h"

static void add_metadata(Text *header, const char *const *metadata, size_t n_metadata)
{
    text_add(header, "\"__metadata__\":{");
    for (size_t i = 0; i < n_metadata; i++) {
        text_add(header, i ? "," : "");
        text_json_string(header, metadata[2 * i], strlen(metadata[2 * i]));
        text_add(header, ":");
        text_json_string(header, metadata[2 * i + 1], strlen(metadata[2 * i + 1]));
    }
    text_add(header, "}");
}

static size_t add_tensor(Text *header, const Tensor *tensor, size_t offset)
{
    size_t n_bytes = tensor_type_size(tensor->type);
    text_json_string(header, tensor->name, strlen(tensor->name));
    text_printf(header, ":{\"dtype\":\"%s\",\"shape\":[", tensor_type_name(tensor->type));
    for (int i = 0; i < tensor->n_dims; i++) {
        text_printf(header, "%s%zu", i ? "," : "", tensor->dims[i]);
        n_bytes *= tensor->dims[i];
    }
    text_printf(header, "],\"data_offsets\":[%zu,%zu]}", offset, offset + n_bytes);
    return offset + n_bytes;
}

Status safetensors_begin(FileWriter *writer, const char *path, const Tensor *tensors,
                         size_t n_tensors, const char *const *metadata, size_t n_metadata,
                         Error *error)
{
    Text header = {0};
    text_add(&header, "{");
    if (n_metadata) {
        add_metadata(&header, metadata, n_metadata);
    }
    size_t offset = 0;
    for (size_t i = 0; i < n_tensors; i++) {
        text_add(&header, i || n_metadata ? "," : "");
        offset = add_tensor(&header, &tensors[i], offset);
    }
    text_add(&header, "}");
    while (header.n % 8) {
        text_add(&header, " ");
    }
    unsigned char length[8];
    for (int i = 0; i < 8; i++) {
        length[i] = (unsigned char)((uint64_t)header.n >> 8 * i);
    }
    Status status = file_writer_open(writer, path, error);
    if (status == STATUS_OK) {
        status = file_writer_append(writer, length, sizeof length, error);
        if (status == STATUS_OK) {
            status = file_writer_append(writer, header.bytes, header.n, error);
        }
        if (status != STATUS_OK) {
            file_writer_cancel(writer);
        }
    }
    text_release(&header);
    return status;
}

Status safetensors_write(const char *path, const Tensor *tensors, size_t n_tensors,
                         const char *const *metadata, size_t n_metadata, Error *error)
{
    FileWriter writer;
    Status status =
        safetensors_begin(&writer, path, tensors, n_tensors, metadata, n_metadata, error);
    if (status != STATUS_OK) {
        return status;
    }
    for (size_t i = 0; i < n_tensors && status == STATUS_OK; i++) {
        size_t n_bytes = tensor_type_size(tensors[i].type);
        for (int j = 0; j < tensors[i].n_dims; j++) {
            n_bytes *= tensors[i].dims[j];
        }
        status = file_writer_append(&writer, tensors[i].data, n_bytes, error);
    }
    if (status == STATUS_OK) {
        status = file_writer_commit(&writer, error);
    }
    if (status != STATUS_OK) {
        file_writer_cancel(&writer);
    }
    return status;
}
