/* A stand-in for libnvidia-ml.so.1, so that tests run the real nvidia-ml-py without an NVIDIA driver.
 *
 * The file named by NVML_STANDIN is read anew at every call, so that a test can change the machine while it is being
 * read. Each line is a key and a value:
 *
 *   gpus 2                        number of GPUs
 *   gpu.0.power_mw 250000         a value of one GPU; every value has a default
 *   gpu.0.name NVIDIA H100        texts go to the end of the line
 *   gpu.1.lost 1                  every call on this GPU answers GPU_IS_LOST
 *   gpu.0.field.82 54             one answer of nvmlDeviceGetFieldValues; a field that is not listed is not supported
 *   gpu.0.process.0 4242 1048576 compute    pid, bytes (-1: not told), list
 *   fail.nvmlInit 18              a call answers this code, on all GPUs
 *   gpu.0.fail.nvmlDeviceGetPowerUsage 3    ... or on one
 *
 * Built with -DOLD_DRIVER it lacks the functions that came late, as an old driver does. The declarations below are our
 * own, of the documented calls only, in the layout that nvidia-ml-py passes.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, NOT_INITIALIZED = 1, BAD_ARGUMENT = 2, NOT_SUPPORTED = 3, TOO_SMALL = 7, LOST = 15, MAX_GPUS = 16 };

typedef struct { int index; } gpu_t;
typedef struct { uint64_t total, free, used; } memory_t;
typedef struct { uint32_t version; uint64_t total, reserved, free, used; } memory_v2_t;
typedef struct { uint32_t gpu, memory; } utilization_t;
typedef struct { uint32_t pid; uint64_t used; uint32_t gpu_instance, compute_instance; } process_t;
typedef union { double d; uint32_t u; uint64_t ull; int64_t sll; } value_t;
typedef struct { uint32_t id, scope; int64_t timestamp, latency_us; int type, status; value_t value; } field_t;
typedef struct { char legacy_id[16]; uint32_t domain, bus, device, device_id, subsystem_id; char id[32]; } pci_t;
typedef struct { uint32_t version, supported; } gpm_support_t;
typedef struct { int gpu; double number; } gpm_sample_t;
typedef struct { uint32_t id; int status; double value; const char *names[3]; } gpm_metric_t;
typedef struct { uint32_t version, count; gpm_sample_t *older, *newer; gpm_metric_t metrics[]; } gpm_request_t;

static gpu_t gpus[MAX_GPUS];
static int users;

/* Copies the rest of the line that begins with the key; returns whether there is one. */
static int text_of(const char *key, char *out, size_t size) {
    const char *path = getenv("NVML_STANDIN");
    FILE *file = path ? fopen(path, "r") : NULL;
    char line[512];
    size_t length = strlen(key);
    int found = 0;
    while (file && !found && fgets(line, sizeof line, file)) {
        if (strncmp(line, key, length) == 0 && line[length] == ' ') {
            line[strcspn(line, "\n")] = 0;
            snprintf(out, size, "%s", line + length + 1);
            found = 1;
        }
    }
    if (file) fclose(file);
    return found;
}

static double number(const char *key, double otherwise) {
    char text[256];
    return text_of(key, text, sizeof text) ? strtod(text, NULL) : otherwise;
}

static double of(const gpu_t *gpu, const char *name, double otherwise) {
    char key[160];
    snprintf(key, sizeof key, "gpu.%d.%s", gpu->index, name);
    return number(key, otherwise);
}

static void name_of(const gpu_t *gpu, const char *name, const char *otherwise, char *out, size_t size) {
    char key[160];
    snprintf(key, sizeof key, "gpu.%d.%s", gpu->index, name);
    if (!text_of(key, out, size)) snprintf(out, size, "%s", otherwise);
}

static int fault(const gpu_t *gpu, const char *function) {
    char key[160];
    snprintf(key, sizeof key, "fail.%s", function);
    int code = (int)number(key, OK);
    if (!users && code == OK) code = NOT_INITIALIZED;
    if (gpu && code == OK && of(gpu, "lost", 0)) code = LOST;
    if (gpu && code == OK) code = (int)of(gpu, key, OK);
    return code;
}

#define CHECK(gpu) do { int code = fault(gpu, __func__); if (code != OK) return code; } while (0)

/* One unsigned number of one GPU; a negative default means "not supported". */
#define NUMBER(function, type, key, otherwise)               \
    int function(gpu_t *gpu, type *out) {                    \
        CHECK(gpu);                                          \
        double value = of(gpu, key, otherwise);              \
        if (value < 0) return NOT_SUPPORTED;                 \
        *out = (type)value;                                  \
        return OK;                                           \
    }

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    int code = (int)number("fail.nvmlInit", OK);
    if (code == OK) users++;
    return code;
}

int nvmlShutdown(void) {
    CHECK(NULL);
    users--;
    return OK;
}

int nvmlSystemGetDriverVersion(char *out, unsigned size) {
    CHECK(NULL);
    if (!text_of("driver", out, size)) snprintf(out, size, "570.86");
    return OK;
}

int nvmlSystemGetCudaDriverVersion_v2(int *out) {
    CHECK(NULL);
    *out = (int)number("cuda", 12080);
    return OK;
}

int nvmlDeviceGetCount_v2(unsigned *out) {
    CHECK(NULL);
    *out = (unsigned)number("gpus", 0);
    return OK;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, gpu_t **out) {
    if (index >= MAX_GPUS) return BAD_ARGUMENT;
    gpus[index].index = (int)index;
    CHECK(&gpus[index]);
    *out = &gpus[index];
    return OK;
}

int nvmlDeviceGetName(gpu_t *gpu, char *out, unsigned size) {
    CHECK(gpu);
    name_of(gpu, "name", "Stand-in GPU", out, size);
    return OK;
}

int nvmlDeviceGetUUID(gpu_t *gpu, char *out, unsigned size) {
    CHECK(gpu);
    snprintf(out, size, "GPU-%08d", gpu->index);
    return OK;
}

int nvmlDeviceGetPciInfo_v3(gpu_t *gpu, pci_t *out) {
    CHECK(gpu);
    snprintf(out->id, sizeof out->id, "00000000:%02X:00.0", 0x17 + gpu->index);
    return OK;
}

int nvmlDeviceGetCudaComputeCapability(gpu_t *gpu, int *major, int *minor) {
    CHECK(gpu);
    *major = (int)of(gpu, "capability_major", 9);
    *minor = (int)of(gpu, "capability_minor", 0);
    return OK;
}

int nvmlDeviceGetUtilizationRates(gpu_t *gpu, utilization_t *out) {
    CHECK(gpu);
    out->gpu = (unsigned)of(gpu, "utilization", 0);
    out->memory = (unsigned)of(gpu, "memory_utilization", 0);
    return OK;
}

int nvmlDeviceGetMemoryInfo(gpu_t *gpu, memory_t *out) {
    CHECK(gpu);
    out->total = (uint64_t)of(gpu, "memory_total", 85899345920.0);
    out->used = (uint64_t)(of(gpu, "memory_used", 0) + of(gpu, "memory_reserved", 0));
    out->free = out->total - out->used;
    return OK;
}

static int pair(const gpu_t *gpu, const char *key, double otherwise, unsigned *first, unsigned *second) {
    double value = of(gpu, key, otherwise);
    if (value < 0) return NOT_SUPPORTED;
    *first = *second = (unsigned)value;
    return OK;
}

int nvmlDeviceGetEncoderUtilization(gpu_t *gpu, unsigned *busy, unsigned *period) {
    CHECK(gpu);
    return pair(gpu, "encoder", 0, busy, period);
}

int nvmlDeviceGetDecoderUtilization(gpu_t *gpu, unsigned *busy, unsigned *period) {
    CHECK(gpu);
    return pair(gpu, "decoder", 0, busy, period);
}

int nvmlDeviceGetEccMode(gpu_t *gpu, unsigned *now, unsigned *pending) {
    CHECK(gpu);
    return pair(gpu, "ecc", -1, now, pending);
}

int nvmlDeviceGetMigMode(gpu_t *gpu, unsigned *now, unsigned *pending) {
    CHECK(gpu);
    return pair(gpu, "mig", -1, now, pending);
}

int nvmlDeviceGetTemperature(gpu_t *gpu, int sensor, unsigned *out) {
    (void)sensor;
    CHECK(gpu);
    *out = (unsigned)of(gpu, "temperature", 30);
    return OK;
}

static int clock_of(const gpu_t *gpu, const char *prefix, int type, unsigned *out) {
    char key[64];
    snprintf(key, sizeof key, "%s.%d", prefix, type);
    *out = (unsigned)of(gpu, key, 210);
    return OK;
}

int nvmlDeviceGetClockInfo(gpu_t *gpu, int type, unsigned *out) {
    CHECK(gpu);
    return clock_of(gpu, "clock", type, out);
}

int nvmlDeviceGetMaxClockInfo(gpu_t *gpu, int type, unsigned *out) {
    CHECK(gpu);
    return clock_of(gpu, "max_clock", type, out);
}

int nvmlDeviceGetTotalEccErrors(gpu_t *gpu, int kind, int span, unsigned long long *out) {
    CHECK(gpu);
    char key[64];
    snprintf(key, sizeof key, "ecc_errors.%d.%d", kind, span);
    double value = of(gpu, key, -1);
    if (value < 0) return NOT_SUPPORTED;
    *out = (unsigned long long)value;
    return OK;
}

NUMBER(nvmlDeviceGetPowerUsage, unsigned, "power_mw", 60000)
NUMBER(nvmlDeviceGetEnforcedPowerLimit, unsigned, "power_limit_mw", 700000)
NUMBER(nvmlDeviceGetFanSpeed, unsigned, "fan", -1)
NUMBER(nvmlDeviceGetCurrPcieLinkGeneration, unsigned, "pcie_generation", 5)
NUMBER(nvmlDeviceGetCurrPcieLinkWidth, unsigned, "pcie_width", 16)
NUMBER(nvmlDeviceGetMaxPcieLinkGeneration, unsigned, "pcie_generation", 5)
NUMBER(nvmlDeviceGetMaxPcieLinkWidth, unsigned, "pcie_width", 16)
NUMBER(nvmlDeviceGetCurrentClocksThrottleReasons, unsigned long long, "reasons", 0)

/* Fills a list of processes; with no array, or one that is too small, tells the size as the driver does. */
static int listed(const gpu_t *gpu, const char *list, unsigned *count, process_t *out) {
    unsigned found = 0, room = *count;
    for (int number_in_file = 0;; number_in_file++) {
        char key[64], text[256], use[16];
        unsigned pid;
        long long used;
        snprintf(key, sizeof key, "gpu.%d.process.%d", gpu->index, number_in_file);
        if (!text_of(key, text, sizeof text)) break;
        if (sscanf(text, "%u %lld %15s", &pid, &used, use) != 3 || strcmp(use, list) != 0) continue;
        if (out && found < room) out[found] = (process_t){pid, used < 0 ? UINT64_MAX : (uint64_t)used, 0, 0};
        found++;
    }
    *count = found;
    return found > (out ? room : 0) ? TOO_SMALL : OK;
}

int nvmlDeviceGetComputeRunningProcesses_v2(gpu_t *gpu, unsigned *count, process_t *out) {
    CHECK(gpu);
    return listed(gpu, "compute", count, out);
}

int nvmlDeviceGetGraphicsRunningProcesses_v2(gpu_t *gpu, unsigned *count, process_t *out) {
    CHECK(gpu);
    return listed(gpu, "graphics", count, out);
}

#ifndef OLD_DRIVER

int nvmlDeviceGetMemoryInfo_v2(gpu_t *gpu, memory_v2_t *out) {
    CHECK(gpu);
    if (out->version != (sizeof *out | 2 << 24)) return 25;
    out->total = (uint64_t)of(gpu, "memory_total", 85899345920.0);
    out->reserved = (uint64_t)of(gpu, "memory_reserved", 0);
    out->used = (uint64_t)of(gpu, "memory_used", 0);
    out->free = out->total - out->used - out->reserved;
    return OK;
}

int nvmlDeviceGetComputeRunningProcesses_v3(gpu_t *gpu, unsigned *count, process_t *out) {
    CHECK(gpu);
    return listed(gpu, "compute", count, out);
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(gpu_t *gpu, unsigned *count, process_t *out) {
    CHECK(gpu);
    return listed(gpu, "graphics", count, out);
}

NUMBER(nvmlDeviceGetCurrentClocksEventReasons, unsigned long long, "reasons", 0)
NUMBER(nvmlDeviceGetTotalEnergyConsumption, unsigned long long, "energy_mj", 0)

int nvmlDeviceGetFieldValues(gpu_t *gpu, int count, field_t *fields) {
    CHECK(gpu);
    for (int i = 0; i < count; i++) {
        char key[64];
        snprintf(key, sizeof key, "field.%u", fields[i].id);
        double value = of(gpu, key, -1);
        int needs_all_links = fields[i].id == 138 || fields[i].id == 139;
        fields[i].status = value < 0 ? NOT_SUPPORTED : needs_all_links && fields[i].scope != UINT32_MAX ? BAD_ARGUMENT : OK;
        fields[i].type = fields[i].id == 82 || fields[i].id == 91 ? 1 : 3;
        if (fields[i].type == 1) fields[i].value.u = (uint32_t)value;
        else fields[i].value.ull = (uint64_t)value;
    }
    return OK;
}

int nvmlGpmQueryDeviceSupport(gpu_t *gpu, gpm_support_t *out) {
    CHECK(gpu);
    out->supported = (unsigned)of(gpu, "gpm", 0);
    return OK;
}

int nvmlGpmSampleAlloc(gpm_sample_t **out) {
    CHECK(NULL);
    *out = calloc(1, sizeof **out);
    return OK;
}

int nvmlGpmSampleFree(gpm_sample_t *sample) {
    free(sample);
    return OK;
}

int nvmlGpmSampleGet(gpu_t *gpu, gpm_sample_t *sample) {
    static double taken;
    CHECK(gpu);
    sample->gpu = gpu->index;
    sample->number = ++taken;
    return OK;
}

int nvmlGpmMetricsGet(gpm_request_t *request) {
    CHECK(NULL);
    if (request->version != 1 || request->older->number >= request->newer->number) return BAD_ARGUMENT;
    for (unsigned i = 0; i < request->count; i++) {
        char key[64];
        snprintf(key, sizeof key, "gpm.%u", request->metrics[i].id);
        double value = of(&gpus[request->newer->gpu], key, -1);
        request->metrics[i].status = value < 0 ? NOT_SUPPORTED : OK;
        request->metrics[i].value = value;
    }
    return OK;
}

#endif
