/*
 * Vocabulary files and texts. Input: how many bytes of text, two bytes; the text; a GGUF file. A vocabulary that opens must
 * give ids within it for any text, and the text back.
 */
#include "fuzz.h"
#include "model/vocabulary.h"
#include "test_files.h"

/* Unknown tokens have no text, and Phi-3's drop white space. */
static bool gives_all_back(const dm_tokenizer *tokenizer) {
    return !tokenizer->strips_right && !(tokenizer->lacks_bytes && tokenizer->unknown >= 0);
}

static void check_text(const dm_tokenizer *tokenizer, const char *text, size_t length, unsigned flags) {
    int32_t *ids;
    size_t n, back;
    dm_status status = dm_tokenizer_encode(tokenizer, text, length, flags, &ids, &n);
    if (status != DM_OK) {
        FUZZ_CHECK(status == DM_ERR_UNSUPPORTED && tokenizer->lacks_bytes);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        FUZZ_CHECK(ids[i] >= 0 && ids[i] < dm_tokenizer_vocab(tokenizer));
        dm_tokenizer_is_end(tokenizer, ids[i]);
    }
    char *again;
    FUZZ_CHECK(dm_tokenizer_decode(tokenizer, ids, n, (flags & DM_ENCODE_SPECIAL) != 0, &again, &back) == DM_OK);
    if (gives_all_back(tokenizer) && (flags & ~(unsigned)DM_ENCODE_SPECIAL) == 0) {
        FUZZ_CHECK(back == length && memcmp(again, text, length) == 0);
    }
    free(again);
    free(ids);
}

/* The text as a message, if the file's template is known. */
static void check_message(const dm_tokenizer *tokenizer, const char *text, size_t length) {
    char *content = strndup(text, length);
    const dm_chat_message message = {"user", content};
    int32_t *ids;
    size_t n;
    if (dm_chat_encode(tokenizer, NULL, &message, 1, true, &ids, &n) == DM_OK) {
        for (size_t i = 0; i < n; i++) {
            FUZZ_CHECK(ids[i] >= 0 && ids[i] < dm_tokenizer_vocab(tokenizer));
        }
    }
    free(ids);
    free(content);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2) {
        return 0;
    }
    size_t length = (size_t)(data[0] | data[1] << 8);
    length = length < size - 2 ? length : size - 2;
    const char *text = (const char *)data + 2;
    char path[32];
    int file = fuzz_file(data + 2 + length, size - 2 - length, path);
    dm_tokenizer *tokenizer;
    if (dm_tokenizer_open(path, &tokenizer) == DM_OK) {
        check_text(tokenizer, text, length, 0);
        check_text(tokenizer, text, length, DM_ENCODE_SPECIAL);
        check_text(tokenizer, text, length, DM_ENCODE_BOS | DM_ENCODE_EOS | DM_ENCODE_GOES_ON);
        check_message(tokenizer, text, length);
        dm_tokenizer_close(tokenizer);
    }
    close(file);
    return 0;
}

/* ---- Seeds ---- */

typedef struct token {
    const char *text;
    uint32_t type;
    float score;
} token;

static void put_vocabulary(test_bytes *b, const char *model, const char *pre, const token *tokens, size_t n) {
    put_header(b, 0, 13);
    put_key(b, "general.architecture", DM_GGUF_STRING);
    put_string(b, "llama");
    put_key(b, "general.name", DM_GGUF_STRING);
    put_string(b, pre);
    put_key(b, "tokenizer.ggml.model", DM_GGUF_STRING);
    put_string(b, model);
    put_key(b, "tokenizer.ggml.pre", DM_GGUF_STRING);
    put_string(b, pre);
    put_key(b, "tokenizer.ggml.bos_token_id", DM_GGUF_U32);
    put_u32(b, 0);
    put_key(b, "tokenizer.ggml.eot_token_id", DM_GGUF_U32);
    put_u32(b, 1);
    put_key(b, "tokenizer.ggml.add_bos_token", DM_GGUF_BOOL);
    put_u8(b, 1);
    put_key(b, "tokenizer.ggml.add_eos_token", DM_GGUF_BOOL);
    put_u8(b, 1);
    put_key(b, "tokenizer.chat_template", DM_GGUF_STRING);
    put_string(b, "[INST]<<SYS>>");
    put_key(b, "tokenizer.ggml.tokens", DM_GGUF_ARRAY);
    put_u32(b, DM_GGUF_STRING);
    put_u64(b, n);
    for (size_t i = 0; i < n; i++) {
        put_string(b, tokens[i].text);
    }
    put_key(b, "tokenizer.ggml.token_type", DM_GGUF_ARRAY);
    put_u32(b, DM_GGUF_I32);
    put_u64(b, n);
    for (size_t i = 0; i < n; i++) {
        put_u32(b, tokens[i].type);
    }
    put_key(b, "tokenizer.ggml.scores", DM_GGUF_ARRAY);
    put_u32(b, DM_GGUF_F32);
    put_u64(b, n);
    for (size_t i = 0; i < n; i++) {
        put(b, &tokens[i].score, sizeof(float));
    }
    put_key(b, "tokenizer.ggml.merges", DM_GGUF_ARRAY);
    put_u32(b, DM_GGUF_STRING);
    put_u64(b, 3);
    put_string(b, "a b");
    put_string(b, "ab ab");
    put_string(b, "\xc4\xa0 a");
}

static void add_seed(const char *name, const char *text, const test_bytes *file) {
    static uint8_t seed[sizeof file->data + 256];
    size_t length = strlen(text);
    seed[0] = (uint8_t)length;
    seed[1] = 0;
    memcpy(seed + 2, text, length);
    memcpy(seed + 2 + length, file->data, file->size);
    fuzz_seed(name, seed, 2 + length + file->size);
}

static void fuzz_seeds(void) {
    static const token bpe[] = {{"a", 1, 0},
                                {"b", 1, 0},
                                {"\xc4\xa0", 1, 0},
                                {"ab", 1, 0},
                                {"abab", 1, 0},
                                {"1", 1, 0},
                                {"'", 1, 0},
                                {"\xc4\xa0"
                                 "a",
                                 1, 0},
                                {"<u>", 4, 0},
                                {"<|im_end|>", 3, 0}};
    static const token pieces[] = {{"<unk>", 2, 0},
                                   {"<s>", 3, 0},
                                   {"</s>", 3, 0},
                                   {"<0x00>", 6, 0},
                                   {"<0x61>", 6, 0},
                                   {"\xe2\x96\x81", 1, -1},
                                   {"a", 1, -2},
                                   {"b", 1, -3},
                                   {"ab", 1, 4},
                                   {"\xe2\x96\x81"
                                    "ab",
                                    1, 5},
                                   {"b\xe2\x96\x81", 1, 6},
                                   {"<u>", 4, 0},
                                   {"\xc3\xa9", 1, 0}};
    static const char *const rules[] = {"gpt-2",  "default", "llama-bpe",    "qwen2",          "tekken",      "gpt-4o",
                                        "falcon", "bloom",   "deepseek-llm", "deepseek-coder", "deepseek-v3", "starcoder"};
    const char *text = "abab ab<u>1'b  a<|im_end|>";
    test_bytes b;
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        put_vocabulary(&b, "gpt2", rules[i], bpe, sizeof bpe / sizeof *bpe);
        add_seed(rules[i], text, &b);
    }
    put_vocabulary(&b, "llama", "phi-3", pieces, sizeof pieces / sizeof *pieces);
    add_seed("phi-3", "ab </s> a<u>\xc3\xa9", &b);
    put_vocabulary(&b, "llama", "llama", pieces, sizeof pieces / sizeof *pieces);
    add_seed("llama", "ab </s> a<u>\xc3\xa9", &b);
    put_vocabulary(&b, "llama", "llama", pieces, sizeof pieces / sizeof *pieces - 3);
    add_seed("whole", " ab ab  aab", &b);
}
