/* The limits of the machine (src/optimization/limits.h) as one JSON object; takes a few seconds. */
#include <stdio.h>

#include "dilmodeli.h"
#include "optimization/limits.h"

static void print_rate(const char *name, double rate) {
    printf(rate > 0 ? ", \"%s\": %.1f" : ", \"%s\": null", name, rate);
}

int main(void) {
    dm_limits limits;
    dm_machine_limits(&limits);
    printf("{\"threads\": %d, \"isa\": \"%s\"", limits.threads, dm_isa());
    print_rate("fp32_gflops", limits.fp32_gops);
    print_rate("bf16_gflops", limits.bf16_gops);
    print_rate("int8_gops", limits.int8_gops);
    print_rate("int8_vector_gops", limits.int8_vector_gops);
    print_rate("dram_read_gb_s", limits.read_gb_s);
    printf("}\n");
    return 0;
}
