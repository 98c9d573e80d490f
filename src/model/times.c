#include "model/times.h"

const char *dm_operation_name(dm_operation operation) {
    static const char *const names[DM_OPERATIONS] = {
        [DM_OPERATION_EMBEDDING] = "embedding",
        [DM_OPERATION_NORMS] = "norms",
        [DM_OPERATION_PROJECTIONS] = "projections",
        [DM_OPERATION_ATTENTION] = "attention",
        [DM_OPERATION_ROUTER] = "router",
        [DM_OPERATION_EXPERTS] = "experts",
        [DM_OPERATION_SHARED_EXPERT] = "shared_expert",
        [DM_OPERATION_FEED_FORWARD] = "feed_forward",
        [DM_OPERATION_OUTPUT] = "output",
    };
    return names[operation];
}
