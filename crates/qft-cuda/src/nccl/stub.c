// NCCL as the tests need it: every call is written down, and `stub_fail` names one that fails.
#include <stddef.h>
#include <stdio.h>
#include <string.h>

typedef struct { char internal[128]; } ncclUniqueId;
typedef struct ncclComm *ncclComm_t;
typedef void *cudaStream_t;

static char calls[4096];
static const char *failing = "";

#define SAY(...) snprintf(calls + strlen(calls), sizeof calls - strlen(calls), __VA_ARGS__)
#define END(name) return strcmp(failing, name) == 0 ? 2 : 0

const char *stub_calls(void) { return calls; }
void stub_fail(const char *name) { failing = name; }

int ncclGetVersion(int *version) { *version = 22703; return 0; }
const char *ncclGetErrorString(int result) { return result == 2 ? "unhandled system error" : "no error"; }
const char *ncclGetLastError(ncclComm_t comm) { return comm ? "connection reset by peer\n" : ""; }

int ncclGetUniqueId(ncclUniqueId *id) {
    for (int i = 0; i < 128; i++) id->internal[i] = (char)(3 * i);
    END("ncclGetUniqueId");
}

int ncclCommInitRank(ncclComm_t *comm, int size, ncclUniqueId id, int rank) {
    int sum = 0;
    for (int i = 0; i < 128; i++) sum += (unsigned char)id.internal[i];
    SAY("join %d of %d by %d;", rank, size, sum);
    *comm = (ncclComm_t)0x77;
    END("ncclCommInitRank");
}

int ncclCommAbort(ncclComm_t comm) { SAY("abort %p;", (void *)comm); return 0; }

int ncclCommGetAsyncError(ncclComm_t comm, int *failure) {
    (void)comm;
    *failure = strcmp(failing, "later") == 0 ? 2 : 0;
    END("ncclCommGetAsyncError");
}

int ncclAllReduce(const void *send, void *receive, size_t count, int type, int op, ncclComm_t comm, cudaStream_t stream) {
    SAY("reduce %p %p %zu type %d op %d %p %p;", send, receive, count, type, op, (void *)comm, stream);
    END("ncclAllReduce");
}

int ncclReduceScatter(const void *send, void *receive, size_t count, int type, int op, ncclComm_t comm, cudaStream_t stream) {
    SAY("scatter %p %p %zu type %d op %d %p %p;", send, receive, count, type, op, (void *)comm, stream);
    END("ncclReduceScatter");
}

int ncclBroadcast(const void *send, void *receive, size_t count, int type, int root, ncclComm_t comm, cudaStream_t stream) {
    SAY("broadcast %p %p %zu type %d root %d %p %p;", send, receive, count, type, root, (void *)comm, stream);
    END("ncclBroadcast");
}

int ncclGroupStart(void) { SAY("(;"); return 0; }
int ncclGroupEnd(void) { SAY(");"); END("ncclGroupEnd"); }
