#include "visualization/scale.h"

#include <math.h>

static const double MOST = 1e300; /* of a value: differences stay finite */

void dm_range_of(const double *values, size_t n, bool positive, double *low, double *high) {
    for (size_t i = 0; i < n; i++) {
        if (isfinite(values[i]) && (!positive || values[i] > 0.0)) {
            *low = fmin(*low, values[i]);
            *high = fmax(*high, values[i]);
        }
    }
}

/* The round number, 1, 2 or 5 times a power of ten, that divides a range into five parts or so. */
static double round_step(double range) {
    double raw = range / 5.0, power = pow(10.0, floor(log10(raw)));
    double times = raw / power;
    return power * (times <= 1.0 ? 1.0 : times <= 2.0 ? 2.0 : times <= 5.0 ? 5.0 : 10.0);
}

static void add_tick(dm_scale *s, double value) {
    double slack = s->logarithmic ? 0.0 : 1e-9 * (s->high - s->low);
    if (s->n_ticks < DM_SCALE_TICKS && value >= s->low - slack && value <= s->high + slack) {
        s->ticks[s->n_ticks++] = fabs(value) < slack ? 0.0 : value;
    }
}

static void make_linear(dm_scale *s, bool tight) {
    double step = round_step(s->high - s->low);
    if (!tight) {
        s->low = fmin(s->low, step * floor(s->low / step + 1e-9)); /* what is a round number but for rounding is one */
        s->high = fmax(s->high, step * ceil(s->high / step - 1e-9));
    }
    const double first = ceil(s->low / step - 1e-9);
    for (int i = 0; i < DM_SCALE_TICKS; i++) {
        add_tick(s, step * (first + i));
    }
}

/* Powers of ten; where there are few of them, 2 and 5 times these too. */
static void make_logarithmic(dm_scale *s, bool tight) {
    const int first = (int)floor(log10(s->low) + 1e-9), last = (int)ceil(log10(s->high) - 1e-9);
    const int every = 1 + (last - first) / (DM_SCALE_TICKS - 1);
    if (!tight) {
        s->low = fmin(s->low, pow(10.0, first));
        s->high = fmax(s->high, pow(10.0, last));
    }
    for (int p = first; p <= last; p += every) {
        add_tick(s, pow(10.0, p));
        if (last - first <= 2) {
            add_tick(s, 2.0 * pow(10.0, p));
            add_tick(s, 5.0 * pow(10.0, p));
        }
    }
}

dm_scale dm_scale_make(double low, double high, bool logarithmic, bool tight) {
    dm_scale s = {.logarithmic = logarithmic && low > 0.0 && isfinite(low)};
    if (!(low <= high)) {
        low = s.logarithmic ? 1.0 : 0.0;
        high = 1.0;
    }
    low = s.logarithmic ? fmax(low, 1.0 / MOST) : low;
    high = s.logarithmic ? fmax(high, low) : high;
    s.low = fmax(fmin(low, MOST), -MOST);
    s.high = fmax(fmin(high, MOST), -MOST);
    double least = fmax(1e-9 * fmax(fabs(s.low), fabs(s.high)), 1e-290);
    if (s.logarithmic && !(s.high > s.low * 1.000001)) {
        s.low /= 2.0;
        s.high *= 2.0;
    } else if (!s.logarithmic && !(s.high - s.low > least)) {
        double around = s.low != 0.0 ? fmax(0.5 * fabs(s.low), least) : 0.5;
        s.low -= around;
        s.high += around;
    }
    (s.logarithmic ? make_logarithmic : make_linear)(&s, tight);
    return s;
}

double dm_scale_place(const dm_scale *scale, double value) {
    double share = scale->logarithmic ? value > 0.0 ? log(value / scale->low) / log(scale->high / scale->low) : NAN
                                      : (value - scale->low) / (scale->high - scale->low);
    return scale->start + share * (scale->stop - scale->start);
}
