/* The three products of a linear layer against sums in double precision, on odd shapes, strides and both precisions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <math.h>
#include <omp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/random.h"
#include "kernels/matmul.h"
#include "kernels/vector.h"

static float *random_matrix(dm_random *random, size_t rows, size_t stride) {
    float *x = dm_alloc(rows, stride * sizeof(float));
    assert_non_null(x);
    for (size_t i = 0; i < rows * stride; i++) {
        x[i] = (float)dm_random_normal(random);
    }
    return x;
}

static double rounded(float x, dm_precision precision) {
    if (precision == DM_PRECISION_BF16) {
        dm_vector()->round_bf16(&x, &x, 1);
    }
    return (double)x;
}

typedef enum kind { FORWARD, INPUT_GRADIENT, WEIGHT_GRADIENT, KINDS } kind;

/* Element (i, j) of the result: a sum over l of left * right, and of their absolute values, which bounds rounding. */
static double exact(kind which, dm_precision precision, const float *y, size_t ldy, const float *x, size_t ldx, const float *w,
                    size_t ldw, size_t i, size_t j, size_t length, double *bound) {
    double sum = 0.0;
    *bound = 0.0;
    for (size_t l = 0; l < length; l++) {
        float left = which == FORWARD ? x[i * ldx + l] : which == INPUT_GRADIENT ? y[i * ldy + l] : y[l * ldy + i];
        float right = which == FORWARD ? w[j * ldw + l] : which == INPUT_GRADIENT ? w[l * ldw + j] : x[l * ldx + j];
        double term = rounded(left, precision) * rounded(right, precision);
        sum += term;
        *bound += fabs(term);
    }
    return sum;
}

static void check(kind which, dm_precision precision, size_t m, size_t n, size_t k, bool accumulate, dm_random *random) {
    size_t ldy = n + dm_random_next(random) % 3;
    size_t ldx = k + dm_random_next(random) % 3;
    size_t ldw = k + dm_random_next(random) % 3;
    float *y = random_matrix(random, m, ldy);
    float *x = random_matrix(random, m, ldx);
    float *w = random_matrix(random, n, ldw);
    float *out = which == FORWARD ? y : which == INPUT_GRADIENT ? x : w;
    size_t rows = which == WEIGHT_GRADIENT ? n : m;
    size_t columns = which == FORWARD ? n : k;
    size_t length = which == FORWARD ? k : which == INPUT_GRADIENT ? n : m;
    size_t stride = which == FORWARD ? ldy : which == INPUT_GRADIENT ? ldx : ldw;
    float *before = dm_alloc(rows, stride * sizeof(float));
    memcpy(before, out, rows * stride * sizeof(float));
    dm_status status = which == FORWARD ? dm_matmul_forward(precision, y, ldy, x, ldx, w, ldw, m, n, k, accumulate)
                       : which == INPUT_GRADIENT
                           ? dm_matmul_input_gradient(precision, x, ldx, y, ldy, w, ldw, m, n, k, accumulate)
                           : dm_matmul_weight_gradient(precision, w, ldw, y, ldy, x, ldx, m, n, k, accumulate);
    assert_int_equal(status, DM_OK);
    for (size_t i = 0; i < rows; i++) {
        for (size_t j = 0; j < stride; j++) {
            double got = (double)out[i * stride + j];
            double old = (double)before[i * stride + j];
            if (j >= columns) {
                assert_true(got == old); /* between the rows nothing is touched */
                continue;
            }
            double bound;
            double sum = exact(which, precision, y, ldy, x, ldx, w, ldw, i, j, length, &bound);
            sum += accumulate ? old : 0.0;
            assert_true(fabs(got - sum) <= 4e-6 * (bound + fabs(old)) + 1e-12);
        }
    }
    dm_free(before);
    dm_free(y);
    dm_free(x);
    dm_free(w);
}

static const size_t shapes[][3] = {{1, 1, 1},   {3, 5, 7},      {64, 64, 64},    {65, 33, 129}, {2, 300, 40},
                                   {300, 2, 9}, {40, 257, 300}, {129, 31, 1025}, {0, 5, 3},     {7, 513, 600}};

static void products_are_exact(void **state) {
    (void)state;
    dm_random random;
    dm_random_seed(&random, 7);
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        for (int which = 0; which < KINDS; which++) {
            for (int options = 0; options < 4; options += DM_SLOW ? 3 : 1) {
                dm_precision precision = (options & 1) != 0 ? DM_PRECISION_BF16 : DM_PRECISION_F32;
                check((kind)which, precision, shapes[s][0], shapes[s][1], shapes[s][2], (options & 2) != 0, &random);
            }
        }
    }
}

static void no_rows_to_sum_give_zero(void **state) {
    (void)state;
    float w[6] = {1, 2, 3, 4, 5, 6};
    const float nothing = 0.0f;
    assert_int_equal(dm_matmul_weight_gradient(DM_PRECISION_F32, w, 3, &nothing, 2, &nothing, 3, 0, 2, 3, true), DM_OK);
    assert_true(w[0] == 1.0f && w[5] == 6.0f);
    assert_int_equal(dm_matmul_weight_gradient(DM_PRECISION_F32, w, 3, &nothing, 2, &nothing, 3, 0, 2, 3, false), DM_OK);
    for (int i = 0; i < 6; i++) {
        assert_true(w[i] == 0.0f);
    }
}

/* Inside a parallel region each thread multiplies alone, and gets what it gets with one thread outside. */
static void inside_a_parallel_region(void **state) {
    (void)state;
    enum { M = 130, N = 70, K = 90, THREADS = 3 };
    dm_random random;
    dm_random_seed(&random, 9);
    float *x = random_matrix(&random, M, K);
    float *w = random_matrix(&random, N, K);
    float *y = dm_alloc((THREADS + 1) * M, N * sizeof(float));
    int before = dm_threads();
    dm_set_threads(1);
    assert_int_equal(dm_matmul_forward(DM_PRECISION_F32, y, N, x, K, w, K, M, N, K, false), DM_OK);
    dm_set_threads(before);
#pragma omp parallel for num_threads(THREADS)
    for (size_t t = 1; t <= THREADS; t++) {
        dm_matmul_forward(DM_PRECISION_F32, y + t * M * N, N, x, K, w, K, M, N, K, false);
    }
    for (size_t t = 1; t <= THREADS; t++) {
        assert_memory_equal(y, y + t * M * N, M * N * sizeof(float));
    }
    dm_free(x);
    dm_free(w);
    dm_free(y);
}

static void strides_avoid_large_powers_of_two(void **state) {
    (void)state;
    for (size_t n = 1; n < 3000; n++) {
        size_t stride = dm_matmul_stride(n);
        assert_true(stride >= n && stride <= n + 31 && stride % 16 == 0 && stride % 128 != 0);
    }
}

static atomic_int handled, misplaced; /* the handler runs on any thread that lets it */
static uintptr_t stack_begin, stack_end;

static void on_alarm(int number) {
    const uintptr_t here = (uintptr_t)&number;
    const int before = errno;
    atomic_fetch_add(&handled, 1);
    if (gettid() == getpid() && (here < stack_begin || here >= stack_end)) { /* other threads have other stacks */
        atomic_fetch_add(&misplaced, 1);
    }
    errno = before;
}

/* oneDNN moves the stack pointer into the heap, where a handler must not run: signals wait until a product is done. */
static void signals_come_between_products(void **state) {
    (void)state;
    enum { M = 96, N = 320, K = 32, WANTED = DM_EMULATED ? 3 : DM_SLOW ? 50 : 500, MOST = 200000 };
    pthread_attr_t attributes;
    void *begin;
    size_t size;
    assert_int_equal(pthread_getattr_np(pthread_self(), &attributes), 0);
    assert_int_equal(pthread_attr_getstack(&attributes, &begin, &size), 0);
    pthread_attr_destroy(&attributes);
    stack_begin = (uintptr_t)begin;
    stack_end = stack_begin + size;
    dm_random random;
    dm_random_seed(&random, 5);
    float *y = random_matrix(&random, M, N), *x = random_matrix(&random, M, K), *w = random_matrix(&random, N, K);
    const int threads = omp_get_max_threads();
    omp_set_num_threads(1);
    const struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
    const struct itimerval often = {.it_interval = {.tv_usec = 100}, .it_value = {.tv_usec = 100}}, never = {{0, 0}, {0, 0}};
    struct sigaction old;
    assert_int_equal(sigaction(SIGALRM, &action, &old), 0);
    for (int precision = 0; precision < 2; precision++) {
        atomic_store(&handled, 0);
        atomic_store(&misplaced, 0);
        assert_int_equal(setitimer(ITIMER_REAL, &often, NULL), 0);
        dm_status status = DM_OK;
        for (int i = 0; i < MOST && handled < WANTED && status == DM_OK; i++) {
            status = dm_matmul_input_gradient((dm_precision)precision, x, K, y, N, w, K, M, N, K, false);
        }
        assert_int_equal(setitimer(ITIMER_REAL, &never, NULL), 0);
        assert_int_equal(status, DM_OK);
        assert_true(handled > 0);
        assert_int_equal(misplaced, 0);
    }
    sigaction(SIGALRM, &old, NULL);
    omp_set_num_threads(threads);
    dm_free(y);
    dm_free(x);
    dm_free(w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_are_exact),
        cmocka_unit_test(no_rows_to_sum_give_zero),
        cmocka_unit_test(inside_a_parallel_region),
        cmocka_unit_test(strides_avoid_large_powers_of_two),
        cmocka_unit_test(signals_come_between_products),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
