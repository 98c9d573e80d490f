/* Charts: well-formed whatever is in them, as many marks as there are numbers, scales, and the layout of networks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>

#include "base/random.h"
#include "base/web.h"
#include "visualization/chart.h"
#include "visualization/layout.h"
#include "visualization/markup.h"
#include "visualization/scale.h"
#include "xml_check.h"

/* Markup, quotes, a broken character, a control character, one that XML has no place for, and the end of a CDATA section. */
static const char nasty[] = "<b a=\"1\" c='2'>&amp;</b>]]></script>\xff\x01\xef\xbf\xbe\xe4\xbd\xa0";

static char *written(const dm_chart *chart, bool table, const char *style) {
    dm_text_stream stream;
    dm_text_stream_begin(&stream);
    assert_non_null(stream.stream);
    if (table) {
        chart->kind->tabulate(chart, stream.stream);
    } else {
        chart->kind->draw(chart, style, stream.stream);
    }
    assert_true(dm_text_stream_end(&stream));
    size_t where = 0;
    if (xml_check(stream.text, stream.length, &where) == 0) {
        fail_msg("no XML at byte %zu: %.80s", where, stream.text + where);
    }
    assert_null(strstr(stream.text, "<b a="));
    assert_null(strstr(stream.text, "nan"));
    assert_null(strstr(stream.text, "inf"));
    return stream.text;
}

static size_t count_in(const dm_chart *chart, bool table, const char *word) {
    char *text = written(chart, table, NULL);
    size_t count = count_of(text, word);
    free(text);
    return count;
}

/* Points of the first line. */
static size_t count_points(const dm_chart *chart) {
    char *text = written(chart, false, NULL), *at = strstr(text, "points=\"");
    size_t count = 0;
    assert_non_null(at);
    for (at += strlen("points=\""); *at != '"'; at++) {
        count += *at == ',';
    }
    free(text);
    return count;
}

/* ---- Text ---- */

static void the_checker_knows_xml(void **state) {
    (void)state;
    static const char *const bad[] = {"<a>",
                                      "<a></b>",
                                      "<a b=1/>",
                                      "<a b=\"1\" b=\"2\"/>",
                                      "<a>&nbsp;</a>",
                                      "<a/><b/>",
                                      "<a>\x01</a>",
                                      "<a>\xff</a>",
                                      "a<b/>",
                                      "<a b=\"<\"/>",
                                      "",
                                      "<a>&</a>",
                                      "<a></a",
                                      "<a><![CDATA[</a>"};
    size_t where;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(xml_check(bad[i], strlen(bad[i]), &where), 0);
    }
    const char *good = "<?xml version=\"1.0\"?>\n<!DOCTYPE html><a b=\"&lt;\"><c/>x&amp;<![CDATA[<&]]></a>\n";
    assert_int_equal(xml_check(good, strlen(good), &where), 2);
}

static void texts_are_escaped(void **state) {
    (void)state;
    dm_text_stream stream;
    dm_text_stream_begin(&stream);
    dm_markup_text(stream.stream, nasty);
    assert_true(dm_text_stream_end(&stream));
    assert_string_equal(stream.text, "&lt;b a=&quot;1&quot; c=&#39;2&#39;&gt;&amp;amp;&lt;/b&gt;]]&gt;&lt;/script&gt;"
                                     "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xe4\xbd\xa0");
    free(stream.text);
    dm_text_stream_begin(&stream);
    dm_markup_json(stream.stream, nasty, sizeof nasty - 1);
    assert_true(dm_text_stream_end(&stream));
    assert_null(strpbrk(stream.text, "<>&'"));
    assert_non_null(strstr(stream.text, "\"\\u003cb a=\\u00221\\u0022"));
    free(stream.text);
}

static void numbers_are_short(void **state) {
    (void)state;
    static const struct {
        double value;
        const char *text;
    } cases[] = {{0.0, "0"},        {1234.0, "1234"},  {12345.0, "12.35k"}, {4408960.0, "4.409M"},
                 {-2.5e9, "-2.5G"}, {1e300, "1e+300"}, {NAN, "-"},          {0.000123456, "0.0001235"}};
    char text[DM_NUMBER_TEXT];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        dm_number_text(cases[i].value, text);
        assert_string_equal(text, cases[i].text);
    }
    dm_slug("--Loads of LAYER 3 / <x>", text, sizeof text);
    assert_string_equal(text, "loads-of-layer-3-x");
}

/* ---- Scales ---- */

static void scales_hold_their_values(void **state) {
    (void)state;
    dm_random random;
    dm_random_seed(&random, 3);
    for (int round = 0; round < 2000; round++) {
        double a = dm_random_normal(&random) * pow(10.0, 40 * dm_random_uniform(&random) - 20), b = a;
        b += round % 5 == 0 ? 0.0 : fabs(dm_random_normal(&random)) * pow(10.0, 40 * dm_random_uniform(&random) - 20);
        dm_scale s = dm_scale_make(a, b, round % 2 == 0, round % 3 == 0);
        assert_true(s.low < s.high && s.low <= a && s.high >= b && s.n_ticks <= DM_SCALE_TICKS);
        assert_true(s.logarithmic == (round % 2 == 0 && a > 0.0));
        s.start = 10;
        s.stop = 110;
        double slack = 1e-6 * (s.high - s.low);
        for (int i = 0; i < s.n_ticks; i++) {
            assert_true(s.ticks[i] >= s.low - slack && s.ticks[i] <= s.high + slack && (i == 0 || s.ticks[i] > s.ticks[i - 1]));
        }
        assert_true(dm_scale_place(&s, a) >= 10 - 1e-6 && dm_scale_place(&s, b) <= 110 + 1e-6);
    }
    static const double odd[][2] = {{INFINITY, -INFINITY}, {NAN, NAN}, {-1.7e308, 1.7e308},
                                    {5e-324, 5e-324},      {0, 0},     {-INFINITY, INFINITY}};
    for (size_t i = 0; i < 2 * sizeof odd / sizeof *odd; i++) {
        dm_scale s = dm_scale_make(odd[i / 2][0], odd[i / 2][1], i % 2 != 0, false);
        assert_true(isfinite(s.low) && isfinite(s.high) && s.low < s.high && s.n_ticks > 0);
    }
    dm_scale s = dm_scale_make(0, 9.3, false, false);
    assert_true(s.high == 10 && s.n_ticks == 6 && s.ticks[1] == 2);
}

/* ---- Lines ---- */

static void a_line_has_a_point_for_each_number(void **state) {
    (void)state;
    enum { N = 50 };
    double x[N], y[N], sparse[N];
    for (size_t i = 0; i < N; i++) {
        x[i] = (double)(3 * i);
        y[i] = i == 7 ? NAN : exp(-0.1 * (double)i);
        sparse[i] = i % 10 == 0 ? (double)(i + 1) : NAN;
    }
    dm_line_chart chart = {
        {&dm_line_chart_kind, "a", nasty, nasty}, .x_name = nasty, .y_name = nasty, .n = N, .n_series = 2, .x = x};
    chart.series[0] = (dm_series){nasty, y};
    chart.series[1] = (dm_series){"sparse", sparse};
    for (int way = 0; way < 3; way++) {
        chart.logarithmic = way == 1;
        chart.from_zero = way == 2;
        assert_int_equal(count_points(&chart.head), N - 1);
        assert_int_equal(count_in(&chart.head, false, "class=\"hit\""), N);
        assert_int_equal(count_in(&chart.head, false, "marker s1"), 5 + 1); /* one in the legend */
        assert_int_equal(count_in(&chart.head, true, "<tr>"), N + 1);
        assert_int_equal(count_in(&chart.head, true, "<td>-</td>"), 1 + N - 5);
    }
    char *alone = written(&chart.head, false, "a > b { c: d }");
    assert_non_null(strstr(alone, "<style>a &gt; b"));
    free(alone);
}

static void lines_bear_any_numbers(void **state) {
    (void)state;
    static const double x[] = {0, 1, 2, 3, 4, 5}, y[] = {1e300, -1e300, NAN, INFINITY, -INFINITY, 0};
    dm_line_chart chart = {{&dm_line_chart_kind, "a", "t", "n"}, .x_name = "x", .y_name = "y", .n = 6, .n_series = 1, .x = x};
    chart.series[0] = (dm_series){"s", y};
    assert_int_equal(count_points(&chart.head), 3);
    chart.n = 1; /* a single point, and none at all */
    assert_int_equal(count_points(&chart.head), 1);
    chart.n = 0;
    assert_int_equal(count_points(&chart.head), 0);
    chart.n = 1;
    chart.series[0].values = y + 2;
    assert_int_equal(count_points(&chart.head), 0);
}

/* ---- The others ---- */

static void bars_and_cells_are_as_many_as_numbers(void **state) {
    (void)state;
    static const char *const labels[] = {nasty, "b", "a label that is much too long for the room that it has in any chart"};
    static const double values[] = {1, 2, 0, 4, NAN, 1e290};
    dm_bar_chart bars = {
        {&dm_bar_chart_kind, "bars", nasty, nasty}, .row_name = nasty, .value_name = nasty, .rows = 3, .n_series = 2};
    bars.labels = labels;
    bars.series[0] = nasty;
    bars.series[1] = "second";
    bars.values = values;
    for (int stacked = 0; stacked < 2; stacked++) {
        bars.stacked = stacked == 1;
        assert_int_equal(count_in(&bars.head, false, "class=\"bar s0\""), 2 + 1); /* one in the legend, one is not there */
        assert_int_equal(count_in(&bars.head, false, "class=\"bar s1\""), 3 + 1);
        assert_int_equal(count_in(&bars.head, false, "class=\"hit\""), 3);
        assert_int_equal(count_in(&bars.head, true, "<tr>"), 4);
    }
    dm_heat_map map = {{&dm_heat_map_kind, "map", nasty, nasty}, .x_name = nasty, .y_name = nasty, .value_name = nasty};
    map.rows = 3;
    map.columns = 2;
    map.values = values;
    map.row_labels = labels;
    map.texts = (const char *const[6]){nasty, NULL, NULL, NULL, NULL, NULL};
    for (int ratio = 0; ratio < 2; ratio++) {
        map.around_one = ratio == 1;
        assert_int_equal(count_in(&map.head, false, "<title>"), 5); /* one is not there */
        assert_int_equal(count_in(&map.head, true, "<td>"), 6);
    }
    map.row_labels = NULL;
    assert_int_equal(count_in(&map.head, true, "scope=\"row\">2<"), 1);
}

static void a_network_ties_neighbours_once(void **state) {
    (void)state;
    static const float places[] = {0, 0, 1, 0, 1, 1, 0, 1};
    static const int32_t linked[] = {1, 2, 0, 2, 1, 3, 0, -1};
    static const double sizes[] = {1, 0, 30, 4};
    dm_network w = {{&dm_network_kind, "net", nasty, nasty}, .node_name = nasty, .size_name = nasty, .n = 4, .links = 2};
    w.places = places;
    w.linked = linked;
    w.sizes = sizes;
    assert_int_equal(count_in(&w.head, false, "data-node="), 4);
    assert_int_equal(count_in(&w.head, false, "class=\"tie both\""), 2); /* 0-1 and 1-2 */
    assert_int_equal(count_in(&w.head, false, "class=\"tie\""), 3);      /* 0 to 2, 2 to 3, 3 to 0 */
    assert_int_equal(count_in(&w.head, true, "<tr>"), 5);
    w.sizes = NULL;
    assert_int_equal(count_in(&w.head, false, "data-node="), 4);
}

/* ---- Layout ---- */

enum { POINTS = 24, DIM = 16 };

/* Two groups of directions, each around one of its own. */
static void draw_rows(float *rows) {
    dm_random random;
    dm_random_seed(&random, 5);
    for (size_t i = 0; i < POINTS; i++) {
        double square = 0.0;
        for (size_t d = 0; d < DIM; d++) {
            double value = 0.15 * dm_random_normal(&random) + (d == i % 2 ? 1.0 : 0.0);
            rows[i * DIM + d] = (float)value;
            square += value * value;
        }
        for (size_t d = 0; d < DIM; d++) {
            rows[i * DIM + d] /= (float)sqrt(square);
        }
    }
}

static double apart(const float *places, size_t i, size_t j) {
    return hypot((double)(places[2 * i] - places[2 * j]), (double)(places[2 * i + 1] - places[2 * j + 1]));
}

static void what_is_alike_is_near(void **state) {
    (void)state;
    float rows[POINTS * DIM], places[2 * POINTS], again[2 * POINTS], random_places[2 * POINTS];
    draw_rows(rows);
    assert_int_equal(dm_layout(rows, POINTS, DIM, 1, places), DM_OK);
    assert_int_equal(dm_layout(rows, POINTS, DIM, 1, again), DM_OK);
    assert_memory_equal(places, again, sizeof places);
    double within = 0.0, between = 0.0, stress, random_stress;
    for (size_t i = 0; i < POINTS; i++) {
        assert_true(places[2 * i] >= 0.0f && places[2 * i] <= 1.0f && places[2 * i + 1] >= 0.0f && places[2 * i + 1] <= 1.0f);
        for (size_t j = 0; j < i; j++) {
            *(i % 2 == j % 2 ? &within : &between) += apart(places, i, j);
            assert_true(apart(places, i, j) > 0.02);
        }
    }
    assert_true(between > 1.5 * within); /* of nearly as many pairs */
    dm_random random;
    dm_random_seed(&random, 9);
    for (size_t i = 0; i < 2 * POINTS; i++) {
        random_places[i] = (float)dm_random_uniform(&random);
    }
    assert_int_equal(dm_layout_stress(rows, POINTS, DIM, places, &stress), DM_OK);
    assert_int_equal(dm_layout_stress(rows, POINTS, DIM, random_places, &random_stress), DM_OK);
    assert_true(stress >= 0.0 && stress < 0.5 * random_stress);
}

static void odd_layouts_are_places_too(void **state) {
    (void)state;
    float rows[8 * 3] = {0}, places[16]; /* all the same */
    for (size_t n = 1; n <= 8; n++) {
        assert_int_equal(dm_layout(rows, n, 3, 1, places), DM_OK);
        for (size_t i = 0; i < 2 * n; i++) {
            assert_true(places[i] >= 0.0f && places[i] <= 1.0f);
        }
    }
    assert_int_equal(dm_layout(rows, 0, 3, 1, places), DM_ERR_ARGUMENT);
    assert_int_equal(dm_layout(rows, DM_LAYOUT_MOST + 1, 3, 1, places), DM_ERR_ARGUMENT);
}

/* ---- Colours ---- */

/* The relative luminance (WCAG 2.2) of a variable in the style sheet from `sheet` on. */
static double luminance(const char *sheet, const char *name) {
    char wanted[16];
    unsigned rgb[3];
    double sum = 0.0;
    static const double weights[] = {0.2126, 0.7152, 0.0722};
    snprintf(wanted, sizeof wanted, "--%s: #", name);
    const char *at = strstr(sheet, wanted);
    assert_non_null(at);
    assert_int_equal(sscanf(at + strlen(wanted), "%2x%2x%2x", &rgb[0], &rgb[1], &rgb[2]), 3);
    for (int i = 0; i < 3; i++) {
        double value = rgb[i] / 255.0;
        sum += weights[i] * (value <= 0.04045 ? value / 12.92 : pow((value + 0.055) / 1.055, 2.4));
    }
    return sum;
}

static double contrast(double a, double b) {
    return (fmax(a, b) + 0.05) / (fmin(a, b) + 0.05);
}

/* In the light, in the dark, and where a reader chose the dark: numbers can be read on cells, and lightness alone tells more from
 * less, which is far from the paper. */
static void cells_are_legible(void **state) {
    (void)state;
    static const char *const begins[] = {":root {", "@media (prefers-color-scheme: dark)", ":root[data-theme=\"dark\"]"};
    for (size_t i = 0; i < sizeof begins / sizeof *begins; i++) {
        const char *sheet = strstr(dm_web_report_chart_css, begins[i]);
        assert_non_null(sheet);
        const double paper = luminance(sheet, "paper"), far = luminance(sheet, "far"), near = luminance(sheet, "near");
        for (int d = 0; d < 9 + 8; d++) {
            char name[8], before[8];
            bool ratio = d < 9, is_far = ratio ? d <= 1 || d >= 7 : d - 9 >= 4;
            snprintf(name, sizeof name, ratio ? "d%d" : "q%d", ratio ? d : d - 9);
            const double cell = luminance(sheet, name);
            if (contrast(cell, is_far ? far : near) < 4.5) {
                fail_msg("numbers on %s of %s have a contrast of %.2f", name, begins[i], contrast(cell, is_far ? far : near));
            }
            int step = ratio && d < 4 ? d + 1 : d - 1; /* towards the middle, or 0 */
            if (d == 4 || d == 9) {
                assert_true(contrast(cell, paper) < 1.3);
                continue;
            }
            snprintf(before, sizeof before, ratio ? "d%d" : "q%d", ratio ? step : step - 9);
            if (contrast(cell, paper) < 1.1 * contrast(luminance(sheet, before), paper)) {
                fail_msg("%s of %s is not farther from the paper than %s", name, begins[i], before);
            }
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_checker_knows_xml),
        cmocka_unit_test(texts_are_escaped),
        cmocka_unit_test(numbers_are_short),
        cmocka_unit_test(scales_hold_their_values),
        cmocka_unit_test(a_line_has_a_point_for_each_number),
        cmocka_unit_test(lines_bear_any_numbers),
        cmocka_unit_test(bars_and_cells_are_as_many_as_numbers),
        cmocka_unit_test(a_network_ties_neighbours_once),
        cmocka_unit_test(what_is_alike_is_near),
        cmocka_unit_test(odd_layouts_are_places_too),
        cmocka_unit_test(cells_are_legible),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
