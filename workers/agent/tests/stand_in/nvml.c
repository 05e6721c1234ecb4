/*
 * A stand-in for NVIDIA's libnvidia-ml.so.1: answers what `machine.rs` asks through nvml-wrapper, as the driver would.
 * The tests compile it themselves, once for each kind of machine (see gpus.rs); nothing that is shipped contains it.
 *
 * By hand: cc -shared -fPIC -o /tmp/nvml/libnvidia-ml.so.1 nvml.c && LD_LIBRARY_PATH=/tmp/nvml reelyard doctor
 *
 * Numbers and structures are those of NVIDIA's public nvml.h.
 */
#include <string.h>

/* How many cards there are: 0 to 2. */
#ifndef CARDS
#define CARDS 2
#endif
/* What starting the library answers: 0, or 9 for NVML_ERROR_DRIVER_NOT_LOADED. */
#ifndef INIT_ANSWER
#define INIT_ANSWER 0
#endif
/* What counting answers. */
#ifndef COUNT_ANSWER
#define COUNT_ANSWER 0
#endif
/* This card, and all after it, are off the bus (NVML_ERROR_GPU_IS_LOST). */
#ifndef FIRST_LOST
#define FIRST_LOST CARDS
#endif
/* What asking for memory answers: 3 on machines whose card shares the processor's memory. */
#ifndef MEMORY_ANSWER
#define MEMORY_ANSWER 0
#endif

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, INSUFFICIENT_SIZE = 7, GPU_IS_LOST = 15, ARGUMENT_VERSION_MISMATCH = 25 };

struct card {
    const char *name;
    const char *uuid;
    unsigned long long memory_mib;
    unsigned long long free_mib;
    /* Percent; -1: the card has no encoder for H.264. */
    int encoder_free;
};

static const struct card cards[] = {
    {"NVIDIA L4", "GPU-00000000-0000-4000-8000-000000000001", 23034, 22000, 100},
    {"NVIDIA H200", "GPU-00000000-0000-4000-8000-000000000002", 143771, 143000, -1},
};

struct memory_v2 {
    unsigned int version;
    unsigned long long total, reserved, free, used;
};

static int text(char *to, unsigned int length, const char *from) {
    if (strlen(from) >= length)
        return INSUFFICIENT_SIZE;
    strcpy(to, from);
    return SUCCESS;
}

int nvmlInit_v2(void) { return INIT_ANSWER; }

int nvmlShutdown(void) { return SUCCESS; }

int nvmlSystemGetDriverVersion(char *version, unsigned int length) { return text(version, length, "570.86.15"); }

int nvmlDeviceGetCount_v2(unsigned int *count) {
    *count = CARDS;
    return COUNT_ANSWER;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned int index, const struct card **card) {
    if (index >= CARDS)
        return INVALID_ARGUMENT;
    if (index >= FIRST_LOST)
        return GPU_IS_LOST;
    *card = &cards[index];
    return SUCCESS;
}

int nvmlDeviceGetName(const struct card *card, char *name, unsigned int length) { return text(name, length, card->name); }

int nvmlDeviceGetUUID(const struct card *card, char *uuid, unsigned int length) { return text(uuid, length, card->uuid); }

int nvmlDeviceGetMemoryInfo_v2(const struct card *card, struct memory_v2 *memory) {
    if (memory->version != (sizeof(struct memory_v2) | (2u << 24)))
        return ARGUMENT_VERSION_MISMATCH;
    memory->total = card->memory_mib << 20;
    memory->free = card->free_mib << 20;
    memory->used = (card->memory_mib - card->free_mib) << 20;
    memory->reserved = 0;
    return MEMORY_ANSWER;
}

/* Type 0 is NVML_ENCODER_QUERY_H264. */
int nvmlDeviceGetEncoderCapacity(const struct card *card, int type, unsigned int *percent) {
    if (type != 0 || card->encoder_free < 0)
        return NOT_SUPPORTED;
    *percent = (unsigned int)card->encoder_free;
    return SUCCESS;
}
