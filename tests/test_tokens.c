/* The corpus as token files: what is encoded, how it is split, what is refused, and the order of reading. */
#include <dirent.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/random.h"
#include "training/tokens.h"

static char top[64];      /* a temporary folder with ... */
static char text_dir[80]; /* the text of a test */
static char run_dir[80];  /* and what is made of it */
static dm_tokenizer *bytes_only;

static void empty_folder(const char *path) {
    DIR *folder = opendir(path);
    if (folder == NULL) {
        return;
    }
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        char name[512];
        snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
        unlink(name);
    }
    closedir(folder);
}

static int start(void **state) {
    (void)state;
    strcpy(top, "/tmp/test_tokens.XXXXXX");
    if (mkdtemp(top) == NULL) {
        return -1;
    }
    snprintf(text_dir, sizeof text_dir, "%s/text", top);
    snprintf(run_dir, sizeof run_dir, "%s/run", top);
    if (mkdir(text_dir, 0777) != 0) {
        return -1;
    }
    return dm_tokenizer_bytes_only(&bytes_only) == DM_OK ? 0 : -1;
}

static int finish(void **state) {
    (void)state;
    dm_tokenizer_close(bytes_only);
    empty_folder(run_dir);
    rmdir(run_dir);
    rmdir(text_dir);
    return rmdir(top);
}

static int clean(void **state) {
    (void)state;
    dm_interrupt_clear();
    dm_set_threads(0);
    empty_folder(text_dir);
    empty_folder(run_dir);
    return 0;
}

static void write_file(const char *folder, const char *name, const void *bytes, size_t length) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *stream = fopen(path, "w");
    assert_non_null(stream);
    assert_int_equal(fwrite(bytes, 1, length, stream), length);
    assert_int_equal(fclose(stream), 0);
}

static void write_text(const char *name, const char *text) {
    write_file(text_dir, name, text, strlen(text));
}

static char *read_file(const char *folder, const char *name, size_t *length) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *stream = fopen(path, "r");
    assert_non_null(stream);
    char *bytes = malloc(1 << 22);
    assert_non_null(bytes);
    *length = fread(bytes, 1, 1 << 22, stream);
    fclose(stream);
    return bytes;
}

static dm_status prepare_with(const dm_tokenizer *tokenizer, dm_tokens *train, dm_tokens *valid) {
    const char *data[] = {text_dir};
    return dm_tokens_prepare(run_dir, data, 1, NULL, 0, tokenizer, train, valid);
}

static void prepare(dm_tokens *train, dm_tokens *valid) {
    if (prepare_with(bytes_only, train, valid) != DM_OK) {
        fail_msg("%s", dm_error_message());
    }
}

static void close_both(dm_tokens *train, dm_tokens *valid) {
    dm_tokens_close(train);
    dm_tokens_close(valid);
}

/* The text of a token file, end-of-text tokens as '\0'. */
static char *decode(const dm_tokens *tokens, const dm_tokenizer *tokenizer, size_t *length) {
    int32_t *ids = malloc((tokens->count + 1) * sizeof *ids);
    char *text = malloc(tokens->bytes + tokens->count + 1);
    assert_non_null(ids);
    assert_non_null(text);
    dm_tokens_copy(tokens, 0, tokens->count, ids);
    *length = 0;
    for (uint64_t i = 0; i < tokens->count; i++) {
        size_t n;
        const char *bytes = dm_tokenizer_bytes(tokenizer, ids[i], &n);
        if (ids[i] == dm_tokenizer_eos(tokenizer)) {
            bytes = "";
            n = 1;
        }
        memcpy(text + *length, bytes, n);
        *length += n;
    }
    text[*length] = '\0';
    free(ids);
    return text;
}

static void assert_text(const dm_tokens *tokens, const char *expected, size_t length) {
    size_t found;
    char *text = decode(tokens, bytes_only, &found);
    assert_int_equal(found, length);
    assert_memory_equal(text, expected, length);
    free(text);
}

/* ---- Documents ---- */

static void test_documents_and_bytes(void **state) {
    (void)state;
    write_text("a", "one\n<|endoftext|>\n<|endoftext|>\r\ntwo <|endoftext|> inline\n<|endoftext|>x\n <|endoftext|>\n");
    write_text("b", "");
    write_text("c", "<|endoftext|>\nno newline at the end");
    write_text("d", "<|endoftext|>");
    write_file(text_dir, "e", "\xff\xfe\x00\x80 bytes", 10);
    char valid_path[128];
    snprintf(valid_path, sizeof valid_path, "%s/v", text_dir);
    write_text("v", "held out");
    const char *data[] = {text_dir}, *valid[] = {valid_path};
    dm_tokens train, validation;
    if (dm_tokens_prepare(run_dir, data, 1, valid, 1, bytes_only, &train, &validation) != DM_OK) {
        fail_msg("%s", dm_error_message());
    }
    static const char expected[] = "one\n\0two <|endoftext|> inline\n<|endoftext|>x\n <|endoftext|>\n\0"
                                   "no newline at the end\0\xff\xfe\x00\x80 bytes";
    assert_text(&train, expected, sizeof expected);
    assert_int_equal(train.bytes, sizeof expected - 4);
    assert_int_equal(train.count, sizeof expected);
    assert_text(&validation, "held out", 9);
    assert_int_equal(validation.bytes, 8);
    assert_false(train.wide);
    close_both(&train, &validation);
}

static void test_files_of_the_run_are_not_read(void **state) {
    (void)state;
    write_text("a", "some text\n");
    write_text("b", "some other text\n");
    const char *data[] = {top};
    dm_tokens train, valid;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(dm_tokens_prepare(run_dir, data, 1, NULL, 0, bytes_only, &train, &valid), DM_OK);
        assert_int_equal(train.bytes + valid.bytes, 26);
        close_both(&train, &valid);
    }
}

static void test_no_text(void **state) {
    (void)state;
    dm_tokens train, valid;
    assert_int_not_equal(prepare_with(bytes_only, &train, &valid), DM_OK);
    write_text("a", "");
    write_text("b", "<|endoftext|>\n<|endoftext|>\n");
    assert_int_equal(prepare_with(bytes_only, &train, &valid), DM_ERR_ARGUMENT);
    assert_non_null(strstr(dm_error_message(), "no text"));
    write_text("a", "x");
    assert_int_equal(prepare_with(bytes_only, &train, &valid), DM_ERR_ARGUMENT);
    assert_non_null(strstr(dm_error_message(), "too little text"));
    assert_null(train.map.data);
    const char *missing[] = {"/nonexistent"};
    assert_int_equal(dm_tokens_prepare(run_dir, missing, 1, NULL, 0, bytes_only, &train, &valid), DM_ERR_IO);
    char path[128];
    snprintf(path, sizeof path, "%s/a", text_dir);
    const char *both[] = {path};
    assert_int_equal(dm_tokens_prepare(run_dir, both, 1, both, 1, bytes_only, &train, &valid), DM_ERR_ARGUMENT);
}

/* ---- The split ---- */

static void test_single_document_gives_its_tail(void **state) {
    (void)state;
    char text[6001];
    for (int i = 0; i < 600; i++) {
        snprintf(text + i * 10, 11, "line %04d\n", i);
    }
    write_text("a", text);
    dm_tokens train, valid;
    prepare(&train, &valid);
    assert_int_equal(train.bytes, 5900);
    assert_text(&valid, text + 5900, 101); /* with the end of text */
    close_both(&train, &valid);

    memset(text, 'x', 6000); /* no lines */
    write_text("a", text);
    prepare(&train, &valid);
    assert_int_equal(train.bytes, 5900);
    assert_int_equal(valid.bytes, 100);
    close_both(&train, &valid);

    for (int i = 0; i < 3000; i++) {
        memcpy(text + 2 * i, "\xc3\xbc", 2);
    }
    memmove(text + 1, text, 5999);
    text[0] = 'x';
    write_text("a", text);
    prepare(&train, &valid);
    assert_int_equal(train.bytes, 5899); /* never inside a character */
    close_both(&train, &valid);
}

static void test_two_big_documents_give_their_tails(void **state) {
    (void)state;
    char text[6000];
    memset(text, 'a', sizeof text);
    write_file(text_dir, "a", text, sizeof text);
    memset(text, 'b', sizeof text);
    write_file(text_dir, "b", text, sizeof text);
    dm_tokens train, valid;
    prepare(&train, &valid);
    assert_int_equal(train.bytes, 11800);
    assert_int_equal(valid.bytes, 200);
    close_both(&train, &valid);
}

/* `n` documents of different lengths in one file, numbered from `first`, each `copies` times. */
static void write_documents(int first, int n, int copies) {
    char path[128];
    snprintf(path, sizeof path, "%s/documents", text_dir);
    FILE *stream = fopen(path, "w");
    assert_non_null(stream);
    for (int copy = 0; copy < copies; copy++) {
        for (int i = first; i < first + n; i++) {
            fprintf(stream, "document %d %.*s\n%s\n", i, i % 37, "abcdefghijklmnopqrstuvwxyzabcdefghijklmnop", DM_END_OF_TEXT);
        }
    }
    assert_int_equal(fclose(stream), 0);
}

/* How often each document 0 .. 9,999 is in the set; documents are whole. */
static int *count_documents(const dm_tokens *tokens) {
    int *times = calloc(10000, sizeof *times);
    assert_non_null(times);
    size_t length, at = 0;
    char *text = decode(tokens, bytes_only, &length);
    while (at < length) {
        int number, tail = 0;
        assert_int_equal(sscanf(text + at, "document %d %n", &number, &tail), 1);
        assert_int_equal(strlen(text + at), (size_t)tail + (size_t)(number % 37) + 1 - (number % 37 == 0 ? 1 : 0));
        assert_in_range(number, 0, 9999);
        times[number]++;
        at += strlen(text + at) + 1;
    }
    free(text);
    return times;
}

static void test_split_by_document(void **state) {
    (void)state;
    const int sizes[] = {20, 60, 500, 6000};
    for (int first = 0; first < 40; first += 7) {
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
            const int copies = 2;
            write_documents(first, sizes[s], copies);
            dm_tokens train, valid;
            prepare(&train, &valid);
            int *in_train = count_documents(&train), *in_valid = count_documents(&valid);
            int held = 0;
            for (int i = 0; i < sizes[s]; i++) {
                assert_int_equal(in_train[first + i] + in_valid[first + i], copies);
                assert_true(in_train[first + i] == 0 || in_valid[first + i] == 0);
                held += in_valid[first + i] > 0;
            }
            assert_true(held > 0 && held < sizes[s]);
            if (sizes[s] == 6000) {
                assert_in_range(held, 60, 140); /* 100 expected, standard deviation 10 */
            }
            free(in_train);
            free(in_valid);
            close_both(&train, &valid);
        }
    }
}

/* A document's side does not depend on the others, as long as there are enough. */
static void test_split_is_stable_when_text_is_added(void **state) {
    (void)state;
    write_documents(0, 2000, 1);
    dm_tokens train, valid;
    prepare(&train, &valid);
    int *before = count_documents(&valid);
    close_both(&train, &valid);
    write_documents(0, 3000, 1);
    prepare(&train, &valid);
    int *after = count_documents(&valid);
    close_both(&train, &valid);
    assert_memory_equal(before, after, 2000 * sizeof *before);
    free(before);
    free(after);
}

/* ---- Encoding ---- */

/* Words and lines of a made-up language, with indentation, empty lines and bytes that are no UTF-8. */
static char *make_text(size_t length, uint64_t seed) {
    static const char *const parts[] = {"the ", "of ", "quick",    "brown ",       "\n",   "\n",   ".\n", "\n\n", "\n    ",
                                        " 123", "'s ", "\xc3\xbc", "\xe4\xb8\xad", "\xff", "\x80", "   ", "\t",   "!\n",
                                        "a",    "e",   "n"};
    char *text = malloc(length + 16);
    assert_non_null(text);
    dm_random random;
    dm_random_seed(&random, seed);
    size_t used = 0;
    while (used < length) {
        const char *part = parts[dm_random_next(&random) % (sizeof parts / sizeof *parts)];
        memcpy(text + used, part, strlen(part));
        used += strlen(part);
    }
    return text;
}

static void test_threads_do_not_matter(void **state) {
    (void)state;
    char *text = make_text(3000000, 7);
    write_file(text_dir, "big", text, 2500000);
    for (int i = 0; i < 200; i++) {
        char name[16];
        snprintf(name, sizeof name, "small%d", i);
        write_file(text_dir, name, text + 2000 * i, (size_t)(i * 7 % 1999));
    }
    char *files[2][3];
    size_t lengths[2][3];
    for (int threads = 1; threads <= 3; threads++) {
        dm_set_threads(threads);
        dm_tokens train, valid;
        prepare(&train, &valid);
        close_both(&train, &valid);
        files[0][threads - 1] = read_file(run_dir, "train.tokens", &lengths[0][threads - 1]);
        files[1][threads - 1] = read_file(run_dir, "valid.tokens", &lengths[1][threads - 1]);
        empty_folder(run_dir);
    }
    for (int file = 0; file < 2; file++) {
        for (int i = 1; i < 3; i++) {
            assert_int_equal(lengths[file][i], lengths[file][0]);
            assert_memory_equal(files[file][i], files[file][0], lengths[file][0]);
        }
        for (int i = 0; i < 3; i++) {
            free(files[file][i]);
        }
    }
    free(text);
}

/* Longer than what is gathered at once: cut, encoded and put together again without a seam. */
static void test_giant_document(void **state) {
    (void)state;
    const size_t length = 40000000;
    char *text = make_text(length, 3);
    write_file(text_dir, "giant", text, length);
    dm_tokens train, valid;
    prepare(&train, &valid);
    assert_int_equal(train.bytes + valid.bytes, length);
    assert_int_equal(train.count, train.bytes + 1); /* one document, one end */
    assert_in_range(valid.bytes, length / 60 - 5000, length / 60 + 5000);
    text[train.bytes] = '\0'; /* the end of text */
    assert_text(&train, text, train.bytes + 1);
    close_both(&train, &valid);
    free(text);
}

static dm_tokenizer *learn(const char *const *data, int32_t vocab) {
    char path[128];
    snprintf(path, sizeof path, "%s/tokenizer.gguf", top);
    const dm_tokenizer_train_options options = {data, 1, vocab, path};
    dm_tokenizer_train_result result;
    dm_tokenizer *tokenizer = NULL;
    if (dm_tokenizer_train(&options, &result) != DM_OK || dm_tokenizer_open(path, &tokenizer) != DM_OK) {
        fail_msg("%s", dm_error_message());
    }
    unlink(path);
    return tokenizer;
}

/* With merges the ids of a document that is cut are those of the whole. */
static void test_cuts_leave_no_trace_in_the_ids(void **state) {
    (void)state;
    const size_t length = 1500000;
    char *text = make_text(length, 11);
    write_file(text_dir, "giant", text, length);
    char valid_path[128];
    snprintf(valid_path, sizeof valid_path, "%s/v", text_dir);
    write_text("v", "held out");
    const char *data[] = {text_dir}, *held[] = {valid_path};
    dm_tokenizer *tokenizer = learn(data, 500);
    dm_tokens train, valid;
    assert_int_equal(dm_tokens_prepare(run_dir, data, 1, held, 1, tokenizer, &train, &valid), DM_OK);
    int32_t *whole, *ids = malloc(train.count * sizeof *ids);
    size_t n;
    assert_non_null(ids);
    assert_int_equal(dm_tokenizer_encode(tokenizer, text, length, false, &whole, &n), DM_OK);
    assert_int_equal(train.count, n + 1);
    assert_int_equal(train.bytes, length);
    dm_tokens_copy(&train, 0, train.count, ids);
    assert_memory_equal(ids, whole, n * sizeof *ids);
    free(ids);
    free(whole);
    free(text);
    close_both(&train, &valid);
    dm_tokenizer_close(tokenizer);
}

static void test_interruption_leaves_nothing(void **state) {
    (void)state;
    char *text = make_text(100000, 5);
    write_file(text_dir, "a", text, 100000);
    free(text);
    dm_tokens train, valid;
    dm_interrupt();
    assert_int_equal(prepare_with(bytes_only, &train, &valid), DM_ERR_INTERRUPTED);
    assert_int_equal(rmdir(run_dir), 0);
    dm_interrupt_clear();
    prepare(&train, &valid);
    close_both(&train, &valid);
}

static void test_full_disk_leaves_nothing(void **state) {
    (void)state;
    char *text = make_text(300000, 5);
    write_file(text_dir, "a", text, 300000);
    free(text);
    struct rlimit before, small;
    getrlimit(RLIMIT_FSIZE, &before);
    small = (struct rlimit){100000, before.rlim_max};
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    dm_tokens train, valid;
    dm_status status = prepare_with(bytes_only, &train, &valid);
    setrlimit(RLIMIT_FSIZE, &before);
    assert_int_equal(status, DM_ERR_IO);
    assert_non_null(strstr(dm_error_message(), "train.tokens: cannot write: File too large"));
    assert_int_equal(rmdir(run_dir), 0);
}

/* ---- Reuse ---- */

static int lines_logged;

static void count_lines(void *user, const char *line) {
    (void)user;
    lines_logged += strncmp(line, "encoded ", 8) == 0;
}

static void test_reuse(void **state) {
    (void)state;
    write_documents(0, 200, 1);
    dm_set_log(count_lines, NULL);
    lines_logged = 0;
    dm_tokens train, valid;
    prepare(&train, &valid);
    close_both(&train, &valid);
    assert_int_equal(lines_logged, 1);
    prepare(&train, &valid);
    uint64_t source = train.source;
    close_both(&train, &valid);
    assert_int_equal(lines_logged, 1); /* as it was */
    write_documents(0, 201, 1);
    prepare(&train, &valid);
    assert_true(source != train.source);
    close_both(&train, &valid);
    assert_int_equal(lines_logged, 2); /* the text changed */
    size_t length;
    char *bytes = read_file(run_dir, "valid.tokens", &length);
    write_file(run_dir, "valid.tokens", bytes, length - 2);
    prepare(&train, &valid);
    close_both(&train, &valid);
    assert_int_equal(lines_logged, 3); /* a damaged file is made again */
    size_t again;
    char *repaired = read_file(run_dir, "valid.tokens", &again);
    assert_int_equal(again, length);
    assert_memory_equal(repaired, bytes, length);
    free(bytes);
    free(repaired);
    dm_set_log(NULL, NULL);
}

/* ---- Damage ---- */

static void test_any_change_is_refused(void **state) {
    (void)state;
    write_text("a", "a little text that becomes a file of tokens\nand some more of it\n");
    dm_tokens train, valid;
    prepare(&train, &valid);
    close_both(&train, &valid);
    size_t length;
    char *bytes = read_file(run_dir, "train.tokens", &length);
    char path[128];
    snprintf(path, sizeof path, "%s/changed", run_dir);
    dm_tokens tokens;
    write_file(run_dir, "changed", bytes, length);
    assert_int_equal(dm_tokens_open(path, bytes_only, &tokens), DM_OK);
    dm_tokens_close(&tokens);
    for (size_t at = 0; at < length; at++) {
        bool free_field = (at >= 24 && at < 32) || (at >= 40 && at < 48) || (at >= 60 && at < 64); /* source, bytes, zeros */
        for (int bit = 0; bit < 8 && !free_field; bit++) {
            bytes[at] ^= (char)(1 << bit);
            write_file(run_dir, "changed", bytes, length);
            dm_status status = dm_tokens_open(path, bytes_only, &tokens);
            if ((status != DM_ERR_FORMAT && status != DM_ERR_UNSUPPORTED) || strstr(dm_error_message(), path) == NULL) {
                fail_msg("bit %d of byte %zu: status %d, %s", bit, at, (int)status, dm_error_message());
            }
            bytes[at] ^= (char)(1 << bit);
        }
    }
    for (size_t shorter = 0; shorter < length; shorter++) {
        write_file(run_dir, "changed", bytes, shorter);
        assert_int_equal(dm_tokens_open(path, bytes_only, &tokens), DM_ERR_FORMAT);
    }
    bytes[length] = bytes[length + 1] = 0;
    write_file(run_dir, "changed", bytes, length + 2);
    assert_int_equal(dm_tokens_open(path, bytes_only, &tokens), DM_ERR_FORMAT);
    free(bytes);
    assert_int_equal(dm_tokens_open("/nonexistent/file", bytes_only, &tokens), DM_ERR_IO);
}

/* The checksum is no secret: a file made with malice has the right one, and must not reach outside the vocabulary. */
static void test_ids_outside_the_vocabulary_are_refused(void **state) {
    (void)state;
    write_text("a", "a little text\nand some more of it\n");
    dm_tokens train, valid;
    prepare(&train, &valid);
    close_both(&train, &valid);
    size_t length;
    char *bytes = read_file(run_dir, "train.tokens", &length);
    uint16_t id, wrong = (uint16_t)dm_tokenizer_vocab(bytes_only);
    uint64_t checksum;
    memcpy(&id, bytes + 64, sizeof id);
    memcpy(&checksum, bytes + 48, sizeof checksum);
    checksum += (uint64_t)(wrong - id) * 0x9e3779b97f4a7c15u;
    memcpy(bytes + 64, &wrong, sizeof wrong);
    memcpy(bytes + 48, &checksum, sizeof checksum);
    write_file(run_dir, "changed", bytes, length);
    free(bytes);
    char path[128];
    snprintf(path, sizeof path, "%s/changed", run_dir);
    dm_tokens tokens;
    assert_int_equal(dm_tokens_open(path, bytes_only, &tokens), DM_ERR_FORMAT);
    assert_non_null(strstr(dm_error_message(), "holds token 257, outside the vocabulary of 257"));
}

/* ---- The order ---- */

static void test_windows(void **state) {
    (void)state;
    const struct {
        uint64_t count;
        size_t length;
    } shapes[] = {{2, 1}, {11, 10}, {12, 10}, {20, 10}, {21, 10}, {100, 7}, {1000, 16}, {4097, 16}, {100000, 33}, {65, 1}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        const size_t length = shapes[s].length;
        dm_tokens tokens = {.count = shapes[s].count};
        const uint64_t n = dm_tokens_windows(&tokens, length);
        assert_true(n >= 1 && n * length < tokens.count && tokens.count - n * length < 2 * length + 1);
        char *seen = malloc(n);
        assert_non_null(seen);
        for (uint64_t epoch = 0; epoch < 5; epoch++) {
            memset(seen, 0, n);
            uint64_t lowest = UINT64_MAX;
            for (uint64_t i = 0; i < n; i++) {
                uint64_t at = dm_tokens_window(&tokens, 42, epoch * n + i, length);
                lowest = at < lowest ? at : lowest;
            }
            for (uint64_t i = 0; i < n; i++) {
                uint64_t at = dm_tokens_window(&tokens, 42, epoch * n + i, length);
                assert_true(at + length + 1 <= tokens.count);
                assert_int_equal((at - lowest) % length, 0);
                assert_true((at - lowest) / length < n && seen[(at - lowest) / length] == 0);
                seen[(at - lowest) / length] = 1;
            }
        }
        free(seen);
    }
}

static void test_orders_differ(void **state) {
    (void)state;
    dm_tokens tokens = {.count = 64 * 1001};
    const uint64_t n = dm_tokens_windows(&tokens, 64);
    assert_int_equal(n, 1000);
    int same_seed = 0, same_epoch = 0, in_sequence = 0, same_shift = 0;
    for (uint64_t i = 0; i < n; i++) {
        uint64_t at = dm_tokens_window(&tokens, 1, i, 64);
        uint64_t next = dm_tokens_window(&tokens, 1, (i + 1) % n, 64);
        same_seed += at / 64 == dm_tokens_window(&tokens, 2, i, 64) / 64;
        same_epoch += at / 64 == dm_tokens_window(&tokens, 1, n + i, 64) / 64;
        in_sequence += next == at + 64;
        same_shift += dm_tokens_window(&tokens, 1, i * n, 64) % 64 == 0; /* one per epoch */
    }
    /* about 1 of 1,000 and, for the shifts, 1 of 64 by chance */
    assert_true(same_seed < 10 && same_epoch < 10 && in_sequence < 10 && same_shift < 40);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_documents_and_bytes, clean, clean),
        cmocka_unit_test_setup_teardown(test_files_of_the_run_are_not_read, clean, clean),
        cmocka_unit_test_setup_teardown(test_no_text, clean, clean),
        cmocka_unit_test_setup_teardown(test_single_document_gives_its_tail, clean, clean),
        cmocka_unit_test_setup_teardown(test_two_big_documents_give_their_tails, clean, clean),
        cmocka_unit_test_setup_teardown(test_split_by_document, clean, clean),
        cmocka_unit_test_setup_teardown(test_split_is_stable_when_text_is_added, clean, clean),
        cmocka_unit_test_setup_teardown(test_threads_do_not_matter, clean, clean),
        cmocka_unit_test_setup_teardown(test_giant_document, clean, clean),
        cmocka_unit_test_setup_teardown(test_cuts_leave_no_trace_in_the_ids, clean, clean),
        cmocka_unit_test_setup_teardown(test_interruption_leaves_nothing, clean, clean),
        cmocka_unit_test_setup_teardown(test_full_disk_leaves_nothing, clean, clean),
        cmocka_unit_test_setup_teardown(test_reuse, clean, clean),
        cmocka_unit_test_setup_teardown(test_any_change_is_refused, clean, clean),
        cmocka_unit_test_setup_teardown(test_ids_outside_the_vocabulary_are_refused, clean, clean),
        cmocka_unit_test(test_windows),
        cmocka_unit_test(test_orders_differ),
    };
    return cmocka_run_group_tests(tests, start, finish);
}
