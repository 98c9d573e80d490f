/* Learning a vocabulary: merges worked out by hand, the same file from any number of threads, documents kept apart. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/random.h"
#include "model/vocabulary.h"
#include "model/word_counts.h"

static char folder[] = "/tmp/test_tokenizer_train.XXXXXX";

/* Path of a file in the test's folder; valid until the fourth call after. */
static const char *in_folder(const char *name) {
    static char paths[4][256];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static void write_text(const char *name, const char *text, size_t length) {
    FILE *stream = fopen(in_folder(name), "wb");
    assert_non_null(stream);
    assert_int_equal(fwrite(text, 1, length, stream), length);
    assert_int_equal(fclose(stream), 0);
}

static dm_status learn(const char *data, int32_t vocab, const char *out, dm_tokenizer_train_result *result) {
    dm_tokenizer_train_options options = {&data, 1, vocab, out};
    return dm_tokenizer_train(&options, result);
}

static void assert_token(const dm_tokenizer *tokenizer, int32_t id, const char *text) {
    size_t length;
    const char *bytes = dm_tokenizer_bytes(tokenizer, id, &length);
    assert_non_null(bytes);
    assert_int_equal(length, strlen(text));
    assert_memory_equal(bytes, text, length);
}

/*
 * Words: "low" 5 times, " lower" 2, " newest" 6, " widest" 3. Pairs: es and st 9 times each, es has the lower ids (e is 101);
 * then es+t 9; lo and ow 7 each, lo (108, 111) first; lo+w 7; of " n", ew, ne, w+est, 6 each, " n" (32, 110) comes first; of
 * " n"+e (260, 101), ew (101, 119), w+est (119, 257) ew; of " n"+ew (260, 261) and ew+est (261, 257) the former.
 */
static void test_merges_by_hand(void **state) {
    (void)state;
    const char *text = "low\nlow\nlow\nlow\nlow lower lower newest newest newest newest newest newest widest widest widest";
    write_text("hand.txt", text, strlen(text));
    dm_tokenizer_train_result result;
    assert_int_equal(learn(in_folder("hand.txt"), 257 + 7, in_folder("hand.gguf"), &result), DM_OK);
    assert_int_equal(result.vocab, 264);
    assert_int_equal(result.bytes, strlen(text));
    dm_tokenizer *tokenizer;
    assert_int_equal(dm_tokenizer_open(in_folder("hand.gguf"), &tokenizer), DM_OK);
    assert_int_equal(dm_tokenizer_vocab(tokenizer), 264);
    static const char *const learned[] = {"es", "est", "lo", "low", " n", "ew", " new"};
    for (int i = 0; i < 7; i++) {
        assert_token(tokenizer, 256 + i, learned[i]);
    }
    assert_token(tokenizer, 263, "");
    assert_int_equal(dm_tokenizer_eos(tokenizer), 263);
    assert_int_equal(dm_tokenizer_bos(tokenizer), 263);
    int32_t *ids;
    size_t n;
    assert_int_equal(dm_tokenizer_encode(tokenizer, "low newest", 10, true, &ids, &n), DM_OK);
    assert_int_equal(n, 3);
    assert_memory_equal(ids, ((int32_t[]){259, 262, 257}), 3 * sizeof *ids);
    free(ids);
    dm_tokenizer_close(tokenizer);
}

/* aaaa 3 times: aa, then aaaa; overlapping pairs are counted by what can still be joined. */
static void test_runs(void **state) {
    (void)state;
    const char *text = "aaaa\naaaa\naaaa\nb";
    write_text("runs.txt", text, strlen(text));
    dm_tokenizer_train_result result;
    assert_int_equal(learn(in_folder("runs.txt"), 1000, in_folder("runs.gguf"), &result), DM_OK);
    assert_int_equal(result.vocab, 259); /* no other pair occurs twice: fewer than asked for, and the file says so */
    dm_tokenizer *tokenizer;
    assert_int_equal(dm_tokenizer_open(in_folder("runs.gguf"), &tokenizer), DM_OK);
    assert_int_equal(dm_tokenizer_vocab(tokenizer), 259);
    assert_token(tokenizer, 256, "aa");
    assert_token(tokenizer, 257, "aaaa");
    dm_tokenizer_close(tokenizer);
}

/* The mark between documents is no text: its letters join to nothing, and words do not reach across it. */
static void test_documents(void **state) {
    (void)state;
    const char *text = "xy<|endoftext|>xy\n<|endoftext|>\nxy<|endoftext|>";
    write_text("documents.txt", text, strlen(text));
    dm_word_counts counts = {0};
    const char *path = in_folder("documents.txt");
    assert_int_equal(dm_word_counts_read(&counts, &path, 1), DM_OK);
    assert_int_equal(counts.words.count, 2);
    assert_int_equal(counts.counts[dm_strings_find(&counts.words, "xy", 2)], 3);
    assert_int_equal(counts.counts[dm_strings_find(&counts.words, "\n", 1)], 1);
    dm_word_counts_free(&counts);
}

/* Words of random letters, some of them long runs, in several files: more than one piece per thread. */
static void write_random_corpus(const char *name, size_t length, uint64_t seed) {
    char *text = malloc(length);
    assert_non_null(text);
    dm_random random;
    dm_random_seed(&random, seed);
    for (size_t at = 0; at < length;) {
        size_t n = dm_random_next(&random) % 5000 == 0 ? 6000 : 1 + dm_random_next(&random) % 6;
        for (; n > 0 && at < length; n--) {
            text[at++] = "etaoin\xc3\xa9"[dm_random_next(&random) % 8];
        }
        if (at < length) {
            text[at++] = " \n"[dm_random_next(&random) % 8 == 0];
        }
    }
    write_text(name, text, length);
    free(text);
}

static void test_same_for_any_threads(void **state) {
    (void)state;
    mkdir(in_folder("many"), 0777);
    write_random_corpus("many/a.txt", 9 << 20, 1);
    write_random_corpus("many/b.txt", 100000, 2);
    write_random_corpus("many/c.txt", 1, 3);
    write_text("many/empty.txt", "", 0);
    dm_map first = {0};
    for (int threads = 1; threads <= 3; threads += 2) {
        dm_set_threads(threads);
        dm_tokenizer_train_result result;
        assert_int_equal(learn(in_folder("many"), 400, in_folder("many.gguf"), &result), DM_OK);
        assert_int_equal(result.vocab, 400);
        assert_int_equal(result.bytes, (9 << 20) + 100001);
        dm_map map;
        assert_int_equal(dm_map_open(in_folder("many.gguf"), &map), DM_OK);
        if (threads == 1) {
            first = map;
            continue;
        }
        assert_int_equal(map.size, first.size);
        assert_memory_equal(map.data, first.data, map.size);
        dm_map_close(&map);
    }
    dm_map_close(&first);
    dm_set_threads(0);
}

/* Counting in pieces gives what counting a file as one text gives: each cut falls between words. */
static void test_pieces_keep_words(void **state) {
    (void)state;
    write_random_corpus("pieces.txt", 9 << 20, 4);
    const char *path = in_folder("pieces.txt");
    dm_word_counts counts = {0};
    assert_int_equal(dm_word_counts_read(&counts, &path, 1), DM_OK);
    dm_map map;
    assert_int_equal(dm_map_open(path, &map), DM_OK);
    uint64_t occurrences = 0, bytes = 0;
    for (uint32_t i = 0; i < counts.words.count; i++) {
        size_t length;
        dm_strings_at(&counts.words, i, &length);
        assert_in_range(length, 1, DM_LONGEST_COUNTED_WORD);
        occurrences += counts.counts[i];
        bytes += counts.counts[i] * length;
    }
    assert_int_equal(bytes, map.size);
    dm_word_counts whole = {0};
    char name[32] = "";
    /* The same text in files that are cut between words and smaller than a piece. */
    mkdir(in_folder("parts"), 0777);
    const char *text = (const char *)map.data;
    int part = 0;
    for (size_t at = 0; at < map.size; part++) {
        size_t end = at + (1 << 20) < map.size ? at + (1 << 20) : map.size;
        while (end < map.size && !(text[end] == '\n' && (uint8_t)text[end - 1] < 0x80 && text[end - 1] > ' ')) {
            end++;
        }
        snprintf(name, sizeof name, "parts/%02d.txt", part);
        write_text(name, text + at, end - at);
        at = end;
    }
    const char *parts = in_folder("parts");
    assert_int_equal(dm_word_counts_read(&whole, &parts, 1), DM_OK);
    assert_int_equal(whole.words.count, counts.words.count);
    for (uint32_t i = 0; i < counts.words.count; i++) {
        size_t length;
        const char *word = dm_strings_at(&counts.words, i, &length);
        uint32_t there = dm_strings_find(&whole.words, word, length);
        assert_int_not_equal(there, DM_TABLE_NONE);
        assert_int_equal(whole.counts[there], counts.counts[i]);
    }
    assert_true(occurrences > 1000000);
    dm_word_counts_free(&whole);
    dm_word_counts_free(&counts);
    dm_map_close(&map);
}

static void test_refusals(void **state) {
    (void)state;
    dm_tokenizer_train_result result;
    write_text("none.txt", "", 0);
    assert_int_equal(learn(in_folder("none.txt"), 300, in_folder("x.gguf"), &result), DM_ERR_ARGUMENT);
    assert_non_null(strstr(dm_error_message(), "no text"));
    assert_int_equal(learn(in_folder("hand.txt"), 256, in_folder("x.gguf"), &result), DM_ERR_ARGUMENT);
    assert_int_equal(learn(in_folder("not-there"), 300, in_folder("x.gguf"), &result), DM_ERR_IO);
    assert_non_null(strstr(dm_error_message(), "not-there"));
    dm_interrupt();
    assert_int_equal(learn(in_folder("hand.txt"), 300, in_folder("x.gguf"), &result), DM_ERR_INTERRUPTED);
    dm_interrupt_clear();
    assert_int_not_equal(access(in_folder("x.gguf"), F_OK), 0);
}

static int make_folder(void **state) {
    (void)state;
    return mkdtemp(folder) != NULL ? 0 : -1;
}

static int remove_folder(void **state) {
    (void)state;
    char command[300];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return system(command);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_merges_by_hand),    cmocka_unit_test(test_runs),
        cmocka_unit_test(test_documents),         cmocka_unit_test(test_same_for_any_threads),
        cmocka_unit_test(test_pieces_keep_words), cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
