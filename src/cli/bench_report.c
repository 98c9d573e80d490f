#include "cli/bench_report.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "cli/cli.h"

static double share(double rate, double cost, double limit) {
    return limit > 0 ? rate * cost / (limit * 1e9) : 0;
}

static double bandwidth_share(const dm_bench_result *r) {
    return share(r->decode.tps, r->bytes_per_token + r->cache_bytes_per_token, r->read_gb_s);
}

/* What is in none of the kinds of operation. */
static double other_seconds(const dm_bench_speed *s) {
    double other = s->seconds;
    for (int i = 0; i < DM_OPERATIONS; i++) {
        other -= s->times[i];
    }
    return other;
}

static int64_t other_bytes(const dm_bench_memory *m) {
    return (int64_t)m->resident - (int64_t)(m->file + m->repacked + m->cache + m->scratch);
}

/* ---- Memory nodes ---- */

static void print_nodes(const dm_model *model) {
    for (size_t i = 0; i < dm_model_nodes(model); i++) {
        dm_node_use use;
        dm_model_node(model, i, &use);
        printf("%-14s %s: node %d, %d threads, %.1f MiB of weights, %" PRIu64 " experts; %" PRIu64 " pieces of work, %" PRIu64
               " by others\n",
               i == 0 ? "nodes" : "", dm_numa_name(dm_model_numa(model)), use.node, use.threads, (double)use.bytes / 1048576,
               use.experts, use.own_work + use.foreign_work, use.foreign_work);
    }
}

static json_t *json_nodes(const dm_model *model) {
    json_t *nodes = json_array();
    for (size_t i = 0; i < dm_model_nodes(model); i++) {
        dm_node_use use;
        dm_model_node(model, i, &use);
        json_t *pages = use.node < 0 ? json_null()
                                     : json_pack("{s:I, s:I}", "there", (json_int_t)use.pages_there, "elsewhere",
                                                 (json_int_t)use.pages_elsewhere);
        json_array_append_new(nodes,
                              json_pack("{s:i, s:i, s:I, s:I, s:I, s:I, s:o}", "node", use.node, "threads", use.threads,
                                        "experts", (json_int_t)use.experts, "weight_bytes", (json_int_t)use.bytes, "own_work",
                                        (json_int_t)use.own_work, "foreign_work", (json_int_t)use.foreign_work, "pages", pages));
    }
    return json_pack("{s:s, s:o}", "how", dm_numa_name(dm_model_numa(model)), "nodes", nodes);
}

/* ---- Text ---- */

static void print_speed(const char *name, const dm_bench_speed *s, int32_t rounds, int32_t tokens, int32_t sequences) {
    if (tokens > 0) {
        printf("%-14s %.1f tokens/s (%.1f to %.1f over %d rounds of %d", name, s->tps, s->slowest, s->fastest, rounds, tokens);
        printf(sequences > 1 ? " x %d)\n" : ")\n", sequences);
    }
}

static void print_memory(const dm_bench_result *r) {
    const double mib = 1048576;
    const dm_bench_memory *m = &r->memory;
    printf("%-14s %.1f MiB resident: file %.1f, repacked %.1f, keys and values %.1f, scratch %.1f, other %.1f\n", "memory",
           (double)m->resident / mib, (double)m->file / mib, (double)m->repacked / mib, (double)m->cache / mib,
           (double)m->scratch / mib, (double)other_bytes(m) / mib);
    printf("%-14s %.1f MiB on huge pages; %.1f at most; the file has %.1f\n", "", (double)m->huge / mib,
           (double)r->peak_rss / mib, (double)m->file_size / mib);
}

static void print_costs(const dm_bench_options *how, const dm_bench_result *r) {
    printf("%-14s %.1f MB of weights, %.1f MB of keys and values, %.1f million operations for a decoded token, %.1f for one of a "
           "prompt\n",
           "cost", r->bytes_per_token * 1e-6, r->cache_bytes_per_token * 1e-6, r->decode_operations * 1e-6,
           r->prefill_operations * 1e-6);
    if (r->experts_per_step > 0) {
        printf("%-14s %.1f of a layer for the %d of a step\n", "experts", r->experts_per_step, how->sequences);
    }
}

/* NaN stands for what was not measured, which is not above 0. */
static void print_time(const char *name, double prefill, double all_prefill, double decode, double all_decode) {
    const double seconds[2] = {prefill, decode}, whole[2] = {all_prefill, all_decode};
    printf("  %-14s", name);
    for (int i = 0; i < 2; i++) {
        if (whole[i] > 0) {
            printf(" %9.2f us %5.1f%%", 1e6 * seconds[i], 100 * seconds[i] / whole[i]);
        } else {
            printf(" %19s", "-");
        }
    }
    printf("\n");
}

static void print_times(const dm_bench_speed *prefill, const dm_bench_speed *decode) {
    printf("%-16s %19s %19s\n", "time of a token", "prefill", "decode");
    for (int i = 0; i < DM_OPERATIONS; i++) {
        if (prefill->times[i] > 0 || decode->times[i] > 0) {
            print_time(dm_operation_name((dm_operation)i), prefill->times[i], prefill->seconds, decode->times[i],
                       decode->seconds);
        }
    }
    print_time("other", other_seconds(prefill), prefill->seconds, other_seconds(decode), decode->seconds);
    print_time("in all", prefill->seconds, prefill->seconds, decode->seconds, decode->seconds);
}

static void print_arithmetic(const char *name, const dm_bench_result *r, const dm_bench_speed *s, double operations) {
    if (s->seconds > 0) {
        printf("%-14s %s: %.1f%% of int8 arithmetic (%.1f%% of that of vectors), %.1f%% of bfloat16's, %.1f%% of float32's\n",
               "share", name, 100 * share(s->tps, operations, r->int8_gops), 100 * share(s->tps, operations, r->int8_vector_gops),
               100 * share(s->tps, operations, r->bf16_gops), 100 * share(s->tps, operations, r->fp32_gops));
    }
}

static void print_limits(const dm_bench_result *r) {
    printf("%-14s %.1f GB/s read; 10^9 operations a second: float32 %.0f, bfloat16 %.0f, int8 %.0f (vectors %.0f)\n", "limits",
           r->read_gb_s, r->fp32_gops, r->bf16_gops, r->int8_gops, r->int8_vector_gops);
    if (r->read_gb_s > 0 && r->decode.seconds > 0) {
        printf("%-14s decode: %.0f%% of the bandwidth\n", "share", 100 * bandwidth_share(r));
    }
    print_arithmetic("prefill", r, &r->prefill, r->prefill_operations);
    print_arithmetic("decode", r, &r->decode, r->decode_operations);
}

static void print_scaling(const dm_bench_result *results, int runs) {
    printf("%-14s %17s %17s\n", "threads", "prefill", "decode");
    for (int i = 0; i < runs; i++) {
        printf("  %-14d %9.1f %5.2f x %9.1f %5.2f x\n", i + 1, results[i].prefill.tps,
               results[i].prefill.tps / results[0].prefill.tps, results[i].decode.tps,
               results[i].decode.tps / results[0].decode.tps);
    }
}

void bench_print_text(const dm_model *model, const dm_bench_options *how, const dm_bench_result *results, int runs) {
    const dm_bench_result *r = &results[runs - 1];
    print_speed("prefill", &r->prefill, how->rounds, how->prompt, 1);
    print_speed("decode", &r->decode, how->rounds, how->decode, how->sequences);
    printf("%-14s %.2f s\n", "load", results[0].load_s);
    print_memory(r);
    print_nodes(model);
    if (r->routing.games > 0 || isfinite(r->routing.hit_rate)) {
        cli_print_routing(&r->routing);
    }
    cli_print_stream(model);
    print_costs(how, r);
    print_times(&r->prefill, &r->decode);
    if (how->limits) {
        print_limits(r);
    }
    if (runs > 1) {
        print_scaling(results, runs);
    }
}

/* ---- JSON ---- */

static void set_figure(json_t *object, const char *key, double value) {
    json_object_set_new(object, key, cli_json_figure(value));
}

/* Microseconds of a token. */
static json_t *json_times(const dm_bench_speed *s) {
    json_t *object = json_object();
    for (int i = 0; i < DM_OPERATIONS; i++) {
        set_figure(object, dm_operation_name((dm_operation)i), 1e6 * s->times[i]);
    }
    set_figure(object, "other", 1e6 * other_seconds(s));
    set_figure(object, "total", 1e6 * s->seconds);
    return object;
}

static void set_speeds(json_t *object, const dm_bench_result *r) {
    set_figure(object, "prefill_tps", r->prefill.tps);
    set_figure(object, "prefill_slowest", r->prefill.slowest);
    set_figure(object, "prefill_fastest", r->prefill.fastest);
    set_figure(object, "decode_tps", r->decode.tps);
    set_figure(object, "decode_slowest", r->decode.slowest);
    set_figure(object, "decode_fastest", r->decode.fastest);
    json_object_set_new(object, "prefill_us", json_times(&r->prefill));
    json_object_set_new(object, "decode_us", json_times(&r->decode));
}

static void set_costs(json_t *object, const dm_bench_result *r) {
    set_figure(object, "bytes_per_token", r->bytes_per_token);
    set_figure(object, "cache_bytes_per_token", r->cache_bytes_per_token);
    set_figure(object, "experts_per_step", r->experts_per_step);
    set_figure(object, "decode_operations", r->decode_operations);
    set_figure(object, "prefill_operations", r->prefill_operations);
}

static json_t *json_memory(const dm_bench_memory *m) {
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "resident", (json_int_t)m->resident, "file", (json_int_t)m->file,
                     "repacked", (json_int_t)m->repacked, "cache", (json_int_t)m->cache, "scratch", (json_int_t)m->scratch,
                     "other", (json_int_t)other_bytes(m), "file_size", (json_int_t)m->file_size, "huge", (json_int_t)m->huge);
}

static json_t *json_shares(const dm_bench_result *r, double rate, double operations) {
    json_t *object = json_object();
    set_figure(object, "int8", share(rate, operations, r->int8_gops));
    set_figure(object, "int8_vector", share(rate, operations, r->int8_vector_gops));
    set_figure(object, "bf16", share(rate, operations, r->bf16_gops));
    set_figure(object, "fp32", share(rate, operations, r->fp32_gops));
    return object;
}

static void set_limits(json_t *object, const dm_bench_result *r) {
    set_figure(object, "read_gb_s", r->read_gb_s);
    set_figure(object, "fp32_gops", r->fp32_gops);
    set_figure(object, "bf16_gops", r->bf16_gops);
    set_figure(object, "int8_gops", r->int8_gops);
    set_figure(object, "int8_vector_gops", r->int8_vector_gops);
    set_figure(object, "bandwidth_share", bandwidth_share(r));
    set_figure(object, "arithmetic_share", share(r->prefill.tps, r->prefill_operations, r->int8_gops));
    json_object_set_new(object, "prefill_arithmetic_shares", json_shares(r, r->prefill.tps, r->prefill_operations));
    json_object_set_new(object, "decode_arithmetic_shares", json_shares(r, r->decode.tps, r->decode_operations));
}

static json_t *json_scaling(const dm_bench_result *results, int runs) {
    json_t *array = json_array();
    for (int i = 0; i < runs; i++) {
        json_t *one = json_pack("{s:i}", "threads", i + 1);
        set_speeds(one, &results[i]);
        json_array_append_new(array, one);
    }
    return array;
}

void bench_print_json(const dm_model *model, const dm_bench_options *how, const dm_bench_result *results, int runs) {
    const dm_bench_result *r = &results[runs - 1];
    json_t *object = json_pack("{s:i, s:i, s:i}", "threads", dm_threads(), "sequences", how->sequences, "depth", how->depth);
    set_speeds(object, r);
    set_figure(object, "load_s", results[0].load_s);
    json_object_set_new(object, "peak_rss_bytes", json_integer((json_int_t)r->peak_rss));
    json_object_set_new(object, "memory", json_memory(&r->memory));
    json_object_set_new(object, "numa", json_nodes(model));
    set_costs(object, r);
    if (how->limits) {
        set_limits(object, r);
    }
    if (runs > 1) {
        json_object_set_new(object, "scaling", json_scaling(results, runs));
    }
    json_object_set_new(object, "routing", cli_json_routing(&r->routing));
    json_object_set_new(object, "stream", cli_json_stream(model));
    cli_print_json(object);
}
