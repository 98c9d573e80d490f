/*
 * Every product is cut into tiles whose operands fit the second-level cache, and the rows of the result are shared out
 * over the threads: oneDNN then packs from near memory, and a tile's sums do not depend on who computes it. Row
 * distances that are multiples of a page's cache sets cost up to half of the speed; see dm_matmul_stride().
 */
#include "kernels/matmul.h"

#include <omp.h>
#include <oneapi/dnnl/dnnl.h>
#include <signal.h>
#include <string.h>

#include "base/memory.h"
#include "base/parallel.h"
#include "base/threads.h"
#include "kernels/matmul_amx.h"
#include "kernels/processor.h"
#include "kernels/vector.h"

enum { TILE = 256, ROWS_TOGETHER = 32 };

typedef dm_amx_product product;

size_t dm_matmul_stride(size_t n) {
    size_t stride = (n + 15) / 16 * 16;
    return stride % 128 == 0 ? stride + 16 : stride;
}

static dm_status dnnl_failure(dnnl_status_t status, const product *p) {
    return dm_fail(status == dnnl_out_of_memory ? DM_ERR_MEMORY : DM_ERR_INTERNAL,
                   "oneDNN failed with status %d on a product of %zu x %zu x %zu", (int)status, p->m, p->n, p->k);
}

static dm_status multiply_f32(const product *p) {
    dnnl_status_t status =
        dnnl_sgemm(p->a_turned ? 'T' : 'N', p->b_turned ? 'T' : 'N', (dnnl_dim_t)p->m, (dnnl_dim_t)p->n, (dnnl_dim_t)p->k, 1.0f,
                   p->a, (dnnl_dim_t)p->lda, p->b, (dnnl_dim_t)p->ldb, p->accumulate ? 1.0f : 0.0f, p->c, (dnnl_dim_t)p->ldc);
    return status == dnnl_success ? DM_OK : dnnl_failure(status, p);
}

/* ---- bfloat16 ---- */

/* Room for the two rounded operands of a tile, one per thread, kept between calls. */
typedef struct scratch {
    void *bytes;
    size_t size;
} scratch;

static _Thread_local scratch rounded;

static void *scratch_bytes(size_t size) {
    if (rounded.size < size) {
        dm_free(rounded.bytes);
        rounded.bytes = dm_alloc(size, 1);
        rounded.size = rounded.bytes != NULL ? size : 0;
    }
    return rounded.bytes;
}

static dnnl_engine_t cpu_engine(void) {
    static dnnl_engine_t engine;
    dnnl_engine_t ready = __atomic_load_n(&engine, __ATOMIC_ACQUIRE);
    if (ready == NULL) {
#pragma omp critical(dm_matmul_engine)
        {
            if (engine == NULL && dnnl_engine_create(&ready, dnnl_cpu, 0) == dnnl_success) {
                __atomic_store_n(&engine, ready, __ATOMIC_RELEASE);
            }
            ready = engine;
        }
    }
    return ready;
}

static dnnl_stream_t thread_stream(void) {
    static _Thread_local dnnl_stream_t stream;
    if (stream == NULL && cpu_engine() != NULL) {
        dnnl_stream_create(&stream, cpu_engine(), dnnl_stream_default_flags);
    }
    return stream;
}

/* A row-major matrix, or the transpose of one. */
static dnnl_status_t describe(dnnl_memory_desc_t *desc, size_t rows, size_t columns, dnnl_data_type_t type, bool turned,
                              size_t stride) {
    dnnl_dims_t dims = {(dnnl_dim_t)rows, (dnnl_dim_t)columns};
    dnnl_dims_t strides = {turned ? 1 : (dnnl_dim_t)stride, turned ? (dnnl_dim_t)stride : 1};
    return dnnl_memory_desc_init_by_strides(desc, 2, dims, type, strides);
}

static dnnl_status_t matmul_primitive(const product *p, dnnl_data_type_t type, size_t lda, size_t ldb,
                                      dnnl_memory_desc_t descs[3], dnnl_primitive_t *out) {
    dnnl_matmul_desc_t matmul;
    dnnl_primitive_attr_t attributes = NULL;
    dnnl_post_ops_t post_ops = NULL;
    dnnl_primitive_desc_t primitive_desc = NULL;
    *out = NULL;
    dnnl_status_t status = describe(&descs[0], p->m, p->k, type, p->a_turned, lda);
    status = status != dnnl_success ? status : describe(&descs[1], p->k, p->n, type, p->b_turned, ldb);
    status = status != dnnl_success ? status : describe(&descs[2], p->m, p->n, dnnl_f32, false, p->ldc);
    status = status != dnnl_success ? status : dnnl_matmul_desc_init(&matmul, &descs[0], &descs[1], NULL, &descs[2]);
    status = status != dnnl_success ? status : dnnl_primitive_attr_create(&attributes);
    if (status == dnnl_success && p->accumulate) {
        status = dnnl_post_ops_create(&post_ops);
        status = status != dnnl_success ? status : dnnl_post_ops_append_sum(post_ops, 1.0f);
        status = status != dnnl_success ? status : dnnl_primitive_attr_set_post_ops(attributes, post_ops);
    }
    status =
        status != dnnl_success ? status : dnnl_primitive_desc_create(&primitive_desc, &matmul, attributes, cpu_engine(), NULL);
    status = status != dnnl_success ? status : dnnl_primitive_create(out, primitive_desc);
    dnnl_primitive_desc_destroy(primitive_desc);
    dnnl_post_ops_destroy(post_ops);
    dnnl_primitive_attr_destroy(attributes);
    return status;
}

/* The product by a matmul primitive on operands of `type` that lie in `a` and `b`. oneDNN keeps compiled primitives by
 * shape, so asking again for one is cheap. */
static dm_status multiply_primitive(const product *p, dnnl_data_type_t type, void *a, size_t lda, void *b, size_t ldb) {
    dnnl_memory_desc_t descs[3];
    dnnl_primitive_t primitive;
    dnnl_status_t status = matmul_primitive(p, type, lda, ldb, descs, &primitive);
    void *data[3] = {a, b, p->c};
    static const int slots[3] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST};
    dnnl_memory_t memories[3] = {NULL};
    dnnl_exec_arg_t arguments[3];
    for (int i = 0; i < 3 && status == dnnl_success; i++) {
        status = dnnl_memory_create(&memories[i], &descs[i], cpu_engine(), data[i]);
        arguments[i] = (dnnl_exec_arg_t){slots[i], memories[i]};
    }
    status = status != dnnl_success ? status : dnnl_primitive_execute(primitive, thread_stream(), 3, arguments);
    status = status != dnnl_success ? status : dnnl_stream_wait(thread_stream());
    for (int i = 0; i < 3; i++) {
        dnnl_memory_destroy(memories[i]);
    }
    dnnl_primitive_destroy(primitive);
    return status == dnnl_success ? DM_OK : dnnl_failure(status, p);
}

/* What the machine offers: each a little more than the one before. */
typedef enum bf16_support { BF16_UNKNOWN, BF16_EMULATED, BF16_DOTS, BF16_TILES } bf16_support;

static bool dnnl_has_bf16(void) {
    const product probe = {.m = TILE, .n = TILE, .k = TILE, .ldc = TILE};
    dnnl_memory_desc_t descs[3];
    dnnl_primitive_t primitive = NULL;
    bool found = matmul_primitive(&probe, dnnl_bf16, TILE, TILE, descs, &primitive) == dnnl_success;
    dnnl_primitive_destroy(primitive);
    return found;
}

static bf16_support bf16(void) {
    static int known;
    int answer = __atomic_load_n(&known, __ATOMIC_RELAXED);
    if (answer == BF16_UNKNOWN) {
        const dm_processor *processor = dm_processor_features();
        answer = processor->avx512_bf16 && processor->amx_bf16 ? BF16_TILES
                 : processor->avx512_bf16 && dnnl_has_bf16()   ? BF16_DOTS
                                                               : BF16_EMULATED;
        __atomic_store_n(&known, answer, __ATOMIC_RELAXED);
    }
    return (bf16_support)answer;
}

bool dm_matmul_bf16_native(void) {
    return bf16() != BF16_EMULATED;
}

static dm_status multiply_bf16(const product *p) {
    const dm_vector_table *vector = dm_vector();
    size_t a_rows = p->a_turned ? p->k : p->m;
    size_t a_columns = p->a_turned ? p->m : p->k;
    size_t b_rows = p->b_turned ? p->n : p->k;
    size_t b_columns = p->b_turned ? p->k : p->n;
    size_t lda = dm_matmul_stride(a_columns);
    size_t ldb = dm_matmul_stride(b_columns);
    bool native = bf16() == BF16_DOTS;
    size_t width = native ? sizeof(uint16_t) : sizeof(float);
    char *a = scratch_bytes((a_rows * lda + b_rows * ldb) * width);
    if (a == NULL) {
        return DM_ERR_MEMORY;
    }
    char *b = a + a_rows * lda * width;
    for (size_t i = 0; i < a_rows + b_rows; i++) {
        bool first = i < a_rows;
        const float *from = first ? p->a + i * p->lda : p->b + (i - a_rows) * p->ldb;
        char *to = first ? a + i * lda * width : b + (i - a_rows) * ldb * width;
        size_t columns = first ? a_columns : b_columns;
        if (native) {
            vector->f32_to_bf16((uint16_t *)(void *)to, from, columns);
        } else {
            vector->round_bf16((float *)(void *)to, from, columns);
        }
    }
    if (native) {
        return multiply_primitive(p, dnnl_bf16, a, lda, b, ldb);
    }
    product emulated = *p;
    emulated.a = (const float *)(const void *)a;
    emulated.lda = lda;
    emulated.b = (const float *)(const void *)b;
    emulated.ldb = ldb;
    return multiply_f32(&emulated);
}

/* ---- Tiles and threads ---- */

/* oneDNN's kernels let the stack pointer wander through their buffers: a signal handled meanwhile would write its frame over
 * whatever the heap has below. So this thread hears of none, but of faults of its own; returns what it heard before. */
static sigset_t hold_signals(void) {
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS};
    sigset_t held, before;
    sigfillset(&held);
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        sigdelset(&held, faults[i]);
    }
    pthread_sigmask(SIG_BLOCK, &held, &before);
    return before;
}

/* Rows of `p`, tile by tile; the sum over k goes through the tiles in order. */
static dm_status multiply_tiles(dm_precision precision, const product *p) {
    for (size_t i = 0; i < p->m; i += TILE) {
        for (size_t l = 0; l < p->k; l += 2 * TILE) {
            for (size_t j = 0; j < p->n; j += TILE) {
                product tile = *p;
                tile.m = p->m - i < TILE ? p->m - i : TILE;
                tile.n = p->n - j < TILE ? p->n - j : TILE;
                tile.k = p->k - l < 2 * TILE ? p->k - l : 2 * TILE;
                tile.a += p->a_turned ? l * p->lda + i : i * p->lda + l;
                tile.b += p->b_turned ? j * p->ldb + l : l * p->ldb + j;
                tile.c += i * p->ldc + j;
                tile.accumulate = p->accumulate || l > 0;
                DM_TRY(precision == DM_PRECISION_BF16 ? multiply_bf16(&tile) : multiply_f32(&tile));
            }
        }
    }
    return DM_OK;
}

/* Rows [begin, end) of the result. */
static dm_status multiply_rows(dm_precision precision, const product *p, size_t begin, size_t end) {
    product part = *p;
    part.m = end - begin;
    part.a += p->a_turned ? begin : begin * p->lda;
    part.c += begin * p->ldc;
    if (precision == DM_PRECISION_F32 || bf16() != BF16_TILES) {
        const sigset_t before = hold_signals();
        const dm_status status = multiply_tiles(precision, &part);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        return status;
    }
    void *panels = scratch_bytes(dm_amx_scratch());
    if (panels == NULL) {
        return DM_ERR_MEMORY;
    }
    dm_amx_multiply(&part, panels);
    return DM_OK;
}

static dm_status multiply(dm_precision precision, const product *p) {
    if (p->m == 0 || p->n == 0) {
        return DM_OK;
    }
    if (p->k == 0) {
        for (size_t i = 0; i < p->m && !p->accumulate; i++) {
            memset(p->c + i * p->ldc, 0, p->n * sizeof(float));
        }
        return DM_OK;
    }
    size_t threads = omp_in_parallel() || dm_parallel_inside() ? 1 : (size_t)omp_get_max_threads();
    if (threads == 1) {
        return multiply_rows(precision, p, 0, p->m);
    }
    dm_failure failure = {DM_OK, ""};
#pragma omp parallel num_threads((int)threads)
    {
        size_t share = (p->m + threads * ROWS_TOGETHER - 1) / (threads * ROWS_TOGETHER) * ROWS_TOGETHER;
        size_t begin = share * (size_t)omp_get_thread_num();
        size_t end = begin + share < p->m ? begin + share : p->m;
        dm_failure_note(&failure, begin < end ? multiply_rows(precision, p, begin, end) : DM_OK);
    }
    return dm_failure_raise(&failure);
}

dm_status dm_matmul_forward(dm_precision precision, float *y, size_t ldy, const float *x, size_t ldx, const float *w, size_t ldw,
                            size_t m, size_t n, size_t k, bool accumulate) {
    return multiply(precision, &(product){false, true, accumulate, m, n, k, x, w, y, ldx, ldw, ldy});
}

dm_status dm_matmul_input_gradient(dm_precision precision, float *dx, size_t lddx, const float *dy, size_t lddy, const float *w,
                                   size_t ldw, size_t m, size_t n, size_t k, bool accumulate) {
    return multiply(precision, &(product){false, false, accumulate, m, k, n, dy, w, dx, lddy, ldw, lddx});
}

dm_status dm_matmul_weight_gradient(dm_precision precision, float *dw, size_t lddw, const float *dy, size_t lddy, const float *x,
                                    size_t ldx, size_t m, size_t n, size_t k, bool accumulate) {
    return multiply(precision, &(product){true, false, accumulate, n, k, m, dy, x, dw, lddy, ldx, lddw});
}
