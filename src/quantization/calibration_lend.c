#include "quantization/calibration_lend.h"

static double share(double noise, double distance) {
    return noise < distance ? noise / distance : 1.0;
}

double dm_calibration_lent(const float *own, const float *mean, size_t columns, double tokens) {
    double trace = 0.0, norm = 0.0, distance = 0.0;
    if (tokens <= 0.0) {
        return 1.0;
    }
    for (size_t r = 0; r < columns; r++) {
        double row_norm = 0.0, row_distance = 0.0;
        for (size_t c = 0; c < r; c++) {
            const double m = (double)mean[c], difference = (double)own[c] - m;
            row_norm += m * m;
            row_distance += difference * difference;
        }
        const double m = (double)mean[r], difference = (double)own[r] - m;
        norm += 2.0 * row_norm + m * m;
        distance += 2.0 * row_distance + difference * difference;
        trace += m;
        mean += r + 1;
        own += r + 1;
    }
    return share((trace * trace + norm) / tokens, distance);
}

double dm_calibration_lent_diagonal(const float *own, const float *mean, size_t columns, double tokens) {
    double norm = 0.0, distance = 0.0;
    if (tokens <= 0.0) {
        return 1.0;
    }
    for (size_t i = 0; i < columns; i++) {
        const double difference = (double)own[i] - (double)mean[i];
        norm += (double)mean[i] * (double)mean[i];
        distance += difference * difference;
    }
    return share(2.0 * norm / tokens, distance);
}

double dm_calibration_lent_slope(double tokens) {
    const double worth = 8.0;
    return worth / (worth + tokens);
}

double dm_calibration_mass(double squares, double all_squares, uint64_t all_visits) {
    return squares + (all_visits > 0 ? 0.5 * all_squares / (double)all_visits : 0.0);
}

double dm_calibration_effective(double squares, double fourths) {
    return fourths > 0.0 ? squares * squares / fourths : 0.0;
}
