/* Calls all that the header has, so that a linker has to find it; it is never run. */
#include "lockstep.h"
#include "lockstep_descriptor.h"

LOCKSTEP_DESCRIPTOR("battery-companion", "transmitter", "c3-devkit", 1, 2, 3, 1, 0, 0, 1, 2, 0, 0);

static uint8_t memory[LOCKSTEP_MEMORY_BYTES];

void lockstep_panic(const char *message) {
    (void)message;
    for (;;) {
    }
}

static int32_t flash_read(void *context, uint32_t offset, uint8_t *bytes, uint32_t length) {
    (void)context, (void)offset, (void)bytes, (void)length;
    return -1;
}

static int32_t flash_write(void *context, uint32_t offset, const uint8_t *bytes, uint32_t length) {
    (void)context, (void)offset, (void)bytes, (void)length;
    return -1;
}

static int32_t flash_erase(void *context, uint32_t offset, uint32_t length) {
    (void)context, (void)offset, (void)length;
    return -1;
}

int main(void) {
    static LockstepSetup setup;
    static LockstepFrame frame;
    static LockstepEffect effect;
    static LockstepState state;
    static LockstepPeer peer;
    static LockstepMemory found;
    LockstepCallbacks callbacks = {0};
    Lockstep *lockstep;
    LockstepGate gate;
    uint64_t due;
    size_t taken;
    callbacks.flash_read = flash_read;
    callbacks.flash_write = flash_write;
    callbacks.flash_erase = flash_erase;
    setup.descriptor = lockstep_descriptor;
    int sum = lockstep_init(memory, sizeof memory, 0, &setup, &callbacks, &lockstep);
    sum += lockstep_tick(lockstep, 0) + lockstep_next_wake(lockstep, &due);
    sum += lockstep_receive(lockstep, 0, frame.to, frame.bytes, frame.length, &gate);
    sum += lockstep_poll_frame(lockstep, 0, &frame) + lockstep_poll_effect(lockstep, &effect);
    sum += lockstep_answer_rest(lockstep, LOCKSTEP_REST_AT_REST);
    sum += lockstep_set_health(lockstep, 0, true) + lockstep_set_pause(lockstep, 0);
    sum += lockstep_send(lockstep, frame.bytes, 1);
    sum += lockstep_set_password(lockstep, 0, "correct horse") + lockstep_state(lockstep, &state);
    sum += lockstep_peer(lockstep, 0, &peer) + lockstep_memory(lockstep, &found);
    sum += lockstep_upload_begin(lockstep, 0) + lockstep_upload_end(lockstep, 0);
    sum += lockstep_upload_push(lockstep, 0, frame.bytes, 0, &taken);
    sum += lockstep_abort(lockstep, 0) + lockstep_revert(lockstep, 0);
    sum += lockstep_adopt(lockstep, 0, frame.to, "correct horse");
    sum += lockstep_error_text(sum)[0];
    return sum + lockstep_end(lockstep);
}
