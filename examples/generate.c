/* Generates text with the library. After `make install`:
 *
 *   cc generate.c -o generate $(pkg-config --cflags --libs dilmodeli) && ./generate model.gguf "Once upon a time"
 */
#include <dilmodeli.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool print(void *user, const char *bytes, size_t length) {
    (void)user;
    return fwrite(bytes, 1, length, stdout) == length && fflush(stdout) == 0;
}

static dm_status generate(const char *path, const char *text) {
    dm_tokenizer *tokenizer = NULL;
    dm_model *model = NULL;
    dm_session *session = NULL;
    int32_t *ids = NULL;
    size_t count = 0;
    dm_status status = dm_tokenizer_open(path, &tokenizer);
    if (status == DM_OK) {
        status = dm_tokenizer_encode(tokenizer, text, strlen(text), DM_ENCODE_BOS, &ids, &count);
    }
    if (status == DM_OK) {
        status = dm_model_open(path, &model);
    }
    if (status == DM_OK) {
        status = dm_session_create(model, 0, &session);
    }
    if (status == DM_OK) {
        const dm_sampling sampling = dm_sampling_default();
        dm_generate_result result;
        status = dm_generate(session, ids, count, 100, &sampling, print, NULL, NULL, &result);
    }
    dm_session_free(session);
    dm_model_close(model);
    free(ids);
    dm_tokenizer_close(tokenizer);
    return status;
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: generate MODEL.gguf TEXT\n");
        return 2;
    }
    if (generate(argv[1], argv[2]) != DM_OK) {
        fprintf(stderr, "%s\n", dm_error_message());
        return 1;
    }
    putchar('\n');
    return 0;
}
