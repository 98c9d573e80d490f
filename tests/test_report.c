/* Reports: what runs, models and texts become, whatever is in their files; the games that they watch. */
#include "tiny_model.h"

#include <math.h>

#include "test_files.h"
#include "visualization/report.h"
#include "visualization/run_metrics.h"
#include "xml_check.h"

static const char *const files[] = {"metrics.jsonl", "model.gguf", "page.html", "again.html", "report.json", NULL};

/* A page that was written, well-formed; the caller's to free(). */
static char *page_of(const dm_report_options *options, dm_report_result *result) {
    uint8_t *bytes;
    size_t where = 0;
    if (dm_report(options, result) != DM_OK) {
        fail_msg("%s", dm_error_message());
    }
    size_t size = test_read(options->page, &bytes);
    bytes[size] = '\0';
    if (xml_check((const char *)bytes, size, &where) == 0) {
        fail_msg("no XML at byte %zu: %.80s", where, (const char *)bytes + where);
    }
    return (char *)bytes;
}

static size_t count_figures(const char *page) {
    return count_of(page, "<figure ");
}

/* ---- Metrics ---- */

static void parse(const char *text, dm_run_metrics *out) {
    assert_int_equal(dm_run_metrics_parse(text, strlen(text), out), DM_OK);
}

static void metrics_are_read(void **state) {
    (void)state;
    dm_run_metrics m;
    parse("{\"step\":1,\"loss\":3.5,\"lr\":0.1}\n\n{\"step\":2,\"loss\":3.25,\"extra\":[1]}\n"
          "{\"step\":2,\"val_loss\":3,\"val_loads\":[[1,2],[3,0]]}\n{\"step\":3,\"sample\":\"x\"}\n",
          &m);
    assert_true(m.n == 3 && m.skipped == 0 && !m.cut_short && m.n_loads == 1 && m.layers == 2 && m.experts == 2);
    assert_true(m.values[DM_RUN_LOSS][0] == 3.5 && m.values[DM_RUN_LOSS][1] == 3.25 && isnan(m.values[DM_RUN_LOSS][2]));
    assert_true(m.values[DM_RUN_VAL_LOSS][1] == 3.0 && isnan(m.values[DM_RUN_LR][1]) && m.loads[0].step == 2.0);
    assert_true(m.loads[0].tokens[2] == 3.0f && dm_run_metrics_count(&m, DM_RUN_LOSS) == 2);
    dm_run_metrics_free(&m);
}

static void lines_that_cannot_be_used_are_counted(void **state) {
    (void)state;
    static const char *const bad[] = {"{",
                                      "[1]",
                                      "{\"loss\":1}",
                                      "{\"step\":NaN,\"loss\":1}",
                                      "{\"step\":5,\"loss\":NaN}",
                                      "{\"step\":5,\"loss\":\"1\"}",
                                      "{\"step\":5,\"loss\":1e400}",
                                      "{\"step\":5,\"loss\":1e305}",
                                      "{\"step\":5,\"step\":6}",
                                      "{\"step\":-1,\"loss\":1}",
                                      "{\"step\":1,\"loss\":1}",
                                      "{\"step\":5,\"val_loads\":[[1,2,3]]}",
                                      "{\"step\":5,\"val_loads\":[[1,-2],[1,1]]}",
                                      "{\"step\":5,\"val_loads\":[[1,2],[1,\"1\"]]}",
                                      "{\"step\":5,\"val_loads\":[]}",
                                      "{\"step\":5,\"val_loads\":{}}",
                                      "{\"step\":\"5\"}",
                                      "\xff\xfe",
                                      "{\"step\":5,\"loss\":\"\xff\"}"};
    enum { BAD = sizeof bad / sizeof *bad };
    char text[4096] = "{\"step\":3,\"loss\":2,\"val_loads\":[[1,2],[3,4]]}\n";
    dm_run_metrics m;
    for (size_t i = 0; i < BAD; i++) {
        strcat(strcat(text, bad[i]), "\n");
    }
    strcat(text, "{\"step\":99999999999999999999,\"loss\":1}\n{\"step\":1e30,\"los");
    parse(text, &m);
    assert_int_equal(m.skipped, BAD);
    assert_true(m.n == 2 && m.n_loads == 1 && m.cut_short);
    assert_true(m.values[DM_RUN_STEP][1] == 1e20);
    dm_run_metrics_free(&m);
    parse("", &m);
    assert_true(m.n == 0 && m.skipped == 0 && !m.cut_short);
    dm_run_metrics_free(&m);
    parse("{\"step\":1}", &m); /* the last line without its end is whole all the same */
    assert_true(m.n == 1 && !m.cut_short);
    dm_run_metrics_free(&m);
}

/* ---- Runs ---- */

static void write_metrics(int64_t steps) {
    FILE *out = fopen(test_path("metrics.jsonl"), "w");
    assert_non_null(out);
    for (int64_t s = 1; s <= steps; s++) {
        fprintf(out, "{\"step\":%lld,\"loss\":%g,\"lr\":1e-3,\"maxvio\":0.5,\"tokens_per_s\":100}\n", (long long)s,
                5.0 / (double)s);
        if (s % 10 == 0) {
            fprintf(out, "{\"step\":%lld,\"val_loss\":4,\"val_bpb\":2,\"val_maxvio\":1,\"val_loads\":[[1,2,3],[4,5,%lld]]}\n",
                    (long long)s, (long long)s);
        }
    }
    fprintf(out, "broken\n");
    fclose(out);
}

static const char *folder(void) {
    static char path[256];
    snprintf(path, sizeof path, "%s", test_path(""));
    return path;
}

/* Points of the line of a chart. */
static size_t points_of(const char *page, const char *chart) {
    const char *at = strstr(page, chart);
    size_t count = 0;
    assert_non_null(at);
    at = strstr(at, "points=\"");
    assert_non_null(at);
    for (at += strlen("points=\""); *at != '"'; at++) {
        count += *at == ',';
    }
    return count;
}

static void a_run_has_a_point_for_each_step(void **state) {
    (void)state;
    char page[256], again[256];
    dm_report_result result;
    snprintf(page, sizeof page, "%s", test_path("page.html"));
    snprintf(again, sizeof again, "%s", test_path("again.html"));
    write_metrics(120);
    char *first = page_of(&(dm_report_options){.source = folder(), .page = page}, &result);
    assert_true(result.charts == count_figures(first) && result.skipped == 1 && result.left_out > 0);
    assert_int_equal(points_of(first, "id=\"chart-loss\""), 120);
    assert_int_equal(points_of(first, "id=\"chart-held-out\""), 12);
    assert_non_null(strstr(first, "id=\"chart-loads-layer-1\""));
    assert_non_null(strstr(first, "1 lines of metrics.jsonl that could not be used"));
    assert_non_null(strstr(first, "<dt>Norm of the gradient</dt><dd>because"));
    assert_int_equal(count_of(first, "<table>"), result.charts);
    char *second = page_of(&(dm_report_options){.source = folder(), .page = again}, &result);
    assert_string_equal(first, second);
    free(first);
    free(second);
    write_metrics(4001); /* many: some steps a point */
    first = page_of(&(dm_report_options){.source = folder(), .page = page}, &result);
    assert_int_equal(points_of(first, "id=\"chart-loss\""), 364);
    assert_non_null(strstr(first, "Each point is the mean of 11 steps."));
    free(first);
}

static void nothing_outside_is_asked_for(void **state) {
    (void)state;
    dm_report_result result;
    write_metrics(20);
    char *page = page_of(&(dm_report_options){.source = folder(), .page = test_path("page.html")}, &result);
    static const char *const loads[] = {"src=", "@import", "url(http", "<link", "<img", "fetch(", "XMLHttpRequest", "<iframe"};
    for (size_t i = 0; i < sizeof loads / sizeof *loads; i++) {
        assert_null(strstr(page, loads[i]));
    }
    for (const char *at = strstr(page, "http"); at != NULL; at = strstr(at + 1, "http")) { /* names of formats alone */
        assert_true(strncmp(at, "http://www.w3.org/", 18) == 0 || strncmp(at, "http-equiv", 10) == 0);
    }
    assert_non_null(strstr(page, "default-src 'none'"));
    free(page);
}

/* ---- Models and texts ---- */

static const char text[] =
    "A flock of <b>starlings</b> & \"friends\" flies over </script> ]]> the field, and over it again and again.";

static void a_text_flies_over_the_flock(void **state) {
    (void)state;
    tiny_model tiny;
    dm_report_result result;
    tiny_model_make(&tiny, "qwen3moe", "f32", 3);
    const dm_report_options how = {.source = tiny.path,
                                   .text = text,
                                   .text_length = sizeof text - 1,
                                   .tokens = DM_EMULATED ? 24 : 80,
                                   .page = test_path("page.html")};
    char *page = page_of(&how, &result);
    assert_int_equal(result.charts, count_figures(page));
    static const char *const charts[] = {"flock-layer-0", "flock-layer-1", "potential", "regret",     "moves",  "sweeps",
                                         "served",        "hits",          "bits",      "operations", "memory", "bytes"};
    for (size_t i = 0; i < sizeof charts / sizeof *charts; i++) {
        char id[64];
        snprintf(id, sizeof id, "id=\"chart-%s\"", charts[i]);
        assert_int_equal(count_of(page, id), 1);
    }
    assert_int_equal(count_of(page, "data-node="), 2 * tiny.info.experts);
    const char *flight = strstr(page, "{\"tokens\":[");
    assert_non_null(flight);
    assert_non_null(strstr(flight, "\"\\u003c\",\"b\",\"\\u003e\"")); /* a token a byte */
    free(page);
    tiny_model_remove(&tiny);
}

static void a_dense_model_has_weights(void **state) {
    (void)state;
    tiny_model tiny;
    dm_report_result result;
    tiny_model_make(&tiny, "gpt2", "f16", 3);
    char *page = page_of(&(dm_report_options){.source = tiny.path, .page = test_path("page.html")}, &result);
    assert_int_equal(result.charts, 2);
    assert_non_null(strstr(page, "<dt>The flock</dt><dd>because the model has no experts</dd>"));
    free(page);
    tiny_model_remove(&tiny);
}

/* ---- Compression ---- */

static void a_compression_is_drawn_as_far_as_it_tells(void **state) {
    (void)state;
    static const struct {
        const char *json;
        size_t charts;
    } cases[] = {
        {"{\"bytes_in\":4e6,\"bytes_out\":1e6}", 1},
        {"{\"bytes_in\":4e6,\"bytes_out\":1e6,\"bpw\":4.5,\"before\":{\"perplexity\":32.81,\"decode_tps\":299},"
         "\"after\":{\"perplexity\":32.9,\"decode_tps\":500}}",
         4},
        {"{\"before\":{\"times\":{\"experts\":0.0018,\"x\":1}},\"after\":{\"times\":{\"experts\":0.0009}}}", 1},
        {"{\"matrices\":[{\"name\":\"blk.0.ffn_up.weight\",\"rows\":8,\"columns\":32,\"bytes\":144,\"type\":\"<i>&\"},"
         "{\"name\":\"blk.1.<b>.weight\",\"rows\":16,\"columns\":32,\"bytes\":80,\"tiles\":{\"0\":3,\"4\":1}}]}",
         2},
        {"{\"matrices\":[{\"name\":\"blk.0.ffn_up.weight\",\"rows\":8,\"columns\":32,\"bytes\":144,\"tiles\":{\"0\":0,\"4\":0}}]"
         "}",
         1},
        {"{\"tiles\":{\"0\":3,\"2\":5,\"8\":0,\"x\":1},\"error_before\":0.02,\"error_after\":0.01}", 2},
        /* what cannot be is left out */
        {"{\"bytes_in\":1,\"bytes_out\":-1,\"tiles\":{\"0\":-1,\"2\":\"3\"},\"error_after\":null,\"bpw\":\"4\",\"before\":[1],"
         "\"after\":3,\"matrices\":[1,{},{\"name\":7},{\"name\":\"blk.0.a\",\"rows\":4,\"columns\":4},"
         "{\"name\":\"blk.99999999999999999999.a\",\"rows\":4,\"columns\":4,\"bytes\":8},"
         "{\"name\":\"blk.0.a\",\"rows\":1e300,\"columns\":1e300,\"bytes\":8},"
         "{\"name\":\"blk.0.a\",\"rows\":0,\"columns\":4,\"bytes\":8,\"tiles\":7},"
         "{\"name\":\"blk.0.a\",\"rows\":4,\"columns\":4,\"bytes\":1e300,\"tiles\":{\"0\":\"x\"}},"
         "{\"name\":\"other\",\"rows\":4,\"columns\":4,\"bytes\":8}]}",
         1},
    };
    char report[256], page[256];
    snprintf(report, sizeof report, "%s", test_path("report.json"));
    snprintf(page, sizeof page, "%s", test_path("page.html"));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        dm_report_result result;
        test_write(report, cases[i].json, strlen(cases[i].json));
        char *drawn = page_of(&(dm_report_options){.source = report, .page = page}, &result);
        assert_int_equal(result.charts, cases[i].charts);
        assert_int_equal(count_figures(drawn), cases[i].charts);
        free(drawn);
    }
}

/* ---- What is no source ---- */

static void refuses(const dm_report_options *options, dm_status code, const char *word) {
    dm_report_result result;
    assert_int_equal(dm_report(options, &result), code);
    if (strstr(dm_error_message(), word) == NULL) {
        fail_msg("expected '%s' in: %s", word, dm_error_message());
    }
    assert_null(strchr(dm_error_message(), '\n'));
    assert_int_not_equal(access(options->page, F_OK), 0);
}

static void what_is_no_source_is_refused(void **state) {
    (void)state;
    char page[256], report[256];
    snprintf(page, sizeof page, "%s", test_path("page.html"));
    snprintf(report, sizeof report, "%s", test_path("report.json"));
    unlink(page);
    unlink(report);
    unlink(test_path("metrics.jsonl"));
    refuses(&(dm_report_options){.source = folder(), .page = page}, DM_ERR_ARGUMENT, "expected the folder of a training run");
    refuses(&(dm_report_options){.source = report, .page = page}, DM_ERR_IO, "cannot open");
    test_write(report, "nothing", 7);
    refuses(&(dm_report_options){.source = report, .page = page}, DM_ERR_FORMAT, "neither");
    test_write(report, "GGUF\x03", 5);
    refuses(&(dm_report_options){.source = report, .page = page}, DM_ERR_FORMAT, "report.json");
    test_write(test_path("metrics.jsonl"), "broken\n", 7);
    refuses(&(dm_report_options){.source = folder(), .page = page}, DM_ERR_ARGUMENT, "nothing to draw");
    write_metrics(3);
    refuses(&(dm_report_options){.source = folder(), .page = page, .text = text, .text_length = 5}, DM_ERR_ARGUMENT, "no model");
    test_write(test_path("model.gguf"), "GGUF\x03", 5);
    refuses(&(dm_report_options){.source = folder(), .page = page}, DM_ERR_FORMAT, "model.gguf");
    unlink(test_path("model.gguf"));
}

static int clean(void **state) {
    (void)state;
    test_remove(files);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(metrics_are_read),
        cmocka_unit_test(lines_that_cannot_be_used_are_counted),
        cmocka_unit_test(a_run_has_a_point_for_each_step),
        cmocka_unit_test(nothing_outside_is_asked_for),
        cmocka_unit_test(a_text_flies_over_the_flock),
        cmocka_unit_test(a_dense_model_has_weights),
        cmocka_unit_test(a_compression_is_drawn_as_far_as_it_tells),
        cmocka_unit_test(what_is_no_source_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, clean);
}
