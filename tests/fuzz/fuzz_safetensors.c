/*
 * Safetensors files. One that opens holds what it says: every tensor lies within it, and all can be read.
 */
#include "fuzz.h"
#include "model/hf_tensors.h"
#include "model/safetensors.h"

static void read_all(const dm_safetensor *found) {
    const dm_gguf_tensor *tensor = &found->tensor;
    volatile uint8_t sum = 0;
    for (uint64_t i = 0; i < tensor->bytes; i++) {
        sum = (uint8_t)(sum + ((const uint8_t *)tensor->data)[i]);
    }
    if (!found->known || tensor->elements == 0 || tensor->elements > 4096) {
        return;
    }
    static float numbers[4096], whole[4096]; /* in each of the forms */
    dm_weights w = {
        .data = tensor->data, .type = tensor->type, .rows = tensor->elements / tensor->dims[0], .columns = tensor->dims[0]};
    dm_weights_read(&w, 0, (size_t)tensor->elements, NULL, numbers);
    w.turned = true;
    dm_weights_read(&w, 0, (size_t)tensor->elements, whole, numbers);
    w.turned = false;
    w.head_rows = w.rows % 2 == 0 ? w.rows : 0;
    dm_weights_read(&w, 0, (size_t)tensor->elements, NULL, numbers);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char path[32];
    int descriptor = fuzz_file(data, size, path);
    dm_safetensors *file;
    if (dm_safetensors_open(path, &file) == DM_OK) {
        for (size_t i = 0; i < dm_safetensors_count(file); i++) {
            size_t index = 0;
            const dm_safetensor *found = dm_safetensors_at(file, i);
            FUZZ_CHECK(dm_safetensors_find(file, found->tensor.name, &index) == found && index == i);
            read_all(found);
        }
        dm_safetensors_close(file);
    }
    close(descriptor);
    return 0;
}

/* ---- Seeds ---- */

static void add_seed(const char *name, const char *header, size_t data) {
    uint8_t bytes[4096] = {0};
    uint64_t length = strlen(header);
    memcpy(bytes, &length, sizeof length);
    memcpy(bytes + 8, header, length);
    for (size_t i = 0; i < data; i++) {
        bytes[8 + length + i] = (uint8_t)(i * 37);
    }
    fuzz_seed(name, bytes, 8 + length + data);
}

static void fuzz_seeds(void) {
    add_seed("two",
             "{\"__metadata__\":{\"format\":\"pt\"},\"a.weight\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]},"
             "\"b\":{\"dtype\":\"BF16\",\"shape\":[4],\"data_offsets\":[24,32]}}",
             32);
    add_seed("types",
             "{\"a\":{\"dtype\":\"F16\",\"shape\":[3],\"data_offsets\":[0,6]},\"b\":{\"dtype\":\"I64\",\"shape\":[],\"data_"
             "offsets\":[6,14]},"
             "\"c\":{\"dtype\":\"BOOL\",\"shape\":[1,1,2,2],\"data_offsets\":[14,18]},\"d\":{\"dtype\":\"F8_E4M3\",\"shape\":[0],"
             "\"data_offsets\":[18,18]},\"e\":{\"dtype\":\"F4\",\"shape\":[2],\"data_offsets\":[18,19]}}",
             19);
    add_seed("padded", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}     ", 4);
    add_seed("empty", "{}", 0);
}
